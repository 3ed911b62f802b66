// SPDX-License-Identifier: MPL-2.0
//! Who works on a card when: steps of streams, and between them the parts of long steps of whole signals.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use super::card::Device;
use crate::error::Result;

/// Longest that a part waits for a turn, so that a busy card comes to whole signals too.
const PATIENCE: Duration = Duration::from_millis(100);

/// Shared by the backend of a card's streams and the one of its whole signals.
#[derive(Default)]
pub struct Turns {
    /// Slots of streams that are open.
    streams: AtomicUsize,
    /// A step of theirs is under way.
    busy: Mutex<bool>,
    free: Condvar,
}

/// A step of streams, until it is dropped.
pub struct Turn<'a>(&'a Turns);

impl Turns {
    /// A slot of a stream is open.
    pub fn opened(&self) {
        self.streams.fetch_add(1, Ordering::Relaxed);
    }

    /// A slot of a stream is closed.
    pub fn closed(&self) {
        self.streams.fetch_sub(1, Ordering::Relaxed);
    }

    /// Waits for what is enqueued on `device`, and then for a turn, if there are streams.
    pub fn give_way(&self, device: &Device) -> Result<()> {
        if self.streams.load(Ordering::Relaxed) > 0 {
            device.wait()?;
            self.wait();
        }
        Ok(())
    }

    /// Begins a step of streams.
    pub fn begin(&self) -> Turn<'_> {
        self.set(true);
        Turn(self)
    }

    /// Waits until no step of streams is under way, or long enough.
    fn wait(&self) {
        let busy = self.busy.lock().unwrap_or_else(PoisonError::into_inner);
        drop(self.free.wait_timeout_while(busy, PATIENCE, |busy| *busy));
    }

    fn set(&self, busy: bool) {
        *self.busy.lock().unwrap_or_else(PoisonError::into_inner) = busy;
        if !busy {
            self.free.notify_all();
        }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.set(false);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::thread;

    use super::*;

    #[test]
    fn a_part_waits_for_the_step_under_way_but_not_for_ever() {
        let turns = Arc::new(Turns::default());
        turns.wait();
        let turn = turns.begin();
        let part = {
            let turns = turns.clone();
            thread::spawn(move || turns.wait())
        };
        drop(turn);
        part.join().expect("no panic");
        let _turn = turns.begin();
        turns.wait();
    }
}
