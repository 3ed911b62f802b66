// SPDX-License-Identifier: MPL-2.0
//! Live load: streams of real speech in real time, and how late their text comes.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier};
use std::thread::{self, ScopedJoinHandle};
use std::time::{Duration, Instant};

use parakeet_engine::{Engine, Event, LaneStatistics, Overflow, Stream, StreamOptions};
use serde::Serialize;

use super::beside::{Beside, decode};
use super::feed::{Punctuality, Source, Times, feed};
use super::race::{listen, race};
use super::search::greatest;
use super::{Percentiles, RATE};
use crate::failure::Failure;
use crate::streaming::Way;

/// Share of the chunks that may wait longer than a chunk lasts.
const LATE: f64 = 0.001;
/// Seconds beyond the chunk within which 95 of 100 chunks' words must be out.
pub const LATEST: f64 = 1.0;
/// Share of the pieces that may be handed over late before it isn't the load that was asked for.
const UNPUNCTUAL: f64 = 0.01;
/// What a live source's queue holds before the oldest is dropped.
const QUEUE_SECONDS: f64 = 5.0;
/// Sources that one thread feeds or reads: with pieces of 20 ms that is half of a core.
const A_THREAD: usize = 2_500;
/// Threads that feed, and threads that read, at most.
const MOST_THREADS: usize = 8;
/// Time between two looks at a stream's events; their times are the engine's own, so this delays no figure.
const LOOK: Duration = Duration::from_millis(20);
/// Streams beyond which no race is run to estimate a limit.
const MOST_RACERS: usize = 20_000;

/// What all loads have in common.
pub struct Load<'a> {
    pub engine: &'a Arc<Engine>,
    /// `spread + settle + seconds` of speech.
    pub pcm: &'a [f32],
    /// For which all streams run and are measured.
    pub seconds: u32,
    /// Over which they start.
    pub spread: u32,
    /// For which all run before.
    pub settle: u32,
    /// What a source hands over at a time.
    pub piece: Duration,
    /// Share of the words that must be those of one stream alone; 1 asks for the same text of every stream.
    pub agreement: f64,
    /// Seconds of a file that is decoded in one pass beside the streams, over and over.
    pub beside: Option<u32>,
}

/// One load.
#[derive(Serialize)]
pub struct Streams {
    pub way: String,
    pub chunk_ms: u32,
    pub seconds: u32,
    pub spread_seconds: u32,
    pub settle_seconds: u32,
    pub piece_ms: u32,
    #[serde(flatten)]
    pub trial: Trial,
}

/// The search for the greatest load in each way to stream.
#[derive(Serialize)]
pub struct Live {
    pub seconds: u32,
    pub spread_seconds: u32,
    pub settle_seconds: u32,
    pub piece_ms: u32,
    pub ways: Vec<Limit>,
}

/// The greatest load in one way.
#[derive(Serialize)]
pub struct Limit {
    pub way: String,
    pub chunk_ms: u32,
    /// 0 if not even one stream keeps up.
    pub most: usize,
    /// In the order in which they were run.
    pub trials: Vec<Trial>,
}

/// What one load showed.
#[derive(Serialize)]
pub struct Trial {
    pub streams: usize,
    /// All streams keep up.
    pub passed: bool,
    /// Why not.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub reasons: Vec<String>,
    /// None if not all streams could be opened.
    #[serde(flatten)]
    pub seen: Option<Seen>,
}

/// Figures of the time in which all streams ran.
#[derive(Default, Serialize)]
pub struct Seen {
    pub device: String,
    pub steps: u64,
    pub chunks: u64,
    /// Of a step on the device.
    pub step_seconds: Percentiles,
    /// Streams of a step.
    pub batch: Percentiles,
    /// From when a chunk was complete to when its words were out.
    pub latency_seconds: Percentiles,
    /// Chunks that waited longer than a chunk lasts.
    pub late_chunks: u64,
    pub late_share: f64,
    pub dropped_seconds: f64,
    /// Streams whose text differs from that of one stream alone, up to the last chunk of live audio.
    pub different: usize,
    /// Share of the words that one stream alone says there too.
    pub agreement: f64,
    /// Words that all streams gave out.
    pub words: u64,
    /// Of the device, where it has its own.
    pub memory_used: Option<usize>,
    pub memory_total: Option<usize>,
    pub stream_bytes: usize,
    /// Pieces that the sources handed over more than a piece's time late, as a share of all.
    pub source_late_share: f64,
    pub source_most_late_seconds: f64,
    /// Seconds of the file that was decoded beside them, and how often it was done with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub beside: Option<Beside>,
}

