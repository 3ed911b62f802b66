// SPDX-License-Identifier: MPL-2.0
//! How a stream goes on after a step that failed: what it keeps of its audio, who is to blame, and what is said already.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::event::Event;
use crate::audio::FRAME_SAMPLES;
use crate::backend::{Mode, Token};
use crate::error::{Error, Fault};
use crate::model::config::EncoderConfig;

/// How many times fewer streams a step has that is tried again. Each try costs those that aren't to blame their left context
/// over again, so two halves would be dear.
const SPLIT: usize = 16;

/// How often a stream is tried again before it comes further than it was.
const MOST_TRIES: u32 = 8;

/// Frames within which the same token is taken for the same sound, heard with a little more or less before it.
const NEAR: u64 = 2;

/// What a stream keeps of the audio that was stepped, so that another slot can go on from there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct History {
    /// Frames of a step: a slot's first frame is a multiple of them, so that its chunks are those of the undisturbed stream.
    chunk: u64,
    /// Frames that are heard before the first that matters: the left context, in whole chunks.
    left: u64,
    /// Samples that are kept for that; none of one pass, whose only step is made again as it was.
    pub(crate) samples: usize,
}

impl History {
    /// Of a stream of this mode.
    pub(crate) fn new(mode: Mode, encoder: &EncoderConfig) -> Self {
        let (left, chunk) = match mode {
            Mode::Cached { context } => {
                let [left, right] = encoder.contexts.get(context).copied().unwrap_or_default();
                (left.max(0) as usize, right.max(0) as usize + 1)
            }
            Mode::Buffered { window, .. } => (window.left, window.chunk),
            Mode::Offline { .. } => return Self { chunk: 1, left: 0, samples: 0 },
        };
        let left = left.next_multiple_of(chunk);
        let samples = mode.step_sizes(encoder).first + left * FRAME_SAMPLES as usize;
        Self { chunk: chunk as u64, left: left as u64, samples }
    }

    /// The frame that a fresh slot begins with where `frames` frames are decoded, and samples are kept from `kept` on.
    pub(crate) fn origin(&self, frames: u64, kept: u64) -> u64 {
        let wanted = frames.saturating_sub(self.left) / self.chunk * self.chunk;
        wanted.max(kept.div_ceil(FRAME_SAMPLES).next_multiple_of(self.chunk))
    }
}

/// Why a stream lost its place, and when.
#[derive(Debug)]
pub(crate) struct Trouble {
    pub(crate) error: Error,
    pub(crate) since: Instant,
}

impl Trouble {
    /// Now.
    pub(crate) fn new(error: Error) -> Self {
        Self { error, since: Instant::now() }
    }
}

/// What is left to do until a stream is where it was.
#[derive(Debug)]
pub(crate) struct Recovery {
    trouble: Trouble,
    /// Frames that were decoded.
    pub(crate) until: u64,
    /// How long nothing was heard, where nothing has to be heard again.
    gap: Option<Duration>,
}

impl Recovery {
    /// Of a stream with `until` frames decoded, of which it hears some `again`.
    pub(crate) fn new(trouble: Trouble, until: u64, again: bool) -> Self {
        let gap = (!again).then(|| trouble.since.elapsed());
        Self { trouble, until, gap }
    }

    /// When the trouble began.
    pub(crate) fn since(&self) -> Instant {
        self.trouble.since
    }

    /// What is said of it once it is over, of an utterance that starts at `base`.
    pub(crate) fn over(self, base: u64) -> Event {
        let Trouble { error, since } = self.trouble;
        let gap = self.gap.unwrap_or_else(|| since.elapsed());
        Event::Recovered { sample: base + self.until * FRAME_SAMPLES, gap, error }
    }
}

/// What is held against a stream that was in a step which failed: it is in smaller ones until it has passed that chunk.
#[derive(Debug)]
pub(crate) struct Suspicion {
    /// The chunk whose last sample, counted from 1 in the utterance, is this or a later one.
    pub(crate) from: u64,
    /// Most streams in a step with it.
    pub(crate) party: usize,
    /// A device was lost with it.
    lost: bool,
}

impl Suspicion {
    /// After `error` in a step of `party` streams, whose chunk of this stream ended with sample `end` and was tried `tries`
    /// times before. None if nothing is left to try: it failed alone, or for a reason that lies with it.
    pub(crate) fn of(
        error: &Error,
        party: usize,
        end: u64,
        (before, tries): (Option<&Self>, u32),
    ) -> Option<Self> {
        let lost = error.fault() == Some(Fault::DeviceLost);
        let again = match error.fault()? {
            _ if tries >= MOST_TRIES => false,
            Fault::DeviceLost => party > 1 || !before.is_some_and(|before| before.lost),
            Fault::Internal | Fault::OutOfMemory => party > 1,
            Fault::Refused => false,
        };
        again.then(|| Self { from: end, party: (party / SPLIT).max(1), lost })
    }
}

/// The last tokens that an utterance has said: what is heard again near the end of them is not said again, nor lost.
#[derive(Debug, Default)]
pub(crate) struct Echo {
    said: VecDeque<Said>,
    /// While something is heard again: the frame up to which it was decoded before.
    until: Option<u64>,
}

#[derive(Clone, Copy, Debug)]
struct Said {
    id: u32,
    frame: u64,
    /// It, or something else in its place, was heard again.
    again: bool,
}

impl Echo {
    /// Has the frames before `until` heard again.
    pub(crate) fn reopen(&mut self, until: u64) {
        self.until = Some(until);
        self.said.iter_mut().for_each(|said| said.again = false);
    }

    /// The token, if it was not said before, at the first frame that may still be spoken of.
    pub(crate) fn admit(&mut self, mut token: Token) -> Option<Token> {
        if let Some(until) = self.until {
            if token.frame >= until + NEAR {
                self.until = None;
            } else if self.was_said(&token, until) || token.frame + NEAR < until {
                return None;
            } else {
                token.frame = token.frame.max(until);
            }
        }
        while self.said.front().is_some_and(|said| said.frame + 2 * NEAR < token.frame) {
            self.said.pop_front();
        }
        self.said.push_back(Said { id: token.id, frame: token.frame, again: false });
        Some(token)
    }

    /// Whether the token was said, or before `until` something else of its sound.
    fn was_said(&mut self, token: &Token, until: u64) -> bool {
        let near = |said: &Said| !said.again && said.frame.abs_diff(token.frame) <= NEAR;
        let same = self.said.iter().position(|said| near(said) && said.id == token.id);
        let other = || {
            let before = self.said.iter().position(|said| near(said) && said.frame + NEAR >= until);
            before.filter(|_| token.frame < until)
        };
        let Some(index) = same.or_else(other) else { return false };
        self.said[index].again = true;
        true
    }
}

#[cfg(test)]
mod tests;
