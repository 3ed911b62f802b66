// SPDX-License-Identifier: MPL-2.0
//! Time of a backend's steps by batch and chunk: straight on the device, without streams and batcher.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parakeet_engine::EngineOptions;
use parakeet_engine::backend::{self, Backend, Mode, Peaks, Slot, Step, StepSizes, Timings};
use parakeet_engine::model::{Model, parameters};
use serde::Serialize;

use super::operations::{Shape, Widths, Work};
use super::Rates;
use crate::failure::Failure;
use crate::streaming::Way;

/// Steps that are timed, if there is time for them.
const TIMED: usize = 20;
/// Steps that are timed part by part.
const MEASURED: usize = 5;
/// Audio between the places where two streams begin.
const APART: usize = 16_000 * 37 / 100;

/// All that was measured.
#[derive(Serialize)]
pub struct Steps {
    backend: &'static str,
    device: String,
    /// `operations` and `bytes` a second at best; none if the backend can't tell.
    peaks: Option<Rates>,
    pub steps: Vec<Point>,
    /// Why the larger batches are missing, for each way.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    left_out: Vec<String>,
}

/// Steps of one batch and one way to stream.
#[derive(Serialize)]
pub struct Point {
    /// As in the other modes.
    pub way: String,
    chunk_ms: u32,
    /// Streams in a step.
    pub batch: usize,
    /// Steps that were timed.
    timed: usize,
    /// Median.
    pub step_seconds: f64,
    least: f64,
    most: f64,
    /// How much of the left context was there at the first timed step, 0 to 1; with less than all a step costs less.
    context_filled: f64,
    /// Where the time goes, medians of steps that were timed part by part; none if the backend can't tell.
    parts: Option<Parts>,
    /// What a step takes at least.
    operations: f64,
    bytes: f64,
    /// What was reached of that.
    rates: Rates,
    /// Streams that this batch serves in real time.
    pub live_streams: f64,
    stream_bytes: usize,
}

/// Seconds of a step's parts.
#[derive(Serialize)]
struct Parts {
    copies: f64,
    features: f64,
    layers: f64,
    decode: f64,
}

impl Parts {
    fn median(seen: &[Timings]) -> Option<Self> {
        let part = |of: fn(&Timings) -> f64| median(&mut seen.iter().map(of).collect::<Vec<_>>());
        (!seen.is_empty()).then(|| Self {
            copies: part(|t| t.copies),
            features: part(|t| t.features),
            layers: part(|t| t.layers),
            decode: part(|t| t.decode),
        })
    }
}

/// What is measured.
pub struct Plan<'a> {
    pub model: &'a Arc<Model>,
    pub options: &'a EngineOptions,
    pub ways: &'a [Way],
    /// Rising.
    pub batches: &'a [usize],
    /// For the steps of a batch; a step that takes longer is the last.
    pub budget: Duration,
    /// Speech.
    pub pcm: &'a [f32],
}

/// Measures on the first device that the options name; first come the seconds since `started` when that was open.
pub fn measure(plan: &Plan<'_>, started: Instant) -> Result<(f64, Steps), Failure> {
    let mut backend = backend::open(plan.model, plan.options)?.swap_remove(0);
    let load_seconds = started.elapsed().as_secs_f64();
    let peaks = backend.peaks()?.map(|Peaks { operations, bytes }| Rates { operations, bytes });
    let mut seen = Steps {
        backend: backend.name(),
        device: backend.device(),
        peaks,
        steps: Vec::new(),
        left_out: Vec::new(),
    };
    for way in plan.ways {
        let mode = way.options.mode(&plan.model.config)?;
        if Shape::full(mode, &plan.model.config).is_none() {
            seen.left_out.push(format!("{}: an utterance is one step", way.name));
            continue;
        }
        let language = way.options.language_place(&plan.model.config)?;
        let mut slots = Slots::new(backend.as_mut(), mode, language, plan);
        for &wanted in plan.batches {
            let refused = slots.open(wanted).err();
            if slots.places.is_empty() {
                return Err(refused.unwrap_or(Failure::Closed));
            }
            if seen.steps.last().is_none_or(|last| last.way != way.name || last.batch < slots.places.len()) {
                let point = slots.point(way, plan)?;
                let slow = point.step_seconds > plan.budget.as_secs_f64();
                seen.steps.push(point);
                if slow {
                    seen.left_out.push(format!("{}: more than {wanted} take too long", way.name));
                    break;
                }
            }
            if let Some(refused) = refused {
                seen.left_out.push(format!("{}: {wanted} streams don't open: {refused}", way.name));
                break;
            }
        }
    }
    Ok((load_seconds, seen))
}

