// SPDX-License-Identifier: MPL-2.0
//! Matrix products on the card, planned once for each size.

use std::collections::HashMap;
use std::sync::Arc;

use super::device::{Buffer, Device};
use super::library::{Handle, Operands, Plan, Product, Type};
use crate::error::Result;

/// What cuBLASLt recommends for Hopper.
const WORKSPACE: usize = 32 << 20;

/// Most rows of a product that may be cut along its sum: with few rows that is the only way to use the whole card.
const SPLIT_ROWS: usize = 384;

/// Sizes that numbers of rows are rounded up to, so that few plans and recordings serve all batches. The surplus rows hold
/// anything, and nobody reads what becomes of them.
pub fn ladder(rows: usize) -> usize {
    const RUNGS: [usize; 18] = [1, 2, 4, 8, 16, 24, 32, 48, 64, 96, 128, 160, 192, 256, 320, 384, 448, 512];
    RUNGS
        .into_iter()
        .find(|&rung| rung >= rows)
        .unwrap_or_else(|| rows.next_multiple_of(if rows <= 2_048 { 128 } else { 256 }))
}

/// A weight matrix `[outputs, inputs]` and its bias.
pub struct Matrix {
    pub weight: Buffer,
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
    /// For operands of this type.
    pub fn new(device: &Arc<Device>, operands: Type) -> Result<Self> {
        device.bind()?;
        let workspace = device.buffer(WORKSPACE)?;
        Ok(Self {
            device: device.clone(),
            handle: Handle::new()?,
            plans: HashMap::new(),
            workspace,
            operands,
        })
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
        let product = Product {
            rows: ladder(rows),
            outputs: matrix.outputs,
            inputs: matrix.inputs,
            x_stride: x.1,
            y_stride: y.1,
            operands: self.operands,
            result: way.result,
            bias: matrix.bias.is_some(),
            relu: way.relu,
            add: way.add,
        };
        let plan = match self.plans.entry(product) {
            std::collections::hash_map::Entry::Occupied(plan) => plan.into_mut(),
            std::collections::hash_map::Entry::Vacant(place) => {
                place.insert(self.handle.plan(&product, WORKSPACE, product.rows <= SPLIT_ROWS, 1)?)
            }
        };
        let operands = Operands {
            x: x.0,
            w: matrix.weight.address,
            bias: matrix.bias.as_ref().map_or(0, |bias| bias.address),
            y: y.0,
        };
        let factors = [way.scale, f32::from(u8::from(way.add))];
        plan.run(operands, factors, (self.workspace.address, WORKSPACE), self.device.stream())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rungs_waste_little() {
        assert_eq!([1, 3, 17, 513, 2_049].map(ladder), [1, 4, 24, 640, 2_304]);
        for rows in 1..10_000 {
            let rung = ladder(rows);
            assert!(rung >= rows && ladder(rung) == rung, "{rows}: {rung}");
            assert!(rows < 33 || rung <= rows * 3 / 2, "{rows}: {rung}");
        }
    }
}
