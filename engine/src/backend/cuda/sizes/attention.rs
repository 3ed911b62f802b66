// SPDX-License-Identifier: MPL-2.0
//! How attention's kernels divide their shared memory.

use super::Shape;
use super::blocks::{RING_ROWS, SIMPLE_ROWS, WINDOW_ROWS, WINDOW_THREADS};

/// Largest left context of which `attention_ring` takes all keys in one pass.
const ONE_PASS: usize = 80;

/// Keys of a pass where there are more, and of smaller ones that let more warps into a card's shared memory.
const PASS_KEYS: [usize; 3] = [64, 48, 32];

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
    /// Most warps of a block, and as many of them as the card has memory for.
    pub most_warps: usize,
    pub warps: usize,
}

impl Ring {
    /// Of a model on its card: with fewer keys of a pass where so many more warps fit that a block gets through more rows.
    pub fn new(shape: &Shape) -> Self {
        let one_pass = (shape.left <= ONE_PASS).then(|| Self::of(shape, true, shape.left + RING_ROWS));
        let passes = PASS_KEYS.into_iter().map(|keys| Self::of(shape, false, keys));
        let mut ways = one_pass.into_iter().chain(passes);
        let first = ways.next().expect("there are keys of a pass");
        let better = |other: &Self, best: &Self| {
            other.warps > best.warps && other.warps * best.work(shape) > best.warps * other.work(shape)
        };
        ways.fold(first, |best, other| if better(&other, &best) { other } else { best })
    }

    /// What a warp does for up to 8 frames with a whole ring: tiles of keys and of position scores in all passes.
    fn work(&self, shape: &Shape) -> usize {
        const FRAMES: usize = 8;
        let all = shape.left + FRAMES;
        let keys = if self.one_pass { all } else { self.keys };
        all.div_ceil(keys) * (keys.div_ceil(16) + (keys + FRAMES + 14) / 16)
    }

    /// With so many keys of a pass.
    fn of(shape: &Shape, one_pass: bool, keys: usize) -> Self {
        let (left, head) = (shape.left, shape.head());
        let columns = (keys + 2 * RING_ROWS - 2) / 16 * 16 + 4;
        let row = if shape.cache8 { head } else { 2 * head };
        let pitch = row + 16;
        let table_rows = left + 2 * RING_ROWS - 1;
        let constants_and_barrier = (4 * table_rows + 8).next_multiple_of(16);
        let key_rows = keys.max(4 * RING_ROWS * columns / pitch + 1 + RING_ROWS);
        let scales_at = (key_rows + keys) * pitch;
        let scales = if shape.cache8 { (2 * keys * 4).next_multiple_of(16) } else { 0 };
        let most_warps = if shape.cache8 { 8 } else { 4 };
        let mut ring = Self {
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
            most_warps,
            warps: 0,
        };
        let fits = |warps: &usize| ring.bytes(*warps) <= shape.card.shared_memory;
        ring.warps = (1..=most_warps).rev().find(fits).unwrap_or(0);
        ring
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
        self.card.tensor_cores() && self.size() == 2 && self.head().is_multiple_of(16) && self.head() <= 128
    }

    /// Warps of a block of `attention_ring`; none where that kernel can't be used.
    pub fn ring_warps(&self) -> Option<usize> {
        let suits = self.left > 0
            && self.tensor_cores()
            && self.chunk <= RING_ROWS
            && (!self.cache8 || self.head().is_multiple_of(32));
        Some(Ring::new(self).warps).filter(|&warps| suits && warps > 0)
    }

    /// Shared memory of a block of `attention_ring` of so many warps.
    pub fn ring_attention_memory(&self, warps: usize) -> usize {
        Ring::new(self).bytes(warps)
    }

