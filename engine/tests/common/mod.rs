// SPDX-License-Identifier: MPL-2.0
//! The embedded model, real speech, and what NeMo hears in it.

#![allow(dead_code, reason = "each test program uses its part")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parakeet_engine::{BackendChoice, Engine, EngineOptions, Event, Stream, StreamOptions, Token, Word};
use serde::Deserialize;

pub const SPEECH: &str = "/usr/share/pocketsphinx/test/data/librivox";
#[derive(Deserialize)]
pub struct Expected {
    pub files: BTreeMap<String, File>,
}

#[derive(Deserialize)]
pub struct File {
    pub contexts: BTreeMap<String, Transcript>,
}

#[derive(Deserialize)]
pub struct Transcript {
    pub text: String,
    pub tokens: Vec<u32>,
    pub start: Vec<u64>,
    pub duration: Vec<u32>,
}

pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The embedded model on the CPU, whose tokens are NeMo's to the last.
pub fn engine() -> Arc<Engine> {
    let options = EngineOptions { backend: BackendChoice::Cpu, threads: 2, ..Default::default() };
    Engine::open(&root().join("models/parakeet-tdt-mini"), &options).expect("the embedded model loads")
}

/// Options for what NeMo hears: nothing behind the audio.
pub fn as_nemo() -> StreamOptions {
    StreamOptions { tail_samples: 0, ..Default::default() }
}

pub fn expected() -> Expected {
    let file = std::fs::read(root().join("tests/data/expected.json")).expect("it is in the tree");
    serde_json::from_slice(&file).expect("it is sound")
}

pub fn wav(path: &Path) -> Vec<f32> {
    let mut reader = hound::WavReader::open(path)
        .unwrap_or_else(|e| panic!("{}: {e}; tools/setup installs it", path.display()));
    reader.samples::<i16>().map(|s| f32::from(s.expect("a whole file")) / 32_768.0).collect()
}

pub fn speech() -> Vec<f32> {
    wav(&root().join("tests/data/speech.wav"))
}

pub fn look_ahead(context: &str) -> u32 {
    context.split_once(',').and_then(|(_, right)| right.parse().ok()).expect("left,right")
}

/// Everything up to and with the next `Finished`.
pub fn utterance(stream: &Stream) -> (Vec<Word>, Vec<Event>) {
    let (mut words, mut others) = (Vec::new(), Vec::new());
    loop {
        match stream.next().expect("the stream goes on") {
            Event::Word(word) => words.push(word),
            Event::Failed { error, .. } => panic!("{error}"),
            event => {
                let last = matches!(event, Event::Finished { .. });
                others.push(event);
                if last {
                    return (words, others);
                }
            }
        }
    }
}

pub fn text(words: &[Word]) -> String {
    words.iter().map(|word| word.text.as_str()).collect::<Vec<_>>().join(" ")
}

pub fn transcribe(stream: &Stream, pcm: &[f32], piece: usize) -> Vec<Word> {
    for piece in pcm.chunks(piece) {
        stream.push(piece).expect("the stream takes audio");
    }
    stream.finish();
    utterance(stream).0
}

pub fn assert_same(what: &str, words: &[Word], expected: &Transcript) -> usize {
    let tokens: Vec<Token> = words.iter().flat_map(|word| &word.tokens).map(|timed| timed.token).collect();
    assert_eq!(tokens.iter().map(|t| t.id).collect::<Vec<_>>(), expected.tokens, "{what}");
    assert_eq!(tokens.iter().map(|t| t.frame).collect::<Vec<_>>(), expected.start, "{what}");
    assert_eq!(tokens.iter().filter_map(|t| t.duration).collect::<Vec<_>>(), expected.duration, "{what}");
    assert_eq!(text(words), expected.text, "{what}");
    assert!(words.windows(2).all(|pair| pair[0].end <= pair[1].start), "{what}: words overlap");
    assert!(words.iter().all(|word| word.confidence > 0.0 && word.confidence <= 1.0), "{what}");
    tokens.len()
}

/// Seconds of a room at -60 dBFS, one after another.
pub fn room() -> impl FnMut(usize) -> Vec<f32> {
    let mut state = 1_u32;
    let mut next = move |_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        ((state >> 8) as f32 / (1 << 23) as f32 - 1.0) * 1.7e-3
    };
    move |seconds| (0..seconds * 16_000).map(&mut next).collect()
}
