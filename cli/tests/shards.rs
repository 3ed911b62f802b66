// SPDX-License-Identifier: MPL-2.0
//! The examples for batch systems, run as they stand, a job after the other.
#![cfg(unix)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().unwrap()
}

/// An archive of two recordings with a manifest, in which the model lies too.
fn archive() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for name in ["a.wav", "b.wav"] {
        fs::copy(repository().join("tests/data/speech.wav"), dir.path().join(name)).unwrap();
    }
    fs::write(dir.path().join("files.txt"), "a.wav\nb.wav\n").unwrap();
    std::os::unix::fs::symlink(repository().join("models/parakeet-tdt-mini"), dir.path().join("model"))
        .unwrap();
    dir
}

/// Runs a job, with the tool in the search path.
fn job(command: &mut Command, variable: &str, index: u64) {
    let tool = assert_cmd::cargo::cargo_bin("parakeet");
    let path = format!("{}:{}", tool.parent().unwrap().display(), std::env::var("PATH").unwrap());
    let output = command.env("PATH", path).env(variable, index.to_string()).output().unwrap();
    assert!(output.status.success(), "{index}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Fails unless both recordings have both results.
fn check(results: &Path) {
    let mut names: Vec<String> = fs::read_dir(results)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names, ["a.json", "a.srt", "b.json", "b.srt"]);
    let json: Value = serde_json::from_str(&fs::read_to_string(results.join("a.json")).unwrap()).unwrap();
    assert!(json["text"].as_str().unwrap().starts_with("Had he married"), "{json}");
}

#[test]
fn the_array_of_slurm_jobs_does_all_of_the_manifest() {
    let archive = archive();
    let script = repository().join("examples/slurm/transcribe.sbatch");
    let text = fs::read_to_string(&script).unwrap();
    let last: u64 =
        text.lines().find_map(|line| line.strip_prefix("#SBATCH --array=0-")).unwrap().parse().unwrap();
    assert!(text.contains(&format!("\nshards={}\n", last + 1)), "the array and the shards differ");
    for index in 0..=last {
        let mut bash = Command::new("bash");
        bash.arg(&script).args(["files.txt", "results", "model"]).current_dir(archive.path());
        job(&mut bash, "SLURM_ARRAY_TASK_ID", index);
    }
    check(&archive.path().join("results"));
}

#[test]
fn the_indexed_job_of_kubernetes_does_all_of_the_manifest() {
    let archive = archive();
    let text = fs::read_to_string(repository().join("examples/kubernetes/transcribe-job.yaml")).unwrap();
    let document: Value = serde_saphyr::from_str(&text).unwrap();
    let spec = &document["spec"];
    assert_eq!((document["kind"].as_str(), spec["completionMode"].as_str()), (Some("Job"), Some("Indexed")));
    let completions = spec["completions"].as_u64().unwrap();
    let pod = &spec["template"]["spec"];
    let container = &pod["containers"][0];
    assert_eq!(container["volumeMounts"][0]["name"], pod["volumes"][0]["name"]);
    let mount = container["volumeMounts"][0]["mountPath"].as_str().unwrap();
    let command: Vec<String> = serde_json::from_value(container["command"].clone()).unwrap();
    assert!(command.join(" ").contains(&format!("$JOB_COMPLETION_INDEX/{completions}\"")), "{command:?}");
    let below = format!("{}/", archive.path().display());
    for index in 0..completions {
        let arguments = command[1..].iter().map(|argument| argument.replace(&format!("{mount}/"), &below));
        job(Command::new(&command[0]).args(arguments), "JOB_COMPLETION_INDEX", index);
    }
    check(&archive.path().join("results"));
}
