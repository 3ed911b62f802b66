// SPDX-License-Identifier: MPL-2.0
//! Times and confidences of tokens and words against what NeMo says.

use super::*;
use crate::text::WordBuilder;

/// Largest difference of a confidence, which lies in 0 to 1.
const TOLERANCE: f32 = 1e-4;

#[derive(Deserialize)]
struct Golden {
    contexts: std::collections::BTreeMap<String, Detailed>,
}

#[derive(Deserialize)]
struct Detailed {
    words: Vec<NemoWord>,
    chars: Vec<NemoChar>,
    confidence: Confidence,
}

#[derive(Deserialize)]
struct NemoWord {
    word: String,
    start_offset: u64,
    end_offset: u64,
}

#[derive(Deserialize)]
struct NemoChar {
    char: String,
    start_offset: u64,
    end_offset: u64,
}

#[derive(Deserialize)]
struct Confidence {
    token: Vec<f32>,
    word: Vec<f32>,
}

/// The largest difference; fails if it is above the tolerance.
fn difference(what: &str, got: &[f32], expected: &[f32]) -> f32 {
    assert_eq!(got.len(), expected.len(), "{what}");
    let worst = got.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(worst <= TOLERANCE, "{what}: largest difference {worst}");
    worst
}

#[test]
fn times_and_confidences_equal_nemo() {
    let pcm = audio();
    let (mut worst, mut count, mut confident, mut marks) = (0_f32, [0, 0, 0], 0, 0);
    for name in ["causal", "fullatt", "rnnt"] {
        let fixture = Fixture::load(name);
        let vocabulary = &fixture.model.vocabulary;
        let golden =
            std::fs::read(data().join(name).join("golden.json")).expect("the fixture is in the tree");
        let golden: Golden = serde_json::from_slice(&golden).expect("the fixture is sound");
        for (context, expected) in &golden.contexts {
            let (_, decoded) = fixture.run(Mode::Offline { context: fixture.context(context) }, &pcm);
            let mut builder = WordBuilder::default();
            let mut words: Vec<_> =
                tokens(&decoded).into_iter().filter_map(|token| builder.push(vocabulary, token)).collect();
            words.extend(builder.finish(vocabulary));

            let what = format!("{name} {context}, tokens");
            let timed: Vec<_> = words.iter().flat_map(|word| &word.tokens).collect();
            assert_eq!(timed.len(), expected.chars.len(), "{what}");
            for (i, (got, nemo)) in timed.iter().zip(&expected.chars).enumerate() {
                assert_eq!(vocabulary.decode(&[got.token.id]), nemo.char, "{what}: {i}");
                assert_eq!((got.start, got.end), (nemo.start_offset, nemo.end_offset), "{what}: {i}");
                marks += usize::from((got.start, got.end) != (got.token.frame, got.token.end()));
            }
            let got: Vec<f32> = timed.iter().map(|timed| timed.token.confidence).collect();
            worst = worst.max(difference(&what, &got, &expected.confidence.token));
            confident += got.iter().filter(|&&c| c > 0.01).count();

            let what = format!("{name} {context}, words");
            assert_eq!(words.len(), expected.words.len(), "{what}");
            for (i, (got, nemo)) in words.iter().zip(&expected.words).enumerate() {
                assert_eq!((&got.text, got.start), (&nemo.word, nemo.start_offset), "{what}: {i}");
                // Where NeMo's word is empty ours is one frame long, and where NeMo's reaches into the next ours doesn't.
                let next = expected.words.get(i + 1).map_or(u64::MAX, |next| next.start_offset);
                let end = nemo.end_offset.max(nemo.start_offset + 1).min(next);
                assert_eq!(got.end, end, "{what}: {i}");
            }
            // NeMo's list has only the words that have a text.
            let got: Vec<f32> =
                words.iter().filter(|word| !word.text.is_empty()).map(|word| word.confidence).collect();
            worst = worst.max(difference(&what, &got, &expected.confidence.word));
            count = [count[0] + timed.len(), count[1] + words.len(), count[2] + got.len()];
        }
    }
    let [tokens, words, texts] = count;
    println!(
        "{tokens} tokens ({confident} above 0.01, {marks} refined), {words} words, {texts} with a confidence"
    );
    println!("largest difference of a confidence {worst:.2e}");
    assert!(tokens > 500 && words > 50 && texts > 40 && confident > 50 && marks > 3);
}
