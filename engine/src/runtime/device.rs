// SPDX-License-Identifier: MPL-2.0
//! One device: the lane of its backend, and beside it the lane of whole signals, whose steps are as long as they are.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use super::batcher::Batcher;
use super::statistics::LaneStatistics;
use super::stream::StreamLane;
use crate::backend::{Backend, Mode, Slot};
use crate::error::{Error, Fault, Result};

/// The lanes of a device.
pub(crate) struct DeviceLanes {
    main: Batcher,
    /// Of whole signals, once there was one and if the backend has another for them.
    beside: OnceLock<Batcher>,
    /// The backend has none. Locked while it is asked.
    alone: Mutex<bool>,
}

impl DeviceLanes {
    /// Starts the lane of a backend.
    pub(crate) fn start(backend: Box<dyn Backend>) -> Result<Self> {
        Ok(Self { main: Batcher::start(backend)?, beside: OnceLock::new(), alone: Mutex::new(false) })
    }

    /// The lane of all streams but whole signals.
    pub(crate) fn main(&self) -> &Arc<StreamLane> {
        self.main.lane()
    }

    /// The lane of whole signals, if they have one of their own.
    fn beside(&self) -> Option<&Arc<StreamLane>> {
        self.beside.get().map(Batcher::lane)
    }

    /// What its streams ask for together.
    pub(crate) fn load(&self) -> u64 {
        self.main().load() + self.beside().map_or(0, |lane| lane.load())
    }

    /// Whether streams can be stepped here. A device that is lost in one lane is lost.
    pub(crate) fn works(&self) -> Result<()> {
        let lost = |error: &Error| error.fault() == Some(Fault::DeviceLost);
        match self.beside().map(|lane| lane.works()) {
            Some(Err(error)) if lost(&error) => Err(error),
            _ => self.main().works(),
        }
    }

    /// Takes a slot for a stream of this load, and says in which lane. Waits for the step under way there, no longer.
    pub(crate) fn open(&self, mode: Mode, language: usize, load: u64) -> Result<(Arc<StreamLane>, Slot)> {
        if matches!(mode, Mode::Offline { .. }) {
            self.make_beside();
            // Where that one has no memory left the main one may.
            if let Some(lane) = self.beside().filter(|lane| lane.works().is_ok())
                && let Ok(slot) = lane.open(mode, language, load)
            {
                return Ok((lane.clone(), slot));
            }
        }
        self.main().open(mode, language, load).map(|slot| (self.main().clone(), slot))
    }

    /// Starts the lane of whole signals if there is none yet and can be one.
    fn make_beside(&self) {
        let mut alone = self.alone.lock().unwrap_or_else(PoisonError::into_inner);
        if *alone || self.beside.get().is_some() {
            return;
        }
        match self.main().ask(|backend| backend.beside()) {
            Ok(None) => *alone = true,
            Ok(Some(Ok(backend))) => {
                if let Ok(lane) = Batcher::start(backend) {
                    let _ = self.beside.set(lane);
                }
            }
            // Most likely there is no memory now; the next whole signal may find some.
            Ok(Some(Err(_))) | Err(_) => {}
        }
    }

    /// What each lane has done, the main one first. Waits for the step under way in that one; the other's may be long.
    pub(crate) fn statistics(&self) -> impl Iterator<Item = LaneStatistics> {
        let beside = self.beside().map(|lane| LaneStatistics { whole: true, ..lane.counts() });
        std::iter::once(self.main().snapshot()).chain(beside)
    }

    pub(crate) fn reset_statistics(&self) {
        self.main().reset_statistics();
        self.beside().into_iter().for_each(|lane| lane.reset_statistics());
    }
}
