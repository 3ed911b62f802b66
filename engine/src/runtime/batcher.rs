// SPDX-License-Identifier: MPL-2.0
//! Many streams onto one device: a lane has a thread that owns the backend and steps the streams whose next chunk is
//! complete, the earliest deadline first, many at a time. It never waits for a stream: one that is slow, paused or gone
//! just isn't in its queue.

use std::cmp::Reverse;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::{JoinHandle, available_parallelism};
use std::time::{Duration, Instant};

use rayon::prelude::*;
use rayon::{ThreadPool, ThreadPoolBuilder};

use super::lane::Lane;
use super::pace::Pace;
use super::queue::{Backlog, Received};
use super::stream::{Chunk, Shared, StreamLane, Wait};
use crate::backend::{Backend, Decoded, Slot, Step};
use crate::error::{Error, Result};

/// With more streams in a step than this several threads visit them; fewer are done before those are awake.
const SERIAL: usize = 64;

/// Fewest streams that a thread visits in one go.
const SHARE: usize = 32;

/// Samples of a chunk's buffer that is kept for later steps at most: those of one pass can be of any size.
const KEPT_SAMPLES: usize = 1 << 16;

/// Without anything to do for so long, a backend is told to rest.
const QUIET: Duration = Duration::from_secs(60);

/// A lane and its thread, which stops when this is dropped.
pub(crate) struct Batcher {
    lane: Arc<StreamLane>,
    thread: Option<JoinHandle<()>>,
}

impl Batcher {
    /// Starts the thread.
    pub(crate) fn start(backend: Box<dyn Backend>) -> Result<Self> {
        let lane = Arc::new(Lane::new(backend.as_ref()));
        let mut runner = Runner { lane: lane.clone(), backend, buffers: Vec::new(), pool: None };
        let thread = std::thread::Builder::new().name("parakeet-lane".into()).spawn(move || runner.run());
        let thread = thread.map_err(|e| lane.failed(format!("cannot start its thread: {e}")))?;
        Ok(Self { lane, thread: Some(thread) })
    }

    pub(crate) fn lane(&self) -> &Arc<StreamLane> {
        &self.lane
    }
}

impl Drop for Batcher {
    fn drop(&mut self) {
        self.lane.queue.stop();
        if let Some(thread) = self.thread.take() {
            // It catches the backend's panics, so this fails only if it was killed.
            let _ = thread.join();
        }
    }
}

/// What the lane's thread holds.
struct Runner {
    lane: Arc<StreamLane>,
    backend: Box<dyn Backend>,
    /// Empty buffers for chunks.
    buffers: Vec<Vec<f32>>,
    /// Threads for large steps, once there was one. They are the lane's own: all of a pool that others use may wait for this
    /// lane.
    pool: Option<Arc<ThreadPool>>,
}

/// One stream of a step.
struct Job {
    stream: Arc<Shared>,
    /// Its samples.
    pcm: Vec<f32>,
    /// None if there was nothing to do.
    chunk: Option<Chunk>,
}

impl Job {
    /// Most streams in a step with it.
    fn party(&self) -> usize {
        self.chunk.as_ref().map_or(usize::MAX, |chunk| chunk.party)
    }

    /// Has its stream go on elsewhere, with the chunk that was not stepped.
    fn interrupt(&mut self, error: Error) {
        if let Some(chunk) = &self.chunk {
            self.stream.interrupt(chunk, &mut self.pcm, error);
        }
    }
}

impl Drop for Runner {
    /// Should the thread break down, nobody is to wait for an answer or an event.
    fn drop(&mut self) {
        self.lane.queue.stop();
        self.evacuate();
    }
}

impl Runner {
    fn run(&mut self) {
        let (mut backlog, mut requests) = (Backlog::default(), Vec::new());
        let (mut patience, mut pace) = (Some(QUIET), Pace::default());
        loop {
            match self.lane.queue.receive(&mut backlog, &mut requests, patience) {
                Received::Work => patience = Some(QUIET),
                Received::Quiet => {
                    // Once is enough until there is something to do again.
                    patience = None;
                    let _ = catch_unwind(AssertUnwindSafe(|| self.backend.rest()));
                }
                Received::Stopped => return,
            }
            for request in requests.drain(..) {
                // Who asked sees that no answer comes.
                let _ = catch_unwind(AssertUnwindSafe(|| request(self.backend.as_mut())));
            }
            let mut buffer = || self.buffers.pop().unwrap_or_default();
            let mut frames = 0;
            let batch = backlog.take(pace.fit(self.lane.limits), !self.lane.is_congested());
            let job = |(its_frames, stream)| {
                frames += its_frames;
                Job { stream, pcm: buffer(), chunk: None }
            };
            let mut jobs: Vec<_> = batch.map(job).collect();
            let begin = Instant::now();
            let stepped = catch_unwind(AssertUnwindSafe(|| self.step(&mut jobs)));
            pace.note(frames, begin.elapsed());
            for Job { stream, mut pcm, chunk } in jobs {
                if stepped.is_err() {
                    stream.fail(self.lane.failed("panicked beside a step".into()), chunk.as_ref());
                }
                if pcm.capacity() <= KEPT_SAMPLES {
                    pcm.clear();
                    self.buffers.push(pcm);
                }
            }
            self.evacuate();
        }
    }

