// SPDX-License-Identifier: MPL-2.0
//! `parakeet transcribe`: a sound file or raw standard input to text.

use std::num::{NonZeroU32, NonZeroUsize};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;

use parakeet_engine::model::{EMBEDDED, find_model};
use parakeet_engine::{Engine, Event, Mask, Stream, StreamOptions};

use crate::audio::{self, AudioFile, Standard};
use crate::engine_args::EngineArgs;
use crate::failure::Failure;
use crate::formats::{self, Format, Summary, Writer};
use crate::streaming::StreamArgs;
use crate::terminal::Output;
use crate::vocabulary::VocabularyArgs;

/// Transcribe a sound file
#[derive(clap::Args)]
pub struct Args {
    /// WAV, FLAC, MP3 or Ogg Vorbis file, or - for standard input: such a file, or raw 16 kHz mono S16LE samples
    file: PathBuf,
    /// Model directory [default: parakeet-tdt-mini in share/gst-plugin-parakeet/models or in models, beside the
    /// executable or in one of the directories above it]
    #[arg(long, value_name = "DIR")]
    model: Option<PathBuf>,
    /// Form of the transcript
    #[arg(long, value_enum, default_value_t = Format::Plain)]
    format: Format,
    #[command(flatten)]
    engine: EngineArgs,
    #[command(flatten)]
    streaming: StreamArgs,
    #[command(flatten)]
    vocabulary: VocabularyArgs,
    /// Hear only this channel, counted from 1 [default: all, of 5.1 and 7.1 above all the centre]
    #[arg(long, value_name = "N")]
    channel: Option<NonZeroUsize>,
    /// Show *** in place of the words in this file, one a line, whatever their case
    #[arg(long, value_name = "FILE")]
    mask: Option<PathBuf>,
    /// Feed the audio in pieces of this many milliseconds; the transcript doesn't depend on it
    #[arg(long, value_name = "N")]
    chunk_ms: Option<NonZeroU32>,
}

enum Source {
    File(Box<AudioFile>),
    Stdin,
}

/// What the feeding thread has to tell at the end.
struct Fed {
    samples: u64,
    /// A warning, or why not all was read.
    result: Result<Option<String>, Failure>,
}

/// Transcribes to standard output.
pub fn run(args: &Args) -> Result<(), Failure> {
    let channel = args.channel.map(NonZeroUsize::get);
    let source = match args.file.to_str() {
        Some("-") => Source::Stdin,
        _ => Source::File(Box::new(AudioFile::open(&args.file)?.only(channel))),
    };
    let mask = args.mask.as_deref().map(read_mask).transpose()?;
    let model = args.model.clone().map_or_else(default_model, Ok)?;
    let engine = Engine::open(&model, &args.engine.options()?)?;
    let vocabulary = args.vocabulary.read(&engine)?;
    let options = StreamOptions { vocabulary, ..args.streaming.options(engine.config())? };
    let stream = Arc::new(engine.stream(&options)?);

    let seconds = match &source {
        Source::File(file) => file.seconds(),
        Source::Stdin => None,
    };
    let mut output = Output::new(matches!(source, Source::File(_)), seconds);
    let feeding = {
        let (stream, chunk) = (Arc::clone(&stream), args.chunk_ms);
        thread::spawn(move || feed(source, channel, &stream, chunk))
    };

    let mut writer = Writer::new(args.format);
    output.write(writer.begin())?;
    // An early end leaves the feeding thread where it is, perhaps waiting for standard input: the process ends.
    let ended = loop {
        match stream.next() {
            Some(Event::Word(mut word)) => {
                if let Some(mask) = &mask {
                    mask.apply(&mut word);
                }
                let text =
                    writer.word(&word, |id| engine.vocabulary().piece(id).unwrap_or_default().to_owned());
                output.write(&text)?;
                output.progress(formats::seconds(word.end));
            }
            Some(Event::Progress { sample }) => output.progress(formats::seconds(sample)),
            Some(Event::Finished { .. }) => break Ok(()),
            Some(Event::Failed { error, .. }) => break Err(Failure::Engine(error)),
            // The queue blocks, so nothing is lost; what else there may be one day is no part of a transcript.
            Some(_) => {}
            None => break Err(Failure::Closed),
        }
    };
    let fed = match &ended {
        Ok(()) => feeding.join().unwrap_or(Fed { samples: 0, result: Err(Failure::Decoder) }),
        Err(_) => Fed { samples: 0, result: Ok(None) },
    };
    let config = engine.config();
    let first = config.encoder.contexts.first().and_then(|&[_, right]| u32::try_from(right).ok());
    let summary = Summary {
        audio_seconds: formats::seconds(fed.samples),
        model: &config.name,
        look_ahead: args.streaming.look_ahead.or(first),
    };
    output.write(&writer.end(&summary))?;
    output.finish()?;
    ended?;
    if let Some(warning) = fed.result? {
        eprintln!("warning: {warning}");
    }
    Ok(())
}

fn read_mask(path: &Path) -> Result<Mask, Failure> {
    let list = std::fs::read_to_string(path).map_err(|error| Failure::file(path, error.to_string()))?;
    Mask::new(&list).map_err(|error| Failure::file(path, error.to_string()))
}

/// Ends the utterance whatever happens to the decoder that feeds it.
struct Utterance<'a>(&'a Stream);

impl Drop for Utterance<'_> {
    fn drop(&mut self) {
        self.0.finish();
    }
}

/// Pushes the whole source, in pieces of `chunk` milliseconds if given, and ends the utterance.
fn feed(source: Source, channel: Option<usize>, stream: &Stream, chunk: Option<NonZeroU32>) -> Fed {
    let _utterance = Utterance(stream);
    let chunk = chunk.map(|ms| ms.get() as usize * 16);
    let mut held: Vec<f32> = Vec::new();
    let mut samples = 0;
    let mut push = |pcm: &[f32]| {
        samples += pcm.len() as u64;
        let Some(chunk) = chunk else { return flow(stream, pcm) };
        held.extend_from_slice(pcm);
        let whole = held.len() / chunk * chunk;
        for piece in held[..whole].chunks_exact(chunk) {
            flow(stream, piece)?;
        }
        held.drain(..whole);
        ControlFlow::Continue(())
    };
    let result = match source {
        Source::File(file) => file.read(&mut push),
        Source::Stdin => AudioFile::standard_input().and_then(|input| match input {
            Standard::File(file) => file.only(channel).read(&mut push),
            Standard::Raw(samples) => audio::read_raw(samples, &mut push)
                .map(|half| {
                    half.then(|| "standard input ends with half a sample, its last byte is left out".into())
                })
                .map_err(|e| Failure::file(Path::new("standard input"), e.to_string())),
        }),
    };
    // The last piece may be shorter; if the stream is gone, its events say why.
    let _ = flow(stream, &held);
    Fed { samples, result }
}

/// A stream that takes nothing more has said why in its events.
fn flow(stream: &Stream, pcm: &[f32]) -> ControlFlow<()> {
    match stream.push(pcm) {
        Ok(()) => ControlFlow::Continue(()),
        Err(_) => ControlFlow::Break(()),
    }
}

/// The model directory when none is named.
pub fn default_model() -> Result<PathBuf, Failure> {
    let executable = std::env::current_exe()?;
    find_model(EMBEDDED, [], &executable).ok_or(Failure::NoModel(executable))
}
