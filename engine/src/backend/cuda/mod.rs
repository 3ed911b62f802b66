// SPDX-License-Identifier: MPL-2.0
//! The CUDA backend: audio goes to the card, tokens come back, everything in between stays there.
//!
//! The driver, NVRTC and cuBLASLt are opened at run time, so a program with this backend in it runs without them. Streams
//! with caches are stepped together, whatever their context and wherever they stand; so are windows and whole signals.

mod batch;
mod decoder;
mod device;
mod encoder;
mod few;
mod kernels;
mod library;
mod params;
mod peaks;
mod pool;
mod products;
mod room;
mod scratch;
mod shape;
mod skinny;
mod slot;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use rayon::prelude::*;

use crate::backend::geometry::check;
use crate::backend::{
    Backend, Decoded, EngineOptions, Limits, Memory, Mode, Peaks, Slot, Step, Timings, Token,
};
use crate::error::{Error, Result};
use crate::model::Model;

use batch::{Batch, Extent, Layout};
use device::{Buffer, Device, Graph};
use encoder::Positions;
use kernels::Kernels;
use params::Params;
use pool::Pool;
use products::{Products, ladder};
use scratch::{HEADER, Record, Scratch};
use shape::Shape;
use slot::{SlotState, Work};

pub use shape::stream_bytes;

const NAME: &str = "cuda";

/// Rows of the working memory that a backend begins with.
const FIRST_ROWS: usize = 16;

/// Streams whose chunks a thread copies one after the other: fewer aren't worth waking another.
const GRAIN: usize = 64;

/// How many times as many rows a step of whole signals may have as one of chunks.
const WHOLE: usize = 4;

/// Most blocks of iterations that are enqueued before the host looks.
const MOST_BLOCKS: usize = 16;

/// Blocks that are enqueued for whole signals each time after that: most have some way to go.
const MORE_BLOCKS: usize = 8;

/// A model on one card.
pub struct CudaBackend {
    device: Arc<Device>,
    model: Arc<Model>,
    shape: Shape,
    kernels: Kernels,
    params: Params,
    products: Products,
    pool: Pool,
    slots: Vec<Option<Box<SlotState>>>,
    scratch: Scratch,
    batch: Batch,
    /// Of streams with caches.
    near: Option<Positions>,
    /// Of signals by themselves, for the longest so far.
    far: Option<Positions>,
    /// Decoder state of a fresh stream.
    start: Buffer,
    graphs: HashMap<Recording, Graph>,
    /// What ran once without being recorded: its products are planned.
    planned: HashSet<Recording>,
    limit: usize,
    measuring: bool,
    timings: Option<Timings>,
    /// Why the card can't be used any more.
    broken: Option<String>,
}

/// A part of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Part {
    Features,
    Layers,
    Decode,
    /// Once nothing is left to decode; never recorded.
    End,
}

/// What a graph was recorded for: the part, the rows of the step or for decoding of the joint, and the items of the part.
type Recording = (Part, usize, usize);

/// A step with its slot's state, taken out of the pool while it runs.
struct Job<'a> {
    /// Place in the caller's list.
    index: usize,
    slot: u32,
    /// The step's own samples.
    pcm: &'a [f32],
    state: Box<SlotState>,
    work: Work,
    decoded: Decoded,
}

impl Job<'_> {
    /// What goes to the card.
    fn samples(&self) -> &[f32] {
        self.state.pcm(self.pcm)
    }
}

/// A step that there is room for.
#[derive(Clone, Copy)]
struct Ready {
    /// What is enqueued, and what of it for decoding.
    extent: Extent,
    decode: Extent,
    layout: Layout,
    /// Of its description and samples.
    bytes: usize,
    /// Its items have rings.
    rings: bool,
    /// It has a recording: its description lies at the same places whatever it holds.
    recorded: bool,
}

/// How many cards there are, or why there is none.
pub fn count() -> Result<usize> {
    Device::count()
}

