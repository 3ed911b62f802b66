// SPDX-License-Identifier: MPL-2.0
//! `pipelines/picture/`.

use super::{common::Scratch, screen, tools::*};
use std::path::Path;

const SCRIPT: &str = "picture/captions.sh";

fn film(path: &Path) {
    let line = format!("{} matroskamux name=mux ! filesink location={}", screen::film(7), path.display());
    run(&mut launch(&line));
}

#[test]
fn captions_are_drawn_where_they_are_heard() {
    let scratch = Scratch::new("picture");
    let (source, drawn) = (scratch.0.join("film.mkv"), scratch.0.join("drawn.mkv"));
    film(&source);
    run(script(SCRIPT).args([&source, &drawn]));
    let heard = heard(&source);
    assert!(screen::read(&source, &heard).is_empty(), "there are none before");
    let cues = screen::read(&drawn, &heard);
    assert!(cues.len() > 1, "{cues:?}");
    check(&cues, &heard, 0);
}

#[test]
fn a_film_with_captions_is_played_to_its_end() {
    let scratch = Scratch::new("player");
    let source = scratch.0.join("film.mkv");
    film(&source);
    let _alone = alone();
    // In place of a screen and loudspeakers.
    let ranks = "fakevideosink:MAX,fakeaudiosink:MAX";
    let ran = script(SCRIPT).arg(&source).env("GST_PLUGIN_FEATURE_RANK", ranks).output().unwrap();
    let errors = String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success() && !errors.contains("WARNING"), "{errors}");
}
