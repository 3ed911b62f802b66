// SPDX-License-Identifier: MPL-2.0
//! The command line tool, as people run it, with the model of this repository.

use std::path::{Path, PathBuf};
use std::process::Output;

use assert_cmd::Command;
use serde_json::Value;

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn speech() -> PathBuf {
    repository().join("tests/data/speech.wav")
}

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)
}

/// On the CPU, which says the same everywhere.
fn transcribe(file: &Path, arguments: &[&str], input: &[u8]) -> Output {
    transcribe_on("cpu", file, arguments, input)
}

fn transcribe_on(backend: &str, file: &Path, arguments: &[&str], input: &[u8]) -> Output {
    Command::cargo_bin("parakeet")
        .unwrap()
        .arg("transcribe")
        .arg(file)
        .args(["--backend", backend, "--model"])
        .arg(repository().join("models/parakeet-tdt-mini"))
        .args(arguments)
        .write_stdin(input)
        .output()
        .unwrap()
}

/// Standard output of a run that succeeded without a word on standard error.
fn stdout(output: Output) -> String {
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap()
}

fn json(file: &Path, arguments: &[&str], input: &[u8]) -> Value {
    let arguments = [&["--format", "json"], arguments].concat();
    serde_json::from_str(&stdout(transcribe(file, &arguments, input))).unwrap()
}

#[test]
fn a_vocabulary_changes_what_is_heard_and_says_what_is_wrong_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let list = dir.path().join("names.txt");
    let with = |text: &str, more: &[&str]| {
        std::fs::write(&list, text).unwrap();
        let arguments = [&["--vocabulary", list.to_str().unwrap()], more].concat();
        transcribe(&speech(), &arguments, &[])
    };
    let plain = stdout(transcribe(&speech(), &[], &[]));
    assert_eq!(stdout(with("# names\n\nMarianne\nDashwood\t0.5\n", &[])), plain);
    let other = stdout(with("a moral\t10\n", &["--look-ahead", "6"]));
    assert!(other.contains("moral") && !plain.contains("moral"), "{other}");
    assert_eq!(stdout(with("a moral", &["--look-ahead", "6", "--boost", "10"])), other);
    for (text, reason) in [
        ("", "there is no phrase in it"),
        ("a\nb\tmuch\n", "line 2: expected a phrase, a tab and a number, found \"b\\tmuch\""),
        ("a\t11", "the boost of \"a\" is 11, expected 0 to 10"),
        ("漢字", "\"漢字\" can't be written with the model's pieces"),
    ] {
        let output = with(text, &[]);
        let told = format!("error: {}: {reason}\n", list.display());
        assert_eq!(
            (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned()),
            (Some(1), told)
        );
    }
}

/// The speech as raw samples.
fn raw() -> Vec<u8> {
    hound::WavReader::open(speech())
        .unwrap()
        .into_samples::<i16>()
        .flat_map(|s| s.unwrap().to_le_bytes())
        .collect()
}

/// The words of a SubRip or WebVTT file, its cues checked for order.
fn words_of_cues(text: &str, point: char) -> String {
    let seconds = |clock: &str| {
        let numbers: Vec<f64> = clock.replace(point, ".").split(':').map(|n| n.parse().unwrap()).collect();
        numbers[0] * 3_600.0 + numbers[1] * 60.0 + numbers[2]
    };
    let mut words = Vec::new();
    let mut last = 0.0;
    for cue in text.split("\n\n").filter(|cue| cue.contains("-->")) {
        let (_, timed) = cue.split_at(cue.find("00:").unwrap());
        let (times, text) = timed.split_once('\n').unwrap();
        let (start, end) = times.split_once(" --> ").unwrap();
        assert!(seconds(start) >= last && seconds(end) > seconds(start), "{cue}");
        last = seconds(end);
        words.extend(text.split_whitespace().map(str::to_owned));
    }
    words.join(" ")
}

