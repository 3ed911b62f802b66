// SPDX-License-Identifier: MPL-2.0
//! What runs a model: the processor's cores, NVIDIA GPUs, or a device of your own.
//!
//! Audio goes in, tokens come out; tensors never leave a backend. Nothing above the trait [`Backend`] knows a device.
//! [`Engine::open`](crate::Engine::open) runs the backends that [`open()`] finds; to bring one's own is to implement the
//! trait, with the weights of a [`Model`](crate::model::Model), for
//! [`Engine::with_backends`](crate::Engine::with_backends):
//!
//! ```no_run
//! use std::sync::Arc;
//!
//! use parakeet_engine::backend::{Backend, Decoded, Limits, Mode, Slot, Step};
//! use parakeet_engine::model::Model;
//! use parakeet_engine::{Engine, Result};
//!
//! /// Takes every stream and understands nothing.
//! #[derive(Default)]
//! struct Deaf {
//!     slots: u32,
//! }
//!
//! impl Backend for Deaf {
//!     fn name(&self) -> &'static str {
//!         "deaf"
//!     }
//!
//!     fn device(&self) -> String {
//!         "nothing".into()
//!     }
//!
//!     fn limits(&self) -> Limits {
//!         Limits { streams: 64, ..Limits::default() }
//!     }
//!
//!     fn open(&mut self, _mode: Mode, _language: usize) -> Result<Slot> {
//!         self.slots += 1;
//!         Ok(Slot(self.slots - 1))
//!     }
//!
//!     fn close(&mut self, _slot: Slot) {}
//!
//!     fn reset(&mut self, _slot: Slot) {}
//!
//!     fn step(&mut self, steps: &[Step<'_>]) -> Vec<Result<Decoded>> {
//!         steps.iter().map(|_| Ok(Decoded::default())).collect()
//!     }
//!
//!     fn slot_bytes(&self, _mode: Mode) -> usize {
//!         0
//!     }
//! }
//!
//! let model = Arc::new(Model::load("models/parakeet-tdt-mini".as_ref())?);
//! let engine = Engine::with_backends(model, vec![Box::<Deaf>::default()])?;
//! # Ok::<(), parakeet_engine::Error>(())
//! ```

pub(crate) mod choice;
#[cfg(test)]
mod conformance;
mod constants;
mod cpu;
pub mod cuda;
mod fold;
pub(crate) mod mode;
mod open;
mod room;
pub(crate) mod timeline;
mod visibility;

use std::sync::Arc;
use std::time::Duration;

use crate::error::{Error, Result};
use crate::model::Boosts;

pub(crate) use choice::{BackendChoice, CachePrecision, Device, EngineOptions, Precision};
pub(crate) use mode::Window;
pub use mode::{Mode, StepSizes};
pub use open::{Opened, Spare, open};

/// Handle of one stream's state inside a backend (features, K and V rings, convolution tails, predictor state); the number is
/// the backend's own, of one slot at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Slot(pub u32);

/// The next chunk of one slot.
#[derive(Clone, Copy, Debug)]
pub struct Step<'a> {
    /// Whose chunk; a slot may appear once in a call.
    pub slot: Slot,
    /// Samples new since the slot's previous step, 16 kHz mono: exactly what [`Mode::step_sizes`] says, or any number up to it,
    /// 0 too, with `end`.
    pub pcm: &'a [f32],
    /// The utterance ends with these samples. The slot must be reset before its next step.
    pub end: bool,
}

/// One emitted token.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Token {
    /// Index into the vocabulary.
    pub id: u32,
    /// Encoder frame (80 ms) since the utterance began: one of those that the step decoded, none before an earlier token's.
    pub frame: u64,
    /// Predicted duration in encoder frames, 0 allowed; RNN-T predicts none.
    pub duration: Option<u32>,
    /// Natural log of the token's probability among all tokens and blank; no boost is in it, nor in what follows.
    pub log_prob: f32,
    /// How far the probabilities of all tokens and blank are from being equal: 0 if they are, 1 if one is certain (NeMo's
    /// default measure: exponentially normalised Tsallis entropy, alpha 0.33).
    pub confidence: f32,
    /// Logit of the token minus the largest of the others, below 0 where [`Boosts`] had another one chosen than the model.
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
    /// Encoder frames decoded by this step; see [`Backend`] for how many there are.
    pub frames: usize,
}

