// SPDX-License-Identifier: MPL-2.0
//! The layers, as kernels and products one after the other (arXiv:2305.05084; NeMo `ConformerEncoder`).

use super::pass::Pass;
use super::positions::Positions;
use crate::backend::cuda::card::{Argument, Buffer, Matrix, Products, Type, Way};
use crate::backend::cuda::memory::{Layer, Norm};
use crate::backend::cuda::sizes::{NORM_ROWS, SILU_THREADS, SIMPLE_ROWS, WINDOW_ROWS};
use crate::error::Result;

/// No scales.
pub const NONE: Argument = Argument::Address(0);

impl Pass<'_> {
    /// All layers, the prompt and the joint's projection of the encoder's output.
    pub fn enqueue_layers(&self, products: &mut Products, positions: &Positions) -> Result<()> {
        let Self { params, scratch, .. } = self;
        if self.enqueue_skinny_layers(positions)? {
            return if params.prompt.is_some() { self.project(products) } else { Ok(()) };
        }
        let mut before: Option<&Norm> = None;
        for (index, layer) in params.layers.iter().enumerate() {
            match before {
                None => self.norm_input(&layer.norm_ff1)?,
                Some(last) => self.norm_twice(last, &layer.norm_ff1)?,
            }
            self.feed_forward(products, &layer.ff1)?;
            self.give_way()?;
            positions.make(self.device, self.kernels, products, layer)?;
            self.attention(products, layer, index, positions)?;
            self.give_way()?;
            self.convolution(products, layer, index)?;
            self.norm_input(&layer.norm_ff2)?;
            self.feed_forward(products, &layer.ff2)?;
            self.give_way()?;
            before = Some(&layer.norm_out);
        }
        if let Some(last) = before {
            self.norm(last, [(&scratch.y).into(), NONE])?;
        }
        self.project(products)
    }

    fn rows(&self, buffer: &Buffer, width: usize) -> (u64, usize) {
        (buffer.address, width)
    }

    /// Where a kernel leaves what the next product of a layer multiplies, and the scales of the rows if it's in 8 bits.
    fn input(&self) -> [Argument; 2] {
        match &self.scratch.input8 {
            Some(rows) => [(&rows.values).into(), (&rows.scales).into()],
            None => [(&self.scratch.y).into(), NONE],
        }
    }

    /// A product of a layer: of [`Pass::input`], or of `x` where that isn't in 8 bits.
    fn multiply(
        &self,
        products: &mut Products,
        matrix: &Matrix,
        way: Way,
        x: &Buffer,
        y: (u64, usize),
    ) -> Result<()> {
        match &self.scratch.input8 {
            Some(rows) => products.run8(matrix, way, self.extent.rows, rows, y),
            None => products.run(matrix, way, self.extent.rows, self.rows(x, matrix.inputs), y),
        }
    }

    fn norm_input(&self, norm: &Norm) -> Result<()> {
        self.norm(norm, self.input())
    }

    fn norm(&self, norm: &Norm, to: [Argument; 2]) -> Result<()> {
        self.normalise(norm, (&self.scratch.x).into(), to)
    }

    /// `y = LayerNorm(x)` of every row, and the rows' scales if those are wanted in 8 bits.
    pub fn normalise(&self, norm: &Norm, x: Argument, [to, scales]: [Argument; 2]) -> Result<()> {
        let Self { device, kernels, extent, .. } = self;
        let arguments = [self.counts(), x, (&norm.weight).into(), (&norm.bias).into(), to, scales];
        let grid = [extent.rows.div_ceil(NORM_ROWS), 1];
        device.launch(&kernels.layer_norm, grid, &arguments)
    }

    fn norm_twice(&self, first: &Norm, second: &Norm) -> Result<()> {
        let Self { device, kernels, scratch, extent, .. } = self;
        let [to, scales] = self.input();
        let arguments = [
            self.counts(),
            (&scratch.x).into(),
            (&first.weight).into(),
            (&first.bias).into(),
            (&second.weight).into(),
            (&second.bias).into(),
            to,
            scales,
        ];
        let grid = [extent.rows.div_ceil(NORM_ROWS), 1];
        device.launch(&kernels.layer_norm_twice, grid, &arguments)
    }

    fn feed_forward(&self, products: &mut Products, [up, down]: &[Matrix; 2]) -> Result<()> {
        let Self { device, kernels, scratch, extent, shape, .. } = self;
        let (width, ff) = (shape.encoder.width, shape.encoder.ff_width);
        let wide = self.rows(&scratch.wide, ff);
        self.multiply(products, up, products.plain(), &scratch.y, wide)?;
        let (counts, values) = (self.counts(), (&scratch.wide).into());
        if scratch.input8.is_some() {
            let [to, scales] = self.input();
            device.launch(&kernels.silu, [extent.rows, 1], &[counts, values, to, scales])?;
        } else {
            let blocks = (extent.rows * ff).div_ceil(8 * SILU_THREADS).min(device.processors * 16);
            device.launch(&kernels.silu, [blocks, 1], &[counts, values])?;
        }
        let way = Way { scale: 0.5, add: true, ..products.plain() };
        self.multiply(products, down, way, &scratch.wide, self.rows(&scratch.x, width))
    }

    fn attention(
        &self,
        products: &mut Products,
        layer: &Layer,
        index: usize,
        positions: &Positions,
    ) -> Result<()> {
        let Self { device, kernels, scratch, extent, shape, .. } = self;
        let width = shape.encoder.width;
        self.norm_input(&layer.norm_attention)?;
        let qkv = self.rows(&scratch.qkv, 3 * width);
        self.multiply(products, &layer.qkv, products.plain(), &scratch.y, qkv)?;
        self.attend(index, positions)?;
        if let Some(kernel) = &kernels.quantise_rows {
            let [to, scales] = self.input();
            let arguments = [(&scratch.y).into(), width.into(), to, scales];
            device.launch(kernel, [extent.rows, 1], &arguments)?;
        }
        let way = Way { add: true, ..products.plain() };
        self.multiply(products, &layer.attention_out, way, &scratch.y, self.rows(&scratch.x, width))
    }

    /// Attention of what is in `scratch.qkv`, to `scratch.y`.
    pub fn attend(&self, index: usize, positions: &Positions) -> Result<()> {
        let Self { device, kernels, scratch, extent, shape, .. } = self;
        let table = positions.of(index);
        let arguments = [
            (&scratch.qkv).into(),
            (&scratch.y).into(),
            (&table.rows).into(),
            (&table.constant).into(),
            Argument::Int(positions.range.start as i32),
            Argument::Int((positions.range.end - positions.range.start) as i32),
            self.items(),
            self.counts(),
            self.blocks.into(),
            index.into(),
        ];
        let heads = shape.encoder.heads;
        match (&kernels.attention_ring, &kernels.attention_window) {
            (Some(kernel), _) if self.rings => {
                let blocks = extent.items.min(device.processors / heads).max(1);
                let early = self.starts_early();
                device.launch_as(kernel, [blocks, heads], &arguments, early)?;
            }
            (_, Some(kernel)) if !self.rings => {
                let tiles = extent.rows.div_ceil(WINDOW_ROWS) + extent.items;
                device.launch(kernel, [tiles, heads], &arguments)?;
            }
            _ => {
                let tiles = extent.rows.div_ceil(SIMPLE_ROWS) + extent.items;
                device.launch(&kernels.attention_simple, [tiles, heads], &arguments)?;
            }
        }
        Ok(())
    }

    fn convolution(&self, products: &mut Products, layer: &Layer, index: usize) -> Result<()> {
        let Self { scratch, shape, .. } = self;
        let width = shape.encoder.width;
        self.norm_input(&layer.norm_conv)?;
        let wide = self.rows(&scratch.wide, 2 * width);
        self.multiply(products, &layer.pointwise1, products.plain(), &scratch.y, wide)?;
        self.convolve(layer, index)?;
        let way = Way { add: true, ..products.plain() };
        self.multiply(products, &layer.pointwise2, way, &scratch.y, self.rows(&scratch.x, width))
    }

    /// The convolution module's middle, from `scratch.wide` to [`Pass::input`].
    pub fn convolve(&self, layer: &Layer, index: usize) -> Result<()> {
        let Self { device, kernels, scratch, extent, layout, .. } = self;
        let [to, scales] = self.input();
        let arguments = [
            self.items(),
            self.counts(),
            self.at(layout.tiles),
            self.blocks.into(),
            index.into(),
            (&scratch.wide).into(),
            (&layer.depthwise.taps).into(),
            (&layer.depthwise.bias).into(),
            (&layer.conv_norm.weight).into(),
            (&layer.conv_norm.bias).into(),
            to,
            scales,
        ];
        let early = self.starts_early();
        let kernel = if early { &kernels.convolution_early } else { &kernels.convolution };
        device.launch_as(kernel, [extent.tiles, 1], &arguments, early)
    }

    /// The encoder's output, in `scratch.y`, through the prompt and the joint's first layer.
    fn project(&self, products: &mut Products) -> Result<()> {
        let Self { device, kernels, params, scratch, extent, shape, layout, .. } = self;
        let width = shape.encoder.width;
        let mut output = self.rows(&scratch.y, width);
        if let Some(prompt) = &params.prompt {
            let hidden = self.rows(&scratch.wide, prompt.inner.outputs);
            let y = self.rows(&scratch.y, width);
            products.run(&prompt.inner, products.plain(), extent.rows, y, hidden)?;
            let arguments = [
                self.items(),
                self.counts(),
                self.at(layout.rows),
                (&prompt.places).into(),
                prompt.inner.outputs.into(),
                (&scratch.wide).into(),
            ];
            device.launch(&kernels.prompt, [extent.rows, 1], &arguments)?;
            output = self.rows(&scratch.x, width);
            products.run(&prompt.outer, products.plain(), extent.rows, hidden, output)?;
        }
        let way = Way { result: Type::F32, ..products.plain() };
        let encoded = self.rows(&scratch.encoded, shape.joint);
        products.run(&params.decoder.joint_encoder, way, extent.rows, output, encoded)
    }
}
