// SPDX-License-Identifier: MPL-2.0
//! What the host knows of a stream: where it stands, and what its next step is. Its tensors are on the card.

use std::ops::Range;

use crate::backend::geometry::{Geometry, Span, Visibility, WindowPcm};
use crate::backend::{Mode, Step, StepSizes};
use crate::features::{HOP, WINDOW, WINDOW_AHEAD};
use crate::model::ModelConfig;

/// Samples before a mel frame's centre that it is computed from; the first is for pre-emphasis.
const BEFORE: usize = WINDOW / 2 + 1;

/// One stream.
pub struct SlotState {
    pub mode: Mode,
    /// Place of its language in the model's prompt.
    pub language: usize,
    pub visibility: Visibility,
    sizes: StepSizes,
    steps: u64,
    ended: bool,
    /// Of a buffered stream.
    window: Option<WindowPcm>,
    /// Samples that later mel frames still see, or of one pass all; the first is sample `pcm_first`.
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
            sizes: mode.step_sizes(&config.encoder),
            steps: 0,
            ended: false,
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

    /// The step's samples, with what is kept of those before.
    pub fn pcm(&self) -> &[f32] {
        self.window.as_ref().map_or(&self.pcm, WindowPcm::samples)
    }

    /// Takes the step's audio in and says what is to do; nothing if it completes no frame.
    pub fn prepare(&mut self, geometry: Geometry, step: &Step<'_>) -> Result<Option<Work>, String> {
        if self.ended {
            return Err("the utterance of this slot has ended: it must be reset first".into());
        }
        let expected = self.sizes.of(self.steps);
        let offline = matches!(self.mode, Mode::Offline { .. });
        if !offline && (step.pcm.len() > expected || (step.pcm.len() < expected && !step.end)) {
            return Err(format!("a chunk of {expected} samples was due, {} came", step.pcm.len()));
        }
        let fresh = self.steps == 0;
        (self.ended, self.steps) = (step.end, self.steps + 1);
        if let Some(window) = &mut self.window {
            window.push(step.pcm);
            let Span { frames, decode } = window.advance(geometry, step.end);
            let mels = window.samples().len() / HOP;
            return Ok((frames > 0).then(|| Work::whole(fresh, frames, decode, mels)));
        }
        self.pcm.extend_from_slice(step.pcm);
        self.samples += step.pcm.len();
        if offline {
            let mels = self.samples / HOP;
            let frames = geometry.frames(mels);
            return Ok((step.end && frames > 0).then(|| Work::whole(true, frames, 0..frames, mels)));
        }
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
