// SPDX-License-Identifier: MPL-2.0
//! A model with full attention in the element: windows, their latency, and the same words as the engine gives.

mod common;

use common::*;
use gst::prelude::*;
use parakeet_engine::{
    BackendChoice, Engine, EngineOptions, Event, StreamOptions, Window,
    convert::{ConvertOptions, convert},
};
use std::{env, fs, path::PathBuf};

/// A model with random weights, converted; gone with this.
struct Converted(PathBuf);

impl Converted {
    fn new(name: &str) -> Self {
        let out = env::temp_dir().join(format!("gstparakeet-windows-{}-{name}", std::process::id()));
        let nemo = concat!(env!("CARGO_MANIFEST_DIR"), "/engine/tests/data/oracle/fullatt/model.nemo");
        convert(nemo.as_ref(), &out, &ConvertOptions::default(), &mut |_, _| {}).unwrap();
        Converted(out)
    }

    /// One that was trained for some windows only, as parakeet-unified-en-0.6b is.
    fn trained(name: &str) -> Self {
        let model = Converted::new(name);
        let path = model.0.join("config.json");
        let text = fs::read_to_string(&path).unwrap();
        let regular = r#""attention": "regular","#;
        assert!(text.contains(regular));
        let windows = r#""attention": "chunked_limited_with_rc",
            "windows": {"left": [70], "chunk": [1, 2, 7, 13], "right": [0, 1, 2, 3, 4, 7, 13]},"#;
        fs::write(&path, text.replace(regular, windows)).unwrap();
        model
    }

    fn element(&self) -> gst::Element {
        init();
        let element = gst::ElementFactory::make("parakeettdt").property("model", self.0.to_str().unwrap());
        element.property_from_str("backend", "cpu").build().unwrap()
    }
}

impl Drop for Converted {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn windows_give_the_engines_words() {
    let model = Converted::new("words");
    let pcm = speech("0870");
    let mut heard = Vec::new();
    for (left, chunk, right) in [(10_000_u32, 2_000_u32, 2_000_u32), (2_000, 480, 320)] {
        let options = EngineOptions { backend: BackendChoice::Cpu, ..EngineOptions::default() };
        let engine = Engine::open(&model.0, &options).unwrap();
        let [l, c, r] = [left, chunk, right].map(|ms| f64::from(ms) / 1e3);
        let window = Some(Window::from_seconds(l, c, r).unwrap());
        let options = StreamOptions { window, skip_silence: true, ..StreamOptions::default() };
        let stream = engine.stream(&options).unwrap();
        let floats: Vec<f32> = pcm.iter().map(|sample| f32::from(*sample) / 32_768.0).collect();
        stream.push(&floats).unwrap();
        stream.finish();
        let mut expected = Vec::new();
        loop {
            match stream.next().unwrap() {
                Event::Word(word) if !word.text.trim().is_empty() => {
                    expected.push(word.text.trim().to_owned())
                }
                Event::Finished { .. } => break,
                _ => {}
            }
        }
        assert!(!expected.is_empty());
        let element = model.element();
        element.set_property("left-context", left);
        element.set_property("chunk", chunk);
        element.set_property("right-context", right);
        let mut bench = Bench::with(element, false);
        let end = bench.push(&pcm, gst::ClockTime::ZERO, 20 * MS);
        let outs = bench.drain();
        assert_eq!(words(&outs), expected, "{left}-{chunk}-{right}");
        assert_eq!(assert_contiguous(&outs), Some((gst::ClockTime::ZERO, end)));
        bench.assert_no_errors();
        heard.push(expected);
    }
    assert_ne!(heard[0], heard[1], "other windows, other words");
}

#[test]
fn latency_is_the_chunk_and_its_right_context() {
    let model = Converted::new("latency");
    let element = model.element();
    element.set_property("chunk", 1_000_u32);
    element.set_property("right-context", 500_u32);
    let bench = Bench::with(element, true);
    bench.wait_for_model();
    let mut query = gst::query::Latency::new();
    assert!(bench.element.static_pad("src").unwrap().query(&mut query));
    // 12 and 6 whole frames of 80 ms, and a second for a word.
    let (live, least, _) = query.result();
    assert_eq!((live, least), (true, gst::ClockTime::from_mseconds(18 * 80 + 1_000)));
}

#[test]
fn what_is_unset_is_the_models_own() {
    let model = Converted::trained("own");
    for (set, frames) in [(None, 26), (Some(("chunk", 560_u32)), 20), (Some(("right-context", 0)), 13)] {
        let element = model.element();
        if let Some((property, ms)) = set {
            element.set_property(property, ms);
        }
        let bench = Bench::with(element, true);
        bench.wait_for_model();
        let mut query = gst::query::Latency::new();
        assert!(bench.element.static_pad("src").unwrap().query(&mut query));
        let expected = gst::ClockTime::from_mseconds(frames * 80 + 1_000);
        assert_eq!(query.result(), (true, expected, gst::ClockTime::NONE), "{set:?}");
    }
}

#[test]
fn a_window_that_the_model_was_not_trained_for_is_refused() {
    let model = Converted::trained("others");
    for (property, ms, expected) in [
        ("chunk", 2_000_u32, "chunk: 2 s (25 frames), but the model was trained for windows of left 5.6 s"),
        ("left-context", 10_000, "left: 10 s (125 frames), but the model was trained for"),
        ("right-context", 400, "right: 0.4 s (5 frames), but the model was trained for"),
    ] {
        let element = model.element();
        element.set_property(property, ms);
        let mut bench = Bench::with(element, false);
        bench.wait_for_model();
        let text = bench.refusal();
        assert!(text.contains(expected), "{text}");
    }
}

#[test]
fn a_look_ahead_is_refused_with_a_reason() {
    let model = Converted::new("refused");
    let element = model.element();
    element.set_property("look-ahead", 240_u32);
    let mut bench = Bench::with(element, false);
    bench.wait_for_model();
    let text = bench.refusal();
    assert!(text.contains("chunk and right context set its latency"), "{text}");
}
