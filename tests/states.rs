// SPDX-License-Identifier: MPL-2.0
//! Loading the model, sharing it, failing to, and going through the states in any order.

mod common;

use common::*;
use gst::prelude::*;
use std::{fs, path::Path, time::Duration};

/// The error that an element with this model posts; audio is pushed all the while.
fn error_of(model: &Path) -> String {
    let element = element();
    element.set_property("model", model.to_str().unwrap());
    let mut bench = Bench::with(element, false);
    let text = bench.refusal();
    assert!(text.contains("property model"), "{text}");
    // The end still comes through, so nothing downstream waits for ever.
    bench.drain();
    text
}

#[test]
fn a_missing_model_is_an_error() {
    assert!(error_of(Path::new("/no/such/model")).contains("/no/such/model"));
    assert!(error_of(Path::new("no-such-name")).contains("no-such-name"));
}

#[test]
fn a_directory_without_a_model_is_an_error() {
    let scratch = Scratch::new("empty");
    assert!(error_of(&scratch.0).contains(scratch.0.to_str().unwrap()));
    fs::copy(embedded().join("config.json"), scratch.0.join("config.json")).unwrap();
    assert!(error_of(&scratch.0).contains("tokens.txt"));
    assert!(error_of(&scratch.0.join("config.json")).contains("config.json"));
}

#[test]
fn a_model_that_is_none_is_an_error() {
    let scratch = Scratch::new("wrong");
    for file in ["tokens.txt", "model.safetensors"] {
        fs::copy(embedded().join(file), scratch.0.join(file)).unwrap();
    }
    fs::write(scratch.0.join("config.json"), "{\"format\": 1}").unwrap();
    assert!(error_of(&scratch.0).contains("config.json"));
}

#[test]
fn a_truncated_model_is_an_error() {
    let scratch = Scratch::new("truncated");
    for file in ["config.json", "tokens.txt"] {
        fs::copy(embedded().join(file), scratch.0.join(file)).unwrap();
    }
    let weights = fs::read(embedded().join("model.safetensors")).unwrap();
    fs::write(scratch.0.join("model.safetensors"), &weights[..weights.len() / 2]).unwrap();
    assert!(error_of(&scratch.0).contains("model.safetensors"));
}

#[test]
fn a_look_ahead_that_the_model_lacks_is_an_error() {
    let element = element();
    element.set_property("look-ahead", 5u32);
    let mut bench = Bench::with(element, false);
    let text = bench.refusal();
    assert!(text.contains("look-ahead"), "{text}");
}

#[test]
fn a_device_that_is_none_is_an_error_before_anything_is_loaded() {
    let element = element();
    let bus = gst::Bus::new();
    element.set_bus(Some(&bus));
    element.set_property("device", "gpu");
    assert!(element.set_state(gst::State::Ready).is_err());
    let message = bus.pop_filtered(&[gst::MessageType::Error]).expect("an error was posted");
    let gst::MessageView::Error(error) = message.view() else { unreachable!() };
    assert!(error.error().to_string().contains("property device: \"gpu\" is neither"), "{error:?}");
    element.set_property("device", "auto");
    assert!(element.set_state(gst::State::Ready).is_ok());
    element.set_state(gst::State::Null).unwrap();
}

#[test]
fn a_backend_that_is_not_there_is_an_error() {
    let element = element();
    let bus = gst::Bus::new();
    element.set_bus(Some(&bus));
    element.set_property_from_str("backend", "cuda");
    assert!(element.set_state(gst::State::Ready).is_ok());
    let end = loop {
        let kinds = [gst::MessageType::Progress, gst::MessageType::Error];
        let message =
            bus.timed_pop_filtered(gst::ClockTime::from_seconds(60), &kinds).expect("the load ends");
        match message.view() {
            gst::MessageView::Progress(progress) if progress.get().0 == gst::ProgressType::Complete => {
                break None;
            }
            gst::MessageView::Error(error) => break Some(error.error().to_string()),
            _ => {}
        }
    };
    match (parakeet_engine::backend::cuda::count(), end) {
        (Err(missing), Some(error)) => {
            let remedy = "set properties backend and device to what this machine has";
            assert_eq!(error, format!("cannot load the model: {missing}; {remedy}"));
        }
        // The card may still be too old, or NVRTC missing.
        (Ok(_), Some(error)) => assert!(error.contains("backend cuda: "), "{error}"),
        (Ok(_), None) => {}
        (Err(missing), None) => panic!("it runs without a GPU: {missing}"),
    }
    element.set_state(gst::State::Null).unwrap();
}

