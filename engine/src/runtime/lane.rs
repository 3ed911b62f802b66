// SPDX-License-Identifier: MPL-2.0
//! A device as everybody but its thread sees it: a queue of streams with a chunk to step, requests, and what was done.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Instant;

use super::queue::{Queue, Urgency};
use super::statistics::LaneStatistics;
use crate::backend::{Backend, Limits, Mode, Slot};
use crate::error::{Error, Fault, Result};
use crate::model::Boosts;

/// What a stream asks a backend for.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    pub(crate) mode: Mode,
    /// Place of its language in the model's prompt.
    pub(crate) language: usize,
    pub(crate) boosts: Option<Arc<Boosts>>,
}

impl Wanted {
    /// Takes a slot that is so.
    pub(crate) fn open(&self, backend: &mut dyn Backend) -> Result<Slot> {
        let slot = backend.open(self.mode, self.language)?;
        if let Some(boosts) = &self.boosts
            && let Err(error) = backend.boost(slot, boosts)
        {
            backend.close(slot);
            return Err(error);
        }
        Ok(slot)
    }
}

/// A device where audio was lost within so many ms has too much to do.
const RECENT_MS: u64 = 1_000;

/// Something to do with the backend between two steps.
pub(crate) type Request = Box<dyn FnOnce(&mut dyn Backend) + Send>;

/// What streams of type `S`, the engine and the lane's thread share.
pub(crate) struct Lane<S> {
    name: &'static str,
    device: Box<str>,
    pub(crate) limits: Limits,
    pub(crate) queue: Queue<S, Request>,
    /// Sum of the loads over its streams.
    load: AtomicU64,
    most_load: AtomicU64,
    dropped_samples: AtomicU64,
    begin: Instant,
    /// When a stream lost audio last, in ms since the beginning; 0 for never.
    last_loss: AtomicU64,
    /// The same of a stream that was heard until then.
    last_congestion: AtomicU64,
    statistics: Mutex<LaneStatistics>,
    /// Its streams by their slots.
    streams: Mutex<HashMap<u32, S>>,
    /// Why the device can't be used any more.
    lost: OnceLock<String>,
}

impl<S> Lane<S> {
    /// Of a backend, with nothing to do.
    pub(crate) fn new(backend: &dyn Backend) -> Self {
        Self {
            name: backend.name(),
            device: backend.device().into(),
            limits: backend.limits(),
            queue: Queue::default(),
            load: AtomicU64::new(0),
            most_load: AtomicU64::new(u64::MAX),
            dropped_samples: AtomicU64::new(0),
            begin: Instant::now(),
            last_loss: AtomicU64::new(0),
            last_congestion: AtomicU64::new(0),
            statistics: Mutex::new(LaneStatistics::new(backend.device())),
            streams: Mutex::default(),
            lost: OnceLock::new(),
        }
    }

    /// Queues a stream whose next chunk is complete and adds so many encoder frames to a step, with caches or `whole`.
    pub(crate) fn add(&self, urgency: Urgency, frames: usize, whole: bool, stream: S) {
        let Limits { frames: cached_most, whole_frames: whole_most, .. } = self.limits;
        let frames = match whole && whole_most != cached_most {
            // In frames of a step where all have caches.
            true => (frames as f64 * cached_most as f64 / whole_most as f64) as usize,
            false => frames,
        };
        self.queue.add(urgency, frames, stream);
    }

    /// The backend and the device for people.
    pub(crate) fn describe(&self) -> String {
        format!("{}, {}", self.name, self.statistics().device)
    }

    /// What its streams ask for together.
    pub(crate) fn load(&self) -> u64 {
        self.load.load(Ordering::Relaxed)
    }

    /// Lets no more than this load in.
    pub(crate) fn bound_load(&self, most: u64) {
        self.most_load.store(most, Ordering::Relaxed);
    }

    /// Whether it works and bears so much load more.
    pub(crate) fn bears(&self, load: u64) -> Result<()> {
        self.works()?;
        if self.load().saturating_add(load) <= self.most_load.load(Ordering::Relaxed) {
            return Ok(());
        }
        let reason = "it stands in for devices that were lost, and can't keep up with more streams".into();
        Err(self.error(Fault::Refused, reason))
    }

    /// Counts the load of a stream that is to come.
    pub(crate) fn reserve(&self, load: u64) {
        self.load.fetch_add(load, Ordering::Relaxed);
    }

    /// Forgets the load of a stream that didn't come.
    pub(crate) fn release(&self, load: u64) {
        self.load.fetch_sub(load, Ordering::Relaxed);
    }

