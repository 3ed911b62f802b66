// SPDX-License-Identifier: MPL-2.0
//! Streaming log-mel features, NeMo's `FilterbankFeatures` in pieces of any size.
//!
//! Frame `t` is centred on sample `160 t` and sees samples `160 t - 200 .. 160 t + 200`, zeros outside the signal
//! (`center=True, pad_mode="constant"`). A signal of `n` samples has `n / 160` frames. Every frame is computed from
//! the same samples in the same order however the signal was cut, so all splits give identical bits.

use std::sync::Arc;

use realfft::num_complex::Complex;
use realfft::{RealFftPlanner, RealToComplex};

use crate::model::config::FeaturesConfig;

/// Samples a second that every model of the family takes.
pub const SAMPLE_RATE: u32 = 16_000;
/// Samples between two mel frames (10 ms).
pub const HOP: usize = 160;
/// Samples that a mel frame sees: the length of its Hann window.
pub const HANN: usize = 400;
/// Samples of an encoder frame (80 ms).
pub const FRAME_SAMPLES: u64 = 8 * HOP as u64;
/// Samples that frame `t` needs beyond its centre `160 t`.
pub const HANN_AHEAD: usize = HANN / 2;

/// Points of the Fourier transform, in whose middle the window lies.
pub const FFT: usize = 512;
const BINS: usize = FFT / 2 + 1;
/// What of a sample is taken from the next.
pub const PREEMPHASIS: f32 = 0.97;
/// `log_zero_guard_value` of NeMo, 2^-24.
pub const LOG_GUARD: f32 = 1.0 / (1 << 24) as f32;
/// What is added to a bin's deviation where features are normalised.
pub const DEVIATION_GUARD: f64 = 1e-5;

/// Most samples that are taken at a time.
const PIECE: usize = 1 << 14;

/// Mel frames of `samples` samples: of a whole signal, or those that no later sample can change.
pub fn mel_frames(samples: usize, ended: bool) -> usize {
    if ended { samples / HOP } else { (samples + HOP).saturating_sub(HANN_AHEAD) / HOP }
}

/// Window, filterbank and FFT plan; one per model, shared by all streams.
pub struct LogMel {
    fft: Arc<dyn RealToComplex<f64>>,
    window: Vec<f64>,
    /// First FFT bin and weights of each triangle.
    filters: Vec<(usize, Vec<f32>)>,
}

/// Where one stream's features stand.
#[derive(Clone, Debug, Default)]
pub struct LogMelState {
    /// Pre-emphasised samples that later frames still see; the first one is sample `start`.
    pending: Vec<f32>,
    start: usize,
    last_sample: f32,
    samples: usize,
    frames: usize,
}

impl LogMelState {
    /// Mel frames given out so far.
    pub fn frames(&self) -> usize {
        self.frames
    }
}

impl LogMel {
    /// Prepares window, plan and the Slaney filterbank of `config.mel_bins` triangles.
    pub fn new(config: &FeaturesConfig) -> Self {
        let window = (0..HANN)
            .map(|n| 0.5 - 0.5 * (std::f64::consts::TAU * n as f64 / (HANN - 1) as f64).cos())
            .collect();
        Self {
            fft: RealFftPlanner::new().plan_fft_forward(FFT),
            window,
            filters: slaney_filters(config.sample_rate, config.mel_bins),
        }
    }

    /// The Hann window's [`HANN`] weights.
    pub(crate) fn window(&self) -> &[f64] {
        &self.window
    }

    /// First FFT bin and weights of each triangle.
    pub(crate) fn filters(&self) -> &[(usize, Vec<f32>)] {
        &self.filters
    }

    /// Mel bins of a frame.
    pub fn bins(&self) -> usize {
        self.filters.len()
    }

    /// Takes `pcm` (16 kHz mono, in [-1, 1]) and appends every frame that is complete now to `out`,
    /// `bins()` values each.
    pub fn push(&self, state: &mut LogMelState, pcm: &[f32], out: &mut Vec<f32>) {
        // In pieces, so that a long signal isn't held twice.
        pcm.chunks(PIECE).for_each(|pcm| self.push_piece(state, pcm, out));
    }

    fn push_piece(&self, state: &mut LogMelState, pcm: &[f32], out: &mut Vec<f32>) {
        for &x in pcm {
            let emphasised = if state.samples == 0 { x } else { x - PREEMPHASIS * state.last_sample };
            state.pending.push(emphasised);
            state.last_sample = x;
            state.samples += 1;
        }
        while state.frames < mel_frames(state.samples, false) {
            self.frame(state, out);
        }
        let seen = (state.frames * HOP).saturating_sub(HANN / 2).min(state.samples);
        state.pending.drain(..seen - state.start);
        state.start = seen;
    }

    /// Ends the signal: appends the frames whose window reaches beyond its last sample.
    pub fn finish(&self, state: &mut LogMelState, out: &mut Vec<f32>) {
        while state.frames < mel_frames(state.samples, true) {
            self.frame(state, out);
        }
    }

