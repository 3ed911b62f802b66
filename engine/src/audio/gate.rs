// SPDX-License-Identifier: MPL-2.0
//! The silence gate: lets speech through with what comes just before and after it, and only counts the rest.

use std::collections::VecDeque;

use crate::audio::features::{FRAME_SAMPLES, SAMPLE_RATE};

/// Samples in which levels are measured: 10 ms, an eighth of an encoder frame.
const FRAME: usize = SAMPLE_RATE as usize / 100;
/// Octaves that levels are measured in: 4 to 8 kHz down to 250 to 500 Hz. DC and the fundamental of mains hum lie below.
const BANDS: usize = 5;
/// Samples let through before the frame in which speech is noticed, at least: 500 ms.
const PREROLL: usize = SAMPLE_RATE as usize / 2;
/// Frames let through after the last one with speech, at least: 1 s. With 0.5 s soft ends of words get lost at 5 dB, and a
/// pause must last 0.8 s before it ends a word.
const HANGOVER: u64 = 100;
/// Share of a new frame in the smoothed level: a time constant of 45 ms.
const SMOOTHING: f32 = 0.2;
/// The noise floor is the least smoothed level of the last [`SLICES`] slices of this many frames: 4.4 to 5 s, so that a
/// breath lies within.
const SLICE: u64 = 63;
const SLICES: usize = 8;
/// Mean square of a band that counts as silence: -75 dBFS.
const SILENCE: f32 = 3.2e-8;
/// Frames whose mean begins the smoothed level: a single one of noise may be far below its mean, a floor of seconds.
const SETTLING: u64 = 8;
/// Mean square of those frames that makes a stream begin as speech, for want of a noise floor: -40 dBFS.
const LOUD: f32 = 1e-4;
/// Product over the bands of level over floor that opens the gate, 3.5 dB on average; in 3 hours of white and of pink
/// noise the mean stayed under 2.9 dB.
const OPEN: f32 = 56.2;
/// The same for keeping it open, 3 dB on average.
const STAY: f32 = 31.6;

/// A part of the audio; parts follow each other without a gap.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Part<'a> {
    /// Audio with speech in it, samples that aren't finite as 0.
    Speech {
        /// Its first sample since creation or [`Gate::finish`].
        start: u64,
        /// 16 kHz mono.
        pcm: &'a [f32],
    },
    /// Audio without speech. It starts and, unless the stream ends with it, ends between encoder frames.
    Silence {
        /// Its first sample since creation or [`Gate::finish`].
        start: u64,
        /// How many there are.
        samples: u64,
    },
}

/// Tells speech from silence by how far the level rises over the noise floor, on average over five octaves.
///
/// The floor is the minimum of the smoothed level in the last seconds (Martin, "Noise power spectral density estimation
/// based on optimal smoothing and minimum statistics", 2001, without its bias correction). What comes out does not
/// depend on how the audio is cut, except for how it is cut. Closed, the gate holds up to 0.6 s back; open, nothing.
#[derive(Debug)]
pub struct Gate {
    levels: Levels,
    frame: [f32; FRAME],
    filled: usize,
    frames: u64,
    open: bool,
    /// Frames up to the last one with speech.
    spoken: u64,
    held: VecDeque<f32>,
    /// Samples given out.
    given: u64,
}

impl Default for Gate {
    fn default() -> Self {
        Self {
            levels: Levels::default(),
            frame: [0.0; FRAME],
            filled: 0,
            frames: 0,
            open: false,
            spoken: 0,
            held: VecDeque::with_capacity(MOST_HELD),
            given: 0,
        }
    }
}

/// Samples held back at most: the preroll, and what it takes to get to the next encoder frame and the end of a frame.
const MOST_HELD: usize = PREROLL + FRAME_SAMPLES as usize + FRAME;

