// SPDX-License-Identifier: MPL-2.0
//! Makes room on the card for what a step will need, before it needs it where that is known, and gives it back.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::CudaBackend;
use super::memory::Scratch;
use super::run::Job;
use super::sizes::{Extent, FIRST_ROWS, Layout, MOST_GRAPHS, WorkingSizes, full_bytes};
use super::step::{Positions, SlotState};
use crate::backend::Mode;
use crate::backend::cuda::NAME;
use crate::backend::room::no_room;
use crate::error::Result;

/// Working memory that steps haven't made use of for so long is given back.
const DISUSE: Duration = Duration::from_secs(60);

impl CudaBackend {
    /// Memory that is to stay free beside what streams hold: what a full step would work in beyond what is there, and the
    /// graphs that may still be captured.
    pub(super) fn reserve(&self) -> usize {
        let working = full_bytes(&self.shape, &self.model.config, self.most_rows(true));
        let graphs = MOST_GRAPHS.saturating_sub(self.graphs.len()) * self.graph_bytes;
        working.saturating_sub(self.scratch.bytes) + graphs
    }

    /// Makes room for a step of all open streams of this mode, or as many as a step should hold, before they have audio.
    pub(super) fn prepare_for(&mut self, mode: Mode) -> Result<()> {
        let encoder = &self.model.config.encoder;
        let (open, fit) = self.count(mode);
        if self.scratch.extent.covers(&Extent::expected(mode, encoder, open.min(fit))) {
            return Ok(());
        }
        let (extent, bytes) = self.expected(mode);
        self.grow_scratch(&extent, bytes)
    }

    /// Streams of this mode that are open, and how many a step should hold.
    fn count(&self, mode: Mode) -> (usize, usize) {
        let alike = |state: &&SlotState| state.mode == mode;
        let open = self.slots.iter().flatten().map(Box::as_ref).filter(alike).count();
        let one = Extent::expected(mode, &self.model.config.encoder, 1).rows;
        let limit = self.most_rows(matches!(mode, Mode::Cached { .. }));
        (open.max(1), (limit / one.max(1)).max(1))
    }

    /// What is made room for where streams of this mode are open, and bytes of its description and samples: twice as many, so
    /// that opening thousands makes room a few times only.
    fn expected(&self, mode: Mode) -> (Extent, usize) {
        let encoder = &self.model.config.encoder;
        let (open, fit) = self.count(mode);
        let count = (2 * open).min(fit);
        let extent = Extent::expected(mode, encoder, count);
        let extent = extent.covering_rung().unwrap_or(extent);
        let samples = count * Extent::samples(mode, encoder);
        (extent, Layout::new(&extent).pcm + samples * size_of::<f32>())
    }

    /// Makes room for a step of this extent and so many bytes of description and samples.
    pub(super) fn grow_scratch(&mut self, extent: &Extent, bytes: usize) -> Result<()> {
        if self.scratch.extent.covers(extent) && self.scratch.input.bytes >= bytes {
            return Ok(());
        }
        let extent = self.scratch.extent.max(extent);
        let bytes = bytes.max(self.scratch.input.bytes);
        self.replace_scratch(extent, bytes)
    }

    /// Other working memory; what was captured knew the old.
    fn replace_scratch(&mut self, extent: Extent, bytes: usize) -> Result<()> {
        self.device.wait()?;
        self.graphs.clear();
        let samples = bytes.saturating_sub(Layout::new(&extent).pcm).div_ceil(size_of::<f32>());
        // The old memory goes first: both may not fit.
        self.scratch = Scratch::new(&self.device, &self.shape, Extent::rung(1), 0)?;
        self.scratch = Scratch::new(&self.device, &self.shape, extent, samples)?;
        Ok(())
    }

