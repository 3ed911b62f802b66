// SPDX-License-Identifier: MPL-2.0
//! The tool's commands about models: `info`, `convert`, `synth-model`.

use std::fs;
use std::path::{Path, PathBuf};

use assert_cmd::Command;
use serde_json::Value;

fn data(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../engine/tests/data").join(path)
}

fn mini() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/parakeet-tdt-mini")
}

fn parakeet() -> Command {
    Command::cargo_bin("parakeet").unwrap()
}

fn info(path: &Path) -> Value {
    let output = parakeet().arg("info").arg("--json").arg(path).assert().success();
    serde_json::from_slice(&output.get_output().stdout).unwrap()
}

#[test]
fn info_tells_a_model_directory() {
    let json = info(&mini());
    assert_eq!((json["name"].as_str(), json["format"].as_str()), (Some("parakeet-tdt-mini"), Some("model")));
    assert_eq!((json["kind"].as_str(), json["streaming"].as_str()), (Some("tdt"), Some("cache-aware")));
    assert_eq!((json["layers"].as_u64(), json["width"].as_u64()), (Some(12), Some(256)));
    let weights = fs::metadata(mini().join("model.safetensors")).unwrap().len();
    let told = json["weight_bytes"].as_u64().unwrap();
    assert!(told < weights && weights < told + 100_000, "{told} of {weights}");
    let contexts = json["contexts"].as_array().unwrap();
    let latencies: Vec<_> = contexts.iter().map(|context| context["latency_ms"].as_u64()).collect();
    assert_eq!(latencies, [Some(1120), Some(560), Some(160), Some(80)]);
    assert!(contexts.iter().all(|context| context["stream_bytes"].as_u64() > Some(1_000_000)));
    // 12 layers, K and V, 70 frames and the 8 frames of a convolution's tail, 256 halves each; the decoder's state and 14
    // mel frames of 128 bins are 4 ((2 * 320 + 320 + 1) + 14 * 128) = 11,012 bytes, in units of 16 bytes 11,024.
    let halves = 12 * (2 * 70 + 8) * 256 * 2 + 11_024;
    let gpu = json["gpu"].as_array().unwrap();
    let told = |index: usize, field: &str| gpu[index][field].as_u64().unwrap();
    assert_eq!((gpu[0]["cache"].as_str(), gpu[1]["cache"].as_str()), (Some("full"), Some("int8")));
    assert_eq!((told(0, "stream_bytes"), told(0, "streams_per_gb")), (halves, 1_000_000_000 / halves));
    assert!(told(1, "streams_per_gb") > 3 * told(0, "streams_per_gb") / 2);
    assert!(json["devices"].as_array().is_some_and(|devices| !devices.is_empty()));
    let text = parakeet().arg("info").arg(mini()).assert().success();
    let text = String::from_utf8_lossy(&text.get_output().stdout).into_owned();
    let on_gpu =
        format!("  on a GPU    f16, cache full: 0.9 MB a stream, {} streams a GB", 1_000_000_000 / halves);
    for part in [
        "TDT, durations [0, 1, 2, 3, 4]",
        "1024 pieces",
        "look-ahead 13: 1120 ms",
        "MB a stream (default)",
        &on_gpu,
        "  runs on     ",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    if let Err(missing) = parakeet_engine::backend::cuda::count() {
        assert!(text.contains(&format!("  passed over {missing}")), "{text}");
    }
}

#[test]
fn info_tells_checkpoints_without_converting() {
    let json = info(&data("oracle/fullatt/model.nemo"));
    assert_eq!((json["format"].as_str(), json["streaming"].as_str()), (Some("nemo"), Some("buffered")));
    assert_eq!(json["windows"][0]["latency_ms"].as_u64(), Some(4000));
    assert_eq!(json["normalized_features"].as_bool(), Some(true));
    let text = parakeet().arg("info").arg(data("oracle/fullatt/model.nemo")).assert().success();
    let text = String::from_utf8_lossy(&text.get_output().stdout).into_owned();
    let kept = json["gpu"][0]["stream_bytes"].as_f64().unwrap() / 1e6;
    let line = format!("  on a GPU    f16: {kept:.3} MB a stream, beside the windows under way");
    assert!(text.contains(&line) && text.matches("a GB").count() == 0, "{text}");
    let json = info(&data("hf/nemotron"));
    assert_eq!((json["format"].as_str(), json["kind"].as_str()), (Some("hugging-face"), Some("rnnt")));
    assert_eq!(json["contexts"][0]["right_frames"].as_u64(), Some(6));
    assert!(json["contexts"][0].get("stream_bytes").is_none());
    let error = parakeet().arg("info").arg(data("nothing")).assert().failure();
    let error = String::from_utf8_lossy(&error.get_output().stderr).into_owned();
    assert!(error.contains("no such model directory or checkpoint"), "{error}");
}

/// A model directory as of parakeet-unified-en-0.6b, which was trained for some windows only.
fn trained(dir: &Path) -> PathBuf {
    let out = dir.join("trained");
    parakeet().arg("convert").arg(data("oracle/fullatt/model.nemo")).arg(&out).assert().success();
    let path = out.join("config.json");
    let mut json: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    json["encoder"]["attention"] = "chunked_limited_with_rc".into();
    json["encoder"]["windows"] =
        serde_json::json!({"left": [70], "chunk": [1, 2, 7, 13], "right": [0, 1, 2, 3, 4, 7, 13]});
    fs::write(&path, json.to_string()).unwrap();
    out
}

#[test]
fn a_model_is_offered_in_the_windows_of_its_training() {
    let dir = tempfile::tempdir().unwrap();
    let model = trained(dir.path());
    let json = info(&model);
    let windows = json["windows"].as_array().unwrap();
    assert_eq!((windows.len(), json["streaming"].as_str()), (28, Some("buffered")));
    let told = |index: usize, field: &str| windows[index][field].as_f64().unwrap();
    let window = |index| ["left", "chunk", "right"].map(|part| told(index, &format!("{part}_seconds")));
    assert_eq!((window(0), told(0, "latency_ms")), ([5.6, 1.04, 1.04], 2_080.0));
    assert_eq!((window(27), told(27, "latency_ms")), ([5.6, 0.08, 0.0], 80.0));
    let text = parakeet().arg("info").arg(&model).assert().success();
    let text = String::from_utf8_lossy(&text.get_output().stdout).into_owned();
    let own = "5.6 s before, 1.04 s chunk, 1.04 s after: 2080 ms, ";
    assert!(text.contains(own) && text.contains("0.16 s chunk, 0.32 s after: 480 ms"), "{text}");

    let speech = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/data/speech.wav");
    let heard = |arguments: &[&str]| {
        let mut command = parakeet();
        command.arg("transcribe").arg(&speech).arg("--model").arg(&model).args(["--backend", "cpu"]);
        command.args(["--format", "json"]).args(arguments);
        command
    };
    let output = |arguments: &[&str]| heard(arguments).assert().success().get_output().stdout.clone();
    assert_eq!(output(&[]), output(&["--left", "5.6", "--chunk", "1.04", "--right", "1.04"]));
    assert_eq!(output(&["--chunk", "0.56"]), output(&["--chunk", "0.56", "--right", "1.04"]));
    for (arguments, expected) in [
        (["--chunk", "2"], "chunk: 2 s (25 frames), but the model was trained for windows of left 5.6 s"),
        (["--left", "10"], "left: 10 s (125 frames), but"),
        (["--right", "0.4"], "right: 0.4 s (5 frames), but"),
    ] {
        let error = heard(&arguments).assert().failure();
        let error = String::from_utf8_lossy(&error.get_output().stderr).into_owned();
        assert!(error.contains(expected), "{error}");
    }
    let manifest = dir.path().join("manifest.tsv");
    fs::write(&manifest, format!("{}\tnothing of it\n", speech.display())).unwrap();
    let wer = |arguments: &[&str]| {
        let mut command = parakeet();
        command.arg("wer").arg(&manifest).arg("--model").arg(&model).args(["--backend", "cpu"]);
        command.args(arguments);
        command
    };
    let report = wer(&[]).assert().success();
    let report = String::from_utf8_lossy(&report.get_output().stdout).into_owned();
    assert!(report.contains("5.60-1.04-1.04"), "{report}");
    wer(&["--chunk", "2"]).assert().failure();
    let mut bench = parakeet();
    bench.arg("bench").arg(&speech).arg("--model").arg(&model).args(["--backend", "cpu", "--seconds", "1"]);
    let bench = bench.arg("--json").assert().success();
    let bench: Value = serde_json::from_slice(&bench.get_output().stdout).unwrap();
    let ways: Vec<_> =
        bench["contexts"].as_array().unwrap().iter().map(|way| way["way"].as_str().unwrap()).collect();
    assert_eq!(ways, ["5.60-1.04-1.04", "5.60-0.56-0.56", "5.60-0.16-0.16", "5.60-0.08-0.08"]);
}

#[test]
fn a_synthetic_model_is_the_same_every_time_and_runs() {
    let dir = tempfile::tempdir().unwrap();
    let make = |name: &str, seed: &str| {
        let out = dir.path().join(name);
        let arguments = ["synth-model", "--like", "nemotron-speech-streaming-en-0.6b", "--layers", "1"];
        parakeet().args(arguments).args(["--vocabulary", "200", "--seed", seed]).arg(&out).assert().success();
        out
    };
    let (first, again, other) = (make("a", "1"), make("b", "1"), make("c", "2"));
    let weights = |dir: &Path| fs::read(dir.join("model.safetensors")).unwrap();
    assert!(weights(&first) == weights(&again), "the seed decides");
    assert!(weights(&first) != weights(&other));
    let json = info(&first);
    assert_eq!((json["vocabulary"].as_u64(), json["layers"].as_u64()), (Some(200), Some(1)));
    assert_eq!((json["kind"].as_str(), json["streaming"].as_str()), (Some("rnnt"), Some("cache-aware")));
    let error =
        parakeet().args(["synth-model", "--like", "whisper"]).arg(dir.path().join("d")).assert().failure();
    let error = String::from_utf8_lossy(&error.get_output().stderr).into_owned();
    assert!(error.contains("there are parakeet-tdt-0.6b-v3, parakeet-tdt-1.1b"), "{error}");
    let help = parakeet().args(["synth-model", "--help"]).assert().success();
    let help = String::from_utf8_lossy(&help.get_output().stdout).into_owned();
    for like in parakeet_engine::convert::Like::ALL {
        assert!(help.contains(&like.to_string()), "{like}: {help}");
    }
}

/// A file size limit does what a full disk does: a write fails in the middle.
#[cfg(unix)]
#[test]
fn a_full_disk_leaves_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let script = r#"ulimit -f 50; trap "" XFSZ; exec "$0" convert "$1" "$2""#;
    let output = Command::new("sh")
        .args(["-c", script])
        .arg(assert_cmd::cargo::cargo_bin("parakeet"))
        .arg(data("hf/tdt"))
        .arg(dir.path().join("model"))
        .assert()
        .failure();
    let error = String::from_utf8_lossy(&output.get_output().stderr).into_owned();
    assert!(error.contains("File too large"), "{error}");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}
