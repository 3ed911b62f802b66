// SPDX-License-Identifier: MPL-2.0
//! Keeps a model for a while after an element let it go: one that is stopped and started again, as transcriberbin does for
//! passthrough and for another language, finds it loaded.

use parakeet_engine::Engine;
use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

/// How long.
const TIME: Duration = Duration::from_secs(10);

/// What is kept, the first to go first.
struct Kept {
    engines: Vec<(Arc<Engine>, Instant)>,
    /// A thread lets go what has been kept long enough, and ends with the last.
    is_watched: bool,
}

static KEPT: Mutex<Kept> = Mutex::new(Kept { engines: Vec::new(), is_watched: false });

fn kept() -> MutexGuard<'static, Kept> {
    KEPT.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Keeps the model from now on, whoever else has it. One whose devices are all lost is let go at once.
pub fn keep(engine: Arc<Engine>) {
    if !engine.works() {
        return;
    }
    let mut kept = kept();
    kept.engines.retain(|(other, _)| !Arc::ptr_eq(other, &engine));
    kept.engines.push((engine, Instant::now() + TIME));
    if !kept.is_watched {
        kept.is_watched = thread::Builder::new().name("parakeet-keep".into()).spawn(watch).is_ok();
    }
    if !kept.is_watched {
        drop(kept);
        release();
    }
}

/// Lets all of it go: another model is to have the memory.
pub fn release() {
    let engines = std::mem::take(&mut kept().engines);
    // The last one to let it go waits for its threads: without the lock.
    drop(engines);
}

fn watch() {
    loop {
        let mut kept = kept();
        let Some((_, until)) = kept.engines.first() else {
            kept.is_watched = false;
            return;
        };
        let rest = until.saturating_duration_since(Instant::now());
        if rest.is_zero() {
            let gone = kept.engines.remove(0);
            drop(kept);
            drop(gone);
        } else {
            drop(kept);
            thread::sleep(rest);
        }
    }
}
