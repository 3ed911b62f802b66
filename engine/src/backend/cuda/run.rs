// SPDX-License-Identifier: MPL-2.0
//! A step from beginning to end: described, enqueued part by part, and its tokens read.

use std::mem::offset_of;
use std::time::Instant;

use rayon::prelude::*;

use super::memory::Scratch;
use super::sizes::{Emission, Extent, HEADER, Layout, Results, Shape, ladder};
use super::step::{ITERATIONS, Pass, SlotState, Stream};
use super::{CudaBackend, card, failed, failed_as};
use crate::backend::timeline::Portion;
use crate::backend::{Decoded, Mode, Timings, Token};
use crate::error::{Error, Fault, Result};

/// Streams whose chunks a thread copies one after the other: fewer aren't worth waking another.
pub const GRAIN: usize = 64;

/// Most rounds of iterations of decoding that are enqueued before the host looks.
const MOST_ROUNDS: usize = 16;

/// Rounds that are enqueued for whole signals each time after that: most have some way to go.
const MORE_ROUNDS: usize = 8;

/// Does the work for every item, on several threads where there are more than `grain`. Those are of the pool that this runs
/// in; a small step needs none, so that it can't wait for threads that others hold.
pub fn each<T: Send>(items: &mut [T], grain: usize, work: impl Fn(&mut T) + Send + Sync) {
    if items.len() > grain {
        items.par_iter_mut().with_min_len(grain).for_each(work);
    } else {
        items.iter_mut().for_each(work);
    }
}

/// Bytes of a graph at most.
const MOST_GRAPH_BYTES: usize = 32 << 20;

/// A part of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Part {
    Features,
    Layers,
    Decode,
    /// Once nothing is left to decode; never captured.
    End,
}

/// What a graph was captured for: the part, the rows of the step or for decoding of the joint, and the items of the part.
pub type GraphKey = (Part, usize, usize);

/// A step with its slot's state, taken out of the pool while it runs.
pub struct Job<'a> {
    /// Place in the caller's list.
    pub index: usize,
    pub slot: u32,
    /// The step's own samples.
    pub pcm: &'a [f32],
    pub state: Box<SlotState>,
    pub portion: Portion,
    pub decoded: Decoded,
    /// Some of its logits are no numbers.
    pub overflowed: bool,
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
    /// Its features and layers are captured: its description lies at the same places whatever it holds.
    captured: bool,
    /// Its positions are made layer by layer.
    long: bool,
}

