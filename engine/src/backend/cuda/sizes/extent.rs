// SPDX-License-Identifier: MPL-2.0
//! How much there is in a step, and what is allocated and enqueued for it.

use super::shape::{KEPT, TILE};
use crate::audio::features::{HANN, HOP};
use crate::backend::Mode;
use crate::model::Geometry;
use crate::model::config::EncoderConfig;

/// Sizes that numbers of rows are rounded up to, so that few plans and graphs serve all batches. The surplus rows hold
/// anything, and nobody reads what becomes of them.
pub fn ladder(rows: usize) -> usize {
    const RUNGS: [usize; 18] = [1, 2, 4, 8, 16, 24, 32, 48, 64, 96, 128, 160, 192, 256, 320, 384, 448, 512];
    RUNGS
        .into_iter()
        .find(|&rung| rung >= rows)
        .unwrap_or_else(|| rows.next_multiple_of(if rows <= 2_048 { 128 } else { 256 }))
}

/// How much of everything a step has, or what is enqueued for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Extent {
    pub items: usize,
    /// Encoder frames.
    pub rows: usize,
    /// New mel frames.
    pub mels: usize,
    /// Mel frames with those that slots keep.
    pub frames: usize,
    /// Of the second level of subsampling.
    pub positions: usize,
    /// Of rows that `convolution` computes one after the other.
    pub tiles: usize,
    /// Rows of the joint: items, rounded up as those of graphs are, times the frames that each looks at.
    pub joints: usize,
}

/// Most frames of an item that an iteration of decoding looks at.
const MOST_SPAN: usize = 8;

/// Frames that an iteration looks at where an item has so many to decode on average: as few as take as many looks.
pub fn span(decoded: usize) -> usize {
    decoded.div_ceil(decoded.div_ceil(MOST_SPAN).max(1)).max(1)
}

/// Rows of the largest step whose features and layers are captured as graphs: above it the card is busy for longer than the
/// host takes to enqueue them.
pub const MOST_CAPTURED: usize = 512;

impl Extent {
    /// What a graph for `rows` rows covers.
    pub fn rung(rows: usize) -> Self {
        let (mels, frames, positions) = (9 * rows, 23 * rows, 3 * rows);
        // Items times the frames that they look at are no more than the rows, and are rounded up to less than twice that.
        Self { items: rows, rows, mels, frames, positions, tiles: rows, joints: 2 * rows }
    }

    /// The smallest graph that covers this step, if one is captured for so many rows.
    pub fn covering_rung(&self) -> Option<Self> {
        let mut rows = ladder(self.rows.max(self.items));
        while rows <= MOST_CAPTURED {
            let rung = Self::rung(rows);
            if rung.covers(self) {
                return Some(rung);
            }
            rows = ladder(rows + 1);
        }
        None
    }

    /// What `count` streams of this mode bring to a step together.
    pub fn expected(mode: Mode, encoder: &EncoderConfig, count: usize) -> Self {
        let one = |frames: usize, mels: usize, tiles: usize, decoded: usize| {
            let positions = 2 * frames + 1;
            let joints = span(decoded);
            Self { items: 1, rows: frames, mels, frames: mels + KEPT, positions, tiles, joints }
        };
        let Self { items, rows, mels, frames, positions, tiles, joints } = match mode {
            Mode::Cached { context } => {
                let frames = encoder.contexts[context][1].max(0) as usize + 1;
                one(frames, 8 * frames + 1, 1, frames)
            }
            Mode::Buffered { window, .. } => {
                let frames = window.frames() + 1;
                // The last window decodes more than a chunk.
                one(frames, window.samples() / HOP, frames.div_ceil(TILE), MOST_SPAN)
            }
            // How long its signal will be isn't known.
            Mode::Offline { .. } => one(1, 1, 1, 1),
        };
        Self {
            items: items * count,
            rows: rows * count,
            mels: mels * count,
            frames: frames * count,
            positions: positions * count,
            tiles: tiles * count,
            joints: joints * ladder(count),
        }
    }

