// SPDX-License-Identifier: MPL-2.0
//! Makes room on the card for what a step will need, before it needs it where that is known.

use super::CudaBackend;
use super::memory::Scratch;
use super::run::Job;
use super::sizes::{Extent, Layout};
use super::step::{Positions, SlotState};
use crate::backend::Mode;
use crate::error::Result;

impl CudaBackend {
    /// Working memory that a full step would take beyond what is there.
    pub(super) fn reserve(&self) -> usize {
        let Scratch { growing, extent, .. } = &self.scratch;
        (growing / extent.rows.max(1) * self.most_rows(true)).saturating_sub(*growing)
    }

    /// Makes room for a step of all open streams of this mode, or as many as a step should hold, before they have audio.
    pub(super) fn prepare_for(&mut self, mode: Mode) -> Result<()> {
        let alike = |state: &&SlotState| state.mode == mode;
        let count = self.slots.iter().flatten().map(Box::as_ref).filter(alike).count();
        let encoder = &self.model.config.encoder;
        let one = Extent::expected(mode, encoder, 1);
        let limit = self.most_rows(matches!(mode, Mode::Cached { .. }));
        let count = count.min(limit / one.rows.max(1)).max(1);
        if self.scratch.extent.covers(&Extent::expected(mode, encoder, count)) {
            return Ok(());
        }
        // Twice as many, so that opening thousands makes room a few times only.
        let count = (2 * count).min(limit / one.rows.max(1)).max(1);
        let extent = Extent::expected(mode, encoder, count);
        let extent = extent.covering_rung().unwrap_or(extent);
        let samples = count * Extent::samples(mode, encoder);
        self.grow_scratch(&extent, Layout::new(&extent).pcm + samples * size_of::<f32>())
    }

    /// Makes room for a step of this extent and so many bytes of description and samples.
    pub(super) fn grow_scratch(&mut self, extent: &Extent, bytes: usize) -> Result<()> {
        if self.scratch.extent.covers(extent) && self.scratch.input.bytes >= bytes {
            return Ok(());
        }
        self.device.wait()?;
        self.graphs.clear();
        let extent = self.scratch.extent.max(extent);
        let samples =
            bytes.max(self.scratch.input.bytes).saturating_sub(Layout::new(&extent).pcm).div_ceil(4);
        // The old memory goes first: both may not fit.
        self.scratch = Scratch::new(&self.device, &self.shape, Extent::rung(1), 0)?;
        self.scratch = Scratch::new(&self.device, &self.shape, extent, samples)?;
        Ok(())
    }

    /// Projects the positions that whole signals need and nobody needed before.
    pub(super) fn extend_positions(&mut self, jobs: &[Job]) -> Result<()> {
        let known = self.signal_positions.as_ref().map_or(0..0, |positions| positions.range.clone());
        let mut range = known.clone();
        for job in jobs {
            let last = job.portion.frames.len() as i64 - 1;
            let seen = job.state.visibility;
            // In steps of 64, so that tables grow in few steps.
            let bound = |frames: i64| (frames.clamp(0, last) as u64).next_multiple_of(64) as i64;
            range.start = range.start.min(-bound(seen.chunk - 1 + seen.right));
            range.end = range.end.max(bound(seen.left.saturating_add(seen.chunk - 1)) + 1);
        }
        if self.signal_positions.is_none() || range != known {
            self.signal_positions = None;
            let Self { device, shape, kernels, params, products, .. } = self;
            self.signal_positions = Some(Positions::new(device, shape, kernels, params, products, range)?);
        }
        Ok(())
    }
}