    /// Takes a slot for a stream of this load. Waits for the step under way, no longer.
    pub(crate) fn open(&self, wanted: &Wanted, load: u64) -> Result<Slot> {
        // Counted first, so that streams which are opened meanwhile go elsewhere.
        self.reserve(load);
        let wanted = wanted.clone();
        let opened = self.ask(move |backend| wanted.open(backend)).and_then(|slot| slot);
        let opened = opened.map_err(|error| self.name(error));
        match &opened {
            Ok(_) => self.statistics().open_streams += 1,
            Err(_) => self.release(load),
        }
        opened
    }

    /// Takes a stream in that has a slot here, until that is closed.
    pub(crate) fn join(&self, slot: Slot, stream: S) {
        let _before = self.streams().insert(slot.0, stream);
    }

    /// The error of a lane whose thread is gone.
    pub(crate) fn broken(&self) -> Error {
        self.failed("the thread of the device broke down".into())
    }

    /// Takes note of an error; after one that says that the device is lost no stream comes here any more.
    pub(crate) fn note(&self, error: &Error) {
        if let Error::Backend { kind: Fault::DeviceLost, reason, .. } = error {
            let _ = self.lost.set(reason.clone());
        }
    }

    /// Whether streams can be stepped here. Fails with what makes it impossible for good.
    pub(crate) fn works(&self) -> Result<()> {
        if let Some(reason) = self.lost.get() {
            return Err(self.error(Fault::DeviceLost, reason.clone()));
        }
        if self.queue.is_stopped() { Err(self.broken()) } else { Ok(()) }
    }

    /// All streams that have a slot here; they are no longer told of.
    pub(crate) fn leave(&self) -> Vec<S> {
        self.streams().drain().map(|(_, stream)| stream).collect()
    }

    fn streams(&self) -> MutexGuard<'_, HashMap<u32, S>> {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives a slot back, before the next step. Doesn't wait.
    pub(crate) fn close(&self, slot: Slot, load: u64) {
        // Dropped when the lock isn't held any more.
        let _stream = self.streams().remove(&slot.0);
        self.release(load);
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
        if samples > 0 {
            self.dropped_samples.fetch_add(samples as u64, Ordering::Relaxed);
            self.last_loss.store(self.now(), Ordering::Relaxed);
        }
    }

    /// Whether streams lose audio here: there is more to do than it can.
    pub(crate) fn is_overloaded(&self) -> bool {
        self.is_recent(&self.last_loss)
    }

    /// A stream that was heard until now has lost audio.
    pub(crate) fn note_congestion(&self) {
        self.last_congestion.store(self.now(), Ordering::Relaxed);
    }

    /// Whether even those that are heard are more than it can do.
    pub(crate) fn is_congested(&self) -> bool {
        self.is_recent(&self.last_congestion)
    }

    fn is_recent(&self, when: &AtomicU64) -> bool {
        let last = when.load(Ordering::Relaxed);
        last > 0 && self.now().saturating_sub(last) < RECENT_MS
    }

    /// Milliseconds since the beginning, at least 1.
    fn now(&self) -> u64 {
        1 + self.begin.elapsed().as_millis() as u64
    }

    /// What was done since the last reset, and the device's memory. Waits for the step under way.
    pub(crate) fn snapshot(&self) -> LaneStatistics {
        let memory = self.ask(|backend| backend.memory()).ok().flatten();
        LaneStatistics { memory, ..self.counts() }
    }

    /// What was done since the last reset. Doesn't wait.
    pub(crate) fn counts(&self) -> LaneStatistics {
        let dropped_samples = self.dropped_samples.load(Ordering::Relaxed);
        LaneStatistics { dropped_samples, ..self.statistics().clone() }
    }

    pub(crate) fn reset_statistics(&self) {
        self.dropped_samples.store(0, Ordering::Relaxed);
        self.statistics().reset();
    }

    pub(crate) fn statistics(&self) -> MutexGuard<'_, LaneStatistics> {
        self.statistics.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn failed(&self, reason: String) -> Error {
        self.error(Fault::Internal, reason)
    }

    /// An error of the backend with the device's name in it.
    pub(crate) fn name(&self, error: Error) -> Error {
        match error {
            Error::Backend { kind, reason, .. } => self.error(kind, reason),
            other => other,
        }
    }

    fn error(&self, kind: Fault, reason: String) -> Error {
        Error::Backend { backend: self.name, device: Some(self.device.clone()), kind, reason }
    }
}
