// SPDX-License-Identifier: MPL-2.0
//! What a text buffer holds, and text that is told before it is sure.

mod common;

use common::*;
use gst::prelude::*;
use std::fs;

fn with(property: &str, value: &str) -> (Bench, Vec<i16>) {
    let element = element();
    element.set_property_from_str(property, value);
    (Bench::with(element, false), speech("0870"))
}

#[test]
fn units_hold_the_words_in_order_and_in_time() {
    let whole = expected("0870", "70,13").text;
    let mut counts = Vec::new();
    for unit in ["word", "phrase", "sentence"] {
        let (mut bench, pcm) = with("text-unit", unit);
        let end = bench.push(&pcm, gst::ClockTime::ZERO, 20 * MS);
        let outs = bench.drain();
        assert_eq!(text(&outs), whole, "{unit}");
        assert_eq!(assert_contiguous(&outs), Some((gst::ClockTime::ZERO, end)), "{unit}");
        counts.push(outs.iter().filter(|out| matches!(out, Out::Word { .. })).count());
        bench.assert_no_errors();
    }
    let [words, phrases, sentences] = counts[..] else { unreachable!() };
    assert_eq!(words, whole.split(' ').count());
    assert!(sentences <= phrases && phrases < words, "{counts:?}");
}

#[test]
fn partials_are_messages_that_grow_into_the_text() {
    let element = element();
    element.set_property_from_str("text-unit", "sentence");
    element.set_property("partials", true);
    element.set_property("look-ahead", 0_u32);
    let mut bench = Bench::with(element, false);
    bench.push(&speech("0870"), gst::ClockTime::ZERO, 20 * MS);
    let outs = bench.drain();
    let whole = text(&outs);
    assert_eq!(whole, expected("0870", "70,0").text);
    let mut longest = 0;
    let mut told = 0;
    for message in bench.bus.iter_filtered(&[gst::MessageType::Element]) {
        let structure = message.structure().unwrap();
        assert_eq!(structure.name(), "parakeettdt/partial");
        let text: String = structure.get("text").unwrap();
        assert!(structure.get::<gst::ClockTime>("timestamp").is_ok());
        let words: Vec<&str> = text.split(' ').collect();
        // All but the last word are final.
        let sure = words[..words.len() - 1].join(" ");
        assert!(whole.contains(&sure), "{text}");
        longest = longest.max(words.len());
        told += 1;
    }
    assert!(told > 10 && longest > 5, "{told} partials, the longest of {longest} words");
}

#[test]
fn scripts_without_spaces_get_none_and_tags_are_no_text() {
    // The model of the source tree with other pieces for what it hears as "He was not an ill sposed young man".
    let pieces =
        [("▁He", "<en>"), ("▁was", "▁我"), ("▁not", "用"), ("▁an", "<pad>\tuser"), ("▁", "</s>\tcontrol")];
    let pieces = pieces.into_iter().chain([("ill", "Py"), ("▁sp", "thon"), ("os", "写"), ("ed", "，")]);
    let pieces: Vec<_> = pieces.chain([("▁young", "好"), ("▁man", "。")]).collect();
    let scratch = Scratch::new("unspaced");
    for file in ["config.json", "model.safetensors"] {
        fs::copy(embedded().join(file), scratch.0.join(file)).unwrap();
    }
    let tokens = fs::read_to_string(embedded().join("tokens.txt")).unwrap();
    let other =
        |line: &str| pieces.iter().find(|pair| pair.0 == line).map_or(line.to_owned(), |pair| pair.1.into());
    let tokens: String = tokens.lines().map(|line| format!("{}\n", other(line))).collect();
    fs::write(scratch.0.join("tokens.txt"), tokens).unwrap();

    for (unit, expected) in [
        ("word", &["我", "用", "Python", "写，", "好。"][..]),
        ("phrase", &["我用Python写，", "好。"]),
        ("sentence", &["我用Python写，好。"]),
    ] {
        let element = element();
        element.set_property("model", scratch.0.to_str().unwrap());
        element.set_property_from_str("text-unit", unit);
        element.set_property("partials", true);
        let mut bench = Bench::with(element, false);
        let end = bench.push(&speech("0880"), gst::ClockTime::ZERO, 20 * MS);
        let outs = bench.drain();
        assert_eq!(words(&outs), expected, "{unit}");
        assert_eq!(assert_contiguous(&outs), Some((gst::ClockTime::ZERO, end)), "{unit}");
        for message in bench.bus.iter_filtered(&[gst::MessageType::Element]) {
            let text: String = message.structure().unwrap().get("text").unwrap();
            assert!("我用Python写，好。".contains(&text), "{unit}: {text}");
        }
    }
}

#[test]
fn listed_words_are_masked() {
    let scratch = Scratch::new("mask");
    let list = scratch.0.join("list.txt");
    let plain = expected("0870", "70,13").text;
    let word = plain.split(' ').find(|word| word.len() > 5 && word.chars().all(char::is_alphabetic)).unwrap();
    fs::write(&list, format!("# as a user has it\n{}\n", word.to_uppercase())).unwrap();
    for unit in ["word", "sentence"] {
        let element = element();
        element.set_property_from_str("text-unit", unit);
        element.set_property("partials", true);
        element.set_property("mask-profanities", true);
        element.set_property("profanities", list.to_str().unwrap());
        let mut bench = Bench::with(element, false);
        bench.push(&speech("0870"), gst::ClockTime::ZERO, 20 * MS);
        let masked: Vec<&str> =
            plain.split(' ').map(|said| if said == word { "***" } else { said }).collect();
        assert_eq!(text(&bench.drain()), masked.join(" "));
        for message in bench.bus.iter_filtered(&[gst::MessageType::Element]) {
            let stable: String = message.structure().unwrap().get("stable-text").unwrap();
            assert!(!stable.contains(word), "{stable}");
        }
    }
}

#[test]
fn a_mask_without_a_list_is_an_error() {
    let refusal = |list: Option<&str>| {
        let element = element();
        element.set_property("mask-profanities", true);
        element.set_property("profanities", list);
        Bench::with(element, false).refusal()
    };
    assert!(refusal(None).contains("name its file in property profanities"));
    assert!(refusal(Some("/no/such/list")).contains("/no/such/list"));
    let scratch = Scratch::new("no-mask");
    let list = scratch.0.join("empty.txt");
    fs::write(&list, "# none\n").unwrap();
    let error = refusal(list.to_str());
    assert!(error.contains("empty.txt") && error.contains("holds no word"), "{error}");
}

#[test]
fn phrases_of_a_vocabulary_are_heard() {
    let plain = expected("0930", "70,13").text;
    assert!(plain.contains("Amy bull"), "{plain}");
    let scratch = Scratch::new("vocabulary");
    let list = scratch.0.join("phrases.txt");
    fs::write(&list, "# who is he like\namiable\n").unwrap();
    let with = |path: &str| {
        let element = element();
        element.set_property("vocabulary", path);
        Bench::with(element, false)
    };
    let mut bench = with(list.to_str().unwrap());
    bench.push(&speech("0930"), gst::ClockTime::ZERO, 20 * MS);
    assert_eq!(text(&bench.drain()), plain.replace("Amy bull", "Amiable"));
    assert!(with("/no/such/list").refusal().contains("/no/such/list"));
    fs::write(&list, "fine\ttoo much\n").unwrap();
    let error = with(list.to_str().unwrap()).refusal();
    assert!(error.contains("phrases.txt") && error.contains("too much"), "{error}");
}