#[test]
fn every_format_has_the_same_words() {
    let plain = stdout(transcribe(&speech(), &[], &[]));
    let text = plain.trim_end();
    assert!(text.starts_with("Had he married") && plain.ends_with('\n'), "{plain}");
    assert_eq!(words_of_cues(&stdout(transcribe(&speech(), &["--format", "srt"], &[])), ','), text);
    let vtt = stdout(transcribe(&speech(), &["--format", "vtt"], &[]));
    assert!(vtt.starts_with("WEBVTT\n\n"));
    assert_eq!(words_of_cues(&vtt, '.'), text);
    assert_eq!(json(&speech(), &[], &[])["text"], text);
}

#[test]
fn json_has_every_field_and_times_within_the_audio() {
    let json = json(&speech(), &["--look-ahead", "1"], &[]);
    let seconds = json["audio_seconds"].as_f64().unwrap();
    assert_eq!(seconds, raw().len() as f64 / 2.0 / 16_000.0);
    assert_eq!((json["model"].as_str(), json["look_ahead"].as_u64()), (Some("parakeet-tdt-mini"), Some(1)));
    let mut last = 0.0;
    let words = json["words"].as_array().unwrap();
    for word in words {
        let (start, end) = (word["start"].as_f64().unwrap(), word["end"].as_f64().unwrap());
        assert!(last <= start && start < end && end <= seconds, "{word}");
        assert!((0.0..=1.0).contains(&word["confidence"].as_f64().unwrap()), "{word}");
        last = end;
    }
    last = 0.0;
    let mut marks = 0;
    let mut pieces = String::new();
    for token in json["tokens"].as_array().unwrap() {
        pieces.push_str(token["piece"].as_str().unwrap());
        assert!(token["id"].is_u64() && token["duration"].is_u64(), "{token}");
        // The padding of the spectrum can add a frame after the last sample.
        assert!(token["frame"].as_f64().unwrap() * 0.08 < seconds + 0.08, "{token}");
        assert!((0.0..=1.0).contains(&token["confidence"].as_f64().unwrap()), "{token}");
        let (start, end) = (token["start"].as_f64().unwrap(), token["end"].as_f64().unwrap());
        assert!(last <= start && start <= end && end <= seconds, "{token}");
        last = end;
        if token["piece"] == "." || token["piece"] == "," {
            marks += 1;
            assert_eq!(start, end, "{token}");
        } else {
            let frame = token["frame"].as_f64().unwrap();
            let lasts = token["duration"].as_f64().unwrap();
            assert!((start - (frame * 0.08).min(seconds)).abs() < 1e-6, "{token}");
            assert!((end - ((frame + lasts) * 0.08).min(seconds)).abs() < 1e-6, "{token}");
        }
    }
    assert!(marks > 0);
    let texts: Vec<&str> = words.iter().map(|word| word["text"].as_str().unwrap()).collect();
    assert_eq!(pieces.replace('▁', " ").trim(), texts.join(" "));
    assert_eq!(json["text"], texts.join(" "));
}

#[test]
fn pieces_and_standard_input_change_nothing() {
    let whole = json(&speech(), &[], &[]);
    for chunk in ["1", "80", "777", "100000"] {
        assert_eq!(json(&speech(), &["--chunk-ms", chunk], &[]), whole, "{chunk} ms");
    }
    assert_eq!(json(Path::new("-"), &[], &raw()), whole);
    assert_eq!(json(Path::new("-"), &["--chunk-ms", "30"], &raw()), whole);
}

#[test]
fn half_a_sample_is_noted() {
    let mut input = raw();
    input.push(1);
    let output = transcribe(Path::new("-"), &[], &input);
    assert!(output.status.success() && output.stdout.starts_with(b"Had he married"));
    assert!(
        String::from_utf8(output.stderr)
            .unwrap()
            .starts_with("warning: standard input ends with half a sample")
    );
}

#[test]
fn flac_mp3_and_ogg_are_read() {
    for name in ["speech.flac", "speech.mp3", "speech.ogg"] {
        let json = json(&fixture(name), &[], &[]);
        assert_eq!(json["audio_seconds"], 1.2, "{name}");
        assert!(json["text"].as_str().unwrap().starts_with("Had he"), "{name}: {json}");
    }
}

