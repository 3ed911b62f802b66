// SPDX-License-Identifier: MPL-2.0
//! How much memory a step works in, and how much a step may be.

use super::blocks::SKINNY_ROWS;
use super::extent::{Extent, ladder};
use super::records::{Cursor, Emission, HEADER, Layout, Pick};
use super::shape::Shape;
use crate::backend::Mode;
use crate::model::ModelConfig;

/// Bytes that products of matrices work in: what cuBLASLt recommends for Hopper.
pub const WORKSPACE: usize = 32 << 20;

/// Most blocks of slots; the table of their addresses is read by the kernels.
pub const MOST_BLOCKS: usize = 4_096;

/// Rows of the working memory that a backend begins with.
pub const FIRST_ROWS: usize = 16;

/// How many times as many rows a step of whole signals may have as one of chunks.
const WHOLE: usize = 4;

/// Most rows of a step on a card with so many bytes of memory: of streams with caches (`rings`), or of whole signals.
pub fn most_rows(memory: usize, rings: bool) -> usize {
    let rows = if memory >= 32 << 30 { 4_096 } else { 1_024 };
    if rings { rows } else { WHOLE * rows }
}

/// Rows of 8 bits that are multiplied where there are so many: the library takes them by the 16.
pub fn padded8(rows: usize) -> usize {
    rows.next_multiple_of(16)
}

/// Graphs that are captured at most: of each of three parts for each number of rows that has some.
pub const MOST_GRAPHS: usize = 3 * 18;

/// Bytes that the fullest step of streams with caches works in: as many rows as a step should have, of streams of whichever
/// context takes the most; 0 where there are none.
pub fn full_bytes(shape: &Shape, config: &ModelConfig, most_rows: usize) -> usize {
    let encoder = &config.encoder;
    let cached = (0..encoder.contexts.len()).filter(|&context| config.is_cache_aware(context));
    let bytes = cached.map(|context| {
        let mode = Mode::Cached { context };
        let count = (most_rows / Extent::expected(mode, encoder, 1).rows.max(1)).max(1);
        let samples = count * Extent::samples(mode, encoder);
        WorkingSizes::new(shape, &Extent::expected(mode, encoder, count), samples).bytes()
    });
    bytes.max().unwrap_or(0)
}

/// Bytes of each buffer of `Scratch`, which says what they hold.
#[derive(Clone, Debug)]
pub struct WorkingSizes {
    pub input: usize,
    pub mel: usize,
    /// Each of two.
    pub second: usize,
    pub third: usize,
    pub x: usize,
    pub spare: usize,
    pub y: usize,
    pub wide: usize,
    pub qkv: usize,
    /// Values and scales, where products are in 8 bits.
    pub input8: Option<[usize; 2]>,
    pub encoded: usize,
    pub joint: usize,
    pub logits: usize,
    pub gates: usize,
    pub cell: usize,
    /// Also of `fresh`.
    pub predicted: usize,
    pub hidden: usize,
    pub cursors: usize,
    pub picks: usize,
    pub results: usize,
    /// Emissions that fit into the results.
    pub capacity: usize,
}

impl WorkingSizes {
    /// For steps of up to this extent with up to `samples` samples.
    pub fn new(shape: &Shape, extent: &Extent, samples: usize) -> Self {
        let (rows, items) = (padded8(ladder(extent.rows)), ladder(extent.items));
        let joints = ladder(extent.joints.max(items));
        let (size, width) = (shape.size(), shape.encoder.width);
        let [_, bins2, bins3] = shape.geometry.levels();
        let channels = shape.geometry.channels;
        let wide = shape.encoder.ff_width.max(2 * width).max(shape.prompt);
        let states = items * shape.predictor_layers * shape.predictor;
        // A few tokens for each frame; an item that finds no room waits until the host has read the others.
        let capacity = 4 * extent.rows.max(extent.items) + 64;
        Self {
            input: Layout::new(extent).pcm + samples * size_of::<f32>(),
            mel: extent.frames * shape.bins * 4,
            second: ladder(extent.positions * bins2) * channels * size,
            third: ladder(rows * bins3) * channels * size,
            x: rows * width * size,
            spare: rows.min(SKINNY_ROWS) * width * size,
            y: rows * width * size,
            wide: rows * wide * size,
            qkv: rows * 3 * width * size,
            input8: shape.product8.then(|| [rows * shape.encoder.ff_width.max(width), rows * 4]),
            encoded: rows * shape.joint * 4,
            joint: joints * shape.joint * size,
            logits: joints * shape.logits() * 4,
            gates: items * 4 * shape.predictor * 4,
            cell: states * 4,
            predicted: items * shape.joint * 4,
            hidden: states * size,
            cursors: items * size_of::<Cursor>(),
            picks: joints * size_of::<Pick>(),
            results: HEADER + capacity * size_of::<Emission>(),
            capacity,
        }
    }

    /// All bytes on the card.
    pub fn bytes(&self) -> usize {
        let Self { input, mel, x, spare, y, wide, qkv, encoded, joint, logits, gates, cell, results, .. } =
            self;
        let rows =
            mel + 2 * self.second + 2 * self.third + x + spare + y + wide + qkv + encoded + input + results;
        let decoder =
            joint + logits + gates + cell + 2 * self.predicted + self.hidden + self.cursors + self.picks;
        rows + decoder + self.input8.map_or(0, |[values, scales]| values + scales)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::EngineOptions;
    use crate::convert::{Like, SynthOptions, synthetic_config};

    fn model(like: Like) -> (ModelConfig, Shape) {
        let options = SynthOptions { like, vocabulary: None, layers: None, seed: 0 };
        let config = synthetic_config(&options).expect("a configuration");
        let shape = Shape::new(&config, &EngineOptions::default()).expect("a shape");
        (config, shape)
    }

    #[test]
    fn the_fullest_step_has_room_for_the_joints_of_any_context() {
        let (config, shape) = model(Like::NemotronStreaming06b);
        let full = full_bytes(&shape, &config, 4_096);
        for context in 0..config.encoder.contexts.len() {
            let mode = Mode::Cached { context };
            let one = Extent::expected(mode, &config.encoder, 1).rows;
            for count in [1, 64, 4_096 / one] {
                let extent = Extent::expected(mode, &config.encoder, count);
                let samples = count * Extent::samples(mode, &config.encoder);
                let sizes = WorkingSizes::new(&shape, &extent, samples);
                assert!(sizes.bytes() <= full, "{mode:?} {count}");
                assert!(sizes.joint + sizes.logits + sizes.input < sizes.bytes());
            }
        }
        // Rows alone: residual stream, its norm, feed-forward module, q, k, v and the encoder's output of 640 values.
        assert!(full > 4_096 * (2 * (1_024 + 1_024 + 4_096 + 3_072) + 4 * 640));
        assert_eq!(full_bytes(&shape, &model(Like::Tdt06bV3).0, 4_096), 0, "none has caches");
    }
}