/// How much a step should hold at most: it bounds how long a newly complete chunk waits for the step under way. One stream
/// is always taken, however much it brings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Streams.
    pub streams: usize,
    /// Encoder frames (rows) of all streams together where all have caches.
    pub frames: usize,
    /// The same where none has: windows and whole signals are decoded frame after frame, which takes no longer for many.
    pub whole_frames: usize,
    /// Longest time that a step should take, where how many frames that is shows only when it runs: a step then holds fewer
    /// than the others say.
    pub time: Option<Duration>,
}

impl Default for Limits {
    /// None at all.
    fn default() -> Self {
        Self { streams: usize::MAX, frames: usize::MAX, whole_frames: usize::MAX, time: None }
    }
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
///
/// An engine moves each backend to a thread of its own, and what [`beside`](Self::beside) makes of it to another, which makes all the calls, one at a time; while one lasts every
/// stream of the device waits. A panic becomes an error of the call.
///
/// A slot hears one utterance after another, with a [`reset`](Self::reset) in between. Each is cut into steps by its
/// [`Mode`], and of `n` samples it has `m = n / 160` mel frames and, unless that is 0, `h(h(h(m)))` encoder frames, where
/// `h(x)` is `x / 2 + 1` if the subsampling is causal and `(x - 1) / 2 + 1` if not. Every one is decoded once, in order:
///
/// - [`Mode::Cached`]: by the first step whose samples decide it, a chunk of the right context and one frame in each; by the
///   last step all that are left.
/// - [`Mode::Buffered`]: the chunk of the step's window, which the backend puts together of this step's samples and those
///   before; by the last step all that are left.
/// - [`Mode::Offline`]: all by the only step.
pub trait Backend: Send {
    /// A short name for errors and logs, such as `cuda`.
    fn name(&self) -> &'static str;

    /// The device for people, such as `NVIDIA H100 80GB HBM3 (0)`.
    fn device(&self) -> String;

    /// How much a step should hold; asked once.
    fn limits(&self) -> Limits;

    /// Takes a fresh slot. `language` is a place of the model's prompt, ignored where it has none. The engine asks for modes
    /// that fit the model; fails if the backend lacks one or memory is out, and then the engine's other devices are tried.
    fn open(&mut self, mode: Mode, language: usize) -> Result<Slot>;

    /// Has the tokens of a slot chosen with these boosts, as [`Boosts`] says, from its next step on, whatever
    /// [`reset`](Self::reset) does; called right after [`open`](Self::open) for streams with a vocabulary. May fail as `open`
    /// does, after which the slot is closed, and does where a backend doesn't implement it.
    fn boost(&mut self, _slot: Slot, _boosts: &Arc<Boosts>) -> Result<()> {
        let reason = format!("the backend {} knows no vocabulary", self.name());
        Err(Error::Option { option: "vocabulary", reason })
    }

    /// Gives a slot back; its number may be used again.
    fn close(&mut self, slot: Slot);

    /// Brings a slot back to the state that [`Backend::open`] gave it.
    fn reset(&mut self, slot: Slot);

    /// Runs one step of every slot named; as many results, in the same order. An error ends its stream alone, and so does a
    /// result that is missing.
    fn step(&mut self, steps: &[Step<'_>]) -> Vec<Result<Decoded>>;

    /// Bytes of state that one slot of this mode holds.
    fn slot_bytes(&self, mode: Mode) -> usize;

    /// Bytes of working memory that a step over a whole signal of so many samples takes at most, beside what its slot holds;
    /// `None` for steps of one size, and where the backend doesn't know. A step that there is no room for is refused, with
    /// [`Fault::OutOfMemory`](crate::Fault::OutOfMemory).
    fn signal_bytes(&self, _mode: Mode, _samples: usize) -> Option<usize> {
        None
    }

    /// Memory of the device, where it has its own.
    fn memory(&self) -> Option<Memory> {
        None
    }

    /// Another backend on the same device that shares what this one doesn't change, above all the weights, for whole signals:
    /// their steps run beside this one's, on a thread of their own, and hold its streams up as little as the device can. The
    /// engine asks when it opens the first stream of [`Mode::Offline`], and again if that failed; meanwhile, and with `None`,
    /// such streams are stepped here.
    fn beside(&mut self) -> Option<Result<Box<dyn Backend>>> {
        None
    }

    /// There has been nothing to do for a minute: gives back what large steps took.
    fn rest(&mut self) {}

    /// Whether later steps are timed part by part, which may slow them down. A backend that can't ignores it.
    fn measure(&mut self, _on: bool) {}

    /// Where the last call of [`step`](Self::step) spent its time, if it was measured.
    fn timings(&self) -> Option<Timings> {
        None
    }

    /// Measures what the device can do at best, where the backend knows how.
    fn peaks(&mut self) -> Result<Option<Peaks>> {
        Ok(None)
    }
}
