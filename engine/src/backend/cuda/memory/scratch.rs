// SPDX-License-Identifier: MPL-2.0
//! Working memory of a step on the card: allocated once for the largest step so far, nothing outlasts a step.

use std::sync::Arc;

use crate::backend::cuda::card::{Buffer, Device, Pinned, Rows8};
use crate::backend::cuda::sizes::{Extent, Shape, WorkingSizes};
use crate::error::{Error, Result};

/// The buffers, by what they hold; sizes are of the extent rounded up to rungs.
pub struct Scratch {
    /// What it is large enough for.
    pub extent: Extent,
    /// Bytes of all of it on the card.
    pub bytes: usize,
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
    /// Header and emissions.
    pub results: Buffer,
    /// Emissions that fit.
    pub capacity: usize,
    /// The host's ends of `input` and `results`.
    pub staged: Pinned,
    pub fetched: Pinned,
}

impl Scratch {
    /// For steps of up to this extent with up to `samples` samples.
    pub fn new(device: &Arc<Device>, shape: &Shape, extent: Extent, samples: usize) -> Result<Self> {
        let sizes = WorkingSizes::new(shape, &extent, samples);
        let buffer = |bytes: usize| device.zeros(bytes);
        let pair = |bytes: usize| Ok::<_, Error>([buffer(bytes)?, buffer(bytes)?]);
        let input8 = match sizes.input8 {
            Some([values, scales]) => Some(Rows8 { values: buffer(values)?, scales: buffer(scales)? }),
            None => None,
        };
        Ok(Self {
            extent,
            bytes: sizes.bytes(),
            input: buffer(sizes.input)?,
            mel: buffer(sizes.mel)?,
            second: pair(sizes.second)?,
            third: pair(sizes.third)?,
            x: buffer(sizes.x)?,
            spare: buffer(sizes.spare)?,
            y: buffer(sizes.y)?,
            wide: buffer(sizes.wide)?,
            qkv: buffer(sizes.qkv)?,
            input8,
            encoded: buffer(sizes.encoded)?,
            joint: buffer(sizes.joint)?,
            logits: buffer(sizes.logits)?,
            gates: buffer(sizes.gates)?,
            cell: buffer(sizes.cell)?,
            predicted: buffer(sizes.predicted)?,
            fresh: buffer(sizes.predicted)?,
            hidden: buffer(sizes.hidden)?,
            cursors: buffer(sizes.cursors)?,
            picks: buffer(sizes.picks)?,
            results: buffer(sizes.results)?,
            capacity: sizes.capacity,
            staged: device.pinned(sizes.input)?,
            fetched: device.pinned(sizes.results)?,
        })
    }
}
