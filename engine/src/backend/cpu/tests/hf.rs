// SPDX-License-Identifier: MPL-2.0
//! The CPU backend against what Hugging Face transformers computes: its directories converted, then run (the fixtures
//! are of `tools/oracle/hf.py`).

use super::*;
use crate::backend::conformance::load_hf;
use crate::model::config::Normalize;

#[test]
fn features_equal_transformers() {
    let pcm = audio();
    for name in ["tdt", "rnnt", "nemotron", "nemotron35"] {
        let fixture = load_hf(name);
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
        assert_close(&format!("{name} features"), &frames[..expected.len()], &expected, TOLERANCE);
    }
}

#[test]
fn a_language_prompt_equals_transformers() {
    conformance().a_language_prompt_equals_transformers();
}

#[test]
fn offline_and_streamed_equal_transformers() {
    conformance().offline_and_streamed_equal_transformers();
}
