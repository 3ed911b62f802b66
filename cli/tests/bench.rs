// SPDX-License-Identifier: MPL-2.0
//! `parakeet bench`, as people run it, with the model of this repository.

use std::path::{Path, PathBuf};
use std::process::Output;

use assert_cmd::Command;
use serde_json::Value;

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().unwrap()
}

fn bench(arguments: &[&str]) -> Output {
    bench_of(&repository().join("models/parakeet-tdt-mini"), arguments)
}

fn bench_of(model: &Path, arguments: &[&str]) -> Output {
    Command::cargo_bin("parakeet")
        .unwrap()
        .arg("bench")
        .arg(repository().join("tests/data/speech.wav"))
        .arg("--model")
        .arg(model)
        .args(arguments)
        .output()
        .unwrap()
}

/// A small model with full attention, which hears whole files in one pass.
fn hears_everything(dir: &Path) -> PathBuf {
    let model = dir.join("model");
    Command::cargo_bin("parakeet")
        .unwrap()
        .args(["synth-model", "--like", "parakeet-tdt_ctc-110m", "--layers", "1", "--vocabulary", "300"])
        .arg(&model)
        .assert()
        .success();
    model
}

/// The report of a run that succeeded.
fn json(arguments: &[&str]) -> Value {
    json_of(&repository().join("models/parakeet-tdt-mini"), arguments)
}

