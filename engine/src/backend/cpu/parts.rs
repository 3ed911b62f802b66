// SPDX-License-Identifier: MPL-2.0
//! What layers are made of: products, norms and convolution taps, with their tensors.

use crate::backend::fold;
use crate::error::Result;
use crate::model::Weights;
use crate::model::weights::Stored;

use super::matmul::product;
use super::rows::Rows;

/// `y = x W^T + b`.
pub struct Linear {
    pub weight: Stored,
    pub bias: Option<Vec<f32>>,
    pub outputs: usize,
}

impl Linear {
    pub fn load(weights: &Weights, name: &str, shape: &[usize], bias: bool) -> Result<Self> {
        let weight = weights.stored(&format!("{name}.weight"), shape)?;
        let bias = bias.then(|| vector(weights, &format!("{name}.bias"), shape[0])).transpose()?;
        Ok(Self { weight, bias, outputs: shape[0] })
    }

    /// `x` is `[rows, inputs]`, `y` becomes `[rows, outputs]`.
    pub fn apply(&self, x: Rows<'_>, y: &mut Vec<f32>) {
        y.resize(x.count * self.outputs, 0.0);
        product(x, self.weight.data(), y, self.outputs, self.outputs);
        if let Some(bias) = &self.bias {
            for row in y.chunks_exact_mut(self.outputs) {
                row.iter_mut().zip(bias).for_each(|(y, b)| *y += b);
            }
        }
    }
}

/// LayerNorm, or BatchNorm folded into one factor and one summand per channel.
pub struct Norm {
    pub weight: Vec<f32>,
    pub bias: Vec<f32>,
}

impl Norm {
    pub fn load(weights: &Weights, name: &str, width: usize) -> Result<Self> {
        Ok(Self {
            weight: vector(weights, &format!("{name}.weight"), width)?,
            bias: vector(weights, &format!("{name}.bias"), width)?,
        })
    }

    pub fn load_batch(weights: &Weights, name: &str, width: usize) -> Result<Self> {
        let mut norm = Self::load(weights, name, width)?;
        let mean = vector(weights, &format!("{name}.running_mean"), width)?;
        let variance = vector(weights, &format!("{name}.running_var"), width)?;
        fold::batch_norm(&mut norm.weight, &mut norm.bias, &mean, &variance);
        Ok(norm)
    }
}

/// Taps of a convolution over single channels, `[tap][channel]`, and its bias (zeros where the model has none).
pub struct Taps {
    pub taps: Vec<f32>,
    pub bias: Vec<f32>,
}

impl Taps {
    /// From a tensor `[channels, 1, ...]`, whose taps follow each other channel by channel.
    pub fn load(weights: &Weights, name: &str, shape: &[usize], bias: bool) -> Result<Self> {
        let channels = shape[0];
        let by_channel = weights.tensor(&format!("{name}.weight"), shape)?.to_f32();
        let taps = fold::channels_last(&by_channel, channels);
        let bias =
            if bias { vector(weights, &format!("{name}.bias"), channels)? } else { vec![0.0; channels] };
        Ok(Self { taps, bias })
    }
}

/// A tensor of one dimension.
pub fn vector(weights: &Weights, name: &str, width: usize) -> Result<Vec<f32>> {
    Ok(weights.tensor(name, &[width])?.to_f32())
}
