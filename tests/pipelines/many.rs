// SPDX-License-Identifier: MPL-2.0
//! `pipelines/tracks/` and `pipelines/sources/`: much speech in one process.

use super::{common::Scratch, tools::*};
use std::{collections::BTreeMap, fs};

/// What is said, in the languages that tracks say they are in; the model has English only, and goes on with it.
const TRACKS: [(&str, &str); 8] = [
    ("0870", "en"),
    ("0880", "de"),
    ("0890", "fr"),
    ("0920", "es"),
    ("0930", "it"),
    ("0920", "pl"),
    ("0890", "nl"),
    ("0870", "pt"),
];

fn clip(name: &str) -> String {
    format!("/usr/share/pocketsphinx/test/data/librivox/sense_and_sensibility_01_austen_64kb-{name}.wav")
}

#[test]
fn eight_tracks_have_captions_of_their_own() {
    let scratch = Scratch::new("tracks");
    let film = scratch.0.join("film.mkv");
    let track = |(clip_name, language): &(&str, &str)| {
        format!(
            "filesrc location={} ! wavparse ! audioconvert ! flacenc ! taginject tags=language-code={language} ! queue ! mux. ",
            clip(clip_name)
        )
    };
    let tracks: String = TRACKS.iter().map(track).collect();
    run(&mut launch(&format!("{tracks} matroskamux name=mux ! filesink location={}", film.display())));
    let captions = scratch.0.join("captions");
    let ran = script("tracks/captions.py").args([&film, &captions]).output().unwrap();
    let errors = String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success(), "{errors}");
    assert_eq!(fs::read_dir(&captions).unwrap().count(), TRACKS.len());
    for (number, (clip, language)) in TRACKS.iter().enumerate() {
        let path = captions.join(format!("{}.{language}.srt", number + 1));
        check(&cues(&fs::read_to_string(&path).expect(language)), &said_in(clip), 0);
    }
}

#[test]
fn a_model_may_be_named_for_a_language() {
    let scratch = Scratch::new("models");
    let errors = |model: &str| {
        let mut script = script("tracks/captions.py");
        let ran = script.arg(speech()).arg(&scratch.0).args(["--model", model]).output().unwrap();
        String::from_utf8_lossy(&ran.stderr).into_owned()
    };
    assert!(errors("/no/such/model").contains("/no/such/model"));
    assert_eq!(errors("de=/no/such/model"), "", "the track says no language");
    check(&cues(&fs::read_to_string(scratch.0.join("1.und.srt")).unwrap()), &said(), 0);
}

#[test]
fn each_word_says_its_source() {
    let scratch = Scratch::new("sources");
    let list = scratch.0.join("sources.txt");
    let clips = ["0870", "0880", "0890", "0920", "0930"];
    let mut lines = String::from("# what is said where\n/no/such/file.wav\n");
    for name in clips {
        lines += &format!("file://{}\n", clip(name));
    }
    fs::write(&list, lines).unwrap();
    let ran = script("sources/captions.py").arg(&list).output().unwrap();
    let errors = String::from_utf8_lossy(&ran.stderr);
    assert!(!ran.status.success() && errors.starts_with("/no/such/file.wav: error: "), "{errors}");
    let mut said_by = BTreeMap::<String, Vec<Cue>>::new();
    for line in String::from_utf8(ran.stdout).unwrap().lines() {
        let word: serde_json::Value = serde_json::from_str(line).expect(line);
        let start = (word["start"].as_f64().unwrap() * 1e3).round() as u64;
        let cue = Cue { start, text: word["text"].as_str().unwrap().to_owned() };
        said_by.entry(word["source"].as_str().unwrap().to_owned()).or_default().push(cue);
    }
    assert_eq!(said_by.len(), clips.len());
    for name in clips {
        check(&said_by[&format!("file://{}", clip(name))], &said_in(name), 0);
    }
}
