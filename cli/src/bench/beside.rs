// SPDX-License-Identifier: MPL-2.0
//! A long file beside live streams.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use parakeet_engine::backend::Mode;
use parakeet_engine::{Engine, Error, Event, StreamOptions};
use serde::Serialize;

use super::RATE;
use crate::failure::Failure;

/// Time between two looks at the file's events.
const LOOK: Duration = Duration::from_millis(20);

/// A file in one pass, over and over.
#[derive(Clone, Copy, Serialize)]
pub struct Beside {
    pub audio_seconds: u32,
    pub files: u64,
}

fn options() -> StreamOptions {
    StreamOptions { offline: true, ..StreamOptions::default() }
}

/// Fails where the model hears a file chunk by chunk, as it hears live streams.
pub fn check(engine: &Engine) -> Result<(), Failure> {
    match options().mode(engine.config())? {
        Mode::Offline { .. } => Ok(()),
        _ => {
            let reason =
                "the model hears a file chunk by chunk with caches, as any stream: no step is long".into();
            Err(Error::Option { option: "beside", reason }.into())
        }
    }
}

/// Decodes a file of so many seconds in one pass, over and over, until `stop` is set.
pub fn decode(
    engine: &Arc<Engine>,
    speech: &[f32],
    audio_seconds: u32,
    stop: &AtomicBool,
) -> Result<Beside, Failure> {
    let samples = audio_seconds as usize * RATE as usize;
    let pcm: Vec<f32> = speech.iter().copied().cycle().take(samples).collect();
    let mut files = 0;
    while !stop.load(Ordering::Relaxed) {
        let stream = engine.stream(&options())?;
        // A stream that takes nothing says why in its events.
        let _ = stream.push(&pcm);
        stream.finish();
        let mut done = false;
        while !done && !stop.load(Ordering::Relaxed) {
            match stream.try_next() {
                Some(Event::Finished { .. }) => done = true,
                Some(Event::Failed { error, .. }) => return Err(error.into()),
                Some(_) => {}
                None => thread::sleep(LOOK),
            }
        }
        files += u64::from(done);
    }
    Ok(Beside { audio_seconds, files })
}
