// SPDX-License-Identifier: MPL-2.0
//! Where the utterance that is decoded stands, and what becomes of the tokens of its steps.

use super::event::Event;
use super::recovery::{Echo, History, Recovery, Trouble};
use crate::audio::{FRAME_SAMPLES, Intake};
use crate::backend::{Decoded, Token};
use crate::model::Vocabulary;
use crate::model::vocabulary::Signal;
use crate::text::{Clock, FrameWord, Placement, Seam, WordBuilder};

/// What makes words of a stream's tokens.
pub(super) struct Speech<'a> {
    pub(super) vocabulary: &'a Vocabulary,
    /// Its steps are signals by themselves, which may say again what an earlier one said.
    pub(super) whole: bool,
    /// Words that are not complete are told too.
    pub(super) partials: bool,
}

/// Where the first utterance stands.
#[derive(Default)]
pub(super) struct Decoding {
    /// Chunks that the slot has taken.
    pub(super) chunks: u64,
    /// The slot's first frame, and how many it has decoded.
    origin: u64,
    slot_frames: u64,
    /// Frames that are decoded, and samples that are or are being.
    frames: u64,
    pub(super) samples: u64,
    words: WordBuilder,
    /// While what was heard is heard again.
    recovery: Option<Recovery>,
    echo: Echo,
    placement: Placement,
    /// Samples that this has heard.
    placed: u64,
    seam: Seam,
}

impl Decoding {
    /// Begins the next utterance.
    pub(super) fn restart(&mut self) {
        let (mut words, mut placement) =
            (std::mem::take(&mut self.words), std::mem::take(&mut self.placement));
        words.restart();
        placement.restart();
        *self = Self { words, placement, ..Self::default() };
    }

    /// Takes note of a chunk whose samples are `pcm`, up to sample `end` of the utterance, and of where there is sound if words
    /// are emitted `late`; returns how many samples were stepped before.
    pub(super) fn take(&mut self, pcm: &[f32], end: u64, late: bool) -> u64 {
        if late {
            let new = end.saturating_sub(self.placed).min(pcm.len() as u64);
            self.placement.hear(&pcm[pcm.len() - new as usize..]);
            self.placed += new;
        }
        self.chunks += 1;
        let before = self.samples;
        self.samples = before.max(end);
        before
    }

    /// Whether something is heard again.
    pub(super) fn is_recovering(&self) -> bool {
        self.recovery.is_some()
    }

    /// What is said of the tokens of a step, at the `end` of the utterance of all that are left; `clock` is that of all
    /// samples that are stepped. None while something is heard again.
    pub(super) fn hear(
        &mut self,
        speech: &Speech<'_>,
        clock: Clock,
        end: bool,
        decoded: Decoded,
    ) -> Option<Vec<Event>> {
        let vocabulary = speech.vocabulary;
        let placement = &mut self.placement;
        let mut word = |word: FrameWord| Event::Word(placement.word(word, clock));
        let mut said = Vec::new();
        self.slot_frames += decoded.frames as u64;
        let frames = self.origin + self.slot_frames;
        let recovered = self.recovery.take_if(|recovery| frames > recovery.until || end);
        said.extend(recovered.map(|recovery| recovery.over(clock.base)));
        for token in decoded.tokens {
            let token = Token { frame: self.origin + token.frame, ..token };
            let Some(token) = self.echo.admit(token) else { continue };
            if speech.whole && !self.seam.is_new(vocabulary, &token, self.frames) {
                continue;
            }
            match vocabulary.signal(token.id) {
                None => said.extend(self.words.push(vocabulary, token).map(&mut word)),
                Some(signal) => {
                    let sample = (clock.base + token.frame * FRAME_SAMPLES).min(clock.done);
                    said.extend(self.words.finish(vocabulary).map(&mut word));
                    said.push(match signal {
                        Signal::EndOfUtterance => Event::EndOfUtterance { sample, backchannel: false },
                        Signal::EndOfBackchannel => Event::EndOfUtterance { sample, backchannel: true },
                        Signal::Language(code) => Event::Language { sample, code: code.clone() },
                    });
                }
            }
        }
        if self.recovery.is_some() {
            return None;
        }
        self.frames = self.frames.max(frames);
        said.extend(self.words.advance(vocabulary, self.frames).map(&mut word));
        if end {
            said.extend(self.words.finish(vocabulary).map(&mut word));
            said.push(Event::Progress { sample: clock.done });
            return Some(said);
        }
        let horizon = self.words.horizon(self.frames);
        placement.forget_before(horizon, clock);
        said.push(Event::Progress { sample: clock.horizon(horizon) });
        if speech.partials
            && let Some(word) = self.words.partial(vocabulary)
        {
            said.push(Event::Partial(placement.preview(word, clock)));
        }
        Some(said)
    }

    /// The word that is being said as far as it is decoded, and from where on others may come.
    pub(super) fn hurry(&mut self, vocabulary: &Vocabulary, clock: Clock) -> Option<[Event; 2]> {
        let word = self.words.give(vocabulary, self.frames)?;
        let sample = clock.done.min(clock.horizon(self.words.horizon(self.frames)));
        Some([Event::Word(self.placement.word(word, clock)), Event::Progress { sample }])
    }

    /// The last word, of an utterance that won't go on.
    pub(super) fn finish(&mut self, vocabulary: &Vocabulary, clock: Clock) -> Option<Event> {
        let word = self.words.finish(vocabulary)?;
        Some(Event::Word(self.placement.word(word, clock)))
    }

    /// Has a fresh slot hear again what lies before the first frame that isn't decoded.
    pub(super) fn go_back(&mut self, history: &History, intake: &mut Intake, mut trouble: Trouble) {
        if let Some(before) = self.recovery.take() {
            trouble.since = before.since();
        }
        let (position, until) = (intake.position(), self.frames);
        let origin = history.origin(until, intake.kept());
        intake.rewind(origin * FRAME_SAMPLES);
        (self.chunks, self.origin, self.slot_frames) = (0, origin, 0);
        self.echo.reopen(until);
        self.recovery = Some(Recovery::new(trouble, until, intake.position() < position));
    }
}
