// SPDX-License-Identifier: MPL-2.0
//! The pipeline that the README shows, run as it stands there, and the captions that it shows with it.

use std::path::{Path, PathBuf};
use std::process::Command;

/// The recording that the README's pipeline reads, under the name the golden file knows it by.
const RECORDING: &str = "sense_and_sensibility_01_austen_64kb-0920.wav";
const CONTEXT: &str = "70,13";

/// The directory of the plugin that this test run built: next to the test's own executable.
fn plugin_dir() -> PathBuf {
    let executable = std::env::current_exe().expect("a test has an executable");
    let dir = executable.parent().expect("it lies in a directory").to_owned();
    assert!(dir.join("libgstparakeet.so").is_file(), "no plugin in {}", dir.display());
    dir
}

/// The README's command that begins like this, continuation lines joined.
fn command(readme: &str, start: &str) -> String {
    let from = readme.find(start).expect("the README shows it");
    let mut command = String::new();
    for line in readme[from..].lines() {
        match line.strip_suffix('\\') {
            Some(part) => command.push_str(part),
            None => return command + line,
        }
    }
    command
}

/// The README's block of text, without the line ends around it.
fn block(readme: &str) -> &str {
    let (_, rest) = readme.split_once("```text\n").expect("the README shows it");
    rest.split_once("```").expect("blocks end").0.trim()
}

/// Start in milliseconds and text of each cue of SubRip captions.
fn cues(captions: &str) -> Vec<(u64, String)> {
    let time = |stamp: &str| {
        let parts: Vec<u64> = stamp.split([':', ',']).map(|part| part.parse().expect("digits")).collect();
        let [hours, minutes, seconds, milliseconds] = parts[..] else { panic!("not a time: {stamp}") };
        ((hours * 60 + minutes) * 60 + seconds) * 1_000 + milliseconds
    };
    let cue = |block: &str| {
        let mut lines = block.lines().skip_while(|line| !line.contains(" --> "));
        let (start, _) = lines.next()?.split_once(" --> ")?;
        Some((time(start), lines.collect::<Vec<_>>().join(" ")))
    };
    captions.split("\n\n").filter_map(cue).collect()
}

#[test]
fn the_pipeline_of_the_readme_prints_what_was_said_and_when() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let readme = std::fs::read_to_string(root.join("README.md")).expect("it is in the tree");
    let shown = command(&readme, "GST_PLUGIN_PATH=target/release gst-launch-1.0");
    let line = shown.replacen("GST_PLUGIN_PATH=target/release ", "", 1);
    let output = Command::new("sh")
        .args(["-c", &line])
        .current_dir(root)
        .env("GST_PLUGIN_PATH", plugin_dir())
        .env("GST_PARAKEET_MODEL_DIR", root.join("models"))
        .env("GST_REGISTRY", std::env::temp_dir().join(format!("parakeet-registry-{}", std::process::id())))
        .output()
        .expect("sh runs");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{line}\n{errors}");
    let captions = String::from_utf8_lossy(&output.stdout).replace('\r', "");
    assert_eq!(block(&readme), captions.trim(), "the README shows other captions");

    let golden = std::fs::read_to_string(root.join("tests/data/expected.json")).expect("it is in the tree");
    let golden: serde_json::Value = serde_json::from_str(&golden).expect("it is sound");
    let expected = &golden["files"][RECORDING]["contexts"][CONTEXT];
    let config = std::fs::read_to_string(root.join("models/parakeet-tdt-mini/config.json"))
        .expect("it is in the tree");
    let config: serde_json::Value = serde_json::from_str(&config).expect("it is sound");
    let delay = config["emission_delay_ms"].as_u64().expect("it was measured");
    // A word begins with a token whose piece begins with U+2581, and was spoken at most the model's delay before it.
    let pieces = golden["pieces"].as_array().expect("pieces");
    let tokens = expected["tokens"].as_array().expect("tokens").iter();
    let starts = tokens.zip(expected["start"].as_array().expect("frames")).filter_map(|(token, frame)| {
        let piece = pieces[token.as_u64()? as usize].as_str()?;
        piece.starts_with('\u{2581}').then(|| frame.as_u64().map(|frame| frame * 80))?
    });
    let words: Vec<&str> = expected["text"].as_str().expect("a text").split(' ').collect();
    let starts: Vec<u64> = starts.collect();
    assert_eq!(starts.len(), words.len());

    let (mut compared, cues) = (0, cues(&captions));
    for (start, text) in &cues {
        let said: Vec<&str> = text.split(' ').collect();
        assert_eq!(said, words[compared..words.len().min(compared + said.len())], "{captions}");
        let emitted = starts[compared];
        assert!(
            (emitted - delay..emitted).contains(start),
            "{start} ms, emitted at {emitted} ms: {captions}"
        );
        compared += said.len();
    }
    println!("{compared} words in {} captions compared", cues.len());
    assert_eq!(compared, words.len(), "{captions}");
    assert!(compared > 10 && cues.len() > 1 && cues.len() < compared, "{captions}");
}
