// SPDX-License-Identifier: MPL-2.0
//! Real speech while devices fail: what is heard after a stream has gone on elsewhere, against what is heard undisturbed.

mod common;

use std::sync::Arc;

use common::*;
use parakeet_engine::backend::{self, Backend, Decoded, Limits, Mode, Slot, Step};
use parakeet_engine::model::Model;
use parakeet_engine::{
    BackendChoice, Boosts, Engine, EngineOptions, Error, Event, Fault, Result, StreamOptions, Window, Word,
};

/// The CPU until it fails for good.
struct Fragile {
    cpu: Box<dyn Backend>,
    /// Steps that are left.
    left: usize,
}

impl Backend for Fragile {
    fn name(&self) -> &'static str {
        "fragile"
    }

    fn device(&self) -> String {
        self.cpu.device()
    }

    fn limits(&self) -> Limits {
        self.cpu.limits()
    }

    fn open(&mut self, mode: Mode, language: usize) -> Result<Slot> {
        self.cpu.open(mode, language)
    }

    fn boost(&mut self, slot: Slot, boosts: &Arc<Boosts>) -> Result<()> {
        self.cpu.boost(slot, boosts)
    }

    fn close(&mut self, slot: Slot) {
        self.cpu.close(slot);
    }

    fn reset(&mut self, slot: Slot) {
        self.cpu.reset(slot);
    }

    fn step(&mut self, steps: &[Step<'_>]) -> Vec<Result<Decoded>> {
        let results = self.cpu.step(steps);
        if self.left == 0 {
            let lost = || Error::Backend {
                backend: "fragile",
                device: None,
                kind: Fault::DeviceLost,
                reason: "it fell off the bus".into(),
            };
            return results.iter().map(|_| Err(lost())).collect();
        }
        self.left -= 1;
        results
    }

    fn slot_bytes(&self, mode: Mode) -> usize {
        self.cpu.slot_bytes(mode)
    }
}

/// The words of the speech with these options, on devices of which the first survives so many steps.
fn heard(model: &Arc<Model>, options: &StreamOptions, steps: usize) -> (Vec<Word>, usize) {
    let cpu = || {
        let options = EngineOptions { backend: BackendChoice::Cpu, threads: 2, ..Default::default() };
        backend::open(model, &options).expect("there is a processor").backends.remove(0)
    };
    let backends: Vec<Box<dyn Backend>> = vec![Box::new(Fragile { cpu: cpu(), left: steps }), cpu()];
    let engine = Engine::with_backends(model.clone(), backends).expect("the lanes start");
    let stream = engine.stream(options).expect("a stream");
    let pcm = speech();
    for piece in pcm.chunks(4_000) {
        stream.push(piece).expect("the stream takes audio");
    }
    stream.finish();
    let (words, events) = utterance(&stream);
    let moved = events.iter().filter(|event| matches!(event, Event::Recovered { .. })).count();
    assert!(matches!(events.last(), Some(Event::Finished { sample }) if *sample == pcm.len() as u64));
    assert!(words.windows(2).all(|pair| pair[0].start <= pair[1].start), "words are in order");
    (words, moved)
}

/// How many words have to be taken away from both, put in or changed.
fn errors(heard: &[Word], expected: &[Word]) -> usize {
    let mut row: Vec<usize> = (0..=expected.len()).collect();
    for (index, word) in heard.iter().enumerate() {
        let mut corner = std::mem::replace(&mut row[0], index + 1);
        for (column, other) in expected.iter().enumerate() {
            let cost = corner + usize::from(word.text != other.text);
            corner = row[column + 1];
            row[column + 1] = cost.min(corner + 1).min(row[column] + 1);
        }
    }
    row[expected.len()]
}

#[test]
fn speech_goes_on_on_another_device_with_the_same_words() {
    let model = Arc::new(Model::load(&root().join("models/parakeet-tdt-mini")).expect("it loads"));
    let cached = |look_ahead| StreamOptions { look_ahead: Some(look_ahead), ..Default::default() };
    let window = StreamOptions {
        window: Some(Window::from_seconds(5.6, 1.12, 0.56).expect("a window")),
        ..Default::default()
    };
    let (mut words, mut wrong, mut moved) = (0, 0, 0);
    for (options, steps) in [
        (cached(0), vec![5, 23, 37, 51, 66]),
        (cached(6), vec![1, 3, 5, 7, 9]),
        (cached(13), vec![0, 1, 2, 3, 4]),
        (window, vec![0, 1, 2, 3, 4]),
    ] {
        let (undisturbed, none) = heard(&model, &options, usize::MAX);
        assert_eq!(none, 0);
        for steps in steps {
            let (disturbed, recovered) = heard(&model, &options, steps);
            assert_eq!(recovered, 1, "the device was lost in step {steps} of {options:?}");
            words += undisturbed.len();
            wrong += errors(&disturbed, &undisturbed);
            moved += recovered;
        }
    }
    println!("{moved} times moved: {wrong} of {words} words are others");
    assert!(words > 300 && wrong * 100 <= words, "{wrong} of {words} words are others");
}

#[test]
fn a_stream_keeps_its_phrases_on_another_device() {
    let model = Arc::new(Model::load(&root().join("models/parakeet-tdt-mini")).expect("it loads"));
    // Other words than those that are said.
    let boosts = Arc::new(Boosts::new(&model.vocabulary, [("a moral", 10.0)]).expect("the model writes it"));
    let options = StreamOptions { look_ahead: Some(6), vocabulary: Some(boosts), ..Default::default() };
    let moral = |words: &[Word]| words.iter().filter(|word| word.text.starts_with("moral")).count();
    let (undisturbed, _) = heard(&model, &options, usize::MAX);
    assert_eq!(moral(&undisturbed), 1, "{}", text(&undisturbed));
    for steps in [0, 1, 2, 3, 5] {
        let (disturbed, recovered) = heard(&model, &options, steps);
        assert_eq!((moral(&disturbed), recovered), (1, 1), "step {steps}: {}", text(&disturbed));
    }
}
