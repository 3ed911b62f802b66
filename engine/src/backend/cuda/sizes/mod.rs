// SPDX-License-Identifier: MPL-2.0
//! How big everything is, and how it lies in memory: of a model, of a step, and of what host and kernels hand each other.
//! Arithmetic alone, for which no card is needed.

mod extent;
mod records;
mod shape;

pub use extent::{Extent, ladder, span};
pub use records::{CURSOR, Counts, Emission, HEADER, Item, Layout, PICK, Place};
pub use shape::{SLOTS, Shape, stream_bytes};
