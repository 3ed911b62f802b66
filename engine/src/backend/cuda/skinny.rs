// SPDX-License-Identifier: MPL-2.0
//! Steps of few rows: there a step is the time to read the weights once, and to start its kernels. Norms, products and
//! what follows them are one kernel each, and each begins to read its weights while the one before still works.

use super::device::{Argument, Kernel, Module};
use super::encoder::{NONE, Positions, Step};
use super::params::Norm;
use super::products::Matrix;
use super::shape::Shape;
use crate::backend::Precision;
use crate::error::Result;
use std::sync::Arc;

/// Most rows that these kernels take.
pub const MOST_ROWS: usize = 16;

/// Threads of a block.
const THREADS: usize = 512;

/// One kernel of `skinny.cu` for up to 8 rows and for up to [`MOST_ROWS`], which differ in shared memory.
pub struct Few {
    kernels: [Kernel; 2],
    /// Tiles of 8 outputs that a block computes.
    tiles: usize,
}

/// The kernels of `skinny.cu`.
pub struct Skinny {
    norm_twice_silu: Few,
    norm_silu: Few,
    norm_3: Few,
    norm_2: Few,
    add_ff: Few,
    add: Few,
    encoded: Few,
    /// Where the decoder's widths suit them.
    decoder: Option<Decoder>,
}

/// Those of the decoder.
struct Decoder {
    joint: Few,
    predictor: Few,
    predictor_2: Few,
}

/// Tiles of a block that computes some of so many outputs.
fn tiles(outputs: usize) -> usize {
    outputs.div_ceil(1_024).min(4)
}

impl Few {
    /// `norms` come before the product.
    fn new(module: &Arc<Module>, name: &str, inputs: usize, tiles: usize, norms: usize) -> Result<Self> {
        let shared = |rows: usize| {
            let sums = THREADS * rows * (tiles | 1);
            match norms {
                0 => sums + 1_024 * rows * inputs.div_ceil(512).min(8 / tiles),
                _ => sums.max(norms * 8 * inputs) + rows * (2 * inputs + 64),
            }
        };
        // The larger comes last: it sets what the function may ask for.
        let kernel = |rows| module.early_kernel(name, shared(rows));
        Ok(Self { kernels: [kernel(8)?, kernel(MOST_ROWS)?], tiles })
    }

    fn launch(&self, step: &Step<'_>, rows: usize, outputs: usize, arguments: &[Argument]) -> Result<()> {
        let kernel = &self.kernels[usize::from(rows > 8)];
        step.device.launch_early(kernel, [outputs.div_ceil(8 * self.tiles), 1], THREADS, arguments)
    }
}

impl Skinny {
    /// Whether the model's sizes suit these kernels, on a card that gives a block so much shared memory.
    pub fn suits(shape: &Shape, shared_memory: usize) -> bool {
        const LARGEST: usize = 139 << 10;
        let widths = [shape.encoder.width, shape.encoder.ff_width];
        shape.precision != Precision::F32
            // They read weights of 16 bits.
            && !shape.product8
            && shape.left > 0
            && widths.iter().all(|width| width.is_multiple_of(64))
            && shape.encoder.ff_width <= 4_096
            && shared_memory >= LARGEST
    }

    /// The kernels of a compiled `skinny.cu`.
    pub fn new(module: &Arc<Module>, shape: &Shape) -> Result<Self> {
        let (width, ff, joint, predictor) =
            (shape.encoder.width, shape.encoder.ff_width, shape.joint, shape.predictor);
        let decoder = match predictor.is_multiple_of(32) && joint.is_multiple_of(32) {
            true => Some(Decoder {
                joint: Few::new(module, "skinny_joint", joint, tiles(shape.logits()), 0)?,
                predictor: Few::new(module, "skinny_predictor", predictor, 2, 0)?,
                predictor_2: Few::new(module, "skinny_predictor_2", 2 * predictor, 2, 0)?,
            }),
            false => None,
        };
        Ok(Self {
            norm_twice_silu: Few::new(module, "skinny_norm_twice_silu", width, tiles(ff), 2)?,
            norm_silu: Few::new(module, "skinny_norm_silu", width, tiles(ff), 1)?,
            norm_3: Few::new(module, "skinny_norm_3", width, tiles(3 * width), 1)?,
            norm_2: Few::new(module, "skinny_norm_2", width, tiles(2 * width), 1)?,
            add_ff: Few::new(module, "skinny_add_ff", ff, tiles(width), 0)?,
            add: Few::new(module, "skinny_add", width, tiles(width), 0)?,
            encoded: Few::new(module, "skinny_encoded", width, 1, 0)?,
            decoder,
        })
    }
}