/// One load of `count` streams. Fails if they can't all be opened.
pub fn streams(load: &Load<'_>, way: &Way, count: usize) -> Result<Streams, Failure> {
    let options = options(way);
    let script = Script::of(load, way)?;
    let opened = open(load, &options, count)?;
    Ok(Streams {
        way: way.name.clone(),
        chunk_ms: way.chunk_ms(),
        seconds: load.seconds,
        spread_seconds: load.spread,
        settle_seconds: load.settle,
        piece_ms: load.piece.as_millis() as u32,
        trial: run(load, way, &options, opened, &script)?,
    })
}

/// The greatest load in each way. Says on standard error how far it is.
pub fn most(load: &Load<'_>, ways: &[Way]) -> Result<Live, Failure> {
    let limit = |way: &Way| {
        let options = options(way);
        let script = Script::of(load, way)?;
        let mut trials = Vec::new();
        let most = greatest(estimate(load, way)?, |count| {
            let trial = match open(load, &options, count) {
                Ok(opened) => run(load, way, &options, opened, &script)?,
                Err(refused) => {
                    let reasons = vec![format!("not all open: {refused}")];
                    Trial { streams: count, passed: false, reasons, seen: None }
                }
            };
            eprintln!("{}: {}", way.name, trial.line());
            let passed = trial.passed;
            trials.push(trial);
            Ok::<_, Failure>(passed)
        })?;
        Ok(Limit { way: way.name.clone(), chunk_ms: way.chunk_ms(), most, trials })
    };
    Ok(Live {
        seconds: load.seconds,
        spread_seconds: load.spread,
        settle_seconds: load.settle,
        piece_ms: load.piece.as_millis() as u32,
        ways: ways.iter().map(limit).collect::<Result<_, Failure>>()?,
    })
}

impl Trial {
    /// In a line for people.
    pub fn line(&self) -> String {
        let Self { streams, reasons, seen, .. } = self;
        let verdict = if reasons.is_empty() { "keep up".into() } else { reasons.join(", ") };
        let figures = seen.as_ref().map_or_else(String::new, |seen| {
            let [p50, p95, most] =
                [seen.latency_seconds.p50, seen.latency_seconds.p95, seen.latency_seconds.most]
                    .map(|seconds| seconds * 1e3);
            format!(" (latency in ms: p50 {p50:.1}, p95 {p95:.1}, most {most:.1})")
        });
        format!("{streams} streams: {verdict}{figures}")
    }
}

fn options(way: &Way) -> StreamOptions {
    let queue_samples = (QUEUE_SECONDS.max(4.0 * way.chunk_seconds) * RATE) as usize;
    StreamOptions { queue_samples, overflow: Overflow::DropOldest, ..way.options.clone() }
}

fn open(load: &Load<'_>, options: &StreamOptions, count: usize) -> Result<Vec<Stream>, Failure> {
    (0..count).map(|_| Ok(load.engine.stream(options)?)).collect()
}

/// How many streams might keep up, from what as many reach as fast as they go.
fn estimate(load: &Load<'_>, way: &Way) -> Result<usize, Failure> {
    let wanted = (4.0_f64.max(4.0 * way.chunk_seconds) * RATE) as usize;
    let pcm = &load.pcm[..wanted.min(load.pcm.len())];
    let audio = pcm.len() as f64 / RATE;
    let mut count = 1;
    loop {
        let reached = match race(load.engine, &way.options, count, pcm) {
            Ok(seconds) => (count as f64 * audio / seconds) as usize,
            Err(failure) if count == 1 => return Err(failure),
            // So many don't open.
            Err(_) => return Ok(count / 2),
        };
        if reached <= count * 5 / 4 || count == MOST_RACERS {
            return Ok(reached.max(1));
        }
        count = reached.min(MOST_RACERS);
    }
}

