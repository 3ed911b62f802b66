// SPDX-License-Identifier: MPL-2.0
//! `parakeet wer`, as people run it, with the model of this repository.

use std::path::{Path, PathBuf};
use std::process::Output;

use assert_cmd::Command;
use serde_json::Value;

const REFERENCE: &str =
    "Had he married a more amiable woman, he might have been made still more respectable than he was.";

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().unwrap()
}

/// A directory with the speech, beside something that is no sound file, and a manifest of these lines.
fn set(lines: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::copy(repository().join("tests/data/speech.wav"), dir.path().join("speech.wav")).unwrap();
    std::fs::write(dir.path().join("text.wav"), "no sound").unwrap();
    std::fs::write(dir.path().join("set.tsv"), lines).unwrap();
    dir
}

fn wer(dir: &Path, arguments: &[&str]) -> Output {
    Command::cargo_bin("parakeet")
        .unwrap()
        .arg("wer")
        .arg(dir.join("set.tsv"))
        .args(["--backend", "cpu", "--model"])
        .arg(repository().join("models/parakeet-tdt-mini"))
        .args(arguments)
        .output()
        .unwrap()
}

/// The JSON of a run that succeeded without a word on standard error.
fn json(dir: &Path, arguments: &[&str]) -> Value {
    let output = wer(dir, &[&["--json"], arguments].concat());
    assert_eq!((output.status.code(), String::from_utf8_lossy(&output.stderr).as_ref()), (Some(0), ""));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The report without what depends on the machine.
fn without_times(mut json: Value) -> Value {
    json["total"]["compute_seconds"] = Value::Null;
    json["total"]["real_time_factor"] = Value::Null;
    for file in json["files"].as_array_mut().unwrap() {
        file["compute_seconds"] = Value::Null;
    }
    json
}

#[test]
fn errors_are_counted_against_the_transcript() {
    let dir = set(&format!("# one file, twice\nspeech.wav\t{REFERENCE}\n\nspeech.wav\t\n"));
    let json = json(dir.path(), &[]);
    let file = &json["files"][0];
    assert_eq!(file["reference"], REFERENCE.to_lowercase().replace([',', '.'], ""));
    let transcript = Command::cargo_bin("parakeet")
        .unwrap()
        .args(["transcribe", "--backend", "cpu", "--model"])
        .arg(repository().join("models/parakeet-tdt-mini"))
        .arg(dir.path().join("speech.wav"))
        .output()
        .unwrap();
    let transcript = String::from_utf8(transcript.stdout).unwrap().to_lowercase().replace([',', '.'], "");
    assert_eq!(file["hypothesis"], transcript.trim());
    let words = &file["words"];
    assert_eq!(words["reference"], 18);
    let errors: u64 =
        ["substitutions", "deletions", "insertions"].iter().map(|kind| words[kind].as_u64().unwrap()).sum();
    assert_eq!(words["rate"].as_f64().unwrap(), errors as f64 / 18.0);
    // Where nothing is said every word is one too many.
    let said = transcript.split_whitespace().count() as u64;
    assert_eq!(json["files"][1]["words"]["insertions"], said);
    assert_eq!(json["total"]["words"]["reference"], 18);
    assert!(json["total"]["real_time_factor"].as_f64().unwrap() > 0.0);
}

#[test]
fn latency_is_of_the_stream_and_the_same_each_time() {
    let dir = set(&format!("speech.wav\t{REFERENCE}\n"));
    let at = |look_ahead: &str, threads: &str| {
        without_times(json(dir.path(), &["--look-ahead", look_ahead, "--threads", threads]))
    };
    let slow = at("13", "1");
    let fast = at("0", "1");
    assert_eq!(slow["latency"], at("13", "2")["latency"]);
    assert_eq!(fast, at("0", "1"));
    let latency = |report: &Value, which: &str| report["latency"][which].as_f64().unwrap();
    assert!(latency(&fast, "p50") < latency(&slow, "p50"), "{} {}", fast["latency"], slow["latency"]);
    for report in [&slow, &fast] {
        let order: Vec<f64> =
            ["p50", "p95", "p99", "most"].iter().map(|which| latency(report, which)).collect();
        assert!(order.is_sorted() && order[0] > 0.0, "{order:?}");
        let words =
            report["latency"]["words"].as_u64().unwrap() + report["latency"]["at_end"].as_u64().unwrap();
        assert_eq!(words as usize, report["files"][0]["hypothesis"].as_str().unwrap().split(' ').count());
    }
}

#[test]
fn noise_is_the_same_each_time_and_does_harm() {
    let dir = set(&format!("speech.wav\t{REFERENCE}\n"));
    let clean = json(dir.path(), &[]);
    let noisy = without_times(json(dir.path(), &["--noise", "-5"]));
    assert_eq!(noisy, without_times(json(dir.path(), &["--noise", "-5"])));
    assert_eq!(noisy["noise_db"], -5.0);
    let rate = |report: &Value| report["total"]["words"]["rate"].as_f64().unwrap();
    assert!(rate(&noisy) > rate(&clean), "{} {}", noisy["files"], clean["files"]);
}

#[test]
fn files_that_fail_are_named_and_count() {
    let dir = set(&format!("speech.wav\t{REFERENCE}\ntext.wav\tthree more words\nno-such.wav\tfour\n"));
    let output = wer(dir.path(), &[]);
    assert_eq!(output.status.code(), Some(0));
    let errors = String::from_utf8(output.stderr).unwrap();
    for name in ["text.wav: not a sound file", "no-such.wav: "] {
        assert!(errors.lines().any(|l| l.starts_with("warning: ") && l.contains(name)), "{errors}");
    }
    let table = String::from_utf8(output.stdout).unwrap();
    let row = |name: &str| {
        let row = table.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("{table}"));
        row.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(row("text.wav")[1..6], ["3", "0", "3", "0", "100.0"]);
    assert_eq!(row("total")[1], "22");
    assert!(
        table.contains("2 of 3 files could not be run") && table.contains("latency of words in ms: p50 ")
    );
}

#[test]
fn nothing_to_run_is_an_error() {
    let cases: [(&str, &[&str], &str); 4] = [
        ("text.wav\tone\n", &[], "none of its files could be run"),
        ("# set\nspeech.wav one\n", &[], "set.tsv: line 2: no tab, expected audio<TAB>reference"),
        ("speech.wav\tone\n", &["--look-ahead", "5"], "look-ahead"),
        ("speech.wav\tone\n", &["--look-ahead", "4294967295"], "look-ahead"),
    ];
    for (lines, arguments, expected) in cases {
        let dir = set(lines);
        let output = wer(dir.path(), arguments);
        assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0), "{lines}");
        let error = String::from_utf8(output.stderr).unwrap();
        assert!(error.lines().last().unwrap().starts_with("error: ") && error.contains(expected), "{error}");
    }
    let dir = set("speech.wav\tone\n");
    assert_eq!(wer(dir.path(), &["--plot", "picture.jpg"]).status.code(), Some(2));
}

