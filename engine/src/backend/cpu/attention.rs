// SPDX-License-Identifier: MPL-2.0
//! Relative multi-head attention over a ring of projected keys and values (Transformer-XL, arXiv:1901.02860).
//!
//! NeMo caches the layer's inputs and projects them again each step; keys and values don't depend on their position,
//! so caching them instead is exact.

use std::ops::Range;

use rayon::prelude::*;

use super::matmul::product_f32;
use super::ops::softmax;
use super::params::Layer;
use super::rows::Rows;

/// Keys and values of one stream and layer. Keys are `[row][width]`, values `[width][rows]`, so that both products
/// of attention run along contiguous memory.
#[derive(Clone)]
pub struct KeyValues {
    keys: Vec<f32>,
    values: Vec<f32>,
    rows: usize,
    /// `rows` rounded up to a multiple of 8; the surplus stays zero.
    stride: usize,
}

impl KeyValues {
    pub fn new(rows: usize, width: usize) -> Self {
        let stride = rows.next_multiple_of(8);
        Self { keys: vec![0.0; rows * width], values: vec![0.0; stride * width], rows, stride }
    }

    /// Bytes that [`KeyValues::new`] allocates.
    pub fn bytes(rows: usize, width: usize) -> usize {
        (rows + rows.next_multiple_of(8)) * width * size_of::<f32>()
    }

    /// Puts projected frames `[count, width]` into the rows from `first` on.
    pub fn store(&mut self, first: usize, keys: &[f32], values: &[f32], width: usize) {
        self.keys[first * width..][..keys.len()].copy_from_slice(keys);
        for (i, frame) in values.chunks_exact(width).enumerate() {
            for (channel, &value) in frame.iter().enumerate() {
                self.values[channel * self.stride + first + i] = value;
            }
        }
    }
}

/// Projected position embeddings of one layer: a row for each relative position `query - key`, least first.
pub struct Positions {
    /// The least relative position.
    pub least: i64,
    /// `[positions, width]`.
    pub rows: Vec<f32>,
}

/// Working memory of [`attend`].
#[derive(Default)]
pub struct Scratch {
    content: Vec<f32>,
    position: Vec<f32>,
    scores: Vec<f32>,
    with_u: Vec<f32>,
    with_v: Vec<f32>,
}

/// One stream's queries and what they look at.
#[derive(Clone, Copy)]
pub struct Queries<'a> {
    pub cache: &'a KeyValues,
    pub positions: &'a Positions,
    /// Projected queries `[count, width]`.
    pub queries: &'a [f32],
    /// Frame index of the first query.
    pub first: i64,
    /// Frame index of each row of the ring, negative where it holds none.
    pub ring: &'a [i64],
}

/// The rows of [`Positions`] that some queries need.
struct PositionRows<'a> {
    least: i64,
    rows: &'a [f32],
}

impl<'a> Queries<'a> {
    /// The relative positions that `count` queries and the frames in the ring can have.
    fn positions(&self, count: usize, width: usize) -> PositionRows<'a> {
        let (mut first, mut last) = (i64::MAX, i64::MIN);
        for &key in self.ring.iter().filter(|&&key| key >= 0) {
            (first, last) = (first.min(key), last.max(key));
        }
        let table = self.positions;
        let end = table.least + (table.rows.len() / width) as i64;
        let least = (self.first - last).clamp(table.least, end);
        let most = (self.first + count as i64 - first).clamp(least, end);
        let row = |position: i64| (position - table.least) as usize * width;
        PositionRows { least, rows: &table.rows[row(least)..row(most)] }
    }
}

/// Queries that are scored together: their scores stay in cache, and threads share the others.
const BLOCK: usize = 64;

/// Attention of `queries`; `visible` gives the frames that a frame sees. `out` is `[count, width]`.
pub fn attend(
    layer: &Layer,
    heads: usize,
    queries: &Queries<'_>,
    visible: impl Fn(i64) -> Range<i64> + Sync,
    scratch: &mut Scratch,
    out: &mut [f32],
) {
    let block = BLOCK * layer.query.outputs;
    if queries.queries.len() <= block {
        return attend_block(layer, heads, queries, &visible, scratch, out);
    }
    let blocks = out.par_chunks_mut(block).zip(queries.queries.par_chunks(block)).enumerate();
    blocks.for_each_init(Scratch::default, |scratch, (index, (out, rows))| {
        let first = queries.first + (index * BLOCK) as i64;
        attend_block(layer, heads, &Queries { queries: rows, first, ..*queries }, &visible, scratch, out);
    });
}

fn attend_block(
    layer: &Layer,
    heads: usize,
    queries: &Queries<'_>,
    visible: &impl Fn(i64) -> Range<i64>,
    scratch: &mut Scratch,
    out: &mut [f32],
) {
    let Queries { cache, .. } = queries;
    let width = layer.query.outputs;
    let head_width = width / heads;
    let count = queries.queries.len() / width;
    let positions = queries.positions(count, width);
    let position_rows = positions.rows.len() / width;
    let scale = 1.0 / (head_width as f32).sqrt();
    let Scratch { content, position, scores, with_u, with_v } = scratch;
    add_bias(queries.queries, &layer.bias_u, with_u);
    add_bias(queries.queries, &layer.bias_v, with_v);
    content.resize(count * cache.rows, 0.0);
    position.resize(count * position_rows, 0.0);
    scores.resize(count * cache.stride, 0.0);
    for head in 0..heads {
        let from = head * head_width;
        let rows = |data, count| Rows::new(data, count, head_width, width);
        product_f32(rows(&with_u[from..], count), rows(&cache.keys[from..], cache.rows), content, cache.rows);
        product_f32(
            rows(&with_v[from..], count),
            rows(&positions.rows[from..], position_rows),
            position,
            position_rows,
        );
        for i in 0..count {
            let frame = queries.first + i as i64;
            let visible = visible(frame);
            let row = &mut scores[i * cache.stride..][..cache.stride];
            let terms = content[i * cache.rows..].iter().zip(queries.ring);
            let position = &position[i * position_rows..][..position_rows];
            for (score, (content, &key)) in row.iter_mut().zip(terms) {
                *score = if key >= 0 && visible.contains(&key) {
                    (content + position[(frame - key - positions.least) as usize]) * scale
                } else {
                    f32::NEG_INFINITY
                };
            }
            let (row, surplus) = row.split_at_mut(cache.rows);
            surplus.fill(0.0);
            softmax(row);
        }
        let values = Rows::new(&cache.values[from * cache.stride..], head_width, cache.stride, cache.stride);
        let weights = Rows::new(scores, count, cache.stride, cache.stride);
        product_f32(weights, values, &mut out[from..], width);
    }
}

fn add_bias(x: &[f32], bias: &[f32], out: &mut Vec<f32>) {
    out.clear();
    for row in x.chunks_exact(bias.len()) {
        out.extend(row.iter().zip(bias).map(|(x, b)| x + b));
    }
}
