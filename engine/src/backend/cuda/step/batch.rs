// SPDX-License-Identifier: MPL-2.0
//! One step of many streams as the kernels read it: a block of memory that is copied to the card in one piece.

use bytemuck::{Pod, Zeroable};

use super::products::ladder;
use super::shape::{KEPT, TILE};
use super::slot::Work;
use crate::audio::features::HOP;
use crate::backend::Mode;
use crate::backend::geometry::{Geometry, Visibility};
use crate::model::config::EncoderConfig;

/// `Item` of `common.cuh`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
pub struct Item {
    pub slot: i32,
    fresh: i32,
    language: i32,
    row: i32,
    frames: i32,
    first: i32,
    left: i32,
    chunk: i32,
    right: i32,
    ring: i32,
    decode: i32,
    decoded: i32,
    pcm: i32,
    samples: i32,
    pcm_first: i32,
    mel: i32,
    mel_first: i32,
    mel_old: i32,
    mel_new: i32,
    mel_keep: i32,
    mel_total: i32,
    position: i32,
    position_first: i32,
    positions: i32,
}

/// `Place` of `common.cuh`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Pod, Zeroable)]
pub struct Place {
    item: i32,
    index: i32,
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
    /// Rows of the joint: items, rounded up as recordings are, times the frames that each looks at.
    pub joints: usize,
}

/// `Counts` of `common.cuh`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Pod, Zeroable)]
pub struct Counts {
    pub items: i32,
    pub rows: i32,
    mels: i32,
    positions: i32,
    tiles: i32,
    pub joints: i32,
}

impl Counts {
    /// One of everything.
    pub const ONE: Self = Self { items: 1, rows: 1, mels: 1, positions: 1, tiles: 1, joints: 1 };
}

/// Most frames of an item that an iteration of decoding looks at.
const MOST_SPAN: usize = 8;

/// Frames that an iteration looks at where an item has so many to decode on average: as few as take as many looks.
fn span(decoded: usize) -> usize {
    decoded.div_ceil(decoded.div_ceil(MOST_SPAN).max(1)).max(1)
}

/// Largest step whose features and layers are recorded as graphs: above it the card is busy for longer than the host takes
/// to enqueue them.
pub const MOST_RECORDED: usize = 512;

impl Extent {
    /// What a recording for `rows` rows covers.
    pub fn recorded(rows: usize) -> Self {
        let (mels, frames, positions) = (9 * rows, 23 * rows, 3 * rows);
        // Items times the frames that they look at are no more than the rows, and are rounded up to less than twice that.
        Self { items: rows, rows, mels, frames, positions, tiles: rows, joints: 2 * rows }
    }

