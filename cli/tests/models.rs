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
    assert!(error.contains("there are parakeet-tdt-0.6b-v3, nemotron"), "{error}");
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
