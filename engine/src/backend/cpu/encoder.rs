// SPDX-License-Identifier: MPL-2.0
//! The FastConformer layers over the new frames of several streams at once (arXiv:2305.05084; NeMo
//! `ConformerEncoder`). Products run over all rows together, attention and convolution stream by stream.

use std::ops::Range;
use std::sync::Arc;

use crate::backend::visibility::{Visibility, sinusoids};
use crate::model::config::{ConvNorm, EncoderConfig};

use super::attention::{self, KeyValues, Positions, Queries, attend};
use super::ops::{add_scaled, glu, layer_norm, layer_norm_into, scale_and_shift, silu};
use super::params::Layer;
use super::parts::{Linear, Norm, Taps};
use super::rows::Rows;
use super::simd::weigh;

/// Projected positions of all layers.
pub struct PositionTables(Vec<Positions>);

impl PositionTables {
    /// For queries and keys whose distance `query - key` lies in `range`.
    pub fn new(layers: &[Layer], width: usize, range: Range<i64>) -> Self {
        let sinusoids = sinusoids(range.clone(), width);
        let project = |layer: &Layer| {
            let mut rows = Vec::new();
            layer.position.apply(Rows::dense(&sinusoids, width), &mut rows);
            Positions { least: range.start, rows }
        };
        Self(layers.iter().map(project).collect())
    }
}

/// One layer's memory of a stream.
#[derive(Clone)]
pub struct LayerState {
    pub cache: KeyValues,
    /// The convolution's last inputs, `[left context, width]`.
    pub tail: Vec<f32>,
}

/// The encoder's memory of a stream.
#[derive(Clone)]
pub struct EncoderState {
    layers: Vec<LayerState>,
    /// Frame index of each ring row, -1 where none is yet.
    pub ring: Vec<i64>,
    visibility: Visibility,
    pub positions: Arc<PositionTables>,
    /// All layers share one memory.
    whole: bool,
}

impl EncoderState {
    /// An empty ring of `rows` frames.
    pub fn new(
        config: &EncoderConfig,
        rows: usize,
        visibility: Visibility,
        positions: Arc<PositionTables>,
    ) -> Self {
        let tail = vec![0.0; config.conv_context[0] * config.width];
        let layer = LayerState { cache: KeyValues::new(rows, config.width), tail };
        Self { layers: vec![layer; config.layers], ring: vec![-1; rows], visibility, positions, whole: false }
    }

    /// For one pass over `rows` frames: nothing outlasts it, so all layers share one memory.
    pub fn whole(
        config: &EncoderConfig,
        rows: usize,
        visibility: Visibility,
        positions: Arc<PositionTables>,
    ) -> Self {
        let mut state =
            Self::new(&EncoderConfig { layers: 1, ..config.clone() }, rows, visibility, positions);
        state.whole = true;
        state
    }

    /// Where the memory of layer `layer` is.
    fn index(&self, layer: usize) -> usize {
        if self.whole { 0 } else { layer }
    }

    /// The convolution's tail of layer `layer`; one pass has none to begin with.
    fn tail(&mut self, layer: usize) -> &mut [f32] {
        let index = self.index(layer);
        let tail = &mut self.layers[index].tail;
        if self.whole {
            tail.fill(0.0);
        }
        tail
    }

    /// Bytes that [`EncoderState::new`] allocates.
    pub fn bytes(config: &EncoderConfig, rows: usize) -> usize {
        let tail = config.conv_context[0] * config.width * size_of::<f32>();
        config.layers * (KeyValues::bytes(rows, config.width) + tail) + rows * size_of::<i64>()
    }
}

/// A stream's new frames among the rows of a batch.
pub struct Segment<'a> {
    pub rows: Range<usize>,
    /// Frame index of the first.
    pub first: usize,
    pub state: &'a mut EncoderState,
}

/// Working memory of [`run`], kept from step to step.
#[derive(Default)]
pub struct Scratch {
    normed: Vec<f32>,
    wide: Vec<f32>,
    narrow: Vec<f32>,
    query: Vec<f32>,
    key: Vec<f32>,
    value: Vec<f32>,
    context: Vec<f32>,
    attention: attention::Scratch,
}

