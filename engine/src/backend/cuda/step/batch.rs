// SPDX-License-Identifier: MPL-2.0
//! One step of many streams as the kernels read it: a block of memory that is copied to the card in one piece.

use crate::backend::cuda::sizes::{Counts, Extent, Item, Layout, Place, ladder, span};
use crate::backend::timeline::Portion;
use crate::backend::visibility::Visibility;
use crate::model::Geometry;

/// Whose part of a step it is.
#[derive(Clone, Copy)]
pub struct Stream {
    pub slot: u32,
    /// Place of its language in the model's prompt.
    pub language: usize,
    /// Ring rows in use, 0 for a signal by itself.
    pub ring: usize,
    pub visibility: Visibility,
    /// Address of its phrases, 0 if it has none.
    pub phrases: u64,
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

    /// Adds a stream's part; its samples follow those of the streams before. `tile` is how many rows of one item the
    /// convolution computes one after the other.
    pub fn push(&mut self, stream: Stream, portion: &Portion, geometry: Geometry, tile: usize) {
        let Portion { pcm, mel_old, mel_new, frames, decode, .. } = portion;
        let item = self.items.len() as i32;
        let places = |count: usize| (0..count as i32).map(move |index| Place { item, index });
        let totals = portion.mel_total.map(|total| {
            let [one, two, _] = geometry.lengths(total);
            [total, one, two]
        });
        let total = |level: usize| totals.map_or(i32::MAX, |totals| totals[level] as i32);
        let inputs = geometry.inputs(frames.clone());
        let positions = inputs.start..inputs.end.min(totals.map_or(usize::MAX, |[.., two]| two));
        let bounded = |frames: i64| frames.min(1 << 30) as i32;
        self.items.push(Item {
            slot: stream.slot as i32,
            fresh: i32::from(portion.fresh),
            language: stream.language as i32,
            row: self.rows.len() as i32,
            frames: frames.len() as i32,
            first: frames.start as i32,
            left: bounded(stream.visibility.left),
            chunk: bounded(stream.visibility.chunk),
            right: bounded(stream.visibility.right),
            ring: stream.ring as i32,
            decode: decode.start as i32,
            decoded: decode.len() as i32,
            pcm: self.samples as i32,
            samples: pcm.len() as i32,
            pcm_first: pcm.start as i32,
            mel: self.frames as i32,
            mel_first: mel_old.start as i32,
            mel_old: mel_old.len() as i32,
            mel_new: mel_new.len() as i32,
            mel_keep: portion.mel_keep as i32,
            mel_total: total(0),
            position: self.positions.len() as i32,
            position_first: positions.start as i32,
            positions: positions.len() as i32,
            total1: total(1),
            total2: total(2),
            phrases: stream.phrases,
        });
        self.mels.extend(places(mel_new.len()));
        self.positions.extend(places(positions.len()));
        self.rows.extend(places(frames.len()));
        self.tiles.extend(places(frames.len()).step_by(tile));
        self.frames += mel_old.len() + mel_new.len();
        self.samples += pcm.len();
        self.decoded += decode.len();
        self.most_decoded = self.most_decoded.max(decode.len());
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
    use crate::backend::{Mode, Window};

    fn portion(first: usize, frames: usize, samples: usize) -> Portion {
        let mel_first = (8 * first).saturating_sub(14);
        let mel_new = mel_first + if first == 0 { 0 } else { 14 };
        Portion {
            fresh: first == 0,
            origin: 0,
            pcm: 0..samples,
            mel_old: mel_first..mel_new,
            mel_new: mel_new..mel_new + 8 * frames,
            mel_keep: 14,
            mel_total: None,
            frames: first..first + frames,
            decode: 0..frames,
            decoded: first,
        }
    }

    fn stream(slot: u32, ring: usize, visibility: Visibility) -> Stream {
        Stream { slot, language: 0, ring, visibility, phrases: 0 }
    }

    /// Adds a stream with caches.
    fn push(batch: &mut Batch, slot: u32, portion: &Portion) {
        let visibility = Visibility { left: 70, chunk: 14, right: 0 };
        let geometry = Geometry { mel_bins: 128, channels: 256, causal: true };
        batch.push(stream(slot, 70, visibility), portion, geometry, 16);
    }

    #[test]
    fn parts_of_a_step_follow_one_another() {
        let mut batch = Batch::default();
        for (slot, frames, samples) in [(5, 7, 9_000), (2, 1, 1_700), (9, 20, 26_000)] {
            push(&mut batch, slot, &portion(70, frames, samples));
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
        let item: Item = bytemuck::pod_read_unaligned(
            &memory[layout.items + 2 * size_of::<Item>()..][..size_of::<Item>()],
        );
        assert_eq!((item.slot, item.frames, item.ring, item.mel_total), (9, 20, 70, i32::MAX));
        let parts = [layout.items, layout.mels, layout.positions, layout.rows, layout.tiles, layout.pcm];
        assert!(parts.is_sorted() && parts.iter().all(|at| at % 16 == 0), "{layout:?}");
    }

    #[test]
    fn the_smallest_graph_that_covers_a_step_is_found() {
        let rows = |items: usize, frames: usize| {
            let mut batch = Batch::default();
            (0..items).for_each(|slot| push(&mut batch, slot as u32, &portion(140, frames, 0)));
            let found = batch.extent().covering_rung();
            assert!(found.is_none_or(|found| found.covers(&batch.extent())));
            found.map(|found| found.rows)
        };
        assert_eq!([rows(1, 1), rows(3, 1), rows(1, 14), rows(64, 7)], [1, 4, 16, 448].map(Some));
        assert_eq!([rows(512, 1), rows(513, 1), rows(74, 7)], [Some(512), None, None]);
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
            (0..3).for_each(|slot| push(&mut batch, slot, &portion(140, frames, 0)));
            assert!(expected.covers(&batch.extent()), "{expected:?} {:?}", batch.extent());
        }
        let window = Window::default();
        let expected = Extent::expected(Mode::Buffered { context: 0, window }, &encoder, 2);
        let mut batch = Batch::default();
        let whole = Portion {
            mel_old: 0..0,
            mel_new: 0..1_400,
            mel_keep: 0,
            mel_total: Some(1_400),
            ..portion(0, 175, window.samples())
        };
        let geometry = Geometry { mel_bins: 128, channels: 256, causal: false };
        let visibility = Visibility { left: i64::from(i32::MAX), chunk: 1, right: i64::from(i32::MAX) };
        for slot in 0..2 {
            batch.push(stream(slot, 0, visibility), &whole, geometry, 16);
        }
        assert!(expected.covers(&batch.extent()), "{expected:?} {:?}", batch.extent());
        assert_eq!((batch.items[0].left, batch.items[0].right), (1 << 30, 1 << 30));
    }
}
