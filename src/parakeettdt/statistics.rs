// SPDX-License-Identifier: MPL-2.0
//! What the element counts.

use super::timeline::nanoseconds;
use gst::prelude::*;
use parakeet_engine::{Distribution, Engine, LaneStatistics, Percentiles};

/// Counts since READY.
#[derive(Clone, Debug, Default)]
pub struct Statistics {
    /// Text buffers pushed.
    pub buffers: u64,
    /// Samples that came in.
    pub samples: u64,
    /// Samples that were dropped because recognition was too slow.
    pub dropped: u64,
    /// Nanoseconds of audio that never came, as time stamps say.
    pub missing: u64,
    /// Times that recognition began anew in mid-stream.
    pub cuts: u64,
    /// Longest time in ms from when the start of a text came in to when it was pushed.
    pub max_delay_ms: u32,
}

impl Statistics {
    /// For the property `stats`, with what the engine's devices did for all streams. Waits for the step under way.
    pub fn structure(&self, engine: Option<&Engine>) -> gst::Structure {
        let lanes = engine.map(|engine| engine.statistics().lanes).unwrap_or_default();
        gst::Structure::builder("parakeettdt/stats")
            .field("buffers", self.buffers)
            .field("audio", nanoseconds(self.samples))
            .field("dropped-audio", nanoseconds(self.dropped))
            .field("missing-audio", self.missing)
            .field("cuts", self.cuts)
            .field("max-observed-delay", self.max_delay_ms)
            .field("devices", gst::Array::new(lanes.iter().map(|lane| device(lane).to_send_value())))
            .build()
    }
}

/// What a device did since the engine was opened. Times are in ns.
fn device(lane: &LaneStatistics) -> gst::Structure {
    let builder = gst::Structure::builder("parakeettdt/device")
        .field("device", &lane.device)
        .field("whole-signals", lane.whole)
        .field("streams", lane.open_streams as u64)
        .field("steps", lane.steps)
        .field("chunks", lane.chunks)
        .field("late-chunks", lane.late_chunks)
        .field("dropped-audio", nanoseconds(lane.dropped_samples))
        .field("batch-mean", lane.batch.mean())
        .field("batch-max", lane.batch.max() as u64);
    let builder = match &lane.memory {
        Some(memory) => builder.field("memory", memory.total as u64).field("memory-free", memory.free as u64),
        None => builder,
    };
    let builder = times(builder, ["step-time-p50", "step-time-p95", "step-time-max"], &lane.step_seconds);
    times(builder, ["lag-p50", "lag-p95", "lag-max"], &lane.wait_seconds).build()
}

fn times(
    builder: gst::structure::Builder,
    names: [&'static str; 3],
    seconds: &Distribution,
) -> gst::structure::Builder {
    let Percentiles { p50, p95, max, .. } = seconds.percentiles();
    names
        .into_iter()
        .zip([p50, p95, max])
        .fold(builder, |builder, (name, value)| builder.field(name, (value * 1e9) as u64))
}
