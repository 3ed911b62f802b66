// SPDX-License-Identifier: MPL-2.0
//! Tests of words where no spaces are between them, and of any tokens whatever.

use proptest::prelude::*;

use super::words::{FrameWord, WordBuilder};
use crate::backend::Token;
use crate::model::Vocabulary;

fn token(id: u32, frame: u64, duration: u32) -> Token {
    Token {
        id,
        frame,
        duration: Some(duration),
        log_prob: -0.5,
        confidence: 1.0,
        margin: 1.0,
        duration_margin: 1.0,
    }
}

/// Runs tokens of these pieces, one every `step` frames, through a builder.
fn words(text: &str, step: u64) -> Vec<FrameWord> {
    let pieces: Vec<&str> = text.split('|').collect();
    let vocabulary = Vocabulary::of(&pieces);
    let mut builder = WordBuilder::default();
    let mut words: Vec<FrameWord> = (0..)
        .zip(&pieces)
        .filter_map(|(id, _)| builder.push(&vocabulary, token(id, u64::from(id) * step, 1)))
        .collect();
    words.extend(builder.finish(&vocabulary));
    words
}

/// Words with spaces where they are due.
fn joined<'a>(words: impl IntoIterator<Item = &'a FrameWord>) -> String {
    let mut text = String::new();
    for word in words.into_iter().filter(|word| !word.text.is_empty()) {
        if !text.is_empty() && !word.joined {
            text.push(' ');
        }
        text += &word.text;
    }
    text
}

fn texts(words: &[FrameWord]) -> Vec<&str> {
    words.iter().map(|word| word.text.as_str()).collect()
}

#[test]
fn words_of_scripts_without_spaces() {
    let cases: [(&str, &[&str], &str); 14] = [
        ("▁我|用|Py|thon|写", &["我", "用", "Python", "写"], "我用Python写"),
        ("▁i|Phone|▁を|使|う", &["iPhone", "を", "使", "う"], "iPhone を使う"),
        ("▁今日|は|、|「|は|い|」|。", &["今日", "は、", "「は", "い」。"], "今日は、「はい」。"),
        ("▁コ|ンピュ|ー|ター|の", &["コンピューター", "の"], "コンピューターの"),
        ("▁き|ょ|う|人|々", &["きょ", "う", "人々"], "きょう人々"),
        ("▁20|24|年|▁5|月", &["2024", "年", "5", "月"], "2024年 5月"),
        ("▁|我|们|▁|，|好", &["我", "们，", "好"], "我们，好"),
        ("▁ไป|เที่|ยว|กับ|Tom", &["ไปเที่ยวกับ", "Tom"], "ไปเที่ยวกับTom"),
        ("<0xE6>|<0x88>|<0x91>|<0xE4>|<0xBD>|<0xA0>|好", &["我", "你", "好"], "我你好"),
        ("我|<0xE4>|好|<0x41>", &["我\u{FFFD}", "好", "A"], "我\u{FFFD}好A"),
        ("我|<unk>|们", &["我 \u{2047}", "们"], "我 \u{2047} 们"),
        ("▁我|<pad>|们|</s>", &["我", "们"], "我们"),
        ("▁I|▁don|'|t|▁well|-|known", &["I", "don't", "well-known"], "I don't well-known"),
        ("▁한국|어|▁שלו|ם|▁हि|न्दी", &["한국어", "שלום", "हिन्दी"], "한국어 שלום हिन्दी"),
    ];
    for (pieces, expected, text) in cases {
        let words = words(pieces, 2);
        assert_eq!(texts(&words), expected, "{pieces}");
        assert_eq!(joined(&words), text, "{pieces}");
    }
}

#[test]
fn times_are_those_of_the_tokens() {
    let words = words("▁我|用|<0xE4>|<0xBD>|<0xA0>|。", 3);
    let times: Vec<_> = words.iter().map(|word| (word.start, word.end)).collect();
    assert_eq!(texts(&words), ["我", "用", "你。"]);
    assert_eq!(times, [(0, 1), (3, 4), (6, 13)], "a mark takes no time");
}

