// SPDX-License-Identifier: MPL-2.0
//! A step's way over the card: described on the host, then features, encoder and decoder enqueued one after the other.

mod batch;
mod decoder;
mod encoder;
mod features;
mod pass;
mod positions;
mod skinny;
mod slot;

pub use batch::{Batch, Stream};
pub use decoder::{ITERATIONS, start};
pub use pass::Pass;
pub use positions::{MOST_HELD, Positions};
pub use slot::SlotState;
