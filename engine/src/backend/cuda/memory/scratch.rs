// SPDX-License-Identifier: MPL-2.0
//! Working memory of a step on the card: allocated once for the largest step so far, nothing outlasts a step.

use std::sync::Arc;

use crate::backend::cuda::card::{Buffer, Device, Pinned, Rows8};
use crate::backend::cuda::sizes::{
    Cursor, Emission, Extent, HEADER, Layout, Pick, SKINNY_ROWS, Shape, ladder,
};
use crate::error::Result;

/// The buffers, by what they hold; sizes are of the extent rounded up to rungs.
pub struct Scratch {
    /// What it is large enough for.
    pub extent: Extent,
    /// Bytes of a step's description and samples.
    pub input: Buffer,
    /// Log-mel frames `[frames][bins]`, single precision.
    pub mel: Buffer,
    /// Subsampling after its depthwise and pointwise parts, of the second and the third level.
    pub second: [Buffer; 2],
    pub third: [Buffer; 2],
    /// The residual stream, what a norm makes of it, and two wider ones.
    pub x: Buffer,
    /// Another place for the residual stream of few rows.
    pub spare: Buffer,
    pub y: Buffer,
    pub wide: Buffer,
    pub qkv: Buffer,
    /// What the next product of a layer multiplies, where those are in 8 bits.
    pub input8: Option<Rows8>,
    /// Encoder output as the joint wants it, `[rows][joint]`, single precision.
    pub encoded: Buffer,
    /// `[items][span][joint]`.
    pub joint: Buffer,
    /// Single precision: `[items][span][logits]`, `[items][4 * predictor]`, `[items][layers * predictor]`, `[items][joint]`
    /// twice.
    pub logits: Buffer,
    pub gates: Buffer,
    pub cell: Buffer,
    pub predicted: Buffer,
    pub fresh: Buffer,
    /// `[items][layers * predictor]`.
    pub hidden: Buffer,
    pub cursors: Buffer,
    /// `[items][span]`.
    pub picks: Buffer,
    /// Header and records.
    pub results: Buffer,
    /// Records that fit.
    pub capacity: usize,
    /// The host's ends of `input` and `results`.
    pub staged: Pinned,
    pub fetched: Pinned,
}

impl Scratch {
    /// For steps of up to this extent with up to `samples` samples.
    pub fn new(device: &Arc<Device>, shape: &Shape, extent: Extent, samples: usize) -> Result<Self> {
        let (rows, items) = (Rows8::padded(ladder(extent.rows)), ladder(extent.items));
        let joints = ladder(extent.joints.max(items));
        let (size, width) = (shape.size(), shape.encoder.width);
        let [_, bins2, bins3] = shape.geometry.levels();
        let channels = shape.geometry.channels;
        let second = ladder(extent.positions * bins2) * channels * size;
        let third = ladder(rows * bins3) * channels * size;
        let wide = shape.encoder.ff_width.max(2 * width).max(shape.prompt);
        let states = items * shape.predictor_layers * shape.predictor;
        let input = Layout::new(&extent).pcm + samples * 4;
        // A few tokens for each frame; an item that finds no room waits until the host has read the others.
        let capacity = 4 * extent.rows.max(extent.items) + 64;
        let results = HEADER + capacity * size_of::<Emission>();
        let buffer = |bytes: usize| device.zeros(bytes);
        let input8 = match shape.product8 {
            true => Some(Rows8 {
                values: buffer(rows * shape.encoder.ff_width.max(width))?,
                scales: buffer(rows * 4)?,
            }),
            false => None,
        };
        Ok(Self {
            extent,
            input: buffer(input)?,
            mel: buffer(extent.frames * shape.bins * 4)?,
            second: [buffer(second)?, buffer(second)?],
            third: [buffer(third)?, buffer(third)?],
            x: buffer(rows * width * size)?,
            spare: buffer(rows.min(SKINNY_ROWS) * width * size)?,
            y: buffer(rows * width * size)?,
            wide: buffer(rows * wide * size)?,
            qkv: buffer(rows * 3 * width * size)?,
            input8,
            encoded: buffer(rows * shape.joint * 4)?,
            joint: buffer(joints * shape.joint * size)?,
            logits: buffer(joints * shape.logits() * 4)?,
            gates: buffer(items * 4 * shape.predictor * 4)?,
            cell: buffer(states * 4)?,
            predicted: buffer(items * shape.joint * 4)?,
            fresh: buffer(items * shape.joint * 4)?,
            hidden: buffer(states * size)?,
            cursors: buffer(items * size_of::<Cursor>())?,
            picks: buffer(joints * size_of::<Pick>())?,
            results: buffer(results)?,
            capacity,
            staged: device.pinned(input)?,
            fetched: device.pinned(results)?,
        })
    }

    /// Bytes on the card, but for samples and tokens: what grows with the rows.
    pub fn bytes(&self) -> usize {
        let Self { second: [s1, s2], third: [t1, t2], .. } = self;
        let all = [
            &self.mel,
            s1,
            s2,
            t1,
            t2,
            &self.x,
            &self.spare,
            &self.y,
            &self.wide,
            &self.qkv,
            &self.encoded,
            &self.joint,
            &self.logits,
            &self.gates,
            &self.cell,
            &self.predicted,
            &self.fresh,
            &self.hidden,
            &self.cursors,
            &self.picks,
        ];
        let input8 = self.input8.iter().flat_map(|rows| [&rows.values, &rows.scales]);
        all.into_iter().chain(input8).map(|buffer| buffer.bytes).sum()
    }
}
