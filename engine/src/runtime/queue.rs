// SPDX-License-Identifier: MPL-2.0
//! What a lane's thread has to do: chunks with deadlines, the most urgent first, and requests between two steps.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::backend::Limits;

/// The queue between everybody and the lane's thread. Its lock is held to put something in or to take all out, never while
/// anything is put in order.
pub(crate) struct Queue<T, R> {
    arrived: Mutex<Arrived<T, R>>,
    changed: Condvar,
}

struct Arrived<T, R> {
    entries: Vec<Entry<T>>,
    requests: Vec<R>,
    /// The thread waits.
    idle: bool,
    stopped: bool,
}

/// Rank of what only gets room that is left, and little of it in one step: what was given up before.
pub(crate) const OUTSIDE: u8 = u8::MAX;

/// Items of that rank in a step, at least, if there is room.
const LEAST_ADMITTED: usize = 2;

/// One of them is let in for so many others.
const ADMITTED_SHARE: usize = 16;

/// What goes first: a smaller rank, and of the same an earlier deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Urgency {
    /// 0 for who is to be in time.
    pub(crate) rank: u8,
    pub(crate) deadline: Instant,
}

struct Entry<T> {
    urgency: Urgency,
    /// Encoder frames that it adds to a step.
    frames: usize,
    item: T,
}

/// Why [`Queue::receive`] came back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Received {
    /// There is something to do.
    Work,
    /// There has been nothing for so long.
    Quiet,
    /// [`Queue::stop`] came.
    Stopped,
}

/// What the lane's thread has taken out of the queue and not begun.
pub(crate) struct Backlog<T> {
    entries: Vec<Entry<T>>,
}

impl<T, R> Default for Queue<T, R> {
    fn default() -> Self {
        let arrived = Arrived { entries: Vec::new(), requests: Vec::new(), idle: false, stopped: false };
        Self { arrived: Mutex::new(arrived), changed: Condvar::new() }
    }
}

impl<T, R> Queue<T, R> {
    /// Puts in `item`, which adds `frames` encoder frames to a step.
    pub(crate) fn add(&self, urgency: Urgency, frames: usize, item: T) {
        self.change(|arrived| arrived.entries.push(Entry { urgency, frames, item }));
    }

    /// Puts in a request.
    pub(crate) fn request(&self, request: R) {
        self.change(|arrived| arrived.requests.push(request));
    }

    /// Makes [`Queue::receive`] return false; requests are dropped from here on.
    pub(crate) fn stop(&self) {
        self.change(|arrived| {
            arrived.stopped = true;
            arrived.requests.clear();
        });
    }

    /// Whether [`Queue::stop`] came.
    pub(crate) fn is_stopped(&self) -> bool {
        self.lock().stopped
    }

    fn change(&self, change: impl FnOnce(&mut Arrived<T, R>)) {
        let mut arrived = self.lock();
        if arrived.stopped {
            return;
        }
        change(&mut arrived);
        if std::mem::take(&mut arrived.idle) {
            self.changed.notify_one();
        }
    }

