// SPDX-License-Identifier: MPL-2.0
//! What attention knows of distances, projected once and not in every step where the tables of all layers are small, and
//! otherwise for a layer when it comes.

use std::ops::Range;
use std::sync::Arc;

use crate::backend::cuda::card::{Buffer, Device, Kernels, Products, Type, Way, upload};
use crate::backend::cuda::memory::{Layer, Params};
use crate::backend::cuda::sizes::{Shape, ladder};
use crate::backend::visibility::sinusoids;
use crate::error::Result;

/// Most bytes of the tables of all layers of whole signals that are kept.
pub const MOST_HELD: usize = 256 << 20;

/// Positions whose sinusoids are made at a time.
const PIECE: i64 = 8_192;

/// Projected positions, for the distances `query - key` of a range.
pub struct Positions {
    pub range: Range<i64>,
    /// Of each layer, or of one at a time.
    tables: Vec<Table>,
    /// What those of one layer at a time are made of.
    source: Option<Source>,
}

/// Projected positions of a layer.
pub struct Table {
    /// `[heads][positions][head]`.
    pub rows: Buffer,
    /// `[heads][positions]`.
    pub constant: Buffer,
}

/// What positions are projected from.
struct Source {
    /// Sinusoids, `[positions][width]`.
    embedded: Buffer,
    /// The same through a layer's product, in single precision.
    projected: Buffer,
}

impl Positions {
    /// Of every layer.
    pub fn new(
        device: &Arc<Device>,
        shape: &Shape,
        kernels: &Kernels,
        params: &Params,
        products: &mut Products,
        range: Range<i64>,
    ) -> Result<Self> {
        let source = Source::new(device, shape, &range)?;
        let mut tables = Vec::new();
        for layer in &params.layers {
            let table = Table::new(device, shape, &range)?;
            source.project(device, kernels, products, layer, &range, &table)?;
            tables.push(table);
        }
        device.wait()?;
        Ok(Self { range, tables, source: None })
    }

    /// Room for those of one layer at a time, which [`Positions::make`] makes.
    pub fn by_layer(device: &Arc<Device>, shape: &Shape, range: Range<i64>) -> Result<Self> {
        let source = Some(Source::new(device, shape, &range)?);
        let tables = vec![Table::new(device, shape, &range)?];
        Ok(Self { range, tables, source })
    }

    /// Bytes that so many positions of all layers take.
    pub fn held_bytes(shape: &Shape, count: usize) -> usize {
        shape.encoder.layers * Table::bytes(shape, count)
    }

    /// Bytes that so many positions take at most, those of all layers if they are `held`, else those of one.
    pub fn bytes(shape: &Shape, count: usize, held: bool) -> usize {
        let layers = if held { shape.encoder.layers } else { 1 };
        layers * Table::bytes(shape, count) + ladder(count) * shape.encoder.width * (shape.size() + 4)
    }

    /// Enqueues the projection for `layer`, where it isn't there.
    pub fn make(
        &self,
        device: &Device,
        kernels: &Kernels,
        products: &mut Products,
        layer: &Layer,
    ) -> Result<()> {
        match &self.source {
            Some(source) => source.project(device, kernels, products, layer, &self.range, &self.tables[0]),
            None => Ok(()),
        }
    }

    /// Those of layer `index`; of one layer at a time those that were made last.
    pub fn of(&self, index: usize) -> &Table {
        &self.tables[if self.source.is_some() { 0 } else { index }]
    }
}

impl Table {
    fn new(device: &Arc<Device>, shape: &Shape, range: &Range<i64>) -> Result<Self> {
        let count = length(range);
        let rows = device.buffer(count * shape.encoder.width * shape.size())?;
        Ok(Self { rows, constant: device.buffer(count * shape.encoder.heads * 4)? })
    }

    fn bytes(shape: &Shape, count: usize) -> usize {
        count * (shape.encoder.width * shape.size() + shape.encoder.heads * 4)
    }
}

impl Source {
    fn new(device: &Arc<Device>, shape: &Shape, range: &Range<i64>) -> Result<Self> {
        let width = shape.encoder.width;
        let padded = ladder(length(range));
        let embedded = device.zeros(padded * width * shape.size())?;
        for first in range.clone().step_by(PIECE as usize) {
            let values = sinusoids(first..(first + PIECE).min(range.end), width);
            let piece = upload(device, shape.precision, &values)?;
            let at = (first - range.start) as usize * width * shape.size();
            device.copy(&piece, embedded.part(at, piece.bytes)?)?;
            // Freeing the piece waits for the copy.
        }
        Ok(Self { embedded, projected: device.buffer(padded * width * 4)? })
    }

    fn project(
        &self,
        device: &Device,
        kernels: &Kernels,
        products: &mut Products,
        layer: &Layer,
        range: &Range<i64>,
        to: &Table,
    ) -> Result<()> {
        let (width, count) = (layer.position.outputs, length(range));
        let way = Way { result: Type::F32, ..products.plain() };
        let [x, y] = [&self.embedded, &self.projected].map(|buffer| (buffer.address, width));
        products.run(&layer.position, way, count, x, y)?;
        let arguments =
            [(&self.projected).into(), (&layer.difference).into(), (&to.rows).into(), (&to.constant).into()];
        device.launch(&kernels.position_table, [count, layer.heads], &arguments)
    }
}

fn length(range: &Range<i64>) -> usize {
    (range.end - range.start) as usize
}
