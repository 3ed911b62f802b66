// SPDX-License-Identifier: MPL-2.0
//! What host and kernels hand each other.

use bytemuck::{Pod, Zeroable};

use super::extent::Extent;

/// `Item` of `common.cuh`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
pub struct Item {
    pub slot: i32,
    pub fresh: i32,
    pub language: i32,
    pub row: i32,
    pub frames: i32,
    pub first: i32,
    pub left: i32,
    pub chunk: i32,
    pub right: i32,
    pub ring: i32,
    pub decode: i32,
    pub decoded: i32,
    pub pcm: i32,
    pub samples: i32,
    pub pcm_first: i32,
    pub mel: i32,
    pub mel_first: i32,
    pub mel_old: i32,
    pub mel_new: i32,
    pub mel_keep: i32,
    pub mel_total: i32,
    pub position: i32,
    pub position_first: i32,
    pub positions: i32,
}

/// `Place` of `common.cuh`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Pod, Zeroable)]
pub struct Place {
    pub item: i32,
    pub index: i32,
}

/// `Counts` of `common.cuh`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Pod, Zeroable)]
pub struct Counts {
    pub items: i32,
    pub rows: i32,
    pub mels: i32,
    pub positions: i32,
    pub tiles: i32,
    pub joints: i32,
}

impl Counts {
    /// One of everything.
    pub const ONE: Self = Self { items: 1, rows: 1, mels: 1, positions: 1, tiles: 1, joints: 1 };
}

/// `Token` of `decode.cu`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
pub struct Emission {
    pub item: i32,
    pub id: i32,
    pub frame: i32,
    pub duration: i32,
    pub log_prob: f32,
    pub confidence: f32,
    pub margin: f32,
    pub duration_margin: f32,
}

/// Bytes of `Results`, before the emissions.
pub const HEADER: usize = 16;
/// Bytes of `Cursor`.
pub const CURSOR: usize = 20;
/// Bytes of `Pick`.
pub const PICK: usize = 20;

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
