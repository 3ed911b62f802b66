// SPDX-License-Identifier: MPL-2.0
//! Noise of a known loudness under a recording, the same every time.

use std::f32::consts::TAU;

use parakeet_engine::SAMPLE_RATE;
use rand_pcg::Pcg32;
use rand_pcg::rand_core::{Rng, SeedableRng};
use realfft::RealFftPlanner;
use realfft::num_complex::Complex;

/// The definition, for people who use the figures.
pub const DEFINITION: &str = "pink noise (power over frequency falls as 1/f from 50 Hz to 8 kHz), the same for the \
                              same place in a manifest. The ratio is that of the mean power of the active speech to \
                              the mean power of the noise; active are the pieces of 20 ms that are at most 30 dB \
                              weaker than the loudest";

/// Samples after which the noise repeats, 65.5 s.
const PERIOD: usize = 1 << 20;
/// Lowest frequency in Hz.
const LOWEST: f32 = 50.0;
/// Samples of a piece that is active or isn't, 20 ms.
const PIECE: usize = 320;
/// How much weaker than the loudest piece an active one may be, as a ratio of powers.
const ACTIVE: f64 = 1e-3;

/// Adds noise `decibels` below the speech in `pcm`; the noise is another for another `seed`. Silence stays silence.
pub fn add(pcm: &mut [f32], decibels: f64, seed: u64) {
    let noise = pink(pcm.len().next_power_of_two().min(PERIOD), seed);
    let wanted = active_power(pcm) / 10_f64.powf(decibels / 10.0);
    let present = power(noise.iter().cycle().take(pcm.len()));
    let gain = if present > 0.0 { (wanted / present).sqrt() as f32 } else { 0.0 };
    for (sample, noise) in pcm.iter_mut().zip(noise.iter().cycle()) {
        *sample += gain * noise;
    }
}

/// Mean power of the active speech.
fn active_power(pcm: &[f32]) -> f64 {
    let powers: Vec<f64> = pcm.chunks(PIECE).map(|piece| power(piece.iter())).collect();
    let least = powers.iter().copied().fold(0.0, f64::max) * ACTIVE;
    let active: Vec<f64> = powers.into_iter().filter(|&power| power >= least).collect();
    if active.is_empty() { 0.0 } else { active.iter().sum::<f64>() / active.len() as f64 }
}

fn power<'a>(samples: impl Iterator<Item = &'a f32>) -> f64 {
    let (sum, count) =
        samples.fold((0.0, 0_usize), |(sum, count), &x| (sum + f64::from(x).powi(2), count + 1));
    sum / count.max(1) as f64
}

/// A period of pink noise: a spectrum of known magnitudes and random phases.
fn pink(length: usize, seed: u64) -> Vec<f32> {
    let length = length.max(2);
    let mut random = Pcg32::seed_from_u64(seed);
    let fft = RealFftPlanner::<f32>::new().plan_fft_inverse(length);
    let mut spectrum = fft.make_input_vec();
    let bins = spectrum.len();
    // The first and the last bin of a real signal have no phase; they stay 0.
    for (bin, value) in spectrum.iter_mut().enumerate().take(bins - 1).skip(1) {
        let phase = TAU * (random.next_u32() as f32 / 2_f32.powi(32));
        let frequency = bin as f32 * SAMPLE_RATE as f32 / length as f32;
        if frequency >= LOWEST {
            *value = Complex::from_polar(frequency.sqrt().recip(), phase);
        }
    }
    let mut noise = fft.make_output_vec();
    // It fails only for buffers of the wrong length, which these can't be, or a first or last bin that isn't real.
    if fft.process(&mut spectrum, &mut noise).is_err() {
        noise.fill(0.0);
    }
    noise
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use realfft::RealFftPlanner;

    use super::*;

    /// A tone of half a second, then as much silence.
    fn tone(amplitude: f32) -> Vec<f32> {
        (0..16_000).map(|n| if n < 8_000 { amplitude * (n as f32 * 0.3).sin() } else { 0.0 }).collect()
    }

    #[test]
    fn silence_stays() {
        let mut pcm = vec![0.0; 5_000];
        add(&mut pcm, 5.0, 1);
        assert!(pcm.iter().all(|&x| x == 0.0));
        add(&mut [], 5.0, 1);
    }

    #[test]
    fn power_falls_with_frequency() {
        let mut noise = pink(1 << 16, 7);
        let fft = RealFftPlanner::<f32>::new().plan_fft_forward(noise.len());
        let mut spectrum = fft.make_output_vec();
        fft.process(&mut noise, &mut spectrum).unwrap();
        let band = |from: f32, to: f32| -> f32 {
            let bin = |f: f32| (f / 16_000.0 * 65_536.0) as usize;
            spectrum[bin(from)..bin(to)].iter().map(|x| x.norm_sqr()).sum()
        };
        let octaves: Vec<f32> =
            [(100.0, 200.0), (800.0, 1_600.0), (3_200.0, 6_400.0)].iter().map(|&(a, b)| band(a, b)).collect();
        assert!(octaves.iter().all(|o| (o / octaves[0] - 1.0).abs() < 0.05), "{octaves:?}");
        assert!(band(0.0, 45.0) < octaves[0] * 1e-6);
    }

    proptest! {
        #[test]
        fn ratio_is_as_asked(decibels in -10.0_f64..40.0, seed: u64, amplitude in 0.01_f32..0.9) {
            let clean = tone(amplitude);
            let mut noisy = clean.clone();
            add(&mut noisy, decibels, seed);
            let noise: Vec<f32> = noisy.iter().zip(&clean).map(|(a, b)| a - b).collect();
            // The silent half doesn't count as speech.
            let speech = power(clean[..8_000].iter());
            let ratio = 10.0 * (speech / power(noise.iter())).log10();
            prop_assert!((ratio - decibels).abs() < 0.05, "{ratio} dB");
            let mut again = clean;
            add(&mut again, decibels, seed);
            prop_assert_eq!(again, noisy);
        }
    }
}
