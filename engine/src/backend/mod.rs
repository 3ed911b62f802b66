// SPDX-License-Identifier: MPL-2.0
//! What a device must do: own one slot of state per stream and step many of them at once.
//!
//! Audio goes in, tokens come out; tensors never leave a backend. Nothing above this trait knows a device.

mod choice;
#[cfg(test)]
mod conformance;
pub mod cpu;
pub mod cuda;
mod fold;
mod geometry;
mod open;

use crate::audio::features::{FRAME_SAMPLES, HOP, WINDOW_AHEAD};
use crate::error::{Error, Result};
use crate::model::config::EncoderConfig;

pub use choice::{BackendChoice, CachePrecision, Device, EngineOptions, Precision};
pub use open::{Opened, open};

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
    /// Windows of left context, chunk and right context that slide by a chunk; a step is one window.
    Buffered {
        /// Index into `EncoderConfig::contexts`: what a frame sees inside the window.
        context: usize,
        /// The window.
        window: Window,
    },
    /// One pass over the whole utterance, which is one step.
    Offline {
        /// Index into `EncoderConfig::contexts`.
        context: usize,
    },
}

impl Mode {
    /// Index into `EncoderConfig::contexts`.
    pub fn context(self) -> usize {
        let (Self::Cached { context } | Self::Buffered { context, .. } | Self::Offline { context }) = self;
        context
    }

    /// How many samples the steps of an utterance take.
    pub fn step_sizes(self, encoder: &EncoderConfig) -> StepSizes {
        match self {
            Self::Cached { context } => {
                let right = encoder.contexts.get(context).map_or(0, |[_, right]| (*right).max(0));
                let samples = |index| chunk_samples(right as usize + 1, index);
                StepSizes { first: samples(0), later: samples(1) }
            }
            Self::Buffered { window: Window { chunk, right, .. }, .. } => {
                let samples = |frames: usize| frames * FRAME_SAMPLES as usize;
                StepSizes { first: samples(chunk + right), later: samples(chunk) }
            }
            Self::Offline { .. } => StepSizes { first: usize::MAX, later: usize::MAX },
        }
    }
}

/// Samples of the steps of an utterance; its last step may have fewer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StepSizes {
    /// Of the first step. It begins with its first frame, so this is also the most that lies between the start of a
    /// frame and the end of the step that decodes it.
    pub first: usize,
    /// Of each later one.
    pub later: usize,
}

impl StepSizes {
    /// Samples of step `index`.
    pub fn of(self, index: u64) -> usize {
        if index == 0 { self.first } else { self.later }
    }
}

/// A window of buffered streaming, in encoder frames of 80 ms (NeMo `speech_to_text_streaming_infer_rnnt.py`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Window {
    /// Frames before the chunk that the encoder hears again, at most.
    pub left: usize,
    /// Frames that are decoded.
    pub chunk: usize,
    /// Frames after the chunk that the encoder hears first.
    pub right: usize,
}

impl Default for Window {
    /// 10 s, 2 s and 2 s.
    fn default() -> Self {
        Self { left: 125, chunk: 25, right: 25 }
    }
}

impl Window {
    /// Most frames of a window: 10 minutes.
    const MOST: usize = 7_500;

    /// From seconds, rounded down to frames as NeMo does: 1 s is 12 frames. Fails without a frame to decode, and beyond
    /// 10 minutes.
    pub fn from_seconds(left: f64, chunk: f64, right: f64) -> Result<Self> {
        let frames = |option, seconds: f64| {
            // A multiple of 80 ms stays one in spite of rounding.
            let frames = (seconds * 12.5 + 1e-6).floor();
            if frames >= 0.0 && frames <= Self::MOST as f64 {
                return Ok(frames as usize);
            }
            Err(Error::Option { option, reason: format!("{seconds} s is outside 0 to 600 s") })
        };
        let window = Self {
            left: frames("left", left)?,
            chunk: frames("chunk", chunk)?,
            right: frames("right", right)?,
        };
        window.check().map(|()| window)
    }

    /// Whether there is a frame to decode and the window isn't longer than 10 minutes.
    pub fn check(self) -> Result<()> {
        if self.chunk == 0 {
            let reason = "shorter than an encoder frame of 80 ms".into();
            return Err(Error::Option { option: "chunk", reason });
        }
        let Self { left, chunk, right } = self;
        if [left, chunk, right].into_iter().any(|part| part > Self::MOST) || self.frames() > Self::MOST {
            let reason = "left, chunk and right are more than 10 minutes together".into();
            return Err(Error::Option { option: "left", reason });
        }
        Ok(())
    }

    /// Frames of a whole window.
    pub fn frames(self) -> usize {
        self.left + self.chunk + self.right
    }

    /// Samples of a whole window.
    pub fn samples(self) -> usize {
        self.frames() * FRAME_SAMPLES as usize
    }
}

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

/// Samples that chunk `index` of a cache-aware stream adds when a chunk has `frames` encoder frames.
///
/// Encoder frame `j` of a causal model ends with mel frame `8 j`, and that one sees 200 samples beyond its centre:
/// the first chunk is 7 mel frames shorter and a window's half longer than the others.
pub fn chunk_samples(frames: usize, index: u64) -> usize {
    if index == 0 { (frames - 1) * 8 * HOP + WINDOW_AHEAD } else { frames * FRAME_SAMPLES as usize }
}
