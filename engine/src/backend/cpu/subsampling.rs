// SPDX-License-Identifier: MPL-2.0
//! The 8x `dw_striding` subsampling (NeMo `ConvSubsampling`), for any range of encoder frames of a stream.
//!
//! All three convolutions have kernel 3 and stride 2 on time and mel bins. Positions before the stream's first and
//! from its last on are zeros at every level, as in NeMo's masked sequence: not the ReLU of a bias.

use std::ops::Range;

use crate::model::Geometry;

use super::ops::relu;
use super::params::Subsampling;
use super::parts::Taps;
use super::rows::Rows;
use super::simd::weigh;

/// Frames of a signal that are made of its mel frames at a time: what is between them is many times as large.
pub const PIECE: usize = 16;

/// Values that [`Subsampling::run`] works in for pieces of a signal of so many frames, one on each thread.
pub fn values(geometry: Geometry, frames: usize, threads: usize) -> usize {
    let pieces = frames.div_ceil(PIECE).min(threads);
    let [one, two, three] = geometry.levels();
    let frames = frames.min(PIECE);
    let positions = 2 * frames + 1;
    let first = (2 * positions + 1) * one + 2 * positions * two + 2 * frames * three;
    pieces * (first * geometry.channels + (4 * positions + 3) * geometry.mel_bins)
}

/// Values `[position][bin][channel]` from position `first` on.
struct Level {
    first: usize,
    bins: usize,
    data: Vec<f32>,
}

impl Subsampling {
    /// Rows of the encoder's input for `frames`. `mel` holds frames from index `first_mel` on; `mel_total` is the
    /// number of mel frames of the whole stream, if it has ended.
    pub fn run(
        &self,
        geometry: Geometry,
        mel: &[f32],
        first_mel: usize,
        mel_total: Option<usize>,
        frames: Range<usize>,
        out: &mut Vec<f32>,
    ) {
        let lengths = mel_total.map(|total| {
            let [one, two, _] = geometry.lengths(total);
            [total, one, two]
        });
        let length = |level: usize| lengths.map_or(usize::MAX, |lengths| lengths[level]);
        let bound = |range: Range<usize>, level: usize| range.start..range.end.min(length(level));
        let second = bound(geometry.inputs(frames.clone()), 2);
        let first = bound(geometry.inputs(second.clone()), 1);
        let bins = geometry.mel_bins;
        let seen = geometry.inputs(first.clone());
        let seen =
            seen.start.saturating_sub(first_mel)..(seen.end.saturating_sub(first_mel)).min(mel.len() / bins);
        let mel = Level {
            first: first_mel + seen.start,
            bins,
            data: mel[seen.start * bins..seen.end * bins].to_vec(),
        };

        let mut level = convolve(geometry, &mel, 1, length(0), first, &self.first);
        relu(&mut level.data);
        for (i, positions) in [second, frames].into_iter().enumerate() {
            let between =
                convolve(geometry, &level, geometry.channels, length(i + 1), positions, &self.depthwise[i]);
            let rows = Rows::dense(&between.data, geometry.channels);
            self.pointwise[i].apply(rows, &mut level.data);
            relu(&mut level.data);
            (level.first, level.bins) = (between.first, between.bins);
        }
        let width = level.bins * geometry.channels;
        debug_assert_eq!(level.bins, geometry.levels()[2]);
        let mut flat = vec![0.0; level.data.len()];
        for (frame, flat) in level.data.chunks_exact(width).zip(flat.chunks_exact_mut(width)) {
            // NeMo flattens channel by channel.
            for (channel, bins) in flat.chunks_exact_mut(level.bins).enumerate() {
                let values = frame[channel..].iter().step_by(geometry.channels);
                bins.iter_mut().zip(values).for_each(|(bin, value)| *bin = *value);
            }
        }
        self.out.apply(Rows::dense(&flat, width), out);
    }
}

/// 3x3 convolution of stride 2 at `positions`; one input channel for all outputs, or each channel its own.
fn convolve(
    geometry: Geometry,
    input: &Level,
    input_channels: usize,
    input_length: usize,
    positions: Range<usize>,
    taps: &Taps,
) -> Level {
    let (left, channels) = (geometry.left_padding(), geometry.channels);
    let bins = geometry.halve(input.bins);
    let mut data = vec![0.0; positions.len() * bins * channels];
    let available = input.data.len() / (input.bins * input_channels);
    let places = positions.clone().flat_map(|position| (0..bins).map(move |bin| (position, bin)));
    let mut terms = Vec::new();
    for (out, (position, bin)) in data.chunks_exact_mut(channels).zip(places) {
        terms.clear();
        for (tap, weights) in taps.taps.chunks_exact(channels).enumerate() {
            let at = (2 * position + tap / 3).checked_sub(left).filter(|&at| at < input_length);
            let from = (2 * bin + tap % 3).checked_sub(left).filter(|&from| from < input.bins);
            let (Some(at), Some(from)) = (at, from) else { continue };
            let Some(at) = at.checked_sub(input.first).filter(|&at| at < available) else {
                debug_assert!(false, "position {at} of a subsampling level was not kept");
                continue;
            };
            let values = &input.data[(at * input.bins + from) * input_channels..][..input_channels];
            terms.push((weights, values));
        }
        weigh(&taps.bias, &terms, out);
    }
    Level { first: positions.start, bins, data }
}
