// SPDX-License-Identifier: MPL-2.0
//! Channels to one.

use symphonia::core::audio::{Channels, Position};

/// Share of the left and right channel in a mix with a centre: what is said there alone is heard, and what isn't speech
/// doesn't cover the centre.
const SIDES: f32 = 0.2;
/// A mix whose mean square is below this share of the channels' cancels: 20 dB.
const CANCELS: f32 = 0.01;
/// One above this share doesn't any more: 6 dB.
const ADDS_UP: f32 = 0.25;
/// Mean square of a channel that is silent: -70 dBFS.
const SILENT: f32 = 1e-7;

/// Mixes the channels of a file.
pub struct Downmix {
    weights: Vec<f32>,
    /// The centre and the weights to take once something was heard in it.
    centre: Option<(usize, Vec<f32>)>,
    /// Heard instead of the mix, which cancels.
    instead: Option<usize>,
    /// The first channel that was, and frames of which one was.
    cancelled: Option<(usize, u64)>,
}

impl Downmix {
    /// A mix of `count` channels in places that `layout` says, or only the channel `wanted`, counted from 1. The error
    /// says that there is no such.
    pub fn new(layout: &Layout, count: usize, wanted: Option<usize>) -> Result<Self, String> {
        let (mut weights, mut centre) = (vec![1.0 / count.max(1) as f32; count], None);
        match wanted {
            None => {
                if let Some(places) = layout.places(count) {
                    weights = share(&places, |place| if is_low(place) { 0.0 } else { 1.0 });
                    let at = places.iter().position(|place| *place == Position::FRONT_CENTER);
                    centre = at.map(|at| (at, share(&places, beside_centre)));
                }
            }
            Some(wanted) if (1..=count).contains(&wanted) => {
                weights = (1..=count).map(|channel| f32::from(channel == wanted)).collect();
            }
            Some(wanted) if count == 1 => {
                return Err(format!("there is no channel {wanted}, it has only one"));
            }
            Some(wanted) => return Err(format!("there is no channel {wanted}, it has {count}")),
        }
        Ok(Self { weights, centre, instead: None, cancelled: None })
    }

    /// Channels that it takes.
    pub fn channels(&self) -> usize {
        self.weights.len()
    }

    /// Appends the mix of `interleaved` to `mono`.
    pub fn mix(&mut self, interleaved: &[f32], mono: &mut Vec<f32>) {
        let frames = interleaved.chunks_exact(self.weights.len());
        let mut squares = vec![0.0; self.weights.len()];
        for frame in frames.clone() {
            squares.iter_mut().zip(frame).for_each(|(square, sample)| *square += sample * sample);
        }
        let silent = SILENT * frames.len() as f32;
        if let Some((_, weights)) = self.centre.take_if(|(at, _)| squares[*at] > silent) {
            self.weights = weights;
        }
        let start = mono.len();
        mono.extend(frames.clone().map(|frame| self.of(frame)));
        let mixed = mono[start..].iter().map(|sample| sample * sample).sum();
        self.judge(&squares, mixed, silent);
        if let Some(channel) = self.instead {
            mono.truncate(start);
            mono.extend(frames.map(|frame| frame[channel]));
            self.cancelled.get_or_insert((channel, 0)).1 += (mono.len() - start) as u64;
        }
    }

    fn of(&self, frame: &[f32]) -> f32 {
        frame.iter().zip(&self.weights).map(|(sample, weight)| sample * weight).sum()
    }

    /// Decides whether the mix cancels, from the sums of squares of the channels and of what is mixed.
    fn judge(&mut self, squares: &[f32], mixed: f32, silent: f32) {
        let mut heard: Vec<(usize, f32)> = Vec::new();
        for (channel, (square, weight)) in squares.iter().zip(&self.weights).enumerate() {
            if *weight > 0.0 {
                heard.push((channel, square * weight * weight));
            }
        }
        // What they would add up to if they had nothing to do with each other.
        let apart: f32 = heard.iter().map(|(_, square)| square).sum();
        if heard.len() < 2 || apart <= silent {
            return;
        }
        if self.instead.is_none() && mixed < CANCELS * apart {
            let loudest = heard.into_iter().rev().max_by(|a, b| a.1.total_cmp(&b.1));
            self.instead = loudest.map(|(channel, _)| channel);
        } else if mixed > ADDS_UP * apart {
            self.instead = None;
        }
    }

