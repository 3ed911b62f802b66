// SPDX-License-Identifier: MPL-2.0
//! One device: the lane of its backend, and beside it the lane of whole signals, whose steps are as long as they are.

use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

use super::batcher::Batcher;
use super::lane::Wanted;
use super::statistics::LaneStatistics;
use super::stream::StreamLane;
use crate::backend::{Backend, Mode, Slot};
use crate::error::{Error, Fault, Result};

/// The threads of an engine's lanes. They end with the engine, which alone holds them: what streams and lanes know of may be
/// let go of by such a thread, and none can wait for itself.
pub(crate) type Threads = Arc<Mutex<Vec<Batcher>>>;

/// The lanes of a device.
pub(crate) struct DeviceLanes {
    main: Arc<StreamLane>,
    /// Of whole signals, once there was one and if the backend has another for them.
    beside: OnceLock<Arc<StreamLane>>,
    /// The backend has none. Locked while it is asked.
    alone: Mutex<bool>,
    threads: Weak<Mutex<Vec<Batcher>>>,
}

impl DeviceLanes {
    /// Starts the lane of a backend.
    pub(crate) fn start(backend: Box<dyn Backend>, threads: &Threads) -> Result<Arc<Self>> {
        let main = start(backend, threads)?;
        let (beside, alone) = (OnceLock::new(), Mutex::new(false));
        Ok(Arc::new(Self { main, beside, alone, threads: Arc::downgrade(threads) }))
    }

    /// The lane of all streams but whole signals.
    pub(crate) fn main(&self) -> &Arc<StreamLane> {
        &self.main
    }

    /// The lane of streams of this mode, as far as it is started.
    pub(crate) fn lane(&self, mode: Mode) -> &Arc<StreamLane> {
        let beside = self.beside.get().filter(|lane| is_whole(mode) && lane.works().is_ok());
        beside.unwrap_or(&self.main)
    }

    /// What its streams ask for together.
    pub(crate) fn load(&self) -> u64 {
        self.main.load() + self.beside.get().map_or(0, |lane| lane.load())
    }

    /// Whether streams can be stepped here. A device that is lost in one lane is lost.
    pub(crate) fn works(&self) -> Result<()> {
        let lost = |error: &Error| error.fault() == Some(Fault::DeviceLost);
        match self.beside.get().map(|lane| lane.works()) {
            Some(Err(error)) if lost(&error) => Err(error),
            _ => self.main.works(),
        }
    }

    /// Whether it works and bears so much load more.
    pub(crate) fn bears(&self, load: u64) -> Result<()> {
        self.works().and_then(|()| self.main.bears(load))
    }

    /// Takes a slot for a stream of this load, and says in which lane. Waits for the step under way there, no longer.
    pub(crate) fn open(&self, wanted: &Wanted, load: u64) -> Result<(Arc<StreamLane>, Slot)> {
        if is_whole(wanted.mode) {
            self.make_beside();
            let lane = self.lane(wanted.mode);
            // Where that one has no memory left the main one may.
            if !Arc::ptr_eq(lane, &self.main)
                && let Ok(slot) = lane.open(wanted, load)
            {
                return Ok((lane.clone(), slot));
            }
        }
        self.main.open(wanted, load).map(|slot| (self.main.clone(), slot))
    }

    /// Starts the lane of whole signals if there is none yet and can be one.
    fn make_beside(&self) {
        let mut alone = self.alone.lock().unwrap_or_else(PoisonError::into_inner);
        if *alone || self.beside.get().is_some() {
            return;
        }
        match self.main.ask(|backend| backend.beside()) {
            Ok(None) => *alone = true,
            Ok(Some(Ok(backend))) => {
                if let Some(threads) = self.threads.upgrade()
                    && let Ok(lane) = start(backend, &threads)
                {
                    let _ = self.beside.set(lane);
                }
            }
            // Most likely there is no memory now; the next whole signal may find some.
            Ok(Some(Err(_))) | Err(_) => {}
        }
    }

    /// What each lane has done, the main one first. Waits for the step under way in that one; the other's may be long.
    pub(crate) fn statistics(&self) -> impl Iterator<Item = LaneStatistics> {
        let whole = |lane: &Arc<StreamLane>| LaneStatistics { whole: true, ..lane.counts() };
        std::iter::once(self.main.snapshot()).chain(self.beside.get().map(whole))
    }

    pub(crate) fn reset_statistics(&self) {
        self.main.reset_statistics();
        self.beside.get().into_iter().for_each(|lane| lane.reset_statistics());
    }
}

/// Starts the lane of a backend.
fn start(backend: Box<dyn Backend>, threads: &Threads) -> Result<Arc<StreamLane>> {
    let batcher = Batcher::start(backend)?;
    let lane = batcher.lane().clone();
    threads.lock().unwrap_or_else(PoisonError::into_inner).push(batcher);
    Ok(lane)
}

/// Whether a stream of this mode is one whole signal.
fn is_whole(mode: Mode) -> bool {
    matches!(mode, Mode::Offline { .. })
}
