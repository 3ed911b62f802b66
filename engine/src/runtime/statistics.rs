// SPDX-License-Identifier: MPL-2.0
//! What an engine has done, in counts and distributions of bounded size: for operators and benchmarks.

use std::fmt;

use hdrhistogram::Histogram;

use crate::backend::Memory;

/// Digits to which a distribution tells values apart.
const DIGITS: u8 = 3;

/// What an engine has done since it was opened, or since [`Engine::reset_statistics`](crate::Engine::reset_statistics).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Statistics {
    /// Of each device that the engine runs on; where it has computed whole signals beside its other streams, another
    /// follows for those.
    pub lanes: Vec<LaneStatistics>,
}

/// What one device has done, or what it has done beside that.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct LaneStatistics {
    /// The device for people.
    pub device: String,
    /// Of whole signals ([`Mode::Offline`](crate::backend::Mode::Offline)), beside the device's other streams.
    pub whole: bool,
    /// Streams that have a place on it now.
    pub open_streams: usize,
    /// Memory of the device now, where it has its own; told once for each device.
    pub memory: Option<Memory>,
    /// Steps.
    pub steps: u64,
    /// Chunks, that is steps of single streams.
    pub chunks: u64,
    /// Encoder frames that were decoded.
    pub frames: u64,
    /// Chunks whose wait was longer than their stream's chunk lasts.
    pub late_chunks: u64,
    /// Samples that full queues gave up.
    pub dropped_samples: u64,
    /// Seconds that the backend took for a step.
    pub step_seconds: Distribution,
    /// Seconds from when a chunk was complete in its stream's queue to when what it said was handed out.
    pub wait_seconds: Distribution,
    /// Streams of a step.
    pub batch: Distribution,
}

/// A distribution of values from 0 up, told apart to three digits; its size doesn't depend on how many they are.
#[derive(Clone)]
pub struct Distribution {
    histogram: Histogram<u64>,
    /// What the histogram's 1 stands for.
    unit: f64,
    max: f64,
}

/// Some quantiles of a distribution, 0 if it is empty.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Percentiles {
    /// Median.
    pub p50: f64,
    /// 95 of 100 are no greater.
    pub p95: f64,
    /// 99 of 100 are no greater.
    pub p99: f64,
    /// The greatest.
    pub max: f64,
}

impl Statistics {
    /// All devices together.
    pub fn total(&self) -> LaneStatistics {
        let devices = self.lanes.iter().filter(|lane| !lane.whole);
        let names: Vec<_> = devices.map(|lane| lane.device.as_str()).collect();
        let mut total = LaneStatistics::new(names.join(", "));
        for lane in &self.lanes {
            total.open_streams += lane.open_streams;
            total.memory = match (total.memory, lane.memory) {
                (Some(a), Some(b)) => Some(Memory { free: a.free + b.free, total: a.total + b.total }),
                (a, b) => a.or(b),
            };
            total.steps += lane.steps;
            total.chunks += lane.chunks;
            total.frames += lane.frames;
            total.late_chunks += lane.late_chunks;
            total.dropped_samples += lane.dropped_samples;
            total.step_seconds.merge(&lane.step_seconds);
            total.wait_seconds.merge(&lane.wait_seconds);
            total.batch.merge(&lane.batch);
        }
        total
    }
}

impl LaneStatistics {
    /// Nothing done yet.
    pub(crate) fn new(device: String) -> Self {
        Self {
            device,
            whole: false,
            open_streams: 0,
            memory: None,
            steps: 0,
            chunks: 0,
            frames: 0,
            late_chunks: 0,
            dropped_samples: 0,
            step_seconds: Distribution::seconds(),
            wait_seconds: Distribution::seconds(),
            batch: Distribution::counts(),
        }
    }

    /// Forgets what was done; what is open stays.
    pub(crate) fn reset(&mut self) {
        let device = std::mem::take(&mut self.device);
        *self = Self { open_streams: self.open_streams, ..Self::new(device) };
    }
}

impl Distribution {
    /// Of seconds, to a microsecond.
    pub(crate) fn seconds() -> Self {
        Self::new(1e-6)
    }

    /// Of whole numbers.
    pub(crate) fn counts() -> Self {
        Self::new(1.0)
    }