/// What one stream alone makes of the audio: its words, each with the end of the chunk that brought it out.
struct Script(Vec<(String, u64)>);

impl Script {
    fn of(load: &Load<'_>, way: &Way) -> Result<Self, Failure> {
        let options = StreamOptions { queue_samples: load.pcm.len(), ..way.options.clone() };
        let stream = load.engine.stream(&options)?;
        // A stream that takes nothing says why in its events.
        let _ = stream.push(load.pcm);
        stream.finish();
        let mut words = Vec::new();
        listen(&stream, |event| {
            if let Event::Word(word) = event {
                words.push((word.text, word.heard));
            }
        })?;
        Ok(Self(words))
    }

    /// Whether a chunk brought this word out. Words come in the order of their chunks.
    fn has(&self, text: &str, heard: u64) -> bool {
        let first = self.0.partition_point(|(_, other)| *other < heard);
        self.0[first..].iter().take_while(|(_, other)| *other == heard).any(|(other, _)| other == text)
    }
}

/// A stream's text as far as it came, compared with the script.
#[derive(Default)]
struct Check {
    /// Words of the script that came, in its order.
    right: usize,
    /// Words that the script has there too, whatever came before.
    agreeing: u64,
    compared: u64,
    different: bool,
    done: bool,
}

impl Check {
    /// What the stream's end alone brings out says nothing; `samples` is where that is.
    fn take(&mut self, event: Event, script: &Script, samples: u64) -> Result<bool, Failure> {
        match event {
            Event::Word(word) => {
                if word.heard < samples {
                    self.agreeing += u64::from(script.has(&word.text, word.heard));
                    self.compared += 1;
                    let expected = script.0.get(self.right);
                    self.different |=
                        expected.is_none_or(|(text, heard)| (text, *heard) != (&word.text, word.heard));
                    self.right += 1;
                }
                return Ok(true);
            }
            Event::Finished { .. } => {
                let expected = script.0.iter().filter(|(_, heard)| *heard < samples).count();
                self.different |= self.right != expected;
                self.done = true;
            }
            Event::Failed { error, .. } => return Err(error.into()),
            _ => {}
        }
        Ok(false)
    }
}

/// What a reader saw.
#[derive(Default)]
struct Read {
    different: usize,
    words: u64,
    agreeing: u64,
    compared: u64,
}

/// Takes the events of all `sources` until each has ended.
fn watch(sources: &[&Source], script: &Script, piece: Duration) -> Result<Read, Failure> {
    let mut open: Vec<(&Source, Check)> = sources.iter().map(|source| (*source, Check::default())).collect();
    let mut read = Read::default();
    while !open.is_empty() {
        for (source, check) in &mut open {
            let samples = source.times.samples(piece) as u64;
            while let Some(event) = source.stream.try_next() {
                read.words += u64::from(check.take(event, script, samples)?);
            }
        }
        for (_, check) in open.iter().filter(|(_, check)| check.done) {
            read.different += usize::from(check.different);
            read.agreeing += check.agreeing;
            read.compared += check.compared;
        }
        open.retain(|(_, check)| !check.done);
        thread::sleep(LOOK);
    }
    Ok(read)
}