#[test]
fn a_sound_file_on_standard_input_is_heard() {
    for name in ["speech.flac", "speech.mp3", "speech.ogg"] {
        let bytes = std::fs::read(fixture(name)).unwrap();
        assert_eq!(json(Path::new("-"), &[], &bytes), json(&fixture(name), &[], &[]), "{name}");
    }
    let wav = std::fs::read(speech()).unwrap();
    assert_eq!(json(Path::new("-"), &[], &wav), json(&speech(), &[], &[]));
    // Through GStreamer: 0.3 s, from a temporary file.
    let opus = json(&fixture("opus.ogg"), &[], &[]);
    assert!((opus["audio_seconds"].as_f64().unwrap() - 0.3).abs() < 0.02, "{opus}");
    assert_eq!(json(Path::new("-"), &[], &std::fs::read(fixture("opus.ogg")).unwrap()), opus);
}

#[test]
fn channels_that_cancel_are_told_and_one_can_be_chosen() {
    let spec = hound::WavSpec {
        channels: 2,
        sample_rate: 16_000,
        bits_per_sample: 16,
        sample_format: hound::SampleFormat::Int,
    };
    let file = tempfile::Builder::new().suffix(".wav").tempfile().unwrap();
    let mut writer = hound::WavWriter::create(file.path(), spec).unwrap();
    for sample in hound::WavReader::open(speech()).unwrap().into_samples::<i16>() {
        let sample = sample.unwrap();
        writer.write_sample(sample).unwrap();
        writer.write_sample(sample.saturating_neg()).unwrap();
    }
    writer.finalize().unwrap();
    let said = stdout(transcribe(&speech(), &[], &[]));
    let output = transcribe(file.path(), &[], &[]);
    assert!(output.status.success());
    assert_eq!(String::from_utf8(output.stdout).unwrap(), said);
    let warning = String::from_utf8(output.stderr).unwrap();
    assert!(warning.starts_with("warning: ") && warning.contains("channel 1 was heard alone"), "{warning}");
    for channel in ["1", "2"] {
        assert_eq!(stdout(transcribe(file.path(), &["--channel", channel], &[])), said, "{channel}");
    }
    let refused = transcribe(file.path(), &["--channel", "3"], &[]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8(refused.stderr).unwrap().contains("there is no channel 3, it has 2"));
}

#[test]
fn a_cut_file_gives_its_words_and_an_error() {
    let wav = std::fs::read(speech()).unwrap();
    let cut = tempfile::Builder::new().suffix(".wav").tempfile().unwrap();
    std::fs::write(cut.path(), &wav[..44 + 64_000]).unwrap();
    let output = transcribe(cut.path(), &[], &[]);
    assert_eq!(output.status.code(), Some(1));
    assert!(output.stdout.starts_with(b"Had he married"));
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(error.starts_with("error: ") && error.contains("cut off after 2.00 s"), "{error}");
}

#[test]
fn errors_name_what_is_wrong() {
    let cases: [(PathBuf, &[&str], &str); 9] = [
        ("no-such.wav".into(), &[], "no-such.wav: "),
        (fixture("README.md"), &[], "not a sound file"),
        (speech(), &["--look-ahead", "5"], "look-ahead"),
        (speech(), &["--look-ahead", "5"], "13"),
        (
            speech(),
            &["--look-ahead", "400ms"],
            "none of 400 ms (frames of 80 ms: 5); it has 1040, 480, 80, 0 ms",
        ),
        (speech(), &["--look-ahead", "0.48s", "--mask", "no-such.txt"], "no-such.txt: "),
        (speech(), &["--mask", "README.md"], "README.md: "),
        (speech(), &["--look-ahead", "4294967295"], "it has 1040"),
        (speech(), &["--mask", "/dev/null"], "the list holds no word"),
    ];
    for (file, arguments, expected) in cases {
        let output = transcribe(&file, arguments, &[]);
        assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0), "{}", file.display());
        let error = String::from_utf8(output.stderr).unwrap();
        assert!(error.starts_with("error: ") && error.contains(expected), "{error}");
    }
    let mut missing = Command::cargo_bin("parakeet").unwrap();
    missing.arg("transcribe").arg(speech()).args(["--model", "no-such-model"]);
    let error = String::from_utf8(missing.assert().code(1).get_output().stderr.clone()).unwrap();
    assert!(error.contains("no-such-model"), "{error}");
}

