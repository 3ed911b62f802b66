// SPDX-License-Identifier: MPL-2.0
//! Words of a model's frames to words on the stream's clock of samples, where they are spoken.

use super::words::{FrameWord, TimedToken, Word};
use crate::audio::{FRAME_SAMPLES, Levels, SAMPLE_RATE};

/// Samples that a word lasts at least, and that are left of the audio for the words to come: 20 ms.
const SHORTEST: u64 = SAMPLE_RATE as u64 / 50;

/// Places the words of a stream one after another: each lasts, begins no earlier than the one before ends, and no later
/// than the audio.
#[derive(Clone, Debug, Default)]
pub struct Placement {
    levels: Levels,
    /// Where the last word ends.
    last: u64,
}

/// What the times of an utterance's frames mean, in samples.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    /// Where the utterance begins.
    pub base: u64,
    /// How far its audio is heard.
    pub done: u64,
    /// How long after a word begins the model emits it.
    pub delay: u64,
}

impl Clock {
    /// The sample at which frame `frame` begins.
    fn emitted(self, frame: u64) -> u64 {
        (self.base + frame * FRAME_SAMPLES).min(self.done)
    }

    /// The first sample of what the model emits at frame `frame`, counted from where the utterance begins.
    fn spoken(self, frame: u64) -> u64 {
        (frame * FRAME_SAMPLES).saturating_sub(self.delay)
    }

    /// No word of frame `frame` or later starts before this sample, as long as more frames come.
    pub fn horizon(self, frame: u64) -> u64 {
        (self.base + self.spoken(frame)).min(self.done.saturating_sub(SHORTEST).max(self.base))
    }
}

impl Placement {
    /// Takes the utterance's next samples.
    pub fn hear(&mut self, pcm: &[f32]) {
        self.levels.push(pcm);
    }

    /// No word of a frame before this one will come.
    pub fn forget_before(&mut self, frame: u64, clock: Clock) {
        self.levels.forget_before(clock.spoken(frame));
    }

    /// Begins another utterance.
    pub fn restart(&mut self) {
        self.levels = Levels::default();
    }

    /// Places the next word.
    pub fn word(&mut self, word: FrameWord, clock: Clock) -> Word {
        let word = self.preview(word, clock);
        self.last = word.end;
        word
    }

    /// Places a word that may still change.
    pub fn preview(&self, word: FrameWord, clock: Clock) -> Word {
        let FrameWord { text, start, end, next, confidence, joined, tokens } = word;
        let Clock { base, done, delay } = clock;
        let spoken = clock.spoken(start);
        let sound = if delay > 0 { self.levels.onset(spoken, start * FRAME_SAMPLES) } else { spoken };
        let latest = done.saturating_sub(SHORTEST);
        let start = (base + sound).min(latest).max(base).max(self.last).min(done.saturating_sub(1));
        let free = next.map_or(done, |next| (base + clock.spoken(next)).min(done));
        let mut end = clock.emitted(end).min(free).max(start + SHORTEST).min(done);
        if next.is_some() {
            // Room for what comes next, should no audio of its own be left.
            end = end.min(latest.max(start + (done - start).div_ceil(2)));
        }
        let tokens = tokens.into_iter().map(|timed| TimedToken {
            start: clock.emitted(timed.start),
            end: clock.emitted(timed.end),
            ..timed
        });
        let tokens = tokens.collect();
        Word { text, start, end, until: free.max(end), confidence, heard: done, joined, tokens }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn word(start: u64, end: u64, next: Option<u64>) -> FrameWord {
        FrameWord {
            text: String::new(),
            start,
            end,
            next,
            confidence: 1.0,
            joined: false,
            tokens: Vec::new(),
        }
    }

    #[test]
    fn words_start_when_they_are_spoken() {
        let clock = Clock { base: 1_000, done: 101_000, delay: 7_200 };
        let mut placement = Placement::default();
        let span = |word: Word| (word.start, word.end, word.until);
        // 10 * 1,280 - 7,200 is 5,600; the next one begins at 15 * 1,280 - 7,200 = 12,000.
        assert_eq!(span(placement.word(word(10, 12, Some(15)), clock)), (6_600, 13_000, 13_000));
        // A pause: it ends where NeMo has it, at 17 * 1,280.
        assert_eq!(span(placement.word(word(15, 17, Some(30)), clock)), (13_000, 22_760, 32_200));
        assert_eq!(span(placement.word(word(2, 3, None), clock)).0, 22_760, "never into the word before");
    }

    #[test]
    fn silence_before_a_word_is_not_its_own() {
        let clock = Clock { base: 0, done: 40_000, delay: 7_200 };
        let mut placement = Placement::default();
        placement.hear(&[0.0; 8_000]);
        placement.hear(&[0.1; 32_000]);
        // The model emits at 11 * 1,280 = 14,080, and 6,880 is too early.
        assert_eq!(placement.preview(word(11, 13, None), clock).start, 8_000);
        assert_eq!(
            placement.preview(word(14, 16, None), clock).start,
            14 * 1_280 - 7_200,
            "nothing begins there"
        );
        let exact = Clock { delay: 0, ..clock };
        assert_eq!(
            placement.preview(word(5, 7, None), exact).start,
            6_400,
            "without a delay times are NeMo's"
        );
    }

    #[test]
    fn words_beyond_the_audio_share_its_end() {
        let clock = Clock { base: 0, done: 12_800, delay: 0 };
        let mut placement = Placement::default();
        let words: Vec<Word> = [(8, 10, Some(11)), (11, 12, Some(12)), (12, 13, Some(12)), (12, 14, None)]
            .map(|(start, end, next)| placement.word(word(start, end, next), clock))
            .into();
        assert!(words.iter().all(|word| word.start < word.end && word.end <= 12_800), "{words:?}");
        assert!(words.windows(2).all(|pair| pair[0].end <= pair[1].start), "{words:?}");
        assert_eq!(words[0].start, 8 * 1_280);
    }

    proptest! {
        /// However many words are emitted at once, in or behind the audio.
        #[test]
        fn every_word_lasts_and_none_overlap(
            steps in prop::collection::vec((0..4_u64, 1..6_u64), 1..30), delay in 0..10_000_u64, tail in 0..7_u64,
        ) {
            let mut frames: Vec<(u64, u64)> = Vec::new();
            let mut frame = 0;
            for (step, length) in steps {
                // A frame has ten tokens at most.
                let crowded = frames.iter().rev().take(8).filter(|word| word.0 == frame).count() == 8;
                frame += step.max(u64::from(crowded));
                frames.push((frame, length));
            }
            let done = (frame + 1).saturating_sub(tail).max(1) * FRAME_SAMPLES;
            let mut placement = Placement::default();
            let mut last = 0;
            let crowd = frames.iter().filter(|word| word.0 * FRAME_SAMPLES >= done).count();
            prop_assume!(crowd <= 7);
            for (at, &(start, length)) in frames.iter().enumerate() {
                let next = frames.get(at + 1).map(|next| next.0);
                let end = (start + length).min(next.unwrap_or(u64::MAX).max(start));
                let clock = Clock { base: 0, done, delay };
                let placed = placement.word(word(start, end, next), clock);
                prop_assert!(placed.start >= last && placed.end > placed.start && placed.end <= done, "{:?}", placed);
                prop_assert!(placed.until >= placed.end);
                last = placed.end;
            }
        }
    }
}
