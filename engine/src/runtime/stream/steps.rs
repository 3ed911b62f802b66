// SPDX-License-Identifier: MPL-2.0
//! A stream and its lane: into the queue, into a step, out of it, and to another lane.

use std::sync::{Arc, MutexGuard};
use std::time::{Duration, Instant};

use super::{Chunk, Inner, Place, Shared, Standing, StreamLane, Wait};
use crate::audio::{FRAME_SAMPLES, SAMPLE_RATE};
use crate::backend::{Decoded, Slot};
use crate::error::Error;
use crate::runtime::decoding::Speech;
use crate::runtime::event::Event;
use crate::runtime::queue::Urgency;
use crate::runtime::recovery::Trouble;

impl Shared {
    /// Puts the stream into the lane's queue if it can be stepped and isn't there.
    ///
    /// The deadline of a chunk is when it was due and as long again as it lasts. It was due when it was complete; where
    /// audio comes faster than it is spoken, as from a file, not before the chunk ahead of it was and had lasted, or now
    /// if that is sooner: such a stream takes its turns and what time is left, and a live one is none the worse for it.
    pub(super) fn schedule(self: &Arc<Self>, inner: &mut Inner) {
        if inner.standing != Standing::Idle || inner.dropped {
            return;
        }
        self.queue(inner);
    }

    /// Puts the stream into the lane's queue if it can be stepped; it may be there already, of which only the more urgent counts.
    pub(super) fn queue(self: &Arc<Self>, inner: &mut Inner) {
        let Some(Place { lane, .. }) = &inner.place else { return };
        let Some(next) = inner.next(self.sizes) else { return };
        let due = match inner.pace {
            Some(pace) if pace > next.complete => pace.min(Instant::now()).max(next.complete),
            _ => next.complete,
        };
        let frames = next.samples.div_ceil(FRAME_SAMPLES as usize) + self.again;
        // The last words before a loss are not to wait for the next turn.
        let rank = if inner.intake.is_ending() { 0 } else { inner.turn.rank() };
        let urgency = Urgency { rank, deadline: due + self.lasts(next.samples) };
        lane.add(urgency, frames, self.whole, self.clone());
        inner.due = Some(due);
        inner.standing = Standing::Queued;
    }

    /// How long a chunk lasts: the same for all of a stream but in one pass.
    fn lasts(&self, samples: usize) -> Duration {
        let samples = if self.sizes.later == usize::MAX { samples } else { self.sizes.later };
        Duration::from_secs_f64(samples as f64 / f64::from(SAMPLE_RATE))
    }

    /// Takes the next chunk out of the queue into `pcm`, which is empty; none if there is nothing to do on this lane.
    pub(crate) fn visit(&self, lane: &Arc<StreamLane>, pcm: &mut Vec<f32>) -> Option<Chunk> {
        let mut inner = self.lock();
        let slot = inner.place.as_ref().filter(|place| Arc::ptr_eq(&place.lane, lane))?.slot;
        if inner.standing == Standing::Stepping {
            return None;
        }
        inner.standing = Standing::Idle;
        let next = inner.next(self.sizes).filter(|_| !inner.dropped)?;
        let taken = inner.intake.take(next.samples, self.history.samples, pcm)?;
        inner.standing = Standing::Stepping;
        let lasts = self.lasts(next.samples);
        inner.pace = inner.due.take().map(|due| due + lasts);
        let reset_first = std::mem::take(&mut inner.slot_is_stale);
        if let Some((start, samples)) = taken.lost {
            self.lose_turn(&mut inner);
            self.report(&mut inner, Event::Lost { start, samples });
        }
        let end = inner.intake.position();
        let before = inner.decoding.take(pcm, end, self.delay > 0);
        let party = inner.suspicion.as_ref().filter(|s| end >= s.from).map_or(usize::MAX, |s| s.party);
        if inner.writers > 0 {
            self.room.notify_all();
        }
        let generation = inner.generation;
        let (complete, next, end) = (next.complete, end, taken.end);
        Some(Chunk { slot, end, reset_first, party, generation, next, before, complete, lasts })
    }

    /// Turns the result of a step of `party` streams into events and queues the stream again if another chunk is complete.
    /// `pcm` is the chunk's audio.
    pub(crate) fn complete(
        self: &Arc<Self>,
        chunk: &Chunk,
        pcm: &mut Vec<f32>,
        result: Result<Decoded, Error>,
        party: usize,
    ) -> Option<Wait> {
        let mut inner = self.lock();
        inner.standing = Standing::Idle;
        if inner.dropped {
            return None;
        }
        let mut wait = None;
        if inner.generation == chunk.generation {
            match result {
                Ok(decoded) => {
                    let again = inner.decoding.is_recovering();
                    if inner.suspicion.as_ref().is_some_and(|s| chunk.next >= s.from) {
                        inner.suspicion = None;
                    }
                    self.hand_out(&mut inner, chunk.end, decoded);
                    let overloaded = inner.place.as_ref().is_some_and(|place| place.lane.is_overloaded());
                    // What ends before a loss is none of the turn after it.
                    if !chunk.end {
                        inner.turn.heard(chunk.next.saturating_sub(chunk.before), overloaded);
                    }
                    let time = chunk.complete.elapsed();
                    wait = (!again).then_some(Wait { time, late: time > chunk.lasts });
                }
                Err(error) => match inner.suspect(&error, party, chunk.next) {
                    Some(suspicion) => {
                        inner.tries += 1;
                        inner.suspicion = Some(suspicion);
                        self.return_to(inner, chunk, pcm, error);
                        return None;
                    }
                    None => self.end(&mut inner, error, Some(chunk)),
                },
            }
        }
        self.schedule(&mut inner);
        wait
    }

