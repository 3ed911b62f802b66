// SPDX-License-Identifier: MPL-2.0
//! The kernels of `skinny.cu`, for products of few rows with what stands before and after them.

use std::sync::Arc;

use super::device::{Argument, Device, Kernel, Module};
use crate::backend::Precision;
use crate::backend::cuda::sizes::Shape;
use crate::error::Result;

/// Most rows that these kernels take.
pub const MOST_SKINNY_ROWS: usize = 16;

/// Threads of a block.
const THREADS: usize = 512;

/// One kernel of `skinny.cu` for up to 8 rows and for up to [`MOST_SKINNY_ROWS`], which differ in shared memory.
pub struct SkinnyKernel {
    kernels: [Kernel; 2],
    /// Tiles of 8 outputs that a block computes.
    tiles: usize,
}

/// The kernels of `skinny.cu`.
pub struct SkinnyKernels {
    pub norm_twice_silu: SkinnyKernel,
    pub norm_silu: SkinnyKernel,
    pub norm_3: SkinnyKernel,
    pub norm_2: SkinnyKernel,
    pub add_ff: SkinnyKernel,
    pub add: SkinnyKernel,
    pub encoded: SkinnyKernel,
    /// Where the decoder's widths suit them.
    pub decoder: Option<DecoderKernels>,
}

/// Those of the decoder.
pub struct DecoderKernels {
    pub joint: SkinnyKernel,
    pub predictor: SkinnyKernel,
    pub predictor_2: SkinnyKernel,
}

/// Tiles of a block that computes some of so many outputs.
fn tiles(outputs: usize) -> usize {
    outputs.div_ceil(1_024).min(4)
}

impl SkinnyKernel {
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
        Ok(Self { kernels: [kernel(8)?, kernel(MOST_SKINNY_ROWS)?], tiles })
    }

    /// Enqueues a product of `rows` rows with so many outputs.
    pub fn launch(&self, device: &Device, rows: usize, outputs: usize, arguments: &[Argument]) -> Result<()> {
        let kernel = &self.kernels[usize::from(rows > 8)];
        device.launch_as(kernel, [outputs.div_ceil(8 * self.tiles), 1], THREADS, arguments, true)
    }
}

impl SkinnyKernels {
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
            true => Some(DecoderKernels {
                joint: SkinnyKernel::new(module, "skinny_joint", joint, tiles(shape.logits()), 0)?,
                predictor: SkinnyKernel::new(module, "skinny_predictor", predictor, 2, 0)?,
                predictor_2: SkinnyKernel::new(module, "skinny_predictor_2", 2 * predictor, 2, 0)?,
            }),
            false => None,
        };
        Ok(Self {
            norm_twice_silu: SkinnyKernel::new(module, "skinny_norm_twice_silu", width, tiles(ff), 2)?,
            norm_silu: SkinnyKernel::new(module, "skinny_norm_silu", width, tiles(ff), 1)?,
            norm_3: SkinnyKernel::new(module, "skinny_norm_3", width, tiles(3 * width), 1)?,
            norm_2: SkinnyKernel::new(module, "skinny_norm_2", width, tiles(2 * width), 1)?,
            add_ff: SkinnyKernel::new(module, "skinny_add_ff", ff, tiles(width), 0)?,
            add: SkinnyKernel::new(module, "skinny_add", width, tiles(width), 0)?,
            encoded: SkinnyKernel::new(module, "skinny_encoded", width, 1, 0)?,
            decoder,
        })
    }
}
