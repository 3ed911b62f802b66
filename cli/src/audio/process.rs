// SPDX-License-Identifier: MPL-2.0
//! Another program whose standard output is read, and which doesn't outlive that.

use std::io::{self, Read};
use std::process::{Child, ChildStderr, ChildStdout, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// Bytes of standard error that are kept.
const ERRORS: u64 = 1 << 16;

/// A running program. Dropping it ends it.
pub struct Process {
    shared: Arc<Mutex<Shared>>,
    patience: Duration,
    output: ChildStdout,
    errors: Option<JoinHandle<String>>,
}

struct Shared {
    child: Child,
    /// When it is ended if it gives nothing until then.
    deadline: Option<Instant>,
    /// It was ended because it gave nothing.
    given_up: bool,
}

/// How a program ended.
pub struct Ended {
    /// It says that all went well.
    pub success: bool,
    /// It gave nothing for as long as was allowed, and was ended.
    pub given_up: bool,
    /// What it wrote on standard error.
    pub errors: String,
}

impl Process {
    /// Starts `command`; a read that takes longer than `patience` ends it.
    pub fn start(command: &mut Command, patience: Duration) -> io::Result<Self> {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        let (Some(output), Some(errors)) = (child.stdout.take(), child.stderr.take()) else {
            return Err(io::Error::other("no pipe to the process"));
        };
        let errors = thread::spawn(|| collect(errors));
        let shared = Arc::new(Mutex::new(Shared { child, deadline: None, given_up: false }));
        let watched = Arc::downgrade(&shared);
        thread::spawn(move || {
            while let Some(shared) = watched.upgrade() {
                lock(&shared).give_up();
                drop(shared);
                thread::sleep(Duration::from_millis(100));
            }
        });
        Ok(Self { shared, patience, output, errors: Some(errors) })
    }

    /// Waits for its end, no longer than `patience`.
    pub fn finish(mut self, patience: Duration) -> io::Result<Ended> {
        lock(&self.shared).deadline = Some(Instant::now() + patience);
        let errors = self.errors.take().and_then(|thread| thread.join().ok()).unwrap_or_default();
        let mut shared = lock(&self.shared);
        shared.deadline = None;
        Ok(Ended { success: shared.child.wait()?.success(), given_up: shared.given_up, errors })
    }
}

impl Read for Process {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        lock(&self.shared).deadline = Some(Instant::now() + self.patience);
        let result = self.output.read(bytes);
        lock(&self.shared).deadline = None;
        result
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let mut shared = lock(&self.shared);
        // It may have ended by itself.
        let _ = shared.child.kill();
        let _ = shared.child.wait();
    }
}

impl Shared {
    fn give_up(&mut self) {
        if self.deadline.is_some_and(|deadline| deadline < Instant::now()) && !self.given_up {
            self.given_up = true;
            let _ = self.child.kill();
        }
    }
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The first of what is written, read to its end so that the writer never waits.
fn collect(mut errors: ChildStderr) -> String {
    let mut text = Vec::new();
    let _ = (&mut errors).take(ERRORS).read_to_end(&mut text);
    let _ = io::copy(&mut errors, &mut io::sink());
    String::from_utf8_lossy(&text).into_owned()
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    fn sh(script: &str, patience: Duration) -> (String, Ended) {
        let mut process = Process::start(Command::new("sh").args(["-c", script]), patience).unwrap();
        let mut text = String::new();
        process.read_to_string(&mut text).unwrap();
        (text, process.finish(Duration::from_secs(60)).unwrap())
    }

    #[test]
    fn output_errors_and_success_are_told() {
        let (text, ended) = sh("echo out; echo err >&2", Duration::from_secs(60));
        assert_eq!((text.as_str(), ended.success, ended.given_up), ("out\n", true, false));
        assert_eq!(ended.errors, "err\n");
        // More on standard error than a pipe and what is kept of it hold.
        let (_, ended) = sh("head -c 300000 /dev/zero >&2; exit 3", Duration::from_secs(60));
        assert_eq!((ended.success, ended.errors.len()), (false, 1 << 16));
    }

    #[test]
    fn a_program_that_gives_nothing_is_ended() {
        let (text, ended) = sh("echo out; exec sleep 1000", Duration::from_millis(200));
        assert_eq!((text.as_str(), ended.success, ended.given_up), ("out\n", false, true));
    }

    #[test]
    fn dropping_ends_it() {
        let mut command = Command::new("sh");
        let mut process =
            Process::start(command.args(["-c", "echo $$; exec sleep 1000"]), Duration::from_secs(60))
                .unwrap();
        let mut line = [0; 16];
        let count = process.read(&mut line).unwrap();
        let id = String::from_utf8_lossy(&line[..count]).trim().to_owned();
        let runs =
            || Command::new("kill").args(["-0", &id]).stderr(Stdio::null()).status().unwrap().success();
        assert!(runs());
        drop(process);
        assert!(!runs());
    }
}
