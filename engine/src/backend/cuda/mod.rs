// SPDX-License-Identifier: MPL-2.0
//! The CUDA backend: audio goes to the card, tokens come back, everything in between stays there.
//!
//! The driver, NVRTC and cuBLASLt are opened at run time, so a program with this backend in it runs without them. Streams
//! with caches are stepped together, whatever their context and wherever they stand; so are windows and whole signals.
//! [`Engine::open`](crate::Engine::open) and [`open`](super::open()) run models on it.

mod card;
mod grow;
mod memory;
mod run;
mod sizes;
mod step;
#[cfg(test)]
mod tests;
mod turns;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use crate::backend::mode::check;
use crate::backend::timeline::Portion;
use crate::backend::visibility::Visibility;
use crate::backend::{Backend, Decoded, EngineOptions, Limits, Memory, Mode, Peaks, Slot, Step, Timings};
use crate::error::{Error, Fault, Result};
use crate::model::{Boosts, Model};

use card::{Buffer, Device, Graph, Kernels, Products, Target};
use memory::{Params, PhraseStore, Pool, Scratch};
use run::{GRAIN, GraphKey, Job, each};
use sizes::{Extent, FIRST_ROWS, Shape, WORKSPACE, WorkingSizes};
use step::{Batch, MOST_HELD, Positions, SlotState};
use turns::Turns;

pub use sizes::stream_bytes;

const NAME: &str = "cuda";

/// A step of the caller's list with its slot's state, and what there is to do.
type Prepared = (usize, Box<SlotState>, Result<Option<Portion>, String>);

/// A model on one card.
pub(crate) struct CudaBackend {
    device: Arc<Device>,
    model: Arc<Model>,
    shape: Shape,
    kernels: Arc<Kernels>,
    params: Arc<Params>,
    products: Products,
    pool: Pool,
    slots: Vec<Option<Box<SlotState>>>,
    scratch: Scratch,
    batch: Batch,
    /// Of streams with caches.
    ring_positions: Option<Arc<Positions>>,
    /// Of signals by themselves, for the longest so far of those for which all layers' are kept.
    signal_positions: Option<Positions>,
    /// Of longer ones.
    long_positions: Option<Positions>,
    /// Bytes of the positions of all layers of whole signals that are kept at most.
    most_held: usize,
    /// Decoder state of a fresh stream.
    start: Arc<Buffer>,
    /// Of the streams that are open, those of the one beside it among them.
    phrases: Arc<PhraseStore>,
    graphs: HashMap<GraphKey, Graph>,
    /// What ran once without being captured: its products are planned.
    planned: HashSet<GraphKey>,
    /// Bytes of the card's memory, in all.
    total_memory: usize,
    /// Bytes that a graph has taken at most.
    graph_bytes: usize,
    /// When a step last made use of most of the working memory.
    used: Instant,
    /// What this backend's streams and steps may still need, for the one beside it.
    own_reserve: Arc<AtomicUsize>,
    /// The same of the one that this is beside.
    others_reserve: Arc<AtomicUsize>,
    /// With the other one of the same card, if there is one.
    turns: Arc<Turns>,
    /// It is beside another, whose streams come first.
    paced: bool,
    measuring: bool,
    timings: Option<Timings>,
    /// Why the card can't be used any more.
    broken: Option<String>,
}

/// How many cards the driver shows, or why there is none.
pub fn count() -> Result<usize> {
    Device::count()
}

impl CudaBackend {
    /// Brings `model` to card `index`. Fails, saying what is missing, where there is no such card, NVRTC or cuBLASLt.
    pub(crate) fn new(model: Arc<Model>, options: &EngineOptions, index: usize) -> Result<Self> {
        // What is wrong with the model or the options is told without a card.
        Shape::new(&model.config, options)?;
        let device = Device::open(index)?;
        let precision = device.card.precision(options.precision, &model.config);
        let shape = Shape::new(&model.config, &EngineOptions { precision, ..options.clone() })?;
        let shape = shape.on(device.card)?;
        let target = Target::of(shape.card.capability)?;
        Self::with(model, shape, device, target)
    }

