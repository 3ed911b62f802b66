// SPDX-License-Identifier: MPL-2.0
//! Steps of few rows: there a step is the time to read the weights once, and to start its kernels. Norms, products and
//! what follows them are one kernel each, and each begins to read its weights while the one before still works.

use super::encoder::NONE;
use super::pass::{Pass, bias};
use super::positions::Positions;
use crate::backend::cuda::card::{Argument, Matrix, SkinnyKernel};
use crate::backend::cuda::memory::Norm;
use crate::error::Result;

impl Pass<'_> {
    /// All layers, as [`Pass::enqueue_layers`]: false if the step has too many rows for that.
    pub fn enqueue_skinny_layers(&self, positions: &Positions) -> Result<bool> {
        let Some(skinny) = self.skinny(self.extent.rows).filter(|_| self.rings) else { return Ok(false) };
        let Self { params, scratch, shape, .. } = self;
        let (width, ff) = (shape.encoder.width, shape.encoder.ff_width);
        let (y, wide, qkv) = ((&scratch.y).into(), (&scratch.wide).into(), (&scratch.qkv).into());
        // What the first of two norms makes of the residual stream goes to the other of two places.
        let (mut x, mut other): (Argument, Argument) = ((&scratch.x).into(), (&scratch.spare).into());
        let mut before: Option<&Norm> = None;
        for (index, layer) in params.layers.iter().enumerate() {
            match before {
                None => self.norm_product(&skinny.norm_silu, x, &layer.norm_ff1, &layer.ff1[0], wide)?,
                Some(last) => {
                    let up = &layer.ff1[0];
                    let arguments = [
                        self.counts(),
                        x,
                        (&last.weight).into(),
                        (&last.bias).into(),
                        (&layer.norm_ff1.weight).into(),
                        (&layer.norm_ff1.bias).into(),
                        other,
                        (&up.weight).into(),
                        bias(up),
                        wide,
                    ];
                    skinny.norm_twice_silu.launch(self.device, self.extent.rows, ff, &arguments)?;
                    std::mem::swap(&mut x, &mut other);
                }
            }
            self.add_product(&skinny.add_ff, wide, &layer.ff1[1], 0.5, x)?;
            self.norm_product(&skinny.norm_3, x, &layer.norm_attention, &layer.qkv, qkv)?;
            self.attend(index, positions)?;
            self.add_product(&skinny.add, y, &layer.attention_out, 1.0, x)?;
            self.norm_product(&skinny.norm_2, x, &layer.norm_conv, &layer.pointwise1, wide)?;
            self.convolve(layer, index)?;
            self.add_product(&skinny.add, y, &layer.pointwise2, 1.0, x)?;
            self.norm_product(&skinny.norm_silu, x, &layer.norm_ff2, &layer.ff2[0], wide)?;
            self.add_product(&skinny.add_ff, wide, &layer.ff2[1], 0.5, x)?;
            before = Some(&layer.norm_out);
        }
        if let Some(last) = before {
            self.normalise(last, x, [y, NONE])?;
        }
        if params.prompt.is_some() {
            return Ok(true);
        }
        let out = &params.decoder.joint_encoder;
        let rows = self.row_count();
        let arguments = [
            rows,
            y,
            width.into(),
            (&out.weight).into(),
            bias(out),
            shape.joint.into(),
            (&scratch.encoded).into(),
        ];
        skinny.encoded.launch(self.device, self.extent.rows, shape.joint, &arguments)?;
        Ok(true)
    }

    fn norm_product(
        &self,
        kernel: &SkinnyKernel,
        x: Argument,
        norm: &Norm,
        matrix: &Matrix,
        y: Argument,
    ) -> Result<()> {
        let arguments = [
            self.counts(),
            x,
            (&norm.weight).into(),
            (&norm.bias).into(),
            (&matrix.weight).into(),
            bias(matrix),
            y,
        ];
        kernel.launch(self.device, self.extent.rows, matrix.outputs, &arguments)
    }

    fn add_product(
        &self,
        kernel: &SkinnyKernel,
        x: Argument,
        matrix: &Matrix,
        scale: f32,
        y: Argument,
    ) -> Result<()> {
        let arguments = [self.counts(), x, (&matrix.weight).into(), bias(matrix), Argument::Float(scale), y];
        kernel.launch(self.device, self.extent.rows, matrix.outputs, &arguments)
    }
}
