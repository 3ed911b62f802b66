// SPDX-License-Identifier: MPL-2.0
//! Where a stream stands: which samples, mel frames and encoder frames each of its steps computes. Numbers alone; what they
//! stand for is with the backends.

use std::ops::Range;

use super::{Mode, Step, StepSizes, Window};
use crate::audio::features::HOP;
use crate::audio::features::{FRAME_SAMPLES, HANN, mel_frames};
use crate::model::{Geometry, ModelConfig};

/// Samples before a mel frame's centre that it is computed from; the first is for pre-emphasis.
const BEFORE: usize = HANN / 2 + 1;

/// What a step computes. All places but two count from the start of a signal: of the utterance, or of the window.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Portion {
    /// Nothing of the utterance was computed before.
    pub fresh: bool,
    /// Sample of the utterance at which the signal begins: 0, or where the window begins.
    pub origin: usize,
    /// Samples that the new mel frames see.
    pub pcm: Range<usize>,
    /// Mel frames of earlier steps that the encoder frames see.
    pub mel_old: Range<usize>,
    /// Mel frames that are computed; they follow those.
    pub mel_new: Range<usize>,
    /// How many of the last mel frames the next step sees.
    pub mel_keep: usize,
    /// Mel frames of the whole signal, once it has ended.
    pub mel_total: Option<usize>,
    /// Frames that go through the encoder.
    pub frames: Range<usize>,
    /// Which of these are decoded, counted from the first.
    pub decode: Range<usize>,
    /// Encoder frames of the utterance that earlier steps decoded.
    pub decoded: usize,
}

/// Where an utterance stands in its steps.
pub struct Timeline {
    mode: Mode,
    /// Of a step.
    sizes: StepSizes,
    geometry: Geometry,
    steps: u64,
    ended: bool,
    /// Samples taken.
    samples: usize,
    /// With caches, mel frames computed, and the first of those that the next step sees.
    mels: usize,
    mel_first: usize,
    /// Encoder frames decoded.
    frames: usize,
}

impl Timeline {
    /// Before the first step of a model's stream.
    pub fn new(config: &ModelConfig, mode: Mode) -> Self {
        Self::with(Geometry::new(config), mode, mode.step_sizes(&config.encoder))
    }

    /// Before the first step, of any lengths.
    pub fn with(geometry: Geometry, mode: Mode, sizes: StepSizes) -> Self {
        Self { mode, sizes, geometry, steps: 0, ended: false, samples: 0, mels: 0, mel_first: 0, frames: 0 }
    }

    /// Takes the next step and says what it computes. Fails after the last one, and if it has not as many samples as are
    /// due, where only the last may have fewer.
    pub fn next(&mut self, step: &Step<'_>) -> Result<Portion, String> {
        self.check(step)?;
        let fresh = self.steps == 0;
        (self.ended, self.steps) = (step.end, self.steps + 1);
        let pcm_first = self.pcm_first();
        self.samples += step.pcm.len();
        let portion = match self.mode {
            Mode::Buffered { window, .. } => self.window(window, fresh),
            Mode::Cached { .. } | Mode::Offline { .. } => self.chunk(pcm_first, fresh),
        };
        self.frames += portion.decode.len();
        Ok(portion)
    }

    /// The first sample that mel frames of later steps see; a window sees as many as it holds.
    pub fn pcm_first(&self) -> usize {
        (self.mels * HOP).saturating_sub(BEFORE).min(self.samples)
    }

    fn check(&self, step: &Step<'_>) -> Result<(), String> {
        if self.ended {
            return Err("the utterance of this slot has ended: it must be reset first".into());
        }
        let (expected, came) = (self.sizes.of(self.steps), step.pcm.len());
        if came > expected || (came < expected && !step.end) {
            return Err(match expected {
                usize::MAX => {
                    format!("one pass takes its signal in one step, {came} samples came without the end")
                }
                _ => format!("a chunk of {expected} samples was due, {came} came"),
            });
        }
        Ok(())
    }

    /// What the samples complete: with caches a chunk, in one pass everything.
    fn chunk(&mut self, pcm_first: usize, fresh: bool) -> Portion {
        let Self { geometry, ended, .. } = *self;
        let total = mel_frames(self.samples, ended);
        let end = if ended { geometry.frames(total) } else { geometry.complete_frames(total) };
        let frames = self.frames..end.max(self.frames);
        let mel_first = if ended { total } else { geometry.first_mel(end).min(total) };
        let portion = Portion {
            fresh,
            origin: 0,
            pcm: pcm_first..self.samples,
            mel_old: self.mel_first..self.mels,
            mel_new: self.mels..total,
            mel_keep: total - mel_first,
            mel_total: ended.then_some(total),
            decode: 0..frames.len(),
            frames,
            decoded: self.frames,
        };
        (self.mels, self.mel_first) = (total, mel_first);
        portion
    }