    /// Takes everything out, once there is something here or in the backlog; waits no longer than `patience`, if there is
    /// any.
    pub(crate) fn receive(
        &self,
        backlog: &mut Backlog<T>,
        requests: &mut Vec<R>,
        patience: Option<Duration>,
    ) -> Received {
        let mut arrived = self.lock();
        let end = patience.map(|patience| Instant::now() + patience);
        while !arrived.stopped
            && arrived.entries.is_empty()
            && arrived.requests.is_empty()
            && backlog.entries.is_empty()
        {
            let left = end.map(|end| end.saturating_duration_since(Instant::now()));
            arrived.idle = true;
            arrived = match left {
                Some(Duration::ZERO) => return Received::Quiet,
                Some(left) => {
                    let waited = self.changed.wait_timeout(arrived, left);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
                None => self.changed.wait(arrived).unwrap_or_else(PoisonError::into_inner),
            };
        }
        requests.append(&mut arrived.requests);
        backlog.entries.append(&mut arrived.entries);
        if arrived.stopped { Received::Stopped } else { Received::Work }
    }

    fn lock(&self) -> MutexGuard<'_, Arrived<T, R>> {
        self.arrived.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Default for Backlog<T> {
    fn default() -> Self {
        Self { entries: Vec::new() }
    }
}

impl<T> Backlog<T> {
    /// Takes what fits into a step, the most urgent first, with the frames of each; one item fits always.
    /// What is outside waits until there is nothing else unless some of it is to be let in (`admit`).
    pub(crate) fn take(&mut self, limits: Limits, admit: bool) -> impl Iterator<Item = (usize, T)> {
        let inside = self.entries.iter().filter(|entry| entry.urgency.rank < OUTSIDE).count();
        // All at once would have no more of their turn than those before them.
        let outside = if admit || inside == 0 { LEAST_ADMITTED.max(inside / ADMITTED_SHARE) } else { 0 };
        let mut count = limits.streams.max(1).min(self.entries.len()).min(inside + outside);
        if count < self.entries.len() {
            self.entries.select_nth_unstable_by_key(count, |entry| entry.urgency);
        }
        let first = &mut self.entries[..count];
        let sum = |sum: usize, entry: &Entry<T>| sum.saturating_add(entry.frames);
        if first.iter().fold(0, sum) > limits.frames {
            first.sort_unstable_by_key(|entry| entry.urgency);
            let mut frames = 0;
            let fitting = first.iter().take_while(|entry| {
                frames = sum(frames, entry);
                frames <= limits.frames
            });
            count = fitting.count().max(1);
        }
        self.entries.drain(..count).map(|entry| (entry.frames, entry.item))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn urgency(rank: u8, deadline: Instant) -> Urgency {
        Urgency { rank, deadline }
    }

    fn step(backlog: &mut Backlog<u64>, streams: usize, frames: usize) -> Vec<u64> {
        let mut taken: Vec<_> = backlog
            .take(Limits { streams, frames, ..Limits::default() }, true)
            .map(|(_, item)| item)
            .collect();
        taken.sort_unstable();
        taken
    }

    #[test]
    fn the_most_urgent_come_first_and_the_rest_stay() {
        let queue = Queue::<u64, char>::default();
        let (mut backlog, mut requests) = (Backlog::default(), Vec::new());
        let start = Instant::now();
        for after in [3, 1, 4, 0, 2] {
            queue.add(urgency(0, start + Duration::from_secs(after)), 10, after);
        }
        queue.request('a');
        assert_eq!(queue.receive(&mut backlog, &mut requests, None), Received::Work);
        assert_eq!((step(&mut backlog, 3, 100), &requests[..]), (vec![0, 1, 2], &['a'][..]));
        queue.add(urgency(0, start), 10, 9);
        assert_eq!(queue.receive(&mut backlog, &mut requests, None), Received::Work);
        assert_eq!(step(&mut backlog, 2, 100), [3, 9]);
        queue.request('b');
        queue.stop();
        queue.request('c');
        assert_eq!(queue.receive(&mut backlog, &mut requests, None), Received::Stopped);
        assert_eq!(requests, ['a'], "who waits for an answer sees that none comes");
        assert_eq!(step(&mut backlog, 9, 100), [4]);
        assert_eq!(step(&mut backlog, 9, 100), [0; 0]);
    }

    #[test]
    fn who_waits_with_patience_is_told_when_it_is_over() {
        let queue = Queue::<u64, char>::default();
        let (mut backlog, mut requests) = (Backlog::default(), Vec::new());
        let patience = Some(Duration::from_millis(1));
        assert_eq!(queue.receive(&mut backlog, &mut requests, patience), Received::Quiet);
        queue.add(urgency(0, Instant::now()), 1, 7);
        assert_eq!(queue.receive(&mut backlog, &mut requests, patience), Received::Work);
        assert_eq!(queue.receive(&mut backlog, &mut requests, patience), Received::Work, "it isn't begun");
        assert_eq!(step(&mut backlog, 9, 100), [7]);
        assert_eq!(queue.receive(&mut backlog, &mut requests, patience), Received::Quiet);
        queue.stop();
        assert_eq!(queue.receive(&mut backlog, &mut requests, patience), Received::Stopped);
    }

    #[test]
    fn what_is_outside_comes_in_little_by_little() {
        let queue = Queue::<u64, char>::default();
        let mut backlog = Backlog::default();
        let start = Instant::now();
        for item in 0..100 {
            queue.add(urgency(OUTSIDE, start), 1, item);
        }
        queue.receive(&mut backlog, &mut Vec::new(), None);
        assert_eq!(step(&mut backlog, 1_000, 1_000).len(), 2);
        for item in 100..164 {
            queue.add(
                urgency(if item % 2 == 0 { 0 } else { 24 }, start + Duration::from_secs(item)),
                1,
                item,
            );
        }
        queue.receive(&mut backlog, &mut Vec::new(), None);
        let outside = |taken: Vec<u64>| taken.into_iter().filter(|item| *item < 100).count();
        assert_eq!(outside(step(&mut backlog, 50, 1_000)), 0, "there is no room");
        let limits = Limits { streams: 20, ..Limits::default() };
        let kept_out: Vec<_> = backlog.take(limits, false).map(|(_, item)| item).collect();
        assert_eq!((kept_out.len(), outside(kept_out)), (14, 0));
        let alone = backlog.take(limits, false).count();
        assert_eq!(alone, 2, "there is nothing else");
        queue.add(urgency(3, start), 1, 200);
        queue.receive(&mut backlog, &mut Vec::new(), None);
        assert_eq!(outside(step(&mut backlog, 1_000, 1_000)), 2);
    }

    #[test]
    fn a_step_holds_so_many_frames_and_an_item_that_has_more_goes_alone() {
        let queue = Queue::<u64, char>::default();
        let mut backlog = Backlog::default();
        let start = Instant::now();
        for (after, frames) in [(2, 30), (0, 60), (1, 40), (3, 500), (4, 1)] {
            queue.add(urgency(0, start + Duration::from_secs(after)), frames, after);
        }
        queue.receive(&mut backlog, &mut Vec::new(), None);
        assert_eq!(step(&mut backlog, 9, 100), [0, 1]);
        assert_eq!(step(&mut backlog, 9, 100), [2], "what is less urgent doesn't overtake");
        assert_eq!(step(&mut backlog, 9, 100), [3]);
        assert_eq!(step(&mut backlog, 9, 100), [4]);
    }
}
