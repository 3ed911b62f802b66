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

pub mod backend;
mod batcher;
mod engine;
pub mod error;
mod event;
pub mod features;
mod gate;
mod intake;
pub mod model;
mod options;
mod phrases;
mod queue;
mod statistics;
mod stream;
mod words;

pub use backend::{BackendChoice, CachePrecision, Device, EngineOptions, Precision, Token, Window};
pub use engine::Engine;
pub use error::{Error, Result};
pub use event::{Event, PushError, Word};
pub use options::{Overflow, StreamOptions};
pub use phrases::{TextUnit, Unit, Units};
pub use statistics::{Distribution, LaneStatistics, Percentiles, Statistics};
pub use stream::Stream;
pub use words::TimedToken;