    /// Fails, saying what would fit, where there is no room for the step of these whole signals.
    pub(super) fn check_room(&self, jobs: &[Job], extent: &Extent, bytes: usize) -> Result<()> {
        let extent = self.scratch.extent.max(extent);
        let bytes = bytes.max(self.scratch.input.bytes);
        let samples = bytes.saturating_sub(Layout::new(&extent).pcm).div_ceil(size_of::<f32>());
        let (wanted, there) = self.positions_for(jobs);
        let positions = if there { 0 } else { Positions::bytes(&self.shape, wanted, self.are_held(wanted)) };
        let working = WorkingSizes::new(&self.shape, &extent, samples).bytes();
        let needed = working.saturating_sub(self.scratch.bytes) + positions;
        if needed == 0 {
            return Ok(());
        }
        // It takes the driver a while to say.
        let Some(memory) = self.device.memory() else { return Ok(()) };
        let free = memory.free.saturating_sub(self.others_reserve.load(Ordering::Relaxed));
        if needed <= free {
            return Ok(());
        }
        let samples = jobs.iter().map(|job| job.portion.pcm.len()).sum();
        // What it holds already is as good as free.
        let held = self.scratch.bytes;
        Err(no_room(NAME, &self.model.config, samples, needed + held, free + held))
    }

    /// Whether so many positions of all layers are kept.
    pub(super) fn are_held(&self, count: usize) -> bool {
        Positions::held_bytes(&self.shape, count) <= self.most_held
    }

    /// Distances that whole signals need, in steps of 64, so that tables grow in few steps.
    fn range_for(&self, jobs: &[Job]) -> std::ops::Range<i64> {
        let mut range = 0..1;
        for job in jobs {
            let seen = job.state.visibility.distances(job.portion.frames.len());
            let up = |distance: i64| (distance as u64).next_multiple_of(64) as i64;
            range.start = range.start.min(-up(-seen.start));
            range.end = range.end.max(up(seen.end - 1) + 1);
        }
        range
    }

    /// How many positions whole signals need, and whether they are there.
    fn positions_for(&self, jobs: &[Job]) -> (usize, bool) {
        let range = self.range_for(jobs);
        let count = range.clone().count();
        let known = if self.are_held(count) { &self.signal_positions } else { &self.long_positions };
        let covers = |known: &Positions| known.range.start <= range.start && known.range.end >= range.end;
        (count, known.as_ref().is_some_and(covers))
    }

    /// Makes room for the positions of whole signals, and projects those that are kept. Returns whether they are made layer by
    /// layer.
    pub(super) fn extend_positions(&mut self, jobs: &[Job]) -> Result<bool> {
        let (count, there) = self.positions_for(jobs);
        let long = !self.are_held(count);
        if there {
            return Ok(long);
        }
        let mut range = self.range_for(jobs);
        let (most, shape) = (self.most_held, &self.shape);
        let held = |count: usize| Positions::held_bytes(shape, count) <= most;
        let place = if long { &mut self.long_positions } else { &mut self.signal_positions };
        if let Some(known) = place.take() {
            let union = range.start.min(known.range.start)..range.end.max(known.range.end);
            if long || held(union.clone().count()) {
                range = union;
            }
        }
        let Self { device, shape, kernels, params, products, .. } = self;
        if long {
            self.long_positions = Some(Positions::by_layer(device, shape, range)?);
        } else {
            self.signal_positions = Some(Positions::new(device, shape, kernels, params, products, range)?);
        }
        Ok(long)
    }

    /// After a minute of small steps gives back what large ones took. Not in a step, whose streams aren't in their slots.
    pub(super) fn tidy(&mut self) {
        if self.used.elapsed() > DISUSE {
            self.shrink();
        }
    }

    /// Gives back the positions of long signals, and working memory of which the streams that are open need less than half.
    pub(super) fn shrink(&mut self) {
        self.used = Instant::now();
        if self.device.bind().is_err() {
            return;
        }
        self.long_positions = None;
        let mut modes: Vec<Mode> = Vec::new();
        for state in self.slots.iter().flatten() {
            if !modes.contains(&state.mode) {
                modes.push(state.mode);
            }
        }
        let mut extent = Extent::rung(FIRST_ROWS);
        let mut bytes = Layout::new(&extent).pcm;
        for (one, size) in modes.into_iter().map(|mode| self.expected(mode)) {
            (extent, bytes) = (extent.max(&one), bytes.max(size));
        }
        let samples = bytes.saturating_sub(Layout::new(&extent).pcm).div_ceil(size_of::<f32>());
        if 2 * WorkingSizes::new(&self.shape, &extent, samples).bytes() < self.scratch.bytes {
            // If there is no memory even for less, the next step says so.
            let _ = self.replace_scratch(extent, bytes);
        }
    }
}
