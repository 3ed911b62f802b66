// SPDX-License-Identifier: MPL-2.0
//! One source of sound through one stream.

use std::num::NonZeroU32;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::thread;

use parakeet_engine::{Engine, Event, Mask, Stream, StreamOptions, Word};

use crate::audio::{self, AudioFile, Standard};
use crate::failure::Failure;
use crate::formats::{Summary, seconds};

/// Where the sound comes from.
pub enum Source {
    File(Box<AudioFile>),
    Stdin,
}

/// How all sources are heard.
pub struct Hearing {
    pub engine: Arc<Engine>,
    pub options: StreamOptions,
    pub mask: Option<Mask>,
    /// The channel to hear of standard input, counted from 1.
    pub channel: Option<usize>,
    /// Milliseconds that are pushed at a time.
    pub chunk: Option<NonZeroU32>,
}

/// What comes while a source is heard.
pub enum Heard<'a> {
    Word(&'a Word),
    /// All that starts before this sample was given.
    Progress(u64),
}

/// What is known when a source has ended.
pub struct Fed {
    samples: u64,
    /// A warning, or why not all was heard.
    pub result: Result<Option<String>, Failure>,
}

impl Hearing {
    /// Hears all of `source`. Fails if there is no stream for it, or if `told` does.
    pub fn hear(
        &self,
        source: Source,
        told: &mut dyn FnMut(Heard) -> Result<(), Failure>,
    ) -> Result<Fed, Failure> {
        let stream = Arc::new(self.engine.stream(&self.options)?);
        let feeding = {
            let (stream, channel, chunk) = (Arc::clone(&stream), self.channel, self.chunk);
            thread::spawn(move || feed(source, channel, &stream, chunk))
        };
        // An early end leaves the feeding thread where it is, perhaps waiting for standard input.
        let failure = loop {
            match stream.next() {
                Some(Event::Word(mut word)) => {
                    if let Some(mask) = &self.mask {
                        mask.apply(&mut word);
                    }
                    told(Heard::Word(&word))?;
                    told(Heard::Progress(word.end))?;
                }
                Some(Event::Progress { sample }) => told(Heard::Progress(sample))?,
                Some(Event::Finished { .. }) => {
                    return Ok(feeding.join().unwrap_or(Fed { samples: 0, result: Err(Failure::Decoder) }));
                }
                Some(Event::Failed { error, .. }) => break Failure::Engine(error),
                // The queue blocks, so nothing is lost; what else there may be one day is no part of a transcript.
                Some(_) => {}
                None => break Failure::Closed,
            }
        };
        Ok(Fed { samples: 0, result: Err(failure) })
    }

    /// What a transcript says of all of it.
    pub fn summary(&self, fed: &Fed) -> Summary<'_> {
        let config = self.engine.config();
        let first = config.encoder.contexts.first().and_then(|&[_, right]| u32::try_from(right).ok());
        Summary {
            audio_seconds: seconds(fed.samples),
            model: &config.name,
            look_ahead: self.options.look_ahead.or(first),
        }
    }

    /// The text of a token.
    pub fn piece(&self, id: u32) -> String {
        self.engine.vocabulary().piece(id).unwrap_or_default().to_owned()
    }
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
