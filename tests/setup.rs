// SPDX-License-Identifier: MPL-2.0
//! What `tools/setup` does while another process installs packages, with stand-ins for the commands it calls.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// One test at a time: a script can't be run while a process that another test starts has it open.
static ALONE: Mutex<()> = Mutex::new(());

/// A directory of commands that come before the system's: no package is installed, apt-get fails `failures` times with
/// `error`, and sleeping takes no time. Gone with this.
struct Machine {
    dir: PathBuf,
    _alone: MutexGuard<'static, ()>,
}

impl Machine {
    fn new(name: &str, failures: usize, error: &str) -> Self {
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let dir = std::env::temp_dir().join(format!("parakeet-setup-{}-{name}", std::process::id()));
        fs::create_dir_all(&dir).expect("temporary files can be written");
        let machine = Machine { dir, _alone: alone };
        machine.command("id", "echo 0");
        machine.command("dpkg-query", "exit 1");
        machine.command("sleep", &format!("echo sleep $1 >>{}", machine.log().display()));
        let body = format!(
            "echo \"$1\" >>{log}\n[ \"$(grep -c -e update -e install {log})\" -gt {failures} ] && exit 0\n\
             echo '{error}' >&2\nexit 100",
            log = machine.log().display()
        );
        machine.command("apt-get", &body);
        machine
    }

    fn command(&self, name: &str, body: &str) {
        let path = self.dir.join(name);
        fs::write(&path, format!("#!/bin/sh\n{body}\n")).expect("temporary files can be written");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("they are this test's");
    }

    fn log(&self) -> PathBuf {
        self.dir.join("log")
    }

    /// Runs `tools/setup`; its output, and what it asked of apt-get and sleep.
    fn setup(&self) -> (Output, Vec<String>) {
        let path = format!("{}:{}", self.dir.display(), std::env::var("PATH").expect("there is a PATH"));
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tools/setup");
        let output = Command::new(script).env("PATH", path).output().expect("it can be run");
        let log = fs::read_to_string(self.log()).expect("it calls apt-get");
        (output, log.lines().map(str::to_owned).collect())
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.dir);
    }
}

const HELD: &str = "E: Could not get lock /var/lib/apt/lists/lock. It is held by process 7 (other)";

#[test]
fn it_waits_until_a_lock_is_free_and_says_so_once() {
    let (output, calls) = Machine::new("held", 2, HELD).setup();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    assert_eq!(calls, ["update", "sleep 5", "update", "sleep 5", "update", "install"]);
    assert_eq!(said.matches("Waiting").count(), 1, "{said}");
    assert!(said.contains("/var/lib/apt/lists/lock. It is held by process 7 (other)"), "{said}");
}

#[test]
fn it_gives_up_after_a_quarter_of_an_hour() {
    let (output, calls) = Machine::new("forever", 9_999, HELD).setup();
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(calls.iter().filter(|call| *call == "sleep 5").count(), 15 * 60 / 5);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("gave up after 15 minutes, another process still holds /var/lib/apt"), "{said}");
}

#[test]
fn any_other_failure_is_told_at_once() {
    let (output, calls) = Machine::new("broken", 9_999, "E: Unable to locate package").setup();
    assert_eq!((output.status.code(), calls.len()), (Some(1), 1));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("E: Unable to locate package\nerror: apt-get update failed"), "{said}");
}