    /// Has every stream go on elsewhere if it can't here.
    fn evacuate(&self) {
        if self.lane.works().is_ok() {
            return;
        }
        for stream in self.lane.leave() {
            if let Err(reason) = self.lane.works() {
                stream.rescue(reason);
            }
        }
    }

    /// One visit to the stream of each job and one step of those that have work.
    fn step(&mut self, jobs: &mut [Job]) {
        // A window is much to copy, and a whole signal has much to say.
        let whole = jobs.iter().any(|job| job.stream.is_whole());
        let (serial, share) = if whole { (1, 1) } else { (SERIAL, SHARE) };
        let pool = if jobs.len() > serial { self.pool() } else { None };
        match pool {
            Some(pool) => pool.install(|| self.step_on(jobs, Some(share))),
            None => self.step_on(jobs, None),
        }
    }

    /// The threads for large steps; none if they can't be started.
    fn pool(&mut self) -> Option<Arc<ThreadPool>> {
        if self.pool.is_none() {
            let threads = available_parallelism().map_or(1, usize::from);
            let pool = ThreadPoolBuilder::new()
                .num_threads(threads)
                .thread_name(|index| format!("parakeet-lane-{index}"))
                .build();
            self.pool = pool.ok().map(Arc::new);
        }
        self.pool.clone()
    }

    /// [`Runner::step`] on one thread, or on those of the pool that this runs in, each with at least a `share` of streams.
    fn step_on(&mut self, jobs: &mut [Job], share: Option<usize>) {
        let lane = &self.lane;
        let visit = |job: &mut Job| job.chunk = job.stream.visit(lane, &mut job.pcm);
        match share {
            Some(share) => jobs.par_iter_mut().with_min_len(share).for_each(visit),
            None => jobs.iter_mut().for_each(visit),
        }
        let mut busy: Vec<&mut Job> = jobs.iter_mut().filter(|job| job.chunk.is_some()).collect();
        busy.sort_by_key(|job| Reverse(job.party()));
        let mut rest = &mut busy[..];
        while !rest.is_empty() {
            let fitting = rest.iter().enumerate().take_while(|(index, job)| *index < job.party());
            let (group, others) = rest.split_at_mut(fitting.count().max(1));
            self.step_group(group, share);
            rest = others;
            if self.lane.works().is_err() {
                break;
            }
        }
        for job in rest {
            if let Err(lost) = self.lane.works() {
                job.interrupt(lost);
            }
        }
    }

    /// One step of these, whose chunks are taken.
    fn step_group(&mut self, group: &mut [&mut Job], share: Option<usize>) {
        let chunks = || group.iter().filter_map(|job| Some((job, job.chunk.as_ref()?)));
        let steps: Vec<_> =
            chunks().map(|(job, chunk)| Step { slot: chunk.slot, pcm: &job.pcm, end: chunk.end }).collect();
        let stale: Vec<_> =
            chunks().filter(|(_, chunk)| chunk.reset_first).map(|(_, chunk)| chunk.slot).collect();
        let began = Instant::now();
        let results = run_backend(self.backend.as_mut(), &self.lane, stale, &steps);
        let seconds = began.elapsed().as_secs_f64();
        results.iter().filter_map(|result| result.as_ref().err()).for_each(|error| self.lane.note(error));
        let frames: usize = results.iter().flatten().map(|decoded| decoded.frames).sum();
        let party = group.len();
        let hand_out = |(job, result): (&mut &mut Job, _)| {
            let Job { stream, pcm, chunk } = &mut **job;
            stream.complete(chunk.as_ref()?, pcm, result, party)
        };
        let waits: Vec<Option<Wait>> = match share {
            Some(share) => group.par_iter_mut().zip(results).with_min_len(share).map(hand_out).collect(),
            None => group.iter_mut().zip(results).map(hand_out).collect(),
        };
        let mut statistics = self.lane.statistics();
        statistics.steps += 1;
        statistics.frames += frames as u64;
        statistics.step_seconds.record(seconds);
        statistics.batch.record(party as f64);
        for wait in waits.into_iter().flatten() {
            statistics.chunks += 1;
            statistics.late_chunks += u64::from(wait.late);
            statistics.wait_seconds.record(wait.time.as_secs_f64());
        }
    }
}

/// A result for each step. A panic in the backend ends the step, not the process.
fn run_backend(
    backend: &mut dyn Backend,
    lane: &StreamLane,
    stale: Vec<Slot>,
    steps: &[Step<'_>],
) -> Vec<Result<Decoded>> {
    let ran = catch_unwind(AssertUnwindSafe(|| {
        stale.into_iter().for_each(|slot| backend.reset(slot));
        backend.step(steps)
    }));
    let (mut results, reason) = match ran {
        Ok(results) => (results, "gave no result for a stream"),
        Err(_) => (Vec::new(), "panicked in a step"),
    };
    results.resize_with(steps.len(), || Err(lane.failed(reason.into())));
    results.into_iter().map(|result| result.map_err(|error| lane.name(error))).collect()
}

#[cfg(test)]
mod tests;
