// SPDX-License-Identifier: MPL-2.0
//! Loading the model, sharing it, failing to, and going through the states in any order.

mod common;

use common::*;
use gst::{prelude::*, subclass::prelude::*};
use std::{
    fs,
    path::Path,
    thread,
    time::{Duration, Instant},
};

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
    element.set_property("look-ahead", 400_u32);
    let mut bench = Bench::with(element, false);
    let text = bench.refusal();
    assert!(text.contains("look-ahead"), "{text}");
}

/// A bin that holds a lock while it changes its child's state and takes it for each error, as transcriberbin does.
mod locking {
    use gst::{glib, prelude::*, subclass::prelude::*};
    use std::sync::{Mutex, mpsc};

    #[derive(Default)]
    pub struct Imp {
        pub lock: Mutex<()>,
        /// An error that comes, without what it says while the lock is held.
        pub errors: Mutex<Option<mpsc::Sender<Option<String>>>>,
    }

    #[glib::object_subclass]
    impl ObjectSubclass for Imp {
        const NAME: &'static str = "LockingBin";
        type Type = LockingBin;
        type ParentType = gst::Bin;
    }

    impl ObjectImpl for Imp {}
    impl GstObjectImpl for Imp {}
    impl ElementImpl for Imp {}

    impl BinImpl for Imp {
        fn handle_message(&self, message: gst::Message) {
            let gst::MessageView::Error(error) = message.view() else {
                return self.parent_handle_message(message);
            };
            let errors = self.errors.lock().unwrap().clone().unwrap();
            errors.send(None).unwrap();
            let _lock = self.lock.lock().unwrap();
            errors.send(Some(error.error().to_string())).unwrap();
        }
    }

    glib::wrapper! {
        pub struct LockingBin(ObjectSubclass<Imp>) @extends gst::Bin, gst::Element, gst::Object;
    }

    impl LockingBin {
        /// With one child; the errors that come from it.
        pub fn around(child: &gst::Element) -> (Self, mpsc::Receiver<Option<String>>) {
            let bin: Self = glib::Object::new();
            let (sender, errors) = mpsc::channel();
            *bin.imp().errors.lock().unwrap() = Some(sender);
            bin.add(child).unwrap();
            (bin, errors)
        }
    }
}

/// The first error of an element in a bin that holds its lock from NULL over PAUSED, where something is pushed, until the error
/// comes, and back to NULL.
fn error_in_a_locking_bin(
    element: gst::Element,
    push: impl FnOnce(&gst::Pad) -> Result<gst::FlowSuccess, gst::FlowError> + Send + 'static,
) -> String {
    let patience = Duration::from_secs(60);
    let (bin, errors) = locking::LockingBin::around(&element);
    let (sender, done) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let lock = bin.imp().lock.lock().unwrap();
        for state in [gst::State::Ready, gst::State::Paused] {
            assert!(element.set_state(state).is_ok(), "the state changes succeed");
        }
        let pad = element.static_pad("sink").unwrap();
        // An element that stops takes no event, and without these no data may come.
        pad.send_event(gst::event::StreamStart::new("test"));
        pad.send_event(gst::event::Caps::new(&S16.parse().unwrap()));
        pad.send_event(gst::event::Segment::new(&gst::FormattedSegment::<gst::ClockTime>::new()));
        let pusher = std::thread::spawn(move || push(&pad));
        assert_eq!(errors.recv_timeout(patience), Ok(None));
        assert!(element.set_state(gst::State::Null).is_ok());
        assert!(pusher.join().unwrap().is_err());
        drop(lock);
        sender.send(errors.recv_timeout(patience).unwrap().unwrap()).unwrap();
    });
    done.recv_timeout(2 * patience).expect("an error comes, and nobody waits for ever")
}

fn push_silence(pad: &gst::Pad) -> Result<gst::FlowSuccess, gst::FlowError> {
    pad.chain(buffer(&[0; 1_600], Some(gst::ClockTime::ZERO)))
}

/// Pushes until the element refuses.
fn push_on(pad: &gst::Pad) -> Result<gst::FlowSuccess, gst::FlowError> {
    let until = Instant::now() + PATIENCE;
    while Instant::now() < until {
        push_silence(pad)?;
        thread::sleep(Duration::from_millis(20));
    }
    Ok(gst::FlowSuccess::Ok)
}

#[test]
fn audio_is_taken_for_a_moment_after_an_error_and_refused_then() {
    let element = element();
    element.set_property("model", "/no/such");
    let mut bench = Bench::with(element, false);
    bench.message(gst::MessageType::Error);
    let silence = || buffer(&[0; 1_600], Some(gst::ClockTime::ZERO));
    assert_eq!(bench.harness.push(silence()), Ok(gst::FlowSuccess::Ok));
    bench.push_until_refused();
    assert_eq!(bench.harness.push(silence()), Err(gst::FlowError::Error));
}

#[test]
fn errors_wait_for_no_lock_that_a_state_change_holds() {
    for (property, value, expected) in [
        ("model", "/no/such", "cannot load the model: there is no directory /no/such"),
        ("device", "gpu", "property device: \"gpu\" is neither"),
    ] {
        let element = element();
        element.set_property(property, value);
        let error = error_in_a_locking_bin(element, push_on);
        assert!(error.contains(expected), "{error}");
    }
    let half_a_sample = |pad: &gst::Pad| {
        push_silence(pad)?;
        pad.chain(gst::Buffer::from_slice([0_u8; 3]))
    };
    let error = error_in_a_locking_bin(element(), half_a_sample);
    assert!(error.contains("whole samples"), "{error}");
    let element = element();
    element.set_property("look-ahead", 400_u32);
    let error = error_in_a_locking_bin(element, push_on);
    assert!(error.contains("look-ahead"), "{error}");
}

#[test]
fn a_device_that_is_none_is_an_error_and_can_be_set_otherwise_in_ready() {
    let element = element();
    let bus = gst::Bus::new();
    element.set_bus(Some(&bus));
    element.set_property("device", "gpu");
    assert_eq!(element.set_state(gst::State::Ready), Ok(gst::StateChangeSuccess::Success));
    let patience = gst::ClockTime::from_seconds(60);
    let message = bus.timed_pop_filtered(patience, &[gst::MessageType::Error]).expect("an error is posted");
    let gst::MessageView::Error(error) = message.view() else { unreachable!() };
    assert!(error.error().to_string().contains("property device: \"gpu\" is neither"), "{error:?}");
    element.set_property("device", "auto");
    element.set_state(gst::State::Paused).unwrap();
    loop {
        let message = bus.timed_pop_filtered(patience, &[gst::MessageType::Progress]).expect("it is loaded");
        let gst::MessageView::Progress(progress) = message.view() else { unreachable!() };
        if progress.get().0 == gst::ProgressType::Complete {
            break;
        }
    }
    assert!(bus.pop_filtered(&[gst::MessageType::Error]).is_none());
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
