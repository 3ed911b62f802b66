// SPDX-License-Identifier: MPL-2.0
//! The clock of a live pipeline: text that the latency leaves no more time for goes out as far as it is known.

use super::{
    imp::{CAT, ParakeetTdt},
    state::{Action, State},
    timeline::{NS_PER_SAMPLE, nanoseconds},
};
use gst::{prelude::*, subclass::prelude::*};
use parakeet_engine::Stream;
use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

/// How long before it is due text goes out, in nanoseconds.
const MARGIN: u64 = 100_000_000;

/// What it takes, in nanoseconds, to recognise audio once its turn has come, with the step before and the time until that is
/// looked at.
const STEP: u64 = 600_000_000;

/// A source that brought nothing for so long, in nanoseconds, has stalled if the text of what it brought is due.
const STALLED: u64 = 200_000_000;

/// How long a source that isn't live brings nothing before that is suspicious.
const PATIENCE: Duration = Duration::from_secs(5);

/// Samples from one arrival that is remembered to the next, at least: 10 ms.
const APART: u64 = 160;

/// When audio came in.
#[derive(Debug, Default)]
pub struct Arrivals {
    /// First sample and running time in nanoseconds.
    times: VecDeque<(u64, u64)>,
}

impl Arrivals {
    /// Audio from `sample` on came in at this running time.
    pub fn note(&mut self, sample: u64, now: u64) {
        if self.times.back().is_none_or(|last| last.0 + APART <= sample) {
            self.times.push_back((sample, now));
        }
    }

    /// When `sample` came in.
    pub fn of(&self, sample: u64) -> Option<u64> {
        let after = self.times.partition_point(|time| time.0 <= sample);
        self.times.get(after.checked_sub(1)?).map(|time| time.1)
    }

    /// Drops what is only needed for samples before `sample`.
    pub fn forget_before(&mut self, sample: u64) {
        while self.times.get(1).is_some_and(|next| next.0 <= sample) {
            self.times.pop_front();
        }
    }
}

/// What the clock is watched for.
#[derive(Default)]
pub struct Watch {
    /// Set to wake the task, for this time of its clock.
    timer: Option<(gst::SingleShotClockId, gst::ClockTime)>,
    /// The word at this sample was hurried.
    hurried: Option<u64>,
    /// Running time at which audio came last.
    pub last_input: Option<u64>,
    /// When audio came in or something was recognised last.
    pub last_activity: Option<Instant>,
    /// The streaming thread hands audio over.
    pub is_feeding: bool,
    /// That upstream brings nothing was told.
    stall_told: bool,
}

impl Drop for Watch {
    fn drop(&mut self) {
        if let Some((timer, _)) = self.timer.take() {
            timer.unschedule();
        }
    }
}

/// What there is to do about time.
enum Overdue {
    /// Nothing, but to look again at this running time.
    Not(Option<u64>),
    /// Push this.
    Cut(Vec<Action>),
    /// Make the engine give out the word that is being said.
    Hurry,
    /// No audio comes any more.
    Stalled,
}

impl ParakeetTdt {
    /// Does what the clock demands; true if that gave something to do for the task.
    pub(super) fn look_at_clock(&self, stream: &Arc<Stream>) -> bool {
        let live = self.state().run.live;
        if live == Some(false) {
            self.watch_upstream();
        }
        let Some(now) = self.running_time().filter(|_| live == Some(true)) else { return false };
        let own = self.latency().nseconds();
        let overdue = self.state().overdue(now, own);
        match overdue {
            Overdue::Not(next) => {
                if let Some(next) = next {
                    self.wake_at_running_time(next);
                }
                false
            }
            Overdue::Cut(actions) => {
                self.act(actions);
                true
            }
            Overdue::Hurry => {
                stream.hurry();
                true
            }
            Overdue::Stalled => {
                // Whoever hands audio over shows that some comes, and may wait for this task.
                let Some(_feeding) = self.try_feeding() else {
                    self.wake_at_running_time(now + STALLED);
                    return false;
                };
                gst::debug!(CAT, imp = self, "no audio comes any more: what came is over");
                let mut state = self.state();
                if state.run.stopping || state.run.is_finishing() {
                    return true;
                }
                let at = state.run.timeline.clock();
                state.run.timeline.pause();
                state.run.expect_finish(at);
                drop(state);
                stream.finish();
                true
            }
        }
    }

    /// How many of the oldest samples are given up if they have waited for so long and may for `most`, in nanoseconds: some more
    /// than are late, so that there is time for what follows. None where nothing is ever dropped.
    fn too_late(&self, waited: u64, most: u64) -> Option<usize> {
        let late = waited.checked_sub(most)?;
        let live = self.state().run.live?;
        (!self.settings().blocks(live)).then_some(((late + most / 2) / NS_PER_SAMPLE) as usize)
    }

    /// Gives up audio that waits for the engine and is too late: what a word needs, up to what the model hears beyond it, has all
    /// to wait as long as the chunk that is next.
    pub(super) fn drop_late(&self, stream: &Stream) {
        let Some(waited) = stream.waiting() else { return };
        let heard = self.heard_ms();
        let own = self.settings().latency(heard).nseconds();
        let most = own.saturating_sub(heard * 1_000_000 + STEP);
        if let Some(samples) = self.too_late(waited.as_nanos() as u64, most) {
            stream.drop_oldest(samples);
        }
    }

