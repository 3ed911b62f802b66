// SPDX-License-Identifier: MPL-2.0
//! What all parts of a step are enqueued with.

use std::mem::offset_of;
use std::sync::Arc;

use crate::backend::cuda::card::{Argument, Device, Kernels, Matrix, SkinnyKernels};
use crate::backend::cuda::memory::{Params, Scratch};
use crate::backend::cuda::sizes::{Counts, Extent, Layout, Shape};
use crate::backend::cuda::turns::Turns;
use crate::error::Result;

/// A step's way over the card: what it is enqueued with.
pub struct Pass<'a> {
    pub device: &'a Arc<Device>,
    pub shape: &'a Shape,
    pub kernels: &'a Kernels,
    pub params: &'a Params,
    pub scratch: &'a Scratch,
    pub extent: Extent,
    pub layout: Layout,
    /// Addresses of the blocks of slots.
    pub blocks: u64,
    /// The items have rings.
    pub rings: bool,
    /// Where steps of streams come first, a part of a layer is enqueued at a time. What waits for all of the card's work, as
    /// freeing memory does, waits no longer than for that.
    pub turns: Option<&'a Turns>,
}

impl Pass<'_> {
    /// Lets the steps of streams go first.
    pub fn give_way(&self) -> Result<()> {
        self.turns.map_or(Ok(()), |turns| turns.give_way(self.device))
    }

    /// A part of the description.
    pub fn at(&self, offset: usize) -> Argument {
        Argument::Address(self.scratch.input.address + offset as u64)
    }

    /// Where the step's counts are, the first of them that of the items.
    pub fn counts(&self) -> Argument {
        self.at(self.layout.counts)
    }

    /// Where the number of rows is.
    pub fn row_count(&self) -> Argument {
        self.at(self.layout.counts + offset_of!(Counts, rows))
    }

    /// Where the number of the joint's rows is.
    pub fn joint_count(&self) -> Argument {
        self.at(self.layout.counts + offset_of!(Counts, joints))
    }

    /// Where its items are.
    pub fn items(&self) -> Argument {
        self.at(self.layout.items)
    }

    /// Whether the step's layers are kernels that start early, each before the one ahead is through.
    pub fn starts_early(&self) -> bool {
        self.rings && self.skinny(self.extent.rows).is_some()
    }

    /// The kernels for this many rows, if there are.
    pub fn skinny(&self, rows: usize) -> Option<&SkinnyKernels> {
        self.kernels.skinny.as_ref().filter(|skinny| rows <= skinny.rows)
    }
}

/// Where the bias of a product is, if it has one.
pub fn bias(matrix: &Matrix) -> Argument {
    matrix.bias.as_ref().map_or(Argument::Address(0), Argument::from)
}
