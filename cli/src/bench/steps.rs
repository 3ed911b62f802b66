// SPDX-License-Identifier: MPL-2.0
//! Time of a backend's steps by batch and chunk: straight on the device, without streams and batcher.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parakeet_engine::EngineOptions;
use parakeet_engine::backend::{self, Backend, Mode, Peaks, Slot, Step, StepSizes, Timings};
use parakeet_engine::model::{Model, parameters};
use serde::Serialize;

use super::operations::{Shape, Widths, Work};
use super::{RATE, Rates};
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
    pub backend: &'static str,
    pub device: String,
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
    /// Calls of the backend for them: it says how much one should hold.
    calls: usize,
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
    /// Seconds of audio a second: streams that this batch serves in real time.
    pub real_time: f64,
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
    let mut backend = backend::open(plan.model, plan.options)?.backends.swap_remove(0);
    let load_seconds = started.elapsed().as_secs_f64();
    Ok((load_seconds, measure_on(backend.as_mut(), plan)?))
}

fn measure_on(backend: &mut dyn Backend, plan: &Plan<'_>) -> Result<Steps, Failure> {
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
        let language = way.options.language_place(&plan.model.config)?;
        let mut slots = Slots::new(backend, mode, language, plan);
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
    Ok(seen)
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
        let chunk = if matches!(mode, Mode::Offline { .. }) { around } else { sizes.first.max(sizes.later) };
        let pcm = plan.pcm.iter().copied().cycle().take(around + chunk).collect();
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

    /// Streams that a call should hold.
    fn a_call(&self, frames: usize) -> usize {
        let limits = self.backend.limits();
        let most = if matches!(self.mode, Mode::Cached { .. }) { limits.frames } else { limits.whole_frames };
        limits.streams.min(most / frames).max(1)
    }

    /// One step of all, `a_call` at a time; its seconds, how many tokens came, and where the time went, if that is known.
    fn step(&mut self, a_call: usize) -> Result<(f64, usize, Option<Timings>), Failure> {
        let (sizes, around) = (self.sizes, self.around);
        let end = matches!(self.mode, Mode::Offline { .. });
        let size = |place: &Place| if end { around } else { sizes.of(place.chunks) };
        let steps: Vec<_> = self
            .places
            .iter()
            .map(|place| Step { slot: place.slot, pcm: &self.pcm[place.next..][..size(place)], end })
            .collect();
        let (mut results, mut timings) = (Vec::with_capacity(steps.len()), None);
        let started = Instant::now();
        for steps in steps.chunks(a_call) {
            results.extend(self.backend.step(steps));
            timings = self.backend.timings().map(|part| sum(timings.unwrap_or_default(), part));
        }
        let seconds = started.elapsed().as_secs_f64();
        let mut tokens = 0;
        for result in results {
            tokens += result?.tokens.len();
        }
        for place in &mut self.places {
            place.next = (place.next + size(place)) % around;
            place.chunks += 1;
            if end {
                self.backend.reset(place.slot);
            }
        }
        Ok((seconds, tokens, timings))
    }

    /// Fills the left context, then times.
    fn point(&mut self, way: &Way, plan: &Plan<'_>) -> Result<Point, Failure> {
        let config = &plan.model.config;
        let (frames, kept, decoded) = Shape::full(self.mode, config, self.around);
        let filling = match self.mode {
            Mode::Buffered { window, .. } => window.left.div_ceil(decoded),
            _ => kept.div_ceil(decoded),
        } as u64;
        let a_call = self.a_call(frames);
        let youngest = |slots: &Self| slots.places.iter().map(|place| place.chunks).min().unwrap_or(0);
        let in_time = |since: Instant| since.elapsed() < plan.budget;
        let started = Instant::now();
        // The first step of a batch pays for what is set up once.
        let mut warm = 0;
        while warm < 2 || (youngest(self) < filling && in_time(started)) {
            self.step(a_call)?;
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
            let step = self.step(a_call)?;
            seconds.push(step.0);
            tokens += step.1;
        }
        let parts = self.parts(a_call, plan.budget)?;

        let timed = seconds.len();
        let step_seconds = median(&mut seconds);
        let batch = self.places.len();
        let calls = batch.div_ceil(a_call);
        let stored = plan.model.weights.bytes() as f64 / parameters(config) as f64;
        let widths = Widths::new(self.backend.name(), plan.options, config, stored);
        let shape = Shape {
            streams: batch,
            calls,
            frames: match self.mode {
                Mode::Buffered { window, .. } => {
                    frames - (window.left as f64 * (1.0 - context_filled)).round() as usize
                }
                _ => frames,
            },
            history: kept as f64 * context_filled,
            decoded,
            tokens: tokens as f64 / timed as f64,
            cached: matches!(self.mode, Mode::Cached { .. }),
        };
        let Work { operations, bytes } = Work::of(config, &shape, &widths);
        let step_audio = match self.mode {
            Mode::Offline { .. } => self.around as f64 / RATE,
            _ => way.chunk_seconds,
        };
        Ok(Point {
            way: way.name.clone(),
            chunk_ms: way.chunk_ms(),
            batch,
            calls,
            timed,
            step_seconds,
            least: seconds[0],
            most: seconds[timed - 1],
            context_filled,
            parts,
            operations,
            bytes,
            rates: Rates { operations: operations / step_seconds, bytes: bytes / step_seconds },
            real_time: batch as f64 * step_audio / step_seconds,
            stream_bytes: self.backend.slot_bytes(self.mode),
        })
    }

    fn parts(&mut self, a_call: usize, budget: Duration) -> Result<Option<Parts>, Failure> {
        self.backend.measure(true);
        let mut seen = Vec::new();
        let started = Instant::now();
        let result = loop {
            match self.step(a_call) {
                Ok((_, _, Some(timings))) => seen.push(timings),
                Ok(_) => break Ok(()),
                Err(failure) => break Err(failure),
            }
            if seen.len() == MEASURED || started.elapsed() >= budget {
                break Ok(());
            }
        };
        self.backend.measure(false);
        result.map(|()| Parts::median(&seen))
    }
}

