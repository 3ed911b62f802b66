// SPDX-License-Identifier: MPL-2.0
//! How loud an utterance was, and where in it a sound begins.

use std::collections::VecDeque;

use super::features::SAMPLE_RATE;

/// Samples of a level: 10 ms.
const FRAME: usize = SAMPLE_RATE as usize / 100;
/// Levels before a stretch that tell how quiet it was: 0.1 s.
const BEFORE: usize = 10;
/// Mean square of what is silent beside any sound: -75 dBFS.
const SILENCE: f32 = 3.2e-8;
/// Share of the loudest level from which on a sound is heard: 20 dB below it.
const AUDIBLE: f32 = 1e-2;
/// The least rise from the quietest to the loudest level that is the beginning of a sound: 15 dB.
const RISE: f32 = 31.6;

/// Mean squares of 10 ms each, of the last part of an utterance.
#[derive(Clone, Debug, Default)]
pub struct Levels {
    squares: VecDeque<f32>,
    /// Which of the utterance the first of them is.
    first: usize,
    /// Of the samples that don't fill 10 ms yet.
    sum: f32,
    filled: usize,
}

impl Levels {
    /// Takes the samples that come next.
    pub fn push(&mut self, pcm: &[f32]) {
        let mut rest = pcm;
        while !rest.is_empty() {
            let (now, later) = rest.split_at(rest.len().min(FRAME - self.filled));
            self.sum += now.iter().map(|sample| sample * sample).sum::<f32>();
            self.filled += now.len();
            rest = later;
            if self.filled == FRAME {
                self.squares.push_back(self.sum / FRAME as f32);
                (self.sum, self.filled) = (0.0, 0);
            }
        }
    }

    /// Nothing before the sample `sample` of the utterance will be asked for.
    pub fn forget_before(&mut self, sample: u64) {
        let kept = (sample as usize / FRAME).saturating_sub(BEFORE);
        let count = kept.saturating_sub(self.first).min(self.squares.len());
        self.squares.drain(..count);
        self.first += count;
    }

    /// Where between two samples of the utterance a sound begins; at the first of them if it is going on there already, or
    /// if nothing begins.
    ///
    /// A sound is heard where the level lies halfway, in decibels, from the quietest to the loudest of them, or within 20 dB
    /// of the loudest if that is less.
    pub fn onset(&self, from: u64, until: u64) -> u64 {
        let level =
            |sample: u64| (sample as usize / FRAME).saturating_sub(self.first).min(self.squares.len());
        let (begin, end) = (level(from), level(until));
        let heard = |at: usize| self.squares[at].max(SILENCE);
        let loudest = (begin..end).map(heard).fold(0.0, f32::max);
        let quietest = (begin.saturating_sub(BEFORE)..end).map(heard).fold(f32::INFINITY, f32::min);
        if loudest < quietest * RISE {
            return from;
        }
        let audible = (quietest * loudest).sqrt().max(loudest * AUDIBLE);
        // A click is no sound.
        let sounds = |at: &usize| heard(*at) >= audible && (at + 1 == end || heard(at + 1) >= audible);
        match (begin..end).find(sounds) {
            Some(at) if at > begin => ((at + self.first) * FRAME) as u64,
            _ => from,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Levels of stretches of so many milliseconds of a tone at so many dBFS.
    fn levels(stretches: &[(usize, f32)], cut: usize) -> Levels {
        let sample = |i: usize, level: f32| {
            10_f32.powf(level / 20.0) * std::f32::consts::SQRT_2 * (i as f32 * 0.4).sin()
        };
        let pcm: Vec<f32> =
            stretches.iter().flat_map(|&(ms, level)| (0..16 * ms).map(move |i| sample(i, level))).collect();
        let mut levels = Levels::default();
        pcm.chunks(cut).for_each(|piece| levels.push(piece));
        levels
    }

    #[test]
    fn a_sound_begins_where_it_rises_out_of_the_quiet() {
        let ms = |ms: u64| ms * 16;
        for cut in [1, 160, 999, 1 << 20] {
            let silent = levels(&[(1_000, -100.0), (500, -20.0)], cut);
            assert_eq!(silent.onset(ms(900), ms(1_400)), ms(1_000));
            assert_eq!(silent.onset(ms(1_050), ms(1_400)), ms(1_050), "it is going on");
            let noisy = levels(&[(1_000, -50.0), (100, -33.0), (500, -20.0)], cut);
            assert_eq!(noisy.onset(ms(950), ms(1_400)), ms(1_000), "a soft beginning is one");
            let click = levels(&[(1_000, -60.0), (10, -20.0), (200, -60.0), (300, -20.0)], cut);
            assert_eq!(click.onset(ms(950), ms(1_400)), ms(1_210));
            let even = levels(&[(1_000, -30.0), (500, -20.0)], cut);
            assert_eq!(even.onset(ms(900), ms(1_400)), ms(900), "nothing begins in what is loud throughout");
        }
    }

    #[test]
    fn what_is_forgotten_changes_no_later_answer() {
        let mut levels = levels(&[(5_000, -60.0), (1_000, -20.0)], 4_000);
        levels.forget_before(16 * 4_900);
        assert!(levels.squares.len() <= 110 + BEFORE);
        assert_eq!(levels.onset(16 * 4_900, 16 * 5_400), 16 * 5_000);
        assert_eq!(Levels::default().onset(100, 5_000), 100, "nothing is known");
    }
}
