// SPDX-License-Identifier: MPL-2.0
//! The automaton against a search over all phrases, and what becomes of phrases as they are written.

use std::path::Path;

use proptest::prelude::*;

use super::*;

/// In the search over all phrases.
const MOST_ADDED: f32 = 6.0;

/// What taking `piece` after `said` adds, looked for in every phrase, and whether one goes on with it.
fn added(vocabulary: &Vocabulary, ways: &[Way], said: &[u32], piece: u32) -> (f32, bool) {
    let text: Vec<u32> = said.iter().copied().chain([piece]).collect();
    let (mut most, mut goes_on) = (0.0_f32, false);
    for way in ways {
        for count in (1..=way.pieces.len()).filter(|&count| text.ends_with(&way.pieces[..count])) {
            goes_on |= count > 1;
            // Behind the last phrase that is over within it before another word.
            let over = |at: &usize| {
                vocabulary.starts_word(way.pieces[*at])
                    && ways.iter().any(|other| other.pieces == way.pieces[..*at])
            };
            let start = (1..count).rev().find(over).unwrap_or(0);
            let whole = ways.iter().any(|other| other.pieces == way.pieces[..count]);
            most = most.max((way.boost * weight(count - start, whole)).min(MOST_ADDED));
        }
    }
    (most, goes_on)
}

proptest! {
    /// Pieces 0 to 5 of which two begin words; many short phrases, so that they overlap in every way.
    #[test]
    fn a_choice_is_that_of_a_search_over_all_phrases(
        phrases in prop::collection::vec((prop::collection::vec(0_u32..6, 1..6), 0.0_f32..3.0), 0..12),
        steps in prop::collection::vec(prop::collection::vec(-2.0_f32..2.0, 7), 1..40),
    ) {
        let vocabulary = Vocabulary::of(&["\u{2581}a", "b", "c", "\u{2581}d", "e", "f"]);
        let ways = || phrases.iter().map(|(pieces, boost)| Way { pieces: pieces.clone(), boost: *boost });
        let ways: Vec<Way> = ways().collect();
        let boosts = Boosts::compile(&vocabulary, &ways, ways.len(), MOST_ADDED).expect("it is small");
        let (mut state, mut said) = (0, Vec::new());
        for logits in steps {
            if logits[..6].iter().all(|logit| *logit <= logits[6]) {
                // Blank.
                continue;
            }
            let (piece, next) = boosts.choose(state, &logits);
            let sum = |piece: usize| match added(&vocabulary, &ways, &said, piece as u32) {
                (_, false) if logits[piece] < logits[6] => f32::NEG_INFINITY,
                (added, _) => logits[piece] + added,
            };
            let sums: Vec<f32> = (0..6).map(sum).collect();
            let most = sums.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let first = sums.iter().position(|sum| *sum == most).expect("there is one");
            prop_assert_eq!(piece, first, "after {:?}: {:?}", said, sums);
            said.push(piece as u32);
            state = next;
        }
    }
}

#[test]
fn no_state_adds_less_than_the_root() {
    let vocabulary = Vocabulary::of(&["\u{2581}a", "b", "\u{2581}c"]);
    let phrases: [(&[u32], f32); 3] = [(&[0, 1, 2], 0.1), (&[1], 5.0), (&[2, 0], 3.0)];
    let Tables { root, first, arcs } = Boosts::of_pieces(&vocabulary, &phrases).expect("it is small").tables;
    assert_eq!((first.len(), *first.last().expect("an end") as usize), (8, arcs.len()));
    assert!(arcs.iter().all(|arc| arc.boost >= root[arc.piece as usize].0), "{arcs:?} {root:?}");
}

#[test]
fn phrases_are_spelled_as_the_tokenizer_spells_them() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let model = crate::model::Model::load(&dir.join("models/parakeet-tdt-mini")).expect("it is in the tree");
    let spelling = Spelling::new(&model.vocabulary);
    // Words that NeMo decoded, each in the pieces that the model was trained to say.
    let expected = std::fs::read(dir.join("tests/data/expected.json")).expect("it is in the tree");
    let expected: serde_json::Value = serde_json::from_slice(&expected).expect("it is sound");
    let mut words: Vec<Vec<u32>> = Vec::new();
    for file in expected["files"].as_object().expect("files").values() {
        for context in file["contexts"].as_object().expect("contexts").values() {
            for id in context["tokens"].as_array().expect("tokens") {
                let id = id.as_u64().expect("a number") as u32;
                match words.last_mut().filter(|_| !model.vocabulary.starts_word(id)) {
                    Some(word) => word.push(id),
                    None => words.push(vec![id]),
                }
            }
        }
    }
    assert!(words.len() > 250);
    for word in words {
        let text = model.vocabulary.decode(&word);
        assert!(spelling.ways(&text).contains(&word), "{text}");
    }
}