    /// Whether `attention_window` takes whole signals.
    pub fn windows_on_tensor_cores(&self) -> bool {
        self.tensor_cores() && self.window_attention_memory() <= self.card.shared_memory
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
    use crate::backend::cuda::sizes::card::{CARDS, Card};
    use crate::backend::{CachePrecision, EngineOptions};
    use crate::convert::{Like, SynthOptions, synthetic_config};

    /// That of the streaming 0.6B model, with a left context of 70 frames and heads of 128, or of another.
    fn shape(cache: CachePrecision, left: Option<i32>) -> Shape {
        let like = Like::NemotronStreaming06b;
        let model = SynthOptions { like, vocabulary: None, layers: None, seed: 0 };
        let mut config = synthetic_config(&model).expect("a configuration");
        for context in &mut config.encoder.contexts {
            context[0] = left.unwrap_or(context[0]);
        }
        Shape::new(&config, &EngineOptions { cache, ..Default::default() }).expect("a shape")
    }

    /// With so many KB of shared memory.
    fn with(shape: &Shape, kilobytes: usize) -> Shape {
        let card = Card { shared_memory: kilobytes << 10, ..Card::ANY };
        Shape { card, ..shape.clone() }
    }

    /// Keys of a pass and warps.
    fn ring(shape: &Shape, kilobytes: usize) -> [usize; 2] {
        let ring = Ring::new(&with(shape, kilobytes));
        assert!(ring.warps == 0 || ring.bytes(ring.warps) <= kilobytes << 10);
        [ring.keys, ring.warps]
    }

    #[test]
    fn blocks_of_the_large_models_take_so_much() {
        let full = with(&shape(CachePrecision::Full, None), 227);
        assert_eq!((full.ring_warps(), full.ring_attention_memory(4)), (Some(4), 27_888 + 4 * 46_784));
        let int8 = with(&shape(CachePrecision::Int8, None), 227);
        assert_eq!((int8.ring_warps(), int8.ring_attention_memory(8)), (Some(8), 27_888 + 8 * 25_456));
        // Two blocks of `attention_window` on a processor.
        assert_eq!(full.window_attention_memory(), 92_672);
        assert_eq!(full.simple_attention_memory(), 4 * (63 * 129 + 16 * 145));
        // It fits where there is no other.
        assert!(CARDS.iter().all(|card| full.simple_attention_memory() <= card.shared_memory));
    }

    #[test]
    fn a_card_with_less_memory_reads_the_rings_in_more_passes() {
        let (full, int8) = (shape(CachePrecision::Full, None), shape(CachePrecision::Int8, None));
        // All of 70 + 16 keys in one pass; of a warp 172 rows of 272 bytes.
        assert_eq!(ring(&full, 227), [86, 4]);
        // Beside a table of 27,888 bytes 96 rows of each of four warps: 132,336 of 166,912 bytes.
        assert_eq!(ring(&full, 163), [48, 4]);
        // 64 rows: 97,520 of 101,376 bytes.
        assert_eq!(ring(&full, 99), [32, 4]);
        assert_eq!(ring(&full, 64), [32, 2]);
        assert_eq!([227, 163, 99, 64].map(|most| ring(&int8, most)), [[86, 8], [48, 8], [32, 6], [32, 3]]);
        assert_eq!(with(&full, 32).ring_warps(), None);
    }

    #[test]
    fn a_longer_context_takes_a_larger_table() {
        let full = shape(CachePrecision::Full, Some(128));
        // (128 + 31) rows of 272 bytes and constants: 43,904 bytes.
        assert_eq!([227, 163, 99].map(|most| ring(&full, most)), [[64, 4], [48, 4], [32, 3]]);
    }

    #[test]
    fn tensor_cores_are_used_where_they_suit() {
        let full = shape(CachePrecision::Full, None);
        for card in CARDS {
            let here = Shape { card, ..full.clone() };
            let can = card.capability.0 >= 8;
            assert_eq!((here.ring_warps().is_some(), here.windows_on_tensor_cores()), (can, can), "{card:?}");
        }
    }
}
