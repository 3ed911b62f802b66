// SPDX-License-Identifier: MPL-2.0
//! The devices of an engine as its streams see them, and how a stream gets to another one.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, Weak};
use std::time::Instant;

use super::batcher::Batcher;
use super::device::{DeviceLanes, Threads};
use super::recovery::Trouble;
use super::stream::{self, Shared, StreamLane};
use crate::audio::SAMPLE_RATE;
use crate::backend::{Backend, Mode, Slot, Spare, Step, StepSizes};
use crate::error::{Error, Fault, Result};
use crate::model::ModelConfig;

/// Share of its time that a spare device may be busy, by what one stream took alone.
const BEARABLE: f64 = 0.8;

/// All devices of an engine.
pub(crate) struct Fleet {
    devices: RwLock<Vec<Arc<DeviceLanes>>>,
    /// Where the thread of the spare device goes.
    threads: Weak<Mutex<Vec<Batcher>>>,
    spare: Mutex<Standby>,
}

/// The device that streams go to when all others are lost.
enum Standby {
    /// There is none, or it is one of the lanes.
    Over,
    Closed(Spare),
    /// What waits for it.
    Opening(Vec<Move>),
}

impl Fleet {
    /// These, and what may become another one.
    pub(crate) fn new(devices: Vec<Arc<DeviceLanes>>, threads: &Threads, spare: Option<Spare>) -> Arc<Self> {
        let spare = Mutex::new(spare.map_or(Standby::Over, Standby::Closed));
        Arc::new(Self { devices: RwLock::new(devices), threads: Arc::downgrade(threads), spare })
    }

    /// All of them.
    pub(crate) fn devices(&self) -> Vec<Arc<DeviceLanes>> {
        self.devices.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Samples that the full queue of a stream without a place gave up.
    pub(crate) fn count_dropped(&self, samples: usize) {
        if let Some(device) = self.devices.read().unwrap_or_else(PoisonError::into_inner).first() {
            device.main().count_dropped(samples);
        }
    }

    /// Gets a stream that lost its place another one, or ends it where there is none. Doesn't wait.
    pub(crate) fn place(&self, stream: Arc<Shared>, trouble: Trouble) {
        Move { untried: self.devices(), offered: None, stream, trouble: Some(trouble) }.go();
    }

    /// Has a stream wait for the spare device, which the first one opens.
    fn wait_for_spare(self: &Arc<Self>, one: Move) {
        let mut spare = lock(&self.spare);
        match std::mem::replace(&mut *spare, Standby::Over) {
            Standby::Over => {}
            Standby::Opening(mut waiting) => {
                waiting.push(one);
                *spare = Standby::Opening(waiting);
            }
            Standby::Closed(open) => {
                let (fleet, mode) = (self.clone(), one.stream.wanted.mode);
                *spare = Standby::Opening(vec![one]);
                drop(spare);
                let thread = std::thread::Builder::new().name("parakeet-spare".into());
                if thread.spawn(move || fleet.open_spare(open, mode)).is_err() {
                    *lock(&self.spare) = Standby::Over;
                }
            }
        }
    }

    fn open_spare(&self, open: Spare, mode: Mode) {
        let opened = open().and_then(|(mut backend, config)| {
            let bound = bearable(backend.as_mut(), &config, mode)?;
            // The engine may have gone meanwhile, and all streams with it.
            let device = self.threads.upgrade().map(|threads| DeviceLanes::start(backend, &threads));
            device.transpose().map(|device| device.inspect(|device| device.main().bound_load(bound)))
        });
        let device = opened.ok().flatten();
        self.devices.write().unwrap_or_else(PoisonError::into_inner).extend(device.clone());
        let waiting = std::mem::replace(&mut *lock(&self.spare), Standby::Over);
        let Standby::Opening(waiting) = waiting else { return };
        for mut one in waiting {
            one.untried.extend(device.clone());
            one.go();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The load that a device bears of streams of this mode, measured on a few chunks of noise; of one pass, any.
fn bearable(backend: &mut dyn Backend, config: &ModelConfig, mode: Mode) -> Result<u64> {
    let StepSizes { first, later } = mode.step_sizes(&config.encoder);
    if later == usize::MAX {
        return Ok(u64::MAX);
    }
    let slot: Slot = backend.open(mode, 0)?;
    let noise = |index: usize| (index as u32).wrapping_mul(2_654_435_761) as f32 / u32::MAX as f32 - 0.5;
    let pcm: Vec<f32> = (0..first.max(later)).map(noise).collect();
    let mut seconds = f64::INFINITY;
    for samples in [first, later, later] {
        let began = Instant::now();
        let mut results = backend.step(&[Step { slot, pcm: &pcm[..samples], end: false }]);
        seconds = began.elapsed().as_secs_f64();
        results.pop().transpose()?;
    }
    backend.close(slot);
    let share = seconds * f64::from(SAMPLE_RATE) / later as f64;
    Ok((stream::load(mode) as f64 * (BEARABLE / share).floor()) as u64)
}

/// Takes out the device with the least load of those that work and bear `load` more; `refused` gets a reason why others
/// don't.
pub(crate) fn take_least(
    devices: &mut Vec<Arc<DeviceLanes>>,
    load: u64,
    refused: &mut Option<Error>,
) -> Option<Arc<DeviceLanes>> {
    let lost = |error: &Error| error.fault() == Some(Fault::DeviceLost);
    devices.retain(|device| {
        let bears = device.bears(load);
        let bearing = bears.is_ok();
        // What a device that works says counts more.
        if let Some(error) = bears.err().filter(|_| refused.as_ref().is_none_or(lost)) {
            *refused = Some(error);
        }
        bearing
    });
    let index = (0..devices.len()).min_by_key(|&index| devices[index].load())?;
    Some(devices.remove(index))
}

/// A stream on its way to another place. Where it gets lost, as with the thread of a lane, the stream ends.
struct Move {
    stream: Arc<Shared>,
    /// None once it is over.
    trouble: Option<Trouble>,
    untried: Vec<Arc<DeviceLanes>>,
    /// The lane that is asked for a slot.
    offered: Option<Arc<StreamLane>>,
}

impl Move {
    /// Asks the next device for a slot.
    fn go(mut self) {
        let load = self.stream.load;
        let Some(device) = take_least(&mut self.untried, load, &mut None) else {
            let fleet = self.stream.fleet.clone();
            if fleet.devices().iter().all(|device| device.works().is_err()) {
                fleet.wait_for_spare(self);
            }
            return;
        };
        let wanted = self.stream.wanted.clone();
        let lane = device.lane(wanted.mode).clone();
        lane.reserve(load);
        self.offered = Some(lane.clone());
        lane.queue.request(Box::new(move |backend| match wanted.open(backend) {
            Ok(slot) => {
                if let Some(lane) = self.offered.take() {
                    lane.statistics().open_streams += 1;
                    self.stream.settle(lane, slot, self.trouble.take());
                }
            }
            Err(_) => {
                self.give_up();
                self.go();
            }
        }));
    }

    fn give_up(&mut self) {
        if let Some(lane) = self.offered.take() {
            lane.release(self.stream.load);
        }
    }
}

impl Drop for Move {
    fn drop(&mut self) {
        self.give_up();
        if let Some(trouble) = self.trouble.take() {
            self.stream.fail(trouble.error, None);
        }
    }
}
