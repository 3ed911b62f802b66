// SPDX-License-Identifier: MPL-2.0
//! `parakeet bench`: what a model costs on this machine, measured end to end.

use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use parakeet_engine::{Engine, EngineOptions, Event, Stream, StreamOptions};
use serde::Serialize;

use crate::audio;
use crate::failure::Failure;
use crate::streaming::{StreamArgs, Way};
use crate::transcribe::default_model;

const RATE: f64 = 16_000.0;
/// How much audio a live source hands over at a time.
const PIECE: Duration = Duration::from_millis(20);

/// Measure load time, real-time factor and memory, or how many live streams keep up
#[derive(clap::Args)]
pub struct Args {
    /// Sound file with speech; repeated as often as need be
    file: PathBuf,
    /// Model directory [default: as for transcribe]
    #[arg(long, value_name = "DIR")]
    model: Option<PathBuf>,
    /// Threads that compute, 0 for all cores
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// Seconds of audio for each measurement
    #[arg(long, default_value_t = 30)]
    seconds: u32,
    /// Run this many live streams side by side in real time instead, starting over the first second
    #[arg(long, value_name = "N")]
    streams: Option<usize>,
    /// Find how many live streams keep up in real time in each context or window, and run that many
    #[arg(long, conflicts_with = "streams")]
    live: bool,
    #[command(flatten)]
    streaming: StreamArgs,
    /// One JSON object instead of a table
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report {
    model: String,
    threads: usize,
    load_seconds: f64,
    weights_bytes: u64,
    /// To read as many bytes from memory on one core, measured beside the rest: what a step takes at least.
    read_seconds: f64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    contexts: Vec<Cost>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    live: Vec<Live>,
    /// Ways in which not even one stream keeps up.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    too_slow: Vec<String>,
}

/// One stream, as fast as it goes.
#[derive(Serialize)]
struct Cost {
    /// `look-ahead N` or the window's seconds, `LEFT-CHUNK-RIGHT`.
    way: String,
    chunk_ms: u32,
    /// Time to compute over time of the audio, median of three runs.
    real_time_factor: f64,
    least: f64,
    most: f64,
    /// Time of a chunk over the time to read the weights once.
    reads_a_chunk: f64,
    stream_bytes: usize,
}

/// Many streams in real time.
#[derive(Serialize)]
struct Live {
    way: String,
    streams: usize,
    seconds: u32,
    words: usize,
    /// From the moment the last sample of a word came in to the moment the word came out, in seconds.
    word_lag: Percentiles,
    /// From a stream's last sample to its end.
    end_lag: Percentiles,
    /// Streams whose text differs from the first one's.
    different: usize,
}

/// Of a distribution; all 0 if it is empty.
#[derive(Serialize)]
pub struct Percentiles {
    /// Median.
    pub p50: f64,
    /// 95 of 100 are less.
    pub p95: f64,
    /// 99 of 100 are less.
    pub p99: f64,
    /// The greatest.
    pub most: f64,
}

/// Measures and prints.
pub fn run(args: &Args) -> Result<(), Failure> {
    let speech = audio::read_whole(&args.file)?;
    let samples = args.seconds as usize * RATE as usize;
    let pcm: Arc<[f32]> = speech.iter().copied().cycle().take(samples).collect();

    let dir = args.model.clone().map_or_else(default_model, Ok)?;
    let started = Instant::now();
    let engine = Engine::open(&dir, &EngineOptions { threads: args.threads, ..Default::default() })?;
    let load_seconds = started.elapsed().as_secs_f64();
    let ways = args.streaming.ways(engine.config())?;
    let weights = dir.join("model.safetensors");
    let weights_bytes =
        std::fs::metadata(&weights).map_err(|e| Failure::audio(&weights, e.to_string()))?.len();
    let read_seconds = read(weights_bytes);
    let mut report = Report {
        model: engine.config().name.clone(),
        threads: args.threads,
        load_seconds,
        weights_bytes,
        read_seconds,
        contexts: Vec::new(),
        live: Vec::new(),
        too_slow: Vec::new(),
    };
    for way in &ways {
        if let Some(count) = args.streams {
            report.live.push(live(&engine, way, count, &pcm, args.seconds)?);
            break;
        }
        if args.live {
            match most_live(&engine, way, &pcm, args.seconds)? {
                Some(live) => report.live.push(live),
                None => report.too_slow.push(way.name.clone()),
            }
        } else {
            report.contexts.push(cost(&engine, way, &pcm, weights_bytes)?);
        }
    }
    print(&report, args.json);
    Ok(())
}

/// Seconds to read this many bytes from memory, median of nine.
fn read(bytes: u64) -> f64 {
    let memory: Vec<u64> = (0..bytes / 8).collect();
    let mut seconds: Vec<f64> = (0..9)
        .map(|_| {
            let started = Instant::now();
            std::hint::black_box(memory.iter().fold(0_u64, |sum, &word| sum.wrapping_add(word)));
            started.elapsed().as_secs_f64()
        })
        .collect();
    seconds.sort_by(f64::total_cmp);
    seconds[4]
}

fn cost(engine: &Arc<Engine>, way: &Way, pcm: &[f32], weights_bytes: u64) -> Result<Cost, Failure> {
    let options = StreamOptions { queue_samples: pcm.len(), ..way.options.clone() };
    let mut factors = Vec::new();
    for _ in 0..3 {
        factors.push(race(engine, &options, 1, pcm)? / (pcm.len() as f64 / RATE));
    }
    factors.sort_by(f64::total_cmp);
    Ok(Cost {
        way: way.name.clone(),
        chunk_ms: (way.chunk_seconds * 1e3).round() as u32,
        real_time_factor: factors[1],
        least: factors[0],
        most: factors[2],
        reads_a_chunk: factors[1] * way.chunk_seconds / read(weights_bytes),
        stream_bytes: engine.stream_bytes(&options)?,
    })
}

/// Seconds that `count` streams take for `pcm`, each as fast as it goes.
fn race(engine: &Arc<Engine>, options: &StreamOptions, count: usize, pcm: &[f32]) -> Result<f64, Failure> {
    let streams: Vec<_> = (0..count).map(|_| engine.stream(options)).collect::<Result<_, _>>()?;
    let started = Instant::now();
    for stream in &streams {
        // The queue holds everything, so this doesn't wait.
        stream.push(pcm).map_err(|_| Failure::Closed)?;
        stream.finish();
    }
    for stream in &streams {
        loop {
            match stream.next() {
                Some(Event::Finished { .. }) => break,
                Some(Event::Failed(error)) => return Err(error.into()),
                Some(_) => {}
                None => return Err(Failure::Closed),
            }
        }
    }
    Ok(started.elapsed().as_secs_f64())
}

/// The most streams that keep up: at their ends 95 of 100 are through with their last sample within a chunk's time.
/// Starts from what a few streams reach as fast as they go; none if not even one keeps up.
fn most_live(
    engine: &Arc<Engine>,
    way: &Way,
    pcm: &Arc<[f32]>,
    seconds: u32,
) -> Result<Option<Live>, Failure> {
    let options = StreamOptions { queue_samples: pcm.len(), ..way.options.clone() };
    let audio = pcm.len() as f64 / RATE;
    let alone = race(engine, &options, 1, pcm)?;
    let together = ((2.0 * audio / alone) as usize).clamp(2, 16);
    let mut count = ((together as f64 * audio / race(engine, &options, together, pcm)?) as usize).max(1);
    while count > 0 {
        let seen = live(engine, way, count, pcm, seconds)?;
        if seen.end_lag.p95 <= way.chunk_seconds {
            return Ok(Some(seen));
        }
        count = count * 9 / 10;
    }
    Ok(None)
}

/// What one live stream showed.
struct Seen {
    words: Vec<String>,
    lags: Vec<f64>,
    end_lag: f64,
}

fn live(
    engine: &Arc<Engine>,
    way: &Way,
    count: usize,
    pcm: &Arc<[f32]>,
    seconds: u32,
) -> Result<Live, Failure> {
    let options = &way.options;
    let started = Instant::now() + Duration::from_millis(100);
    let mut readers = Vec::new();
    let mut streams = Vec::new();
    for index in 0..count {
        let stream = Arc::new(engine.stream(options)?);
        let begin = started + Duration::from_secs_f64(index as f64 / count as f64);
        streams.push((stream.clone(), begin));
        let end = begin + Duration::from_secs_f64(pcm.len() as f64 / RATE);
        readers.push(thread::spawn(move || watch(&stream, begin, end)));
    }
    feed(&streams, pcm);
    let seen: Vec<Seen> = readers
        .into_iter()
        .map(|reader| reader.join().unwrap_or(Err(Failure::Closed)))
        .collect::<Result<_, _>>()?;
    let different = seen.iter().filter(|s| s.words != seen[0].words).count();
    Ok(Live {
        way: way.name.clone(),
        streams: count,
        seconds,
        words: seen.iter().map(|s| s.words.len()).sum(),
        word_lag: percentiles(seen.iter().flat_map(|s| s.lags.clone()).collect()),
        end_lag: percentiles(seen.iter().map(|s| s.end_lag).collect()),
        different,
    })
}

/// Hands every stream its audio when a live source would.
fn feed(streams: &[(Arc<Stream>, Instant)], pcm: &[f32]) {
    let piece = (PIECE.as_secs_f64() * RATE) as usize;
    let mut pieces: Vec<(Instant, usize, usize)> = Vec::new();
    for (index, (_, begin)) in streams.iter().enumerate() {
        for (number, from) in (0..pcm.len()).step_by(piece).enumerate() {
            pieces.push((*begin + PIECE * (number as u32 + 1), index, from));
        }
    }
    pieces.sort();
    for (due, index, from) in pieces {
        thread::sleep(due.saturating_duration_since(Instant::now()));
        let (stream, _) = &streams[index];
        let to = (from + piece).min(pcm.len());
        // A stream that failed tells its reader.
        let _ = stream.push(&pcm[from..to]);
        if to == pcm.len() {
            stream.finish();
        }
    }
}

fn watch(stream: &Stream, begin: Instant, end: Instant) -> Result<Seen, Failure> {
    let (mut words, mut lags) = (Vec::new(), Vec::new());
    loop {
        let event = stream.next();
        let now = Instant::now();
        match event {
            Some(Event::Word(word)) => {
                let spoken = begin + Duration::from_secs_f64(word.end as f64 / RATE);
                lags.push(now.saturating_duration_since(spoken).as_secs_f64());
                words.push(word.text);
            }
            Some(Event::Finished { .. }) => {
                return Ok(Seen { words, lags, end_lag: now.saturating_duration_since(end).as_secs_f64() });
            }
            Some(Event::Failed(error)) => return Err(error.into()),
            Some(_) => {}
            None => return Err(Failure::Closed),
        }
    }
}

/// The percentiles of `values`.
pub fn percentiles(mut values: Vec<f64>) -> Percentiles {
    values.sort_by(f64::total_cmp);
    let at = |share: f64| {
        let index = (share * values.len() as f64) as usize;
        values.get(index.min(values.len().saturating_sub(1))).copied().unwrap_or(0.0)
    };
    Percentiles { p50: at(0.5), p95: at(0.95), p99: at(0.99), most: at(1.0) }
}

fn print(report: &Report, json: bool) {
    if json {
        println!("{}", serde_json::json!(report));
        return;
    }
    println!("{}, threads: {}, loaded in {:.0} ms", report.model, report.threads, report.load_seconds * 1e3);
    println!(
        "reading {:.1} MB of weights from memory takes {:.2} ms",
        report.weights_bytes as f64 / 1e6,
        report.read_seconds * 1e3
    );
    if !report.contexts.is_empty() {
        println!("way              chunk ms  real-time factor (least to most)  reads a chunk  MB a stream");
    }
    for cost in &report.contexts {
        println!(
            "{:15}  {:8}  {:.4} ({:.4} to {:.4})         {:13.2}  {:11.2}",
            cost.way,
            cost.chunk_ms,
            cost.real_time_factor,
            cost.least,
            cost.most,
            cost.reads_a_chunk,
            cost.stream_bytes as f64 / 1e6,
        );
    }
    for way in &report.too_slow {
        println!("not one live stream keeps up, {way}");
    }
    for live in &report.live {
        println!(
            "{} live streams of {} s, {}: {} words, {} streams with another text than the first",
            live.streams, live.seconds, live.way, live.words, live.different
        );
        for (what, lag) in [("word", &live.word_lag), ("end", &live.end_lag)] {
            println!(
                "{what} lag in ms: p50 {:.0}, p95 {:.0}, p99 {:.0}, most {:.0}",
                lag.p50 * 1e3,
                lag.p95 * 1e3,
                lag.p99 * 1e3,
                lag.most * 1e3
            );
        }
    }
}
