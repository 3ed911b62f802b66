// SPDX-License-Identifier: MPL-2.0
//! What a server counts, in the text form of OpenMetrics that Prometheus reads.

use std::fmt;

use parakeet_engine::{Distribution, Statistics};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder, NoLabelSet, text::encode};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

/// Content type of [`text`].
pub const TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Upper ends of what times are told apart by, in seconds.
const TIMES: [f64; 14] = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0];
/// Upper ends of how many streams a step has.
const BATCHES: [f64; 14] =
    [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 2048.0, 4096.0, 8192.0];

/// What is counted as it happens.
pub struct Metrics {
    /// Streams that were opened.
    pub opened: Counter,
    /// Streams that failed.
    pub failed: Counter,
    refused: Family<[(&'static str, &'static str); 1], Counter>,
    /// Words that went out.
    pub words: Counter,
    /// Seconds of audio that came.
    pub audio: Counter<f64, std::sync::atomic::AtomicU64>,
    /// Seconds of audio that were given up.
    pub dropped: Counter<f64, std::sync::atomic::AtomicU64>,
    /// Seconds from when the end of a word came in to when the word went out.
    pub delay: Histogram,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            opened: Counter::default(),
            failed: Counter::default(),
            refused: Family::default(),
            words: Counter::default(),
            audio: Counter::default(),
            dropped: Counter::default(),
            delay: Histogram::new(TIMES),
        }
    }
}

impl Metrics {
    /// A stream was refused.
    pub fn refused(&self, reason: &'static str) {
        self.refused.get_or_create(&[("reason", reason)]).inc();
    }
}

/// All that is known now.
pub fn text(counted: &Metrics, now: Now) -> Result<String, fmt::Error> {
    let mut registry = Registry::with_prefix("parakeet");
    let Metrics { opened, failed, refused, words, audio, dropped, delay } = counted;
    registry.register("streams_opened", "Streams that were opened", opened.clone());
    registry.register("streams_failed", "Streams that failed", failed.clone());
    registry.register("streams_refused", "Streams that were refused", refused.clone());
    registry.register("words", "Words that went out", words.clone());
    registry.register_with_unit("audio", "Audio that came in", Unit::Seconds, audio.clone());
    registry.register_with_unit("dropped_audio", "Audio that was given up", Unit::Seconds, dropped.clone());
    registry.register_with_unit(
        "word_delay",
        "From when the end of a word came in to when the word went out",
        Unit::Seconds,
        delay.clone(),
    );
    registry.register_collector(Box::new(now));
    let mut text = String::new();
    encode(&mut text, &registry)?;
    Ok(text)
}

/// What is read when it is asked for.
#[derive(Debug)]
pub struct Now {
    /// Streams that are open.
    pub streams: usize,
    /// Streams that may be.
    pub limit: Option<usize>,
    /// Another would be taken.
    pub is_ready: bool,
    /// What the devices did, once there is a model.
    pub statistics: Option<Statistics>,
}

impl Collector for Now {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        let gauge = |encoder: &mut DescriptorEncoder, name: &str, help: &str, value: u64| {
            let gauge = ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX));
            gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)
        };
        gauge(&mut encoder, "streams", "Streams that are open", self.streams as u64)?;
        if let Some(limit) = self.limit {
            gauge(&mut encoder, "streams_limit", "Streams that may be open", limit as u64)?;
        }
        gauge(&mut encoder, "ready", "Whether another stream would be taken", self.is_ready.into())?;
        let Some(Statistics { lanes, .. }) = &self.statistics else { return Ok(()) };
        let labels: Vec<_> = lanes
            .iter()
            .map(|lane| [("device", lane.device.clone()), ("whole", lane.whole.to_string())])
            .collect();
        let lanes = || labels.iter().zip(lanes);

        let mut counter = |name: &str, help: &str, unit: Option<&Unit>, values: &[f64]| {
            let mut all = encoder.encode_descriptor(name, help, unit, MetricType::Counter)?;
            for (labels, value) in labels.iter().zip(values) {
                ConstCounter::new(*value).encode(all.encode_family(labels)?)?;
            }
            Ok::<_, fmt::Error>(())
        };
        let of = |value: fn(&parakeet_engine::LaneStatistics) -> u64| -> Vec<f64> {
            lanes().map(|(_, lane)| value(lane) as f64).collect()
        };
        counter("chunks", "Chunks of streams that a device computed", None, &of(|lane| lane.chunks))?;
        counter(
            "late_chunks",
            "Chunks that waited longer than they last",
            None,
            &of(|lane| lane.late_chunks),
        )?;
        counter("frames", "Encoder frames of 80 ms that were decoded", None, &of(|lane| lane.frames))?;

        for (name, help, unit, ends, distribution) in [
            (
                "step",
                "Time of a device for a step",
                Some(&Unit::Seconds),
                TIMES,
                (|lane| &lane.step_seconds) as fn(&parakeet_engine::LaneStatistics) -> &Distribution,
            ),
            (
                "wait",
                "From when a chunk was complete to when what it says was handed out",
                Some(&Unit::Seconds),
                TIMES,
                |lane| &lane.wait_seconds,
            ),
            ("batch_streams", "Streams of a step", None, BATCHES, |lane| &lane.batch),
        ] {
            let mut all = encoder.encode_descriptor(name, help, unit, MetricType::Histogram)?;
            for (labels, lane) in lanes() {
                histogram(all.encode_family(labels)?, distribution(lane), &ends)?;
            }
        }

        let mut memory = |name: &str, help: &str, value: fn(&parakeet_engine::backend::Memory) -> u64| {
            let mut all = encoder.encode_descriptor(name, help, Some(&Unit::Bytes), MetricType::Gauge)?;
            for (labels, lane) in lanes() {
                if let Some(memory) = &lane.memory {
                    let bytes = i64::try_from(value(memory)).unwrap_or(i64::MAX);
                    ConstGauge::new(bytes).encode(all.encode_family(labels)?)?;
                }
            }
            Ok::<_, fmt::Error>(())
        };
        memory("memory_free", "Memory of the device that is free", |memory| memory.free as u64)?;
        memory("memory", "Memory of the device", |memory| memory.total as u64)
    }
}

/// A distribution by these upper ends, all beyond the last together.
fn histogram(mut encoder: MetricEncoder, values: &Distribution, ends: &[f64]) -> Result<(), fmt::Error> {
    let (mut buckets, mut below) = (Vec::with_capacity(ends.len() + 1), 0);
    for end in ends {
        let up_to = values.count_up_to(*end);
        buckets.push((*end, up_to - below));
        below = up_to;
    }
    buckets.push((f64::INFINITY, values.count() - below));
    encoder.encode_histogram::<NoLabelSet>(
        values.mean() * values.count() as f64,
        values.count(),
        &buckets,
        None,
    )
}
