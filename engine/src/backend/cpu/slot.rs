// SPDX-License-Identifier: MPL-2.0
//! One stream's state on the CPU, and what its next step is.

use std::ops::Range;
use std::sync::Arc;

use crate::audio::features::{LogMel, LogMelState, normalize_per_feature};
use crate::backend::geometry::{Geometry, Progress, Span, Visibility, ring_rows};
use crate::backend::{Mode, Step};
use crate::model::ModelConfig;
use crate::model::config::{EncoderConfig, Normalize};

use super::decoder::DecoderState;
use super::encoder::{EncoderState, PositionTables};
use super::window::WindowAudio;

/// Everything that a stream carries from step to step.
pub struct SlotState {
    mode: Mode,
    language: usize,
    visibility: Visibility,
    progress: Progress,
    /// The window of a buffered stream.
    window: Option<WindowAudio>,
    mel_state: LogMelState,
    /// Mel frames that later encoder frames still see; the first has index `mel_first`.
    mel: Vec<f32>,
    mel_first: usize,
    /// Encoder frames given to the encoder so far.
    frames: usize,
    pub encoder: EncoderState,
    pub decoder: DecoderState,
}

/// What a step is to do.
pub struct Work {
    /// Frames that go through the encoder.
    pub frames: Range<usize>,
    /// Which of these are decoded.
    pub decode: Range<usize>,
    /// Mel frames of the whole signal, once it has ended.
    pub mel_total: Option<usize>,
}

impl SlotState {
    /// `positions` are those of the mode's context (any in offline mode, which makes its own).
    pub fn new(config: &ModelConfig, mode: Mode, language: usize, positions: Arc<PositionTables>) -> Self {
        let visibility = Visibility::new(&config.encoder, mode);
        let encoder = match mode {
            Mode::Cached { .. } => {
                EncoderState::new(&config.encoder, ring_rows(config, mode), visibility, positions)
            }
            Mode::Buffered { .. } | Mode::Offline { .. } => {
                EncoderState::whole(&config.encoder, ring_rows(config, mode), visibility, positions)
            }
        };
        let window = match mode {
            Mode::Buffered { window, .. } => Some(WindowAudio::new(window)),
            Mode::Cached { .. } | Mode::Offline { .. } => None,
        };
        Self {
            mode,
            language,
            visibility,
            progress: Progress::new(&config.encoder, mode),
            window,
            mel_state: LogMelState::default(),
            mel: Vec::new(),
            mel_first: 0,
            frames: 0,
            encoder,
            decoder: DecoderState::new(&config.decoder),
        }
    }

    /// Bytes of a slot of this mode but for its decoder; of one pass, before its audio is there.
    pub fn bytes(config: &ModelConfig, mode: Mode) -> usize {
        let rows = ring_rows(config, mode);
        match mode {
            Mode::Cached { .. } => EncoderState::bytes(&config.encoder, rows),
            Mode::Buffered { window, .. } => {
                let one = EncoderConfig { layers: 1, ..config.encoder.clone() };
                EncoderState::bytes(&one, rows) + WindowAudio::bytes(window, config.features.mel_bins)
            }
            Mode::Offline { .. } => 0,
        }
    }

    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// Place of its language in the model's prompt.
    pub fn language(&self) -> usize {
        self.language
    }

    pub fn positions(&self) -> Arc<PositionTables> {
        self.encoder.positions.clone()
    }

    /// Takes the step's audio in and says which frames it completes.
    pub fn prepare(&mut self, mel: &LogMel, geometry: Geometry, step: &Step<'_>) -> Result<Work, String> {
        // What a last step holds beyond a chunk is less than the window's half, which no complete frame sees.
        self.progress.take(step)?;
        if let Some(window) = &mut self.window {
            window.push(mel, step.pcm);
            window.features(mel, &mut self.mel);
            let Span { frames, decode } = window.pcm.advance(geometry, step.end);
            return Ok(Work { frames: 0..frames, decode, mel_total: Some(self.mel.len() / mel.bins()) });
        }
        mel.push(&mut self.mel_state, step.pcm, &mut self.mel);
        if step.end {
            mel.finish(&mut self.mel_state, &mut self.mel);
        }
        let total = self.mel_state.frames();
        let end = if step.end { geometry.frames(total) } else { geometry.complete_frames(total) };
        let frames = self.frames..end.max(self.frames);
        Ok(Work { decode: 0..frames.len(), frames, mel_total: step.end.then_some(total) })
    }

    /// Readies the encoder for one pass over `frames` frames.
    pub fn size_for(&mut self, config: &ModelConfig, frames: usize, positions: Arc<PositionTables>) {
        if self.encoder.ring.len() != frames {
            self.encoder = EncoderState::whole(&config.encoder, frames, self.visibility, positions);
        } else {
            self.encoder.positions = positions;
        }
    }

    /// The mel frames held, and the index of the first; normalised where the model wants it.
    pub fn features(&mut self, config: &ModelConfig) -> (&[f32], usize) {
        if config.features.normalize == Normalize::PerFeature && !self.mel.is_empty() {
            normalize_per_feature(&mut self.mel, config.features.mel_bins);
        }
        (&self.mel, self.mel_first)
    }

    /// Forgets the mel frames that no later frame sees; a window makes them anew.
    pub fn advance(&mut self, geometry: Geometry, bins: usize, end: usize) {
        if self.window.is_some() {
            return;
        }
        self.frames = end;
        let first = geometry.first_mel(end).min(self.mel_state.frames());
        if first > self.mel_first {
            self.mel.drain(..(first - self.mel_first) * bins);
            self.mel_first = first;
        }
    }
}