#[test]
fn a_word_comes_out_with_the_token_that_begins_the_next() {
    let pieces = ["▁我", "用", "<0xE4>", "<0xBD>", "<0xA0>"];
    let vocabulary = Vocabulary::of(&pieces);
    let mut builder = WordBuilder::default();
    let mut given = Vec::new();
    let mut partials = Vec::new();
    for id in 0..5 {
        given.push(builder.push(&vocabulary, token(id, u64::from(id), 1)).map(|word| word.text));
        partials.extend(builder.partial(&vocabulary).map(|word| word.text));
    }
    assert_eq!(given, [None, Some("我".into()), None, None, Some("用".into())]);
    assert_eq!(partials, ["我", "用", "用", "用", "你"], "of whole characters");
    assert_eq!(builder.horizon(9), 2);
}

#[test]
fn runs_without_words_are_cut_between_characters() {
    let thai = "ภา|ษา|ไ|ทย|ที่|เ|ขี|ยน|ติ|ด|กัน|".repeat(6);
    let thai = thai.trim_end_matches('|');
    let all = words(thai, 1);
    assert_eq!(joined(&all), thai.replace('|', ""));
    assert!(all.len() > 3 && all[1..].iter().all(|word| word.joined));
    for word in &all {
        assert!(word.tokens.len() <= 16 && !word.text.ends_with(['ไ', 'เ']), "{}", word.text);
    }
    let slow = words(thai, 5);
    assert!(slow.iter().all(|word| word.tokens.len() <= 5), "{:?}", texts(&slow));
    let kana = words(&["ア"; 40].join("|"), 1);
    assert_eq!(kana.iter().map(|word| word.tokens.len()).collect::<Vec<_>>(), [16, 16, 8]);
    let letters = words(&["a"; 600].join("|"), 1);
    assert_eq!(letters.iter().map(|word| word.tokens.len()).collect::<Vec<_>>(), [256, 256, 88]);
}

#[test]
fn a_pause_leaves_a_character_whole_until_it_is_hopeless() {
    let vocabulary = Vocabulary::of(&["▁我", "<0xE4>", "<0xBD>", "<0xA0>"]);
    let mut builder = WordBuilder::default();
    builder.push(&vocabulary, token(0, 0, 1));
    builder.push(&vocabulary, token(1, 1, 1));
    assert_eq!(builder.advance(&vocabulary, 12).map(|word| word.text), Some("我".into()));
    assert_eq!((builder.advance(&vocabulary, 40), builder.horizon(40)), (None, 1));
    builder.push(&vocabulary, token(2, 40, 1));
    builder.push(&vocabulary, token(3, 41, 1));
    assert_eq!(
        builder.advance(&vocabulary, 52).map(|word| (word.text, word.joined)),
        Some(("你".into(), true))
    );
    builder.push(&vocabulary, token(1, 60, 1));
    assert_eq!(builder.advance(&vocabulary, 110), None);
    assert_eq!(builder.advance(&vocabulary, 111).map(|word| word.text), Some("\u{FFFD}".into()));
    assert_eq!(builder.horizon(111), 111);
}

#[test]
fn the_next_utterance_follows_without_a_space_where_scripts_have_none() {
    let vocabulary = Vocabulary::of(&["我。", "▁你", "▁I"]);
    let mut builder = WordBuilder::default();
    let mut spoken = Vec::new();
    for id in [0, 1, 2, 0] {
        builder.push(&vocabulary, token(id, 0, 1));
        spoken.extend(builder.finish(&vocabulary));
        builder.restart();
    }
    assert_eq!(joined(&spoken), "我。你 I 我。");
}

