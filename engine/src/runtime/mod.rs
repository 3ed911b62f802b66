// SPDX-License-Identifier: MPL-2.0
//! Many streams on few devices: engines, the threads that step streams, and the streams themselves.

mod batcher;
mod decoding;
mod device;
mod engine;
mod event;
mod fleet;
mod lane;
mod options;
mod pace;
mod queue;
mod recovery;
mod statistics;
mod stream;
mod turn;

pub use engine::Engine;
pub use event::{Event, PushError};
pub use options::{Overflow, StreamOptions};
pub use statistics::{Distribution, LaneStatistics, Percentiles, Statistics};
pub use stream::Stream;
