// SPDX-License-Identifier: MPL-2.0
//! Which instruction set of this processor the hot loops of [`super::kernel`] run with.

use std::sync::LazyLock;

use half::f16;

#[cfg(target_arch = "x86_64")]
use super::kernel;
use super::rows::Rows;

/// An instruction set that the hot loops are compiled for, the narrowest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Set {
    /// AVX2, FMA and F16C: vectors of 8.
    Avx2,
    /// AVX-512F and VL besides: vectors of 16.
    Avx512,
}

/// The widest that this processor has.
static WIDEST: LazyLock<Option<Set>> = LazyLock::new(widest);

#[cfg(target_arch = "x86_64")]
fn widest() -> Option<Set> {
    let avx2 = is_x86_feature_detected!("avx2")
        && is_x86_feature_detected!("fma")
        && is_x86_feature_detected!("f16c");
    let avx512 = is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512vl");
    avx2.then_some(if avx512 { Set::Avx512 } else { Set::Avx2 })
}

#[cfg(not(target_arch = "x86_64"))]
fn widest() -> Option<Set> {
    None
}

impl Set {
    /// The widest set of this processor for products of inner width `width`, if there is one.
    pub fn of(width: usize) -> Option<Self> {
        [Self::Avx512, Self::Avx2].into_iter().find(|set| set.takes(width))
    }

    /// Whether this processor has the set and the width is a whole number of its vectors.
    fn takes(self, width: usize) -> bool {
        let lanes = match self {
            Self::Avx2 => 8,
            Self::Avx512 => 16,
        };
        width.is_multiple_of(lanes) && Some(self) <= *WIDEST
    }

    /// `y[m * y_stride + n] = x[m] . w[n]` for `n < outputs`, weights dense. Panics where this processor lacks the set
    /// or the set doesn't take the width.
    pub fn product_f16(self, x: Rows<'_>, w: &[f16], y: &mut [f32], outputs: usize, y_stride: usize) {
        assert!(self.takes(x.width) && w.len() == outputs * x.width);
        #[cfg(target_arch = "x86_64")]
        #[allow(unsafe_code)]
        // SAFETY: `takes` found the features that the functions are compiled for.
        unsafe {
            match self {
                Self::Avx2 => kernel::avx2::from_f16::product(x, w, x.width, y, outputs, y_stride),
                Self::Avx512 => kernel::avx512::from_f16::product(x, w, x.width, y, outputs, y_stride),
            }
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = (y, y_stride);
    }

    /// The same for single precision with rows of any stride.
    pub fn product_f32(self, x: Rows<'_>, w: Rows<'_>, y: &mut [f32], y_stride: usize) {
        assert!(self.takes(x.width));
        #[cfg(target_arch = "x86_64")]
        #[allow(unsafe_code)]
        // SAFETY: `takes` found the features that the functions are compiled for.
        unsafe {
            match self {
                Self::Avx2 => kernel::avx2::from_f32::product(x, w.data(), w.stride, y, w.count, y_stride),
                Self::Avx512 => {
                    kernel::avx512::from_f32::product(x, w.data(), w.stride, y, w.count, y_stride)
                }
            }
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = (w, y, y_stride);
    }
}

/// `sums[i] += weights[i] * values[i]`.
pub fn multiply_add(sums: &mut [f32], weights: &[f32], values: &[f32]) {
    #[cfg(target_arch = "x86_64")]
    if let Some(set) = *WIDEST {
        #[allow(unsafe_code)]
        // SAFETY: `widest` found the features that the functions are compiled for.
        return unsafe {
            match set {
                Set::Avx2 => kernel::avx2::multiply_add(sums, weights, values),
                Set::Avx512 => kernel::avx512::multiply_add(sums, weights, values),
            }
        };
    }
    let terms = weights.iter().zip(values);
    sums.iter_mut().zip(terms).for_each(|(sum, (weight, value))| *sum += weight * value);
}

/// `sums[i] += weights[i] * value`.
pub fn multiply_add_one(sums: &mut [f32], weights: &[f32], value: f32) {
    #[cfg(target_arch = "x86_64")]
    if let Some(set) = *WIDEST {
        #[allow(unsafe_code)]
        // SAFETY: `widest` found the features that the functions are compiled for.
        return unsafe {
            match set {
                Set::Avx2 => kernel::avx2::multiply_add_one(sums, weights, value),
                Set::Avx512 => kernel::avx512::multiply_add_one(sums, weights, value),
            }
        };
    }
    sums.iter_mut().zip(weights).for_each(|(sum, weight)| *sum += weight * value);
}
