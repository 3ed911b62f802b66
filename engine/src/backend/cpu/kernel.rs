// SPDX-License-Identifier: MPL-2.0
//! The hot loops for the instruction sets of x86-64; products straight from the weights' own layout and type.
//!
//! A streaming step multiplies 1 to 14 rows with every weight of the model, so its time is the time to read the
//! weights once. No library reads half-precision weights against single-precision rows; here a block of a few rows and
//! 3 weight rows lives in registers, as many rows as fit: AVX-512 has room for the 7 of a step of 560 ms, so that each
//! weight is widened once. Those weight rows lie far apart, so that memory is read in 3 or 4 runs at a time (twice as
//! fast as one here), and while they are summed those of the next panel are fetched.

/// Bytes of weights that are multiplied while the next so many are fetched: both fit into an L1 cache.
const PANEL: usize = 12 * 1024;
/// Rows that go through all weights together; 64 rows of 1,024 are 256 KiB, half an L2 cache.
const BLOCK: usize = 64;

/// The convolutions over single channels, for a set with these features.
macro_rules! channels {
    ($features:tt) => {
        /// See [`crate::backend::cpu::simd::weigh`].
        // All terms are added while the sums of four vectors of channels are in registers.
        #[target_feature(enable = $features)]
        pub fn weigh(bias: &[f32], terms: &[(&[f32], &[f32])], out: &mut [f32]) {
            let (blocks, rest) = out.as_chunks_mut::<{ 4 * LANES }>();
            let mut at = 0;
            for out in blocks {
                let mut sums = four(&bias[at..]);
                for (weights, values) in terms {
                    let weights = four(&weights[at..]);
                    let values = match values {
                        [value] => [splat(*value); 4],
                        _ => four(&values[at..]),
                    };
                    for i in 0..4 {
                        sums[i] = fmadd(weights[i], values[i], sums[i]);
                    }
                }
                for (out, sum) in out.as_chunks_mut().0.iter_mut().zip(sums) {
                    store(out, sum);
                }
                at += 4 * LANES;
            }
            for out in rest {
                let mut sum = bias[at];
                for (weights, values) in terms {
                    sum = weights[at].mul_add(values[at.min(values.len() - 1)], sum);
                }
                *out = sum;
                at += 1;
            }
        }

        /// The first four vectors.
        #[inline]
        #[target_feature(enable = $features)]
        fn four(x: &[f32]) -> [Vector; 4] {
            let x = &x.as_chunks().0[..4];
            [load(&x[0]), load(&x[1]), load(&x[2]), load(&x[3])]
        }
    };
}

/// The products with weights of both types, for a set with these features. Blocks of up to `ROWS` rows with 3 weight
/// rows, or 4 where there are at most 2 rows, must all be in the list.
macro_rules! products {
    ($features:tt; $($block:tt)*) => {
        product! { from_f16, f16, widen, $features; $($block)* }
        product! { from_f32, f32, load, $features; $($block)* }
    };
}

