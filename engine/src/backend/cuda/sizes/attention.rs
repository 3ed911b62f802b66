// SPDX-License-Identifier: MPL-2.0
//! How attention's kernels divide their shared memory.

use super::Shape;
use super::blocks::{RING_ROWS, SIMPLE_ROWS, WINDOW_ROWS, WINDOW_THREADS};

/// Largest left context of which `attention_ring` takes all keys in one pass.
const ONE_PASS: usize = 80;

/// Keys of a pass where there are more.
const PASS_KEYS: usize = 64;

/// `attention_ring`: the table of positions with the barrier that says it is there at its end; then, of each warp, K, V and
/// scales. Position scores lie where K was, but for the last rows of K, which are the step's own and still to be kept.
pub struct Ring {
    /// All keys fit into one pass.
    pub one_pass: bool,
    /// Keys of a pass.
    pub keys: usize,
    /// Columns of their position scores, padded against bank conflicts.
    pub columns: usize,
    /// Bytes of a row of a ring in memory, and in shared memory.
    pub row: usize,
    pub pitch: usize,
    /// Rows that K and the position scores take.
    pub key_rows: usize,
    /// Rows of the table, and bytes of it.
    pub table_rows: usize,
    pub table_bytes: usize,
    /// Where in a warp's memory the scales begin, and bytes of all of it.
    pub scales_at: usize,
    pub warp_bytes: usize,
    /// Most warps of a block.
    pub most_warps: usize,
}

impl Ring {
    /// Of a model.
    pub fn new(shape: &Shape) -> Self {
        let (left, head) = (shape.left, shape.head());
        let one_pass = left <= ONE_PASS;
        let keys = if one_pass { left + RING_ROWS } else { PASS_KEYS };
        let columns = (keys + 2 * RING_ROWS - 2) / 16 * 16 + 4;
        let row = if shape.cache8 { head } else { 2 * head };
        let pitch = row + 16;
        let table_rows = left + 2 * RING_ROWS - 1;
        let constants_and_barrier = (4 * table_rows + 8).next_multiple_of(16);
        let key_rows = keys.max(4 * RING_ROWS * columns / pitch + 1 + RING_ROWS);
        let scales_at = (key_rows + keys) * pitch;
        let scales = if shape.cache8 { (2 * keys * 4).next_multiple_of(16) } else { 0 };
        Self {
            one_pass,
            keys,
            columns,
            row,
            pitch,
            key_rows,
            table_rows,
            table_bytes: table_rows * shape.pitch() + constants_and_barrier,
            scales_at,
            warp_bytes: scales_at + scales,
            most_warps: if shape.cache8 { 8 } else { 4 },
        }
    }

    /// Shared memory of a block of so many warps.
    pub fn bytes(&self, warps: usize) -> usize {
        self.table_bytes + warps * self.warp_bytes
    }
}

impl Shape {
    /// Bytes from row to row of 16-bit values in shared memory: an odd number of 16-byte units lets ldmatrix read without
    /// bank conflicts.
    pub fn pitch(&self) -> usize {
        2 * self.head() + 16
    }

    /// Whether attention runs on tensor cores.
    pub fn tensor_cores(&self) -> bool {
        self.size() == 2 && self.head().is_multiple_of(16) && self.head() <= 128
    }

    /// Whether `attention_ring` takes the model's rings.
    pub fn rings_on_tensor_cores(&self) -> bool {
        self.left > 0
            && self.tensor_cores()
            && self.chunk <= RING_ROWS
            && (!self.cache8 || self.head().is_multiple_of(32))
    }

    /// Warps of a block of `attention_ring` on a card that gives a block `most` bytes of shared memory; none where that
    /// kernel can't be used.
    pub fn ring_warps(&self, most: usize) -> Option<usize> {
        let ring = Ring::new(self);
        let fits = |warps: &usize| ring.bytes(*warps) <= most;
        self.rings_on_tensor_cores().then(|| (1..=ring.most_warps).rev().find(fits)).flatten()
    }

    /// Shared memory of a block of `attention_ring` of so many warps.
    pub fn ring_attention_memory(&self, warps: usize) -> usize {
        Ring::new(self).bytes(warps)
    }

    /// Shared memory of a block of `attention_simple`: queries, keys and the positions between them, values, weights.
    pub fn simple_attention_memory(&self) -> usize {
        let (rows, head) = (SIMPLE_ROWS, self.head());
        4 * ((4 * rows - 1) * (head + 1) + rows * head + rows * (rows + 1))
    }

    /// Shared memory of a block of `attention_window`: keys, values, twice as many positions and their constants; then for
    /// the rows of each warp the scores of positions.
    pub fn window_attention_memory(&self) -> usize {
        let warps = WINDOW_THREADS / 32;
        let scores = warps * (WINDOW_ROWS / warps) * WINDOW_COLUMNS * 4;
        4 * WINDOW_ROWS * self.pitch() + 2 * WINDOW_ROWS * 4 + scores
    }
}

/// Columns of the position scores of 16 rows and [`WINDOW_ROWS`] keys, padded against bank conflicts.
pub const WINDOW_COLUMNS: usize = 88;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::{CachePrecision, EngineOptions};
    use crate::convert::{Like, SynthOptions, synthetic_config};

    /// That of the streaming 0.6B model: a left context of 70 frames, heads of 128.
    fn shape(cache: CachePrecision) -> Shape {
        let like = Like::NemotronStreaming06b;
        let model = SynthOptions { like, vocabulary: None, layers: None, seed: 0 };
        let config = synthetic_config(&model).expect("a configuration");
        Shape::new(&config, &EngineOptions { cache, ..Default::default() }).expect("a shape")
    }

    #[test]
    fn blocks_of_the_large_models_take_so_much() {
        const H100: usize = 227 << 10;
        let full = shape(CachePrecision::Full);
        assert_eq!((full.ring_warps(H100), full.ring_attention_memory(4)), (Some(4), 27_888 + 4 * 46_784));
        let int8 = shape(CachePrecision::Int8);
        assert_eq!((int8.ring_warps(H100), int8.ring_attention_memory(8)), (Some(8), 27_888 + 8 * 25_456));
        // Two blocks of `attention_window` on a processor.
        assert_eq!(full.window_attention_memory(), 92_672);
        assert_eq!(full.simple_attention_memory(), 4 * (63 * 129 + 16 * 145));
    }

    #[test]
    fn a_card_with_less_memory_runs_fewer_warps() {
        let full = shape(CachePrecision::Full);
        assert_eq!([99 << 10, 163 << 10].map(|most| full.ring_warps(most)), [Some(1), Some(2)]);
        assert_eq!(full.ring_warps(48 << 10), None);
    }
}
