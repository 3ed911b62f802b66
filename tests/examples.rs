// SPDX-License-Identifier: MPL-2.0
//! The example applications, run as they stand.

mod common;

use common::*;
use std::path::{Path, PathBuf};
use std::process::Command;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// The directory of what this test run built.
fn built() -> PathBuf {
    let executable = std::env::current_exe().unwrap();
    executable.parent().unwrap().parent().unwrap().to_owned()
}

/// The example in Rust; cargo builds it when all tests are run.
fn words() -> Command {
    let path = built().join("examples/words");
    assert!(path.exists(), "run cargo build --examples first");
    Command::new(path)
}

/// Fails unless what an example printed has the words that are said, with times, and what was heard meanwhile.
fn check(command: &mut Command) {
    let output = command.env("GST_PLUGIN_PATH", built().join("deps")).current_dir(ROOT).output().unwrap();
    let printed = String::from_utf8(output.stdout).unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{printed}{errors}");
    let (partials, words): (Vec<&str>, Vec<&str>) =
        printed.lines().partition(|line| line.starts_with("... "));
    assert!(partials.len() > 3, "{printed}");
    let said: Vec<&str> = words.iter().map(|line| line.rsplit_once(" % ").unwrap().1).collect();
    assert_eq!(said.join(" "), expected("0920", "70,13").text);
}

#[test]
fn the_example_in_rust_prints_the_words() {
    check(words().arg("tests/data/speech.wav"));
}

#[test]
fn the_example_in_python_prints_the_words() {
    // Debian's own, which has GStreamer's bindings.
    check(Command::new("/usr/bin/python3").args(["examples/words.py", "tests/data/speech.wav"]));
}

#[test]
fn examples_say_what_is_wrong() {
    let file = Path::new("no-such.wav");
    for command in [words().arg(file), Command::new("/usr/bin/python3").arg("examples/words.py").arg(file)] {
        let output = command.env("GST_PLUGIN_PATH", built().join("deps")).current_dir(ROOT).output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        let error = String::from_utf8(output.stderr).unwrap();
        assert!(error.contains("not found"), "{error}");
    }
}
