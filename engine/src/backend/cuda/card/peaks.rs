// SPDX-License-Identifier: MPL-2.0
//! What a card can do at best, to compare a step with.

use std::sync::Arc;

use super::device::{Device, upload};
use super::products::{Matrix, Products};
use crate::backend::Peaks;
use crate::backend::cuda::sizes::Shape;
use crate::error::{Error, Result};

/// Times a large product and a large copy.
pub fn measure(device: &Arc<Device>, products: &mut Products, shape: &Shape) -> Result<Peaks> {
    const SIDE: usize = 8_192;
    const TIMES: usize = 10;
    let noise = |seed: u64| {
        let mut random = fastrand::Rng::with_seed(seed);
        let values: Vec<f32> = (0..SIDE * SIDE).map(|_| random.f32() - 0.5).collect();
        upload(device, shape.precision, &values)
    };
    let (x, y) = (noise(1)?, device.buffer(SIDE * SIDE * shape.size())?);
    let matrix = Matrix { weight: noise(2)?, scales: None, bias: None, outputs: SIDE, inputs: SIDE };
    let mut time = |work: &mut dyn FnMut(&mut Products) -> Result<()>| {
        work(products)?;
        let start = device.mark()?;
        for _ in 0..TIMES {
            work(products)?;
        }
        let end = device.mark()?;
        device.wait()?;
        Ok::<f64, Error>(start.until(&end)? / TIMES as f64)
    };
    let product = time(&mut |products: &mut Products| {
        products.run(&matrix, products.plain(), SIDE, (x.address, SIDE), (y.address, SIDE))
    })?;
    let copy = time(&mut |_| device.copy(&x, &y))?;
    Ok(Peaks { operations: 2.0 * (SIDE as f64).powi(3) / product, bytes: 2.0 * y.bytes as f64 / copy })
}