#[test]
fn the_log_tells_what_the_model_runs_on() {
    for (backend, number) in [("cpu", 1), ("auto", 2)] {
        let element = element();
        element.set_property("name", format!("logged{number}"));
        element.set_property_from_str("backend", backend);
        let (sender, told) = std::sync::mpsc::channel();
        let name = element.name();
        // Never removed: another test may be logging through it.
        gst::log::add_log_function(move |category, level, _, _, _, object, message| {
            let ours = object.is_some_and(|object| object.to_string() == name);
            if ours && level == gst::DebugLevel::Info && category.name() == "parakeettdt" {
                // The test may have heard enough.
                let _ = sender.send(message.get().map(|text| text.to_string()).unwrap_or_default());
            }
        });
        gst::log::set_threshold_for_name("parakeettdt", gst::DebugLevel::Info);
        let bench = Bench::with(element, false);
        bench.wait_for_model();
        let told: Vec<String> = told.try_iter().collect();
        let runs =
            |on: &str| told.iter().any(|text| text.starts_with(&format!("the model runs on backend {on}, ")));
        match (backend, parakeet_engine::backend::cuda::count()) {
            ("cpu", _) => {
                assert!(runs("cpu") && told.iter().all(|text| !text.starts_with("passed")), "{told:?}")
            }
            (_, Err(missing)) => {
                assert!(runs("cpu") && told.contains(&format!("passed over: {missing}")), "{told:?}");
            }
            (_, Ok(_)) => {
                assert!(runs("cuda") || told.iter().any(|text| text.contains("backend cuda: ")), "{told:?}")
            }
        }
    }
}

#[test]
fn what_the_model_runs_on_has_names() {
    let element = element();
    for (property, names) in [
        ("backend", &["auto", "cpu", "cuda"][..]),
        ("precision", &["auto", "f16", "bf16", "f32", "f8"]),
        ("cache-precision", &["full", "int8"]),
    ] {
        for name in names {
            element.set_property_from_str(property, name);
            let value = element.property_value(property);
            let (_, value) = gst::glib::EnumValue::from_value(&value).expect("an enumeration");
            assert_eq!(value.nick(), *name);
        }
    }
    element.set_property("device", "1");
    assert_eq!(element.property::<String>("device"), "1");
}

#[test]
fn loading_is_told_and_does_not_hold_up_the_state_change() {
    let element = element();
    let bus = gst::Bus::new();
    element.set_bus(Some(&bus));
    assert_eq!(element.set_state(gst::State::Ready), Ok(gst::StateChangeSuccess::Success));
    let kinds = [gst::MessageType::Progress];
    let mut told = Vec::new();
    while told.last() != Some(&gst::ProgressType::Complete) {
        let message =
            bus.timed_pop_filtered(gst::ClockTime::from_seconds(60), &kinds).expect("progress is told");
        let gst::MessageView::Progress(progress) = message.view() else { unreachable!() };
        told.push(progress.get().0);
    }
    assert_eq!(told, [gst::ProgressType::Start, gst::ProgressType::Complete]);
    element.set_state(gst::State::Null).unwrap();
}

/// What transcriberbin does with a new transcriber.
#[test]
fn the_latency_is_known_to_a_bin_that_only_probes() {
    init();
    for _ in 0..3 {
        let element = element();
        let source = gst::ElementFactory::make("fakesrc").property("is-live", true).build().unwrap();
        source.link(&element).unwrap();
        element.set_state(gst::State::Paused).unwrap();
        let mut query = gst::query::Latency::new();
        assert!(element.static_pad("src").unwrap().query(&mut query));
        let (live, min, _) = query.result();
        assert!(live);
        // The default budget of a second, and the look-ahead of the model's first context.
        assert!(min >= gst::ClockTime::from_mseconds(1_000 + 13 * 80), "{min}");
        element.set_state(gst::State::Null).unwrap();
    }
}