#[test]
fn a_time_names_a_look_ahead_too() {
    let said = |look_ahead: &str| json(&speech(), &["--look-ahead", look_ahead], &[]);
    let frames = said("6");
    assert_eq!(frames["look_ahead"], 6);
    assert!(said("480ms") == frames && said("0.48s") == frames);
    for wrong in ["481ms", "-80ms", "s", "1e99s", "soon"] {
        let output = transcribe(&speech(), &["--look-ahead", wrong], &[]);
        assert_eq!(output.status.code(), Some(2), "{wrong}");
    }
}

#[test]
fn listed_words_are_masked() {
    let list = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(list.path(), "MARRIED\nwoman\n").unwrap();
    let masked = stdout(transcribe(&speech(), &["--mask", list.path().to_str().unwrap()], &[]));
    assert!(masked.starts_with("Had he *** a more amiable ***, he"), "{masked}");
}

#[cfg(unix)]
#[test]
fn a_reader_that_goes_away_is_no_error() {
    use std::process::Stdio;
    let mut child = std::process::Command::new(assert_cmd::cargo::cargo_bin("parakeet"))
        .arg("transcribe")
        .arg(speech())
        .arg("--model")
        .arg(repository().join("models/parakeet-tdt-mini"))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.success(), String::from_utf8_lossy(&output.stderr).as_ref()), (true, ""));
}

#[test]
fn one_pass_and_windows_that_hold_everything_change_nothing() {
    let whole = json(&speech(), &[], &[]);
    assert_eq!(json(&speech(), &["--offline"], &[]), whole);
    assert_eq!(json(&speech(), &["--left", "20", "--chunk", "1.12", "--right", "1.12"], &[]), whole);
    let short = json(&speech(), &["--left", "1", "--chunk", "0.5", "--right", "0.5"], &[]);
    assert_ne!(short["tokens"], whole["tokens"], "windows of 2 s hear less");
    assert!(short["words"].as_array().unwrap().len() > 5, "{short}");
}

#[test]
fn windows_out_of_range_are_named() {
    for (arguments, expected) in [
        (["--chunk", "0.05"], "chunk: shorter than an encoder frame of 80 ms"),
        (["--left", "-1"], "unexpected argument"),
        (["--left", "1e9"], "left: 1000000000 s is outside 0 to 600 s"),
        (["--right", "nan"], "right: NaN s is outside 0 to 600 s"),
    ] {
        let output = transcribe(&speech(), &arguments, &[]);
        assert!(!output.status.success());
        let error = String::from_utf8(output.stderr).unwrap();
        assert!(error.contains(expected), "{arguments:?}: {error}");
    }
}

#[test]
fn a_window_that_hears_no_word_is_refused() {
    let output = transcribe(&speech(), &["--left", "0", "--chunk", "0.08", "--right", "0"], &[]);
    assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0));
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(
        error.contains("0.08 s together, in which no word can be heard; take 0.64 s at least"),
        "{error}"
    );
}

#[test]
fn a_backend_that_is_not_there_is_told_and_auto_does_without() {
    let (auto, cuda) =
        (transcribe_on("auto", &speech(), &[], &[]), transcribe_on("cuda", &speech(), &[], &[]));
    match parakeet_engine::backend::cuda::count() {
        Err(missing) => {
            assert!(missing.to_string().starts_with("backend cuda: "), "{missing}");
            assert!(missing.to_string().contains("NVIDIA driver"), "{missing}");
            assert_eq!((cuda.status.code(), cuda.stdout.len()), (Some(1), 0));
            assert_eq!(String::from_utf8(cuda.stderr).unwrap(), format!("error: {missing}\n"));
            assert_eq!(stdout(auto), stdout(transcribe(&speech(), &[], &[])));
        }
        // The card may still be too old, or NVRTC missing.
        Ok(_) if !cuda.status.success() => {
            let error = String::from_utf8(cuda.stderr).unwrap();
            assert!(error.starts_with("error: backend cuda: "), "{error}");
            assert_eq!(stdout(auto), stdout(transcribe(&speech(), &[], &[])));
        }
        Ok(_) => assert_eq!(stdout(auto), stdout(cuda)),
    }
}
