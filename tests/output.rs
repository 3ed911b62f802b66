// SPDX-License-Identifier: MPL-2.0
//! The forms in which text leaves: plain, as JSON, with a meta, and in messages.

mod common;

use common::*;
use gst::prelude::*;
use std::sync::{Arc, Mutex};

const ZERO: gst::ClockTime = gst::ClockTime::ZERO;
const JSON: &str = "application/x-json";

/// A time in seconds as JSON has it, to a microsecond.
fn seconds(time: gst::ClockTime) -> f64 {
    time.useconds() as f64 / 1e6
}

fn caps(outs: &[Out]) -> Vec<String> {
    let name = |out: &Out| match out {
        Out::Event(event) => match event.view() {
            gst::EventView::Caps(caps) => Some(caps.caps().structure(0).unwrap().name().to_string()),
            _ => None,
        },
        _ => None,
    };
    outs.iter().filter_map(name).collect()
}

/// Fails unless the words of a JSON text lie in it, in order, and are its text.
fn check_words(json: &serde_json::Value) {
    let (start, end) = (json["start"].as_f64().unwrap(), json["end"].as_f64().unwrap());
    let (mut said, mut before) = (String::new(), start);
    for word in json["words"].as_array().unwrap() {
        let times = (word["start"].as_f64().unwrap(), word["end"].as_f64().unwrap());
        assert!(before <= times.0 && times.0 <= times.1 && times.1 <= end, "{json}");
        before = times.0;
        if !said.is_empty() && word["joined"] != true {
            said.push(' ');
        }
        said.push_str(word["text"].as_str().unwrap());
        assert!((0.0..=1.0).contains(&word["confidence"].as_f64().unwrap()), "{json}");
    }
    assert_eq!(said, json["text"].as_str().unwrap());
}

#[test]
fn json_has_what_is_known_of_a_text() {
    for unit in ["word", "sentence"] {
        let element = element();
        element.set_property_from_str("text-unit", unit);
        let mut bench = Bench::with(element, false);
        bench.harness.set_sink_caps_str(JSON);
        let end = bench.push(&speech("0870"), 10 * gst::ClockTime::SECOND, 20 * MS);
        let outs = bench.drain();
        // Plain text may have been agreed on before.
        assert_eq!(caps(&outs).last().unwrap(), JSON);
        assert_eq!(assert_contiguous(&outs), Some((10 * gst::ClockTime::SECOND, end)));
        let mut said = Vec::new();
        for out in &outs {
            let Out::Word { text, start, end, .. } = out else { continue };
            let json: serde_json::Value = serde_json::from_str(text).unwrap();
            assert_eq!(json["start"], seconds(*start));
            assert_eq!(json["end"], seconds(*end));
            assert_eq!(json["final"], true);
            check_words(&json);
            said.push(json["text"].as_str().unwrap().to_owned());
        }
        assert_eq!(said.join(" "), expected("0870", "70,13").text);
    }
}

#[test]
fn partials_are_json_that_is_not_final() {
    let element = element();
    element.set_property_from_str("text-unit", "sentence");
    element.set_property("partials", true);
    let mut bench = Bench::with(element, false);
    bench.harness.set_sink_caps_str(JSON);
    bench.push(&speech("0870"), ZERO, 20 * MS);
    let outs = bench.drain();
    let texts = outs.iter().filter_map(|out| match out {
        Out::Word { text, start, .. } => {
            Some((serde_json::from_str::<serde_json::Value>(text).unwrap(), *start))
        }
        _ => None,
    });
    let (mut partials, mut said, mut position) = (0, Vec::new(), ZERO);
    for (json, start) in texts {
        assert_eq!(json["start"], seconds(start));
        assert!(start >= position, "time never falls back");
        position = start;
        check_words(&json);
        if json["final"] == true {
            said.push(json["text"].as_str().unwrap().to_owned());
        } else {
            partials += 1;
        }
    }
    assert_eq!(said.join(" "), expected("0870", "70,13").text);
    assert!(partials > 3, "{partials}");
}

#[test]
fn downstream_may_change_its_mind() {
    let mut bench = Bench::new();
    let pcm = speech(SHORT);
    let end = bench.push(&pcm, ZERO, 20 * MS);
    let end = bench.pause(end, 10 * gst::ClockTime::SECOND);
    bench.harness.set_sink_caps_str(JSON);
    assert!(bench.harness.push_upstream_event(gst::event::Reconfigure::new()));
    bench.push(&pcm, end, 20 * MS);
    let outs = bench.drain();
    assert_eq!(caps(&outs), [JSON], "the caps before were plain and are taken");
    assert!(words(&outs).iter().all(|word| word.starts_with('{')), "{outs:?}");
    bench.assert_no_errors();
}

#[test]
fn stable_text_never_goes() {
    for unit in ["word", "phrase", "sentence"] {
        let element = element();
        element.set_property_from_str("text-unit", unit);
        element.set_property("partials", true);
        element.set_property("look-ahead", 0_u32);
        let mut bench = Bench::with(element, false);
        // What is pushed, and in between what is stable, in the order in which it comes.
        let told = Arc::new(Mutex::new(Vec::new()));
        let heard = told.clone();
        bench.bus.set_sync_handler(move |_, message| {
            if let Some(structure) = message.structure()
                && structure.name() == "parakeettdt/partial"
            {
                let [text, stable] =
                    ["text", "stable-text"].map(|field| structure.get::<String>(field).unwrap());
                assert!(text.starts_with(&stable));
                heard.lock().unwrap().push((stable, false));
            }
            gst::BusSyncReply::Pass
        });
        let heard = told.clone();
        let pad = bench.element.static_pad("src").unwrap();
        pad.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
            let map = info.buffer().unwrap().map_readable().unwrap();
            heard.lock().unwrap().push((String::from_utf8(map.to_vec()).unwrap(), true));
            gst::PadProbeReturn::Ok
        });
        bench.push(&speech("0870"), ZERO, 20 * MS);
        bench.drain();
        let told = told.lock().unwrap();
        let whole: Vec<&str> = told.iter().filter(|text| text.1).map(|text| text.0.as_str()).collect();
        let whole = whole.join(" ");
        let (mut pushed, mut longest) = (Vec::new(), 0);
        for (text, is_pushed) in told.iter() {
            let so_far = [&pushed[..], &[text.as_str()]].concat().join(" ");
            assert!(whole.starts_with(so_far.trim_end()), "{so_far:?} of {whole:?}");
            if *is_pushed {
                pushed.push(text);
            } else {
                longest = longest.max(text.len());
            }
        }
        assert_eq!(longest > 0, unit != "word", "{unit}");
        assert!(told.iter().filter(|text| !text.1).count() > 10);
    }
}

