// SPDX-License-Identifier: MPL-2.0
//! Silence: no words, time and memory kept, speech after it heard; with the gate at next to no cost.

mod common;

use common::*;
use parakeet_engine::{BackendChoice, Engine, EngineOptions, Event, StreamOptions, Word};
use std::path::Path;
use std::sync::Arc;
use std::thread;

#[test]
fn ten_minutes_of_silence_say_nothing_and_speech_after_them_is_heard() {
    let engine = engine();
    let stream = engine.stream(&StreamOptions::default()).expect("a stream");
    let second = vec![0.0; 16_000];
    for _ in 0..600 {
        stream.push(&second).expect("the stream takes audio");
    }
    let words = transcribe(&stream, &speech(), 16_000);
    assert!(words.len() > 5, "speech after silence has words: {words:?}");
    assert!(words.iter().all(|word| word.start >= 600 * 16_000), "silence has none: {words:?}");
}

#[test]
fn ten_hours_of_silence_keep_time_and_memory() {
    const SECONDS: u64 = 36_000;
    // Small enough to hear ten hours in a test; its weights are random, so silence has words.
    let checkpoint = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/oracle/causal/model.nemo");
    let dir = tempfile::tempdir().expect("a temporary directory");
    let dir = dir.path().join("model");
    parakeet_engine::convert::convert(&checkpoint, &dir, &Default::default(), &mut |_, _| {})
        .expect("it converts");
    // A long duration for every token keeps the words few.
    let config = std::fs::read_to_string(dir.join("config.json")).expect("it was written");
    let mut config: serde_json::Value = serde_json::from_str(&config).expect("it is sound");
    config["decoder"]["kind"]["tdt"]["durations"] = serde_json::json!([4, 4, 4, 4, 4]);
    std::fs::write(dir.join("config.json"), config.to_string()).expect("the directory is ours");
    let options = EngineOptions { backend: BackendChoice::Cpu, threads: 1, ..Default::default() };
    let engine = Engine::open(&dir, &options).expect("it loads");
    let stream = Arc::new(engine.stream(&StreamOptions::default()).expect("a stream"));
    let writer = {
        let stream = stream.clone();
        thread::spawn(move || {
            let minute = vec![0.0; 60 * 16_000];
            for _ in 0..SECONDS / 60 {
                stream.push(&minute).expect("the stream takes audio");
            }
            stream.finish();
        })
    };
    let (mut horizon, mut before) = (0, None);
    loop {
        match stream.next().expect("the stream goes on") {
            Event::Progress { sample } => {
                assert!(sample >= horizon);
                horizon = sample;
                if horizon > 600 * 16_000 {
                    before.get_or_insert_with(resident_bytes);
                }
            }
            Event::Word(word) => assert!(word.start <= word.end && word.end <= SECONDS * 16_000),
            Event::Finished { sample } => {
                assert_eq!(sample, SECONDS * 16_000);
                break;
            }
            event => panic!("{event:?}"),
        }
    }
    writer.join().expect("no panic");
    let (before, after) = (before.expect("ten minutes went by"), resident_bytes());
    println!("resident after ten minutes {before}, after ten hours {after} bytes");
    // Other tests run in this process meanwhile; an hour of PCM alone would be 230 MB.
    assert!(after < before + 100_000_000, "memory grew from {before} to {after} bytes");
}

fn resident_bytes() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("this is Linux");
    let pages: u64 = statm.split(' ').nth(1).and_then(|pages| pages.parse().ok()).expect("a number");
    pages * 4096
}

#[test]
fn speech_in_silence_is_heard_as_if_it_were_alone() {
    let engine = engine();
    let options = StreamOptions { skip_silence: true, ..Default::default() };
    let stream = engine.stream(&options).expect("a stream");
    let speech = speech();
    // A room at -60 dBFS, digital silence, the same sentence thrice.
    let mut room = room();
    let silences = [vec![0.0; 60 * 16_000], room(40), vec![0.0; 16_000 * 4]];
    let (mut pcm, mut starts) = (Vec::new(), Vec::new());
    for silence in &silences {
        pcm.extend_from_slice(silence);
        starts.push(pcm.len() as u64);
        pcm.extend_from_slice(&speech);
    }
    pcm.extend(room(20));
    for piece in pcm.chunks(1_000) {
        stream.push(piece).expect("the stream takes audio");
    }
    stream.finish();
    let (words, events) = utterance(&stream);
    assert!(
        matches!(events[..], [.., Event::Finished { sample }] if sample == pcm.len() as u64),
        "{events:?}"
    );
    // Each time the words are those of the stretch that begins 0.5 s or a little more before what the gate noticed.
    let plain = engine.stream(&StreamOptions::default()).expect("a stream");
    let mut rest = &words[..];
    for start in starts {
        let end = start as usize + speech.len() + 16_000;
        let stretches = (0..=9).map(|frames| (start as usize / 1_280 - frames) * 1_280);
        let same = |from: &usize| {
            let alone = transcribe(&plain, &pcm[*from..end.min(pcm.len())], 4_000);
            plain.reset();
            let same = |(word, twin): (&Word, &Word)| {
                word.text == twin.text && word.start == *from as u64 + twin.start
            };
            (rest.len() >= alone.len() && rest.iter().zip(&alone).all(same)).then_some(alone.len())
        };
        let found = stretches.filter_map(|from| same(&from)).next();
        let count = found.unwrap_or_else(|| panic!("speech at {start}: {}", text(rest)));
        assert!(count > 10);
        rest = &rest[count..];
    }
    assert!(rest.is_empty(), "{}", text(rest));
}

#[test]
fn hours_of_silence_are_skipped_and_time_goes_on() {
    let engine = engine();
    let options = StreamOptions { skip_silence: true, ..Default::default() };
    let stream = engine.stream(&options).expect("a stream");
    let second = vec![0.0; 16_000];
    for _ in 0..3 * 3_600 {
        stream.push(&second).expect("the stream takes audio");
    }
    let words = transcribe(&stream, &speech(), 16_000);
    assert!(text(&words).starts_with("Had he married a more amiable woman"), "{}", text(&words));
    assert!(words.iter().all(|word| word.start >= 3 * 3_600 * 16_000), "{words:?}");
}