/// Runs the streams that are open and judges them.
fn run(
    load: &Load<'_>,
    way: &Way,
    options: &StreamOptions,
    opened: Vec<Stream>,
    script: &Script,
) -> Result<Trial, Failure> {
    let &Load { engine, pcm, piece, .. } = load;
    let count = opened.len();
    let spread = Duration::from_secs(load.spread.into());
    let settled = spread + Duration::from_secs(load.settle.into());
    let end = settled + Duration::from_secs(load.seconds.into());
    let times = |index: usize| Times::new(spread.mul_f64(index as f64 / count as f64), end, piece);
    let source = |(index, stream)| Source { stream, times: times(index) };
    let sources: Vec<Source> = opened.into_iter().enumerate().map(source).collect();
    let threads = count.div_ceil(A_THREAD).min(MOST_THREADS);
    let parts: Vec<Vec<&Source>> =
        (0..threads).map(|part| sources.iter().skip(part).step_by(threads).collect()).collect();
    let counted = Barrier::new(threads + 1);
    let begin = Instant::now() + Duration::from_millis(50);

    let stop = AtomicBool::new(false);
    let (total, punctuality, read, beside) = thread::scope(|scope| {
        let stop = &stop;
        let files = load.beside.map(|seconds| scope.spawn(move || decode(engine, pcm, seconds, stop)));
        let feeders: Vec<_> = parts
            .iter()
            .map(|part| {
                scope.spawn(|| {
                    let punctuality = feed(part, begin, piece, pcm);
                    // The end of an utterance is a step of its own, which no live stream has.
                    counted.wait();
                    part.iter().for_each(|source| source.stream.finish());
                    punctuality
                })
            })
            .collect();
        let readers: Vec<_> = parts.iter().map(|part| scope.spawn(|| watch(part, script, piece))).collect();
        thread::sleep((begin + settled).saturating_duration_since(Instant::now()));
        engine.reset_statistics();
        thread::sleep((begin + end).saturating_duration_since(Instant::now()));
        let mut statistics = engine.statistics();
        statistics.lanes.retain(|lane| !lane.whole);
        let total = statistics.total();
        stop.store(true, Ordering::Relaxed);
        counted.wait();
        let punctuality = joined(feeders)?.into_iter().fold(Punctuality::default(), Punctuality::and);
        let read = joined(readers)?.into_iter().collect::<Result<Vec<Read>, Failure>>()?;
        let beside = files.map(|files| files.join().map_err(|_| Failure::Closed)?).transpose()?;
        Ok::<_, Failure>((total, punctuality, read, beside))
    })?;
    let seen = Seen { beside, ..Seen::new(&total, punctuality, &read, engine.stream_bytes(options)?) };
    let reasons = reasons(&seen, way.chunk_seconds, load.agreement);
    Ok(Trial { streams: count, passed: reasons.is_empty(), reasons, seen: Some(seen) })
}

fn joined<T>(threads: Vec<ScopedJoinHandle<'_, T>>) -> Result<Vec<T>, Failure> {
    threads.into_iter().map(|thread| thread.join().map_err(|_| Failure::Closed)).collect()
}

impl Seen {
    fn new(total: &LaneStatistics, sources: Punctuality, read: &[Read], stream_bytes: usize) -> Self {
        let share = |part: u64, all: u64| part as f64 / all.max(1) as f64;
        Self {
            device: total.device.clone(),
            steps: total.steps,
            chunks: total.chunks,
            step_seconds: total.step_seconds.percentiles().into(),
            batch: total.batch.percentiles().into(),
            latency_seconds: total.wait_seconds.percentiles().into(),
            late_chunks: total.late_chunks,
            late_share: share(total.late_chunks, total.chunks),
            dropped_seconds: total.dropped_samples as f64 / RATE,
            different: read.iter().map(|read| read.different).sum(),
            words: read.iter().map(|read| read.words).sum(),
            agreement: share(
                read.iter().map(|read| read.agreeing).sum(),
                read.iter().map(|read| read.compared).sum(),
            ),
            memory_used: total.memory.map(|memory| memory.total - memory.free),
            memory_total: total.memory.map(|memory| memory.total),
            stream_bytes,
            source_late_share: share(sources.late, sources.pieces),
            source_most_late_seconds: sources.most,
            beside: None,
        }
    }
}