    /// The smallest recording that covers this step, if there is one.
    pub fn recording(&self) -> Option<Self> {
        let mut rows = ladder(self.rows.max(self.items));
        while rows <= MOST_RECORDED {
            let rung = Self::recorded(rows);
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

/// Where the parts of a step lie in its memory, in bytes.
#[derive(Clone, Copy, Debug)]
pub struct Layout {
    pub counts: usize,
    pub items: usize,
    pub mels: usize,
    pub positions: usize,
    pub rows: usize,
    pub tiles: usize,
    /// Samples, to the end.
    pub pcm: usize,
}

impl Layout {
    /// For a step of this extent.
    pub fn new(extent: &Extent) -> Self {
        let mut at = 0;
        let mut place = |bytes: usize| {
            let start = at;
            at = (at + bytes).next_multiple_of(16);
            start
        };
        let places = size_of::<Place>();
        Self {
            counts: place(size_of::<Counts>()),
            items: place(extent.items * size_of::<Item>()),
            mels: place(extent.mels * places),
            positions: place(extent.positions * places),
            rows: place(extent.rows * places),
            tiles: place(extent.tiles * places),
            pcm: place(0),
        }
    }
}

/// A step under construction.
#[derive(Default)]
pub struct Batch {
    pub items: Vec<Item>,
    mels: Vec<Place>,
    positions: Vec<Place>,
    rows: Vec<Place>,
    tiles: Vec<Place>,
    frames: usize,
    samples: usize,
    /// Rows that are decoded, of all items and most of one.
    decoded: usize,
    most_decoded: usize,
}

impl Batch {
    /// Empties it.
    pub fn clear(&mut self) {
        self.items.clear();
        self.mels.clear();
        self.positions.clear();
        self.rows.clear();
        self.tiles.clear();
        (self.frames, self.samples, self.decoded, self.most_decoded) = (0, 0, 0, 0);
    }

    /// Adds a stream's part; its `samples` samples follow those of the streams before. `ring` is the number of ring rows in
    /// use, 0 for a signal by itself.
    #[allow(clippy::too_many_arguments)]
    pub fn push(
        &mut self,
        slot: u32,
        language: usize,
        ring: usize,
        visibility: Visibility,
        work: &Work,
        samples: usize,
        geometry: Geometry,
        tile: usize,
    ) {
        let item = self.items.len() as i32;
        let places = |count: usize| (0..count as i32).map(move |index| Place { item, index });
        let end = work.first + work.frames;
        let total = work.mel_total.map_or(usize::MAX, |total| geometry.halve(geometry.halve(total)));
        let inputs = geometry.inputs(work.first..end);
        let positions = inputs.start..inputs.end.min(total);
        let bounded = |frames: i64| frames.min(1 << 30) as i32;
        self.items.push(Item {
            slot: slot as i32,
            fresh: i32::from(work.fresh),
            language: language as i32,
            row: self.rows.len() as i32,
            frames: work.frames as i32,
            first: work.first as i32,
            left: bounded(visibility.left),
            chunk: bounded(visibility.chunk),
            right: bounded(visibility.right),
            ring: ring as i32,
            decode: work.decode.start as i32,
            decoded: work.decode.len() as i32,
            pcm: self.samples as i32,
            samples: samples as i32,
            pcm_first: work.pcm_first as i32,
            mel: self.frames as i32,
            mel_first: work.mel_first as i32,
            mel_old: work.mel_old as i32,
            mel_new: work.mel_new as i32,
            mel_keep: work.mel_keep as i32,
            mel_total: work.mel_total.map_or(i32::MAX, |total| total as i32),
            position: self.positions.len() as i32,
            position_first: positions.start as i32,
            positions: positions.len() as i32,
        });
        self.mels.extend(places(work.mel_new));
        self.positions.extend(places(positions.len()));
        self.rows.extend(places(work.frames));
        self.tiles.extend(places(work.frames).step_by(tile));
        self.frames += work.mel_old + work.mel_new;
        self.samples += samples;
        self.decoded += work.decode.len();
        self.most_decoded = self.most_decoded.max(work.decode.len());
    }

    /// Frames of each item that an iteration of decoding looks at.
    fn span(&self) -> usize {
        span(self.decoded / self.items.len().max(1))
    }

    /// Iterations that decode all items unless there are many tokens.
    pub fn likely_iterations(&self) -> usize {
        self.most_decoded.div_ceil(self.span()) + self.most_decoded / 4
    }

    /// How much there is.
    pub fn extent(&self) -> Extent {
        Extent {
            items: self.items.len(),
            rows: self.rows.len(),
            mels: self.mels.len(),
            frames: self.frames,
            positions: self.positions.len(),
            tiles: self.tiles.len(),
            joints: ladder(self.items.len()) * self.span(),
        }
    }

    /// Bytes of the step in this layout.
    pub fn bytes(&self, layout: &Layout) -> usize {
        layout.pcm + self.samples * size_of::<f32>()
    }

    /// Writes everything but the samples.
    pub fn write(&self, layout: &Layout, memory: &mut [u8]) {
        let Extent { items, rows, mels, positions, tiles, .. } = self.extent();
        let counts = Counts {
            items: items as i32,
            rows: rows as i32,
            mels: mels as i32,
            positions: positions as i32,
            tiles: tiles as i32,
            joints: (items * self.span()) as i32,
        };
        let mut put = |at: usize, bytes: &[u8]| memory[at..at + bytes.len()].copy_from_slice(bytes);
        put(layout.counts, bytemuck::bytes_of(&counts));
        put(layout.items, bytemuck::cast_slice(&self.items));
        put(layout.mels, bytemuck::cast_slice(&self.mels));
        put(layout.positions, bytemuck::cast_slice(&self.positions));
        put(layout.rows, bytemuck::cast_slice(&self.rows));
        put(layout.tiles, bytemuck::cast_slice(&self.tiles));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::Window;

    fn work(first: usize, frames: usize) -> Work {
        let mel_old = if first == 0 { 0 } else { 14 };
        Work {
            fresh: first == 0,
            first,
            frames,
            decode: 0..frames,
            pcm_first: 0,
            mel_first: (8 * first).saturating_sub(14),
            mel_old,
            mel_new: 8 * frames,
            mel_keep: 14,
            mel_total: None,
        }
    }

    /// Adds a stream with caches.
    fn push(batch: &mut Batch, slot: u32, work: &Work, samples: usize) {
        let visibility = Visibility { left: 70, chunk: 14, right: 0 };
        batch.push(slot, 0, 70, visibility, work, samples, Geometry::with(128, 256, true), 16);
    }

    #[test]
    fn parts_of_a_step_follow_one_another() {
        let mut batch = Batch::default();
        for (slot, frames, samples) in [(5, 7, 9_000), (2, 1, 1_700), (9, 20, 26_000)] {
            push(&mut batch, slot, &work(70, frames), samples);
        }
        let extent = batch.extent();
        // 28 / 3 frames of each in two looks, of 4 items.
        let all = Extent { items: 3, rows: 28, mels: 224, frames: 266, positions: 59, tiles: 4, joints: 20 };
        assert_eq!(extent, all);
        let last = batch.items[2];
        assert_eq!((last.row, last.pcm, last.mel, last.position), (8, 10_700, 92, 18));
        // The three convolutions look back: frame 70 sees positions 138 to 140 of the second level.
        assert_eq!((last.position_first, last.positions), (138, 41));
        assert_eq!(batch.tiles[2..], [Place { item: 2, index: 0 }, Place { item: 2, index: 16 }]);

        let layout = Layout::new(&extent);
        let mut memory = vec![0xff; batch.bytes(&layout)];
        batch.write(&layout, &mut memory);
        assert_eq!(memory.len(), layout.pcm + 4 * 36_700);
        let counts: Counts = bytemuck::pod_read_unaligned(&memory[layout.counts..][..size_of::<Counts>()]);
        let expected = Counts { items: 3, rows: 28, mels: 224, positions: 59, tiles: 4, joints: 15 };
        assert_eq!(counts, expected);
        let item: Item = bytemuck::pod_read_unaligned(&memory[layout.items + 2 * size_of::<Item>()..][..96]);
        assert_eq!((item.slot, item.frames, item.ring, item.mel_total), (9, 20, 70, i32::MAX));
        let parts = [layout.items, layout.mels, layout.positions, layout.rows, layout.tiles, layout.pcm];
        assert!(parts.is_sorted() && parts.iter().all(|at| at % 16 == 0), "{layout:?}");
    }

    #[test]
    fn spans_are_even_and_no_longer_than_what_is_decoded() {
        assert_eq!([0, 1, 2, 7, 8, 9, 14, 25, 375].map(span), [1, 1, 2, 7, 8, 5, 7, 7, 8]);
        // Less than twice as many rows of the joint as there are frames.
        for items in 1..=512 {
            for decoded in items..=512 {
                let joints = ladder(items) * span(decoded / items);
                assert!(joints <= Extent::recorded(ladder(decoded)).joints, "{items} {decoded}");
            }
        }
    }

    #[test]
    fn the_smallest_recording_that_covers_a_step_is_found() {
        let recorded = |items: usize, frames: usize| {
            let mut batch = Batch::default();
            (0..items).for_each(|slot| push(&mut batch, slot as u32, &work(140, frames), 0));
            let found = batch.extent().recording();
            assert!(found.is_none_or(|found| found.covers(&batch.extent())));
            found.map(|found| found.rows)
        };
        assert_eq!(
            [recorded(1, 1), recorded(3, 1), recorded(1, 14), recorded(64, 7)],
            [1, 4, 16, 448].map(Some)
        );
        assert_eq!([recorded(512, 1), recorded(513, 1), recorded(74, 7)], [Some(512), None, None]);
    }

    #[test]
    fn what_streams_will_bring_covers_what_they_bring() {
        let config = crate::convert::synthetic_config(&crate::convert::SynthOptions {
            like: crate::convert::Like::NemotronStreaming06b,
            vocabulary: None,
            layers: None,
            seed: 0,
        });
        let encoder = config.expect("a configuration").encoder;
        for (context, frames) in [(0, 14), (1, 7), (2, 2), (3, 1)] {
            let expected = Extent::expected(Mode::Cached { context }, &encoder, 3);
            let mut batch = Batch::default();
            (0..3).for_each(|slot| push(&mut batch, slot, &work(140, frames), 0));
            assert!(expected.covers(&batch.extent()), "{expected:?} {:?}", batch.extent());
        }
        let window = Window::default();
        let expected = Extent::expected(Mode::Buffered { context: 0, window }, &encoder, 2);
        let mut batch = Batch::default();
        let whole = Work { mel_old: 0, mel_keep: 0, mel_total: Some(1_400), mel_new: 1_400, ..work(0, 175) };
        let visibility = Visibility { left: i64::from(i32::MAX), chunk: 1, right: i64::from(i32::MAX) };
        for slot in 0..2 {
            batch.push(slot, 0, 0, visibility, &whole, window.samples(), Geometry::with(128, 256, false), 16);
        }
        assert!(expected.covers(&batch.extent()), "{expected:?} {:?}", batch.extent());
        assert_eq!((batch.items[0].left, batch.items[0].right), (1 << 30, 1 << 30));
    }
}
