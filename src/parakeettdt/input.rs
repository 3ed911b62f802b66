// SPDX-License-Identifier: MPL-2.0
//! Audio bytes to the samples that the engine takes, and what waits while there is no engine yet.

use gst_audio::AudioFormat;
use std::collections::VecDeque;

/// Decodes little-endian samples of `format` to [-1, 1], and counts those that were not numbers (they are silence).
pub fn decode(format: AudioFormat, bytes: &[u8]) -> (Vec<f32>, usize) {
    match format {
        AudioFormat::F32le => {
            let mut invalid = 0;
            let samples = bytes.as_chunks().0.iter().map(|bytes| {
                let sample = f32::from_le_bytes(*bytes);
                if sample.is_finite() {
                    return sample.clamp(-1.0, 1.0);
                }
                invalid += 1;
                0.0
            });
            (samples.collect(), invalid)
        }
        _ => {
            let samples =
                bytes.as_chunks().0.iter().map(|bytes| f32::from(i16::from_le_bytes(*bytes)) / 32_768.0);
            (samples.collect(), 0)
        }
    }
}

/// What the sink pad hands to the recogniser.
#[derive(Debug, PartialEq)]
pub enum Input {
    /// Samples at 16 kHz.
    Audio(Vec<f32>),
    /// The utterance is over.
    Finish,
}

/// Live input that waits for the model, bounded.
#[derive(Debug, Default)]
pub struct Backlog {
    inputs: VecDeque<Input>,
    samples: usize,
    dropped: u64,
}

impl Backlog {
    /// Adds input; beyond `limit` samples the oldest audio goes.
    pub fn push(&mut self, input: Input, limit: usize) {
        if let Input::Audio(pcm) = &input {
            self.samples += pcm.len();
        }
        self.inputs.push_back(input);
        self.drop_oldest(self.samples.saturating_sub(limit));
    }

    /// Gives up the oldest samples, so many at least if there are, in whole inputs.
    pub fn drop_oldest(&mut self, samples: usize) {
        let mut left = samples;
        while left > 0
            && let Some(oldest) = self.inputs.iter().position(|input| matches!(input, Input::Audio(_)))
            && let Some(Input::Audio(pcm)) = self.inputs.remove(oldest)
        {
            left = left.saturating_sub(pcm.len());
            self.samples -= pcm.len();
            self.dropped += pcm.len() as u64;
        }
    }

    /// Takes the oldest input.
    pub fn pop(&mut self) -> Option<Input> {
        let input = self.inputs.pop_front()?;
        if let Input::Audio(pcm) = &input {
            self.samples -= pcm.len();
        }
        Some(input)
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.inputs.is_empty()
    }

    /// Samples dropped so far, all of them before what is left.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_formats_give_the_same_samples() {
        let values = [0i16, 1, -1, 12_345, i16::MAX, i16::MIN];
        let s16: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        let f32: Vec<u8> =
            values.iter().flat_map(|value| (f32::from(*value) / 32_768.0).to_le_bytes()).collect();
        assert_eq!(decode(AudioFormat::S16le, &s16), decode(AudioFormat::F32le, &f32));
        assert_eq!(decode(AudioFormat::S16le, &s16).0[5], -1.0);
    }

    #[test]
    fn what_is_no_sample_is_silence() {
        let bytes: Vec<u8> = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 3.0]
            .iter()
            .flat_map(|value| value.to_le_bytes())
            .collect();
        assert_eq!(decode(AudioFormat::F32le, &bytes), (vec![0.0, 0.0, 0.0, 1.0], 3));
    }

    #[test]
    fn a_full_backlog_drops_the_oldest_audio_only() {
        let mut backlog = Backlog::default();
        for n in 0..4 {
            backlog.push(Input::Audio(vec![n as f32; 10]), 25);
            backlog.push(Input::Finish, 25);
        }
        assert_eq!(backlog.dropped(), 20);
        let left: Vec<_> = std::iter::from_fn(|| backlog.pop()).collect();
        assert_eq!(left.iter().filter(|input| **input == Input::Finish).count(), 4);
        assert_eq!(left[2], Input::Audio(vec![2.0; 10]));
        assert_eq!(left.len(), 6);
    }
}
