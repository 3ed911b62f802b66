// SPDX-License-Identifier: MPL-2.0
//! Many streams onto one backend: a thread that steps those whose next chunk is complete, the longest waiting first,
//! several at a time. It never waits for a stream: one that is slow, paused or gone just isn't in its queue.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use crate::backend::{Backend, Decoded, Step};
use crate::error::{Error, Result};
use crate::queue::Queue;
use crate::stream::{Shared, Visit, Work};

/// Most streams in one step: bounds the time that a newly complete chunk waits for the step under way.
const BATCH: usize = 64;

/// The backend, used by the batcher's thread and by whoever opens a slot.
pub(crate) type SharedBackend = Arc<Mutex<Box<dyn Backend>>>;

/// The thread; it stops when this is dropped.
pub(crate) struct Batcher {
    queue: Arc<Queue<Arc<Shared>>>,
    thread: Option<JoinHandle<()>>,
}

impl Batcher {
    /// Starts the thread.
    pub(crate) fn start(backend: SharedBackend) -> std::io::Result<Self> {
        let queue = Arc::<Queue<_>>::default();
        let work = queue.clone();
        let thread = std::thread::Builder::new().name("parakeet-batcher".into()).spawn(move || {
            while let Some(streams) = work.take(BATCH) {
                step(&backend, &streams, &work);
            }
        })?;
        Ok(Self { queue, thread: Some(thread) })
    }

    pub(crate) fn queue(&self) -> &Arc<Queue<Arc<Shared>>> {
        &self.queue
    }
}

impl Drop for Batcher {
    fn drop(&mut self) {
        self.queue.stop();
        if let Some(thread) = self.thread.take() {
            // It catches the backend's panics, so this fails only if it was killed.
            let _ = thread.join();
        }
    }
}

/// One visit to each of `streams` and one step of those that have work.
fn step(backend: &SharedBackend, streams: &[Arc<Shared>], queue: &Queue<Arc<Shared>>) {
    let mut backend = backend.lock().unwrap_or_else(PoisonError::into_inner);
    let mut work: Vec<(&Arc<Shared>, Work)> = Vec::new();
    for stream in streams {
        match stream.visit() {
            Visit::Work(next) => work.push((stream, next)),
            Visit::Idle => {}
            Visit::Gone => backend.close(stream.slot),
        }
    }
    for (stream, next) in &work {
        if next.reset_first {
            backend.reset(stream.slot);
        }
    }
    let steps: Vec<_> =
        work.iter().map(|(stream, next)| Step { slot: stream.slot, pcm: &next.pcm, end: next.end }).collect();
    let results = if steps.is_empty() { Vec::new() } else { run(backend.as_mut(), &steps) };
    drop(backend);
    for ((stream, next), result) in work.iter().zip(results) {
        stream.complete(next, result, queue);
    }
}

/// A panic in a backend ends the streams of its step, not the process.
fn run(backend: &mut dyn Backend, steps: &[Step<'_>]) -> Vec<Result<Decoded>> {
    catch_unwind(AssertUnwindSafe(|| backend.step(steps))).unwrap_or_else(|_| {
        let failure = || Error::Backend { backend: backend.name(), reason: "panicked in a step".into() };
        steps.iter().map(|_| Err(failure())).collect()
    })
}
