// SPDX-License-Identifier: MPL-2.0
//! The CUDA backend on a driver without a card (`fake/driver.c`), each call of which fails once in each way that matters: nothing
//! hangs or panics, no stream fails of another's trouble, and what is left works on.
//!
//! The loader has to find the driver, so the program builds it and starts itself again.

#[path = "common/mod.rs"]
mod common;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::{root, speech};
use parakeet_engine::backend::{self, cuda};
use parakeet_engine::convert::{ConvertOptions, convert};
use parakeet_engine::model::Model;
use parakeet_engine::{
    BackendChoice, Device, Engine, EngineOptions, Event, Fault, Precision, Stream, StreamOptions,
};

/// Tells the program that the loader finds the driver; the directory follows.
const INSIDE: &str = "--with-driver-in";

/// Longest time that all of it may take before it counts as hanging.
const PATIENCE: Duration = Duration::from_secs(900);

/// Statuses of the driver (`cuda.h`), and what they are to an application.
const WAYS: [(i32, Fault); 4] =
    [(1, Fault::Internal), (2, Fault::OutOfMemory), (700, Fault::DeviceLost), (801, Fault::Refused)];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [first, directory] = &arguments[..]
        && first == INSIDE
    {
        inside(Path::new(directory));
        return ExitCode::SUCCESS;
    }
    // As tests are chosen by name.
    let mut names = arguments.iter().filter(|argument| !argument.starts_with('-')).peekable();
    if arguments.iter().any(|argument| argument == "--list" || argument == "--ignored")
        || (names.peek().is_some() && !names.any(|name| "driver".contains(name.as_str())))
    {
        return ExitCode::SUCCESS;
    }
    let directory = tempfile::tempdir().expect("a directory");
    build(directory.path());
    let mut child = Command::new(std::env::current_exe().expect("the program's own file"))
        .args([Path::new(INSIDE), directory.path()])
        .env("LD_LIBRARY_PATH", directory.path())
        .env("FAKE_CUDA_PLAN", directory.path().join("plan"))
        .env("XDG_CACHE_HOME", directory.path())
        .spawn()
        .expect("the program starts");
    let began = Instant::now();
    loop {
        if let Some(status) = child.try_wait().expect("it is a child") {
            return if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
        }
        if began.elapsed() > PATIENCE {
            let plan = fs::read_to_string(directory.path().join("plan")).unwrap_or_default();
            child.kill().expect("it is a child");
            eprintln!("it hangs with the plan {plan:?} (call and status)");
            return ExitCode::FAILURE;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// One library under the names of three, so that they count their calls together.
fn build(directory: &Path) {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fake/driver.c");
    let library = directory.join("libfake.so");
    let built = Command::new("cc")
        .args(["-shared", "-fPIC", "-O1", "-o"])
        .args([&library, &source])
        .status()
        .expect("there is a C compiler");
    assert!(built.success(), "the driver compiles");
    for name in ["libcuda.so", "libnvrtc.so.13", "libcublasLt.so.13"] {
        symlink(&library, directory.join(name)).expect("a link");
    }
}

/// The driver's directory, and what is tried.
struct Bench<'a> {
    directory: &'a Path,
    model: Arc<Model>,
    options: EngineOptions,
    audio: Vec<f32>,
}

#[derive(Debug, Default)]
struct Outcome {
    /// Kind of what failed before there were streams.
    refused: Option<Fault>,
    finished: usize,
    failed: Vec<Fault>,
    recovered: usize,
}

impl Bench<'_> {
    /// Has this call fail from the next start on.
    fn plan(&self, call: usize, status: i32) {
        fs::write(self.directory.join("plan"), format!("{call} {status}")).expect("a file");
    }

    /// Calls since the driver was started.
    fn calls(&self) -> usize {
        self.plan(0, 0);
        cuda::count().expect("the driver is there");
        let calls = fs::read_to_string(self.directory.join("plan.calls")).expect("the driver has told");
        calls.parse().expect("a number")
    }

    /// Two streams at once from beginning to end, and then another one.
    fn run(&self) -> Outcome {
        let mut outcome = Outcome::default();
        let opened = backend::open(&self.model, &self.options);
        let opened = opened.and_then(|opened| Engine::with_backends(self.model.clone(), opened.backends));
        let engine = match opened {
            Ok(engine) => engine,
            Err(error) => {
                outcome.refused = error.fault();
                return outcome;
            }
        };
        let mut streams = Vec::new();
        for _ in 0..2 {
            match engine.stream(&StreamOptions::default()) {
                Ok(stream) => streams.push(stream),
                Err(error) => outcome.refused = error.fault(),
            }
        }
        for stream in &streams {
            // A stream that has failed takes nothing.
            let _ = stream.push(&self.audio);
            stream.finish();
        }
        streams.iter().for_each(|stream| self.hear(stream, &mut outcome));
        drop(streams);
        if engine.works() && outcome.refused != Some(Fault::DeviceLost) {
            let stream = engine.stream(&StreamOptions::default()).expect("the call that fails is behind");
            stream.push(&self.audio).expect("the stream takes audio");
            stream.finish();
            let mut last = Outcome::default();
            self.hear(&stream, &mut last);
            let behind = outcome.refused.is_some() || outcome.recovered + outcome.failed.len() > 0;
            assert!(!behind || last.finished == 1, "{outcome:?} {last:?}");
            outcome.failed.append(&mut last.failed);
        }
        outcome
    }

    /// Waits for the end of a stream's utterance.
    fn hear(&self, stream: &Stream, outcome: &mut Outcome) {
        loop {
            match stream.next() {
                Some(Event::Finished { sample }) => {
                    assert_eq!(sample, self.audio.len() as u64);
                    outcome.finished += 1;
                    return;
                }
                Some(Event::Failed { error, .. }) => {
                    outcome.failed.push(error.fault().expect("a backend's"));
                    return;
                }
                Some(Event::Recovered { .. }) => outcome.recovered += 1,
                Some(_) => {}
                None => panic!("the stream has failed before"),
            }
        }
    }

    /// Fails each `stride`-th call in each way.
    fn fail_each_call(&self, stride: usize) {
        self.plan(0, 0);
        let outcome = self.run();
        assert_eq!((outcome.finished, outcome.recovered), (2, 0), "{outcome:?}");
        let calls = self.calls();
        let (mut runs, mut refused, mut recovered, mut failed) = (0, 0, 0, 0);
        for (status, kind) in WAYS {
            for call in (1..=calls).step_by(stride) {
                self.plan(call, status);
                let outcome = self.run();
                let told = |fault: &Fault| *fault == kind || *fault == Fault::Internal;
                let what = format!("call {call} of {calls} with status {status}: {outcome:?}");
                assert!(outcome.refused.iter().chain(&outcome.failed).all(told), "{what}");
                if kind != Fault::DeviceLost {
                    assert!(outcome.failed.len() <= 1, "{what}");
                }
                runs += 1;
                refused += usize::from(outcome.refused.is_some());
                recovered += outcome.recovered;
                failed += outcome.failed.len();
            }
        }
        println!(
            "{}: {runs} runs with a failure in one of {calls} calls: {refused} refused at the start, {recovered} streams \
             recovered, {failed} failed",
            self.model.config.name
        );
        assert!(refused > 0 && recovered > 0 && failed > 0);
    }

    /// With all devices to choose from the processor takes over.
    fn lose_the_only_card(&self) {
        let options =
            EngineOptions { backend: BackendChoice::Auto, device: Device::Auto, ..self.options.clone() };
        let undisturbed =
            Self { options: options.clone(), model: self.model.clone(), audio: self.audio.clone(), ..*self };
        self.plan(0, 0);
        assert_eq!(undisturbed.run().finished, 2);
        let (calls, mut recovered) = (self.calls(), 0);
        for call in (calls * 3 / 5..calls).step_by(17) {
            self.plan(call, 700);
            let engine = Engine::open(&self.directory.join("model"), &options).expect("it starts");
            let stream = engine.stream(&StreamOptions::default()).expect("a stream");
            // Nothing was heard of the card so far, and nothing is now.
            stream.push(&self.audio).expect("the stream takes audio");
            stream.finish();
            let mut outcome = Outcome::default();
            self.hear(&stream, &mut outcome);
            assert_eq!((outcome.finished, outcome.failed.len()), (1, 0), "call {call}: {outcome:?}");
            recovered += outcome.recovered;
        }
        println!("{recovered} streams went from the card to the processor");
        assert!(recovered > 0);
    }
}

fn inside(directory: &Path) {
    let nemo = root().join("engine/tests/data/oracle/causal/model.nemo");
    convert(&nemo, &directory.join("model"), &ConvertOptions::default(), &mut |_, _| {})
        .expect("it converts");
    let card = EngineOptions { backend: BackendChoice::Cuda, device: Device::Index(0), ..Default::default() };
    let audio = speech()[..24_000].to_vec();
    let small = Bench {
        directory,
        model: Arc::new(Model::load(&directory.join("model")).expect("it loads")),
        options: EngineOptions { precision: Precision::F32, ..card.clone() },
        audio: audio.clone(),
    };
    // Every call would take minutes.
    small.fail_each_call(3);
    small.lose_the_only_card();
    // With rings on tensor cores and kernels of few rows.
    let mini = Model::load(&root().join("models/parakeet-tdt-mini")).expect("it loads");
    Bench { directory, model: Arc::new(mini), options: card, audio }.fail_each_call(41);
}
