// SPDX-License-Identifier: MPL-2.0
//! One stream's state on the CPU.

use std::sync::Arc;

use crate::audio::features::{LogMel, LogMelState, normalize_per_feature};
use crate::backend::mode::ring_rows;
use crate::backend::timeline::{Portion, Timeline};
use crate::backend::visibility::Visibility;
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
    timeline: Timeline,
    /// The window of a buffered stream.
    window: Option<WindowAudio>,
    mel_state: LogMelState,
    /// The mel frames of a step, then those that the next one still sees.
    mel: Vec<f32>,
    pub encoder: EncoderState,
    pub decoder: DecoderState,
}

impl SlotState {
    /// `positions` are those of the mode's context or window; one pass has its own.
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
            Mode::Buffered { .. } => Some(WindowAudio::default()),
            Mode::Cached { .. } | Mode::Offline { .. } => None,
        };
        Self {
            mode,
            language,
            visibility,
            timeline: Timeline::new(config, mode),
            window,
            mel_state: LogMelState::default(),
            mel: Vec::new(),
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

    /// Takes the step's audio in and says what it computes.
    pub fn prepare(&mut self, mel: &LogMel, step: &Step<'_>) -> Result<Portion, String> {
        let portion = self.timeline.next(step)?;
        match &mut self.window {
            Some(window) => {
                window.push(mel, step.pcm, portion.origin);
                window.features(mel, &mut self.mel);
            }
            None => {
                self.mel.reserve(portion.mel_new.len() * mel.bins());
                mel.push(&mut self.mel_state, step.pcm, &mut self.mel);
                if step.end {
                    mel.finish(&mut self.mel_state, &mut self.mel);
                }
            }
        }
        debug_assert_eq!(self.mel.len(), (portion.mel_old.len() + portion.mel_new.len()) * mel.bins());
        Ok(portion)
    }

    /// Readies the encoder for one pass over `frames` frames.
    pub fn size_for(&mut self, config: &ModelConfig, frames: usize) {
        if matches!(self.mode, Mode::Offline { .. }) {
            self.encoder.positions = Arc::new(PositionTables::Made(self.visibility.distances(frames)));
        }
        if self.encoder.ring.len() != frames {
            let positions = self.encoder.positions.clone();
            self.encoder = EncoderState::whole(&config.encoder, frames, self.visibility, positions);
        }
    }

    /// The mel frames of the step; normalised where the model wants it.
    pub fn features(&mut self, config: &ModelConfig) -> &[f32] {
        if config.features.normalize == Normalize::PerFeature && !self.mel.is_empty() {
            normalize_per_feature(&mut self.mel, config.features.mel_bins);
        }
        &self.mel
    }

    /// Forgets the mel frames that no later step sees; a window makes them anew.
    pub fn advance(&mut self, portion: &Portion, bins: usize) {
        match self.mode {
            Mode::Cached { .. } => drop(self.mel.drain(..self.mel.len() - portion.mel_keep * bins)),
            Mode::Buffered { .. } => {}
            Mode::Offline { .. } => self.mel = Vec::new(),
        }
    }

    /// Gives back what one pass took; another may be long in coming.
    pub fn finish(&mut self, config: &ModelConfig) {
        if matches!(self.mode, Mode::Offline { .. }) {
            self.size_for(config, ring_rows(config, self.mode));
        }
    }
}