/// Streams of speech that begin at different places of it.
struct Slots<'a> {
    backend: &'a mut dyn Backend,
    mode: Mode,
    language: usize,
    sizes: StepSizes,
    /// The speech, and its beginning once more, so that a chunk may begin anywhere.
    pcm: Vec<f32>,
    around: usize,
    places: Vec<Place>,
}

struct Place {
    slot: Slot,
    /// In `pcm`.
    next: usize,
    chunks: u64,
}

impl<'a> Slots<'a> {
    fn new(backend: &'a mut dyn Backend, mode: Mode, language: usize, plan: &Plan<'_>) -> Self {
        let sizes = mode.step_sizes(&plan.model.config.encoder);
        let around = plan.pcm.len();
        let whole = around + sizes.first.max(sizes.later);
        let pcm = plan.pcm.iter().copied().cycle().take(whole).collect();
        Self { backend, mode, language, sizes, pcm, around, places: Vec::new() }
    }

    /// Opens what is missing to `count`.
    fn open(&mut self, count: usize) -> Result<(), Failure> {
        while self.places.len() < count {
            let slot = self.backend.open(self.mode, self.language)?;
            let next = self.places.len() * APART % self.around;
            self.places.push(Place { slot, next, chunks: 0 });
        }
        Ok(())
    }

    /// One step of all; its seconds, and how many tokens came.
    fn step(&mut self) -> Result<(f64, usize), Failure> {
        let sizes = self.sizes;
        let steps: Vec<_> = self
            .places
            .iter()
            .map(|place| {
                let pcm = &self.pcm[place.next..place.next + sizes.of(place.chunks)];
                Step { slot: place.slot, pcm, end: false }
            })
            .collect();
        let started = Instant::now();
        let results = self.backend.step(&steps);
        let seconds = started.elapsed().as_secs_f64();
        let mut tokens = 0;
        for result in results {
            tokens += result?.tokens.len();
        }
        for place in &mut self.places {
            place.next = (place.next + sizes.of(place.chunks)) % self.around;
            place.chunks += 1;
        }
        Ok((seconds, tokens))
    }