#[test]
fn states_may_change_at_any_moment() {
    let element = element();
    use gst::State::{Null, Paused, Playing, Ready};
    for round in 0..20u64 {
        for state in [Ready, Null, Paused, Ready, Paused, Playing, Ready, Playing, Null] {
            element.set_state(state).unwrap();
            std::thread::sleep(Duration::from_millis(round % 4));
        }
    }
    drop(element);
}

#[test]
fn a_source_that_waits_for_the_model_is_freed_by_null() {
    for wait in [0, 1, 10, 50, 200] {
        let mut bench = Bench::new();
        let pad = bench.element.static_pad("sink").unwrap();
        let pusher = std::thread::spawn(move || {
            let minutes = vec![0i16; 600 * 16_000];
            pad.chain(buffer(&minutes, Some(gst::ClockTime::ZERO)))
        });
        std::thread::sleep(Duration::from_millis(wait));
        bench.element.set_state(gst::State::Null).unwrap();
        assert_eq!(pusher.join().unwrap(), Err(gst::FlowError::Flushing));
        bench.harness.play();
    }
}

#[test]
fn an_element_may_go_while_its_model_is_loaded() {
    for _ in 0..5 {
        let element = element();
        let weak = element.downgrade();
        element.set_state(gst::State::Ready).unwrap();
        element.set_state(gst::State::Null).unwrap();
        drop(element);
        // The loading thread holds it only for a moment when it is done.
        for _ in 0..600 {
            if weak.upgrade().is_none() {
                break;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        assert!(weak.upgrade().is_none(), "the element leaks");
    }
}

#[test]
fn the_element_works_again_after_ready_and_after_null() {
    let expected = expected(SHORT, "70,13").text;
    let pcm = speech(SHORT);
    let pipeline = gst::Pipeline::new();
    let source = gst::ElementFactory::make("appsrc").build().unwrap();
    source.set_property("caps", S16.parse::<gst::Caps>().unwrap());
    source.set_property_from_str("format", "time");
    let element = element();
    let sink = gst::ElementFactory::make("fakesink").property("sync", false).build().unwrap();
    sink.set_property("signal-handoffs", true);
    let (sender, heard) = std::sync::mpsc::channel();
    sink.connect("handoff", false, move |values| {
        let buffer: gst::Buffer = values[1].get().unwrap();
        let map = buffer.map_readable().unwrap();
        sender.send(String::from_utf8(map.to_vec()).unwrap()).unwrap();
        None
    });
    pipeline.add_many([&source, &element, &sink]).unwrap();
    gst::Element::link_many([&source, &element, &sink]).unwrap();
    for down in [gst::State::Ready, gst::State::Ready, gst::State::Null, gst::State::Ready] {
        pipeline.set_state(gst::State::Playing).unwrap();
        let flow: gst::FlowReturn =
            source.emit_by_name("push-buffer", &[&buffer(&pcm, Some(gst::ClockTime::ZERO))]);
        assert_eq!(flow, gst::FlowReturn::Ok);
        let flow: gst::FlowReturn = source.emit_by_name("end-of-stream", &[]);
        assert_eq!(flow, gst::FlowReturn::Ok);
        let bus = pipeline.bus().unwrap();
        let ends = [gst::MessageType::Eos, gst::MessageType::Error];
        let message =
            bus.timed_pop_filtered(gst::ClockTime::from_seconds(60), &ends).expect("the stream ends");
        assert_eq!(message.type_(), gst::MessageType::Eos, "{message:?}");
        let words: Vec<String> = heard.try_iter().collect();
        assert_eq!(words.join(" "), expected);
        pipeline.set_state(down).unwrap();
    }
    pipeline.set_state(gst::State::Null).unwrap();
}

#[test]
fn elements_share_a_model_and_nothing_else() {
    let clips = ["0880", "0930", "0890"];
    let threads = clips.map(|clip| {
        std::thread::spawn(move || {
            let mut bench = Bench::new();
            bench.push(&speech(clip), gst::ClockTime::ZERO, 20 * MS);
            assert_eq!(text(&bench.drain()), expected(clip, "70,13").text);
        })
    });
    for thread in threads {
        thread.join().unwrap();
    }
}