    /// The channel, counted from 1, that was heard instead of a mix that cancels, and for how many frames.
    pub fn cancelled(&self) -> Option<(usize, u64)> {
        self.cancelled.map(|(channel, frames)| (channel + 1, frames))
    }
}

/// Weights that add up to 1, in the proportion that `of` says.
fn share(places: &[Position], of: impl Fn(Position) -> f32) -> Vec<f32> {
    let sum: f32 = places.iter().map(|place| of(*place)).sum();
    places.iter().map(|place| of(*place) / if sum > 0.0 { sum } else { 1.0 }).collect()
}

/// Whether only low frequencies are heard there.
fn is_low(place: Position) -> bool {
    matches!(place, Position::LFE1 | Position::LFE2)
}

/// The weight of a place where there is a centre, which has dialogue.
fn beside_centre(place: Position) -> f32 {
    match place {
        Position::FRONT_CENTER => 1.0,
        Position::FRONT_LEFT | Position::FRONT_RIGHT => SIDES,
        _ => 0.0,
    }
}

/// Where the channels are meant to be heard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Layout {
    /// In these places, in order.
    Positions(Vec<Position>),
    /// Nobody says.
    Unknown,
}

impl Layout {
    /// Of a Windows channel mask, whose bits are in the order of the channels.
    pub fn of_mask(mask: u32) -> Self {
        let bits = (0..u32::BITS).filter(|bit| mask & 1 << bit != 0);
        Self::Positions(bits.map(|bit| Position::from_bits_truncate(1 << bit)).collect())
    }

    /// Of GStreamer's channel mask, whose bits are in the order of the channels and others than those of Windows from the
    /// ninth on.
    pub fn of_gstreamer(mask: u64) -> Self {
        const PLACES: [Position; 12] = [
            Position::FRONT_LEFT,
            Position::FRONT_RIGHT,
            Position::FRONT_CENTER,
            Position::LFE1,
            Position::REAR_LEFT,
            Position::REAR_RIGHT,
            Position::FRONT_LEFT_CENTER,
            Position::FRONT_RIGHT_CENTER,
            Position::REAR_CENTER,
            Position::LFE2,
            Position::SIDE_LEFT,
            Position::SIDE_RIGHT,
        ];
        if mask == 0 {
            return Self::Unknown;
        }
        let bits = (0..u64::BITS as usize).filter(|bit| mask & 1 << bit != 0);
        // What is above is no centre and not low.
        Self::Positions(bits.map(|bit| PLACES.get(bit).copied().unwrap_or(Position::TOP_CENTER)).collect())
    }

    /// Of a decoder's channels.
    pub fn of(channels: &Channels) -> Self {
        match channels {
            Channels::Positioned(positions) => Self::Positions(positions.iter().collect()),
            _ => Self::Unknown,
        }
    }