    /// Gives up audio that waits for the model and is too late.
    pub(super) fn drop_late_backlog(&self) {
        let Some(now) = self.running_time() else { return };
        let state = self.state();
        let came = state.run.arrivals.of(state.run.offset + state.run.backlog.dropped());
        drop(state);
        let most = self.latency().nseconds().saturating_sub(STEP);
        if let Some(samples) = came.and_then(|came| self.too_late(now.saturating_sub(came), most)) {
            self.state().run.backlog.drop_oldest(samples);
        }
    }

    /// Warns, once, if a source that isn't live brings nothing although what came is not enough to recognise: its branches
    /// may wait for each other.
    fn watch_upstream(&self) {
        let mut state = self.state();
        // What was paused on purpose has played before.
        let is_waited_for = state.playing || !state.played;
        let run = &mut state.run;
        let idle = run.watch.last_activity.map_or(Duration::ZERO, |last| last.elapsed());
        if run.watch.stall_told || run.watch.is_feeding || run.has_pending() || !is_waited_for {
            return;
        }
        let Some(since) = run.awaited() else { return };
        if idle < PATIENCE {
            drop(state);
            let clock = gst::SystemClock::obtain();
            let rest = gst::ClockTime::from_nseconds((PATIENCE - idle).as_nanos() as u64);
            let at = clock.time() + rest;
            self.wake_at(&clock, at);
            return;
        }
        run.watch.stall_told = true;
        let waiting = nanoseconds(run.timeline.clock() - since);
        drop(state);
        gst::element_imp_warning!(
            self,
            gst::CoreError::Pad,
            (
                "no audio has come for {} s, and there is not enough of it to go on: if the pipeline hangs, another branch of \
                 it is full while it waits for text; make the queues of the other branches as long as it takes \
                 (max-size-time of some 10 s, max-size-bytes and max-size-buffers 0)",
                PATIENCE.as_secs()
            ),
            details: gst::Structure::builder("parakeettdt/upstream-stalled")
                .field("waiting-audio", gst::ClockTime::from_nseconds(waiting))
                .build()
        );
    }

    /// The running time in nanoseconds, while the clock runs.
    pub(super) fn running_time(&self) -> Option<u64> {
        let is_playing = self.state().playing;
        self.obj().current_running_time().filter(|_| is_playing).map(gst::ClockTime::nseconds)
    }

    /// Makes the task look at the pipeline's clock at this running time in nanoseconds.
    fn wake_at_running_time(&self, at: u64) {
        let Some(clock) = self.obj().clock() else { return };
        let base = self.obj().base_time().unwrap_or_default();
        self.wake_at(&clock, base + gst::ClockTime::from_nseconds(at));
    }

    /// Makes the task look at the clock at this time of it.
    fn wake_at(&self, clock: &gst::Clock, at: gst::ClockTime) {
        let mut state = self.state();
        if state.run.stopping || state.run.watch.timer.as_ref().is_some_and(|(_, set)| *set <= at) {
            return;
        }
        let timer = clock.new_single_shot_id(at);
        let old = state.run.watch.timer.replace((timer.clone(), at));
        drop(state);
        if let Some((old, _)) = old {
            old.unschedule();
        }
        let element = self.obj().downgrade();
        let waiting = timer.wait_async(move |_, _, _| {
            if let Some(element) = element.upgrade() {
                let imp = element.imp();
                imp.state().run.watch.timer = None;
                imp.wake();
            }
        });
        if let Err(error) = waiting {
            gst::warning!(CAT, imp = self, "cannot wait for the clock: {error:?}");
            self.stop_timer();
        }
    }

    /// Lets the clock go, which stops.
    pub(super) fn stop_clock(&self) {
        self.state().playing = false;
        self.stop_timer();
    }

    pub(super) fn stop_timer(&self) {
        let timer = self.state().run.watch.timer.take();
        if let Some((timer, _)) = timer {
            timer.unschedule();
        }
    }
}

impl State {
    /// Whether nothing wakes the task for the text of audio that came in, should no more come.
    pub(super) fn is_unwatched(&self) -> bool {
        let is_told = self.run.live != Some(true) && self.run.watch.stall_told;
        self.run.watch.timer.is_none() && !is_told
    }

    /// What there is to do about time at running time `now`, for a latency of `own` nanoseconds.
    fn overdue(&mut self, now: u64, own: u64) -> Overdue {
        let run = &mut self.run;
        let Some(awaited) = run.awaited() else { return Overdue::Not(None) };
        let Some(start) = run.start(awaited) else { return Overdue::Not(None) };
        // What came late was not this element's to hurry.
        let came = (start.running + run.upstream).max(run.arrivals.of(awaited).unwrap_or(0));
        let due = (came + own).saturating_sub(MARGIN);
        if now < due {
            return Overdue::Not(Some(due));
        }
        if let Some(actions) = run.cut_unit() {
            return Overdue::Cut(actions);
        }
        if run.is_finishing() {
            return Overdue::Not(None);
        }
        let stalled = run.watch.last_input.map_or(0, |last| last + STALLED);
        if now >= stalled {
            return Overdue::Stalled;
        }
        if run.watch.hurried.replace(awaited) != Some(awaited) {
            return Overdue::Hurry;
        }
        Overdue::Not(Some(stalled))
    }
}
