// SPDX-License-Identifier: MPL-2.0
//! What the host knows of a stream: where it stands, and what its next step is. Its tensors are on the card.

use std::ops::Range;

use crate::audio::features::{HOP, WINDOW, WINDOW_AHEAD};
use crate::backend::geometry::{Geometry, Progress, Span, Visibility, WindowPcm};
use crate::backend::{Mode, Step};
use crate::model::ModelConfig;

/// Samples before a mel frame's centre that it is computed from; the first is for pre-emphasis.
const BEFORE: usize = WINDOW / 2 + 1;

/// One stream.
pub struct SlotState {
    pub mode: Mode,
    /// Place of its language in the model's prompt.
    pub language: usize,
    pub visibility: Visibility,
    progress: Progress,
    /// Of a buffered stream.
    window: Option<WindowPcm>,
    /// With caches, samples that later mel frames still see; the first is sample `pcm_first`.
    pcm: Vec<f32>,
    pcm_first: usize,
    samples: usize,
    /// Mel frames computed so far, and the first of those that the card keeps.
    mels: usize,
    mel_first: usize,
    /// Encoder frames computed so far.
    frames: usize,
    /// Encoder frames decoded so far.
    pub decoded: u64,
}

/// What a step is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Work {
    /// Nothing of the utterance is on the card yet.
    pub fresh: bool,
    /// Index of the first encoder frame, and how many there are.
    pub first: usize,
    pub frames: usize,
    /// Which of these are decoded.
    pub decode: Range<usize>,
    /// Index of the first sample.
    pub pcm_first: usize,
    /// Index of the first mel frame, how many the card has of it, how many are new and how many it keeps.
    pub mel_first: usize,
    pub mel_old: usize,
    pub mel_new: usize,
    pub mel_keep: usize,
    /// Mel frames of the whole signal, once it has ended.
    pub mel_total: Option<usize>,
}

impl SlotState {
    /// At the start of an utterance.
    pub fn new(config: &ModelConfig, mode: Mode, language: usize) -> Self {
        let window = match mode {
            Mode::Buffered { window, .. } => Some(WindowPcm::new(window)),
            Mode::Cached { .. } | Mode::Offline { .. } => None,
        };
        Self {
            mode,
            language,
            visibility: Visibility::new(&config.encoder, mode),
            progress: Progress::new(&config.encoder, mode),
            window,
            pcm: Vec::new(),
            pcm_first: 0,
            samples: 0,
            mels: 0,
            mel_first: 0,
            frames: 0,
            decoded: 0,
        }
    }

    /// The samples of a step that was prepared, with what is kept of those before; `step` are its own.
    pub fn pcm<'a>(&'a self, step: &'a [f32]) -> &'a [f32] {
        match (self.mode, &self.window) {
            // Long, and nothing was before it: not copied.
            (Mode::Offline { .. }, _) => step,
            (_, Some(window)) => window.samples(),
            (_, None) => &self.pcm,
        }
    }

    /// Takes the step's audio in and says what is to do; nothing if it completes no frame.
    pub fn prepare(&mut self, geometry: Geometry, step: &Step<'_>) -> Result<Option<Work>, String> {
        let fresh = self.progress.take(step)?;
        if let Some(window) = &mut self.window {
            window.push(step.pcm);
            let Span { frames, decode } = window.advance(geometry, step.end);
            let mels = window.samples().len() / HOP;
            return Ok((frames > 0).then(|| Work::whole(fresh, frames, decode, mels)));
        }
        if matches!(self.mode, Mode::Offline { .. }) {
            let mels = step.pcm.len() / HOP;
            let frames = geometry.frames(mels);
            return Ok((frames > 0).then(|| Work::whole(fresh, frames, 0..frames, mels)));
        }
        self.pcm.extend_from_slice(step.pcm);
        self.samples += step.pcm.len();
        let total = if step.end {
            self.samples / HOP
        } else {
            (self.samples + HOP).saturating_sub(WINDOW_AHEAD) / HOP
        };
        let end = if step.end { geometry.frames(total) } else { geometry.complete_frames(total) };
        let frames = end.saturating_sub(self.frames);
        let kept = geometry.first_mel(end).min(total);
        let work = Work {
            fresh,
            first: self.frames,
            frames,
            decode: 0..frames,
            pcm_first: self.pcm_first,
            mel_first: self.mel_first,
            mel_old: self.mels - self.mel_first,
            mel_new: total - self.mels,
            mel_keep: if step.end { 0 } else { total - kept },
            mel_total: step.end.then_some(total),
        };
        (self.mels, self.mel_first, self.frames) = (total, kept, end.max(self.frames));
        Ok((frames > 0).then_some(work))
    }

    /// Forgets the samples that no later mel frame sees.
    pub fn advance(&mut self) {
        if matches!(self.mode, Mode::Cached { .. }) {
            let first = (self.mels * HOP).saturating_sub(BEFORE).min(self.samples);
            self.pcm.drain(..first.saturating_sub(self.pcm_first));
            self.pcm_first = self.pcm_first.max(first);
        }
    }
}

