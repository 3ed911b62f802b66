// SPDX-License-Identifier: MPL-2.0
//! What waits for a step: a queue that gives out the longest waiting first, several at a time.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// The queue between the streams and the batcher's thread.
pub(crate) struct Queue<T> {
    waiting: Mutex<Waiting<T>>,
    changed: Condvar,
}

struct Waiting<T> {
    entries: BinaryHeap<Entry<T>>,
    stopped: bool,
}

struct Entry<T> {
    /// All wait equally long at most, so this orders the deadlines.
    due_since: Instant,
    item: T,
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        let waiting = Waiting { entries: BinaryHeap::new(), stopped: false };
        Self { waiting: Mutex::new(waiting), changed: Condvar::new() }
    }
}

impl<T> Queue<T> {
    /// Puts in `item`, which could be stepped since `due_since`.
    pub(crate) fn add(&self, due_since: Instant, item: T) {
        self.lock().entries.push(Entry { due_since, item });
        self.changed.notify_one();
    }

    /// Makes [`Queue::take`] return `None` once the queue is empty.
    pub(crate) fn stop(&self) {
        self.lock().stopped = true;
        self.changed.notify_one();
    }

    /// Waits until there is something, then takes up to `most`, the longest waiting first.
    pub(crate) fn take(&self, most: usize) -> Option<Vec<T>> {
        let mut waiting = self.lock();
        while waiting.entries.is_empty() {
            if waiting.stopped {
                return None;
            }
            waiting = self.changed.wait(waiting).unwrap_or_else(PoisonError::into_inner);
        }
        let count = most.min(waiting.entries.len());
        Some((0..count).filter_map(|_| waiting.entries.pop()).map(|entry| entry.item).collect())
    }

    fn lock(&self) -> MutexGuard<'_, Waiting<T>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Ord for Entry<T> {
    /// The longest waiting is the greatest.
    fn cmp(&self, other: &Self) -> Ordering {
        other.due_since.cmp(&self.due_since)
    }
}

impl<T> PartialOrd for Entry<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> PartialEq for Entry<T> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl<T> Eq for Entry<T> {}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn the_longest_waiting_come_first_and_the_rest_stay() {
        let queue = Queue::default();
        let start = Instant::now();
        for after in [3, 1, 4, 0, 2] {
            queue.add(start + Duration::from_secs(after), after);
        }
        assert_eq!(queue.take(3), Some(vec![0, 1, 2]));
        queue.add(start, 9);
        queue.stop();
        assert_eq!(queue.take(5), Some(vec![9, 3, 4]), "what waits is still given out");
        assert_eq!(queue.take(5), None);
    }
}
