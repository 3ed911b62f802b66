// SPDX-License-Identifier: MPL-2.0
//! Which encoder frames see each other, and what their distances are called.

use std::ops::Range;

use super::Mode;
use crate::model::config::{AttentionStyle, EncoderConfig};

/// Which frames a frame sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Visibility {
    /// Frames before the chunk.
    pub left: i64,
    /// Frames that see the same; 1 for attention that slides.
    pub chunk: i64,
    /// Beyond the chunk.
    pub right: i64,
}

impl Visibility {
    /// Of the mode's context. In a window that a model was trained for, the window itself is the context.
    pub fn new(config: &EncoderConfig, mode: Mode) -> Self {
        const UNLIMITED: i64 = i32::MAX as i64;
        let [left, right] = config.contexts[mode.context()].map(i64::from);
        let or_unlimited = |frames: i64| if frames < 0 { UNLIMITED } else { frames };
        match (config.attention, mode) {
            (AttentionStyle::Regular, _) => {
                Self { left: or_unlimited(left), chunk: 1, right: or_unlimited(right) }
            }
            (AttentionStyle::ChunkedLimited, _) => {
                let chunk = right + 1;
                // NeMo counts the left context in whole chunks.
                Self { left: or_unlimited(left) / chunk * chunk, chunk, right: 0 }
            }
            (AttentionStyle::ChunkedLimitedWithRc, Mode::Buffered { window, .. }) => {
                Self { left: window.left as i64, chunk: window.chunk as i64, right: window.right as i64 }
            }
            (AttentionStyle::ChunkedLimitedWithRc, _) => Self { left: UNLIMITED, chunk: 1, right: UNLIMITED },
        }
    }

    /// Frames visible to `frame`, without regard to where the stream starts and ends.
    pub fn of(self, frame: i64) -> Range<i64> {
        let start = frame / self.chunk * self.chunk;
        start - self.left..start + self.chunk + self.right
    }

    /// Distances `query - key` that can be visible among the first `frames` frames.
    pub fn distances(self, frames: usize) -> Range<i64> {
        let last = (frames as i64 - 1).max(0);
        let [ahead, behind] = [self.chunk - 1 + self.right, self.left.saturating_add(self.chunk - 1)];
        -ahead.min(last)..behind.min(last) + 1
    }
}

/// Sinusoids of the relative positions `range`, `[positions, width]`: sine and cosine in turn.
pub fn sinusoids(range: Range<i64>, width: usize) -> Vec<f32> {
    let step = -(10_000.0_f32.ln() / width as f32);
    let mut out = Vec::with_capacity(range.clone().count() * width);
    for position in range {
        for channel in 0..width {
            let angle = position as f32 * ((channel / 2 * 2) as f32 * step).exp();
            out.push(if channel % 2 == 0 { angle.sin() } else { angle.cos() });
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_see_themselves_and_the_left_context() {
        // The example of NeMo's mask for [4, 1]: rows 0-1 see 0-1, 2-3 see 0-3, 4-5 see 0-5, 6-7 see 2-7.
        let visibility = Visibility { left: 4, chunk: 2, right: 0 };
        let expected = [(0, 0..2), (1, 0..2), (2, 0..4), (5, 0..6), (6, 2..8), (7, 2..8)];
        for (frame, frames) in expected {
            let seen = visibility.of(frame);
            assert_eq!(seen.start.max(0)..seen.end, frames, "frame {frame}");
        }
    }

    #[test]
    fn distances_are_those_of_frames_that_see_each_other() {
        let unlimited = i64::from(i32::MAX);
        for (left, chunk, right) in [(4, 2, 0), (4, 2, 1), (0, 1, 0), (unlimited, 1, unlimited)] {
            let visibility = Visibility { left, chunk, right };
            for frames in [1, 2, 8, 30] {
                let keys = |frame: i64| {
                    let seen = visibility.of(frame);
                    (0..frames).filter(move |key| seen.contains(key)).map(move |key| frame - key)
                };
                let seen: Vec<i64> = (0..frames).flat_map(keys).collect();
                let distances = visibility.distances(frames as usize);
                assert!(seen.iter().all(|distance| distances.contains(distance)), "{visibility:?} {frames}");
                // Enough frames show each of them.
                if frames == 30 {
                    assert!(distances.clone().all(|distance| seen.contains(&distance)), "{visibility:?}");
                }
            }
        }
    }

    #[test]
    fn chunks_with_right_context_see_it() {
        // NeMo's chunked_limited_with_rc [4, 2, 1]: a row of chunk k sees 2 k - 4 up to 2 k + 2.
        let visibility = Visibility { left: 4, chunk: 2, right: 1 };
        for (frame, frames) in [(0, 0..3), (1, 0..3), (2, 0..5), (5, 0..7), (6, 2..9), (7, 2..9)] {
            let seen = visibility.of(frame);
            assert_eq!(seen.start.max(0)..seen.end, frames, "frame {frame}");
        }
    }
}
