// SPDX-License-Identifier: MPL-2.0
//! Products on x86-64 with AVX2, FMA and F16C, straight from the weights' own layout and type.
//!
//! A streaming step multiplies 1 to 14 rows with every weight of the model, so its time is the time to read the
//! weights once. No library reads half-precision weights against single-precision rows; here a block of 4 rows and
//! 3 weight rows lives in registers. Those weight rows lie far apart, so that memory is read in 3 or 4 runs at a time
//! (twice as fast as one here), and while they are summed those of the next panel are fetched.

use half::f16;

use super::rows::Rows;

/// Whether this processor can be used.
#[cfg(target_arch = "x86_64")]
fn supported() -> bool {
    is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c")
}

/// Whether this processor can be used.
#[cfg(not(target_arch = "x86_64"))]
fn supported() -> bool {
    false
}

/// Whether this processor and this inner width can be used for a product.
pub fn available(width: usize) -> bool {
    width.is_multiple_of(8) && supported()
}

/// `sums[i] += weights[i] * values[i]`.
pub fn multiply_add(sums: &mut [f32], weights: &[f32], values: &[f32]) {
    #[cfg(target_arch = "x86_64")]
    if supported() {
        #[allow(unsafe_code)]
        // SAFETY: `supported` found the features that the function is compiled for.
        return unsafe { x86::multiply_add(sums, weights, values) };
    }
    let terms = weights.iter().zip(values);
    sums.iter_mut().zip(terms).for_each(|(sum, (weight, value))| *sum += weight * value);
}

/// `sums[i] += weights[i] * value`.
pub fn multiply_add_one(sums: &mut [f32], weights: &[f32], value: f32) {
    #[cfg(target_arch = "x86_64")]
    if supported() {
        #[allow(unsafe_code)]
        // SAFETY: `supported` found the features that the function is compiled for.
        return unsafe { x86::multiply_add_one(sums, weights, value) };
    }
    sums.iter_mut().zip(weights).for_each(|(sum, weight)| *sum += weight * value);
}