    fn new(unit: f64) -> Self {
        let histogram = Histogram::new(DIGITS).expect("a histogram may have so many digits");
        Self { histogram, unit, max: 0.0 }
    }

    /// Takes a value in.
    pub(crate) fn record(&mut self, value: f64) {
        self.max = self.max.max(value);
        let cells = (value / self.unit).round() as u64;
        self.histogram.record(cells).expect("a histogram that grows takes any value");
    }

    /// Takes in all values of `other`, which counts the same things.
    pub(crate) fn merge(&mut self, other: &Self) {
        self.max = self.max.max(other.max);
        // It grows as need be, so it holds what the other holds.
        self.histogram.add(&other.histogram).expect("a histogram that grows takes any other");
    }

    /// How many values.
    pub fn count(&self) -> u64 {
        self.histogram.len()
    }

    /// Their mean, 0 without any.
    pub fn mean(&self) -> f64 {
        self.histogram.mean() * self.unit
    }

    /// The greatest, 0 without any.
    pub fn max(&self) -> f64 {
        self.max
    }

    /// How many values are no greater than `value`, to the precision of three digits.
    pub fn count_up_to(&self, value: f64) -> u64 {
        let cells = (value.max(0.0) / self.unit).round() as u64;
        self.histogram.count_between(0, cells)
    }

    /// The value that this share of all, 0 to 1, don't exceed; 0 without any.
    pub fn quantile(&self, share: f64) -> f64 {
        if self.count() == 0 {
            return 0.0;
        }
        // The upper end of a cell may lie beyond all values.
        (self.histogram.value_at_quantile(share) as f64 * self.unit).min(self.max())
    }

    /// The usual quantiles.
    pub fn percentiles(&self) -> Percentiles {
        Percentiles {
            p50: self.quantile(0.5),
            p95: self.quantile(0.95),
            p99: self.quantile(0.99),
            max: self.max(),
        }
    }
}

impl fmt::Debug for Distribution {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} values, {:?}", self.count(), self.percentiles())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_near(value: f64, expected: f64) -> bool {
        (value - expected).abs() <= 1e-3 * expected
    }

    #[test]
    fn quantiles_are_right_to_three_digits() {
        let mut seconds = Distribution::seconds();
        assert_eq!((seconds.percentiles(), seconds.count()), (Percentiles::default(), 0));
        for value in 1..=1_000 {
            seconds.record(f64::from(value) * 1e-3);
        }
        let Percentiles { p50, p95, p99, max } = seconds.percentiles();
        assert!(
            is_near(p50, 0.5) && is_near(p95, 0.95) && is_near(p99, 0.99) && is_near(max, 1.0),
            "{seconds:?}"
        );
        assert!(is_near(seconds.mean(), 0.5005), "{}", seconds.mean());
        let counts = [-1.0, 0.0, 0.0005, 0.25, 0.5, 1.0, 1e9].map(|value| seconds.count_up_to(value));
        assert_eq!(counts, [0, 0, 0, 250, 500, 1_000, 1_000]);
        seconds.record(f64::MAX);
        assert!(seconds.max() > 1e12, "what is too great counts as the greatest");
    }

    #[test]
    fn a_total_holds_what_all_lanes_hold() {
        let mut lanes = vec![LaneStatistics::new("a".into()), LaneStatistics::new("b".into())];
        for (index, lane) in lanes.iter_mut().enumerate() {
            lane.chunks = 10;
            lane.memory = Some(Memory { free: 1, total: 4 });
            (0..10).for_each(|_| lane.wait_seconds.record(1.0 + index as f64));
        }
        let mut total = Statistics { lanes }.total();
        assert_eq!((total.device.as_str(), total.chunks), ("a, b", 20));
        assert_eq!(total.memory, Some(Memory { free: 2, total: 8 }));
        let Percentiles { p50, p95, .. } = total.wait_seconds.percentiles();
        assert!(is_near(p50, 1.0) && is_near(p95, 2.0), "{:?}", total.wait_seconds);
        total.open_streams = 3;
        total.reset();
        assert_eq!((total.device.as_str(), total.open_streams, total.chunks), ("a, b", 3, 0));
        assert_eq!(total.wait_seconds.count(), 0);
    }
}