#[test]
fn a_phrase_has_the_ways_of_its_script_and_case() {
    let text = |vocabulary: &Vocabulary, phrase: &str| -> Vec<String> {
        let ways = Spelling::new(vocabulary).ways(phrase);
        let pieces = |way: &Vec<u32>| way.iter().map(|&id| vocabulary.piece(id).expect("a piece")).collect();
        let mut texts: Vec<Vec<&str>> = ways.iter().map(pieces).collect();
        texts.sort();
        texts.iter().map(|pieces| pieces.join("|")).collect()
    };
    let letters = ["\u{2581}", "a", "b", "A", "\u{2581}a", "ab", "\u{2581}ab", "<0xC3>", "<0xA9>", "<unk>"];
    let both = Vocabulary::of(&letters);
    assert_eq!(text(&both, " ab  a "), ["\u{2581}|A|b|\u{2581}a", "\u{2581}ab|\u{2581}a"]);
    assert_eq!(text(&both, "Ab"), ["\u{2581}|A|b"]);
    assert_eq!(text(&both, "é"), ["\u{2581}|<0xC3>|<0xA9>"]);
    assert!(text(&both, "abc").is_empty() && text(&both, "\u{2047}").is_empty());
    let lower = Vocabulary::of(&["\u{2581}", "a", "b"]);
    assert_eq!(text(&lower, "AB"), ["\u{2581}|a|b"]);
    let upper = Vocabulary::of(&["\u{2581}", "A", "B"]);
    assert_eq!(text(&upper, "ab"), ["\u{2581}|A|B"]);
    let han = Vocabulary::of(&["\u{2581}", "東", "京", "東京"]);
    assert_eq!(text(&han, "東京"), ["\u{2581}|東京", "東京"]);
    // Not what merging pairs makes: its pieces in the fewest parts too.
    let unigram = Vocabulary::of(&["\u{2581}abcd", "bc", "\u{2581}", "a", "b", "c", "d", "\u{2581}ab", "cd"]);
    assert_eq!(text(&unigram, "abcd"), ["\u{2581}|a|bc|d", "\u{2581}abcd"]);
}

#[test]
fn what_is_no_phrase_is_named() {
    let vocabulary = Vocabulary::of(&["\u{2581}", "a", "b", "\u{2581}a"]);
    let error = |text: &str| match Boosts::parse(&vocabulary, text, 1.0) {
        Ok(boosts) => format!("{} phrases", boosts.len()),
        Err(error) => error.to_string(),
    };
    for (text, expected) in [
        ("# names\n\na\n  b\t2.5 \r\na b\t0\n", "3 phrases"),
        ("\u{feff}a", "1 phrases"),
        ("", "vocabulary: there is no phrase in it"),
        ("# a\n", "vocabulary: there is no phrase in it"),
        ("a\nb\tmuch\n", "vocabulary: line 2: expected a phrase, a tab and a number, found \"b\\tmuch\""),
        ("a\t-1", "vocabulary: the boost of \"a\" is -1, expected 0 to 10"),
        ("a\tinf", "vocabulary: the boost of \"a\" is inf, expected 0 to 10"),
        ("a\tNaN", "vocabulary: the boost of \"a\" is NaN, expected 0 to 10"),
        ("a\t1e9", "vocabulary: the boost of \"a\" is 1000000000, expected 0 to 10"),
        ("b\nabc", "vocabulary: \"abc\" can't be written with the model's pieces"),
        ("\t\t1", "vocabulary: \"\" is no phrase"),
    ] {
        assert_eq!(error(text), expected, "{text:?}");
    }
    let long = "a".repeat(257);
    assert!(error(&long).ends_with("\" has 257 bytes, 256 are the most"));
    assert_eq!(error(&"a\n".repeat(10_001)), "vocabulary: there are more than 10000 phrases");
    let boosts = Boosts::parse(&vocabulary, "a", 1.0).expect("it is a phrase");
    assert_eq!(
        boosts.check(&self::Vocabulary::of(&["\u{2581}", "a"])).unwrap_err().to_string(),
        "vocabulary: it was made for a model with other pieces"
    );
    boosts.check(&vocabulary).expect("it was made for this one");
    assert_eq!(boosts, Boosts::parse(&vocabulary, "a\t1", 5.0).expect("it is a phrase"));
    assert_ne!(boosts, Boosts::parse(&vocabulary, "a\t2", 5.0).expect("it is a phrase"));
}

#[test]
fn too_many_arcs_are_refused() {
    let ways: Vec<Way> = (0..64)
        .map(|bits| Way { pieces: (0..6).map(|bit| 1 + (bits >> bit & 1)).collect(), boost: 1.0 })
        .collect();
    let compiled = |arcs| tree::compile(&ways, 3, |_| false, tree::Most { arcs, added: 1.0 });
    assert!(compiled(100).is_none());
    assert!(compiled(300).is_some());
}