impl CudaBackend {
    /// Brings `model` to card `index`. Fails, saying what is missing, where there is no such card, NVRTC or cuBLASLt.
    pub fn new(model: Arc<Model>, options: &EngineOptions, index: usize) -> Result<Self> {
        let shape = Shape::new(&model.config, options)?;
        let device = Device::open(index)?;
        shape.check_rings(device.shared_memory)?;
        let mut products = Products::new(&device, &shape)?;
        let kernels = Kernels::load(&device, &shape)?;
        let mut params = Params::load(&device, &model, &shape, &kernels)?;
        let scratch = Scratch::new(&device, &shape, Extent::recorded(FIRST_ROWS), 0)?;
        let start = decoder::start(&device, &shape, &kernels, &mut params, &mut products, &scratch)?;
        let near = match shape.left {
            0 => None,
            left => {
                let range = 1 - shape.chunk as i64..(left + shape.chunk) as i64;
                Some(Positions::new(&device, &shape, &kernels, &params, &mut products, range)?)
            }
        };
        let pool = Pool::new(&device, shape.block_bytes())?;
        let total = device.memory().map_or(0, |memory| memory.total);
        Ok(Self {
            limit: if total >= 32 << 30 { 4_096 } else { 1_024 },
            device,
            model,
            shape,
            kernels,
            params,
            products,
            pool,
            slots: Vec::new(),
            scratch,
            batch: Batch::default(),
            near,
            far: None,
            start,
            graphs: HashMap::new(),
            planned: HashSet::new(),
            measuring: false,
            timings: None,
            broken: None,
        })
    }

