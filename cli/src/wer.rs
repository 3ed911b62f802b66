// SPDX-License-Identifier: MPL-2.0
//! `parakeet wer`: how many words a model gets wrong, how late they come and what they cost.

mod align;
mod listen;
mod manifest;
mod noise;
mod normalise;
mod plot;
mod report;
mod times;

use std::path::PathBuf;
use std::sync::Arc;

use indicatif::{ProgressBar, ProgressStyle};
use parakeet_engine::{Engine, EngineOptions, StreamOptions};

use crate::audio;
use crate::engine_args::EngineArgs;
use crate::failure::Failure;
use crate::picture;
use crate::streaming::{StreamArgs, Way};
use crate::transcribe::default_model;
use crate::vocabulary::VocabularyArgs;
use listen::Heard;
use manifest::Utterance;
use report::{Report, Scored};
use times::Offsets;

/// Measure word and character error rate, word latency and real-time factor on transcribed recordings
#[derive(clap::Args)]
#[command(after_long_help = format!(
    "Errors are counted between texts in this form: {}. Of the alignments with the fewest errors the one with the \
     most words right counts. Characters are counted with one space between words. A file that can't be decoded counts \
     as if nothing had been recognised in it.\n\n\
     The latency of a word is stream time, the same on every machine: from the end of the word in the audio to the end \
     of the chunk with which it came out. Words that came out only because their file ended have none.\n\n\
     Noise: {}.\n\nTimes: {}.",
    normalise::RULE, noise::DEFINITION, times::DEFINITION))]
pub struct Args {
    /// Text file with a line per utterance: audio, a tab, reference; the audio's path is relative to the manifest's
    /// directory, lines that are empty or begin with # are left out
    manifest: PathBuf,
    /// Model directory [default: as for transcribe]
    #[arg(long, value_name = "DIR")]
    model: Option<PathBuf>,
    #[command(flatten)]
    engine: EngineArgs,
    #[command(flatten)]
    streaming: StreamArgs,
    #[command(flatten)]
    vocabulary: VocabularyArgs,
    /// Threads that compute, 0 for all cores
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// Add pink noise, this many decibels below the speech; --help says how that is defined
    #[arg(long, value_name = "DB", allow_negative_numbers = true, value_parser = decibels)]
    noise: Option<f64>,
    /// Also measure how late the model emits words, for emission_delay_ms of its config.json, and how far the starts of words
    /// lie from their sounds; --help says how
    #[arg(long)]
    times: bool,
    /// One JSON object instead of a table
    #[arg(long)]
    json: bool,
    /// Also draw errors per file and word latency into this SVG file
    #[arg(long, value_name = "FILE.svg", value_parser = picture::path)]
    plot: Option<PathBuf>,
}

fn decibels(text: &str) -> Result<f64, String> {
    let value: f64 = text.parse().map_err(|_| "expected a number of decibels".to_owned())?;
    if (-100.0..=100.0).contains(&value) { Ok(value) } else { Err("expected -100 to 100 decibels".into()) }
}

/// Measures and prints.
pub fn run(args: &Args) -> Result<(), Failure> {
    let utterances = manifest::read(&args.manifest)?;
    let dir = args.model.clone().map_or_else(default_model, Ok)?;
    let engine = Engine::open(&dir, &EngineOptions { threads: args.threads, ..args.engine.options()? })?;
    let options = args.vocabulary.options(&args.streaming, &engine)?;
    let way = Way::new(options, engine.config())?;
    // What the machine lacks for it is wrong for every file.
    drop(engine.stream(&way.options)?);

    let bar = ProgressBar::new(utterances.len() as u64);
    if let Ok(style) = ProgressStyle::with_template("{wide_bar} {pos} of {len} files") {
        bar.set_style(style);
    }
    let (mut files, mut offsets) = (Vec::new(), Offsets::default());
    for (index, utterance) in utterances.iter().enumerate() {
        let heard =
            hear(&engine, &way.options, utterance, args.noise.map(|decibels| (decibels, index as u64)));
        let scored = Scored::new(utterance, heard);
        if args.times && scored.audio_seconds.is_some() {
            place(&engine, &way.options, utterance, &mut offsets)?;
        }
        if let Some(problem) = &scored.problem {
            bar.suspend(|| eprintln!("warning: {problem}, its words count as deletions"));
        }
        files.push(scored);
        bar.inc(1);
    }
    bar.finish_and_clear();
    if files.iter().all(|file| file.audio_seconds.is_none()) {
        return Err(Failure::file(&args.manifest, "none of its files could be run"));
    }

    let mut report = Report::new(&engine.config().name, &way.name, args.threads, args.noise, files);
    report.times = offsets.sum_up();
    if args.times && report.times.is_none() {
        return Err(Failure::file(&args.manifest, "no word was found for a sound after quiet"));
    }
    // The picture last: the figures are worth more, should it not be possible to write it.
    let text = if args.json { serde_json::json!(report).to_string() + "\n" } else { report.to_string() };
    crate::terminal::Output::new(false, None).write(&text)?;
    match &args.plot {
        Some(path) => plot::draw(&report, path),
        None => Ok(()),
    }
}

/// Hears one file at known times; adds how far its words are from its sounds.
fn place(
    engine: &Arc<Engine>,
    options: &StreamOptions,
    utterance: &Utterance,
    offsets: &mut Offsets,
) -> Result<(), Failure> {
    let recording = audio::read_whole(&utterance.path)?;
    for more in times::PLACES {
        let mut pcm = vec![0.0; times::BEFORE + more];
        pcm.extend_from_slice(&recording);
        let options = StreamOptions { queue_samples: pcm.len(), ..options.clone() };
        let heard = listen::listen(&engine.stream(&options)?, &pcm)?;
        offsets.add(&recording, times::BEFORE + more, &heard.starts);
    }
    Ok(())
}

/// Runs one file through a stream of its own; the samples that it has, and what came out.
fn hear(
    engine: &Arc<Engine>,
    options: &StreamOptions,
    utterance: &Utterance,
    noise: Option<(f64, u64)>,
) -> Result<(usize, Heard), Failure> {
    let mut pcm = audio::read_whole(&utterance.path)?;
    if let Some((decibels, seed)) = noise {
        noise::add(&mut pcm, decibels, seed);
    }
    // The queue holds everything, so that nothing waits for anything but the machine.
    let options = StreamOptions { queue_samples: pcm.len(), ..options.clone() };
    let heard = listen::listen(&engine.stream(&options)?, &pcm)?;
    Ok((pcm.len(), heard))
}