impl Work {
    /// A signal by itself: nothing was before it and nothing comes after.
    fn whole(fresh: bool, frames: usize, decode: Range<usize>, mels: usize) -> Self {
        Self {
            fresh,
            first: 0,
            frames,
            decode,
            pcm_first: 0,
            mel_first: 0,
            mel_old: 0,
            mel_new: mels,
            mel_keep: 0,
            mel_total: Some(mels),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::backend::{Slot, Window};
    use crate::convert::{Like, SynthOptions, synthetic_config};

    fn config(like: Like) -> ModelConfig {
        let options = SynthOptions { like, vocabulary: None, layers: None, seed: 0 };
        synthetic_config(&options).expect("a configuration")
    }

    /// The work of every step of an utterance of `total` samples, with the samples that it has at hand.
    fn works(config: &ModelConfig, mode: Mode, total: usize) -> Vec<(Option<Work>, usize)> {
        let geometry = Geometry::new(config);
        let mut state = SlotState::new(config, mode, 0);
        let sizes = mode.step_sizes(&config.encoder);
        let (mut at, mut index, mut works) = (0_usize, 0, Vec::new());
        loop {
            let next = at.saturating_add(sizes.of(index)).min(total);
            let pcm = vec![0.0; next - at];
            let step = Step { slot: Slot(0), pcm: &pcm, end: next == total };
            let work = state.prepare(geometry, &step).expect("a step of the right size");
            works.push((work, state.pcm(&pcm).len()));
            state.advance();
            (at, index) = (next, index + 1);
            if at == total {
                return works;
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
            for (work, held) in works(&config, Mode::Cached { context }, total) {
                let Some(work) = work else { continue };
                prop_assert_eq!((work.first, work.fresh), (frames, frames == 0));
                prop_assert_eq!(work.mel_first..work.mel_first + work.mel_old, kept);
                prop_assert_eq!(work.mel_first + work.mel_old, computed);
                let last = computed + work.mel_new;
                // The samples of the new mel frames, the one before them and those inside the signal.
                if work.mel_new > 0 {
                    let needed = (computed * HOP).saturating_sub(BEFORE)..((last - 1) * HOP + WINDOW_AHEAD).min(total);
                    let there = work.pcm_first..work.pcm_first + held;
                    prop_assert!(there.start <= needed.start && needed.end <= there.end, "{needed:?} of {there:?}");
                }
                let end = work.first + work.frames;
                prop_assert!(geometry.first_mel(work.first) >= work.mel_first);
                prop_assert!(work.mel_total.is_some() || 8 * (end - 1) < last);
                prop_assert!(work.mel_keep <= 14 && work.decode == (0..work.frames));
                kept = last - work.mel_keep..last;
                (frames, computed) = (end, last);
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
            for (work, held) in works(&config, Mode::Buffered { context: 0, window }, total) {
                let Some(work) = work else { continue };
                prop_assert!(held <= window.samples() && work.mel_new == held / HOP);
                prop_assert_eq!((work.first, work.mel_old, work.mel_keep, work.pcm_first), (0, 0, 0, 0));
                prop_assert!(work.decode.end <= work.frames);
                decoded += work.decode.len();
            }
            prop_assert_eq!(decoded, Geometry::new(&config).frames(total / HOP));
        }
    }

    #[test]
    fn one_pass_works_at_the_end() {
        let config = config(Like::Tdt06bV3);
        let works = works(&config, Mode::Offline { context: 0 }, 100_000);
        let [(Some(work), 100_000)] = &works[..] else { panic!("{works:?}") };
        assert_eq!((work.frames, work.mel_new, work.mel_total), (79, 625, Some(625)));
    }

    #[test]
    fn a_step_of_another_size_and_one_after_the_end_are_refused() {
        let config = config(Like::NemotronStreaming06b);
        let geometry = Geometry::new(&config);
        let mut state = SlotState::new(&config, Mode::Cached { context: 3 }, 0);
        let mut step = |count: usize, end| {
            let pcm = vec![0.0; count];
            state.prepare(geometry, &Step { slot: Slot(0), pcm: &pcm, end }).map(|work| work.is_some())
        };
        assert!(step(199, false).unwrap_err().contains("200 samples was due, 199 came"));
        assert_eq!(step(200, false), Ok(true));
        assert_eq!(step(7, true), Ok(false), "no frame more");
        assert!(step(7, true).unwrap_err().contains("must be reset first"));
        let mut state = SlotState::new(&config, Mode::Offline { context: 3 }, 0);
        let part = Step { slot: Slot(0), pcm: &[0.0; 3_200], end: false };
        let refused = state.prepare(geometry, &part).unwrap_err();
        assert_eq!(refused, "one pass takes its signal in one step, 3200 samples came without the end");
    }
}
