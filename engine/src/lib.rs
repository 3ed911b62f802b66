// SPDX-License-Identifier: MPL-2.0
//! Streaming speech recognition with NVIDIA Parakeet and Nemotron models: many live streams on one device, words out
//! as soon as they can no longer change.
//!
//! ```no_run
//! use parakeet_engine::{Engine, EngineOptions, Event, StreamOptions};
//!
//! let engine = Engine::open("models/parakeet-tdt-mini".as_ref(), &EngineOptions::default())?;
//! let stream = engine.stream(&StreamOptions::default())?;
//! let pcm = vec![0.0; 16_000]; // 16 kHz mono
//! stream.push(&pcm)?;
//! stream.finish();
//! while let Some(event) = stream.next() {
//!     match event {
//!         Event::Word(word) => print!("{} ", word.text),
//!         Event::Finished { .. } => break,
//!         Event::Failed { error, .. } => return Err(error.into()),
//!         _ => {}
//!     }
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Where things are
//!
//! In the order in which data meets them:
//!
//! - [`convert`] makes a model directory of a checkpoint: a `.nemo` file, or a directory of Hugging Face transformers.
//! - [`model`] reads one: what the model is, its vocabulary and its weights.
//! - [`Engine`] holds a model on its devices, one in a process for all who ask for the same; [`EngineOptions`] say which.
//! - [`Stream`] takes audio and gives out each [`Event`], on a clock of samples; [`StreamOptions`] say how it is recognised:
//!   with caches, in windows or in one pass, at which latency.
//! - [`Boosts`] are phrases that a stream is rather to hear than what sounds like them.
//! - [`backend`] is what computes: chunks of many streams go to a device in one step, tokens come back.
//! - [`Units`] make phrases for captions or sentences of the words.
//! - [`Engine::statistics`] tell what each device has done, and how long audio waited for it.
//!
//! # Threads
//!
//! Engines and streams can be shared and called from any thread; one may push audio while another takes events. An engine has a
//! thread for each device, and for the CPU a pool of [`EngineOptions::threads`]; both once more where models that hear whole
//! signals at once have any to hear. Large steps use rayon's global pool as well.
//! These calls block:
//!
//! - [`Engine::open`] while the model loads, for some seconds; [`convert::convert`] for longer.
//! - [`Engine::stream`], [`Engine::stream_bytes`] and [`Engine::statistics`] until the step under way is done.
//! - [`Stream::push`] while the queue is full, unless [`Overflow::DropOldest`] is chosen.
//! - [`Stream::next`] until there is an event. [`Stream::interrupt`] wakes it, [`Stream::try_next`] doesn't wait.
//! - Dropping the last of an engine and its streams, until the step under way is done.
//!
//! A stream with 256 events that nobody takes is not stepped, and its queue fills: a thread that does both takes what
//! [`Stream::try_next`] has between two pushes, or when [`PushError::Unread`] tells it to.
//!
//! # Errors
//!
//! There is one type, [`Error`], beside [`PushError`] for audio that is not taken. What names a wrong file, option or
//! model fails in the call. What fails later ends one stream with [`Event::Failed`], after which [`Stream::push`] says
//! [`PushError::Closed`]; other streams go on. A model directory is not trusted: a damaged one is an error.
//!
//! # On a GPU
//!
//! Building needs nothing of CUDA. To run, NVIDIA's driver and the libraries `libnvrtc` and `libcublasLt` of CUDA 12 or
//! 13 must be there, no newer than the driver supports. The first start with a model compiles its kernels for some
//! seconds and keeps them in the user's cache directory. [`BackendChoice::Auto`] takes the CPU where there is no GPU that
//! runs the model, and [`Engine::passed_over`] says why. Other devices can be brought: see [`backend`].

#![deny(unsafe_code)]

mod audio;
pub mod backend;
pub mod convert;
mod error;
pub mod model;
mod runtime;
mod text;

pub use audio::{FRAME_SAMPLES, SAMPLE_RATE};
#[doc(inline)]
pub use backend::Token;
pub use backend::choice::{BackendChoice, CachePrecision, Device, EngineOptions, Precision};
pub use backend::mode::Window;
pub use error::{Error, Fault, Result};
#[doc(inline)]
pub use model::Boosts;
pub use runtime::{
    Distribution, Engine, Event, LaneStatistics, Overflow, Percentiles, PushError, Statistics, Stream,
    StreamOptions,
};
pub use text::{Caption, Captions, Lines, Mask, TextUnit, TimedToken, Unit, Units, Word};

/// The README's examples, which compile.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
