// SPDX-License-Identifier: MPL-2.0
//! What one stream costs in each way to stream the model.

use std::sync::Arc;
use std::time::Instant;

use parakeet_engine::Engine;
use serde::Serialize;

use super::RATE;
use super::race::three;
use crate::failure::Failure;
use crate::streaming::Way;

/// All ways.
#[derive(Serialize)]
pub struct Costs {
    /// To read as many bytes as the weights have from memory on one core: what a step takes there at least.
    pub read_seconds: f64,
    /// In the order of the model's contexts.
    pub contexts: Vec<Cost>,
}

/// One stream, as fast as it goes.
#[derive(Serialize)]
pub struct Cost {
    /// `look-ahead N`, the window's seconds, `LEFT-CHUNK-RIGHT`, or `offline`.
    pub way: String,
    pub chunk_ms: u32,
    /// Time to compute over time of the audio, median of three runs.
    pub real_time_factor: f64,
    pub least: f64,
    pub most: f64,
    /// Time of a chunk over the time to read the weights once.
    pub reads_a_chunk: f64,
    pub stream_bytes: usize,
}

/// Runs `pcm` three times in each way.
pub fn measure(
    engine: &Arc<Engine>,
    ways: &[Way],
    pcm: &[f32],
    weights_bytes: u64,
) -> Result<Costs, Failure> {
    let read_seconds = read(weights_bytes);
    let cost = |way: &Way| {
        let [least, median, most] =
            three(engine, &way.options, 1, pcm)?.map(|seconds| seconds / (pcm.len() as f64 / RATE));
        Ok(Cost {
            way: way.name.clone(),
            chunk_ms: way.chunk_ms(),
            real_time_factor: median,
            least,
            most,
            // The machine may have become slower or faster since the last one.
            reads_a_chunk: median * way.chunk_seconds / read(weights_bytes),
            stream_bytes: engine.stream_bytes(&way.options)?,
        })
    };
    let contexts = ways.iter().map(cost).collect::<Result<_, Failure>>()?;
    Ok(Costs { read_seconds, contexts })
}

/// Seconds to read this many bytes from memory, median of nine.
fn read(bytes: u64) -> f64 {
    let memory: Vec<u64> = (0..bytes / 8).collect();
    let mut seconds: Vec<f64> = (0..9)
        .map(|_| {
            let started = Instant::now();
            std::hint::black_box(memory.iter().fold(0_u64, |sum, &word| sum.wrapping_add(word)));
            started.elapsed().as_secs_f64()
        })
        .collect();
    seconds.sort_by(f64::total_cmp);
    seconds[4]
}