/// The same with another model.
fn json_of(model: &Path, arguments: &[&str]) -> Value {
    let output = bench_of(model, &[&["--json", "--backend", "cpu"], arguments].concat());
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The figure of this name, which must be greater than 0.
fn figure(of: &Value, name: &str) -> f64 {
    let found = of[name].as_f64().unwrap_or_else(|| panic!("{name} in {of}"));
    assert!(found > 0.0, "{name} in {of}");
    found
}

#[test]
fn costs_are_told_for_each_context() {
    let report = json(&["--seconds", "2"]);
    assert_eq!((&report["mode"], &report["model"]), (&"costs".into(), &"parakeet-tdt-mini".into()));
    let contexts = report["contexts"].as_array().unwrap();
    let chunks: Vec<_> = contexts.iter().map(|cost| cost["chunk_ms"].as_u64().unwrap()).collect();
    assert_eq!(chunks, [1_120, 560, 160, 80]);
    for cost in contexts {
        let [least, median, most] = ["least", "real_time_factor", "most"].map(|name| figure(cost, name));
        assert!(least <= median && median <= most, "{cost}");
        figure(cost, "reads_a_chunk");
        figure(cost, "stream_bytes");
    }
    for name in ["load_seconds", "weights_bytes", "read_seconds"] {
        figure(&report, name);
    }
}

#[test]
fn one_pass_is_chunks_of_a_model_that_streams_with_caches() {
    let one_pass = &json(&["--seconds", "2", "--offline"])["contexts"][0];
    assert_eq!((&one_pass["way"], &one_pass["chunk_ms"]), (&"look-ahead 13".into(), &1_120.into()));
    let dir = tempfile::tempdir().unwrap();
    let one_pass = &json_of(&hears_everything(dir.path()), &["--seconds", "2", "--offline"])["contexts"][0];
    assert_eq!((&one_pass["way"], &one_pass["chunk_ms"]), (&"offline".into(), &0.into()));
}

#[test]
fn steps_are_timed_by_batch_and_drawn() {
    let dir = tempfile::tempdir().unwrap();
    let picture = dir.path().join("steps.svg");
    let common = ["--steps", "--batches", "2,1,2", "--seconds", "1", "--plot", picture.to_str().unwrap()];
    let report = json(&[&common[..], &["--look-ahead", "13"]].concat());
    assert_eq!((&report["mode"], &report["backend"]), (&"steps".into(), &"cpu".into()));
    let steps = report["steps"].as_array().unwrap();
    assert_eq!(steps.iter().map(|step| step["batch"].as_u64().unwrap()).collect::<Vec<_>>(), [1, 2]);
    for step in steps {
        let [least, median, most] = ["least", "step_seconds", "most"].map(|name| figure(step, name));
        assert!(least <= median && median <= most, "{step}");
        let live = step["batch"].as_f64().unwrap() * 1.12 / median;
        assert!((figure(step, "real_time") / live - 1.0).abs() < 1e-6, "{step}");
        let rate = figure(step, "operations") / median;
        assert!((figure(&step["rates"], "operations") / rate - 1.0).abs() < 1e-6, "{step}");
        assert!((1..=20).contains(&step["timed"].as_u64().unwrap()) && step["calls"] == 1, "{step}");
    }
    // Weights are shared, all else is not.
    assert!(figure(&steps[1], "operations") > 1.9 * figure(&steps[0], "operations"));
    assert!(figure(&steps[1], "bytes") < 1.9 * figure(&steps[0], "bytes"));
    let picture = std::fs::read_to_string(picture).unwrap();
    for text in ["parakeet-tdt-mini on cpu, ", "look-ahead 13", "streams in real time", "time of a step, ms"]
    {
        assert!(picture.contains(text), "{text}");
    }
}

#[test]
fn live_streams_say_what_one_says() {
    let report = json(&[
        "--streams",
        "3",
        "--seconds",
        "3",
        "--spread",
        "1",
        "--settle",
        "1",
        "--look-ahead",
        "6",
        "--piece-ms",
        "80",
        "--threads",
        "0",
    ]);
    assert_eq!((&report["mode"], &report["streams"]), (&"streams".into(), &3.into()));
    assert_eq!((&report["piece_ms"], &report["chunk_ms"]), (&80.into(), &560.into()));
    assert_eq!((&report["different"], &report["dropped_seconds"]), (&0.into(), &0.0.into()), "{report}");
    assert!(figure(&report, "steps") <= figure(&report, "chunks"), "{report}");
    for values in ["step_seconds", "batch", "latency_seconds"] {
        let order = ["p50", "p95", "p99", "most"].map(|name| figure(&report[values], name));
        assert!(order.is_sorted(), "{report}");
    }
    for name in ["words", "stream_bytes"] {
        figure(&report, name);
    }
    for name in ["late_chunks", "late_share", "source_late_share", "passed"] {
        assert!(!report[name].is_null(), "{name} in {report}");
    }
}

#[test]
fn a_file_beside_live_streams_is_told_and_its_time_is_not_theirs() {
    let dir = tempfile::tempdir().unwrap();
    let model = hears_everything(dir.path());
    let short = ["--seconds", "2", "--spread", "0", "--settle", "0", "--chunk", "0.5", "--right", "0.5"];
    let arguments = [&["--streams", "1", "--beside", "10", "--agreement", "0"], &short[..]].concat();
    let report = json_of(&model, &arguments);
    assert_eq!(report["beside"]["audio_seconds"], 10, "{report}");
    assert!(!report["beside"]["files"].is_null() && figure(&report, "chunks") <= 5.0, "{report}");
    // A model with caches hears no file at once.
    let output = bench(&["--backend", "cpu", "--streams", "1", "--beside", "10"]);
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.code() == Some(1) && error.starts_with("error: beside: "), "{error}");
}

#[test]
fn the_search_tells_each_trial() {
    let dir = tempfile::tempdir().unwrap();
    let picture = dir.path().join("live.svg");
    // Whether even one stream keeps up depends on what else this machine does.
    let short = ["--seconds", "1", "--spread", "0", "--settle", "0"];
    let arguments = ["--live", "--look-ahead", "0", "--plot", picture.to_str().unwrap()];
    let report = json(&[&arguments[..], &short].concat());
    let limit = &report["ways"][0];
    assert_eq!((&report["mode"], &limit["way"]), (&"live".into(), &"look-ahead 0".into()));
    let trials = limit["trials"].as_array().unwrap();
    assert!((1..=12).contains(&trials.len()), "{report}");
    let best = trials.iter().filter(|trial| trial["passed"] == true).map(|trial| &trial["streams"]);
    assert_eq!(limit["most"].as_u64().unwrap(), best.map(|n| n.as_u64().unwrap()).max().unwrap_or(0));
    for trial in trials {
        assert_eq!(trial["passed"] == true, trial["reasons"].is_null(), "{trial}");
    }
    assert!(std::fs::read_to_string(picture).unwrap().contains("look-ahead 0: "));
}

