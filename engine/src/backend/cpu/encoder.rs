// SPDX-License-Identifier: MPL-2.0
//! The FastConformer layers over the new frames of several streams at once (arXiv:2305.05084; NeMo
//! `ConformerEncoder`). Products run over all rows together, attention and convolution stream by stream.

use std::ops::{Deref, Range};
use std::sync::Arc;

use crate::backend::visibility::Visibility;
use crate::model::config::{ConvNorm, EncoderConfig};

use super::attention::{self, KeyValues, Positions, Queries, attend};
use super::ops::{add_scaled, glu, layer_norm, layer_norm_into, scale_and_shift, silu};
use super::params::Layer;
use super::parts::{Linear, Norm, Taps};
use super::rows::Rows;
use super::simd::weigh;

/// Projected positions for queries and keys whose distance `query - key` lies in a range.
pub enum PositionTables {
    /// Of all layers, for a ring or short windows.
    Held(Vec<Positions>),
    /// Of none: those of one layer at a time are projected when it needs them.
    Made(Range<i64>),
}

/// The positions of one layer.
pub enum LayerPositions<'a> {
    Held(&'a Positions),
    Made(Positions),
}

/// Most positions that are held for all layers.
const MOST_HELD: usize = 1_024;

impl PositionTables {
    /// Held if they are few.
    pub fn new(layers: &[Layer], range: Range<i64>) -> Self {
        match range.clone().count() {
            0..=MOST_HELD => Self::Held(layers.iter().map(|layer| Positions::new(layer, &range)).collect()),
            _ => Self::Made(range),
        }
    }

    /// Those of a layer.
    pub fn of(&self, layer: &Layer, index: usize) -> LayerPositions<'_> {
        match self {
            Self::Held(tables) => LayerPositions::Held(&tables[index]),
            Self::Made(range) => LayerPositions::Made(Positions::new(layer, range)),
        }
    }
}

impl Deref for LayerPositions<'_> {
    type Target = Positions;

    fn deref(&self) -> &Positions {
        match self {
            Self::Held(positions) => positions,
            Self::Made(positions) => positions,
        }
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
    pub(super) layers: Vec<LayerState>,
    /// Frame index of each ring row, -1 where none is yet.
    pub ring: Vec<i64>,
    pub(super) visibility: Visibility,
    pub positions: Arc<PositionTables>,
    /// All layers share one memory, whose rows are the frames of a whole signal.
    pub(super) whole: bool,
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

    /// Whether it is for one pass.
    pub fn is_whole(&self) -> bool {
        self.whole
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
    pub(super) normed: Vec<f32>,
    pub(super) wide: Vec<f32>,
    pub(super) narrow: Vec<f32>,
    pub(super) query: Vec<f32>,
    pub(super) key: Vec<f32>,
    pub(super) value: Vec<f32>,
    pub(super) context: Vec<f32>,
    pub(super) attention: attention::Scratch,
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

pub(super) fn feed_forward(norm: &Norm, [up, down]: &[Linear; 2], x: &mut [f32], scratch: &mut Scratch) {
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
        let positions = state.positions.of(layer, index);
        let queries = Queries {
            cache,
            positions: &positions,
            queries: &query[range.clone()],
            first: segment.first as i64,
            ring: &state.ring,
            whole: state.whole,
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
    convolved(config, layer, x, context, narrow);
}

/// The convolution module from its depthwise convolution's output `context` on; `narrow` is working memory.
pub(super) fn convolved(
    config: &EncoderConfig,
    layer: &Layer,
    x: &mut [f32],
    context: &mut [f32],
    narrow: &mut Vec<f32>,
) {
    match config.conv_norm {
        ConvNorm::LayerNorm => layer_norm(context, &layer.conv_norm),
        ConvNorm::BatchNorm => scale_and_shift(context, &layer.conv_norm),
    }
    silu(context);
    layer.pointwise2.apply(Rows::dense(context, config.width), narrow);
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
    weigh_window(taps, window, width, &mut out[start..]);
}

/// Convolves each channel of `window` (`[frames + taps - 1, width]`) into `out`.
pub(super) fn weigh_window(taps: &Taps, window: &[f32], width: usize, out: &mut [f32]) {
    let mut terms = Vec::new();
    for (frame, out) in out.chunks_exact_mut(width).enumerate() {
        terms.clear();
        terms.extend(taps.taps.chunks_exact(width).zip(window[frame * width..].chunks_exact(width)));
        weigh(&taps.bias, &terms, out);
    }
}