/// The product with weights of one type; `$load` gives `LANES` of them as a vector.
macro_rules! product {
    ($name:ident, $type:ty, $load:path, $features:tt; $(($rows:literal, $lanes:literal))*) => {
        pub mod $name {
            use std::ops::Range;

            use super::super::{BLOCK, PANEL};
            use super::*;
            use crate::backend::cpu::rows::Rows;

            /// Vectors of weights in a cache line.
            const LINE: usize = 64 / (LANES * size_of::<$type>());

            /// See [`crate::backend::cpu::simd::Set::product_f16`].
            #[target_feature(enable = $features)]
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
                    pass(x, rows, w, w_stride, y, outputs, y_stride);
                }
            }

            /// Takes the weights in 3 or 4 lanes, each a run of rows of its own: a processor reads several runs at a
            /// time much faster than one.
            #[target_feature(enable = $features)]
            fn pass(
                x: Rows<'_>,
                rows: Range<usize>,
                w: &[$type],
                w_stride: usize,
                y: &mut [f32],
                outputs: usize,
                y_stride: usize,
            ) {
                let lanes = if rows.len() <= 2 { 4 } else { 3 };
                let lane = outputs.div_ceil(lanes);
                let panel = (PANEL / (w_stride * size_of::<$type>() * lanes)).max(4);
                let blocks = rows.len().div_ceil(ROWS);
                for first in (0..lane).step_by(panel) {
                    let last = (first + panel).min(lane);
                    for block in 0..blocks {
                        let part = |block| rows.start + block * rows.len() / blocks;
                        let (row, end) = (part(block), part(block + 1));
                        let w = Lanes { w, w_stride, outputs, rows: first..last, panel, part: (block, blocks) };
                        let y = &mut y[(row - rows.start) * y_stride..];
                        match (end - row, lanes) {
                            $(($rows, $lanes) => w.times::<$rows, $lanes>(x, row, y, y_stride),)*
                            _ => unreachable!("the list has all blocks"),
                        }
                    }
                }
            }

            /// A panel of weights: the same rows of every lane.
            struct Lanes<'a> {
                w: &'a [$type],
                w_stride: usize,
                outputs: usize,
                rows: Range<usize>,
                /// Rows to look ahead.
                panel: usize,
                /// Which part of those this block of inputs fetches, and of how many.
                part: (usize, usize),
            }

            impl Lanes<'_> {
                /// Multiplies with `R` inputs from `row` on.
                #[target_feature(enable = $features)]
                fn times<const R: usize, const C: usize>(
                    &self,
                    x: Rows<'_>,
                    row: usize,
                    y: &mut [f32],
                    y_stride: usize,
                ) {
                    let Self { w, w_stride, outputs, panel, .. } = *self;
                    let mut inputs: [&[[f32; LANES]]; R] = [&[]; R];
                    for r in 0..R {
                        inputs[r] = x.row(row + r).as_chunks().0;
                    }
                    // Where lanes don't divide the outputs they overlap by a row.
                    let mut starts = [0; C];
                    for c in 0..C {
                        starts[c] = c * (outputs - outputs.div_ceil(C)) / (C - 1);
                    }
                    let (part, parts) = self.part;
                    for n in self.rows.clone() {
                        let mut weights: [&[[$type; LANES]]; C] = [&[]; C];
                        let mut ahead: [&[$type]; C] = [&[]; C];
                        for c in 0..C {
                            let start = (starts[c] + n) * w_stride;
                            weights[c] = w[start..][..x.width].as_chunks().0;
                            ahead[c] = &w[(start + panel * w_stride).min(w.len())..];
                        }
                        let sums = dot(weights, inputs, ahead, part, parts);
                        for first in (0..R * C).step_by(GROUP) {
                            let count = (R * C - first).min(GROUP);
                            let mut group = [zero(); GROUP];
                            for i in 0..count {
                                group[i] = sums[(first + i) / R][(first + i) % R];
                            }
                            let totals = totals(group);
                            for i in 0..count {
                                let (c, r) = ((first + i) / R, (first + i) % R);
                                y[r * y_stride + starts[c] + n] = totals[i];
                            }
                        }
                    }
                }
            }

            /// A vector of partial sums of every weight row with every row; meanwhile asks for every `parts`th line of
            /// `ahead`, evenly, so that neither the sums nor the memory wait.
            // Loops over arrays and no closures: a closure has the function's target features, but what it is
            // handed to does not, so neither would be inlined.
            #[inline]
            #[target_feature(enable = $features)]
            fn dot<const R: usize, const C: usize>(
                w: [&[[$type; LANES]]; C],
                x: [&[[f32; LANES]]; R],
                ahead: [&[$type]; C],
                part: usize,
                parts: usize,
            ) -> [[Vector; R]; C] {
                let mut sums = [[zero(); R]; C];
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
                            if let Some(line) = ahead[c].get(k * LANES) {
                                _mm_prefetch::<_MM_HINT_T0>((&raw const *line).cast());
                            }
                        }
                    }
                    let mut wide = [zero(); C];
                    for c in 0..C {
                        wide[c] = $load(&w[c][k]);
                    }
                    for r in 0..R {
                        let x = load(&x[r][k]);
                        for c in 0..C {
                            sums[c][r] = fmadd(wide[c], x, sums[c][r]);
                        }
                    }
                }
                sums
            }
        }
    };
}

/// 16 registers hold 4 rows with 3 weight rows.
pub mod avx2 {
    use core::arch::x86_64::{
        __m256 as Vector, _mm256_fmadd_ps as fmadd, _mm256_set1_ps as splat, _mm256_setzero_ps as zero, *,
    };

    use bytemuck::cast_ref;
    use half::f16;
    use safe_unaligned_simd::x86_64::{
        _mm_loadu_si128, _mm_storeu_ps, _mm256_loadu_ps as load, _mm256_storeu_ps as store,
    };

