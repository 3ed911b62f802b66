// SPDX-License-Identifier: MPL-2.0
//! Many streams onto one device: a lane has a thread that owns the backend and steps the streams whose next chunk is
//! complete, the earliest deadline first, many at a time. It never waits for a stream: one that is slow, paused or gone
//! just isn't in its queue.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

use rayon::prelude::*;

use crate::backend::{Backend, Decoded, Limits, Mode, Slot, Step};
use crate::error::{Error, Result};
use crate::queue::{Backlog, Queue};
use crate::statistics::LaneStatistics;
use crate::stream::{Shared, Wait, Work};

/// With more streams in a step than this several threads visit them; fewer are done before those are awake.
const SERIAL: usize = 64;

/// Fewest streams that a thread visits in one go.
const SHARE: usize = 32;

/// Samples of a chunk's buffer that is kept for later steps at most: those of one pass can be of any size.
const KEPT_SAMPLES: usize = 1 << 16;

/// Something to do with the backend between two steps.
type Request = Box<dyn FnOnce(&mut dyn Backend) + Send>;

/// What streams, the engine and the lane's thread share.
pub(crate) struct Lane {
    name: &'static str,
    limits: Limits,
    queue: Queue<Arc<Shared>, Request>,
    /// Sum of [`crate::stream::load`] over its streams.
    load: AtomicU64,
    dropped_samples: AtomicU64,
    statistics: Mutex<LaneStatistics>,
}

/// A lane and its thread, which stops when this is dropped.
pub(crate) struct Batcher {
    lane: Arc<Lane>,
    thread: Option<JoinHandle<()>>,
}

impl Batcher {
    /// Starts the thread.
    pub(crate) fn start(backend: Box<dyn Backend>) -> Result<Self> {
        let lane = Arc::new(Lane {
            name: backend.name(),
            limits: backend.limits(),
            queue: Queue::default(),
            load: AtomicU64::new(0),
            dropped_samples: AtomicU64::new(0),
            statistics: Mutex::new(LaneStatistics::new(backend.device())),
        });
        let mut runner = Runner { lane: lane.clone(), backend, buffers: Vec::new() };
        let thread = std::thread::Builder::new().name("parakeet-lane".into()).spawn(move || runner.run());
        let thread = thread.map_err(|e| lane.failed(format!("cannot start its thread: {e}")))?;
        Ok(Self { lane, thread: Some(thread) })
    }

    pub(crate) fn lane(&self) -> &Arc<Lane> {
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

impl Lane {
    /// Queues a stream whose next chunk is complete and adds so many encoder frames to a step, with caches or `whole`.
    pub(crate) fn add(&self, deadline: Instant, frames: usize, whole: bool, stream: Arc<Shared>) {
        let Limits { frames: cached_most, whole_frames: whole_most, .. } = self.limits;
        let frames = match whole && whole_most != cached_most {
            // In frames of a step where all have caches.
            true => (frames as f64 * cached_most as f64 / whole_most as f64) as usize,
            false => frames,
        };
        self.queue.add(deadline, frames, stream);
    }

    /// The backend and the device for people.
    pub(crate) fn describe(&self) -> String {
        format!("{}, {}", self.name, self.statistics().device)
    }

    /// What its streams ask for together.
    pub(crate) fn load(&self) -> u64 {
        self.load.load(Ordering::Relaxed)
    }

    /// Takes a slot for a stream of this load. Waits for the step under way, no longer.
    pub(crate) fn open(&self, mode: Mode, language: usize, load: u64) -> Result<Slot> {
        // Counted first, so that streams which are opened meanwhile go elsewhere.
        self.load.fetch_add(load, Ordering::Relaxed);
        let opened = self.ask(move |backend| backend.open(mode, language)).and_then(|slot| slot);
        match &opened {
            Ok(_) => self.statistics().open_streams += 1,
            Err(_) => drop(self.load.fetch_sub(load, Ordering::Relaxed)),
        }
        opened
    }

    /// Gives a slot back, before the next step. Doesn't wait.
    pub(crate) fn close(&self, slot: Slot, load: u64) {
        self.load.fetch_sub(load, Ordering::Relaxed);
        self.statistics().open_streams -= 1;
        self.queue.request(Box::new(move |backend| backend.close(slot)));
    }

    /// What the backend says to `question`, between two steps.
    pub(crate) fn ask<A: Send + 'static>(
        &self,
        question: impl FnOnce(&mut dyn Backend) -> A + Send + 'static,
    ) -> Result<A> {
        let (sender, answer) = sync_channel(1);
        self.queue.request(Box::new(move |backend| {
            // Whoever asked waits for it.
            let _ = sender.send(question(backend));
        }));
        answer.recv().map_err(|_| self.failed("broke down when it was asked something".into()))
    }

    /// Samples that a stream's full queue gave up.
    pub(crate) fn count_dropped(&self, samples: usize) {
        self.dropped_samples.fetch_add(samples as u64, Ordering::Relaxed);
    }

    /// What was done since the last reset.
    pub(crate) fn snapshot(&self) -> LaneStatistics {
        let memory = self.ask(|backend| backend.memory()).ok().flatten();
        let dropped_samples = self.dropped_samples.load(Ordering::Relaxed);
        LaneStatistics { memory, dropped_samples, ..self.statistics().clone() }
    }

    pub(crate) fn reset_statistics(&self) {
        self.dropped_samples.store(0, Ordering::Relaxed);
        self.statistics().reset();
    }

    fn statistics(&self) -> MutexGuard<'_, LaneStatistics> {
        self.statistics.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn failed(&self, reason: String) -> Error {
        Error::Backend { backend: self.name, reason }
    }
}

/// What the lane's thread holds.
struct Runner {
    lane: Arc<Lane>,
    backend: Box<dyn Backend>,
    /// Empty buffers for chunks.
    buffers: Vec<Vec<f32>>,
}

/// One stream of a step.
struct Job {
    stream: Arc<Shared>,
    /// Its chunk.
    pcm: Vec<f32>,
    /// None if there was nothing to do.
    work: Option<Work>,
}

impl Drop for Runner {
    /// Should the thread break down, nobody is to wait for an answer.
    fn drop(&mut self) {
        self.lane.queue.stop();
    }
}

impl Runner {
    fn run(&mut self) {
        let (mut backlog, mut requests) = (Backlog::default(), Vec::new());
        while self.lane.queue.receive(&mut backlog, &mut requests) {
            for request in requests.drain(..) {
                // Who asked sees that no answer comes.
                let _ = catch_unwind(AssertUnwindSafe(|| request(self.backend.as_mut())));
            }
            let mut buffer = || self.buffers.pop().unwrap_or_default();
            let batch = backlog.take(self.lane.limits);
            let mut jobs: Vec<_> = batch.map(|stream| Job { stream, pcm: buffer(), work: None }).collect();
            self.step(&mut jobs);
            for Job { mut pcm, .. } in jobs {
                if pcm.capacity() <= KEPT_SAMPLES {
                    pcm.clear();
                    self.buffers.push(pcm);
                }
            }
        }
    }