    /// Of this shape, with kernels that are made so.
    fn with(model: Arc<Model>, shape: Shape, device: Arc<Device>, target: Target) -> Result<Self> {
        let mut products = Products::new(&device, &shape)?;
        let kernels = Kernels::load(&device, &shape, target)?;
        let mut params = Params::load(&device, &model, &shape, &kernels)?;
        let scratch = Scratch::new(&device, &shape, Extent::rung(FIRST_ROWS), 0)?;
        let start = step::start(&device, &shape, &kernels, &mut params, &mut products, &scratch)?;
        let ring_positions = match shape.left {
            0 => None,
            left => {
                let range = 1 - shape.chunk as i64..(left + shape.chunk) as i64;
                Some(Positions::new(&device, &shape, &kernels, &params, &mut products, range)?)
            }
        };
        Ok(Self {
            pool: Pool::new(&device, shape.block_bytes())?,
            total_memory: device.memory().map_or(0, |memory| memory.total),
            device,
            model,
            shape,
            kernels: Arc::new(kernels),
            params: Arc::new(params),
            products,
            slots: Vec::new(),
            scratch,
            batch: Batch::default(),
            ring_positions: ring_positions.map(Arc::new),
            signal_positions: None,
            long_positions: None,
            most_held: MOST_HELD,
            start: Arc::new(start),
            phrases: Arc::default(),
            graphs: HashMap::new(),
            planned: HashSet::new(),
            graph_bytes: 0,
            used: Instant::now(),
            own_reserve: Arc::default(),
            others_reserve: Arc::default(),
            turns: Arc::default(),
            paced: false,
            measuring: false,
            timings: None,
            broken: None,
        })
    }

    /// Another on the same card with the same weights and kernels, whose work goes behind this one's.
    fn second(&mut self) -> Result<Self> {
        self.device.bind()?;
        let (reserve, block) = (self.reserve(), self.shape.block_bytes());
        self.own_reserve.store(reserve, Ordering::Relaxed);
        if let Some(memory) = self.device.memory().filter(|memory| memory.free < reserve + block + WORKSPACE)
        {
            let reason = format!("no memory for whole signals by themselves: {} bytes are free", memory.free);
            return Err(failed_as(Fault::OutOfMemory, reason));
        }
        let device = self.device.beside()?;
        Ok(Self {
            products: Products::new(&device, &self.shape)?,
            pool: Pool::new(&device, block)?,
            scratch: Scratch::new(&device, &self.shape, Extent::rung(FIRST_ROWS), 0)?,
            device,
            model: self.model.clone(),
            shape: self.shape.clone(),
            kernels: self.kernels.clone(),
            params: self.params.clone(),
            slots: Vec::new(),
            batch: Batch::default(),
            ring_positions: self.ring_positions.clone(),
            signal_positions: None,
            long_positions: None,
            most_held: MOST_HELD,
            start: self.start.clone(),
            phrases: self.phrases.clone(),
            graphs: HashMap::new(),
            planned: HashSet::new(),
            total_memory: self.total_memory,
            graph_bytes: 0,
            used: Instant::now(),
            own_reserve: Arc::default(),
            others_reserve: self.own_reserve.clone(),
            turns: self.turns.clone(),
            paced: true,
            measuring: false,
            timings: None,
            broken: None,
        })
    }

    /// Most rows of a step of streams with caches (`rings`), or of whole signals.
    fn most_rows(&self, rings: bool) -> usize {
        sizes::most_rows(self.total_memory, rings)
    }
}