    /// Values in a vector.
    const LANES: usize = 8;
    /// Rows in a block.
    const ROWS: usize = 4;
    /// Vectors that [`totals`] adds up at a time.
    const GROUP: usize = 4;

    channels!("avx2,fma,f16c");
    products! { "avx2,fma,f16c"; (1, 4) (2, 4) (2, 3) (3, 3) (4, 3) }

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    fn widen(halves: &[f16; LANES]) -> Vector {
        _mm256_cvtph_ps(_mm_loadu_si128(cast_ref::<_, [u16; LANES]>(halves)))
    }

    /// The sum of each vector's values.
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    fn totals([a, b, c, d]: [Vector; GROUP]) -> [f32; GROUP] {
        let halves = _mm256_hadd_ps(_mm256_hadd_ps(a, b), _mm256_hadd_ps(c, d));
        let mut totals = [0.0; GROUP];
        _mm_storeu_ps(
            &mut totals,
            _mm_add_ps(_mm256_castps256_ps128(halves), _mm256_extractf128_ps::<1>(halves)),
        );
        totals
    }
}

/// 32 registers hold 8 rows with 3 weight rows.
pub mod avx512 {
    use core::arch::x86_64::{
        __m512 as Vector, _mm512_fmadd_ps as fmadd, _mm512_set1_ps as splat, _mm512_setzero_ps as zero, *,
    };

    use bytemuck::cast_ref;
    use half::f16;
    use safe_unaligned_simd::x86_64::{
        _mm256_loadu_si256, _mm512_loadu_ps as load, _mm512_storeu_ps as store,
    };

    /// Values in a vector.
    const LANES: usize = 16;
    /// Rows in a block.
    const ROWS: usize = 8;
    /// Vectors that [`totals`] adds up at a time.
    const GROUP: usize = 8;

    channels!("avx512f,avx512vl");
    products! { "avx512f,avx512vl"; (1, 4) (2, 4) (3, 3) (4, 3) (5, 3) (6, 3) (7, 3) (8, 3) }

    #[inline]
    #[target_feature(enable = "avx512f,avx512vl")]
    fn widen(halves: &[f16; LANES]) -> Vector {
        let halves = _mm256_loadu_si256(cast_ref::<_, [u16; LANES]>(halves));
        // `_mm512_cvtph_ps` suppresses exceptions, which costs a second instruction: that form can't read memory.
        _mm512_cvt_roundph_ps::<_MM_FROUND_CUR_DIRECTION>(halves)
    }

    /// The sum of each vector's values.
    // A tree that puts two vectors of partial sums into one at each level: letters are vectors, groups of four lanes.
    #[inline]
    #[target_feature(enable = "avx512f,avx512vl")]
    fn totals([a, b, c, d, e, f, g, h]: [Vector; GROUP]) -> [f32; GROUP] {
        let abcd = by_quarters(by_halves(a, b), by_halves(c, d));
        let efgh = by_quarters(by_halves(e, f), by_halves(g, h));
        let kept = _mm512_mask_blend_ps(0b1100_1100_1100_1100, abcd, efgh);
        let pairs = _mm512_add_ps(kept, _mm512_shuffle_ps::<0b01_00_11_10>(abcd, efgh));
        let sums = _mm512_add_ps(pairs, _mm512_permute_ps::<0b10_11_00_01>(pairs));
        let mut all = [0.0; LANES];
        store(&mut all, sums);
        [all[0], all[4], all[8], all[12], all[2], all[6], all[10], all[14]]
    }

    /// Two vectors as `aabb`: halves of each added up.
    #[inline]
    #[target_feature(enable = "avx512f,avx512vl")]
    fn by_halves(a: Vector, b: Vector) -> Vector {
        let kept = _mm512_mask_blend_ps(0xff00, a, b);
        _mm512_add_ps(kept, _mm512_shuffle_f32x4::<0b01_00_11_10>(a, b))
    }

    /// `aabb` and `ccdd` as `abcd`: quarters of each added up.
    #[inline]
    #[target_feature(enable = "avx512f,avx512vl")]
    fn by_quarters(aabb: Vector, ccdd: Vector) -> Vector {
        let even = _mm512_shuffle_f32x4::<0b10_00_10_00>(aabb, ccdd);
        _mm512_add_ps(even, _mm512_shuffle_f32x4::<0b11_01_11_01>(aabb, ccdd))
    }
}
