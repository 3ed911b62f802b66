// SPDX-License-Identifier: MPL-2.0
//! Phrases that a stream rather hears, on real speech and on silence.

mod common;

use std::path::Path;
use std::sync::Arc;

use common::*;
use parakeet_engine::backend::{Backend, Decoded, Limits, Mode, Slot, Step};
use parakeet_engine::model::Model;
use parakeet_engine::{Boosts, Engine, Result, StreamOptions};

/// Options with these phrases, each boosted so much.
fn rather(engine: &Engine, phrases: &[&str], boost: f32) -> StreamOptions {
    let phrases = phrases.iter().map(|phrase| (*phrase, boost));
    let boosts = Boosts::new(engine.vocabulary(), phrases).expect("the model writes them");
    StreamOptions { vocabulary: Some(Arc::new(boosts)), ..Default::default() }
}

fn heard(engine: &Arc<Engine>, options: &StreamOptions, pcm: &[f32]) -> String {
    text(&transcribe(&engine.stream(options).expect("a stream"), pcm, 4_000))
}

#[test]
fn a_rare_word_is_heard_and_the_others_stay() {
    let engine = engine();
    let file = |number: u32| {
        let name = format!("sense_and_sensibility_01_austen_64kb-{number:04}.wav");
        wav(&Path::new(SPEECH).join(name))
    };
    for (number, phrases, wrong, right) in [
        (930, &["amiable"][..], "Amy bull", "Amiable"),
        (880, &["ill-disposed"][..], "ill sposed", "ill-posed"),
    ] {
        let pcm = file(number);
        let plain = heard(&engine, &StreamOptions::default(), &pcm);
        assert!(plain.contains(wrong), "{plain}");
        let boosted = heard(&engine, &rather(&engine, phrases, Boosts::DEFAULT), &pcm);
        assert_eq!(boosted, plain.replace(wrong, right));
    }
}

#[test]
fn silence_says_no_phrase_and_none_is_said_twice() {
    let engine = engine();
    let phrases = ["amiable", "respectable", "woman", "Mary", "yes", "thank you"];
    let speech = speech();
    let mut room = room();
    let quiet = [vec![0.0; 60 * 16_000], room(60)].concat();
    for boost in [Boosts::DEFAULT, 10.0] {
        let options = rather(&engine, &phrases, boost);
        assert_eq!(heard(&engine, &options, &quiet), "", "boost {boost}");
        let alone = heard(&engine, &options, &speech);
        let mut behind = speech.clone();
        behind.extend_from_slice(&quiet);
        assert_eq!(heard(&engine, &options, &behind), alone, "boost {boost}");
        // As many tokens as the model says by itself, give or take: a piece for a piece.
        let plain = heard(&engine, &StreamOptions::default(), &speech);
        let words = |text: &str| text.split_whitespace().count();
        assert!(words(&alone) <= 2 * words(&plain), "{alone}");
        println!("{boost}: {alone}");
    }
}

/// A device that doesn't implement phrases.
#[derive(Default)]
struct Plain {
    open: usize,
}

impl Backend for Plain {
    fn name(&self) -> &'static str {
        "plain"
    }

    fn device(&self) -> String {
        format!("{} streams", self.open)
    }

    fn limits(&self) -> Limits {
        Limits { streams: 64, ..Limits::default() }
    }

    fn open(&mut self, _: Mode, _: usize) -> Result<Slot> {
        self.open += 1;
        assert_eq!(self.open, 1, "a slot that can't have the phrases is given back");
        Ok(Slot(0))
    }

    fn close(&mut self, _: Slot) {
        self.open -= 1;
    }

    fn reset(&mut self, _: Slot) {}

    fn step(&mut self, steps: &[Step<'_>]) -> Vec<Result<Decoded>> {
        steps.iter().map(|_| Ok(Decoded::default())).collect()
    }

    fn slot_bytes(&self, _: Mode) -> usize {
        0
    }
}

#[test]
fn what_has_no_phrases_or_others_says_so() {
    let model = Arc::new(Model::load(&root().join("models/parakeet-tdt-mini")).expect("it loads"));
    let engine = Engine::with_backends(model, vec![Box::<Plain>::default()]).expect("the lane starts");
    let options = rather(&engine, &["amiable"], 1.0);
    for _ in 0..2 {
        let refused = engine.stream(&options).err().expect("it is refused").to_string();
        assert_eq!(refused, "vocabulary: the backend plain knows no vocabulary");
    }
    engine.stream(&StreamOptions::default()).expect("a stream without");
    let other = root().join("engine/tests/data/oracle/causal/model.nemo");
    let dir = tempfile::tempdir().expect("a temporary directory");
    let dir = dir.path().join("model");
    parakeet_engine::convert::convert(&other, &dir, &Default::default(), &mut |_, _| {})
        .expect("it converts");
    let options =
        parakeet_engine::EngineOptions { backend: parakeet_engine::BackendChoice::Cpu, ..Default::default() };
    let other = Engine::open(&dir, &options).expect("it loads");
    let options = rather(&engine, &["amiable"], 1.0);
    let refused = other.stream(&options).err().expect("it is refused").to_string();
    assert_eq!(refused, "vocabulary: it was made for a model with other pieces");
}
