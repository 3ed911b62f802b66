// SPDX-License-Identifier: MPL-2.0
//! Captions of real speech out of transcriberbin, and what becomes of them when things change or fail.

use std::time::{Duration, Instant};

use gst::prelude::*;
use transcriberbin_test::{Bench, words};

/// Longer than any of these pipelines takes on a slow machine.
const PATIENCE: Duration = Duration::from_secs(90);

#[test]
fn captions_say_the_words() {
    let bench = Bench::new("", 1);
    bench.play();
    bench.finish(PATIENCE);
    assert!(!bench.passes_through());
    let words = words();
    assert!(words.split(' ').count() > 10, "{words}");
    assert_eq!(bench.text(), words);
}

#[test]
fn captions_go_on_after_passthrough_and_another_language() {
    let bench = Bench::new("", 3);
    bench.play();
    let until = Instant::now() + PATIENCE;
    let wait = |what: &dyn Fn() -> bool| {
        while !what() {
            assert!(Instant::now() < until, "so far: {}", bench.text());
            std::thread::sleep(Duration::from_millis(50));
        }
    };
    wait(&|| bench.text().split(' ').count() > 4);
    bench.bin.set_property("passthrough", true);
    std::thread::sleep(Duration::from_secs(1));
    let before = bench.text();
    bench.bin.set_property("passthrough", false);
    wait(&|| bench.text().len() > before.len() + 20);
    let before = bench.text();
    bench.bin.set_property("language-code", "en-GB");
    wait(&|| bench.text().len() > before.len() + 20);
    bench.finish(PATIENCE);
    assert!(!bench.passes_through());
}