    /// Ends the stream, whose step of `chunk` is lost if there was one.
    pub(crate) fn fail(&self, error: Error, chunk: Option<&Chunk>) {
        let mut inner = self.lock();
        inner.standing = Standing::Idle;
        if !inner.dropped && !inner.failed && chunk.is_none_or(|chunk| chunk.generation == inner.generation) {
            self.end(&mut inner, error, chunk);
        }
    }

    /// Has the stream go on elsewhere with the chunk, which was not stepped.
    pub(crate) fn interrupt(self: &Arc<Self>, chunk: &Chunk, pcm: &mut Vec<f32>, error: Error) {
        let inner = self.lock();
        if !inner.dropped && !inner.failed {
            self.return_to(inner, chunk, pcm, error);
        }
    }

    /// Has the stream go on elsewhere from `chunk`, whose samples are `pcm`.
    fn return_to(
        self: &Arc<Self>,
        mut inner: MutexGuard<'_, Inner>,
        chunk: &Chunk,
        pcm: &mut Vec<f32>,
        error: Error,
    ) {
        if inner.generation == chunk.generation {
            if self.history.samples == 0 {
                inner.intake.give_back(std::mem::take(pcm));
            }
            inner.decoding.samples = chunk.before;
        }
        self.leave(inner, error);
    }

    /// Has the stream go on elsewhere, unless it is on its way already. It must not be in a step.
    pub(crate) fn rescue(self: &Arc<Self>, error: Error) {
        let inner = self.lock();
        if !inner.dropped && !inner.failed {
            self.leave(inner, error);
        }
    }

    /// Gives the stream's place up, and gets it another where it hears again what it needs to go on from where it was.
    fn leave(self: &Arc<Self>, mut inner: MutexGuard<'_, Inner>, error: Error) {
        let Some(Place { lane, slot }) = inner.place.take() else { return };
        inner.standing = Standing::Idle;
        drop(inner);
        lane.close(slot, self.load);
        self.fleet.place(self.clone(), Trouble::new(error));
    }

    /// Takes a place; after `trouble` it goes on from where it was.
    pub(crate) fn settle(self: &Arc<Self>, lane: Arc<StreamLane>, slot: Slot, trouble: Option<Trouble>) {
        lane.join(slot, self.clone());
        let mut inner = self.lock();
        if inner.dropped || inner.failed {
            drop(inner);
            lane.close(slot, self.load);
            return;
        }
        inner.place = Some(Place { lane: lane.clone(), slot });
        if let Some(trouble) = trouble {
            let Inner { decoding, intake, slot_is_stale, .. } = &mut *inner;
            decoding.go_back(&self.history, intake, trouble);
            *slot_is_stale = false;
        }
        self.schedule(&mut inner);
        drop(inner);
        if let Err(error) = lane.works() {
            self.rescue(error);
        }
    }

    /// Gives out what is decoded and ends the stream; `chunk` was not decoded.
    fn end(&self, inner: &mut Inner, error: Error, chunk: Option<&Chunk>) {
        let clock = self.clock(inner, chunk.map_or(inner.decoding.samples, |chunk| chunk.before));
        let sample = clock.done;
        if let Some(word) = inner.decoding.finish(&self.vocabulary, clock) {
            self.report(inner, word);
        }
        self.report(inner, Event::Progress { sample });
        inner.failed = true;
        inner.intake.clear();
        self.report(inner, Event::Failed { error, sample });
        self.room.notify_all();
    }

    fn hand_out(&self, inner: &mut Inner, end: bool, decoded: Decoded) {
        let clock = self.clock(inner, inner.decoding.samples);
        let speech = Speech { vocabulary: &self.vocabulary, whole: self.whole, partials: self.partials };
        let Some(said) = inner.decoding.hear(&speech, clock, end, decoded) else { return };
        inner.tries = 0;
        for event in said {
            self.report(inner, event);
        }
        if end {
            inner.decoding.restart();
            inner.slot_is_stale = true;
            let over = inner.intake.over();
            if over.finished {
                self.report(inner, Event::Finished { sample: clock.done });
            }
            if let Some(sample) = over.silent_until {
                self.report(inner, Event::Progress { sample });
            }
        }
    }
}