/// Why streams whose chunks last `chunk_seconds` don't keep up, nothing if they do.
fn reasons(seen: &Seen, chunk_seconds: f64, agreement: f64) -> Vec<String> {
    let mut reasons = Vec::new();
    if seen.chunks == 0 {
        reasons.push("no chunk was complete in time".into());
    }
    if seen.late_share > LATE {
        let (share, chunk) = (seen.late_share * 100.0, chunk_seconds * 1e3);
        reasons.push(format!("{share:.2} % of the chunks waited longer than {chunk:.0} ms"));
    }
    if seen.latency_seconds.p95 > LATEST {
        reasons.push(format!("p95 of the latency is {:.2} s", seen.latency_seconds.p95));
    }
    if seen.dropped_seconds > 0.0 {
        reasons.push(format!("{:.1} s of audio were dropped", seen.dropped_seconds));
    }
    if agreement >= 1.0 && seen.different > 0 {
        reasons.push(format!("{} streams say something else than one alone", seen.different));
    }
    if agreement < 1.0 && seen.agreement < agreement {
        let share = seen.agreement * 100.0;
        reasons.push(format!("{share:.1} % of the words are those of one stream alone"));
    }
    if seen.source_late_share > UNPUNCTUAL {
        let share = seen.source_late_share * 100.0;
        reasons.push(format!("{share:.1} % of the audio was handed over late"));
    }
    reasons
}

#[cfg(test)]
mod tests {
    use super::*;
    use parakeet_engine::Word;

    #[test]
    fn each_rule_is_a_reason_of_its_own() {
        let good = || Seen { chunks: 1_000, late_share: LATE, ..Seen::default() };
        assert_eq!(reasons(&good(), 0.08, 1.0), Vec::<String>::new());
        let slow = Percentiles { p95: 1.01, ..Percentiles::default() };
        let cases = [
            (Seen { chunks: 0, ..good() }, "no chunk"),
            (Seen { late_share: 0.0011, ..good() }, "0.11 % of the chunks waited longer than 80 ms"),
            (Seen { latency_seconds: slow, ..good() }, "p95 of the latency is 1.01 s"),
            (Seen { dropped_seconds: 0.1, ..good() }, "0.1 s of audio were dropped"),
            (Seen { different: 1, ..good() }, "1 streams say something else"),
            (Seen { source_late_share: 0.02, ..good() }, "2.0 % of the audio was handed over late"),
        ];
        for (seen, expected) in cases {
            let reasons = reasons(&seen, 0.08, 1.0);
            assert!(reasons.len() == 1 && reasons[0].contains(expected), "{reasons:?}");
        }
        let seen = Seen { different: 7, agreement: 0.894, ..good() };
        assert_eq!(reasons(&seen, 0.08, 0.9), ["89.4 % of the words are those of one stream alone"]);
        assert_eq!(reasons(&seen, 0.08, 0.8), Vec::<String>::new());
    }

    /// Whether a stream of 1,000 samples that gives out these words, each with the end of its chunk, differs from one
    /// that says "a" after 400, "b" after 800, "c" after 1,200 and "d" at its end.
    fn differs(words: &[(&str, u64)]) -> bool {
        let script = [("a", 400), ("b", 800), ("c", 1_200), ("d", 2_000)];
        let script = Script(script.map(|(text, heard)| (text.to_owned(), heard)).to_vec());
        assert!(script.has("b", 800) && !script.has("b", 400) && !script.has("b", 900));
        let mut check = Check::default();
        for &(text, heard) in words {
            let text = text.to_owned();
            let (start, end, confidence) = (0, 0, 1.0);
            let word =
                Word { text, start, end, until: end, confidence, heard, joined: false, tokens: Vec::new() };
            assert!(check.take(Event::Word(word), &script, 1_000).unwrap() && !check.done);
        }
        assert!(!check.take(Event::Finished { sample: 1_000 }, &script, 1_000).unwrap() && check.done);
        check.different
    }

    #[test]
    fn a_stream_must_say_what_one_alone_says_in_the_same_chunks() {
        assert!(!differs(&[("a", 400), ("b", 800)]));
        assert!(!differs(&[("a", 400), ("b", 800), ("x", 1_000)]), "what its end brings out says nothing");
        assert!(differs(&[("a", 400)]), "a word is missing");
        assert!(differs(&[("a", 400), ("x", 800)]), "another word");
        assert!(differs(&[("a", 400), ("b", 400)]), "another chunk");
        assert!(differs(&[("a", 400), ("b", 800), ("b", 800)]), "a word too many");
    }
}
