// SPDX-License-Identifier: MPL-2.0
//! Row-wise operations of a forward pass; vectorised by `rten-vecmath`.

use rten_simd::{SimdOp, SimdUnaryOp};
use rten_vecmath::{Normalize, NormalizeOptions, Sigmoid, Silu, Softmax, Sum, SumSquareSub};

use super::parts::Norm;
use crate::backend::constants::EPSILON;

/// LayerNorm of every row of `x` in place.
pub fn layer_norm(x: &mut [f32], norm: &Norm) {
    let width = norm.weight.len();
    for row in x.chunks_exact_mut(width) {
        let mean = Sum::new(row).dispatch() / width as f32;
        let variance = SumSquareSub::new(row, mean).dispatch() / width as f32;
        let options = NormalizeOptions {
            pre_scale_bias: mean,
            scale: 1.0 / (variance + EPSILON).sqrt(),
            element_scale: Some(&norm.weight),
            element_bias: Some(&norm.bias),
            ..NormalizeOptions::default()
        };
        Normalize::new_mut(row, options).dispatch();
    }
}

/// LayerNorm of the rows of `x` into `y`.
pub fn layer_norm_into(x: &[f32], norm: &Norm, y: &mut Vec<f32>) {
    y.clear();
    y.extend_from_slice(x);
    layer_norm(y, norm);
}

/// `x = x * weight + bias`, channel by channel.
pub fn scale_and_shift(x: &mut [f32], norm: &Norm) {
    for row in x.chunks_exact_mut(norm.weight.len()) {
        for ((x, w), b) in row.iter_mut().zip(&norm.weight).zip(&norm.bias) {
            *x = *x * w + b;
        }
    }
}

/// `x * sigmoid(x)` in place.
pub fn silu(x: &mut [f32]) {
    Silu {}.map_mut(x);
}

/// `max(x, 0)` in place.
pub fn relu(x: &mut [f32]) {
    x.iter_mut().for_each(|x| *x = x.max(0.0));
}

/// Gated linear unit: rows `[a | b]` of twice `width` become `a * sigmoid(b)`.
pub fn glu(x: &mut [f32], width: usize, y: &mut Vec<f32>) {
    y.clear();
    for row in x.chunks_exact_mut(2 * width) {
        let (a, b) = row.split_at_mut(width);
        Sigmoid {}.map_mut(b);
        y.extend(a.iter().zip(b.iter()).map(|(a, b)| *a * *b));
    }
}

/// `x += factor * y`.
pub fn add_scaled(x: &mut [f32], factor: f32, y: &[f32]) {
    x.iter_mut().zip(y).for_each(|(x, y)| *x += factor * *y);
}

/// Softmax in place.
pub fn softmax(x: &mut [f32]) {
    Softmax::new_mut(x).dispatch();
}

/// `1 / (1 + e^-x)` in place.
pub fn sigmoid(x: &mut [f32]) {
    Sigmoid {}.map_mut(x);
}
