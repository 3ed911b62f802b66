// SPDX-License-Identifier: MPL-2.0
//! What a device must do: own one slot of state per stream and step many of them at once.
//!
//! Audio goes in, tokens come out; tensors never leave a backend. Nothing above this trait knows a device.

pub(crate) mod choice;
#[cfg(test)]
mod conformance;
mod cpu;
pub mod cuda;
mod fold;
pub(crate) mod mode;
mod open;
mod timeline;
mod visibility;

use crate::error::Result;

pub(crate) use choice::{BackendChoice, CachePrecision, Device, EngineOptions, Precision};
pub(crate) use mode::Window;
pub use mode::{Mode, StepSizes};
pub use open::{Opened, open};

/// Handle of one stream's state inside a backend (features, K and V rings, convolution tails, predictor state).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Slot(pub u32);

/// The next chunk of one slot.
#[derive(Clone, Copy, Debug)]
pub struct Step<'a> {
    /// Whose chunk; a slot may appear once in a call.
    pub slot: Slot,
    /// Samples new since the slot's previous step: exactly what [`Mode::step_sizes`] says, or any number up to it with `end`.
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
    /// Predicted duration in encoder frames, 0 allowed; RNN-T predicts none.
    pub duration: Option<u32>,
    /// Natural log of the token's probability among all tokens and blank.
    pub log_prob: f32,
    /// How far the probabilities of all tokens and blank are from being equal: 0 if they are, 1 if one is certain (NeMo's
    /// default measure: exponentially normalised Tsallis entropy, alpha 0.33).
    pub confidence: f32,
    /// Logit of the token minus the runner-up's.
    pub margin: f32,
    /// Logit of the duration minus the runner-up's; infinite for RNN-T.
    pub duration_margin: f32,
}

impl Token {
    /// Encoder frame at which it ends: after its duration, of RNN-T the next one (NeMo `_compute_offsets`).
    pub fn end(&self) -> u64 {
        self.frame + u64::from(self.duration.unwrap_or(1))
    }
}

/// What one step decoded.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Decoded {
    /// Tokens in order of emission.
    pub tokens: Vec<Token>,
    /// Encoder frames decoded by this step.
    pub frames: usize,
}

/// How much a step should hold at most: it bounds how long a newly complete chunk waits for the step under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Streams.
    pub streams: usize,
    /// Encoder frames (rows) of all streams together where all have caches; one stream may have more.
    pub frames: usize,
    /// The same where none has: windows and whole signals are decoded frame after frame, which takes no longer for many.
    pub whole_frames: usize,
}

/// Where the time of a step went, in seconds on the device.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Timings {
    /// Audio and the description of the step to the device.
    pub copies: f64,
    /// Log-mel features and subsampling.
    pub features: f64,
    /// The encoder's layers.
    pub layers: f64,
    /// Predictor and joint, and what they said back to the host.
    pub decode: f64,
}

/// What a device can do at best, measured.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Peaks {
    /// Floating-point operations a second of a large matrix product in the backend's precision.
    pub operations: f64,
    /// Bytes read and written a second by a large copy.
    pub bytes: f64,
}

/// Memory of a device in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// Not in use by anybody.
    pub free: usize,
    /// In all.
    pub total: usize,
}

/// Encoder and decoder of one model on one device.
pub trait Backend: Send {
    /// `cpu`, `cuda` or `tensorrt`.
    fn name(&self) -> &'static str;

    /// The device for people, such as `NVIDIA H100 80GB HBM3 (0)`.
    fn device(&self) -> String;

    /// How much a step should hold.
    fn limits(&self) -> Limits;

    /// Takes a fresh slot. `language` is a place of the model's prompt, ignored where it has none. Fails if the mode does
    /// not fit the model or memory is out.
    fn open(&mut self, mode: Mode, language: usize) -> Result<Slot>;

    /// Gives a slot back.
    fn close(&mut self, slot: Slot);

    /// Brings a slot back to the state that [`Backend::open`] gave it.
    fn reset(&mut self, slot: Slot);

    /// Runs one chunk of every slot named; results in the same order. A failed step leaves the others alone.
    fn step(&mut self, steps: &[Step<'_>]) -> Vec<Result<Decoded>>;

    /// Bytes of state that one slot of this mode holds.
    fn slot_bytes(&self, mode: Mode) -> usize;

    /// Memory of the device, where it has its own.
    fn memory(&self) -> Option<Memory> {
        None
    }

    /// Whether later steps are timed part by part, which may slow them down. A backend that can't ignores it.
    fn measure(&mut self, _on: bool) {}

    /// Where the last step's time went, if it was measured.
    fn timings(&self) -> Option<Timings> {
        None
    }

    /// Measures what the device can do at best, where the backend knows how.
    fn peaks(&mut self) -> Result<Option<Peaks>> {
        Ok(None)
    }
}
