// SPDX-License-Identifier: MPL-2.0
//! One recording through one stream, and how much of it had to come in for each word.

use std::time::{Duration, Instant};

use parakeet_engine::{Event, Stream, Word};

use crate::failure::Failure;

/// When a stream has enough audio to go on: with `first` samples, and again with every `step` after them. Both are the
/// stream's own: with less it would wait for audio while its events are waited for.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Samples of the first chunk.
    pub first: usize,
    /// Samples of each one after it.
    pub step: usize,
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
    /// What it took to compute all that.
    pub time: Duration,
}

impl Heard {
    fn take(&mut self, word: &Word) {
        if !word.text.is_empty() && !word.joined && !self.text.is_empty() {
            self.text.push(' ');
        }
        self.text.push_str(&word.text);
    }
}

/// Pushes a chunk, waits until the stream has digested it, and so on: each word is known to have come out with the
/// chunk that was pushed last, however fast the machine is.
pub fn listen(stream: &Stream, pace: Pace, pcm: &[f32]) -> Result<Heard, Failure> {
    let started = Instant::now();
    let mut heard = Heard::default();
    let mut pushed = 0;
    let mut wanted = pace.first;
    while pcm.len() - pushed >= wanted {
        // A stream that takes nothing more says why in its events.
        let _ = stream.push(&pcm[pushed..pushed + wanted]);
        pushed += wanted;
        wanted = pace.step;
        // A step reports its words, then how far it came.
        loop {
            match event(stream)? {
                Event::Word(word) => {
                    heard.take(&word);
                    heard.latencies.push((pushed as u64).saturating_sub(word.end));
                }
                Event::Progress { .. } => break,
                _ => {}
            }
        }
    }
    let _ = stream.push(&pcm[pushed..]);
    stream.finish();
    loop {
        match event(stream)? {
            Event::Word(word) => {
                heard.take(&word);
                heard.at_end += 1;
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
        Some(Event::Failed(error)) => Err(error.into()),
        Some(event) => Ok(event),
        None => Err(Failure::Closed),
    }
}