/// Runs all layers over `x` (`[rows, width]`, the subsampled frames) in place.
pub fn run(
    config: &EncoderConfig,
    layers: &[Layer],
    x: &mut [f32],
    segments: &mut [Segment<'_>],
    scratch: &mut Scratch,
) {
    for segment in segments.iter_mut() {
        let capacity = segment.state.ring.len();
        for frame in segment.first..segment.first + segment.rows.len() {
            segment.state.ring[frame % capacity] = frame as i64;
        }
    }
    for (index, layer) in layers.iter().enumerate() {
        feed_forward(&layer.norm_ff1, &layer.ff1, x, scratch);
        self_attention(config, layer, index, x, segments, scratch);
        convolution(config, layer, index, x, segments, scratch);
        feed_forward(&layer.norm_ff2, &layer.ff2, x, scratch);
        layer_norm(x, &layer.norm_out);
    }
}

fn feed_forward(norm: &Norm, [up, down]: &[Linear; 2], x: &mut [f32], scratch: &mut Scratch) {
    let Scratch { normed, wide, narrow, .. } = scratch;
    layer_norm_into(x, norm, normed);
    up.apply(Rows::dense(normed, norm.weight.len()), wide);
    silu(wide);
    down.apply(Rows::dense(wide, up.outputs), narrow);
    add_scaled(x, 0.5, narrow);
}

fn self_attention(
    config: &EncoderConfig,
    layer: &Layer,
    index: usize,
    x: &mut [f32],
    segments: &mut [Segment<'_>],
    scratch: &mut Scratch,
) {
    let width = config.width;
    let Scratch { normed, narrow, query, key, value, context, attention, .. } = scratch;
    layer_norm_into(x, &layer.norm_attention, normed);
    let rows = Rows::dense(normed, width);
    layer.query.apply(rows, query);
    layer.key.apply(rows, key);
    layer.value.apply(rows, value);
    context.resize(x.len(), 0.0);
    for segment in segments.iter_mut() {
        let range = segment.rows.start * width..segment.rows.end * width;
        // A chunk is as long as a ring block, so it never wraps.
        let first_row = segment.first % segment.state.ring.len();
        let state = &mut *segment.state;
        let memory = state.index(index);
        let cache = &mut state.layers[memory].cache;
        cache.store(first_row, &key[range.clone()], &value[range.clone()], width);
        let queries = Queries {
            cache,
            positions: &state.positions.0[index],
            queries: &query[range.clone()],
            first: segment.first as i64,
            ring: &state.ring,
        };
        let visible = |frame| state.visibility.of(frame);
        attend(layer, config.heads, &queries, visible, attention, &mut context[range]);
    }
    layer.attention_out.apply(Rows::dense(context, width), narrow);
    add_scaled(x, 1.0, narrow);
}

fn convolution(
    config: &EncoderConfig,
    layer: &Layer,
    index: usize,
    x: &mut [f32],
    segments: &mut [Segment<'_>],
    scratch: &mut Scratch,
) {
    let width = config.width;
    let Scratch { normed, wide, narrow, context, .. } = scratch;
    layer_norm_into(x, &layer.norm_conv, normed);
    layer.pointwise1.apply(Rows::dense(normed, width), wide);
    glu(wide, width, narrow);
    context.clear();
    for segment in segments.iter_mut() {
        let inputs = &narrow[segment.rows.start * width..segment.rows.end * width];
        depthwise(config, &layer.depthwise, inputs, segment.state.tail(index), normed, context);
    }
    match config.conv_norm {
        ConvNorm::LayerNorm => layer_norm(context, &layer.conv_norm),
        ConvNorm::BatchNorm => scale_and_shift(context, &layer.conv_norm),
    }
    silu(context);
    layer.pointwise2.apply(Rows::dense(context, width), narrow);
    add_scaled(x, 1.0, narrow);
}

/// Convolves each channel of `inputs` (`[frames, width]`) with what `tail` holds before it and zeros after it;
/// appends to `out` and moves `tail` on. `window` is working memory.
fn depthwise(
    config: &EncoderConfig,
    taps: &Taps,
    inputs: &[f32],
    tail: &mut [f32],
    window: &mut Vec<f32>,
    out: &mut Vec<f32>,
) {
    let width = config.width;
    window.clear();
    window.extend_from_slice(tail);
    window.extend_from_slice(inputs);
    tail.copy_from_slice(&window[window.len() - tail.len()..]);
    window.resize(window.len() + config.conv_context[1] * width, 0.0);
    let start = out.len();
    out.resize(start + inputs.len(), 0.0);
    let mut terms = Vec::new();
    for (frame, out) in out[start..].chunks_exact_mut(width).enumerate() {
        terms.clear();
        terms.extend(taps.taps.chunks_exact(width).zip(window[frame * width..].chunks_exact(width)));
        weigh(&taps.bias, &terms, out);
    }
}