/// Letters, marks, spaces, punctuation and bytes of every kind, whole and broken.
const PIECES: [&str; 40] = [
    "▁",
    "▁he",
    "llo",
    "'",
    ".",
    ",",
    "▁.",
    "▁我",
    "我",
    "们",
    "今日は",
    "。",
    "、",
    "「",
    "▁「",
    "」",
    "ア",
    "ー",
    "ょ",
    "々",
    "ไป",
    "เ",
    "ก",
    "\u{E34}",
    "\u{E49}",
    "\u{301}",
    "한",
    "5",
    "👩",
    "\u{200D}",
    "<0xE4>",
    "<0xBD>",
    "<0xA0>",
    "<0x41>",
    "<0xF0>",
    "<0xCC>",
    "<0x81>",
    "<unk>",
    "<pad>",
    "▁▁x",
];

proptest! {
    /// Whatever the tokens, the words with spaces where they are due are the text of all tokens, spaces as one; they follow
    /// each other, none is without bound, and nothing that was said of them before changes.
    #[test]
    fn words_are_the_text(
        steps in prop::collection::vec(
            (0..PIECES.len() as u32, 1..12_usize, 0..3_u64, 0..4_u32, prop::option::of(0..45_u64)), 0..80,
        )
    ) {
        let vocabulary = Vocabulary::of(&PIECES);
        let (mut builder, mut words, mut ids) = (WordBuilder::default(), Vec::new(), Vec::new());
        let (mut frame, mut horizon) = (0, 0);
        for &(id, times, step, duration, pause) in &steps {
            // Once in a while the same again and again.
            for _ in 0..if times == 11 { 300 } else { 1 } {
                frame += step;
                ids.push(id);
                let word = builder.push(&vocabulary, token(id, frame, duration));
                prop_assert!(word.as_ref().is_none_or(|word| word.start >= horizon));
                words.extend(word);
                let partial = builder.partial(&vocabulary);
                prop_assert!(partial.is_none_or(|partial| partial.tokens.len() <= 515));
            }
            if let Some(pause) = pause {
                frame += 1 + pause;
                words.extend(builder.advance(&vocabulary, frame));
                prop_assert!(builder.horizon(frame) >= horizon);
                horizon = builder.horizon(frame);
            }
        }
        words.extend(builder.finish(&vocabulary));
        let spaced = |text: &str| text.split(' ').filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" ");
        let tokens: Vec<u32> = words.iter().flat_map(|word| &word.tokens).map(|timed| timed.token.id).collect();
        let mut kept = tokens.iter().peekable();
        for id in &ids {
            prop_assert!(kept.next_if_eq(&id).is_some() || vocabulary.is_closing(*id), "{}", id);
        }
        prop_assert!(kept.next().is_none());
        prop_assert_eq!(spaced(&joined(&words)), spaced(&vocabulary.decode(&tokens)));
        for pair in words.windows(2) {
            prop_assert!(pair[0].start <= pair[0].end && pair[0].end <= pair[1].start, "{:?}", pair);
        }
        prop_assert!(words.iter().all(|word| word.tokens.len() <= 515));
    }

    /// Bytes of any text, in tokens of their own or not, make words of whole characters.
    #[test]
    fn no_character_is_cut(text in "[a我们今日はアーไทยភ👩🏽é。、「」]{1,40}", pause in prop::option::of(0..45_u64)) {
        let bytes: Vec<String> = (0..=255).map(|byte| format!("<0x{byte:02X}>")).collect();
        let vocabulary = Vocabulary::of(&bytes.iter().map(String::as_str).collect::<Vec<_>>());
        let mut builder = WordBuilder::default();
        let (mut words, mut frame) = (Vec::new(), 0);
        for byte in text.bytes() {
            words.extend(builder.push(&vocabulary, token(byte.into(), frame, 1)));
            let partial = builder.partial(&vocabulary);
            let broken = partial.is_some_and(|partial| partial.text.contains(char::REPLACEMENT_CHARACTER));
            prop_assert!(!broken);
            frame += 1 + pause.unwrap_or(0);
            words.extend(builder.advance(&vocabulary, frame));
        }
        words.extend(builder.finish(&vocabulary));
        prop_assert_eq!(joined(&words), text);
    }
}
