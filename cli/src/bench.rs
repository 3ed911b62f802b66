// SPDX-License-Identifier: MPL-2.0
//! `parakeet bench`: what a model costs on this machine, and how many live streams it serves.

mod beside;
mod costs;
mod feed;
mod files;
mod live;
mod operations;
mod plot;
mod race;
mod search;
mod steps;
mod text;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parakeet_engine::model::Model;
use parakeet_engine::{Engine, EngineOptions, StreamOptions};
use serde::Serialize;

use crate::audio;
use crate::engine_args::EngineArgs;
use crate::failure::Failure;
use crate::picture;
use crate::streaming::StreamArgs;
use crate::transcribe::default_model;
use crate::vocabulary::VocabularyArgs;

/// Samples a second.
const RATE: f64 = 16_000.0;

/// Measure what a model costs: real-time factor, time of a step, live streams that keep up, files at once
///
/// Without --steps, --streams, --live or --files: one stream as fast as it goes, in each context or window of the model
/// or the one that is named.
#[derive(clap::Args)]
#[command(group = clap::ArgGroup::new("mode").args(["steps", "streams", "live", "files"]))]
#[command(group = clap::ArgGroup::new("curve").args(["steps", "live"]))]
#[command(mut_arg("vocabulary", |vocabulary| vocabulary.conflicts_with("steps")))]
#[command(group = clap::ArgGroup::new("load").args(["streams", "live"]))]
pub struct Args {
    /// Sound file with speech; repeated as often as need be
    file: PathBuf,
    /// Model directory [default: as for transcribe]
    #[arg(long, value_name = "DIR")]
    model: Option<PathBuf>,
    #[command(flatten)]
    engine: EngineArgs,
    #[command(flatten)]
    vocabulary: VocabularyArgs,
    /// Threads of the CPU backend, 0 for all cores
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// Seconds of audio for each measurement; with --steps the most that the steps of one batch may take
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=3_600))]
    seconds: u32,
    /// Time the backend's steps by batch and chunk, and the parts of a step, beside what the device can do at best; with
    /// --offline a step of a model that doesn't stream with caches is the whole file
    #[arg(long)]
    steps: bool,
    /// Streams in a step, rising
    #[arg(long, value_name = "N,N", value_delimiter = ',', requires = "steps", value_parser = count,
        default_values_t = [1, 16, 64, 256, 512, 1_024, 2_400, 4_800])]
    batches: Vec<usize>,
    /// Run this many live streams side by side in real time and measure while all of them run
    #[arg(long, value_name = "N", value_parser = count, conflicts_with = "offline")]
    streams: Option<usize>,
    /// Find how many live streams keep up: at most 1 chunk of 1,000 waits longer than a chunk lasts, 95 of 100 come out
    /// within 1 s of their last sample, and all say what one stream says
    #[arg(long, conflicts_with = "offline")]
    live: bool,
    /// Seconds over which the live streams start
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u32).range(..=3_600))]
    spread: u32,
    /// Seconds that all live streams run before they are measured [default: until each has as much behind it as its steps
    /// see, so that they cost what they will]
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(..=3_600))]
    settle: Option<u32>,
    /// Milliseconds of audio that a live source hands over at a time
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    piece_ms: u32,
    /// Beside the live streams decode a file of this many seconds in one pass, over and over: how much later do their words
    /// come? For models that hear a file at once, not chunk by chunk with caches
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..=36_000), requires = "load")]
    beside: Option<u32>,
    /// Share of the words that must be those of one stream alone; less than 1 for models with random weights, whose choices
    /// are so close that rounding decides them
    #[arg(long, value_name = "SHARE", default_value_t = 1.0)]
    agreement: f64,
    /// Run this many copies of the audio at once as fast as they go, in one pass each and as streams; for a model that streams
    /// with caches that is the same
    #[arg(long, value_name = "N", value_parser = count)]
    files: Option<usize>,
    #[command(flatten)]
    streaming: StreamArgs,
    /// One JSON object instead of a table
    #[arg(long)]
    json: bool,
    /// Also draw what --steps or --live measured into this SVG file
    #[arg(long, value_name = "FILE.svg", value_parser = picture::path, requires = "curve")]
    plot: Option<PathBuf>,
}

fn count(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(count) if (1..=1_000_000).contains(&count) => Ok(count),
        _ => Err("expected a number from 1 to 1000000".into()),
    }
}

