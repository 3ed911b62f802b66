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
        width.is_multiple_of(lanes) && self.supported()
    }

    /// Whether this processor has the set.
    pub fn supported(self) -> bool {
        Some(self) <= *WIDEST
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

    /// See [`weigh`].
    fn weigh(self, bias: &[f32], terms: &[(&[f32], &[f32])], out: &mut [f32]) {
        assert!(self.supported());
        #[cfg(target_arch = "x86_64")]
        #[allow(unsafe_code)]
        // SAFETY: `supported` found the features that the functions are compiled for.
        unsafe {
            match self {
                Self::Avx2 => kernel::avx2::weigh(bias, terms, out),
                Self::Avx512 => kernel::avx512::weigh(bias, terms, out),
            }
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = (bias, terms, out);
    }
}

/// `out[i] = bias[i] + sum of weights[i] * values[i]` over the terms `(weights, values)`, in their order; one value
/// stands for all channels.
pub fn weigh(bias: &[f32], terms: &[(&[f32], &[f32])], out: &mut [f32]) {
    match *WIDEST {
        Some(set) => set.weigh(bias, terms, out),
        None => weigh_anywhere(bias, terms, out),
    }
}

/// [`weigh`] for processors without a [`Set`].
fn weigh_anywhere(bias: &[f32], terms: &[(&[f32], &[f32])], out: &mut [f32]) {
    out.copy_from_slice(bias);
    for (weights, values) in terms {
        let sums = out.iter_mut().zip(*weights);
        match values {
            [value] => sums.for_each(|(sum, weight)| *sum += weight * value),
            _ => sums.zip(*values).for_each(|((sum, weight), value)| *sum += weight * value),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// For every number of channels around those that are added up together.
    fn compare(weigh: impl Fn(&[f32], &[(&[f32], &[f32])], &mut [f32])) {
        let numbers: Vec<f32> = (0..200).map(|i| (i * i % 97) as f32 / 97.0 - 0.5).collect();
        for channels in 1..150 {
            let each = |from: usize| &numbers[from..][..channels];
            let terms = [(each(7), each(3)), (each(11), &numbers[5..6]), (each(13), each(2))];
            for terms in [&terms[..], &terms[..0]] {
                let mut out = vec![f32::NAN; channels];
                weigh(each(0), terms, &mut out);
                for (i, got) in out.into_iter().enumerate() {
                    let value = |values: &[f32]| if values.len() == 1 { values[0] } else { values[i] };
                    let exact = terms.iter().fold(numbers[i], |sum, (w, values)| sum + w[i] * value(values));
                    assert!((got - exact).abs() < 1e-6, "{i} of {channels}: {got} {exact}");
                }
            }
        }
    }

    #[test]
    fn weighing_anywhere_equals_the_sum() {
        compare(weigh_anywhere);
    }

    #[test]
    fn weighing_with_every_set_of_this_processor_equals_the_sum() {
        for set in [Set::Avx2, Set::Avx512] {
            match set.supported() {
                true => compare(|bias, terms, out| set.weigh(bias, terms, out)),
                false => println!("left out: {set:?}, which this processor doesn't have"),
            }
        }
    }
}
