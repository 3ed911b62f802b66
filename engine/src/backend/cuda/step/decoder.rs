// SPDX-License-Identifier: MPL-2.0
//! Greedy decoding on the card by label looping over all items of a step: iterations are enqueued a few at a time, and the
//! host looks only at the end of them whether a stream needs more.

use std::sync::Arc;

use super::pass::{Pass, bias};
use crate::backend::cuda::card::{Buffer, Device, Kernels, Matrix, Products, Type, Way};
use crate::backend::cuda::memory::{Params, Scratch};
use crate::backend::cuda::sizes::{Counts, Cursor, Extent, HEADER, Layout, Shape, ladder};
use crate::error::Result;

/// Iterations that are enqueued together.
pub const ITERATIONS: usize = 4;

/// A product in single precision of the decoder.
#[derive(Clone, Copy)]
enum Precise {
    Joint,
    Predictor,
    /// Of two widths.
    Predictor2,
}

impl Pass<'_> {
    /// A product of the decoder into single precision, for all items or all frames that they look at.
    fn decoder_product(
        &self,
        products: &mut Products,
        which: Precise,
        matrix: &Matrix,
        x: (u64, usize),
        y: u64,
    ) -> Result<()> {
        if self.enqueue_skinny_product(which, matrix, x, y)? {
            return Ok(());
        }
        let precise = Way { result: Type::F32, ..products.plain() };
        products.run(matrix, precise, self.decoder_rows(which), x, (y, matrix.outputs))
    }

    /// The same by a kernel of few rows: false if it has too many, or widths that these don't take.
    fn enqueue_skinny_product(
        &self,
        which: Precise,
        matrix: &Matrix,
        x: (u64, usize),
        y: u64,
    ) -> Result<bool> {
        let rows = self.decoder_rows(which);
        let Some(decoder) = self.skinny(rows).and_then(|skinny| skinny.decoder.as_ref()) else {
            return Ok(false);
        };
        let (kernel, count) = match which {
            Precise::Joint => (&decoder.joint, self.joint_count()),
            Precise::Predictor => (&decoder.predictor, self.counts()),
            Precise::Predictor2 => (&decoder.predictor_2, self.counts()),
        };
        let arguments = [
            count,
            x.0.into(),
            x.1.into(),
            (&matrix.weight).into(),
            bias(matrix),
            matrix.outputs.into(),
            y.into(),
        ];
        kernel.launch(self.device, rows, matrix.outputs, &arguments)?;
        Ok(true)
    }

    /// Feeds each item's label to the predictor; its output goes to `scratch.fresh`.
    fn enqueue_predictor(&self, products: &mut Products) -> Result<()> {
        let Self { device, shape, kernels, params, scratch, extent, .. } = self;
        let (width, layers) = (shape.predictor, shape.predictor_layers);
        let stride = layers * width;
        let hidden = |layer: usize| (scratch.hidden.address + (layer * width * shape.size()) as u64, stride);
        for (index, lstm) in params.decoder.lstm.iter().enumerate() {
            let which = if index == 0 { Precise::Predictor } else { Precise::Predictor2 };
            let x = hidden(index.saturating_sub(1));
            self.decoder_product(products, which, &lstm.product, x, scratch.gates.address)?;
            let arguments = [
                self.counts(),
                (&scratch.cursors).into(),
                (&scratch.gates).into(),
                (&lstm.table).into(),
                index.into(),
                (&scratch.hidden).into(),
                (&scratch.cell).into(),
            ];
            device.launch(&kernels.lstm_cell, [extent.items, 1], &arguments)?;
        }
        let out = &params.decoder.joint_predictor;
        self.decoder_product(products, Precise::Predictor, out, hidden(layers - 1), scratch.fresh.address)
    }

    /// Rows of a product of the decoder.
    fn decoder_rows(&self, which: Precise) -> usize {
        match which {
            Precise::Joint => self.extent.joints,
            Precise::Predictor | Precise::Predictor2 => self.extent.items,
        }
    }

    /// Brings the items' decoder state in. `start` is what [`start`] made.
    pub fn enqueue_decode_begin(&self, start: &Buffer) -> Result<()> {
        let Self { device, kernels, scratch, extent, .. } = self;
        device.clear(scratch.results.part(0, HEADER)?)?;
        let arguments = [
            self.items(),
            self.counts(),
            self.blocks.into(),
            start.into(),
            (&scratch.encoded).into(),
            (&scratch.cursors).into(),
            (&scratch.hidden).into(),
            (&scratch.cell).into(),
            (&scratch.predicted).into(),
            (&scratch.joint).into(),
            (&scratch.results).into(),
        ];
        device.launch(&kernels.decode_begin, [extent.items, 1], &arguments)
    }

    /// [`ITERATIONS`] decisions of every item.
    pub fn enqueue_decode(&self, products: &mut Products) -> Result<()> {
        let Self { device, shape, kernels, params, scratch, extent, .. } = self;
        let items = extent.items;
        let span = extent.joints / items;
        for _ in 0..ITERATIONS {
            let (x, y) = ((scratch.joint.address, shape.joint), scratch.logits.address);
            self.decoder_product(products, Precise::Joint, &params.decoder.joint_out, x, y)?;
            if span > 1 {
                let arguments = [
                    self.items(),
                    self.counts(),
                    (&scratch.logits).into(),
                    (&scratch.cursors).into(),
                    span.into(),
                    (&scratch.picks).into(),
                ];
                device.launch(&kernels.rank, [extent.joints, 1], &arguments)?;
            }
            let arguments = [
                self.items(),
                self.counts(),
                (&scratch.logits).into(),
                (&scratch.picks).into(),
                span.into(),
                (&scratch.cursors).into(),
                (&scratch.results).into(),
                (scratch.results.address + HEADER as u64).into(),
                scratch.capacity.into(),
            ];
            device.launch(&kernels.decide, [items, 1], &arguments)?;
            self.enqueue_predictor(products)?;
            let arguments = [
                self.items(),
                self.counts(),
                (&scratch.cursors).into(),
                (&scratch.encoded).into(),
                (&scratch.fresh).into(),
                (&scratch.predicted).into(),
                (&scratch.joint).into(),
            ];
            device.launch(&kernels.look, [items, span], &arguments)?;
        }
        Ok(())
    }

    /// Gives the items' decoder state back to their slots.
    pub fn enqueue_decode_end(&self) -> Result<()> {
        let Self { device, kernels, scratch, extent, .. } = self;
        let arguments = [
            self.items(),
            self.counts(),
            self.blocks.into(),
            (&scratch.cursors).into(),
            (&scratch.hidden).into(),
            (&scratch.cell).into(),
            (&scratch.predicted).into(),
        ];
        device.launch(&kernels.decode_end, [extent.items, 1], &arguments)
    }
}