/// Of two calls.
fn sum(a: Timings, b: Timings) -> Timings {
    Timings {
        copies: a.copies + b.copies,
        features: a.features + b.features,
        layers: a.layers + b.layers,
        decode: a.decode + b.decode,
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
    println!("{}, {}", seen.backend, seen.device);
    if let Some(Rates { operations, bytes }) = seen.peaks {
        println!("at best {:.1} TFLOP/s, {:.0} GB/s, measured", operations / 1e12, bytes / 1e9);
    }
    println!(
        "{:18}  {:>5}  {:>5}  {:30}  {:>12}  {:17}  {:15}  {:>11}  copies, features, layers, decode ms",
        "way", "batch", "calls", "step ms (least to most)", "audio a s", "TFLOP/s", "GB/s", "MB a stream",
    );
    let rate = |value: f64, unit: f64, digits: usize, peak: Option<f64>| {
        let share = peak.map_or_else(String::new, |peak| format!(" ({:.0} %)", value / peak * 100.0));
        format!("{:.digits$}{share}", value / unit)
    };
    for point in &seen.steps {
        let parts = point.parts.as_ref().map_or_else(String::new, |p| {
            let [a, b, c, d] = [p.copies, p.features, p.layers, p.decode].map(|seconds| seconds * 1e3);
            format!("{a:.2}, {b:.2}, {c:.2}, {d:.2}")
        });
        let [step, least, most] = [point.step_seconds, point.least, point.most].map(|seconds| seconds * 1e3);
        println!(
            "{:18}  {:5}  {:5}  {:30}  {:12.0}  {:17}  {:15}  {:11.2}  {parts}",
            point.way,
            point.batch,
            point.calls,
            format!("{step:.2} ({least:.2} to {most:.2})"),
            point.real_time,
            rate(point.rates.operations, 1e12, 3, seen.peaks.map(|peaks| peaks.operations)),
            rate(point.rates.bytes, 1e9, 1, seen.peaks.map(|peaks| peaks.bytes)),
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
    use std::path::Path;

    use parakeet_engine::backend::{Decoded, Limits};
    use parakeet_engine::{Error, Fault, StreamOptions};

    use super::*;

    /// Has room for five streams, takes two at a time and tells where the time went.
    #[derive(Default)]
    struct Fake {
        open: Vec<Slot>,
        opened: u32,
        calls: Vec<usize>,
        measured: bool,
    }

    impl Backend for Fake {
        fn name(&self) -> &'static str {
            "fake"
        }

        fn device(&self) -> String {
            "none".into()
        }

        fn limits(&self) -> Limits {
            Limits { streams: 100, frames: 15, whole_frames: 15, time: None }
        }

        fn open(&mut self, _: Mode, _: usize) -> Result<Slot, Error> {
            if self.open.len() == 5 {
                return Err(Error::Backend {
                    backend: "fake",
                    device: None,
                    kind: Fault::OutOfMemory,
                    reason: "full".into(),
                });
            }
            self.opened += 1;
            self.open.push(Slot(self.opened));
            Ok(Slot(self.opened))
        }

        fn close(&mut self, slot: Slot) {
            self.open.retain(|open| *open != slot);
        }

        fn reset(&mut self, _: Slot) {}

        fn step(&mut self, steps: &[Step<'_>]) -> Vec<Result<Decoded, Error>> {
            self.calls.push(steps.len());
            assert!(steps.iter().all(|step| self.open.contains(&step.slot) && !step.end));
            steps.iter().map(|_| Ok(Decoded::default())).collect()
        }

        fn slot_bytes(&self, _: Mode) -> usize {
            1
        }

        fn measure(&mut self, on: bool) {
            self.measured = on;
        }

        fn timings(&self) -> Option<Timings> {
            let times = Timings { copies: 1.0, layers: 2.0, ..Default::default() };
            self.measured.then_some(times)
        }
    }

    fn measured(fake: &mut Fake, batches: &[usize]) -> Steps {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/parakeet-tdt-mini");
        let model = Arc::new(Model::load(&dir).unwrap());
        // 7 frames of 80 ms.
        let options = StreamOptions { look_ahead: Some(6), ..Default::default() };
        let plan = Plan {
            model: &model,
            options: &EngineOptions::default(),
            ways: &[Way::new(options, &model.config).unwrap()],
            batches,
            budget: Duration::from_secs(60),
            pcm: &[0.0; 20_000],
        };
        measure_on(fake, &plan).unwrap()
    }

    #[test]
    fn a_step_is_as_many_calls_as_the_backend_wants() {
        let mut fake = Fake::default();
        let seen = measured(&mut fake, &[1, 4]);
        let steps: Vec<_> = seen.steps.iter().map(|point| (point.batch, point.calls, point.timed)).collect();
        assert_eq!(steps, [(1, 1, TIMED), (4, 2, TIMED)]);
        let parts = seen.steps[1].parts.as_ref().unwrap();
        assert_eq!((parts.copies, parts.features, parts.layers), (2.0, 0.0, 4.0), "of both calls");
        // Each of both batches fills 70 frames of left context in 10 steps.
        let calls = 10 + TIMED + MEASURED;
        assert_eq!((fake.calls.len(), fake.calls.last()), (calls + 2 * calls, Some(&2)));
        assert!(fake.open.is_empty() && !fake.measured);
        assert!(seen.steps.iter().all(|point| point.context_filled == 1.0) && seen.left_out.is_empty());
    }

    #[test]
    fn as_many_are_timed_as_open() {
        let mut fake = Fake::default();
        let seen = measured(&mut fake, &[4, 16, 64]);
        assert_eq!(seen.steps.iter().map(|point| point.batch).collect::<Vec<_>>(), [4, 5]);
        assert_eq!(seen.left_out, ["look-ahead 6: 16 streams don't open: backend fake: full"]);
        assert!(fake.open.is_empty());
    }

    #[test]
    fn parts_are_medians_each_for_itself() {
        let timings = |copies, layers| Timings { copies, layers, ..Default::default() };
        let parts = Parts::median(&[timings(3.0, 1.0), timings(1.0, 9.0), timings(2.0, 5.0)]).unwrap();
        assert_eq!((parts.copies, parts.features, parts.layers), (2.0, 0.0, 5.0));
        assert!(Parts::median(&[]).is_none());
    }
}