    /// Runs jobs of one kind, as many at a time as a step should hold.
    fn run(&mut self, mut jobs: Vec<Job<'_>>, rings: bool, results: &mut [Option<Result<Decoded>>]) {
        let mut rest = &mut jobs[..];
        let limit = if rings { self.limit } else { WHOLE * self.limit };
        while !rest.is_empty() {
            let mut rows = 0;
            let fits = |job: &&Job<'_>| {
                rows += job.work.frames;
                rows <= limit
            };
            let count = rest.iter().take_while(fits).count().max(1);
            let (group, others) = rest.split_at_mut(count);
            self.run_group(group, rings, results);
            rest = others;
        }
        for job in jobs {
            self.slots[job.slot as usize] = Some(job.state);
        }
    }

    /// Runs jobs as one step, or where there is no room for that as several.
    fn run_group(&mut self, jobs: &mut [Job<'_>], rings: bool, results: &mut [Option<Result<Decoded>>]) {
        let outcome = match self.make_ready(jobs, rings) {
            Ok(ready) => self.run_ready(jobs, ready),
            Err(_) if jobs.len() > 1 => {
                // One of them may be what is too large: the others needn't fail with it.
                let (some, others) = jobs.split_at_mut(jobs.len() / 2);
                self.run_group(some, rings, results);
                return self.run_group(others, rings, results);
            }
            Err(e) => Err(e),
        };
        if let Err(e) = &outcome
            && self.device.wait().is_err()
        {
            // No call to a card recovers from this, so no stream is to come here any more.
            self.broken = Some(e.to_string());
        }
        for job in jobs {
            let result = outcome.as_ref().map(|()| std::mem::take(&mut job.decoded));
            results[job.index] = Some(result.map_err(|e| match e {
                Error::Backend { reason, .. } => failed(reason.clone()),
                other => failed(other.to_string()),
            }));
        }
    }

    /// Describes the step and makes room for it; nothing is enqueued yet.
    fn make_ready(&mut self, jobs: &[Job<'_>], rings: bool) -> Result<Ready> {
        self.device.bind()?;
        self.fill(jobs, rings);
        let exact = self.batch.extent();
        let recorded = if rings { exact.recording() } else { None };
        let extent = recorded.unwrap_or(exact);
        let layout = Layout::new(&extent);
        let bytes = self.batch.bytes(&layout);
        self.fit(&extent, bytes)?;
        if !rings {
            self.reach(jobs)?;
        }
        let decode = Extent { items: ladder(exact.items), joints: exact.joints, ..extent };
        Ok(Ready { extent, decode, layout, bytes, rings, recorded: recorded.is_some() })
    }

    fn run_ready(&mut self, jobs: &mut [Job<'_>], ready: Ready) -> Result<()> {
        let grain = if ready.rings { GRAIN } else { 1 };
        self.stage(jobs, &ready, grain);
        let marks = self.enqueue(ready)?;
        // What the card needs is staged: the host can tidy up meanwhile.
        jobs.par_iter_mut().with_min_len(grain).for_each(|job| job.state.advance());
        self.collect(jobs, ready)?;
        if let Some([start, copied, subsampled, encoded]) = marks {
            let end = self.device.mark()?;
            self.device.wait()?;
            self.timings = Some(Timings {
                copies: start.until(&copied)?,
                features: copied.until(&subsampled)?,
                layers: subsampled.until(&encoded)?,
                decode: encoded.until(&end)?,
            });
        }
        Ok(())
    }

    /// Describes the step.
    fn fill(&mut self, jobs: &[Job<'_>], rings: bool) {
        self.batch.clear();
        for job in jobs {
            let state = &job.state;
            let ring = match (rings, state.mode) {
                (true, Mode::Cached { context }) => self.shape.encoder.contexts[context][0] as usize,
                _ => 0,
            };
            self.batch.push(
                job.slot,
                state.language,
                ring,
                state.visibility,
                &job.work,
                job.samples().len(),
                self.shape.geometry,
                self.shape.tile,
            );
        }
    }

    /// Writes the step's description and samples where the card copies them from.
    fn stage(&mut self, jobs: &[Job<'_>], Ready { layout, bytes, .. }: &Ready, grain: usize) {
        let memory = &mut self.scratch.staged.bytes_mut()[..*bytes];
        self.batch.write(layout, memory);
        let mut rest = &mut memory[layout.pcm..];
        let mut copies = Vec::new();
        for job in jobs {
            let samples: &[u8] = bytemuck::cast_slice(job.samples());
            let (to, others) = rest.split_at_mut(samples.len());
            copies.push((to, samples));
            rest = others;
        }
        copies.into_par_iter().with_min_len(grain).for_each(|(to, samples)| to.copy_from_slice(samples));
    }

    /// Enqueues the step up to its first decisions; the marks are before and after the copy and each part.
    fn enqueue(&mut self, ready: Ready) -> Result<Option<[device::Mark; 4]>> {
        let measuring = self.measuring;
        let mark = |device: &Device| measuring.then(|| device.mark()).transpose();
        let blocks = self.batch.likely_iterations().div_ceil(decoder::ITERATIONS).clamp(1, MOST_BLOCKS);
        let start = mark(&self.device)?;
        self.device.send(&self.scratch.staged, ready.bytes, self.scratch.input.address)?;
        let copied = mark(&self.device)?;
        self.part(Part::Features, ready)?;
        let subsampled = mark(&self.device)?;
        self.part(Part::Layers, ready)?;
        let encoded = mark(&self.device)?;
        for _ in 0..blocks {
            self.part(Part::Decode, ready)?;
        }
        Ok(match (start, copied, subsampled, encoded) {
            (Some(start), Some(copied), Some(subsampled), Some(encoded)) => {
                Some([start, copied, subsampled, encoded])
            }
            _ => None,
        })
    }

    /// Enqueues one part, as a recording if there is one for so many rows.
    fn part(&mut self, part: Part, ready: Ready) -> Result<()> {
        let Ready { layout, rings, .. } = ready;
        let extent = match part {
            Part::Features | Part::Layers => ready.extent,
            Part::Decode | Part::End => ready.decode,
        };
        let Self { device, shape, kernels, params, products, scratch, graphs, planned, start, .. } = self;
        let step = encoder::Step {
            device,
            shape,
            kernels,
            params,
            scratch,
            extent,
            layout,
            blocks: self.pool.table(),
            rings,
        };
        let positions = if rings { &self.near } else { &self.far };
        let normalize = self.model.config.features.normalize;
        let mut enqueue = || match (part, positions) {
            (Part::Features, _) => step.enqueue_features(products, normalize),
            (Part::Layers, Some(positions)) => {
                step.enqueue_layers(products, positions)?;
                step.enqueue_decode_begin(start)
            }
            (Part::Layers, None) => Err(failed("the positions of a step are missing".into())),
            (Part::Decode, _) => step.enqueue_decode(products),
            (Part::End, _) => step.enqueue_decode_end(),
        };
        let recording = match part {
            Part::Features | Part::Layers if ready.recorded => (part, extent.rows, extent.items),
            // Its counts and items are the same places in any step.
            Part::Decode => (part, extent.joints, extent.items),
            _ => return enqueue(),
        };
        if let Some(graph) = graphs.get(&recording) {
            return graph.launch();
        }
        if planned.insert(recording) {
            return enqueue();
        }
        let graph = device.capture(enqueue)?;
        graph.launch()?;
        graphs.insert(recording, graph);
        Ok(())
    }

    /// Waits for the tokens, of items that are the jobs in their order, and decodes on for streams that need more iterations.
    fn collect(&mut self, jobs: &mut [Job<'_>], ready: Ready) -> Result<()> {
        loop {
            self.part(Part::End, ready)?;
            let Scratch { results, fetched, capacity, .. } = &mut self.scratch;
            let likely = (2 * ready.decode.items + 64).min(*capacity);
            let size = size_of::<Record>();
            self.device.fetch(results.address, fetched, HEADER + likely * size)?;
            let [tokens, active]: [i32; 2] = bytemuck::pod_read_unaligned(&fetched.bytes()[..8]);
            let tokens = (tokens.max(0) as usize).min(*capacity);
            if tokens > likely {
                self.device.fetch(results.address, fetched, HEADER + tokens * size)?;
            }
            for record in fetched.bytes()[HEADER..HEADER + tokens * size].chunks_exact(size) {
                let record: Record = bytemuck::pod_read_unaligned(record);
                if let Some(job) = jobs.get_mut(record.item as usize) {
                    job.decoded.tokens.push(token(&record, job.state.decoded, &self.shape));
                }
            }
            if active <= 0 {
                break;
            }
            // Those read make room.
            self.device.clear(results.address, size_of::<i32>())?;
            for _ in 0..if ready.rings { 1 } else { MORE_BLOCKS } {
                self.part(Part::Decode, ready)?;
            }
        }
        for job in jobs {
            job.decoded.frames = job.work.decode.len();
            job.state.decoded += job.decoded.frames as u64;
        }
        Ok(())
    }
}

/// What a record says, after `before` frames.
fn token(record: &Record, before: u64, shape: &Shape) -> Token {
    Token {
        id: record.id as u32,
        frame: before + record.frame as u64,
        duration: (!shape.durations.is_empty()).then_some(record.duration as u32),
        log_prob: record.log_prob,
        confidence: record.confidence,
        margin: record.margin,
        duration_margin: record.duration_margin,
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
        Limits { streams: self.limit, frames: self.limit, whole_frames: WHOLE * self.limit }
    }

    fn open(&mut self, mode: Mode, language: usize) -> Result<Slot> {
        check(&self.model.config, mode, NAME)?;
        if let Some(reason) = &self.broken {
            return Err(failed(format!("{} can't be used any more: {reason}", self.device.describe())));
        }
        if let Mode::Cached { context } = mode
            && self.shape.encoder.contexts[context][0] == 0
        {
            return Err(Error::Unsupported(
                "cuda streams with caches only what looks back; use the backend cpu".into(),
            ));
        }
        self.device.bind()?;
        let slot = self.pool.take(self.reserve())?;
        let index = slot as usize;
        if self.slots.len() <= index {
            self.slots.resize_with(index + 1, || None);
        }
        self.slots[index] = Some(Box::new(SlotState::new(&self.model.config, mode, language)));
        if let Err(e) = self.prepare_for(mode) {
            self.close(Slot(slot));
            return Err(e);
        }
        Ok(Slot(slot))
    }

    fn close(&mut self, slot: Slot) {
        if self.slots.get_mut(slot.0 as usize).and_then(Option::take).is_some() {
            self.pool.give(slot.0);
        }
    }

    fn reset(&mut self, slot: Slot) {
        if let Some(Some(state)) = self.slots.get_mut(slot.0 as usize) {
            **state = SlotState::new(&self.model.config, state.mode, state.language);
        }
    }

    fn step(&mut self, steps: &[Step<'_>]) -> Vec<Result<Decoded>> {
        let mut results: Vec<Option<Result<Decoded>>> = steps.iter().map(|_| None).collect();
        let mut states: Vec<(usize, Box<SlotState>)> = Vec::with_capacity(steps.len());
        for (index, step) in steps.iter().enumerate() {
            let state = self.slots.get_mut(step.slot.0 as usize).and_then(Option::take);
            states.extend(state.map(|state| (index, state)));
        }
        let geometry = self.shape.geometry;
        let prepare = |(index, mut state): (usize, Box<SlotState>)| {
            let work = state.prepare(geometry, &steps[index]);
            (index, state, work)
        };
        // A window is much to copy, a chunk little.
        let windows = states.iter().any(|(_, state)| matches!(state.mode, Mode::Buffered { .. }));
        let grain = if windows { 1 } else { GRAIN };
        let prepared: Vec<_> = states.into_par_iter().with_min_len(grain).map(prepare).collect();
        let (mut near, mut far) = (Vec::new(), Vec::new());
        for (index, state, work) in prepared {
            let slot = steps[index].slot.0;
            match work {
                Ok(Some(work)) => {
                    let cached = matches!(state.mode, Mode::Cached { .. });
                    let pcm = steps[index].pcm;
                    let job = Job { index, slot, pcm, state, work, decoded: Decoded::default() };
                    if cached { near.push(job) } else { far.push(job) }
                }
                idle => {
                    results[index] = Some(idle.map(|_| Decoded::default()).map_err(failed));
                    self.slots[slot as usize] = Some(state);
                }
            }
        }
        self.run(near, true, &mut results);
        self.run(far, false, &mut results);
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
        peaks::measure(&self.device, &mut self.products, &self.shape).map(Some)
    }
}

fn failed(reason: String) -> Error {
    Error::Backend { backend: NAME, reason }
}