/// A product in single precision of the decoder.
#[derive(Clone, Copy)]
pub enum Precise {
    Joint,
    Predictor,
    /// Of two widths.
    Predictor2,
}

impl Step<'_> {
    /// Whether the step's layers are kernels that start early, each before the one ahead is through.
    pub fn starts_early(&self) -> bool {
        self.rings && self.few(self.extent.rows).is_some()
    }

    /// The kernels for this many rows, if there are.
    fn few(&self, rows: usize) -> Option<&Skinny> {
        self.kernels.skinny.as_ref().filter(|_| rows <= MOST_ROWS)
    }

    /// All layers, as [`Step::enqueue_layers`]: false if the step has too many rows for that.
    pub fn enqueue_few_layers(&self, positions: &Positions) -> Result<bool> {
        let Some(few) = self.few(self.extent.rows).filter(|_| self.starts_early()) else { return Ok(false) };
        let Self { params, scratch, shape, .. } = self;
        let (width, ff) = (shape.encoder.width, shape.encoder.ff_width);
        let (y, wide, qkv) = ((&scratch.y).into(), (&scratch.wide).into(), (&scratch.qkv).into());
        // What the first of two norms makes of the residual stream goes to the other of two places.
        let (mut x, mut other): (Argument, Argument) = ((&scratch.x).into(), (&scratch.spare).into());
        let mut before: Option<&Norm> = None;
        for (index, layer) in params.layers.iter().enumerate() {
            match before {
                None => self.norm_product(&few.norm_silu, x, &layer.norm_ff1, &layer.ff1[0], wide)?,
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
                    few.norm_twice_silu.launch(self, self.extent.rows, ff, &arguments)?;
                    std::mem::swap(&mut x, &mut other);
                }
            }
            self.add_product(&few.add_ff, wide, &layer.ff1[1], 0.5, x)?;
            self.norm_product(&few.norm_3, x, &layer.norm_attention, &layer.qkv, qkv)?;
            self.attend(index, positions)?;
            self.add_product(&few.add, y, &layer.attention_out, 1.0, x)?;
            self.norm_product(&few.norm_2, x, &layer.norm_conv, &layer.pointwise1, wide)?;
            self.convolve(layer, index)?;
            self.add_product(&few.add, y, &layer.pointwise2, 1.0, x)?;
            self.norm_product(&few.norm_silu, x, &layer.norm_ff2, &layer.ff2[0], wide)?;
            self.add_product(&few.add_ff, wide, &layer.ff2[1], 0.5, x)?;
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
        few.encoded.launch(self, self.extent.rows, shape.joint, &arguments)?;
        Ok(true)
    }

    fn norm_product(
        &self,
        kernel: &Few,
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
        kernel.launch(self, self.extent.rows, matrix.outputs, &arguments)
    }

    fn add_product(&self, kernel: &Few, x: Argument, matrix: &Matrix, scale: f32, y: Argument) -> Result<()> {
        let arguments = [self.counts(), x, (&matrix.weight).into(), bias(matrix), Argument::Float(scale), y];
        kernel.launch(self, self.extent.rows, matrix.outputs, &arguments)
    }

    /// A product of the decoder: false if the step has too many items, or widths that these kernels don't take.
    pub fn enqueue_few(&self, which: Precise, matrix: &Matrix, x: (u64, usize), y: u64) -> Result<bool> {
        let items = self.extent.items;
        let Some(decoder) = self.few(items).and_then(|few| few.decoder.as_ref()) else { return Ok(false) };
        let kernel = match which {
            Precise::Joint => &decoder.joint,
            Precise::Predictor => &decoder.predictor,
            Precise::Predictor2 => &decoder.predictor_2,
        };
        // The number of items comes first among the counts.
        let arguments = [
            self.counts(),
            x.0.into(),
            x.1.into(),
            (&matrix.weight).into(),
            bias(matrix),
            matrix.outputs.into(),
            y.into(),
        ];
        kernel.launch(self, items, matrix.outputs, &arguments)?;
        Ok(true)
    }
}

fn bias(matrix: &Matrix) -> Argument {
    matrix.bias.as_ref().map_or(Argument::Address(0), Argument::from)
}