#[derive(Serialize)]
struct Report {
    model: String,
    threads: usize,
    load_seconds: f64,
    weights_bytes: u64,
    #[serde(flatten)]
    measured: Measured,
}

#[derive(Serialize)]
#[serde(tag = "mode", rename_all = "lowercase")]
enum Measured {
    Costs(costs::Costs),
    Steps(steps::Steps),
    Streams(Box<live::Streams>),
    Live(live::Live),
    Files(files::Files),
}

/// Something a second.
#[derive(Clone, Copy, Serialize)]
pub struct Rates {
    /// Floating-point operations.
    pub operations: f64,
    /// Bytes.
    pub bytes: f64,
}

/// Of a distribution; all 0 if it is empty.
#[derive(Default, Serialize)]
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

impl From<parakeet_engine::Percentiles> for Percentiles {
    fn from(seen: parakeet_engine::Percentiles) -> Self {
        let parakeet_engine::Percentiles { p50, p95, p99, max } = seen;
        Self { p50, p95, p99, most: max }
    }
}

/// Measures and prints.
pub fn run(args: &Args) -> Result<(), Failure> {
    let speech = audio::read_whole(&args.file)?;
    let dir = args.model.clone().map_or_else(default_model, Ok)?;
    let options = EngineOptions { threads: args.threads, ..args.engine.options()? };
    let long = |seconds: u32| -> Arc<[f32]> {
        speech.iter().copied().cycle().take(seconds as usize * RATE as usize).collect()
    };
    let started = Instant::now();
    if args.steps {
        let model = Arc::new(Model::load(&dir)?);
        let mut batches = args.batches.clone();
        batches.sort_unstable();
        batches.dedup();
        let plan = steps::Plan {
            model: &model,
            options: &options,
            ways: &args.streaming.ways(&model.config)?,
            batches: &batches,
            budget: Duration::from_secs(args.seconds.into()),
            pcm: &speech,
        };
        let (load_seconds, seen) = steps::measure(&plan, started)?;
        return finish(
            args,
            &model.config.name,
            load_seconds,
            model.weights.bytes() as u64,
            Measured::Steps(seen),
        );
    }

    let engine = Engine::open(&dir, &options)?;
    let load_seconds = started.elapsed().as_secs_f64();
    let weights_bytes = parakeet_engine::convert::describe(&dir)?.weight_bytes;
    let vocabulary = args.vocabulary.read(&engine)?;
    let mut ways = args.streaming.ways(engine.config())?;
    for way in &mut ways {
        way.options.vocabulary = vocabulary.clone();
    }
    if args.beside.is_some() {
        beside::check(&engine)?;
    }
    let context = ways.iter().map(|way| way.context_seconds.ceil() as u32).max().unwrap_or(0);
    let settle = args.settle.unwrap_or(context);
    let before = if args.live || args.streams.is_some() { args.spread + settle } else { 0 };
    let pcm = long(before + args.seconds);
    let load = live::Load {
        engine: &engine,
        pcm: &pcm,
        seconds: args.seconds,
        spread: args.spread,
        settle,
        piece: Duration::from_millis(args.piece_ms.into()),
        agreement: args.agreement,
        beside: args.beside,
    };
    let measured = if let Some(count) = args.streams {
        Measured::Streams(Box::new(live::streams(&load, &ways[0], count)?))
    } else if args.live {
        Measured::Live(live::most(&load, &ways)?)
    } else if let Some(count) = args.files {
        let options = StreamOptions { vocabulary, ..args.streaming.options(engine.config())? };
        Measured::Files(files::measure(&engine, &options, count, &pcm)?)
    } else {
        Measured::Costs(costs::measure(&engine, &ways, &pcm, weights_bytes)?)
    };
    finish(args, &engine.config().name, load_seconds, weights_bytes, measured)
}

fn finish(
    args: &Args,
    model: &str,
    load_seconds: f64,
    weights_bytes: u64,
    measured: Measured,
) -> Result<(), Failure> {
    let report = Report { model: model.into(), threads: args.threads, load_seconds, weights_bytes, measured };
    if args.json {
        println!("{}", serde_json::json!(report));
    } else {
        text::print(&report);
    }
    match (&args.plot, &report.measured) {
        (Some(path), Measured::Steps(steps)) => plot::steps(model, steps, path),
        (Some(path), Measured::Live(live)) => plot::live(model, live, path),
        _ => Ok(()),
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
