// SPDX-License-Identifier: MPL-2.0
//! One recording through one stream, and how much of it had to come in for each word.

use std::time::{Duration, Instant};

use parakeet_engine::{Event, Stream, Word};

use crate::failure::Failure;

/// Where a word starts, in samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Start {
    /// Of the frame that the model emitted its first token at.
    pub emitted: u64,
    /// As the stream tells it.
    pub told: u64,
}

/// What a stream made of a recording.
#[derive(Debug, Default)]
pub struct Heard {
    /// The transcript.
    pub text: String,
    /// For each word that came before the recording's end: samples from the end of the word to the end of the chunk
    /// with which it came out.
    pub latencies: Vec<u64>,
    /// Words that only the recording's end brought out.
    pub at_end: usize,
    /// Where the words start.
    pub starts: Vec<Start>,
    /// What it took to compute all that.
    pub time: Duration,
}

impl Heard {
    fn take(&mut self, word: &Word) {
        if !word.text.is_empty() && !word.joined && !self.text.is_empty() {
            self.text.push(' ');
        }
        self.text.push_str(&word.text);
        let first = word.tokens.first().map(|timed| timed.start);
        self.starts.extend(first.map(|emitted| Start { emitted, told: word.start }));
    }
}

/// Runs `pcm` through `stream`, whose queue holds all of it.
pub fn listen(stream: &Stream, pcm: &[f32]) -> Result<Heard, Failure> {
    let started = Instant::now();
    let mut heard = Heard::default();
    // A stream that takes nothing more says why in its events.
    let _ = stream.push(pcm);
    stream.finish();
    loop {
        match event(stream)? {
            Event::Word(word) => {
                heard.take(&word);
                if word.heard < pcm.len() as u64 {
                    heard.latencies.push(word.heard.saturating_sub(word.end));
                } else {
                    heard.at_end += 1;
                }
            }
            Event::Finished { .. } => break,
            _ => {}
        }
    }
    heard.time = started.elapsed();
    Ok(heard)
}

fn event(stream: &Stream) -> Result<Event, Failure> {
    match stream.next() {
        Some(Event::Failed { error, .. }) => Err(error.into()),
        Some(event) => Ok(event),
        None => Err(Failure::Closed),
    }
}
