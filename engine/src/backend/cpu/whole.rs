// SPDX-License-Identifier: MPL-2.0
//! The layers over one whole signal of any length, a block of rows at a time: what grows with the signal are the rows
//! themselves, keys and values of one layer, the inputs of one convolution and the positions of one layer.

use std::ops::Range;

use crate::model::config::EncoderConfig;

use super::attention::{Queries, attend, projection, working};
use super::encoder::{EncoderState, Scratch, convolved, feed_forward, weigh_window};
use super::ops::{add_scaled, glu, layer_norm, layer_norm_into};
use super::params::Layer;
use super::rows::Rows;

/// Rows that each thread has of a block.
const SHARE: usize = 128;

/// Rows of a block on so many threads.
pub fn block(threads: usize) -> usize {
    SHARE * threads
}

/// Runs all layers over `x` (`[rows, width]`, the subsampled frames of the signal) in place.
pub fn run(
    config: &EncoderConfig,
    layers: &[Layer],
    x: &mut [f32],
    state: &mut EncoderState,
    scratch: &mut Scratch,
) {
    let width = config.width;
    let block = block(rayon::current_num_threads());
    let mut gated = Vec::with_capacity(x.len());
    state.ring.iter_mut().enumerate().for_each(|(row, frame)| *frame = row as i64);
    for (index, layer) in layers.iter().enumerate() {
        for (first, x) in (0..).step_by(block).zip(x.chunks_mut(block * width)) {
            feed_forward(&layer.norm_ff1, &layer.ff1, x, scratch);
            keep(layer, x, state, first, scratch);
        }
        let positions = state.positions.of(layer, index);
        gated.clear();
        for (first, x) in (0..).step_by(block).zip(x.chunks_mut(block * width)) {
            let Scratch { normed, wide, narrow, query, context, attention, .. } = scratch;
            layer_norm_into(x, &layer.norm_attention, normed);
            layer.query.apply(Rows::dense(normed, width), query);
            context.resize(x.len(), 0.0);
            let queries = Queries {
                cache: &state.layers[0].cache,
                positions: &positions,
                queries: query,
                first,
                ring: &state.ring,
                whole: true,
            };
            let visible = |frame| state.visibility.of(frame);
            attend(layer, config.heads, &queries, visible, attention, context);
            layer.attention_out.apply(Rows::dense(context, width), narrow);
            add_scaled(x, 1.0, narrow);
            layer_norm_into(x, &layer.norm_conv, normed);
            layer.pointwise1.apply(Rows::dense(normed, width), wide);
            glu(wide, width, narrow);
            gated.extend_from_slice(narrow);
        }
        for (first, x) in (0..).step_by(block).zip(x.chunks_mut(block * width)) {
            let Scratch { normed: window, narrow, context, .. } = scratch;
            surroundings(config, &gated, first..first + x.len() / width, window);
            context.resize(x.len(), 0.0);
            weigh_window(&layer.depthwise, window, width, context);
            convolved(config, layer, x, context, narrow);
            feed_forward(&layer.norm_ff2, &layer.ff2, x, scratch);
            layer_norm(x, &layer.norm_out);
        }
    }
}

/// Keys and values of the rows `x` from `first` on.
fn keep(layer: &Layer, x: &[f32], state: &mut EncoderState, first: usize, scratch: &mut Scratch) {
    let width = layer.query.outputs;
    let Scratch { normed, key, value, .. } = scratch;
    layer_norm_into(x, &layer.norm_attention, normed);
    let rows = Rows::dense(normed, width);
    layer.key.apply(rows, key);
    layer.value.apply(rows, value);
    state.layers[0].cache.store(first, key, value, width);
}

/// The rows `frames` of `gated` with what a convolution over them sees around them, zeros outside the signal.
fn surroundings(config: &EncoderConfig, gated: &[f32], frames: Range<usize>, window: &mut Vec<f32>) {
    let (width, [left, right]) = (config.width, config.conv_context);
    let rows = gated.len() / width;
    let (before, after) = (frames.start.saturating_sub(left), (frames.end + right).min(rows));
    window.clear();
    window.resize((left - (frames.start - before)) * width, 0.0);
    window.extend_from_slice(&gated[before * width..after * width]);
    window.resize((frames.len() + left + right) * width, 0.0);
}

/// Values that [`run`] works in beside `x` and `state`, for signals of so many rows of which a block's rows see `keys`.
pub fn values(config: &EncoderConfig, rows: usize, keys: usize, positions: usize, threads: usize) -> usize {
    let (width, block) = (config.width, block(threads).min(rows));
    let wide = config.ff_width.max(2 * width);
    let of_block = block * (7 * width + wide) + (config.conv_context[0] + config.conv_context[1]) * width;
    (rows + positions) * width + of_block + projection(width) + threads * working(keys, width)
}