    /// One visit to the stream of each job and one step of those that have work.
    fn step(&mut self, jobs: &mut [Job]) {
        let visit = |job: &mut Job| job.work = job.stream.visit(&mut job.pcm);
        // A window is much to copy, and a whole signal has much to say.
        let whole = jobs.iter().any(|job| job.stream.is_whole());
        let (serial, share) = if whole { (1, 1) } else { (SERIAL, SHARE) };
        if jobs.len() > serial {
            jobs.par_iter_mut().with_min_len(share).for_each(visit);
        } else {
            jobs.iter_mut().for_each(visit);
        }
        let busy = jobs.iter().filter_map(|job| Some((job, job.work.as_ref()?)));
        let busy: Vec<(&Job, &Work)> = busy.collect();
        if busy.is_empty() {
            return;
        }
        let steps: Vec<_> = busy
            .iter()
            .map(|(job, work)| Step { slot: job.stream.slot, pcm: &job.pcm, end: work.end })
            .collect();
        let stale = busy.iter().filter(|(_, work)| work.reset_first).map(|(job, _)| job.stream.slot);
        let began = Instant::now();
        let results = self.run_backend(stale, &steps);
        let seconds = began.elapsed().as_secs_f64();
        let frames: usize = results.iter().flatten().map(|decoded| decoded.frames).sum();
        let lane = &self.lane;
        let hand_out = |(&(job, work), result): (&(&Job, &Work), _)| job.stream.complete(work, result, lane);
        let waits: Vec<Option<Wait>> = if busy.len() > serial {
            busy.par_iter().zip(results).with_min_len(share).map(hand_out).collect()
        } else {
            busy.iter().zip(results).map(hand_out).collect()
        };
        let mut statistics = lane.statistics();
        statistics.steps += 1;
        statistics.frames += frames as u64;
        statistics.step_seconds.record(seconds);
        statistics.batch.record(busy.len() as f64);
        for wait in waits.into_iter().flatten() {
            statistics.chunks += 1;
            statistics.late_chunks += u64::from(wait.late);
            statistics.wait_seconds.record(wait.time.as_secs_f64());
        }
    }

    /// A result for each step. A panic in the backend ends the streams of its step, not the process.
    fn run_backend(&mut self, stale: impl Iterator<Item = Slot>, steps: &[Step<'_>]) -> Vec<Result<Decoded>> {
        let backend = self.backend.as_mut();
        let ran = catch_unwind(AssertUnwindSafe(|| {
            stale.for_each(|slot| backend.reset(slot));
            backend.step(steps)
        }));
        let (mut results, reason) = match ran {
            Ok(results) => (results, "gave no result for a stream"),
            Err(_) => (Vec::new(), "panicked in a step"),
        };
        results.resize_with(steps.len(), || Err(self.lane.failed(reason.into())));
        results
    }
}

#[cfg(test)]
mod tests;
