// SPDX-License-Identifier: MPL-2.0
//! What attention knows of distances, projected once and not in every step.

use std::ops::Range;
use std::sync::Arc;

use crate::backend::cuda::card::{Buffer, Device, Kernels, Products, Type, Way, upload};
use crate::backend::cuda::memory::Params;
use crate::backend::cuda::sizes::{Shape, ladder};
use crate::backend::visibility::sinusoids;
use crate::error::Result;

/// Projected positions of all layers, for the distances `query - key` of a range.
pub struct Positions {
    pub range: Range<i64>,
    /// Of each layer, `[heads][positions][head]`.
    pub table: Vec<Buffer>,
    /// Of each layer, `[heads][positions]`.
    pub constant: Vec<Buffer>,
}

impl Positions {
    /// Projects the positions of `range` for every layer.
    pub fn new(
        device: &Arc<Device>,
        shape: &Shape,
        kernels: &Kernels,
        params: &Params,
        products: &mut Products,
        range: Range<i64>,
    ) -> Result<Self> {
        let (width, heads) = (shape.encoder.width, shape.encoder.heads);
        let count = (range.end - range.start) as usize;
        let padded = ladder(count);
        let mut values = sinusoids(range.clone(), width);
        values.resize(padded * width, 0.0);
        let embedded = upload(device, shape.precision, &values)?;
        let projected = device.buffer(padded * width * 4)?;
        let (mut table, mut constant) = (Vec::new(), Vec::new());
        for layer in &params.layers {
            let way = Way { result: Type::F32, ..products.plain() };
            products.run(
                &layer.position,
                way,
                count,
                (embedded.address, width),
                (projected.address, width),
            )?;
            let rows = device.buffer(count * width * shape.size())?;
            let summands = device.buffer(count * heads * 4)?;
            let arguments =
                [(&projected).into(), (&layer.difference).into(), (&rows).into(), (&summands).into()];
            device.launch(&kernels.position_table, [count, heads], &arguments)?;
            table.push(rows);
            constant.push(summands);
        }
        device.wait()?;
        Ok(Self { range, table, constant })
    }
}
