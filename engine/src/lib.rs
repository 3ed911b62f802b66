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
//!         _ => {}
//!     }
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Audio goes one way: [`Stream::push`] -> a chunk in the stream's queue -> the thread of a lane -> a
//! [`backend::Backend`] (features, encoder, decoder) -> tokens -> words -> [`Stream::next`].

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
pub use error::{Error, Result};
pub use runtime::{
    Distribution, Engine, Event, LaneStatistics, Overflow, Percentiles, PushError, Statistics, Stream,
    StreamOptions,
};
pub use text::{TextUnit, TimedToken, Unit, Units, Word};