#[test]
fn the_picture_is_drawn() {
    let dir = set(&format!("speech.wav\t{REFERENCE}\ntext.wav\tthree more words\n"));
    let picture = dir.path().join("picture.svg");
    let output = wer(dir.path(), &["--plot", picture.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(0));
    let picture = std::fs::read_to_string(picture).unwrap();
    for text in ["speech.wav", "text.wav", "3 of 3", "Latency of words", "p95 "] {
        assert!(picture.contains(text), "{text}");
    }
}

#[test]
fn words_start_with_their_sounds_and_the_delay_is_the_models() {
    let dir = set(&format!("speech.wav\t{REFERENCE}\n"));
    let times = &json(dir.path(), &["--times"])["times"];
    // The sentence begins after quiet, in each of four places.
    assert!(times["sounds"].as_u64().unwrap() >= 4, "{times}");
    let (least, most) = (times["told"]["least"].as_f64().unwrap(), times["told"]["most"].as_f64().unwrap());
    assert!((-30.0..=100.0).contains(&least) && (-30.0..=100.0).contains(&most), "{times}");
    // The model's own is of many speakers; of each it is within two frames.
    let delay = times["emission_delay_ms"].as_u64().unwrap();
    let config = std::fs::read(repository().join("models/parakeet-tdt-mini/config.json")).unwrap();
    let config: Value = serde_json::from_slice(&config).unwrap();
    assert!(delay.abs_diff(config["emission_delay_ms"].as_u64().unwrap()) <= 160, "{times}");
    let people = String::from_utf8(wer(dir.path(), &["--times"]).stdout).unwrap();
    assert!(people.contains(&format!("emission_delay_ms: {delay}\n")), "{people}");
}
