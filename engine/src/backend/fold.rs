// SPDX-License-Identifier: MPL-2.0
//! What is done to a model's values once, on the host, before a device has them.

use super::constants::EPSILON;

/// A BatchNorm as one factor and one summand for each channel: `weight` and `bias` become those of
/// `factor * x + summand`, by the statistics `mean` and `variance`. All are `[channels]`.
pub fn batch_norm(weight: &mut [f32], bias: &mut [f32], mean: &[f32], variance: &[f32]) {
    let statistics = mean.iter().zip(variance);
    for ((factor, summand), (mean, variance)) in weight.iter_mut().zip(bias).zip(statistics) {
        *factor /= (variance + EPSILON).sqrt();
        *summand -= mean * *factor;
    }
}

/// Turns `[channels][count]`, as NeMo has convolution taps, into `[count][channels]`.
pub fn channels_last(values: &[f32], channels: usize) -> Vec<f32> {
    let count = values.len() / channels;
    (0..values.len()).map(|i| values[i % channels * count + i / channels]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_norm_is_a_factor_and_a_summand() {
        let (weight, bias) = ([2.0, -0.5, 1.0], [0.25, 3.0, 0.0]);
        let (mean, variance) = ([1.5, -2.0, 0.0], [4.0, 0.09, 1e-6]);
        let (mut factors, mut summands) = (weight, bias);
        batch_norm(&mut factors, &mut summands, &mean, &variance);
        for i in 0..3 {
            for x in [-3.0_f32, 0.0, 0.7] {
                let deviation = (f64::from(variance[i]) + 1e-5).sqrt();
                let expected = f64::from(x - mean[i]) / deviation * f64::from(weight[i]) + f64::from(bias[i]);
                let folded = f64::from(factors[i] * x + summands[i]);
                assert!((folded - expected).abs() <= 1e-6 * expected.abs().max(10.0), "{folded} {expected}");
            }
        }
    }

    #[test]
    fn taps_of_a_channel_become_channels_of_a_tap() {
        let by_channel = [10.0, 11.0, 12.0, 20.0, 21.0, 22.0];
        assert_eq!(channels_last(&by_channel, 2), [10.0, 20.0, 11.0, 21.0, 12.0, 22.0]);
        assert_eq!(channels_last(&by_channel, 6), by_channel);
        assert_eq!(channels_last(&channels_last(&by_channel, 2), 3), by_channel);
    }
}
