// SPDX-License-Identifier: MPL-2.0
//! The last samples of a signal.

/// Samples of a signal from one on.
#[derive(Default)]
pub struct Held {
    samples: Vec<f32>,
    first: usize,
}

impl Held {
    /// Takes the samples that come next.
    pub fn push(&mut self, pcm: &[f32]) {
        self.samples.extend_from_slice(pcm);
    }

    /// Lets go of those before sample `first` of the signal.
    pub fn drop_before(&mut self, first: usize) {
        let count = first.saturating_sub(self.first).min(self.samples.len());
        self.samples.drain(..count);
        self.first += count;
    }

    /// Those that are held.
    pub fn samples(&self) -> &[f32] {
        &self.samples
    }

    /// Index of the first of them in the signal.
    pub fn first(&self) -> usize {
        self.first
    }
}
