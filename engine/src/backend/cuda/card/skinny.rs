// SPDX-License-Identifier: MPL-2.0
//! The kernels of `skinny.cu`, for products of few rows with what stands before and after them.

use std::sync::Arc;

use super::device::{Argument, Device, Kernel, Module};
use crate::backend::cuda::failed;
use crate::backend::cuda::sizes::{Block, ROW_LIMITS, SKINNY_THREADS, Shape, SkinnyShape};
use crate::error::Result;

/// One kernel, for up to as many rows as each of [`ROW_LIMITS`] that the card takes, which differ in shared memory.
pub struct SkinnyKernel {
    kernels: Vec<Kernel>,
    /// Tiles of 8 outputs that a block computes.
    tiles: usize,
}

/// The kernels of `skinny.cu`.
pub struct SkinnyKernels {
    /// Most rows that they take.
    pub rows: usize,
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

impl SkinnyKernel {
    fn new(module: &Arc<Module>, shape: SkinnyShape, most: usize) -> Result<Self> {
        // The larger comes last: it sets what the function may ask for.
        let kernel = |rows| {
            let block = Block { threads: SKINNY_THREADS, shared: shape.bytes(rows) };
            module.kernel(shape.name, block)?.early()
        };
        let limits = ROW_LIMITS.into_iter().filter(|&rows| rows <= most);
        Ok(Self { kernels: limits.map(kernel).collect::<Result<_>>()?, tiles: shape.tiles })
    }

    /// Enqueues a product of `rows` rows with so many outputs.
    pub fn launch(&self, device: &Device, rows: usize, outputs: usize, arguments: &[Argument]) -> Result<()> {
        let fits = ROW_LIMITS.iter().position(|&limit| rows <= limit);
        let kernel = fits.and_then(|index| self.kernels.get(index));
        let kernel =
            kernel.ok_or_else(|| failed(format!("{rows} rows are too many for a skinny product")))?;
        device.launch_as(kernel, [outputs.div_ceil(8 * self.tiles), 1], arguments, true)
    }
}

impl SkinnyKernels {
    /// The kernels of a compiled `skinny.cu`, for up to `rows` rows.
    pub fn new(module: &Arc<Module>, shape: &Shape, rows: usize) -> Result<Self> {
        let [norm_twice_silu, norm_silu, norm_3, norm_2, add_ff, add, encoded, joint, predictor, predictor_2] =
            shape.skinny_shapes();
        let kernel = |shape| SkinnyKernel::new(module, shape, rows);
        let decoder = match shape.skinny_decoder() {
            true => Some(DecoderKernels {
                joint: kernel(joint)?,
                predictor: kernel(predictor)?,
                predictor_2: kernel(predictor_2)?,
            }),
            false => None,
        };
        Ok(Self {
            rows,
            norm_twice_silu: kernel(norm_twice_silu)?,
            norm_silu: kernel(norm_silu)?,
            norm_3: kernel(norm_3)?,
            norm_2: kernel(norm_2)?,
            add_ff: kernel(add_ff)?,
            add: kernel(add)?,
            encoded: kernel(encoded)?,
            decoder,
        })
    }
}