#[test]
fn raw_messages_have_the_tokens() {
    let element = element();
    element.set_property("raw", true);
    let mut bench = Bench::with(element, false);
    let end = bench.push(&speech(SHORT), ZERO, 20 * MS);
    let outs = bench.drain();
    let (mut said, mut frames, mut position) = (Vec::new(), 0, ZERO);
    for message in bench.bus.iter_filtered(&[gst::MessageType::Element]) {
        let structure = message.structure().unwrap();
        assert_eq!(structure.name(), "parakeettdt/raw");
        let tokens: gst::Array = structure.get("tokens").unwrap();
        let tokens: Vec<gst::Structure> = tokens.iter().map(|token| token.get().unwrap()).collect();
        let pieces: String = tokens.iter().map(|token| token.get::<String>("piece").unwrap()).collect();
        let text: String = structure.get("text").unwrap();
        assert_eq!(pieces.trim_start_matches('▁'), text);
        for token in &tokens {
            let start: gst::ClockTime = token.get("running-time").unwrap();
            let duration: gst::ClockTime = token.get("duration").unwrap();
            assert!(start >= position && start + duration <= end, "{token:?}");
            position = start;
            frames += token.get::<u32>("frames").unwrap();
            assert!(token.get::<f64>("log-probability").unwrap() <= 0.0);
            assert!((0.0..=1.0).contains(&token.get::<f64>("confidence").unwrap()));
        }
        said.push(text);
    }
    assert_eq!(said, words(&outs));
    assert!(frames > 0, "durations of TDT are not all 0");
}

#[test]
fn the_meta_survives_copies_and_has_the_words() {
    init();
    let root = env!("CARGO_MANIFEST_DIR");
    // Each branch writes time stamps into what both have, and so into a copy.
    let branch = "t. ! queue ! identity single-segment=true ! fakesink";
    let pipeline = gst::parse::launch(&format!(
        "filesrc location={root}/tests/data/speech.wav ! wavparse ! audioconvert ! audioresample ! \
         parakeettdt model={root}/models/parakeet-tdt-mini backend=cpu text-unit=phrase ! tee name=t {branch} {branch}"
    ));
    let pipeline = pipeline.unwrap().downcast::<gst::Pipeline>().unwrap();
    let told = Arc::new(Mutex::new(Vec::new()));
    let sinks: Vec<gst::Element> = pipeline.iterate_sinks().into_iter().map(Result::unwrap).collect();
    for sink in &sinks {
        let (told, name) = (told.clone(), sink.name());
        sink.static_pad("sink").unwrap().add_probe(gst::PadProbeType::BUFFER, move |_, info| {
            told.lock().unwrap().push((name.clone(), info.buffer().unwrap().copy()));
            gst::PadProbeReturn::Ok
        });
    }
    pipeline.set_state(gst::State::Playing).unwrap();
    let bus = pipeline.bus().unwrap();
    let kinds = [gst::MessageType::Eos, gst::MessageType::Error];
    let message = bus.timed_pop_filtered(60 * gst::ClockTime::SECOND, &kinds).expect("one of them comes");
    assert_eq!(message.type_(), gst::MessageType::Eos, "{message:?}");
    pipeline.set_state(gst::State::Null).unwrap();
    let told = told.lock().unwrap();
    let mut counts = [0; 2];
    for (name, buffer) in told.iter() {
        let meta = gst::meta::CustomMeta::from_buffer(buffer, "ParakeetWordsMeta").expect("each has one");
        let structure = meta.structure();
        let words: gst::Array = structure.get("words").unwrap();
        let words: Vec<gst::Structure> = words.iter().map(|word| word.get().unwrap()).collect();
        let texts: Vec<String> = words.iter().map(|word| word.get("text").unwrap()).collect();
        let map = buffer.map_readable().unwrap();
        assert_eq!(texts.join(" ").as_bytes(), &map[..]);
        let (start, end) = (buffer.pts().unwrap(), buffer.pts().unwrap() + buffer.duration().unwrap());
        assert_eq!(structure.get::<u64>("stream-time").unwrap(), start.nseconds());
        let mut least = 1.0_f64;
        for word in &words {
            let (from, to): (u64, u64) = (word.get("start").unwrap(), word.get("end").unwrap());
            assert!(
                start.nseconds() <= from && from < to && to <= end.nseconds(),
                "{word:?} in {start} to {end}"
            );
            least = least.min(word.get("confidence").unwrap());
            assert!(!word.get::<bool>("joined").unwrap());
        }
        assert_eq!(structure.get::<f64>("confidence").unwrap(), least);
        counts[sinks.iter().position(|sink| sink.name() == *name).unwrap()] += words.len();
    }
    assert!(counts[0] > 15 && counts[0] == counts[1], "{counts:?}");
}