    fn frame(&self, state: &mut LogMelState, out: &mut Vec<f32>) {
        let mut input = [0.0; FFT];
        let mut spectrum = [Complex::default(); BINS];
        let mut scratch = [Complex::default(); FFT];
        let offset = (FFT - HANN) / 2;
        for (n, weight) in self.window.iter().enumerate() {
            let sample = (state.frames * HOP + n).checked_sub(HANN / 2);
            let value = sample.and_then(|s| s.checked_sub(state.start)).and_then(|i| state.pending.get(i));
            input[offset + n] = value.map_or(0.0, |&v| f64::from(v) * weight);
        }
        let scratch = &mut scratch[..self.fft.get_scratch_len()];
        // Fails only on wrong lengths, and all three come from the plan's own size.
        let _ = self.fft.process_with_scratch(&mut input, &mut spectrum, scratch);
        let power = spectrum.map(|c| c.norm_sqr() as f32);
        for (first, weights) in &self.filters {
            let energy: f32 = weights.iter().zip(&power[*first..]).map(|(w, p)| w * p).sum();
            out.push((energy + LOG_GUARD).ln());
        }
        state.frames += 1;
    }
}

/// NeMo's `per_feature`: subtracts each bin's mean and divides by its deviation (N-1) plus 1e-5, over all frames.
pub fn normalize_per_feature(frames: &mut [f32], bins: usize) {
    let count = frames.len() / bins;
    for bin in 0..bins {
        let values = || frames.iter().skip(bin).step_by(bins).map(|&v| f64::from(v));
        let mean = values().sum::<f64>() / count as f64;
        let square: f64 = values().map(|v| (v - mean) * (v - mean)).sum();
        // One frame has no deviation: NeMo turns the resulting NaN into 0.
        let deviation = if count > 1 { (square / (count - 1) as f64).sqrt() } else { 0.0 } + DEVIATION_GUARD;
        for v in frames.iter_mut().skip(bin).step_by(bins) {
            *v = ((f64::from(*v) - mean) / deviation) as f32;
        }
    }
}

/// `librosa.filters.mel(htk=False, norm="slaney")` from 0 to half the rate, as sparse rows.
fn slaney_filters(sample_rate: u32, mel_bins: usize) -> Vec<(usize, Vec<f32>)> {
    const LINEAR: f64 = 200.0 / 3.0;
    let log_step = 6.4_f64.ln() / 27.0;
    let to_hz = |mel: f64| if mel < 15.0 { mel * LINEAR } else { 1000.0 * (log_step * (mel - 15.0)).exp() };
    let nyquist = f64::from(sample_rate) / 2.0;
    let top = 15.0 + (nyquist / 1000.0).ln() / log_step;
    let points: Vec<f64> = (0..mel_bins + 2).map(|i| to_hz(top * i as f64 / (mel_bins + 1) as f64)).collect();
    points
        .windows(3)
        .map(|p| {
            let area = 2.0 / (p[2] - p[0]);
            let weight = |bin: usize| {
                let hz = nyquist * bin as f64 / (BINS - 1) as f64;
                let rise = (hz - p[0]) / (p[1] - p[0]);
                let fall = (p[2] - hz) / (p[2] - p[1]);
                (rise.min(fall).max(0.0) * area) as f32
            };
            let first = (0..BINS).find(|&b| weight(b) > 0.0).unwrap_or(0);
            let weights = (first..BINS).map(weight).take_while(|&w| w > 0.0).collect();
            (first, weights)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::config::Normalize;

    fn signal(samples: usize) -> Vec<f32> {
        let mut state = 7_u32;
        (0..samples)
            .map(|n| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (n as f32 * 0.05).sin() * 0.3 + (state >> 8) as f32 / (1 << 26) as f32
            })
            .collect()
    }

    fn mel(bins: usize) -> LogMel {
        LogMel::new(&FeaturesConfig { sample_rate: SAMPLE_RATE, mel_bins: bins, normalize: Normalize::None })
    }

    fn features(mel: &LogMel, pieces: &[&[f32]]) -> Vec<f32> {
        let (mut state, mut out) = (LogMelState::default(), Vec::new());
        for piece in pieces {
            mel.push(&mut state, piece, &mut out);
        }
        mel.finish(&mut state, &mut out);
        assert_eq!(out.len(), state.frames() * mel.bins());
        assert!(state.pending.len() <= HANN + HOP, "nothing is kept that no frame sees");
        out
    }

    #[test]
    fn every_split_gives_identical_frames() {
        let mel = mel(80);
        let signal = signal(5_321);
        let whole = features(&mel, &[&signal]);
        assert_eq!(whole.len(), 5_321 / 160 * 80);
        for size in [1, 7, 159, 160, 161, 200, 399, 400, 401, 1_280, 5_320] {
            let pieces: Vec<&[f32]> = signal.chunks(size).collect();
            assert!(features(&mel, &pieces) == whole, "pieces of {size}");
        }
        let mut state = 1_u32;
        for _ in 0..50 {
            let mut rest = &signal[..];
            let mut pieces = Vec::new();
            while !rest.is_empty() {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                let (piece, later) = rest.split_at(((state >> 16) as usize % 700).min(rest.len()));
                pieces.push(piece);
                rest = later;
            }
            assert!(features(&mel, &pieces) == whole, "random pieces");
        }
    }

    #[test]
    fn short_signals_and_silence() {
        let mel = mel(128);
        for samples in [0, 1, 159] {
            assert!(features(&mel, &[&vec![0.1; samples]]).is_empty(), "{samples} samples have no frame");
        }
        let silence = features(&mel, &[&vec![0.0; 1_600]]);
        assert_eq!(silence.len(), 10 * 128);
        assert!(silence.iter().all(|&v| (v - -16.635_532).abs() < 1e-5), "log of the guard");
    }
}