    /// What a whole signal of so many samples brings, whose convolutions are computed by tiles of so many rows.
    pub fn signal(geometry: Geometry, tile: usize, samples: usize) -> Self {
        let mels = samples / HOP;
        let (rows, [_, positions, _]) = (geometry.frames(mels), geometry.lengths(mels));
        let joints = span(rows);
        Self { items: 1, rows, mels, frames: mels, positions, tiles: rows.div_ceil(tile), joints }
    }

    /// Samples that a stream of this mode brings to a step.
    pub fn samples(mode: Mode, encoder: &EncoderConfig) -> usize {
        match mode {
            Mode::Buffered { window, .. } => window.samples(),
            Mode::Cached { .. } => mode.step_sizes(encoder).later + HANN + HOP,
            // How long its signal will be isn't known.
            Mode::Offline { .. } => 0,
        }
    }

    /// Whether there is at least as much of everything.
    pub fn covers(&self, other: &Self) -> bool {
        self.items >= other.items
            && self.rows >= other.rows
            && self.mels >= other.mels
            && self.frames >= other.frames
            && self.positions >= other.positions
            && self.tiles >= other.tiles
            && self.joints >= other.joints
    }

    /// The larger of everything.
    pub fn max(&self, other: &Self) -> Self {
        Self {
            items: self.items.max(other.items),
            rows: self.rows.max(other.rows),
            mels: self.mels.max(other.mels),
            frames: self.frames.max(other.frames),
            positions: self.positions.max(other.positions),
            tiles: self.tiles.max(other.tiles),
            joints: self.joints.max(other.joints),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rungs_waste_little() {
        assert_eq!([1, 3, 17, 513, 2_049].map(ladder), [1, 4, 24, 640, 2_304]);
        for rows in 1..10_000 {
            let rung = ladder(rows);
            assert!(rung >= rows && ladder(rung) == rung, "{rows}: {rung}");
            assert!(rows < 33 || rung <= rows * 3 / 2, "{rows}: {rung}");
        }
    }

    #[test]
    fn a_signal_brings_what_its_steps_are_made_of() {
        use crate::backend::cuda::step::{Batch, Stream};
        use crate::backend::timeline::Timeline;
        use crate::backend::visibility::Visibility;
        use crate::backend::{Slot, Step};
        use crate::convert::{Like, SynthOptions, synthetic_config};
        for like in [Like::Tdt06bV3, Like::NemotronStreaming06b] {
            let options = SynthOptions { like, vocabulary: None, layers: None, seed: 0 };
            let config = synthetic_config(&options).expect("a configuration");
            let (geometry, mode) = (Geometry::new(&config), Mode::Offline { context: 0 });
            for samples in [1_280, 100_000, 1_000_001] {
                let pcm = vec![0.0; samples];
                let step = Step { slot: Slot(0), pcm: &pcm, end: true };
                let portion = Timeline::new(&config, mode).next(&step).expect("one pass");
                let visibility = Visibility::new(&config.encoder, mode);
                let mut batch = Batch::default();
                batch.push(
                    Stream { slot: 0, language: 0, ring: 0, visibility, phrases: 0 },
                    &portion,
                    geometry,
                    TILE,
                );
                assert_eq!(Extent::signal(geometry, TILE, samples), batch.extent(), "{like} {samples}");
            }
        }
    }

    #[test]
    fn spans_are_even_and_no_longer_than_what_is_decoded() {
        assert_eq!([0, 1, 2, 7, 8, 9, 14, 25, 375].map(span), [1, 1, 2, 7, 8, 5, 7, 7, 8]);
        // Less than twice as many rows of the joint as there are frames.
        for items in 1..=512 {
            for decoded in items..=512 {
                let joints = ladder(items) * span(decoded / items);
                assert!(joints <= Extent::rung(ladder(decoded)).joints, "{items} {decoded}");
            }
        }
    }
}
