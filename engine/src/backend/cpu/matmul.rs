// SPDX-License-Identifier: MPL-2.0
//! Products of activations with weight matrices as they lie in the file: `y[m][n] = sum_k x[m][k] w[n][k]`.
//!
//! The library is `matrixmultiply`; weights in half precision are widened panel by panel into cache. With few rows that
//! costs more than the product itself, so processors with a [`Set`] of their own use that instead.

use half::slice::HalfFloatSliceExt;
use rayon::prelude::*;

use crate::model::TensorData;

use super::rows::Rows;
use super::simd::Set;

/// Weight rows widened at a time: 64 rows of 256 are 64 KiB, inside any L2 cache.
const PANEL: usize = 64;

/// Fewest rows that a thread of its own multiplies: below that it only reads the weights once more.
const LEAST_SHARE: usize = 32;

/// `y[m * y_stride + n] = x[m] . w[n]`, for `n` below `y_width`; `w` is any tensor flattened to `y_width` rows.
pub fn product(x: Rows<'_>, w: TensorData<'_>, y: &mut [f32], y_width: usize, y_stride: usize) {
    if x.count == 0 || y_width == 0 {
        return;
    }
    assert!(y_stride >= y_width && y.len() >= (x.count - 1) * y_stride + y_width);
    let share = x.count.div_ceil(rayon::current_num_threads()).next_multiple_of(4).max(LEAST_SHARE);
    if x.count > share {
        y.par_chunks_mut(share * y_stride).enumerate().for_each(|(index, y)| {
            let first = index * share;
            part(x.part(first..(first + share).min(x.count)), w, y, y_width, y_stride);
        });
    } else {
        part(x, w, y, y_width, y_stride);
    }
}

/// [`product`] on one thread.
fn part(x: Rows<'_>, w: TensorData<'_>, y: &mut [f32], y_width: usize, y_stride: usize) {
    match w {
        TensorData::F16(w) => {
            assert!(w.len() == y_width * x.width);
            if let Some(set) = Set::of(x.width) {
                return set.product_f16(x, w, y, y_width, y_stride);
            }
            let mut panel = vec![0.0; PANEL.min(y_width) * x.width];
            for first in (0..y_width).step_by(PANEL) {
                let count = PANEL.min(y_width - first);
                let wide = &mut panel[..count * x.width];
                w[first * x.width..][..wide.len()].convert_to_f32_slice(wide);
                library(x, Rows::dense(wide, x.width), &mut y[first..], y_stride);
            }
        }
        TensorData::F32(w) => product_f32(x, Rows::new(w, y_width, x.width, x.width), y, y_stride),
    }
}

/// The same with the second operand in single precision and rows of any stride.
pub fn product_f32(x: Rows<'_>, w: Rows<'_>, y: &mut [f32], y_stride: usize) {
    assert!(x.width == w.width);
    if x.count == 0 || w.count == 0 {
        return;
    }
    assert!(y_stride >= w.count && y.len() >= (x.count - 1) * y_stride + w.count);
    match Set::of(x.width) {
        Some(set) => set.product_f32(x, w, y, y_stride),
        None => library(x, w, y, y_stride),
    }
}

fn library(x: Rows<'_>, w: Rows<'_>, y: &mut [f32], y_stride: usize) {
    assert!(x.fit() && w.fit() && x.width == w.width && y.len() >= (x.count - 1) * y_stride + w.count);
    #[allow(unsafe_code)]
    // SAFETY: the line above checked that the pointers cover what counts and strides reach; `y` is borrowed mutably,
    // so it overlaps neither operand.
    unsafe {
        matrixmultiply::sgemm(
            x.count,
            x.width,
            w.count,
            1.0,
            x.data().as_ptr(),
            x.stride as isize,
            1,
            w.data().as_ptr(),
            1,
            w.stride as isize,
            0.0,
            y.as_mut_ptr(),
            y_stride as isize,
            1,
        );
    }
}

#[cfg(test)]
mod tests {
    use half::f16;

    use super::*;

    fn noise(len: usize, seed: u32) -> Vec<f32> {
        let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(1);
        (0..len)
            .map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 8) as f32 / (1 << 23) as f32 - 1.0
            })
            .collect()
    }

    /// Compares what `product` gives with sums in double precision, for every number of rows that it treats in a way
    /// of its own.
    fn compare(widths: [usize; 5], product: impl Fn(Rows<'_>, TensorData<'_>, &mut [f32], usize, usize)) {
        let mut compared = 0;
        for k in widths {
            for n in [1, 2, 3, 5, 64, 67, 130] {
                for m in [1, 2, 3, 4, 5, 6, 7, 8, 9, 14, 15, 33, 70] {
                    let (x, w) = (noise(m * k, 1), noise(n * k, 2));
                    let w16: Vec<f16> = w.iter().map(|&v| f16::from_f32(v)).collect();
                    let w: Vec<f32> = w16.iter().map(|v| v.to_f32()).collect();
                    let stride = n + 3;
                    for matrix in [TensorData::F16(&w16), TensorData::F32(&w)] {
                        let mut y = vec![f32::NAN; m * stride];
                        product(Rows::dense(&x, k), matrix, &mut y, n, stride);
                        for (i, row) in y.chunks_exact(stride).enumerate() {
                            for (j, &got) in row[..n].iter().enumerate() {
                                let terms = x[i * k..][..k].iter().zip(&w[j * k..][..k]);
                                let exact: f64 = terms.map(|(&a, &b)| f64::from(a) * f64::from(b)).sum();
                                let got = f64::from(got);
                                assert!((got - exact).abs() < 1e-4, "{m}x{n}x{k} at {i},{j}: {got} {exact}");
                                compared += 1;
                            }
                            assert!(
                                row[n..].iter().all(|v| v.is_nan()),
                                "{m}x{n}x{k}: wrote outside its columns"
                            );
                        }
                    }
                }
            }
        }
        assert_eq!(compared, 2 * 5 * 272 * 177);
    }

    #[test]
    fn every_path_equals_the_sum() {
        compare([8, 24, 30, 96, 256], product);
    }

    /// A processor with a wider set uses a narrower one for some widths only.
    #[test]
    fn every_set_of_this_processor_equals_the_sum() {
        for (set, widths) in [(Set::Avx2, [8, 24, 40, 96, 256]), (Set::Avx512, [16, 48, 80, 96, 256])] {
            if !set.supported() {
                println!("left out: {set:?}, which this processor doesn't have");
                continue;
            }
            compare(widths, |x, w, y, outputs, stride| match w {
                TensorData::F16(w) => set.product_f16(x, w, y, outputs, stride),
                TensorData::F32(w) => set.product_f32(x, Rows::new(w, outputs, x.width, x.width), y, stride),
            });
        }
    }
}
