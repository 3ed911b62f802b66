// SPDX-License-Identifier: MPL-2.0
//! The CPU backend: the reference for the others and the embedded default. Arithmetic in single precision.

mod attention;
mod decoder;
mod encoder;
#[cfg(target_arch = "x86_64")]
mod kernel;
mod matmul;
mod memory;
mod ops;
mod params;
mod parts;
mod prompt;
mod rows;
mod simd;
mod slot;
mod subsampling;
#[cfg(test)]
mod tests;
mod whole;
mod window;

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rayon::prelude::*;

use crate::audio::features::LogMel;
use crate::backend::mode::{check, ring_rows};
use crate::backend::room::no_room;
use crate::backend::timeline::Portion;
use crate::backend::{Backend, Decoded, Limits, Mode, Slot, Step};
use crate::error::{Error, Fault, Result};
use crate::model::{Boosts, Geometry, Model, ModelConfig};

use decoder::DecoderState;
use encoder::PositionTables;
use params::Params;
use rows::Rows;
use slot::SlotState;

const NAME: &str = "cpu";

/// Most streams of a step: bounds the time that a newly complete chunk waits for the step under way.
const MOST_STREAMS: usize = 64;
/// Longest that a step should take. How long that of some streams does depends on the model, the processor and what else runs
/// there.
const LONGEST_STEP: Duration = Duration::from_millis(200);

/// Most rows that one thread runs through the layers together: their widest activation stays in its cache.
const GROUP_ROWS: usize = 64;

/// Most rows whose working memory is kept for later steps.
const KEPT_ROWS: usize = 1_024;

/// A model on the processor's cores.
pub struct CpuBackend {
    shared: Arc<Shared>,
    /// By number; none of a slot that is free, or whose state a panic took along.
    slots: Vec<Option<Box<SlotState>>>,
    /// Numbers of those that were closed.
    free: Vec<u32>,
    /// Projected positions in use, by the range of distances.
    positions: HashMap<Range<i64>, Arc<PositionTables>>,
    pool: rayon::ThreadPool,
    scratch: Mutex<Vec<Scratch>>,
    /// Bytes of memory that are free, if that is known.
    available: fn() -> Option<usize>,
}

/// What all threads read, those of a backend beside it too.
struct Shared {
    model: Arc<Model>,
    params: Params,
    mel: LogMel,
    geometry: Geometry,
}

/// Working memory of one group of steps.
#[derive(Default)]
struct Scratch {
    rows: Vec<f32>,
    encoder: encoder::Scratch,
    prompt: prompt::Scratch,
}

/// A step with its slot's state, taken out of the pool while it runs.
struct Job<'a> {
    step: Step<'a>,
    state: Box<SlotState>,
    result: Result<Decoded>,
}

impl CpuBackend {
    /// Prepares `model` for `threads` threads, all cores if 0.
    pub fn new(model: Arc<Model>, threads: usize) -> Result<Self> {
        let shared = Shared {
            params: Params::load(&model)?,
            mel: LogMel::new(&model.config.features),
            geometry: Geometry::new(&model.config),
            model,
        };
        Self::with(Arc::new(shared), threads)
    }

    fn with(shared: Arc<Shared>, threads: usize) -> Result<Self> {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .thread_name(|index| format!("parakeet-cpu-{index}"))
            .build()
            .map_err(|e| failed(format!("cannot start its threads: {e}")))?;
        Ok(Self {
            shared,
            slots: Vec::new(),
            free: Vec::new(),
            positions: HashMap::new(),
            pool,
            scratch: Mutex::default(),
            available: memory::available,
        })
    }

    fn config(&self) -> &ModelConfig {
        &self.shared.model.config
    }

    fn positions(&mut self, mode: Mode) -> Arc<PositionTables> {
        let range = match mode {
            Mode::Cached { context } => {
                let [left, right] = self.config().encoder.contexts[context].map(i64::from);
                -right..left + right + 1
            }
            Mode::Buffered { .. } => {
                let frames = ring_rows(self.config(), mode) as i64;
                1 - frames..frames
            }
            // Once it is known how many.
            Mode::Offline { .. } => return Arc::new(PositionTables::Made(0..0)),
        };
        self.positions.retain(|known, tables| *known == range || Arc::strong_count(tables) > 1);
        let shared = &self.shared;
        let new = || self.pool.install(|| Arc::new(shared.position_tables(range.clone())));
        self.positions.entry(range.clone()).or_insert_with(new).clone()
    }
}

