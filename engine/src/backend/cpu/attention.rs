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
use crate::backend::visibility::sinusoids;

/// Values of the widest vectors. Rows are filled up to it, so that the same instructions add them in the same order whatever
/// the ring's length: one pass and streaming give the same bits.
const LANES: usize = 16;

/// Keys and values of one stream and layer. Keys are `[row][width]`, values `[width][rows]`, so that both products
/// of attention run along contiguous memory.
#[derive(Clone)]
pub struct KeyValues {
    keys: Vec<f32>,
    values: Vec<f32>,
    rows: usize,
    /// `rows` rounded up to [`LANES`]; the surplus stays zero.
    stride: usize,
}

impl KeyValues {
    pub fn new(rows: usize, width: usize) -> Self {
        let stride = rows.next_multiple_of(LANES);
        Self { keys: vec![0.0; rows * width], values: vec![0.0; stride * width], rows, stride }
    }

    /// Bytes that [`KeyValues::new`] allocates.
    pub fn bytes(rows: usize, width: usize) -> usize {
        (rows + rows.next_multiple_of(LANES)) * width * size_of::<f32>()
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

/// Positions that are projected at a time.
const PIECE: i64 = 1_024;

/// Values of working memory that [`Positions::new`] takes.
pub fn projection(width: usize) -> usize {
    2 * PIECE as usize * width
}

impl Positions {
    /// Of the layer, for distances in `range`.
    pub fn new(layer: &Layer, range: &Range<i64>) -> Self {
        let width = layer.position.outputs;
        let mut rows = Vec::with_capacity(range.clone().count() * width);
        let mut projected = Vec::new();
        for first in range.clone().step_by(PIECE as usize) {
            let sinusoids = sinusoids(first..(first + PIECE).min(range.end), width);
            layer.position.apply(Rows::dense(&sinusoids, width), &mut projected);
            rows.extend_from_slice(&projected);
        }
        Self { least: range.start, rows }
    }
}

/// Values of working memory that a thread takes for queries that see `keys` keys, of a model of this width.
pub fn working(keys: usize, width: usize) -> usize {
    BLOCK * (3 * keys + BLOCK + LANES + 2 * width)
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
    /// The ring holds a whole signal, frame by frame.
    pub whole: bool,
}

/// The rows of [`Positions`] that some queries need.
struct PositionRows<'a> {
    least: i64,
    rows: &'a [f32],
}

impl<'a> Queries<'a> {
    /// Rows of the ring that hold all that `count` queries see: of a whole signal no more than that, from a multiple of
    /// [`LANES`] on, of a ring all.
    fn keys(&self, count: usize, visible: &impl Fn(i64) -> Range<i64>) -> Range<usize> {
        if !self.whole {
            return 0..self.cache.rows;
        }
        let last = self.first + count as i64 - 1;
        let [start, end] = [visible(self.first).start, visible(last).end];
        let end = end.clamp(0, self.cache.rows as i64) as usize;
        (start.max(0) as usize).min(end) / LANES * LANES..end
    }

    /// The relative positions that `count` queries and the frames in some rows of the ring can have.
    fn positions(&self, count: usize, rows: &Range<usize>, width: usize) -> PositionRows<'a> {
        let (mut first, mut last) = (i64::MAX, i64::MIN);
        for &key in self.ring[rows.clone()].iter().filter(|&&key| key >= 0) {
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
    let keys = queries.keys(count, visible);
    // What fills the rows up lies beyond them or isn't visible, and weighs nothing.
    let stride = keys.len().next_multiple_of(LANES);
    let positions = queries.positions(count, &keys, width);
    let position_rows = positions.rows.len() / width;
    let scale = 1.0 / (head_width as f32).sqrt();
    let Scratch { content, position, scores, with_u, with_v } = scratch;
    add_bias(queries.queries, &layer.bias_u, with_u);
    add_bias(queries.queries, &layer.bias_v, with_v);
    content.resize(count * keys.len(), 0.0);
    position.resize(count * position_rows, 0.0);
    scores.resize(count * stride, 0.0);
    for head in 0..heads {
        let from = head * head_width;
        let rows = |data, count| Rows::new(data, count, head_width, width);
        product_f32(
            rows(&with_u[from..], count),
            rows(&cache.keys[keys.start * width + from..], keys.len()),
            content,
            keys.len(),
        );
        product_f32(
            rows(&with_v[from..], count),
            rows(&positions.rows[from..], position_rows),
            position,
            position_rows,
        );
        for i in 0..count {
            let frame = queries.first + i as i64;
            let visible = visible(frame);
            let row = &mut scores[i * stride..][..stride];
            let terms = content[i * keys.len()..].iter().zip(&queries.ring[keys.clone()]);
            let position = &position[i * position_rows..][..position_rows];
            for (score, (content, &key)) in row.iter_mut().zip(terms) {
                *score = if key >= 0 && visible.contains(&key) {
                    (content + position[(frame - key - positions.least) as usize]) * scale
                } else {
                    f32::NEG_INFINITY
                };
            }
            let (row, surplus) = row.split_at_mut(keys.len());
            surplus.fill(0.0);
            softmax(row);
        }
        let first = from * cache.stride + keys.start;
        let values = Rows::new(&cache.values[first..], head_width, stride, cache.stride);
        let weights = Rows::new(scores, count, stride, stride);
        product_f32(weights, values, &mut out[from..], width);
    }
}

fn add_bias(x: &[f32], bias: &[f32], out: &mut Vec<f32>) {
    out.clear();
    for row in x.chunks_exact(bias.len()) {
        out.extend(row.iter().zip(bias).map(|(x, b)| x + b));
    }
}
