// SPDX-License-Identifier: MPL-2.0
//! Samples of a stream as they come over the network, and when they came.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Makes samples of bytes, 16 kHz mono S16LE, wherever those are cut.
#[derive(Debug, Default)]
pub struct Samples {
    /// The first byte of a sample whose second is to come.
    half: Option<u8>,
}

impl Samples {
    /// The samples that these bytes complete, in [-1, 1).
    pub fn of(&mut self, bytes: &[u8]) -> Vec<f32> {
        let mut bytes = self.half.take().into_iter().chain(bytes.iter().copied());
        let mut samples = Vec::with_capacity(bytes.size_hint().0 / 2);
        while let Some(low) = bytes.next() {
            match bytes.next() {
                Some(high) => samples.push(f32::from(i16::from_le_bytes([low, high])) / 32_768.0),
                None => self.half = Some(low),
            }
        }
        samples
    }
}

/// When which sample came.
#[derive(Debug, Default)]
pub struct Arrivals {
    samples: u64,
    /// The sample after a piece, and when that came.
    pieces: VecDeque<(u64, Instant)>,
}

impl Arrivals {
    /// Another `samples` samples have come.
    pub fn come(&mut self, samples: usize, now: Instant) {
        self.samples += samples as u64;
        self.pieces.push_back((self.samples, now));
    }

    /// How long ago what ends at this sample came. Nobody will ask for what is before it.
    pub fn since(&mut self, sample: u64, now: Instant) -> Duration {
        self.forget_before(sample);
        // What ends beyond what came ends with that.
        self.pieces.front().map_or(Duration::ZERO, |(_, came)| now.saturating_duration_since(*came))
    }

    /// Nobody will ask for what is before this sample.
    pub fn forget_before(&mut self, sample: u64) {
        while self.pieces.len() > 1 && self.pieces.front().is_some_and(|(end, _)| *end < sample) {
            self.pieces.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_may_be_cut_anywhere() {
        let bytes = [0, 0, 0, 0x40, 0xff, 0xff, 0, 0x80];
        for cut in 0..=bytes.len() {
            let (before, after) = bytes.split_at(cut);
            let mut samples = Samples::default();
            let all = [samples.of(before), samples.of(after)].concat();
            assert_eq!(all, [0.0, 0.5, -1.0 / 32_768.0, -1.0], "{cut}");
        }
    }

    #[test]
    fn a_delay_is_from_when_the_piece_came() {
        let begin = Instant::now();
        let at = |ms| begin + Duration::from_millis(ms);
        let mut arrivals = Arrivals::default();
        assert_eq!(arrivals.since(0, begin), Duration::ZERO);
        (1..=3).for_each(|piece| arrivals.come(1_600, at(piece * 100)));
        assert_eq!(arrivals.since(1_600, at(500)), Duration::from_millis(400));
        assert_eq!(arrivals.since(1_601, at(500)), Duration::from_millis(300));
        assert_eq!(arrivals.since(4_800, at(500)), Duration::from_millis(200));
        assert_eq!(arrivals.since(9_600, at(500)), Duration::from_millis(200), "the last that came");
    }
}