#[test]
fn a_step_of_one_pass_is_the_whole_file() {
    let dir = tempfile::tempdir().unwrap();
    let model = hears_everything(dir.path());
    let report = json_of(&model, &["--steps", "--offline", "--batches", "1,2", "--seconds", "10"]);
    let steps = report["steps"].as_array().unwrap();
    assert_eq!(steps.iter().map(|step| &step["way"]).collect::<Vec<_>>(), ["offline", "offline"]);
    for step in steps {
        let audio = step["batch"].as_f64().unwrap() * 6.05 / figure(step, "step_seconds");
        assert!((figure(step, "real_time") / audio - 1.0).abs() < 1e-3, "{step}");
    }
}

#[test]
fn files_run_in_one_pass_and_as_streams() {
    let dir = tempfile::tempdir().unwrap();
    let model = hears_everything(dir.path());
    let report = json_of(&model, &["--files", "2", "--seconds", "2", "--chunk", "1", "--right", "1"]);
    assert_eq!((&report["mode"], &report["files"]), (&"files".into(), &2.into()));
    let ways = report["ways"].as_array().unwrap();
    assert_eq!(ways.iter().map(|way| &way["way"]).collect::<Vec<_>>(), ["offline", "10.00-0.96-0.96"]);
    for way in ways {
        assert!((figure(way, "throughput") * figure(way, "seconds") / 4.0 - 1.0).abs() < 1e-6, "{way}");
        let (batch, busy) = (figure(way, "batch"), figure(way, "busy"));
        assert!((1.0..=2.0).contains(&batch) && busy > 0.0 && busy <= 1.0, "{way}");
    }
    let one = ["--files", "1", "--seconds", "1", "--offline"];
    assert_eq!(json_of(&model, &one)["ways"].as_array().unwrap().len(), 1);
    // With caches both are the same.
    let ways = &json(&["--files", "1", "--seconds", "1", "--look-ahead", "1"])["ways"];
    assert_eq!((&ways[0]["way"], ways.as_array().unwrap().len()), (&"look-ahead 1".into(), 1));
}

#[test]
fn people_get_tables() {
    let cases: [(&[&str], &str); 3] = [
        (&["--seconds", "1", "--look-ahead", "13"], "look-ahead 13"),
        (&["--seconds", "1", "--look-ahead", "13", "--steps", "--batches", "1"], "cpu, "),
        (&["--seconds", "1", "--files", "2"], "2 files of 1.0 s at once"),
    ];
    for (arguments, expected) in cases {
        let output = bench(&[&["--backend", "cpu"], arguments].concat());
        let table = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success() && table.contains(expected), "{table}");
    }
}

#[test]
fn what_makes_no_sense_is_refused() {
    let cases: [&[&str]; 9] = [
        &["--steps", "--live"],
        &["--streams", "0"],
        &["--batches", "1"],
        &["--steps", "--batches", "1,none"],
        &["--live", "--offline"],
        &["--files", "2", "--beside", "10"],
        &["--seconds", "0"],
        &["--plot", "picture.svg"],
        &["--live", "--plot", "picture.png"],
    ];
    for arguments in cases {
        let output = bench(arguments);
        assert_eq!((output.status.code(), output.stdout.len()), (Some(2), 0), "{arguments:?}");
    }
    let output = bench(&["--live", "--look-ahead", "5"]);
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.code() == Some(1) && error.starts_with("error: look-ahead: "), "{error}");
}
