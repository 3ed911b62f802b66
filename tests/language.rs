// SPDX-License-Identifier: MPL-2.0
//! What the text says of itself: its language, and where what was said ends.

mod common;

use common::*;
use gst::prelude::*;

const ZERO: gst::ClockTime = gst::ClockTime::ZERO;

/// The languages in the tags of a record, in order.
fn languages(outs: &[Out]) -> Vec<Option<String>> {
    let language = |out: &Out| match out {
        Out::Event(event) => match event.view() {
            gst::EventView::Tag(tag) => {
                Some(tag.tag().get::<gst::tags::LanguageCode>().map(|code| code.get().to_owned()))
            }
            _ => None,
        },
        _ => None,
    };
    outs.iter().filter_map(language).collect()
}

/// What is played with this language set: the record, and the warnings.
fn play(code: Option<&str>) -> (Vec<Out>, Vec<String>) {
    let element = element();
    if let Some(code) = code {
        element.set_property("language-code", code);
    }
    let mut bench = Bench::with(element, false);
    bench.push(&speech(SHORT), ZERO, 20 * MS);
    let outs = bench.drain();
    let told = std::iter::from_fn(|| bench.bus.pop());
    let warnings = told.filter_map(|message| match message.view() {
        gst::MessageView::Warning(warning) => Some(warning.error().to_string()),
        gst::MessageView::Error(error) => panic!("{error:?}"),
        _ => None,
    });
    (outs, warnings.collect())
}

#[test]
fn the_text_says_its_language() {
    for code in [None, Some("en-US"), Some("en-GB"), Some("en"), Some("auto")] {
        let (outs, warnings) = play(code);
        assert_eq!(languages(&outs), [Some("en".into())], "{code:?}");
        assert_eq!(text(&outs), expected(SHORT, "70,13").text);
        assert!(warnings.is_empty(), "{code:?}: {warnings:?}");
    }
}

#[test]
fn a_language_that_the_model_lacks_is_a_warning_and_it_goes_on_with_its_own() {
    let (outs, warnings) = play(Some("de-DE"));
    assert_eq!(text(&outs), expected(SHORT, "70,13").text);
    assert_eq!(languages(&outs), [Some("en".into())]);
    let [warning] = warnings.as_slice() else { panic!("{warnings:?}") };
    assert!(warning.contains("no language \"de-DE\"") && warning.ends_with("it has en"), "{warning}");
}

#[test]
fn the_language_stays_when_other_tags_come() {
    let mut bench = Bench::new();
    let mut tags = gst::TagList::new();
    let list = tags.make_mut();
    list.add::<gst::tags::Title>(&"title", gst::TagMergeMode::Append);
    list.add::<gst::tags::LanguageCode>(&"de", gst::TagMergeMode::Append);
    bench.harness.push_event(gst::event::Tag::new(tags));
    let mut of_all = gst::TagList::new();
    of_all.make_mut().add::<gst::tags::Album>(&"album", gst::TagMergeMode::Append);
    of_all.make_mut().set_scope(gst::TagScope::Global);
    bench.harness.push_event(gst::event::Tag::new(of_all));
    let outs = bench.drain();
    assert_eq!(languages(&outs), [Some("en".into()), Some("en".into()), None]);
}

/// What of the record is text (`T`) and what the end of what was said (`.`).
fn shape(outs: &[Out]) -> String {
    let sign = |out: &Out| match out {
        Out::Word { .. } => Some('T'),
        Out::Event(event) if event.type_() == gst::EventType::CustomDownstream => {
            let structure = event.structure().expect("custom events have one");
            assert_eq!(structure.name(), "rstranscribe/final-transcript");
            Some('.')
        }
        _ => None,
    };
    outs.iter().filter_map(sign).collect()
}

#[test]
fn what_was_said_ends_with_an_event() {
    let pcm = speech(SHORT);
    let words = expected(SHORT, "70,13").text.split(' ').count();
    let silence = vec![0i16; 5 * 16_000];
    for skip in [true, false] {
        let element = element();
        element.set_property("skip-silence", skip);
        element.set_property_from_str("text-unit", "word");
        let mut bench = Bench::with(element, false);
        let mut at = ZERO;
        for part in [&pcm, &silence, &pcm, &silence] {
            at = bench.push(part, at, 20 * MS);
        }
        let shape = shape(&bench.drain());
        let said = "T".repeat(words);
        assert_eq!(shape, format!("{said}.{said}."), "skip-silence {skip}");
    }
}

#[test]
fn silence_ends_nothing() {
    let mut bench = Bench::new();
    bench.push(&vec![0; 3 * 16_000], ZERO, 20 * MS);
    assert_eq!(shape(&bench.drain()), "");
}
