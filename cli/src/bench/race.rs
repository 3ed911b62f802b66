// SPDX-License-Identifier: MPL-2.0
//! Streams as fast as they go.

use std::sync::Arc;
use std::thread::{self, available_parallelism};
use std::time::Instant;

use parakeet_engine::{Engine, Event, Stream, StreamOptions};

use crate::failure::Failure;

/// Seconds that `count` streams take for `pcm`.
pub fn race(
    engine: &Arc<Engine>,
    options: &StreamOptions,
    count: usize,
    pcm: &[f32],
) -> Result<f64, Failure> {
    let options = StreamOptions { queue_samples: pcm.len(), ..options.clone() };
    let streams: Vec<_> = (0..count).map(|_| engine.stream(&options)).collect::<Result<_, _>>()?;
    let threads = available_parallelism().map_or(1, |threads| threads.get().div_ceil(2));
    let feed = |streams: &[Stream]| {
        // The queue holds everything, so this doesn't wait.
        streams.iter().try_for_each(|stream| stream.push(pcm).map(|()| stream.finish()))
    };
    let started = Instant::now();
    thread::scope(|scope| {
        let shares = streams.chunks(count.div_ceil(threads).max(1));
        let feeders: Vec<_> = shares.map(|share| scope.spawn(move || feed(share))).collect();
        feeders.into_iter().all(|feeder| matches!(feeder.join(), Ok(Ok(()))))
    })
    .then_some(())
    .ok_or(Failure::Closed)?;
    streams.iter().try_for_each(|stream| listen(stream, |_| {}))?;
    Ok(started.elapsed().as_secs_f64())
}

/// Takes events to the end of an utterance.
pub fn listen(stream: &Stream, mut take: impl FnMut(Event)) -> Result<(), Failure> {
    loop {
        match stream.next() {
            Some(Event::Finished { .. }) => return Ok(()),
            Some(Event::Failed { error, .. }) => return Err(error.into()),
            Some(event) => take(event),
            None => return Err(Failure::Closed),
        }
    }
}

/// Least, median and most of three races, in ascending order.
pub fn three(
    engine: &Arc<Engine>,
    options: &StreamOptions,
    count: usize,
    pcm: &[f32],
) -> Result<[f64; 3], Failure> {
    let mut seconds = [0.0; 3];
    for run in &mut seconds {
        *run = race(engine, options, count, pcm)?;
    }
    seconds.sort_by(f64::total_cmp);
    Ok(seconds)
}
