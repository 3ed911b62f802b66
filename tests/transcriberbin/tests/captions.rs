// SPDX-License-Identifier: MPL-2.0
//! Captions of real speech out of transcriberbin, and what becomes of them when things change.

use std::sync::Arc;
use std::time::Duration;

use gst::prelude::*;
use parakeet_engine::{Engine, EngineOptions};
use transcriberbin_test::{Bench, model, words};

/// Longer than any of these pipelines takes on a slow machine.
const PATIENCE: Duration = Duration::from_secs(90);

#[test]
fn captions_say_the_words() {
    let bench = Bench::new("", 1);
    bench.play();
    bench.finish(PATIENCE);
    assert!(!bench.passes_through());
    assert_eq!(bench.frames(), bench.frames_in());
    let words = words();
    assert!(words.split(' ').count() > 10, "{words}");
    assert_eq!(bench.text(), words);
}

#[test]
fn captions_go_on_after_passthrough_and_another_language_with_the_model_that_was_loaded() {
    let model = model(None);
    let bench = Bench::new(&format!("model={}", model.path().display()), 3);
    let find = || Engine::find(model.path(), &EngineOptions::default());
    bench.play();
    bench.wait(PATIENCE, |bench| bench.text().split(' ').count() > 4);
    // Alive up to the end only if it was never loaded anew.
    let loaded = Arc::downgrade(&find().expect("it is loaded"));
    bench.bin.set_property("passthrough", true);
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(bench.transcriber.current_state(), gst::State::Null);
    let before = bench.text();
    bench.bin.set_property("passthrough", false);
    bench.wait(PATIENCE, |bench| bench.text().len() > before.len() + 20);
    let before = bench.text();
    bench.bin.set_property("language-code", "en-GB");
    bench.wait(PATIENCE, |bench| bench.text().len() > before.len() + 20);
    bench.finish(PATIENCE);
    assert!(!bench.passes_through());
    assert!(loaded.upgrade().zip(find()).is_some_and(|(first, last)| Arc::ptr_eq(&first, &last)));
}
