// SPDX-License-Identifier: MPL-2.0
//! The first part of a step: log-mel features and the 8x subsampling.

use super::pass::Pass;
use crate::backend::cuda::card::{Products, Way};
use crate::backend::cuda::sizes::{NORMALIZE_BINS, PARTS};
use crate::error::Result;
use crate::model::config::Normalize;

impl Pass<'_> {
    /// Features and subsampling: the residual stream of every row.
    pub fn enqueue_features(&self, products: &mut Products, normalize: Normalize) -> Result<()> {
        let Self { device, shape, kernels, params, scratch, extent, layout, .. } = self;
        let (items, counts) = (self.items(), self.counts());
        let tables = &params.features;
        let arguments = [
            items,
            counts,
            self.at(layout.mels),
            self.at(layout.pcm),
            (&tables.window).into(),
            (&tables.roots).into(),
            (&tables.filters).into(),
            (&tables.offsets).into(),
            (&tables.weights).into(),
            (&scratch.mel).into(),
        ];
        device.launch(&kernels.mel_frames, [extent.mels, 1], &arguments)?;
        if self.rings {
            let arguments = [items, counts, self.blocks.into(), (&scratch.mel).into()];
            device.launch(&kernels.mel_history, [extent.items, 1], &arguments)?;
        }
        if normalize == Normalize::PerFeature {
            let arguments = [items, counts, (&scratch.mel).into()];
            let grid = [extent.items, shape.bins.div_ceil(NORMALIZE_BINS)];
            device.launch(&kernels.mel_normalize, grid, &arguments)?;
        }

        let subsampling = &params.subsampling;
        let channels = shape.geometry.channels;
        let [_, bins2, bins3] = shape.geometry.levels();
        let [depthwise, pointwise] = &scratch.second;
        let arguments = [
            items,
            counts,
            self.at(layout.positions),
            (&scratch.mel).into(),
            (&subsampling.first.taps).into(),
            (&subsampling.first.bias).into(),
            (&subsampling.depthwise[0].taps).into(),
            (&subsampling.depthwise[0].bias).into(),
            depthwise.into(),
        ];
        let grid = [extent.positions, PARTS];
        device.launch(&kernels.subsample_first, grid, &arguments)?;
        let relu = Way { relu: true, ..products.plain() };
        let (x, y) = ((depthwise.address, channels), (pointwise.address, channels));
        products.run(&subsampling.pointwise[0], relu, extent.positions * bins2, x, y)?;
        let [depthwise, output] = &scratch.third;
        let arguments = [
            items,
            counts,
            self.at(layout.rows),
            pointwise.into(),
            (&subsampling.depthwise[1].taps).into(),
            (&subsampling.depthwise[1].bias).into(),
            depthwise.into(),
        ];
        device.launch(&kernels.subsample_second, [extent.rows, PARTS], &arguments)?;
        let (x, y) = ((depthwise.address, channels), (output.address, channels));
        products.run(&subsampling.pointwise[1], relu, extent.rows * bins3, x, y)?;
        let scale = if shape.encoder.xscaling { (shape.encoder.width as f32).sqrt() } else { 1.0 };
        let (x, y) = ((output.address, channels * bins3), (scratch.x.address, shape.encoder.width));
        products.run(&subsampling.out, Way { scale, ..products.plain() }, extent.rows, x, y)
    }
}