impl CudaBackend {
    /// Runs jobs of one kind, as many at a time as a step should hold.
    pub(super) fn run(
        &mut self,
        mut jobs: Vec<Job<'_>>,
        rings: bool,
        results: &mut [Option<Result<Decoded>>],
    ) {
        let mut rest = &mut jobs[..];
        let limit = self.most_rows(rings);
        while !rest.is_empty() {
            let mut rows = 0;
            let fits = |job: &&Job<'_>| {
                rows += job.portion.frames.len();
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
        let lost = outcome.is_err() && self.device.wait().is_err();
        if let (Err(e), true) = (&outcome, lost) {
            // No call to a card recovers from this, so no stream is to come here any more.
            self.broken = Some(e.to_string());
        }
        for job in jobs {
            if job.overflowed && outcome.is_ok() {
                results[job.index] = Some(Err(failed_as(Fault::Refused, self.shape.overflow())));
                continue;
            }
            let result = outcome.as_ref().map(|()| std::mem::take(&mut job.decoded));
            results[job.index] = Some(result.map_err(|e| match e {
                Error::Backend { reason, .. } if lost => failed_as(Fault::DeviceLost, reason.clone()),
                // What the card can't do was found out before: it isn't the stream that is refused.
                Error::Backend { kind: Fault::Refused, reason, .. } => failed(reason.clone()),
                Error::Backend { kind, reason, .. } => failed_as(*kind, reason.clone()),
                other => failed(other.to_string()),
            }));
        }
    }

    /// Describes the step and makes room for it; nothing is enqueued yet.
    fn make_ready(&mut self, jobs: &[Job<'_>], rings: bool) -> Result<Ready> {
        self.device.bind()?;
        self.fill(jobs, rings);
        let exact = self.batch.extent();
        let rung = if rings { exact.covering_rung() } else { None };
        let extent = rung.unwrap_or(exact);
        let layout = Layout::new(&extent);
        let bytes = self.batch.bytes(&layout);
        if 2 * extent.rows > self.scratch.extent.rows {
            self.used = Instant::now();
        }
        if !rings {
            self.check_room(jobs, &extent, bytes)?;
        }
        self.grow_scratch(&extent, bytes)?;
        let long = !rings && self.extend_positions(jobs)?;
        let decode = Extent { items: ladder(exact.items), joints: exact.joints, ..extent };
        Ok(Ready { extent, decode, layout, bytes, rings, captured: rung.is_some(), long })
    }

    fn run_ready(&mut self, jobs: &mut [Job<'_>], ready: Ready) -> Result<()> {
        let grain = if ready.rings { GRAIN } else { 1 };
        self.stage(jobs, &ready, grain);
        let marks = self.enqueue(ready)?;
        // What the card needs is staged: the host can tidy up meanwhile.
        each(jobs, grain, |job| job.state.advance());
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
            let stream = Stream {
                slot: job.slot,
                language: state.language,
                ring,
                visibility: state.visibility,
                phrases: state.phrases.as_ref().map_or(0, |phrases| phrases.address()),
            };
            self.batch.push(stream, &job.portion, self.shape.geometry, self.shape.tile);
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
        each(&mut copies, grain, |(to, samples)| to.copy_from_slice(samples));
    }

    /// Enqueues the step up to its first decisions; the marks are before and after the copy and each part.
    fn enqueue(&mut self, ready: Ready) -> Result<Option<[card::Mark; 4]>> {
        let measuring = self.measuring;
        let mark = |device: &card::Device| measuring.then(|| device.mark()).transpose();
        let rounds = self.batch.likely_iterations().div_ceil(ITERATIONS).clamp(1, MOST_ROUNDS);
        let start = mark(&self.device)?;
        self.device.send(&self.scratch.staged, self.scratch.input.part(0, ready.bytes)?)?;
        let copied = mark(&self.device)?;
        self.part(Part::Features, ready)?;
        if self.paced {
            self.turns.give_way(&self.device)?;
        }
        let subsampled = mark(&self.device)?;
        self.part(Part::Layers, ready)?;
        let encoded = mark(&self.device)?;
        for _ in 0..rounds {
            self.part(Part::Decode, ready)?;
        }
        Ok(match (start, copied, subsampled, encoded) {
            (Some(start), Some(copied), Some(subsampled), Some(encoded)) => {
                Some([start, copied, subsampled, encoded])
            }
            _ => None,
        })
    }

    /// Enqueues one part, as a graph if there is one for so many rows.
    fn part(&mut self, part: Part, ready: Ready) -> Result<()> {
        let Ready { layout, rings, long, .. } = ready;
        let extent = match part {
            Part::Features | Part::Layers => ready.extent,
            Part::Decode | Part::End => ready.decode,
        };
        let Self { device, shape, kernels, params, products, scratch, graphs, planned, start, .. } = self;
        let pass = Pass {
            device,
            shape,
            kernels,
            params,
            scratch,
            extent,
            layout,
            blocks: self.pool.table(),
            rings,
            turns: self.paced.then_some(&*self.turns),
        };
        let positions = match (rings, long) {
            (true, _) => self.ring_positions.as_deref(),
            (false, true) => self.long_positions.as_ref(),
            (false, false) => self.signal_positions.as_ref(),
        };
        let normalize = self.model.config.features.normalize;
        let mut enqueue = || match (part, positions) {
            (Part::Features, _) => pass.enqueue_features(products, normalize),
            (Part::Layers, Some(positions)) => {
                pass.enqueue_layers(products, positions)?;
                pass.enqueue_decode_begin(start)
            }
            (Part::Layers, None) => Err(failed("the positions of a step are missing".into())),
            (Part::Decode, _) => pass.enqueue_decode(products),
            (Part::End, _) => pass.enqueue_decode_end(),
        };
        let key = match part {
            Part::Features | Part::Layers if ready.captured => (part, extent.rows, extent.items),
            // Its counts and items are the same places in any step.
            Part::Decode => (part, extent.joints, extent.items),
            _ => return enqueue(),
        };
        if let Some(graph) = graphs.get(&key) {
            return graph.launch();
        }
        if planned.insert(key) {
            return enqueue();
        }
        let free = |device: &card::Device| device.memory().map_or(0, |memory| memory.free);
        let before = free(device);
        let graph = match device.capture(&mut enqueue) {
            // A graph takes memory of its own; without one a step takes longer, no more.
            Err(e) if e.fault() == Some(Fault::OutOfMemory) => return enqueue(),
            graph => graph?,
        };
        graph.launch()?;
        graphs.insert(key, graph);
        // Others may have taken memory meanwhile.
        let took = before.saturating_sub(free(device)).min(MOST_GRAPH_BYTES);
        self.graph_bytes = self.graph_bytes.max(took);
        Ok(())
    }

    /// Waits for the tokens, of items that are the jobs in their order, and decodes on for streams that need more iterations.
    fn collect(&mut self, jobs: &mut [Job<'_>], ready: Ready) -> Result<()> {
        loop {
            self.part(Part::End, ready)?;
            let Scratch { results, fetched, capacity, .. } = &mut self.scratch;
            let likely = (2 * ready.decode.items + 64).min(*capacity);
            let size = size_of::<Emission>();
            self.device.fetch(results.part(0, HEADER + likely * size)?, fetched)?;
            let Results { tokens, active } =
                bytemuck::pod_read_unaligned(&fetched.bytes()[..size_of::<Results>()]);
            let tokens = (tokens.max(0) as usize).min(*capacity);
            if tokens > likely {
                self.device.fetch(results.part(0, HEADER + tokens * size)?, fetched)?;
            }
            for bytes in fetched.bytes()[HEADER..HEADER + tokens * size].chunks_exact(size) {
                let emission: Emission = bytemuck::pod_read_unaligned(bytes);
                let Some(job) = jobs.get_mut(emission.item as usize) else { continue };
                if emission.id < 0 {
                    job.overflowed = true;
                } else {
                    job.decoded.tokens.push(token(&emission, job.portion.decoded, &self.shape));
                }
            }
            if active <= 0 {
                break;
            }
            // Those read make room.
            self.device.clear(results.part(offset_of!(Results, tokens), size_of::<i32>())?)?;
            for _ in 0..if ready.rings { 1 } else { MORE_ROUNDS } {
                self.part(Part::Decode, ready)?;
            }
        }
        for job in jobs {
            job.decoded.frames = job.portion.decode.len();
        }
        Ok(())
    }
}

/// What the card emitted, after `before` frames.
fn token(emission: &Emission, before: usize, shape: &Shape) -> Token {
    Token {
        id: emission.id as u32,
        frame: before as u64 + emission.frame as u64,
        duration: (!shape.durations.is_empty()).then_some(emission.duration as u32),
        log_prob: emission.log_prob,
        confidence: emission.confidence,
        margin: emission.margin,
        duration_margin: emission.duration_margin,
    }
}
