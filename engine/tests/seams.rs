// SPDX-License-Identifier: MPL-2.0
//! The seams between windows with little right context: nothing is said twice there.

mod common;

use std::path::Path;
use std::sync::Arc;

use common::*;
use parakeet_engine::{Engine, StreamOptions, Window};

/// Numbers without a pattern, the same in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % end
    }
}

/// Bare words.
fn bare(text: &str) -> Vec<String> {
    let bare = |word: &str| word.trim_matches(|c: char| !c.is_alphanumeric()).to_lowercase();
    text.split(' ').map(bare).filter(|word| !word.is_empty()).collect()
}

/// Words of `heard` that are said twice running and aren't in `whole`.
fn doubled(heard: &[String], whole: &[String]) -> Vec<String> {
    let twice = |words: &[String]| -> Vec<String> {
        words.windows(2).filter(|pair| pair[0] == pair[1]).map(|pair| pair[0].clone()).collect()
    };
    let known = twice(whole);
    twice(heard).into_iter().filter(|word| !known.contains(word)).collect()
}

/// Hears the sentences in `count` random windows with little right context; what was said twice.
fn search(engine: &Arc<Engine>, count: usize) -> Vec<String> {
    let mut random = Random(7);
    let files: Vec<(String, Vec<f32>)> =
        expected().files.keys().map(|name| (name.clone(), wav(&Path::new(SPEECH).join(name)))).collect();
    let whole: Vec<Vec<String>> = files
        .iter()
        .map(|(_, pcm)| {
            let options = StreamOptions { offline: true, ..Default::default() };
            bare(&text(&transcribe(&engine.stream(&options).expect("a stream"), pcm, pcm.len())))
        })
        .collect();
    let mut found = Vec::new();
    for _ in 0..count {
        let (left, chunk, right) = (8 + random.below(72), 1 + random.below(15), random.below(3));
        let window = Window { left, chunk, right };
        let file = random.below(files.len());
        let options = StreamOptions { window: Some(window), ..Default::default() };
        let (name, pcm) = &files[file];
        let heard = text(&transcribe(&engine.stream(&options).expect("a stream"), pcm, 8_000));
        let twice = doubled(&bare(&heard), &whole[file]);
        if !twice.is_empty() {
            found.push(format!("{name}, {window:?}: {twice:?} in {heard}"));
        }
    }
    found
}

#[test]
#[ignore = "takes minutes: cargo test --release -p parakeet-engine --test seams -- --ignored"]
fn nothing_is_said_twice_in_five_hundred_windows() {
    let found = search(&engine(), 500);
    assert!(found.is_empty(), "{} of 500:\n{}", found.len(), found.join("\n"));
}

#[test]
fn nothing_is_said_twice_over_a_seam() {
    let engine = engine();
    let found = search(&engine, 25);
    assert!(found.is_empty(), "{} of 25:\n{}", found.len(), found.join("\n"));
}