    /// Fills the left context, then times.
    fn point(&mut self, way: &Way, plan: &Plan<'_>) -> Result<Point, Failure> {
        let config = &plan.model.config;
        let (frames, kept, decoded) = Shape::full(self.mode, config).ok_or(Failure::Closed)?;
        let filling = match self.mode {
            Mode::Buffered { window, .. } => window.left.div_ceil(decoded),
            _ => kept.div_ceil(decoded),
        } as u64;
        let youngest = |slots: &Self| slots.places.iter().map(|place| place.chunks).min().unwrap_or(0);
        let in_time = |since: Instant| since.elapsed() < plan.budget;
        let started = Instant::now();
        // The first step of a batch pays for what is set up once.
        let mut warm = 0;
        while warm < 2 || (youngest(self) < filling && in_time(started)) {
            self.step()?;
            warm += 1;
        }
        let filled = |slots: &Self| {
            let share = |place: &Place| (place.chunks as f64 / filling.max(1) as f64).min(1.0);
            slots.places.iter().map(share).sum::<f64>() / slots.places.len() as f64
        };
        let context_filled = filled(self);

        let (mut seconds, mut tokens) = (Vec::new(), 0);
        let started = Instant::now();
        while seconds.is_empty() || (seconds.len() < TIMED && in_time(started)) {
            let step = self.step()?;
            seconds.push(step.0);
            tokens += step.1;
        }
        let parts = self.parts(plan.budget)?;

        let timed = seconds.len();
        let step_seconds = median(&mut seconds);
        let batch = self.places.len();
        let stored = plan.model.weights.bytes() as f64 / parameters(config) as f64;
        let widths = Widths::new(self.backend.name(), plan.options, config, stored);
        let shape = Shape {
            streams: batch,
            frames,
            history: kept as f64 * context_filled,
            decoded,
            tokens: tokens as f64 / timed as f64,
            cached: matches!(self.mode, Mode::Cached { .. }),
        };
        let Work { operations, bytes } = Work::of(config, &shape, &widths);
        Ok(Point {
            way: way.name.clone(),
            chunk_ms: way.chunk_ms(),
            batch,
            timed,
            step_seconds,
            least: seconds[0],
            most: seconds[timed - 1],
            context_filled,
            parts,
            operations,
            bytes,
            rates: Rates { operations: operations / step_seconds, bytes: bytes / step_seconds },
            live_streams: batch as f64 * way.chunk_seconds / step_seconds,
            stream_bytes: self.backend.slot_bytes(self.mode),
        })
    }

    fn parts(&mut self, budget: Duration) -> Result<Option<Parts>, Failure> {
        self.backend.measure(true);
        let mut seen = Vec::new();
        let started = Instant::now();
        let result = loop {
            if let Err(failure) = self.step() {
                break Err(failure);
            }
            match self.backend.timings() {
                Some(timings) => seen.push(timings),
                None => break Ok(()),
            }
            if seen.len() == MEASURED || started.elapsed() >= budget {
                break Ok(());
            }
        };
        self.backend.measure(false);
        result.map(|()| Parts::median(&seen))
    }
}

impl Drop for Slots<'_> {
    fn drop(&mut self) {
        self.places.iter().for_each(|place| self.backend.close(place.slot));
    }
}

/// Of values that are not empty; sorts them.
fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// A table for people.
pub fn print(seen: &Steps) {
    println!("{} on {}", seen.backend, seen.device);
    if let Some(Rates { operations, bytes }) = seen.peaks {
        println!("at best {:.1} TFLOP/s, {:.0} GB/s, measured", operations / 1e12, bytes / 1e9);
    }
    println!(
        "way                 batch   step ms (least to most)         live streams  TFLOP/s  GB/s    MB a stream  \
         copies, features, layers, decode ms"
    );
    for point in &seen.steps {
        let parts = point.parts.as_ref().map_or_else(String::new, |p| {
            let [a, b, c, d] = [p.copies, p.features, p.layers, p.decode].map(|seconds| seconds * 1e3);
            format!("{a:.2}, {b:.2}, {c:.2}, {d:.2}")
        });
        let spread = format!(
            "{:.2} ({:.2} to {:.2})",
            point.step_seconds * 1e3,
            point.least * 1e3,
            point.most * 1e3
        );
        println!(
            "{:18}  {:5}   {spread:30}  {:12.0}  {:7.2}  {:6.1}  {:11.2}  {parts}",
            point.way,
            point.batch,
            point.live_streams,
            point.rates.operations / 1e12,
            point.rates.bytes / 1e9,
            point.stream_bytes as f64 / 1e6,
        );
        if point.context_filled < 1.0 {
            println!("  only {:.0} % of the left context was there in time", point.context_filled * 100.0);
        }
    }
    for reason in &seen.left_out {
        println!("left out: {reason}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_medians_each_for_itself() {
        let timings = |copies, layers| Timings { copies, layers, ..Default::default() };
        let parts = Parts::median(&[timings(3.0, 1.0), timings(1.0, 9.0), timings(2.0, 5.0)]).unwrap();
        assert_eq!((parts.copies, parts.features, parts.layers), (2.0, 0.0, 5.0));
        assert!(Parts::median(&[]).is_none());
    }
}
