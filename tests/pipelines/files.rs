// SPDX-License-Identifier: MPL-2.0
//! `pipelines/files/`.

use super::{common::Scratch, tools::*};
use std::fs;

const SCRIPT: &str = "files/captions.sh";

#[test]
fn a_file_becomes_subrip_webvtt_and_json() {
    let scratch = Scratch::new("files");
    let captions = |name: &str| {
        // Names with spaces are names.
        let path = scratch.0.join(name);
        run(script(SCRIPT).arg(speech()).arg(&path));
        fs::read_to_string(path).unwrap()
    };
    let (srt, vtt, json) = (captions("a name.srt"), captions("a name.vtt"), captions("a name.json"));
    assert!(vtt.starts_with("WEBVTT"), "{vtt}");
    let phrases = cues(&srt);
    assert!(phrases.len() > 1 && json.lines().count() == phrases.len(), "{srt}{json}");
    check(&phrases, &said(), 0);
    check(&cues(&vtt), &said(), 0);
    check(&words(&json), &said(), 0);
}

#[test]
fn a_film_has_captions_by_its_sound_alone() {
    let scratch = Scratch::new("film");
    let (film, srt) = (scratch.0.join("film.mkv"), scratch.0.join("film.srt"));
    // A picture that nobody could decode, before the sound.
    let line = format!(
        "videotestsrc num-buffers=25 ! video/x-raw,width=64,height=64 ! jpegenc ! capssetter replace=true \
         caps=video/x-prores ! m. filesrc location={} ! wavparse ! audioconvert ! vorbisenc ! m. \
         matroskamux name=m ! filesink location={}",
        speech().display(),
        film.display()
    );
    run(&mut launch(&line));
    run(script(SCRIPT).args([&film, &srt]));
    check(&cues(&fs::read_to_string(srt).unwrap()), &said(), 0);
}

#[test]
fn what_is_wrong_is_told() {
    let scratch = Scratch::new("wrong");
    let srt = scratch.0.join("out.srt");
    let nothing = scratch.0.join("nothing.wav");
    let text = scratch.0.join("text.wav");
    fs::write(&text, "no sound is in here").unwrap();
    for (input, output, told) in [
        (&nothing, &srt, "nothing.wav"),
        (&text, &srt, "ERROR"),
        (&text, &scratch.0.join("out.txt"), "name it .srt, .vtt or .json"),
    ] {
        let ran = script(SCRIPT).args([input, output]).output().unwrap();
        let errors = String::from_utf8_lossy(&ran.stderr);
        assert!(!ran.status.success() && errors.contains(told), "{errors}");
    }
}
