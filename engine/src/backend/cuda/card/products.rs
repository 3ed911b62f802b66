// SPDX-License-Identifier: MPL-2.0
//! Matrix products on the card, planned once for each size.

use std::collections::HashMap;
use std::sync::Arc;

use super::device::{Buffer, Device};
use super::library::{Handle, Operands, Plan, Product, Type};
use crate::backend::cuda::sizes::{Shape, WORKSPACE, ladder, padded8};
use crate::error::{Error, Result};

/// Most rows of a product that may be cut along its sum: with few rows that is the only way to use the whole card.
const SPLIT_ROWS: usize = 384;

/// Rows in 8 bits (e4m3), and what each is to be multiplied by, in single precision.
pub struct Rows8 {
    pub values: Buffer,
    pub scales: Buffer,
}

/// A weight matrix `[outputs, inputs]` and its bias.
pub struct Matrix {
    /// In 8 bits (e4m3) if there are scales.
    pub weight: Buffer,
    /// What each output is to be multiplied by, in single precision.
    pub scales: Option<Buffer>,
    pub bias: Option<Buffer>,
    pub outputs: usize,
    pub inputs: usize,
}

/// How a product is to be done.
#[derive(Clone, Copy)]
pub struct Way {
    /// Type of the result.
    pub result: Type,
    /// Negative results become 0.
    pub relu: bool,
    /// Factor of the product.
    pub scale: f32,
    /// The result is added to what is there.
    pub add: bool,
}

/// Plans and the memory that they work in.
pub struct Products {
    device: Arc<Device>,
    handle: Handle,
    plans: HashMap<Product, Plan>,
    workspace: Buffer,
    operands: Type,
}

impl Products {
    /// For a model of this shape. Fails, saying what would do, where the library lacks the products that it needs.
    pub fn new(device: &Arc<Device>, shape: &Shape) -> Result<Self> {
        device.bind()?;
        let products = Self {
            device: device.clone(),
            handle: Handle::new()?,
            plans: HashMap::new(),
            workspace: device.buffer(WORKSPACE)?,
            operands: Type::of(shape.precision),
        };
        if shape.product8 {
            products.check8(shape.encoder.width)?;
        }
        Ok(products)
    }

    /// A product into values of the operands' type.
    pub fn plain(&self) -> Way {
        Way { result: self.operands, relu: false, scale: 1.0, add: false }
    }

    /// Enqueues `y = scale x w^T + bias` for `rows` rows, rounded up to [`ladder`]. `x` and `y` are addresses and the values
    /// from row to row.
    pub fn run(
        &mut self,
        matrix: &Matrix,
        way: Way,
        rows: usize,
        x: (u64, usize),
        y: (u64, usize),
    ) -> Result<()> {
        if rows == 0 {
            return Ok(());
        }
        let product = self.product(matrix, way, ladder(rows), (self.operands, x.1), y.1);
        self.enqueue(product, matrix, way, (x.0, 0), y.0)
    }

    /// As [`Products::run`] for a matrix in 8 bits, whose input has no gaps between its rows; their number is rounded up to
    /// [`padded8`] too.
    pub fn run8(&mut self, matrix: &Matrix, way: Way, rows: usize, x: &Rows8, y: (u64, usize)) -> Result<()> {
        if rows == 0 {
            return Ok(());
        }
        let rows = padded8(ladder(rows));
        let product = self.product(matrix, way, rows, (Type::E4m3, matrix.inputs), y.1);
        self.enqueue(product, matrix, way, (x.values.address, x.scales.address), y.0)
    }

    /// Fails where the library has no products in 8 bits with scales on this card.
    fn check8(&self, width: usize) -> Result<()> {
        let product = Product {
            rows: padded8(1),
            outputs: width,
            inputs: width,
            x_stride: width,
            y_stride: width,
            operands: Type::E4m3,
            result: self.operands,
            bias: true,
            relu: false,
            add: true,
        };
        let any = self.workspace.address;
        let operands = Operands { x: any, w: any, scales: [any; 2], bias: any, y: any };
        let planned = self.handle.plan(&product, operands, WORKSPACE, false);
        planned.map(|_| ()).map_err(|e| {
            let (major, minor) = self.device.card.capability;
            let reason = format!(
                "cuBLASLt has no products of 8 bits with a scale for each row on this card of compute capability \
                 {major}.{minor} (it has them for 9.0 since CUDA 12.9): use f16 ({e})"
            );
            Error::Option { option: "precision", reason }
        })
    }

    fn product(
        &self,
        matrix: &Matrix,
        way: Way,
        rows: usize,
        (operands, x_stride): (Type, usize),
        y_stride: usize,
    ) -> Product {
        Product {
            rows,
            outputs: matrix.outputs,
            inputs: matrix.inputs,
            x_stride,
            y_stride,
            operands,
            result: way.result,
            bias: matrix.bias.is_some(),
            relu: way.relu,
            add: way.add,
        }
    }

    fn enqueue(
        &mut self,
        product: Product,
        matrix: &Matrix,
        way: Way,
        (x, scales): (u64, u64),
        y: u64,
    ) -> Result<()> {
        let address = |buffer: &Option<Buffer>| buffer.as_ref().map_or(0, |buffer| buffer.address);
        let operands = Operands {
            x,
            w: matrix.weight.address,
            scales: [address(&matrix.scales), scales],
            bias: address(&matrix.bias),
            y,
        };
        let plan = match self.plans.entry(product) {
            std::collections::hash_map::Entry::Occupied(plan) => plan.into_mut(),
            std::collections::hash_map::Entry::Vacant(place) => {
                let split = product.rows <= SPLIT_ROWS;
                place.insert(self.handle.plan(&product, operands, WORKSPACE, split)?)
            }
        };
        let factors = [way.scale, f32::from(u8::from(way.add))];
        plan.run(operands, factors, (self.workspace.address, WORKSPACE), self.device.stream())
    }
}
