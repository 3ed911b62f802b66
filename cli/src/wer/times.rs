// SPDX-License-Identifier: MPL-2.0
//! How late a model emits words, and how far the starts of words lie from the sounds that they are.

use serde::Serialize;

use super::listen::Start;

/// Samples of a level: 10 ms.
const FRAME: usize = 160;
/// Levels of quiet before a sound that make it the beginning of a word: 0.25 s.
const QUIET: usize = 25;
/// Of the levels in 0.1 s those that a sound has to be heard in.
const HEARD: usize = 7;
/// Samples after a sound begins in which its word is looked for: 80 ms to 1 s. Before that the word before may end.
const REACH: std::ops::Range<u64> = 1_280..16_000;
/// Milliseconds that a start may lie behind its sound.
const LATE: f64 = 100.0;
/// Silence that is put before each recording: 1 s.
pub const BEFORE: usize = 16_000;
/// How much more, in samples, for one hearing each: 80 ms are a frame of every model.
pub const PLACES: [usize; 4] = [0, 320, 640, 960];

/// What the rule is, for --help.
pub const DEFINITION: &str = "each recording is heard four times behind 1 s of silence and 0, 20, 40 and 60 ms more. A \
    sound begins where the level of 10 ms rises, after 0.25 s of quiet, above the middle in decibels of the recording's \
    10th and 95th percentile, or above 30 dB below the latter if that is more, and stays there for most of 0.1 s; its word \
    is the first that is emitted 80 ms to 1 s after it. emission_delay_ms is the 95th percentile less 100 ms";

/// Milliseconds from where sounds begin to where their words were emitted, and to where the words start.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Offsets {
    emitted: Vec<f64>,
    told: Vec<f64>,
}

impl Offsets {
    /// Adds those of a recording that began at sample `place` of what was heard.
    pub fn add(&mut self, recording: &[f32], place: usize, starts: &[Start]) {
        for onset in onsets(recording) {
            let onset = (onset + place) as u64;
            let reach = onset + REACH.start..onset + REACH.end;
            let word = starts.iter().find(|start| reach.contains(&start.emitted));
            if let Some(word) = word {
                let after = |sample: u64| (sample as f64 - onset as f64) / 16.0;
                self.emitted.push(after(word.emitted));
                self.told.push(after(word.told));
            }
        }
    }

    /// Sums up; none without a sound that a word was found for.
    pub fn sum_up(mut self) -> Option<Times> {
        self.emitted.sort_by(f64::total_cmp);
        self.told.sort_by(f64::total_cmp);
        let emitted = Spread::of(&self.emitted)?;
        let delay = (emitted.p95 - LATE).max(0.0);
        Some(Times {
            sounds: self.emitted.len(),
            emitted,
            told: Spread::of(&self.told)?,
            emission_delay_ms: (delay / 10.0).round() as u32 * 10,
        })
    }
}

/// Where words start after the sounds that they are.
#[derive(Debug, PartialEq, Serialize)]
pub struct Times {
    /// Sounds that begin after quiet and have a word.
    pub sounds: usize,
    /// Milliseconds after the sound that the model emits the word.
    pub emitted: Spread,
    /// Milliseconds after the sound that the word starts.
    pub told: Spread,
    /// What the model's `config.json` should have: the least with which 95 of 100 words start at most 100 ms after their sounds,
    /// so that few of those that no quiet is before start ahead of them.
    pub emission_delay_ms: u32,
}

/// Of a distribution.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Spread {
    least: f64,
    p5: f64,
    p50: f64,
    p95: f64,
    most: f64,
}

impl Spread {
    fn of(sorted: &[f64]) -> Option<Self> {
        let last = sorted.len().checked_sub(1)?;
        let at = |share: f64| sorted[((last as f64 * share).round() as usize).min(last)];
        Some(Self { least: at(0.0), p5: at(0.05), p50: at(0.5), p95: at(0.95), most: at(1.0) })
    }
}

impl std::fmt::Display for Spread {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { least, p5, p50, p95, most } = self;
        write!(f, "least {least:.0}, p5 {p5:.0}, p50 {p50:.0}, p95 {p95:.0}, most {most:.0}")
    }
}

/// Samples at which sounds begin after quiet; what is before the recording is quiet.
fn onsets(pcm: &[f32]) -> Vec<usize> {
    let decibels =
        |frame: &[f32]| 10.0 * (frame.iter().map(|x| x * x).sum::<f32>() / FRAME as f32 + 1e-10).log10();
    let levels: Vec<f32> = pcm.chunks_exact(FRAME).map(decibels).collect();
    let mut sorted = levels.clone();
    sorted.sort_by(f32::total_cmp);
    let at = |share: usize| sorted.get(sorted.len() * share / 100).copied().unwrap_or(0.0);
    let audible = (at(95) - 30.0).max((at(95) + at(10)) / 2.0);
    let (mut quiet, mut onsets) = (QUIET, Vec::new());
    for (at, level) in levels.iter().enumerate() {
        if *level < audible {
            quiet += 1;
            continue;
        }
        let heard = levels[at..].iter().take(10).filter(|level| **level >= audible).count();
        if quiet >= QUIET && heard >= HEARD {
            onsets.push(at * FRAME);
        }
        quiet = 0;
    }
    onsets
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sounds_are_found_and_their_words_measured() {
        // Half a second of quiet, of a tone, of quiet with a click in it, of a tone.
        let tone = |i: usize| (i as f32 * 0.3).sin();
        let pcm: Vec<f32> = (0..32_000)
            .map(|i| match i {
                8_000..16_000 | 24_000.. => 0.1 * tone(i),
                18_000..18_100 => 0.1,
                _ => 1e-4 * tone(i),
            })
            .collect();
        assert_eq!(onsets(&pcm), [8_000, 24_000]);
        let mut offsets = Offsets::default();
        let start = |emitted, told| Start { emitted, told };
        // The recording begins at 1,000: 400 and 500 ms late, one of them told 10 ms late.
        offsets.add(&pcm, 1_000, &[start(15_400, 9_160), start(33_000, 25_000)]);
        let times = offsets.sum_up().unwrap();
        assert_eq!((times.sounds, times.emission_delay_ms), (2, 400));
        assert_eq!((times.emitted.least, times.emitted.most), (400.0, 500.0));
        assert_eq!((times.told.least, times.told.most), (0.0, 10.0));
        assert_eq!(Offsets::default().sum_up(), None);
    }
}