impl Backend for CpuBackend {
    fn name(&self) -> &'static str {
        NAME
    }

    fn device(&self) -> String {
        format!("{} threads", self.pool.current_num_threads())
    }

    fn limits(&self) -> Limits {
        Limits { streams: MOST_STREAMS, time: Some(LONGEST_STEP), ..Limits::default() }
    }

    fn open(&mut self, mode: Mode, language: usize) -> Result<Slot> {
        check(self.config(), mode, NAME)?;
        let positions = self.positions(mode);
        let state = Some(Box::new(SlotState::new(self.config(), mode, language, positions)));
        // Only what was closed is free: the stream of a lost state still holds its number.
        let slot = self.free.pop().unwrap_or(self.slots.len() as u32);
        match self.slots.get_mut(slot as usize) {
            Some(place) => *place = state,
            None => self.slots.push(state),
        }
        Ok(Slot(slot))
    }

    fn boost(&mut self, slot: Slot, boosts: &Arc<Boosts>) -> Result<()> {
        boosts.check(&self.shared.model.vocabulary)?;
        let state = self.slots.get_mut(slot.0 as usize).and_then(Option::as_mut);
        let state = state.ok_or_else(|| failed(format!("slot {} is not open", slot.0)))?;
        state.decoder.boosts = Some(boosts.clone());
        Ok(())
    }

    fn close(&mut self, slot: Slot) {
        if let Some(state) = self.slots.get_mut(slot.0 as usize)
            && !self.free.contains(&slot.0)
        {
            *state = None;
            self.free.push(slot.0);
        }
    }

    fn reset(&mut self, slot: Slot) {
        let config = &self.shared.model.config;
        if let Some(Some(state)) = self.slots.get_mut(slot.0 as usize) {
            let boosts = state.decoder.boosts.take();
            **state = SlotState::new(config, state.mode(), state.language(), state.positions());
            state.decoder.boosts = boosts;
        }
    }

    fn step(&mut self, steps: &[Step<'_>]) -> Vec<Result<Decoded>> {
        let mut jobs: Vec<_> = steps
            .iter()
            .map(|step| {
                let state = self.slots.get_mut(step.slot.0 as usize).and_then(Option::take);
                state.map(|state| Job { step: *step, state, result: Ok(Decoded::default()) })
            })
            .collect();
        let mut present: Vec<_> = jobs.iter_mut().flatten().collect();
        let mut rest = &mut present[..];
        while !rest.is_empty() {
            let need = |job: &&mut Job<'_>| {
                self.signal_bytes(job.state.mode(), job.step.pcm.len()).unwrap_or_default()
            };
            let count = match memory::next(rest.iter().map(need), self.available) {
                memory::Next::Run(count) => {
                    self.run(&mut rest[..count]);
                    count
                }
                memory::Next::Refuse(free) => {
                    let job = &mut rest[0];
                    let (needed, samples) = (need(job), job.step.pcm.len());
                    job.result = Err(no_room(NAME, self.config(), samples, needed, free));
                    1
                }
            };
            rest = &mut rest[count..];
        }
        let slots = &mut self.slots;
        steps
            .iter()
            .zip(jobs)
            .map(|(step, job)| match job {
                Some(job) => {
                    slots[step.slot.0 as usize] = Some(job.state);
                    job.result
                }
                None => Err(failed(format!("slot {} is not open or stepped twice", step.slot.0))),
            })
            .collect()
    }

    fn slot_bytes(&self, mode: Mode) -> usize {
        let config = self.config();
        SlotState::bytes(config, mode) + DecoderState::bytes(&config.decoder)
    }

    fn signal_bytes(&self, mode: Mode, samples: usize) -> Option<usize> {
        let samples = mode.signal_samples(samples)?;
        Some(memory::signal_bytes(self.config(), mode, samples, self.pool.current_num_threads()))
    }

    fn beside(&mut self) -> Option<Result<Box<dyn Backend>>> {
        let threads = self.pool.current_num_threads();
        Some(Self::with(self.shared.clone(), threads).map(|backend| Box::new(backend) as Box<dyn Backend>))
    }

    fn rest(&mut self) {
        self.scratch.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

impl CpuBackend {
    /// Runs jobs side by side.
    fn run(&self, jobs: &mut [&mut Job<'_>]) {
        let per_thread = jobs.len().div_ceil(self.pool.current_num_threads()).max(1);
        let (shared, scratch) = (&self.shared, &self.scratch);
        let run = |jobs: &mut [&mut Job<'_>]| {
            let pop = || scratch.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let mut memory = pop().unwrap_or_default();
            shared.run(jobs, &mut memory);
            scratch.lock().unwrap_or_else(PoisonError::into_inner).push(memory);
        };
        self.pool.install(|| jobs.par_chunks_mut(per_thread).for_each(run));
    }
}

impl Shared {
    fn position_tables(&self, range: Range<i64>) -> PositionTables {
        PositionTables::new(&self.params.layers, range)
    }

    /// Features of every job, then the layers and the decoder over as many jobs at a time as fit.
    fn run(&self, jobs: &mut [&mut Job<'_>], scratch: &mut Scratch) {
        let mut ready: Vec<(&mut Job<'_>, Portion)> = Vec::new();
        for job in jobs.iter_mut() {
            match job.state.prepare(&self.mel, &job.step) {
                Ok(portion) if portion.frames.is_empty() => {}
                Ok(portion) => ready.push((job, portion)),
                Err(reason) => job.result = Err(failed(reason)),
            }
        }
        let mut rest = &mut ready[..];
        while !rest.is_empty() {
            let mut rows = 0;
            let fits = |(_, portion): &&(_, Portion)| {
                rows += portion.frames.len();
                rows <= GROUP_ROWS
            };
            let count = rest.iter().take_while(fits).count().max(1);
            let (group, others) = rest.split_at_mut(count);
            self.forward(group, scratch);
            rest = others;
            if scratch.rows.len() > KEPT_ROWS * self.model.config.encoder.width {
                *scratch = Scratch::default();
            }
        }
    }

    fn forward(&self, group: &mut [(&mut Job<'_>, Portion)], scratch: &mut Scratch) {
        let config = &self.model.config;
        let width = config.encoder.width;
        self.encode_inputs(group, scratch);
        let mut segments = Vec::new();
        let mut rows = 0;
        for (job, portion) in group.iter_mut() {
            let range = rows..rows + portion.frames.len();
            rows = range.end;
            segments.push(encoder::Segment {
                rows: range,
                first: portion.frames.start,
                state: &mut job.state.encoder,
            });
        }
        let (layers, x) = (&self.params.layers, &mut scratch.rows);
        match &mut segments[..] {
            [one] if one.state.is_whole() && rows > GROUP_ROWS => {
                whole::run(&config.encoder, layers, x, one.state, &mut scratch.encoder);
            }
            _ => encoder::run(&config.encoder, layers, x, &mut segments, &mut scratch.encoder),
        }
        let finish = |(job, _): &mut (&mut Job<'_>, Portion)| job.state.finish(config);
        group.iter_mut().for_each(finish);
        let mut encoded = Rows::dense(&scratch.rows, width);
        if let Some(prompt) = &self.params.prompt {
            let languages = group
                .iter()
                .flat_map(|(job, portion)| std::iter::repeat_n(job.state.language(), portion.frames.len()));
            prompt.apply(encoded, languages, &mut scratch.prompt);
            encoded = Rows::dense(&scratch.prompt.output, width);
        }
        let mut rows = 0;
        let mut segments: Vec<_> = group
            .iter_mut()
            .map(|(job, portion)| {
                let range = rows + portion.decode.start..rows + portion.decode.end;
                rows += portion.frames.len();
                decoder::Segment { rows: range, state: &mut job.state.decoder, tokens: Vec::new() }
            })
            .collect();
        decoder::run(&config.decoder, &self.params.decoder, encoded, &mut segments);
        let tokens: Vec<_> = segments.into_iter().map(|segment| segment.tokens).collect();
        for ((job, portion), tokens) in group.iter_mut().zip(tokens) {
            job.result = Ok(Decoded { tokens, frames: portion.decode.len() });
        }
    }

    /// Subsamples the new mel frames of every job into `scratch.rows`.
    fn encode_inputs(&self, group: &mut [(&mut Job<'_>, Portion)], scratch: &mut Scratch) {
        let config = &self.model.config;
        scratch.rows.clear();
        for (job, portion) in group.iter_mut() {
            let state = &mut job.state;
            let width = config.encoder.width;
            if !matches!(state.mode(), Mode::Cached { .. }) {
                state.size_for(config, portion.frames.len());
            }
            let (first, start) = (portion.frames.start, scratch.rows.len());
            let (mel, mel_first, mel_total) =
                (state.features(config), portion.mel_old.start, portion.mel_total);
            scratch.rows.reserve_exact(portion.frames.len() * width);
            scratch.rows.resize(start + portion.frames.len() * width, 0.0);
            let pieces = scratch.rows[start..].par_chunks_mut(subsampling::PIECE * width).enumerate();
            pieces.for_each_init(Vec::new, |made, (index, rows)| {
                let first = first + index * subsampling::PIECE;
                let frames = first..first + rows.len() / width;
                self.params.subsampling.run(self.geometry, mel, mel_first, mel_total, frames, made);
                rows.copy_from_slice(made);
            });
            if config.encoder.xscaling {
                let factor = (width as f32).sqrt();
                scratch.rows[start..].iter_mut().for_each(|x| *x *= factor);
            }
            state.advance(portion, config.features.mel_bins);
        }
    }
}

fn failed(reason: String) -> Error {
    Error::Backend { backend: NAME, device: None, kind: Fault::Internal, reason }
}
