// SPDX-License-Identifier: MPL-2.0
//! One stream's state on the CPU, and what its next step is.

use std::ops::Range;
use std::sync::Arc;

use crate::backend::{Mode, Step, chunk_samples};
use crate::features::{LogMel, LogMelState, normalize_per_feature};
use crate::model::ModelConfig;
use crate::model::config::Normalize;

use super::decoder::DecoderState;
use super::encoder::{EncoderState, PositionTables, Visibility};
use super::subsampling::Geometry;

/// Everything that a stream carries from step to step.
pub struct SlotState {
    mode: Mode,
    visibility: Visibility,
    /// Encoder frames of a chunk; none offline.
    chunk: Option<usize>,
    chunks: u64,
    ended: bool,
    mel_state: LogMelState,
    /// Mel frames that later encoder frames still see; the first has index `mel_first`.
    mel: Vec<f32>,
    mel_first: usize,
    /// Encoder frames given to the encoder so far.
    frames: usize,
    pub encoder: EncoderState,
    pub decoder: DecoderState,
}

/// Frames that a step adds, and the mel frames of the whole stream if it ends with them.
pub struct Work {
    pub frames: Range<usize>,
    pub mel_total: Option<usize>,
}

impl SlotState {
    /// `positions` are those of the mode's context (any in offline mode, which makes its own).
    pub fn new(config: &ModelConfig, mode: Mode, positions: Arc<PositionTables>) -> Self {
        let (Mode::Cached { context } | Mode::Offline { context }) = mode;
        let pair = config.encoder.contexts[context];
        let visibility = Visibility::new(config.encoder.attention, pair);
        let chunk = matches!(mode, Mode::Cached { .. }).then(|| pair[1] as usize + 1);
        Self {
            mode,
            visibility,
            chunk,
            chunks: 0,
            ended: false,
            mel_state: LogMelState::default(),
            mel: Vec::new(),
            mel_first: 0,
            frames: 0,
            encoder: EncoderState::new(&config.encoder, ring_rows(config, mode), visibility, positions),
            decoder: DecoderState::new(&config.decoder),
        }
    }

    pub fn mode(&self) -> Mode {
        self.mode
    }

    pub fn positions(&self) -> Arc<PositionTables> {
        self.encoder.positions.clone()
    }

    /// Takes the step's audio in and says which frames it completes.
    pub fn prepare(&mut self, mel: &LogMel, geometry: Geometry, step: &Step<'_>) -> Result<Work, String> {
        if self.ended {
            return Err("the utterance of this slot has ended: it must be reset first".into());
        }
        if let Some(chunk) = self.chunk {
            let expected = chunk_samples(chunk, self.chunks);
            // What a last step holds beyond a chunk is less than the window's half, which no complete frame sees.
            if step.pcm.len() > expected || (step.pcm.len() < expected && !step.end) {
                return Err(format!("a chunk of {expected} samples was due, {} came", step.pcm.len()));
            }
        }
        mel.push(&mut self.mel_state, step.pcm, &mut self.mel);
        if step.end {
            mel.finish(&mut self.mel_state, &mut self.mel);
        }
        self.ended = step.end;
        self.chunks += 1;
        let total = self.mel_state.frames();
        let end = if step.end {
            geometry.frames(total)
        } else if self.chunk.is_some() {
            geometry.complete_frames(total)
        } else {
            self.frames
        };
        Ok(Work { frames: self.frames..end.max(self.frames), mel_total: step.end.then_some(total) })
    }

    /// Readies the encoder for one pass over `frames` frames: offline only.
    pub fn size_for(&mut self, config: &ModelConfig, frames: usize, positions: Arc<PositionTables>) {
        self.encoder = EncoderState::new(&config.encoder, frames.max(1), self.visibility, positions);
    }

    /// The mel frames held, and the index of the first; normalised where the model wants it.
    pub fn features(&mut self, config: &ModelConfig) -> (&[f32], usize) {
        if config.features.normalize == Normalize::PerFeature && !self.mel.is_empty() {
            normalize_per_feature(&mut self.mel, config.features.mel_bins);
        }
        (&self.mel, self.mel_first)
    }

    /// Forgets the mel frames that no later frame sees.
    pub fn advance(&mut self, geometry: Geometry, bins: usize, end: usize) {
        self.frames = end;
        let first = geometry.first_mel(end).min(self.mel_state.frames());
        if first > self.mel_first {
            self.mel.drain(..(first - self.mel_first) * bins);
            self.mel_first = first;
        }
    }
}

/// Frames that the ring of a slot holds: the left context and the chunk; offline it is sized when the frames are known.
pub fn ring_rows(config: &ModelConfig, mode: Mode) -> usize {
    match mode {
        Mode::Cached { context } => {
            let [left, right] = config.encoder.contexts[context];
            left as usize + right as usize + 1
        }
        Mode::Offline { .. } => 1,
    }
}
