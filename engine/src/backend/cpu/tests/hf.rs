// SPDX-License-Identifier: MPL-2.0
//! The CPU backend against what Hugging Face transformers computes: its directories converted, then run (the fixtures
//! are of `tools/oracle/hf.py`).

use super::*;
use crate::model::config::Normalize;

fn load(name: &str) -> Fixture {
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/hf").join(name);
    let dir = tempfile::tempdir().expect("a temporary directory");
    let out = dir.path().join(name);
    let options = ConvertOptions { dtype: WeightType::F32, ..Default::default() };
    let config = convert(&from, &out, &options, &mut |_, _| {}).expect("the directory converts");
    assert_eq!(config.name, name);
    let golden = std::fs::read(from.join("golden.json")).expect("the fixture is in the tree");
    Fixture {
        model: Arc::new(Model::load(&out).expect("what was converted loads")),
        golden: serde_json::from_slice(&golden).expect("the fixture is sound"),
        tensors: std::fs::read(from.join("golden.safetensors")).expect("the fixture is in the tree"),
        _dir: dir,
    }
}

#[test]
fn features_equal_transformers() {
    let pcm = audio();
    for name in ["tdt", "rnnt", "nemotron", "nemotron35"] {
        let fixture = load(name);
        let config = &fixture.model.config.features;
        let mel = LogMel::new(config);
        let (mut state, mut frames) = (LogMelState::default(), Vec::new());
        mel.push(&mut state, &pcm, &mut frames);
        mel.finish(&mut state, &mut frames);
        if config.normalize == Normalize::PerFeature {
            normalize_per_feature(&mut frames, mel.bins());
        }
        // The fixture holds only the first frames, normalised over all.
        let expected = fixture.tensor("features");
        assert_close(&format!("{name} features"), &frames[..expected.len()], &expected);
    }
}

#[test]
fn a_language_prompt_equals_transformers() {
    let pcm = audio();
    let fixture = load("nemotron35");
    let prompt = fixture.model.config.prompt.clone().expect("the model has a prompt");
    assert_eq!(prompt.place(None).ok(), Some(5), "auto");
    let (mut compared, mut heard) = (0, std::collections::HashSet::new());
    for (name, expected) in &fixture.golden.contexts {
        let (pair, language) = name.split_once(' ').expect("a context and a language");
        let place = prompt.place(Some(language)).expect("the model has it");
        let context = fixture.context(pair);
        for mode in [Mode::Offline { context }, Mode::Cached { context }] {
            let (encoded, decoded) = fixture.run_in(place, mode, &pcm);
            let what = format!("nemotron35 {name} {mode:?}");
            assert_close(&what, &encoded, &fixture.encoded(pair));
            assert_tokens(&what, &tokens(&decoded), &expected.tokens, &expected.frames, None);
            compared += expected.tokens.len();
        }
        heard.insert(expected.tokens.clone());
    }
    println!("{compared} tokens compared");
    assert!(compared > 500);
    assert_eq!(heard.len(), fixture.golden.contexts.len(), "every language and context gives other tokens");
}

#[test]
fn offline_and_streamed_equal_transformers() {
    let pcm = audio();
    let mut compared = 0;
    for (name, contexts) in [("tdt", 1), ("rnnt", 1), ("nemotron", 4)] {
        let fixture = load(name);
        assert_eq!(fixture.model.config.encoder.contexts.len(), contexts, "{name}");
        assert_eq!(fixture.golden.contexts.len(), contexts, "{name}");
        for (pair, expected) in &fixture.golden.contexts {
            let context = fixture.context(pair);
            let mut modes = vec![Mode::Offline { context }];
            if name == "nemotron" {
                modes.push(Mode::Cached { context });
            }
            for mode in modes {
                let (encoded, decoded) = fixture.run(mode, &pcm);
                let what = format!("{name} {mode:?}");
                assert_close(&what, &encoded, &fixture.encoded(pair));
                let Transcript { tokens: ids, frames, durations, .. } = expected;
                assert_tokens(&what, &tokens(&decoded), ids, frames, durations.as_deref());
                compared += ids.len();
            }
        }
    }
    println!("{compared} tokens compared");
    assert!(compared > 500);
}
