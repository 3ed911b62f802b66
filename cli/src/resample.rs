// SPDX-License-Identifier: MPL-2.0
//! Mono audio of any rate to 16 kHz, without moving it in time.

use rubato::audioadapter_buffers::direct::InterleavedSlice;
use rubato::{Fft, FixedSync, Resampler};

/// Samples a second of what the engine takes.
pub const RATE: u32 = 16_000;

/// Highest input rate; FLAC's limit, far above what audio files have.
const MAX_RATE: u32 = 655_350;

/// Streaming sample rate conversion of one channel.
///
/// `n` samples in give exactly `round(n * 16000 / rate)` samples out, and output sample 0 is at the time of input
/// sample 0: the filter's delay is taken off. At 16 kHz samples pass unchanged.
pub struct To16k {
    rate: u32,
    filter: Option<Filter>,
    taken: u64,
    given: u64,
}

struct Filter {
    fft: Fft<f32>,
    input: Vec<f32>,
    output: Vec<f32>,
    /// Output samples of the filter's delay that are still to be dropped.
    delay: usize,
}

impl To16k {
    /// A converter from `rate` samples a second. The error says which rates there are.
    pub fn new(rate: u32) -> Result<Self, String> {
        if !(1..=MAX_RATE).contains(&rate) {
            return Err(format!("{rate} samples a second, expected 1 to {MAX_RATE}"));
        }
        let filter = (rate != RATE).then(|| Filter::new(rate)).transpose()?;
        Ok(Self { rate, filter, taken: 0, given: 0 })
    }

    /// Takes `samples` and appends to `out` what is complete.
    pub fn push(&mut self, samples: &[f32], out: &mut Vec<f32>) -> Result<(), String> {
        self.taken += samples.len() as u64;
        let before = out.len();
        match &mut self.filter {
            None => out.extend_from_slice(samples),
            Some(filter) => filter.push(samples, out)?,
        }
        self.given += (out.len() - before) as u64;
        Ok(())
    }

    /// Appends the rest, up to the time of the last input sample.
    pub fn finish(&mut self, out: &mut Vec<f32>) -> Result<(), String> {
        let Some(filter) = &mut self.filter else { return Ok(()) };
        let rate = u64::from(self.rate);
        let total = (self.taken * u64::from(RATE) + rate / 2) / rate;
        let start = out.len();
        let missing = total.saturating_sub(self.given) as usize;
        let silence = vec![0.0; filter.fft.input_frames_next()];
        while out.len() - start < missing {
            filter.push(&silence, out)?;
        }
        out.truncate(start + missing);
        self.given += missing as u64;
        Ok(())
    }
}

impl Filter {
    fn new(rate: u32) -> Result<Self, String> {
        // Whole periods of both rates, and an even number of them: with an odd block the filter's delay, half a
        // block, would fall between two samples.
        let period = rate / gcd(rate, RATE);
        let chunk = 1024usize.div_ceil(2 * period as usize) * 2 * period as usize;
        let fft =
            Fft::new(rate as usize, RATE as usize, chunk, 1, FixedSync::Both).map_err(|e| e.to_string())?;
        let delay = fft.output_delay();
        let output = vec![0.0; fft.output_frames_max()];
        Ok(Self { fft, input: Vec::new(), output, delay })
    }

    fn push(&mut self, samples: &[f32], out: &mut Vec<f32>) -> Result<(), String> {
        self.input.extend_from_slice(samples);
        let need = self.fft.input_frames_next();
        let mut used = 0;
        while self.input.len() - used >= need {
            let room = self.output.len();
            let input =
                InterleavedSlice::new(&self.input[used..used + need], 1, need).map_err(|e| e.to_string())?;
            let mut output =
                InterleavedSlice::new_mut(&mut self.output, 1, room).map_err(|e| e.to_string())?;
            let (taken, given) =
                self.fft.process_into_buffer(&input, &mut output, None).map_err(|e| e.to_string())?;
            used += taken;
            let skip = self.delay.min(given);
            self.delay -= skip;
            out.extend_from_slice(&self.output[skip..given]);
        }
        self.input.drain(..used);
        Ok(())
    }
}

fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATES: [u32; 9] = [8_000, 11_025, 22_050, 24_000, 32_000, 44_100, 44_101, 48_000, 96_000];

    fn convert(rate: u32, input: &[f32], piece: usize) -> Vec<f32> {
        let mut converter = To16k::new(rate).unwrap();
        let mut out = Vec::new();
        for part in input.chunks(piece) {
            converter.push(part, &mut out).unwrap();
        }
        converter.finish(&mut out).unwrap();
        out
    }

    #[test]
    fn length_is_exact() {
        for rate in RATES {
            for n in [0, 1, 2, 159, 1_000, 44_100, 70_001] {
                let expected = (n as f64 * 16_000.0 / f64::from(rate)).round() as usize;
                assert_eq!(convert(rate, &vec![0.1; n], 777).len(), expected, "{n} samples at {rate} Hz");
            }
        }
    }

    #[test]
    fn sine_keeps_amplitude_and_phase() {
        for rate in RATES {
            let sine = |i: usize, rate: u32| {
                (1_000.0 * std::f64::consts::TAU * i as f64 / f64::from(rate)).sin() * 0.5
            };
            let input: Vec<f32> = (0..rate as usize).map(|i| sine(i, rate) as f32).collect();
            let out = convert(rate, &input, 1_000);
            let worst =
                (1_000..15_000).map(|i| (f64::from(out[i]) - sine(i, RATE)).abs()).fold(0.0, f64::max);
            assert!(worst < 1e-3, "{rate} Hz is off by {worst}");
        }
    }

    #[test]
    fn impulse_stays_where_it_is() {
        for rate in RATES {
            let mut input = vec![0.0; rate as usize];
            input[rate as usize / 2] = 1.0;
            let out = convert(rate, &input, 4_096);
            let peak = (0..out.len()).max_by(|&a, &b| out[a].abs().total_cmp(&out[b].abs())).unwrap();
            assert!(peak.abs_diff(8_000) <= 1, "{rate} Hz: the peak is at {peak}");
        }
    }

    #[test]
    fn high_frequencies_do_not_fold() {
        // 12 kHz at 48 kHz.
        let input: Vec<f32> = (0..48_000).map(|i| [0.0, 1.0, 0.0, -1.0][i % 4]).collect();
        let out = convert(48_000, &input, 1_000);
        assert!(out[1_000..15_000].iter().all(|s| s.abs() < 1e-3));
    }

    #[test]
    fn pieces_do_not_matter() {
        let input: Vec<f32> = (0..30_000).map(|i| ((i * 7_919 % 1_000) as f32 / 1_000.0) - 0.5).collect();
        let whole = convert(44_100, &input, input.len());
        for piece in [1, 160, 4_097] {
            assert_eq!(convert(44_100, &input, piece), whole, "pieces of {piece}");
        }
    }

    #[test]
    fn native_rate_is_untouched() {
        let input: Vec<f32> = (-3..3).map(|i| i as f32 / 32_768.0).collect();
        assert_eq!(convert(RATE, &input, 2), input);
    }

    #[test]
    fn impossible_rates_are_refused() {
        assert!(To16k::new(0).is_err());
        assert!(To16k::new(u32::MAX).is_err());
    }
}
