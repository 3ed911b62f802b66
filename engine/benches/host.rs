// SPDX-License-Identifier: MPL-2.0
//! What a chunk costs the host: `cargo bench -p parakeet-engine --bench host`.
//!
//! Live streams of one lane whose backend computes nothing. While a step is held up each stream gets its next 80 ms; then
//! the step ends and the next takes all of them. Between the two the lane hands results out, sorts deadlines and collects
//! the audio, and the device would have nothing to do.

use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use parakeet_engine::backend::{Backend, Decoded, Limits, Mode, Slot, Step};
use parakeet_engine::model::Model;
use parakeet_engine::{Engine, Result, Stream, StreamOptions};

/// How many streams there are.
const STREAMS: [usize; 3] = [100, 1_000, 10_000];

/// Steps that are measured.
const STEPS: usize = 50;

/// Samples of an encoder frame of 80 ms, the chunk of a stream without look-ahead.
const CHUNK: [f32; 1_280] = [0.0; 1_280];

/// A device that takes every stream and computes nothing. It tells when a step begins, and ends it with a permit.
struct Held {
    slots: u32,
    ended: Option<Instant>,
    begins: Sender<Begin>,
    permits: Receiver<()>,
}

/// A step that has begun.
struct Begin {
    streams: usize,
    /// Since the end of the step before it.
    between: Option<Duration>,
}

impl Backend for Held {
    fn name(&self) -> &'static str {
        "held"
    }

    fn device(&self) -> String {
        "nothing".into()
    }

    fn limits(&self) -> Limits {
        Limits::default()
    }

    fn open(&mut self, _: Mode, _: usize) -> Result<Slot> {
        self.slots += 1;
        Ok(Slot(self.slots - 1))
    }

    fn close(&mut self, _: Slot) {}

    fn reset(&mut self, _: Slot) {}

    fn step(&mut self, steps: &[Step<'_>]) -> Vec<Result<Decoded>> {
        let between = self.ended.map(|ended| ended.elapsed());
        // Once the measurement is over nobody listens and nobody holds it up.
        let _ = self.begins.send(Begin { streams: steps.len(), between });
        let _ = self.permits.recv();
        let decoded = steps.iter().map(|_| Ok(Decoded { tokens: Vec::new(), frames: 1 })).collect();
        self.ended = Some(Instant::now());
        decoded
    }

    fn slot_bytes(&self, _: Mode) -> usize {
        0
    }
}

/// `permits` is dropped first: a step that waits for one would keep the streams from closing.
struct Bench {
    permits: Sender<()>,
    begins: Receiver<Begin>,
    streams: Vec<Stream>,
}

/// What a chunk takes in each step, in microseconds.
struct Costs {
    push: Vec<f64>,
    between: Vec<f64>,
}

impl Bench {
    fn new(model: Arc<Model>, streams: usize) -> Result<Self> {
        let ((begin, begins), (permits, permit)) = (channel(), channel());
        let held = Held { slots: 0, ended: None, begins: begin, permits: permit };
        let engine = Engine::with_backends(model, vec![Box::new(held)])?;
        let options = StreamOptions { look_ahead: Some(0), ..StreamOptions::default() };
        let streams = (0..streams).map(|_| engine.stream(&options)).collect::<Result<_>>()?;
        Ok(Self { permits, begins, streams })
    }

    fn run(&self) -> Result<Costs, Box<dyn Error>> {
        // The first stream's step holds the others up until all have audio, so that later steps have all of them.
        self.streams[0].push(&CHUNK)?;
        self.begins.recv()?;
        self.push(&self.streams[1..])?;
        self.permits.send(())?;
        self.begins.recv()?;
        let count = self.streams.len();
        let mut costs = Costs { push: Vec::new(), between: Vec::new() };
        for _ in 0..STEPS {
            let started = Instant::now();
            self.push(&self.streams)?;
            let pushed = started.elapsed();
            self.permits.send(())?;
            let Begin { streams, between } = self.begins.recv()?;
            let between = between.filter(|_| streams == count).ok_or("a step has other streams than all")?;
            self.streams.iter().for_each(|stream| while stream.try_next().is_some() {});
            let each = |time: Duration| time.as_secs_f64() * 1e6 / count as f64;
            costs.push.push(each(pushed));
            costs.between.push(each(between));
        }
        Ok(costs)
    }

    fn push(&self, streams: &[Stream]) -> Result<(), Box<dyn Error>> {
        Ok(streams.iter().try_for_each(|stream| stream.push(&CHUNK))?)
    }
}

/// Median, least and most.
fn spread(values: &mut [f64]) -> [f64; 3] {
    values.sort_by(f64::total_cmp);
    [values[values.len() / 2], values[0], values[values.len() - 1]]
}

fn main() -> Result<(), Box<dyn Error>> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/parakeet-tdt-mini");
    let model = Arc::new(Model::load(&dir)?);
    println!(
        "microseconds a chunk, median (least to most) of {STEPS} steps; share of the 80 ms between two steps"
    );
    println!("{:>7}  {:22}  {:22}  {:>6}", "streams", "to push it", "between two steps", "share");
    for streams in STREAMS {
        let mut costs = Bench::new(model.clone(), streams)?.run()?;
        let show = |[median, least, most]: [f64; 3]| format!("{median:.2} ({least:.2} to {most:.2})");
        let between = spread(&mut costs.between);
        let share = between[0] * streams as f64 / 80_000.0 * 100.0;
        let push = show(spread(&mut costs.push));
        println!("{streams:7}  {push:22}  {:22}  {share:4.1} %", show(between));
    }
    Ok(())
}
