// SPDX-License-Identifier: MPL-2.0
//! Throughput: many files at once, as fast as they go.

use std::sync::Arc;

use parakeet_engine::{Engine, StreamOptions};
use serde::Serialize;

use super::RATE;
use super::race::three;
use crate::failure::Failure;
use crate::streaming::Way;

/// Both ways to transcribe files.
#[derive(Serialize)]
pub struct Files {
    /// At once.
    pub files: usize,
    /// Of each file.
    pub audio_seconds: f64,
    pub ways: Vec<Throughput>,
}

/// All files in one way.
#[derive(Serialize)]
pub struct Throughput {
    /// `offline`, `look-ahead N` or the window's seconds, `LEFT-CHUNK-RIGHT`.
    pub way: String,
    /// For all files, median of three runs.
    pub seconds: f64,
    pub least: f64,
    pub most: f64,
    /// Seconds of audio a second.
    pub throughput: f64,
    /// Streams in a step, their mean.
    pub batch: f64,
    /// What a step took, their median.
    pub step_seconds: f64,
    /// Share of the time in which the device was in a step; the rest is the host's.
    pub busy: f64,
}

/// Runs `count` copies of `pcm` in one pass each, then as streams with `options`, unless the model does the same for both.
pub fn measure(
    engine: &Arc<Engine>,
    options: &StreamOptions,
    count: usize,
    pcm: &[f32],
) -> Result<Files, Failure> {
    let audio_seconds = pcm.len() as f64 / RATE;
    let one_pass = StreamOptions { offline: true, window: None, ..options.clone() };
    let config = engine.config();
    let mut all = vec![one_pass];
    if options.mode(config)? != all[0].mode(config)? {
        all.push(options.clone());
    }
    let run = |options| {
        let way = Way::new(options, config)?;
        engine.reset_statistics();
        let runs = three(engine, &way.options, count, pcm)?;
        let [least, seconds, most] = runs;
        let throughput = count as f64 * audio_seconds / seconds;
        let statistics = engine.statistics();
        let seen = statistics.total();
        let devices = statistics.lanes.iter().filter(|lane| !lane.whole).count();
        let in_steps = seen.step_seconds.mean() * seen.steps as f64 / devices as f64;
        Ok(Throughput {
            way: way.name,
            seconds,
            least,
            most,
            throughput,
            batch: seen.batch.mean(),
            step_seconds: seen.step_seconds.quantile(0.5),
            // The mean is told to three digits.
            busy: (in_steps / runs.iter().sum::<f64>()).min(1.0),
        })
    };
    let ways = all.into_iter().map(run).collect::<Result<_, Failure>>()?;
    Ok(Files { files: count, audio_seconds, ways })
}