    /// The frames of a window, and which of them are decoded: the chunk, or at the stream's end all that is left.
    ///
    /// The last window is as long as the others and so may begin between two frames (NeMo's rule): its first frame
    /// to decode is then the one that holds the end of those decoded before.
    fn window(&self, window: Window, fresh: bool) -> Portion {
        let Self { geometry, ended, .. } = *self;
        let frame = FRAME_SAMPLES as usize;
        let held = self.samples.min(window.samples());
        let origin = self.samples - held;
        let mels = mel_frames(held, true);
        let frames = geometry.frames(mels);
        let left = (self.frames * frame).saturating_sub(origin) / frame;
        let all = geometry.frames(mel_frames(self.samples, true));
        let count = if ended { all.saturating_sub(self.frames) } else { window.chunk };
        Portion {
            fresh,
            origin,
            pcm: 0..held,
            mel_old: 0..0,
            mel_new: 0..mels,
            mel_keep: 0,
            mel_total: Some(mels),
            frames: 0..frames,
            decode: left.min(frames)..(left + count).min(frames),
            decoded: self.frames,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::audio::features::HANN_AHEAD;
    use crate::backend::Slot;
    use crate::convert::{Like, SynthOptions, synthetic_config};

    fn config(like: Like) -> ModelConfig {
        let options = SynthOptions { like, vocabulary: None, layers: None, seed: 0 };
        synthetic_config(&options).expect("a configuration")
    }

    /// What every step of an utterance of `total` samples computes.
    fn portions(config: &ModelConfig, mode: Mode, total: usize) -> Vec<Portion> {
        let mut timeline = Timeline::new(config, mode);
        let sizes = mode.step_sizes(&config.encoder);
        let (mut at, mut index, mut portions) = (0_usize, 0, Vec::new());
        loop {
            let next = at.saturating_add(sizes.of(index)).min(total);
            let pcm = vec![0.0; next - at];
            let step = Step { slot: Slot(0), pcm: &pcm, end: next == total };
            portions.push(timeline.next(&step).expect("a step of the right size"));
            (at, index) = (next, index + 1);
            if at == total {
                return portions;
            }
        }
    }

    proptest! {
        #[test]
        fn chunks_compute_every_frame_once_from_what_is_at_hand(context in 0_usize..4, total in 0_usize..200_000) {
            let config = config(Like::NemotronStreaming06b);
            let geometry = Geometry::new(&config);
            let mels = total / HOP;
            let (mut frames, mut computed, mut kept) = (0, 0, 0..0);
            for portion in portions(&config, Mode::Cached { context }, total) {
                if portion.frames.is_empty() {
                    continue;
                }
                prop_assert_eq!((portion.frames.start, portion.decoded, portion.fresh), (frames, frames, frames == 0));
                prop_assert_eq!(&portion.mel_old, &kept);
                prop_assert_eq!(portion.mel_old.end, portion.mel_new.start);
                prop_assert_eq!(portion.mel_old.end, computed);
                // The samples of the new mel frames, the one before them and those inside the signal.
                if !portion.mel_new.is_empty() {
                    let last = (portion.mel_new.end - 1) * HOP + HANN_AHEAD;
                    let needed = (computed * HOP).saturating_sub(BEFORE)..last.min(total);
                    prop_assert!(portion.pcm.start <= needed.start && needed.end <= portion.pcm.end, "{needed:?}, {portion:?}");
                }
                prop_assert!(geometry.first_mel(portion.frames.start) >= portion.mel_old.start);
                prop_assert!(portion.mel_total.is_some() || 8 * (portion.frames.end - 1) < portion.mel_new.end);
                prop_assert!(portion.mel_keep <= 14 && portion.decode == (0..portion.frames.len()) && portion.origin == 0);
                kept = portion.mel_new.end - portion.mel_keep..portion.mel_new.end;
                (frames, computed) = (portion.frames.end, portion.mel_new.end);
            }
            prop_assert_eq!(frames, geometry.frames(mels));
            prop_assert!(frames == 0 || computed == mels);
        }

        #[test]
        fn windows_decode_every_frame_once(
            left in 0_usize..40, chunk in 1_usize..20, right in 0_usize..20, total in 0_usize..400_000,
        ) {
            let config = config(Like::Tdt06bV3);
            let window = Window { left, chunk, right };
            let mut decoded = 0;
            for portion in portions(&config, Mode::Buffered { context: 0, window }, total) {
                let held = portion.pcm.len();
                prop_assert!(held <= window.samples() && portion.mel_new == (0..held / HOP));
                prop_assert_eq!((portion.frames.start, portion.mel_old, portion.mel_keep, portion.pcm.start), (0, 0..0, 0, 0));
                prop_assert!(portion.decode.end <= portion.frames.end && portion.decoded == decoded);
                decoded += portion.decode.len();
            }
            prop_assert_eq!(decoded, Geometry::new(&config).frames(total / HOP));
        }
    }

    #[test]
    fn one_pass_works_at_the_end() {
        let config = config(Like::Tdt06bV3);
        let portions = portions(&config, Mode::Offline { context: 0 }, 100_000);
        let [portion] = &portions[..] else { panic!("{portions:?}") };
        assert_eq!((&portion.frames, &portion.mel_new, portion.mel_total), (&(0..79), &(0..625), Some(625)));
        assert_eq!((&portion.pcm, &portion.decode, portion.fresh), (&(0..100_000), &(0..79), true));
    }

    #[test]
    fn a_step_of_another_size_and_one_after_the_end_are_refused() {
        let config = config(Like::NemotronStreaming06b);
        let mut timeline = Timeline::new(&config, Mode::Cached { context: 3 });
        let mut step = |count: usize, end| {
            let pcm = vec![0.0; count];
            timeline.next(&Step { slot: Slot(0), pcm: &pcm, end }).map(|portion| !portion.frames.is_empty())
        };
        assert!(step(199, false).unwrap_err().contains("200 samples was due, 199 came"));
        assert_eq!(step(200, false), Ok(true));
        assert_eq!(step(7, true), Ok(false), "no frame more");
        assert!(step(7, true).unwrap_err().contains("must be reset first"));
        let mut timeline = Timeline::new(&config, Mode::Offline { context: 3 });
        let part = Step { slot: Slot(0), pcm: &[0.0; 3_200], end: false };
        let refused = timeline.next(&part).unwrap_err();
        assert_eq!(refused, "one pass takes its signal in one step, 3200 samples came without the end");
    }
}