impl Backend for CudaBackend {
    fn name(&self) -> &'static str {
        NAME
    }

    fn device(&self) -> String {
        self.device.describe()
    }

    fn limits(&self) -> Limits {
        let frames = self.most_rows(true);
        Limits { streams: frames, frames, whole_frames: self.most_rows(false), time: None }
    }

    fn open(&mut self, mode: Mode, language: usize) -> Result<Slot> {
        check(&self.model.config, mode, NAME)?;
        if let Some(reason) = &self.broken {
            let reason = format!("{} can't be used any more: {reason}", self.device.describe());
            return Err(failed_as(Fault::DeviceLost, reason));
        }
        if let Mode::Cached { context } = mode
            && self.shape.encoder.contexts[context][0] == 0
        {
            return Err(Error::Unsupported(
                "cuda streams with caches only what looks back; use the backend cpu".into(),
            ));
        }
        self.device.bind()?;
        let reserve = self.reserve();
        self.own_reserve.store(reserve, Ordering::Relaxed);
        let slot = self.pool.take(reserve + self.others_reserve.load(Ordering::Relaxed))?;
        let index = slot as usize;
        if self.slots.len() <= index {
            self.slots.resize_with(index + 1, || None);
        }
        self.slots[index] = Some(Box::new(SlotState::new(&self.model.config, mode, language)));
        if !self.paced {
            self.turns.opened();
        }
        if let Err(e) = self.prepare_for(mode) {
            self.close(Slot(slot));
            return Err(e);
        }
        Ok(Slot(slot))
    }

    fn boost(&mut self, slot: Slot, boosts: &Arc<Boosts>) -> Result<()> {
        boosts.check(&self.model.vocabulary)?;
        let reserve = self.reserve() + self.others_reserve.load(Ordering::Relaxed);
        let phrases = self.phrases.take(&self.device, boosts, reserve)?;
        let state = self.slots.get_mut(slot.0 as usize).and_then(Option::as_mut);
        let state = state.ok_or_else(|| failed(format!("slot {} is not open", slot.0)))?;
        state.phrases = Some(phrases);
        Ok(())
    }

    fn close(&mut self, slot: Slot) {
        // A panic may have taken its state along; the pool knows that it is taken.
        if let Some(state) = self.slots.get_mut(slot.0 as usize) {
            *state = None;
            self.pool.give(slot.0);
            if !self.paced {
                self.turns.closed();
            }
        }
    }

    fn reset(&mut self, slot: Slot) {
        if let Some(Some(state)) = self.slots.get_mut(slot.0 as usize) {
            let phrases = state.phrases.take();
            **state = SlotState::new(&self.model.config, state.mode, state.language);
            state.phrases = phrases;
        }
    }

    fn step(&mut self, steps: &[Step<'_>]) -> Vec<Result<Decoded>> {
        let turns = self.turns.clone();
        let _turn = (!self.paced).then(|| turns.begin());
        let mut results: Vec<Option<Result<Decoded>>> = steps.iter().map(|_| None).collect();
        let mut prepared: Vec<Prepared> = Vec::with_capacity(steps.len());
        for (index, step) in steps.iter().enumerate() {
            let state = self.slots.get_mut(step.slot.0 as usize).and_then(Option::take);
            prepared.extend(state.map(|state| (index, state, Ok(None))));
        }
        // A window is much to copy, a chunk little.
        let windows = prepared.iter().any(|(_, state, _)| matches!(state.mode, Mode::Buffered { .. }));
        let grain = if windows { 1 } else { GRAIN };
        each(&mut prepared, grain, |(index, state, portion)| *portion = state.prepare(&steps[*index]));
        let (mut cached, mut whole) = (Vec::new(), Vec::new());
        for (index, state, portion) in prepared {
            let slot = steps[index].slot.0;
            match portion {
                Ok(Some(portion)) => {
                    let jobs =
                        if matches!(state.mode, Mode::Cached { .. }) { &mut cached } else { &mut whole };
                    let pcm = steps[index].pcm;
                    jobs.push(Job {
                        index,
                        slot,
                        pcm,
                        state,
                        portion,
                        decoded: Decoded::default(),
                        overflowed: false,
                    });
                }
                idle => {
                    results[index] = Some(idle.map(|_| Decoded::default()).map_err(failed));
                    self.slots[slot as usize] = Some(state);
                }
            }
        }
        self.run(cached, true, &mut results);
        self.run(whole, false, &mut results);
        self.tidy();
        let missing = |slot: Slot| Err(failed(format!("slot {} is not open or stepped twice", slot.0)));
        let step = |(result, step): (Option<_>, &Step<'_>)| result.unwrap_or_else(|| missing(step.slot));
        results.into_iter().zip(steps).map(step).collect()
    }

    fn slot_bytes(&self, mode: Mode) -> usize {
        let samples = match mode {
            Mode::Buffered { window, .. } => window.samples(),
            Mode::Cached { .. } | Mode::Offline { .. } => 0,
        };
        self.shape.slot_bytes() + samples * size_of::<f32>()
    }

    fn signal_bytes(&self, mode: Mode, samples: usize) -> Option<usize> {
        let samples = mode.signal_samples(samples)?;
        let extent = Extent::signal(self.shape.geometry, self.shape.tile, samples);
        let positions = Visibility::new(&self.model.config.encoder, mode).distances(extent.rows).count();
        let working = WorkingSizes::new(&self.shape, &extent, samples).bytes();
        let positions = positions.next_multiple_of(64) + 65;
        Some(working + Positions::bytes(&self.shape, positions, self.are_held(positions)))
    }

    fn beside(&mut self) -> Option<Result<Box<dyn Backend>>> {
        Some(self.second().map(|backend| Box::new(backend) as Box<dyn Backend>))
    }

    fn rest(&mut self) {
        self.shrink();
    }

    fn memory(&self) -> Option<Memory> {
        self.device.bind().ok()?;
        self.device.memory()
    }

    fn measure(&mut self, on: bool) {
        self.measuring = on;
        self.timings = None;
    }

    fn timings(&self) -> Option<Timings> {
        self.timings
    }

    fn peaks(&mut self) -> Result<Option<Peaks>> {
        self.device.bind()?;
        card::measure(&self.device, &mut self.products, &self.shape).map(Some)
    }
}

fn failed(reason: String) -> Error {
    failed_as(Fault::Internal, reason)
}

fn failed_as(kind: Fault, reason: String) -> Error {
    Error::Backend { backend: NAME, device: None, kind, reason }
}