/// Makes the first LSTM layer's table, and the state that decoding starts from: after a blank, as in NeMo's batched
/// decoder. The result is a `Memory` of `decode.cu`.
pub fn start(
    device: &Arc<Device>,
    shape: &Shape,
    kernels: &Kernels,
    params: &mut Params,
    products: &mut Products,
    scratch: &Scratch,
) -> Result<Buffer> {
    let width = shape.predictor;
    let labels = shape.vocabulary + 1;
    let precise = Way { result: Type::F32, ..products.plain() };
    if let (Some((embedding, input)), Some(first)) =
        (params.decoder.labels.take(), params.decoder.lstm.first())
    {
        // A product's rows are rounded up, so it goes through memory that is large enough.
        let padded = ladder(labels);
        let embedded = device.zeros(padded * width * shape.size())?;
        device.copy(embedding.part(0, labels * width * shape.size())?, &embedded)?;
        let table = device.buffer(padded * 4 * width * 4)?;
        products.run(&input, precise, labels, (embedded.address, width), (table.address, 4 * width))?;
        device.copy(table.part(0, labels * 4 * width * 4)?, &first.table)?;
        device.wait()?;
    }
    device.write(&scratch.input, &[Counts::ONE])?;
    let blank = shape.vocabulary as i32;
    let cursor = Cursor { frame: 0, last: -1, emitted: 0, label: blank, active: 1, phrase: 0 };
    device.write(&scratch.cursors, &[cursor])?;
    let pass = Pass {
        device,
        shape,
        kernels,
        params,
        scratch,
        extent: Extent { items: 1, joints: 1, ..Extent::default() },
        layout: Layout::new(&Extent::default()),
        blocks: 0,
        rings: false,
        turns: None,
    };
    pass.enqueue_predictor(products)?;
    let memory = device.zeros(shape.memory_bytes())?;
    let arguments =
        [(&scratch.hidden).into(), (&scratch.cell).into(), (&scratch.fresh).into(), (&memory).into()];
    device.launch(&kernels.keep_start, [1, 1], &arguments)?;
    device.wait()?;
    Ok(memory)
}