/// `y[m * y_stride + n] = x[m] . w[n]` for `n < outputs`, weights dense. Needs [`available`].
pub fn product_f16(x: Rows<'_>, w: &[f16], y: &mut [f32], outputs: usize, y_stride: usize) {
    assert!(available(x.width) && w.len() == outputs * x.width);
    #[cfg(target_arch = "x86_64")]
    #[allow(unsafe_code)]
    // SAFETY: `available` found the features that the function is compiled for.
    unsafe {
        x86::from_f16::product(x, w, x.width, y, outputs, y_stride);
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (y, y_stride);
}

/// The same for single precision with rows of any stride.
pub fn product_f32(x: Rows<'_>, w: Rows<'_>, y: &mut [f32], y_stride: usize) {
    assert!(available(x.width));
    #[cfg(target_arch = "x86_64")]
    #[allow(unsafe_code)]
    // SAFETY: `available` found the features that the function is compiled for.
    unsafe {
        x86::from_f32::product(x, w.data(), w.stride, y, w.count, y_stride);
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (w, y, y_stride);
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use core::arch::x86_64::*;

    use safe_unaligned_simd::x86_64 as memory;

    /// Bytes of weights that are multiplied while the next so many are fetched: both fit into an L1 cache.
    const PANEL: usize = 12 * 1024;
    /// Rows that go through all weights together; 64 rows of 1,024 are 256 KiB, half an L2 cache.
    const BLOCK: usize = 64;

    /// See [`super::multiply_add`].
    #[target_feature(enable = "avx2,fma,f16c")]
    pub fn multiply_add(sums: &mut [f32], weights: &[f32], values: &[f32]) {
        for ((sum, weight), value) in sums.iter_mut().zip(weights).zip(values) {
            *sum = weight.mul_add(*value, *sum);
        }
    }

    /// See [`super::multiply_add_one`].
    #[target_feature(enable = "avx2,fma,f16c")]
    pub fn multiply_add_one(sums: &mut [f32], weights: &[f32], value: f32) {
        for (sum, weight) in sums.iter_mut().zip(weights) {
            *sum = weight.mul_add(value, *sum);
        }
    }

    /// The same code for each weight type; `$load` widens 8 of them.
    macro_rules! kernel {
        ($name:ident, $type:ty, $load:expr) => {
            pub mod $name {
                use std::ops::Range;

                use super::*;
                use crate::backend::cpu::rows::Rows;

                /// Eights of weights in a cache line.
                const LINE: usize = 64 / (8 * size_of::<$type>());

                /// See [`crate::backend::cpu::avx2::product_f16`].
                #[target_feature(enable = "avx2,fma,f16c")]
                pub fn product(
                    x: Rows<'_>,
                    w: &[$type],
                    w_stride: usize,
                    y: &mut [f32],
                    outputs: usize,
                    y_stride: usize,
                ) {
                    for start in (0..x.count).step_by(BLOCK) {
                        let rows = start..(start + BLOCK).min(x.count);
                        let y = &mut y[start * y_stride..];
                        if rows.len() <= 2 {
                            lanes::<4>(x, rows, w, w_stride, y, outputs, y_stride);
                        } else {
                            lanes::<3>(x, rows, w, w_stride, y, outputs, y_stride);
                        }
                    }
                }

                /// Takes the weights in `C` lanes, each a run of rows of its own: a processor reads several runs at a
                /// time much faster than one.
                #[target_feature(enable = "avx2,fma,f16c")]
                fn lanes<const C: usize>(
                    x: Rows<'_>,
                    rows: Range<usize>,
                    w: &[$type],
                    w_stride: usize,
                    y: &mut [f32],
                    outputs: usize,
                    y_stride: usize,
                ) {
                    let lane = outputs / C;
                    let panel = (PANEL / (w_stride * size_of::<$type>() * C)).max(4);
                    let blocks = rows.len().div_ceil(4);
                    for first in (0..lane).step_by(panel) {
                        let last = (first + panel).min(lane);
                        for block in 0..blocks {
                            let part = |block| rows.start + block * rows.len() / blocks;
                            let (row, end) = (part(block), part(block + 1));
                            let w =
                                Lanes { w, w_stride, lane, rows: first..last, panel, part: (block, blocks) };
                            let y = &mut y[(row - rows.start) * y_stride..];
                            match end - row {
                                1 => w.times::<1, C>(x, row, y, y_stride),
                                2 => w.times::<2, C>(x, row, y, y_stride),
                                3 => w.times::<3, C>(x, row, y, y_stride),
                                _ => w.times::<4, C>(x, row, y, y_stride),
                            }
                        }
                    }
                    for n in lane * C..outputs {
                        for row in rows.clone() {
                            let weights = [w[n * w_stride..][..x.width].as_chunks().0];
                            let sums = dot(weights, [x.row(row).as_chunks().0], [&[]; 1], 0, 1);
                            store(sums, &mut y[(row - rows.start) * y_stride + n..], y_stride, 0);
                        }
                    }
                }

                /// A panel of weights: the same rows of every lane.
                struct Lanes<'a> {
                    w: &'a [$type],
                    w_stride: usize,
                    /// Rows from a lane's start to the next one's.
                    lane: usize,
                    rows: Range<usize>,
                    /// Rows to look ahead.
                    panel: usize,
                    /// Which part of those this block of inputs fetches, and of how many.
                    part: (usize, usize),
                }

                impl Lanes<'_> {
                    /// Multiplies with `R` inputs from `row` on.
                    #[target_feature(enable = "avx2,fma,f16c")]
                    fn times<const R: usize, const C: usize>(
                        &self,
                        x: Rows<'_>,
                        row: usize,
                        y: &mut [f32],
                        y_stride: usize,
                    ) {
                        let Self { w, w_stride, lane, panel, .. } = *self;
                        let mut inputs: [&[[f32; 8]]; R] = [&[]; R];
                        for r in 0..R {
                            inputs[r] = x.row(row + r).as_chunks().0;
                        }
                        let (part, parts) = self.part;
                        for n in self.rows.clone() {
                            let mut weights: [&[[$type; 8]]; C] = [&[]; C];
                            let mut ahead: [&[$type]; C] = [&[]; C];
                            for c in 0..C {
                                let start = (c * lane + n) * w_stride;
                                weights[c] = w[start..][..x.width].as_chunks().0;
                                ahead[c] = &w[(start + panel * w_stride).min(w.len())..];
                            }
                            let sums = dot(weights, inputs, ahead, part, parts);
                            store(sums, &mut y[n..], y_stride, lane);
                        }
                    }
                }

                /// Eight partial sums of every weight row with every row; meanwhile asks for every `parts`th line of
                /// `ahead`, evenly, so that neither the sums nor the memory wait.
                // Loops over arrays and no closures: a closure has the function's target features, but what it is
                // handed to does not, so neither would be inlined.
                #[inline]
                #[target_feature(enable = "avx2,fma,f16c")]
                fn dot<const R: usize, const C: usize>(
                    w: [&[[$type; 8]]; C],
                    x: [&[[f32; 8]]; R],
                    ahead: [&[$type]; C],
                    part: usize,
                    parts: usize,
                ) -> [[__m256; R]; C] {
                    let mut sums = [[_mm256_setzero_ps(); R]; C];
                    let steps = w[0].len();
                    for c in 0..C {
                        assert!(w[c].len() == steps);
                    }
                    for r in 0..R {
                        assert!(x[r].len() == steps);
                    }
                    let mut fetch = part * LINE;
                    for k in 0..steps {
                        if k == fetch {
                            fetch += parts * LINE;
                            for c in 0..C {
                                if let Some(line) = ahead[c].get(k * 8) {
                                    _mm_prefetch::<_MM_HINT_T0>((&raw const *line).cast());
                                }
                            }
                        }
                        let mut wide = [_mm256_setzero_ps(); C];
                        for c in 0..C {
                            wide[c] = $load(&w[c][k]);
                        }
                        for r in 0..R {
                            let x = memory::_mm256_loadu_ps(&x[r][k]);
                            for c in 0..C {
                                sums[c][r] = _mm256_fmadd_ps(wide[c], x, sums[c][r]);
                            }
                        }
                    }
                    sums
                }
            }
        };
    }

    kernel!(from_f16, half::f16, load_f16);
    kernel!(from_f32, f32, memory::_mm256_loadu_ps);

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    fn load_f16(halves: &[half::f16; 8]) -> __m256 {
        _mm256_cvtph_ps(memory::_mm_loadu_si128(bytemuck::cast_ref::<_, [u16; 8]>(halves)))
    }

    /// Adds up eight partial sums each and puts the totals into `y`, rows `y_stride` and lanes `lane` apart.
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    fn store<const R: usize, const C: usize>(
        sums: [[__m256; R]; C],
        y: &mut [f32],
        y_stride: usize,
        lane: usize,
    ) {
        for first in (0..R * C).step_by(4) {
            let count = (R * C - first).min(4);
            let mut four = [_mm256_setzero_ps(); 4];
            for i in 0..count {
                four[i] = sums[(first + i) / R][(first + i) % R];
            }
            let pairs = _mm256_hadd_ps(_mm256_hadd_ps(four[0], four[1]), _mm256_hadd_ps(four[2], four[3]));
            let totals = _mm_add_ps(_mm256_castps256_ps128(pairs), _mm256_extractf128_ps::<1>(pairs));
            let mut all = [0.0; 4];
            memory::_mm_storeu_ps(&mut all, totals);
            for i in 0..count {
                y[(first + i) % R * y_stride + (first + i) / R * lane] = all[i];
            }
        }
    }
}
