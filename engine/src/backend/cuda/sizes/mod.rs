// SPDX-License-Identifier: MPL-2.0
//! How big everything is, and how it lies in memory: of a model, of a step, of blocks of threads, and of what host and
//! kernels hand each other. Arithmetic alone, for which no card is needed.

mod attention;
mod blocks;
mod card;
mod extent;
mod launch;
mod macros;
mod records;
mod shape;
mod skinny;
mod working;

pub use blocks::*;
#[cfg(test)]
pub use card::CARDS;
pub use card::Card;
pub use extent::{Extent, ladder, span};
pub use launch::Block;
pub use records::{Counts, Cursor, DECLARATIONS, Emission, HEADER, Item, Layout, Place, Results};
pub use shape::{Shape, stream_bytes};
pub use skinny::{ROW_LIMITS, SkinnyShape};
pub use working::{
    FIRST_ROWS, MOST_BLOCKS, MOST_GRAPHS, WORKSPACE, WorkingSizes, full_bytes, most_rows, padded8,
};
