// SPDX-License-Identifier: MPL-2.0
//! Running scripts and pipelines with limits, and reading captions.

use super::common;
use std::{
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::{Mutex, MutexGuard, PoisonError},
    thread::sleep,
    time::{Duration, Instant},
};

/// Longest time for anything that ends by itself, in seconds.
const LIMIT: &str = "90";

/// How far a caption may be from where it was spoken, in ms.
pub const TOLERANCE: u64 = 300;

/// The source tree.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The sentence that [`said`] has.
pub fn speech() -> PathBuf {
    root().join("tests/data/speech.wav")
}

/// One live pipeline at a time: two cores hear one in time, whatever else is tested.
pub fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Has a command find the plugin that this test run built, and the model.
pub fn with_plugin(command: &mut Command) {
    let executable = std::env::current_exe().unwrap();
    let plugin = executable.parent().unwrap();
    assert!(plugin.join("libgstparakeet.so").is_file(), "no plugin in {}", plugin.display());
    command.env("GST_PLUGIN_PATH", plugin).env("GST_PARAKEET_MODEL_DIR", root().join("models"));
    command.env("GST_REGISTRY", Path::new(env!("CARGO_TARGET_TMPDIR")).join("pipelines.registry"));
}

/// A command that is killed, with all that it started, when its time is over.
pub fn limited(program: &str) -> Command {
    let mut command = Command::new("timeout");
    command.args(["--kill-after=2", LIMIT, program]);
    with_plugin(&mut command);
    command
}

/// A script of `pipelines/` with its arguments.
pub fn script(name: &str) -> Command {
    limited(root().join("pipelines").join(name).to_str().unwrap())
}

/// A pipeline of the test's own.
pub fn launch(line: &str) -> Command {
    let mut command = limited("sh");
    command.args(["-c", &format!("exec gst-launch-1.0 -q {line}")]);
    command
}

/// Runs it to its end, which must be a good one. What it printed.
pub fn run(command: &mut Command) -> String {
    let Output { status, stdout, stderr } = command.output().unwrap();
    let (printed, errors) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    assert!(status.success(), "{command:?}: {status}\n{printed}\n{errors}");
    printed.into_owned()
}

/// A command in the background, killed with all that it started when this is dropped.
pub struct Running(Child);

impl Running {
    /// Starts it, with its output into a file.
    pub fn start(command: &mut Command, log: &Path) -> Self {
        let log = fs::File::create(log).unwrap();
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        Running(command.spawn().unwrap())
    }

    fn signal(&self, signal: &str) {
        // The program timeout has made itself the leader of a group.
        let group = format!("-{}", self.0.id());
        let _ = Command::new("kill").args([signal, "--", &group]).stderr(Stdio::null()).status();
    }

    /// Has it end as by Ctrl-C, and waits for that.
    pub fn interrupt(&mut self) {
        self.signal("-INT");
        self.wait();
    }

    /// Waits for its end, which its limit brings at the latest.
    pub fn wait(&mut self) -> std::process::ExitStatus {
        self.0.wait().unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.signal("-KILL");
        let _ = self.0.wait();
    }
}

/// A port that nobody listens on.
pub fn port() -> u16 {
    TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port()
}

/// Waits until it is so.
pub fn wait(what: &str, so: impl Fn() -> bool) {
    let until = Instant::now() + Duration::from_secs(60);
    while !so() {
        assert!(Instant::now() < until, "no {what}");
        sleep(Duration::from_millis(50));
    }
}

/// A piece of text that is shown at a time, in ms.
#[derive(Clone, Debug)]
pub struct Cue {
    pub start: u64,
    pub text: String,
}

/// What is said in [`speech`]: each word with where it is spoken, by the engine alone.
pub fn said() -> Vec<Cue> {
    said_in("0920")
}

/// What is said in one of the clips of the tests.
pub fn said_in(clip: &str) -> Vec<Cue> {
    let words = common::expected(clip, "70,13").words;
    words.into_iter().map(|(text, start)| Cue { start: start / common::MS as u64, text }).collect()
}

/// What the element alone hears in a file whose sound is coded with losses, word by word.
pub fn heard(file: &Path) -> Vec<Cue> {
    let line = format!(
        "filesrc location={} ! decodebin caps=audio/x-raw expose-all-streams=false ! audioconvert ! audioresample ! \
         parakeettdt ! application/x-json ! fdsink",
        file.display()
    );
    let heard = words(&run(&mut launch(&line)));
    assert!(heard.len().abs_diff(said().len()) < 3, "{heard:?}");
    heard
}

/// Cues of SubRip or WebVTT.
pub fn cues(captions: &str) -> Vec<Cue> {
    let time = |stamp: &str| {
        let fields = stamp.split([':', ',', '.']).map(|field| field.parse::<u64>().unwrap());
        let fields: Vec<u64> = fields.collect();
        let [hours, minutes, seconds, ms] = fields[..] else { panic!("not a time: {stamp}") };
        ((hours * 60 + minutes) * 60 + seconds) * 1_000 + ms
    };
    let captions = captions.replace('\r', "");
    let cue = |block: &str| {
        let mut lines = block.lines().skip_while(|line| !line.contains(" --> "));
        let (start, _) = lines.next()?.split_once(" --> ")?;
        Some(Cue { start: time(start), text: lines.collect::<Vec<_>>().join(" ") })
    };
    captions.split("\n\n").filter_map(cue).collect()
}

/// The words of JSON lines.
pub fn words(lines: &str) -> Vec<Cue> {
    let objects = lines.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).expect(line));
    let cue = |word: &serde_json::Value| Cue {
        start: (word["start"].as_f64().unwrap() * 1e3).round() as u64,
        text: word["text"].as_str().unwrap().to_owned(),
    };
    let words =
        |object: serde_json::Value| object["words"].as_array().unwrap().iter().map(cue).collect::<Vec<_>>();
    objects.flat_map(words).collect()
}

/// Fails unless cues are these words, each cue where its first word is spoken, `offset` ms later.
pub fn check(cues: &[Cue], said: &[Cue], offset: u64) {
    let text = |cues: &[Cue]| cues.iter().map(|cue| cue.text.clone()).collect::<Vec<_>>().join(" ");
    assert_eq!(text(cues), text(said), "{cues:?}");
    assert!(!said.is_empty());
    let mut first = 0;
    for cue in cues {
        let spoken = said[first].start + offset;
        assert!(cue.start.abs_diff(spoken) <= TOLERANCE, "{cue:?}, spoken at {spoken} ms");
        first += cue.text.split(' ').count();
    }
}