    /// Places of so many channels; none if nobody says, or there is only one place to hear.
    fn places(&self, count: usize) -> Option<Vec<Position>> {
        match (self, count) {
            (_, 0..=2) => None,
            // What every program takes six and eight channels for.
            (Self::Unknown, 6) => Self::of_mask(0x3F).places(count),
            (Self::Unknown, 8) => Self::of_mask(0x63F).places(count),
            (Self::Unknown, _) => None,
            (Self::Positions(places), _) => Some(places.clone()).filter(|places| places.len() == count),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One second at 16 kHz: a tone of another pitch in each channel, of these amplitudes.
    fn tones(amplitudes: &[f32]) -> Vec<f32> {
        let tone = |i: usize, channel: usize| {
            (i as f32 / 16_000.0 * (200.0 + 100.0 * channel as f32) * std::f32::consts::TAU).sin()
        };
        (0..16_000)
            .flat_map(|i| {
                amplitudes.iter().enumerate().map(move |(channel, amplitude)| amplitude * tone(i, channel))
            })
            .collect()
    }

    /// How much of each channel's tone there is in the mix.
    fn parts(downmix: &mut Downmix, amplitudes: &[f32]) -> Vec<f32> {
        let mut mono = Vec::new();
        for piece in tones(amplitudes).chunks(1_000 * amplitudes.len()) {
            downmix.mix(piece, &mut mono);
        }
        let part = |channel: usize| {
            let tone = tones(&std::array::from_fn::<f32, 8, _>(|i| f32::from(i == channel)));
            let product: f32 = mono.iter().zip(tone.chunks(8)).map(|(a, b)| a * b[channel]).sum();
            product / 8_000.0
        };
        (0..amplitudes.len()).map(part).collect()
    }

    fn assert_near(parts: &[f32], expected: &[f32]) {
        let near = |(a, b): (&f32, &f32)| (a - b).abs() < 0.01;
        assert!(
            parts.len() == expected.len() && parts.iter().zip(expected).all(near),
            "{parts:?}, {expected:?}"
        );
    }

    #[test]
    fn the_centre_is_heard_above_all() {
        // FL FR FC LFE BL BR, as a mask says or as everyone takes six channels for; with SL SR for eight.
        let [side, centre] = [SIDES, 1.0].map(|part| part / (1.0 + 2.0 * SIDES));
        for (layout, count) in [
            (Layout::of_mask(0x60F), 6),
            (Layout::Unknown, 6),
            (Layout::of_mask(0x63F), 8),
            (Layout::of_gstreamer(0xC3F), 8),
            (Layout::of_gstreamer(0x3F), 6),
            (Layout::Unknown, 8),
        ] {
            let mut expected = vec![side, side, centre];
            expected.resize(count, 0.0);
            let mut downmix = Downmix::new(&layout, count, None).unwrap();
            assert_near(&parts(&mut downmix, &vec![1.0; count]), &expected);
        }
        // FC first, as some formats have it.
        let places = vec![Position::FRONT_CENTER, Position::FRONT_LEFT, Position::FRONT_RIGHT];
        let mut downmix = Downmix::new(&Layout::Positions(places), 3, None).unwrap();
        assert_near(&parts(&mut downmix, &[1.0; 3]), &[centre, side, side]);
    }

    #[test]
    fn without_anything_in_the_centre_the_others_are_heard() {
        let mut downmix = Downmix::new(&Layout::of_mask(0x3F), 6, None).unwrap();
        assert_near(&parts(&mut downmix, &[1.0, 1.0, 0.0, 1.0, 1.0, 1.0]), &[0.2, 0.2, 0.0, 0.0, 0.2, 0.2]);
        let mut quad = Downmix::new(&Layout::of_mask(0x33), 4, None).unwrap();
        assert_near(&parts(&mut quad, &[1.0; 4]), &[0.25; 4]);
        let mut microphones = Downmix::new(&Layout::Unknown, 4, None).unwrap();
        assert_near(&parts(&mut microphones, &[1.0; 4]), &[0.25; 4]);
    }

    #[test]
    fn one_channel_can_be_chosen() {
        let mut downmix = Downmix::new(&Layout::of_mask(0x3F), 6, Some(4)).unwrap();
        assert_near(&parts(&mut downmix, &[1.0; 6]), &[0.0, 0.0, 0.0, 1.0, 0.0, 0.0]);
        assert_eq!(downmix.cancelled(), None);
        let refused = |count, wanted| Downmix::new(&Layout::Unknown, count, Some(wanted)).err().unwrap();
        assert_eq!(refused(2, 3), "there is no channel 3, it has 2");
        assert_eq!(refused(1, 2), "there is no channel 2, it has only one");
    }

    #[test]
    fn a_mix_that_cancels_is_one_channel_as_long_as_it_does() {
        let tone = tones(&[0.5]);
        let (both, against): (Vec<f32>, Vec<f32>) = (
            tone.iter().flat_map(|x| [*x, *x]).collect(),
            tone.iter().flat_map(|x| [*x, -0.97 * x]).collect(),
        );
        let mut downmix = Downmix::new(&Layout::Unknown, 2, None).unwrap();
        let mut mono = Vec::new();
        for piece in [&both, &against, &both].into_iter().flat_map(|part| part.chunks(2_000)) {
            downmix.mix(piece, &mut mono);
        }
        assert_eq!(mono.len(), 3 * tone.len());
        assert!(mono.iter().zip(tone.iter().cycle()).all(|(a, b)| (a - b).abs() < 1e-6));
        assert_eq!(downmix.cancelled(), Some((1, tone.len() as u64)));
        // Silence cancels nothing.
        let mut silent = Downmix::new(&Layout::Unknown, 2, None).unwrap();
        silent.mix(&[0.0; 2_000], &mut mono);
        silent.mix(&[1e-4, -1e-4].repeat(1_000), &mut mono);
        assert_eq!(silent.cancelled(), None);
    }
}