impl Gate {
    /// Takes the next samples, 16 kHz mono in [-1, 1], and gives out what is decided.
    pub fn push(&mut self, pcm: &[f32], mut give: impl FnMut(Part<'_>)) {
        let mut rest = pcm;
        while !rest.is_empty() {
            let (now, later) = rest.split_at(rest.len().min(FRAME - self.filled));
            rest = later;
            let new = self.filled..self.filled + now.len();
            self.filled = new.end;
            for (to, from) in self.frame[new.clone()].iter_mut().zip(now) {
                *to = if from.is_finite() { *from } else { 0.0 };
            }
            if self.open {
                give(Part::Speech { start: self.given, pcm: &self.frame[new] });
                self.given += now.len() as u64;
            } else {
                self.held.extend(&self.frame[new]);
            }
            if self.filled == FRAME {
                self.filled = 0;
                self.judge(&mut give);
            }
        }
    }

    /// Ends the stream: gives out what is held back as silence. What is pushed after this is a new stream.
    pub fn finish(&mut self, mut give: impl FnMut(Part<'_>)) {
        if !self.held.is_empty() {
            give(Part::Silence { start: self.given, samples: self.held.len() as u64 });
        }
        *self = Self { held: std::mem::take(&mut self.held), ..Self::default() };
        self.held.clear();
    }

    /// Samples pushed and not given out.
    #[cfg(test)]
    fn held(&self) -> usize {
        self.held.len()
    }

    /// Opens or closes after a whole frame.
    fn judge(&mut self, give: &mut impl FnMut(Part<'_>)) {
        let rise = self.levels.rise(&self.frame);
        self.frames += 1;
        let loud = self.frames == SETTLING && self.levels.mean_square() > LOUD;
        if rise > if self.open { STAY } else { OPEN } || loud {
            self.spoken = self.frames;
            if !self.open {
                self.open = true;
                give(Part::Speech { start: self.given, pcm: self.held.make_contiguous() });
                self.given += self.held.len() as u64;
                self.held.clear();
            }
        } else if self.open {
            let between = (self.frames * FRAME as u64).is_multiple_of(FRAME_SAMPLES);
            self.open = !between || self.frames < self.spoken + HANGOVER;
        } else if self.held.len() >= PREROLL + FRAME_SAMPLES as usize {
            self.held.drain(..FRAME_SAMPLES as usize);
            give(Part::Silence { start: self.given, samples: FRAME_SAMPLES });
            self.given += FRAME_SAMPLES;
        }
    }
}

/// Smoothed levels of the bands and their floors, as mean squares.
#[derive(Debug)]
struct Levels {
    level: [f32; BANDS],
    frames: u64,
    /// Minimum of the slice that is being filled.
    newest: [f32; BANDS],
    /// Minima of the slices before it, the oldest overwritten next.
    slices: [[f32; BANDS]; SLICES - 1],
    /// Minimum of `slices`.
    older: [f32; BANDS],
}

impl Default for Levels {
    fn default() -> Self {
        let none = [f32::INFINITY; BANDS];
        Self { level: [0.0; BANDS], frames: 0, newest: none, slices: [none; SLICES - 1], older: none }
    }
}

impl Levels {
    /// Takes the next frame; returns the product over the bands of level over floor, at least 1.
    fn rise(&mut self, frame: &[f32; FRAME]) -> f32 {
        self.frames += 1;
        let share = if self.frames <= SETTLING { 1.0 / self.frames as f32 } else { SMOOTHING };
        let mut rise = 1.0;
        for (band, new) in octaves(frame).into_iter().enumerate() {
            let level = &mut self.level[band];
            *level += share * (new.max(SILENCE) - *level);
            if self.frames >= SETTLING {
                self.newest[band] = self.newest[band].min(*level);
                rise *= *level / self.newest[band].min(self.older[band]);
            }
        }
        if self.frames.is_multiple_of(SLICE) {
            self.slices[(self.frames / SLICE) as usize % (SLICES - 1)] = self.newest;
            self.newest = [f32::INFINITY; BANDS];
            self.older = self
                .slices
                .iter()
                .fold(self.newest, |least, slice| std::array::from_fn(|band| least[band].min(slice[band])));
        }
        rise
    }

    fn mean_square(&self) -> f32 {
        self.level.iter().sum()
    }
}

/// Mean squares of the octaves of `frame` below 8 kHz, from the highest: the details of its Haar wavelet transform, which
/// needs no filter that remembers frames before.
fn octaves(frame: &[f32; FRAME]) -> [f32; BANDS] {
    const { assert!(FRAME.is_multiple_of(1 << BANDS)) };
    // The bound keeps sums of squares finite.
    let mut sums = frame.map(|x| x.clamp(-1e6, 1e6));
    let mut length = FRAME;
    std::array::from_fn(|_| {
        let mut square = 0.0;
        length /= 2;
        for i in 0..length {
            let (a, b) = (sums[2 * i], sums[2 * i + 1]);
            square += (a - b) * (a - b);
            sums[i] = (a + b) * std::f32::consts::FRAC_1_SQRT_2;
        }
        square / (2 * FRAME) as f32
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: usize = SAMPLE_RATE as usize;

    /// Gaussian-like noise of mean square 1, white or falling by 3 dB an octave.
    struct Noise {
        state: u64,
        pink: Option<[f32; 4]>,
    }

    impl Noise {
        fn new(pink: bool) -> Self {
            Self { state: 0x9e37_79b9_7f4a_7c15, pink: pink.then_some([0.0; 4]) }
        }

        fn next(&mut self) -> f32 {
            self.state ^= self.state << 13;
            self.state ^= self.state >> 7;
            self.state ^= self.state << 17;
            let uniform = |shift: u32| (self.state >> shift & 0xffff) as f32 / 32_767.5 - 1.0;
            let white = (uniform(0) + uniform(16) + uniform(32) + uniform(48)) * 0.866;
            let Some(low) = &mut self.pink else { return white };
            // One-pole low passes an octave or two apart, of falling gain, add up to nearly pink.
            for (low, pole) in low.iter_mut().zip([0.99, 0.96, 0.84, 0.36_f32]) {
                *low += (1.0 - pole) * (white / (1.0 - pole).sqrt() - *low);
            }
            (low.iter().sum::<f32>() + 0.3 * white) * 0.55
        }
    }

    fn gain(dbfs: f32) -> f32 {
        10.0_f32.powf(dbfs / 20.0)
    }

    fn clip() -> Vec<f32> {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/data/speech.wav");
        let mut wav = hound::WavReader::open(path).expect("a sound file of the tree");
        wav.samples::<i16>().map(|x| f32::from(x.expect("16 bits a sample")) / 32_768.0).collect()
    }

    fn mean_square(pcm: &[f32]) -> f32 {
        pcm.iter().map(|x| x * x).sum::<f32>() / pcm.len() as f32
    }

    /// Which frames of the clean clip are speech: the level lies at most 30 dB below that of the loud ones.
    fn labels(clip: &[f32]) -> Vec<bool> {
        let levels: Vec<f32> = clip.as_chunks::<FRAME>().0.iter().map(|frame| mean_square(frame)).collect();
        let mut sorted = levels.clone();
        sorted.sort_by(f32::total_cmp);
        levels.iter().map(|&level| level > sorted[levels.len() * 95 / 100] * 1e-3).collect()
    }

    /// Pushes `pcm` in pieces of the lengths in `cuts`, over and over; returns the spans that were let through after
    /// checking what holds for any audio.
    fn spans(pcm: &[f32], cuts: &[usize]) -> Vec<(usize, usize)> {
        let (mut gate, mut at, mut spans, mut rest) = (Gate::default(), 0, Vec::<(usize, usize)>::new(), pcm);
        let mut take = |part: Part<'_>| match part {
            Part::Speech { start, pcm: passed } => {
                assert_eq!(start, at as u64);
                let end = at + passed.len();
                let finite = |x: &f32| if x.is_finite() { *x } else { 0.0 };
                assert!(passed.iter().copied().eq(pcm[at..end].iter().map(finite)));
                match spans.last_mut() {
                    Some(last) if last.1 == at => last.1 = end,
                    _ => spans.push((at, end)),
                }
                at = end;
            }
            Part::Silence { start, samples } => {
                assert_eq!(start, at as u64);
                at += samples as usize;
            }
        };
        for cut in cuts.iter().cycle() {
            if rest.is_empty() {
                break;
            }
            let (now, later) = rest.split_at((*cut).min(rest.len()));
            gate.push(now, &mut take);
            assert!(gate.held() <= MOST_HELD);
            rest = later;
        }
        gate.finish(&mut take);
        assert_eq!((at, gate.held()), (pcm.len(), 0));
        let frame = FRAME_SAMPLES as usize;
        assert!(spans.iter().all(|(start, end)| start % frame == 0 && (end % frame == 0 || *end == at)));
        spans
    }

    /// Samples of `within` that `spans` cover.
    fn covered(spans: &[(usize, usize)], within: std::ops::Range<usize>) -> usize {
        let cover =
            |&(start, end): &(usize, usize)| end.min(within.end).saturating_sub(start.max(within.start));
        spans.iter().map(cover).sum()
    }

    fn assert_complete(spans: &[(usize, usize)], labels: &[bool], offset: usize, what: &str) {
        for (i, _) in labels.iter().enumerate().filter(|(_, speech)| **speech) {
            let start = offset + i * FRAME;
            assert_eq!(
                covered(spans, start..start + FRAME),
                FRAME,
                "{what}: speech at sample {start} is lost"
            );
        }
    }

    #[test]
    fn hours_without_speech_give_none() {
        let hum = |i: usize, hertz: f32| (i as f32 * hertz / 16_000.0 * std::f32::consts::TAU).sin();
        let (mut white, mut pink) = (Noise::new(false), Noise::new(true));
        let mut cases: [(&str, &mut dyn FnMut(usize) -> f32); 6] = [
            ("digital silence", &mut |_| 0.0),
            ("room noise of -60 dBFS", &mut |_| 0.001 * Noise::next(&mut pink)),
            ("noise of -45 dBFS on DC", &mut |_| 0.2 + 0.0056 * Noise::next(&mut white)),
            ("hum", &mut |i| 0.03 * hum(i % 16_000, 50.0) + 0.006 * hum(i % 16_000, 150.0)),
            ("a tone", &mut |i| 0.01 * hum(i % 16_000, 1000.0)),
            ("one bit of dither", &mut |i| if i.is_multiple_of(7) { 1.0 / 32_768.0 } else { 0.0 }),
        ];
        for (name, sample) in &mut cases {
            let (mut gate, mut silent, mut spoken) = (Gate::default(), 0, 0);
            for block in 0..3600 {
                let pcm: Vec<f32> = (0..SECOND).map(|i| sample(block * SECOND + i)).collect();
                gate.push(&pcm, |part| match part {
                    Part::Speech { pcm, .. } => spoken += pcm.len(),
                    Part::Silence { samples, .. } => silent += samples as usize,
                });
            }
            assert_eq!((spoken, silent + gate.held()), (0, 3600 * SECOND), "{name}");
        }
    }

    #[test]
    fn slow_changes_of_gain_are_no_speech() {
        let mut noise = Noise::new(true);
        let decibels =
            |i: usize| -70.0 + 20.0 * (i as f32 / (300 * SECOND) as f32 * std::f32::consts::PI).sin();
        let pcm: Vec<f32> = (0..300 * SECOND).map(|i| gain(decibels(i)) * noise.next()).collect();
        assert_eq!(spans(&pcm, &[1600]), []);
    }

    #[test]
    fn speech_in_noise_is_complete_and_noise_alone_is_not_passed() {
        let clip = clip();
        let labels = labels(&clip);
        let spoken: Vec<f32> = (0..labels.len())
            .filter(|&i| labels[i])
            .flat_map(|i| &clip[i * FRAME..(i + 1) * FRAME])
            .copied()
            .collect();
        let level = mean_square(&spoken).sqrt();
        let first = labels.iter().position(|&speech| speech).expect("there is speech") * FRAME;
        for (pink, snr, offset) in [
            (false, 20.0, 0.0),
            (false, 10.0, 0.0),
            (false, 5.0, 0.0),
            (true, 20.0, 0.0),
            (true, 10.0, 0.3),
            (true, 5.0, -0.1),
        ] {
            let what = format!("pink {pink}, {snr} dB, DC {offset}");
            let mut noise = Noise::new(pink);
            for lead in [10 * SECOND, 0] {
                // Without a lead the stream opens on speech.
                let speech = if lead > 0 { &clip[..] } else { &clip[first..] };
                let labels = if lead > 0 { &labels[..] } else { &labels[first / FRAME..] };
                let mut pcm = vec![0.0; lead + speech.len() + 10 * SECOND];
                pcm[lead..lead + speech.len()].copy_from_slice(speech);
                pcm.iter_mut().for_each(|x| *x += offset + gain(-snr) * level * noise.next());
                let spans = spans(&pcm, &[480]);
                assert_complete(&spans, labels, lead, &what);
                let before = covered(&spans, 0..lead);
                assert!(before <= 3 * SECOND, "{what}: {before} of the noise before");
                let after = covered(&spans, lead + speech.len()..pcm.len());
                assert!(after <= 2 * SECOND, "{what}: {after} of the noise after");
            }
        }
    }

    #[test]
    fn speech_after_an_hour_of_silence_comes_with_what_is_around_it() {
        let (mut gate, mut first, mut end) = (Gate::default(), None, 0);
        let burst: Vec<f32> = (0..SECOND).map(|i| if i % 40 < 20 { 0.1 } else { -0.1 }).collect();
        for second in 0..3605 {
            let pcm = if second == 3600 { burst.clone() } else { vec![0.0; SECOND] };
            gate.push(&pcm, |part| {
                if let Part::Speech { start, pcm } = part {
                    first.get_or_insert(start as usize);
                    end = start as usize + pcm.len();
                }
            });
        }
        let first = first.expect("the burst was heard");
        let before = 3600 * SECOND - first;
        assert!((PREROLL..PREROLL + FRAME_SAMPLES as usize + FRAME).contains(&before), "{before} before");
        let after = end - 3601 * SECOND;
        assert!((SECOND..2 * SECOND).contains(&after), "{after} after");
    }

    #[test]
    fn samples_that_are_not_numbers_count_as_0() {
        let mut pcm = [vec![0.0; SECOND], clip(), vec![0.0; 5 * SECOND]].concat();
        let expected = spans(&pcm, &[160]);
        assert_eq!(expected.len(), 1);
        let zeros: Vec<usize> = (0..pcm.len()).filter(|&i| pcm[i] == 0.0).collect();
        let values = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY];
        zeros.iter().zip(values.iter().cycle()).for_each(|(&i, &value)| pcm[i] = value);
        assert_eq!(spans(&pcm, &[160]), expected);
    }

    #[test]
    fn absurd_levels_pass_and_are_forgotten() {
        let mut pcm = vec![0.0; 20 * SECOND];
        pcm[SECOND..2 * SECOND]
            .iter_mut()
            .zip([f32::MAX, f32::MIN].iter().cycle())
            .for_each(|(x, y)| *x = *y);
        let spans = spans(&pcm, &[160]);
        assert_eq!(spans.len(), 1);
        assert!(
            spans[0].0 <= SECOND - PREROLL && (3 * SECOND..8 * SECOND).contains(&spans[0].1),
            "{spans:?}"
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn cutting_changes_nothing(
            cuts in proptest::collection::vec(1_usize..4000, 1..40),
            quiet in -90.0_f32..-20.0,
            bursts in proptest::collection::vec((0_usize..160_000, 1_usize..16_000), 0..6),
        ) {
            let mut noise = Noise::new(false);
            let mut pcm: Vec<f32> = (0..160_000 + cuts[0]).map(|_| gain(quiet) * noise.next()).collect();
            for (start, length) in bursts {
                pcm[start..].iter_mut().take(length).for_each(|x| *x = 0.1 * noise.next());
            }
            prop_assert_eq!(spans(&pcm, &cuts), spans(&pcm, &[pcm.len()]));
        }
    }
}
