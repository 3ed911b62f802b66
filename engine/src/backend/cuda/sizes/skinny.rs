// SPDX-License-Identifier: MPL-2.0
//! The kernels of `skinny.cu`, which multiply few rows: what each computes, and how its blocks divide their shared memory.

use super::Shape;
use super::blocks::{SKINNY_ROWS, SKINNY_THREADS};
use crate::backend::Precision;

/// Shared memory that a card must give a block: what the largest of these kernels needs for any model that suits them.
const LARGEST: usize = 139 << 10;

/// Pieces of 16 bytes of its weights that a thread has in registers at once.
pub const PIECES: usize = 8;

/// A product of few rows with what stands before and after it.
#[derive(Clone, Copy, Debug)]
pub struct SkinnyShape {
    pub name: &'static str,
    /// Values of a row that it multiplies.
    pub inputs: usize,
    /// Tiles of 8 outputs that a block computes: about 128 blocks, and as many pieces a thread as there are.
    pub tiles: usize,
    /// Norms before the product.
    pub norms: usize,
}

impl SkinnyShape {
    /// Shared memory of a block for `rows` rows, 8 or [`SKINNY_ROWS`]: the warps' sums, which lie where the norms were, and
    /// the rows; without norms the sums and the copies that each thread makes of what it multiplies.
    pub fn bytes(&self, rows: usize) -> usize {
        let Self { inputs, tiles, norms, .. } = *self;
        let warps = SKINNY_THREADS / 32;
        let sums = warps * rows * 8 * (tiles | 1) * 4;
        match norms {
            0 => sums + SKINNY_THREADS * 16 * (rows / 8) * inputs.div_ceil(32 * warps).min(PIECES / tiles),
            _ => sums.max(norms * 2 * inputs * 4) + rows * (2 * inputs + 64),
        }
    }
}

/// Tiles of a block that computes some of so many outputs.
fn tiles(outputs: usize) -> usize {
    outputs.div_ceil(1_024).min(4)
}

/// Numbers of rows that a kernel is loaded for.
pub const ROW_LIMITS: [usize; 2] = [8, SKINNY_ROWS];

impl Shape {
    /// Whether the model's sizes suit these kernels.
    pub fn skinny(&self) -> bool {
        let widths = [self.encoder.width, self.encoder.ff_width];
        self.precision != Precision::F32
            // They read weights of 16 bits.
            && !self.product8
            && self.left > 0
            && widths.iter().all(|width| width.is_multiple_of(64))
            && self.encoder.ff_width <= 4_096
    }

    /// Whether a card that gives a block so much shared memory runs them.
    pub fn skinny_on(&self, shared_memory: usize) -> bool {
        self.skinny() && shared_memory >= LARGEST
    }

    /// Whether the decoder's widths suit them too.
    pub fn skinny_decoder(&self) -> bool {
        self.skinny() && self.predictor.is_multiple_of(32) && self.joint.is_multiple_of(32)
    }

    /// All of them, in the order of [`SKINNY`].
    pub fn skinny_shapes(&self) -> [SkinnyShape; SKINNY.len()] {
        let (width, ff) = (self.encoder.width, self.encoder.ff_width);
        let sizes = [
            (width, tiles(ff), 2),
            (width, tiles(ff), 1),
            (width, tiles(3 * width), 1),
            (width, tiles(2 * width), 1),
            (ff, tiles(width), 0),
            (width, tiles(width), 0),
            (width, 1, 0),
            (self.joint, tiles(self.logits()), 0),
            (self.predictor, 2, 0),
            (2 * self.predictor, 2, 0),
        ];
        std::array::from_fn(|i| {
            let (inputs, tiles, norms) = sizes[i];
            SkinnyShape { name: SKINNY[i], inputs, tiles, norms }
        })
    }
}

/// Their names; the last three are the decoder's.
pub const SKINNY: [&str; 10] = [
    "skinny_norm_twice_silu",
    "skinny_norm_silu",
    "skinny_norm_3",
    "skinny_norm_2",
    "skinny_add_ff",
    "skinny_add",
    "skinny_encoded",
    "skinny_joint",
    "skinny_predictor",
    "skinny_predictor_2",
];
