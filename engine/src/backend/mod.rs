// SPDX-License-Identifier: MPL-2.0
//! What a device must do: own one slot of state per stream and step many of them at once.
//!
//! Audio goes in, tokens come out; tensors never leave a backend. Nothing above this trait knows a device.

pub mod cpu;

use crate::error::Result;
use crate::features::{FRAME_SAMPLES, HOP, WINDOW_AHEAD};

/// Handle of one stream's state inside a backend (features, K and V rings, convolution tails, predictor state).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Slot(pub u32);

/// How a slot is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Cache-aware streaming with the model's context of this index; a step is one chunk.
    Cached {
        /// Index into `EncoderConfig::contexts`.
        context: usize,
    },
    /// One pass over the whole utterance, decoded at its end.
    Offline {
        /// Index into `EncoderConfig::contexts`.
        context: usize,
    },
}

/// The next chunk of one slot.
#[derive(Clone, Copy, Debug)]
pub struct Step<'a> {
    /// Whose chunk; a slot may appear once in a call.
    pub slot: Slot,
    /// Samples new since the slot's previous step: exactly [`chunk_samples`], or any number up to it with `end`.
    pub pcm: &'a [f32],
    /// The utterance ends with these samples. The slot must be reset before its next step.
    pub end: bool,
}

/// One emitted token.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Token {
    /// Index into the vocabulary.
    pub id: u32,
    /// Encoder frame (80 ms) since the utterance began.
    pub frame: u64,
    /// Predicted duration in encoder frames, 0 allowed; RNN-T always 0.
    pub duration: u32,
    /// Natural log of the token's probability among all tokens and blank.
    pub log_prob: f32,
    /// Logit of the token minus the runner-up's.
    pub margin: f32,
    /// Logit of the duration minus the runner-up's; infinite for RNN-T.
    pub duration_margin: f32,
}

/// What one step decoded.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Decoded {
    /// Tokens in order of emission.
    pub tokens: Vec<Token>,
    /// Encoder frames decoded by this step.
    pub frames: usize,
}

/// Encoder and decoder of one model on one device.
pub trait Backend: Send {
    /// `cpu`, `cuda` or `tensorrt`.
    fn name(&self) -> &'static str;

    /// Takes a fresh slot. Fails if the mode does not fit the model or memory is out.
    fn open(&mut self, mode: Mode) -> Result<Slot>;

    /// Gives a slot back.
    fn close(&mut self, slot: Slot);

    /// Brings a slot back to the state [`Backend::open`] gave it.
    fn reset(&mut self, slot: Slot);

    /// Runs one chunk of every slot named; results in the same order. A failed step leaves the others alone.
    fn step(&mut self, steps: &[Step<'_>]) -> Vec<Result<Decoded>>;

    /// Bytes of state that one slot of this mode holds.
    fn slot_bytes(&self, mode: Mode) -> usize;
}

/// Samples that chunk `index` of a cache-aware stream adds when a chunk has `frames` encoder frames.
///
/// Encoder frame `j` of a causal model ends with mel frame `8 j`, and that one sees 200 samples beyond its centre:
/// the first chunk is 7 mel frames shorter and a window's half longer than the others.
pub fn chunk_samples(frames: usize, index: u64) -> usize {
    if index == 0 { (frames - 1) * 8 * HOP + WINDOW_AHEAD } else { frames * FRAME_SAMPLES as usize }
}
