// SPDX-License-Identifier: MPL-2.0
//! A view of a matrix whose rows lie any distance apart.

use std::ops::Range;

/// `count` rows of `width` values, `stride` apart.
#[derive(Clone, Copy)]
pub struct Rows<'a> {
    data: &'a [f32],
    pub count: usize,
    pub width: usize,
    pub stride: usize,
}

impl<'a> Rows<'a> {
    /// Panics if `data` is too short: the shapes come from this crate alone.
    pub fn new(data: &'a [f32], count: usize, width: usize, stride: usize) -> Self {
        let rows = Self { data, count, width, stride };
        assert!(rows.fit());
        rows
    }

    /// Whether all rows lie inside the data.
    pub fn fit(&self) -> bool {
        self.count == 0
            || (self.stride >= self.width && self.data.len() >= (self.count - 1) * self.stride + self.width)
    }

    /// Rows that follow each other without a gap.
    pub fn dense(data: &'a [f32], width: usize) -> Self {
        Self::new(data, data.len() / width, width, width)
    }

    /// Some of the rows.
    pub fn part(&self, rows: Range<usize>) -> Self {
        Self::new(&self.data[rows.start * self.stride..], rows.len(), self.width, self.stride)
    }

    /// All values from the first row on.
    pub fn data(&self) -> &'a [f32] {
        self.data
    }

    pub fn row(&self, index: usize) -> &'a [f32] {
        &self.data[index * self.stride..][..self.width]
    }
}
