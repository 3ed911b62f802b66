// SPDX-License-Identifier: MPL-2.0
//! The kernels of `skinny.cu`, which multiply few rows: what each computes, and how its blocks divide their shared memory.

use super::Shape;
use super::blocks::{SKINNY_ROWS, SKINNY_THREADS};
use crate::backend::Precision;

/// Pieces of 16 bytes of its weights that a thread has in registers at once, the less where memory is short.
const PIECES: [usize; 2] = [8, 4];

/// Most bytes of shared memory that one of these kernels declares beside what it asks for.
const DECLARED: usize = 1 << 10;

/// A product of few rows with what stands before and after it.
#[derive(Clone, Copy, Debug)]
pub struct SkinnyShape {
    pub name: &'static str,
    /// Values of a row that it multiplies.
    pub inputs: usize,
    /// Tiles of 8 outputs that a block computes: about 128 blocks, and as many pieces a thread as there are.
    pub tiles: usize,
    /// Pieces of its weights that a thread has in registers at once.
    pub pieces: usize,
    /// Norms before the product.
    pub norms: usize,
}

impl SkinnyShape {
    /// Shared memory of a block for `rows` rows, 8 or [`SKINNY_ROWS`]: the warps' sums, which lie where the norms were, and
    /// the rows; without norms the sums and the copies that each thread makes of what it multiplies.
    pub fn bytes(&self, rows: usize) -> usize {
        let Self { inputs, tiles, pieces, norms, .. } = *self;
        let warps = SKINNY_THREADS / 32;
        let sums = warps * rows * 8 * (tiles | 1) * 4;
        match norms {
            0 => sums + SKINNY_THREADS * 16 * (rows / 8) * inputs.div_ceil(32 * warps).min(pieces / tiles),
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
    /// Most rows that these kernels take, one of [`ROW_LIMITS`]; none where they don't suit the model or the card.
    pub fn skinny_rows(&self) -> Option<usize> {
        let widths = [self.encoder.width, self.encoder.ff_width];
        let suits = self.card.tensor_cores()
            && self.precision != Precision::F32
            // They read weights of 16 bits.
            && !self.product8
            && self.left > 0
            && widths.iter().all(|width| width.is_multiple_of(64))
            && self.encoder.ff_width <= 4_096;
        let count = if self.decoder_suits() { SKINNY.len() } else { SKINNY.len() - DECODERS };
        let kernels = &self.skinny_shapes()[..count];
        let fit = |rows: &usize| kernels.iter().all(|kernel| self.fits(kernel, *rows));
        ROW_LIMITS.into_iter().rev().find(|rows| suits && fit(rows))
    }

    /// Whether the decoder's widths suit them too.
    pub fn skinny_decoder(&self) -> bool {
        self.decoder_suits() && self.skinny_rows().is_some()
    }

    fn decoder_suits(&self) -> bool {
        self.predictor.is_multiple_of(32) && self.joint.is_multiple_of(32)
    }

    /// Whether a block of the card has the memory for so many rows.
    fn fits(&self, kernel: &SkinnyShape, rows: usize) -> bool {
        kernel.bytes(rows) + DECLARED <= self.card.shared_memory
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
            let [most, least] =
                PIECES.map(|pieces| SkinnyShape { name: SKINNY[i], inputs, tiles, pieces, norms });
            if self.fits(&most, SKINNY_ROWS) { most } else { least }
        })
    }
}

/// How many of them are the decoder's.
const DECODERS: usize = 3;

/// Their names; the decoder's are the last.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::EngineOptions;
    use crate::backend::cuda::sizes::card::{CARDS, Card};
    use crate::convert::{Like, SynthOptions, synthetic_config};

    /// Of the streaming 0.6B model: 1,024 wide, 4,096 in the feed-forward modules.
    fn shape(card: Card) -> Shape {
        let like = Like::NemotronStreaming06b;
        let model = SynthOptions { like, vocabulary: None, layers: None, seed: 0 };
        let config = synthetic_config(&model).expect("a configuration");
        let shape = Shape::new(&config, &EngineOptions::default()).expect("a shape");
        Shape { card, ..shape }
    }

    /// The kernel `name` with its pieces and what it asks for, for 8 and for 16 rows.
    fn sizes(shape: &Shape, name: &str) -> (usize, [usize; 2]) {
        let kernels = shape.skinny_shapes();
        let kernel = kernels.iter().find(|kernel| kernel.name == name).expect("there is one");
        (kernel.pieces, ROW_LIMITS.map(|rows| kernel.bytes(rows)))
    }

    #[test]
    fn cards_run_them_with_what_memory_they_have() {
        for card in CARDS {
            let shape = shape(card);
            let rows = shape.skinny_rows();
            if card.capability < (8, 0) {
                assert_eq!(rows, None);
                continue;
            }
            assert_eq!(rows, Some(16), "{card:?}");
            // Sums of 16 warps, 8 outputs and a thread's copies of 8 or 4 chunks of a row, for each 8 rows.
            let add_ff = match card.shared_memory >> 10 {
                99 => (4, [36_864, 73_728]),
                _ => (8, [69_632, 139_264]),
            };
            assert_eq!(sizes(&shape, "skinny_add_ff"), add_ff, "{card:?}");
            // Sums of 16 warps and 40 outputs, over two norms; rows of 1,024 values and 64 bytes.
            assert_eq!(sizes(&shape, "skinny_norm_twice_silu"), (8, [37_376, 74_752]), "{card:?}");
        }
    }

    #[test]
    fn where_16_rows_do_not_fit_8_may() {
        let with = |kilobytes: usize| Card { shared_memory: kilobytes << 10, ..Card::ANY };
        assert_eq!(
            [74, 73, 38, 37].map(|most| shape(with(most)).skinny_rows()),
            [Some(16), Some(8), Some(8), None]
        );
    }
}
