// SPDX-License-Identifier: MPL-2.0
//! How long a model stays in memory. By themselves: models that other tests load would take the place of those that are kept.

mod common;

use common::*;
use gst::prelude::*;
use parakeet_engine::{BackendChoice, Engine, EngineOptions};
use std::{
    fs,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    thread,
    time::{Duration, Instant},
};

/// One test at a time.
static ALONE: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A model of its own, whatever others load.
fn model(name: &str) -> Scratch {
    let scratch = Scratch::new(name);
    for file in ["config.json", "tokens.txt", "model.safetensors"] {
        fs::copy(embedded().join(file), scratch.0.join(file)).unwrap();
    }
    scratch
}

fn element_with(model: &Path) -> gst::Element {
    let element = element();
    element.set_property("model", model.to_str().unwrap());
    element
}

/// The engine that an element with this model has, if it is in memory.
fn engine(model: &Path) -> Option<Arc<Engine>> {
    Engine::find(model, &EngineOptions { backend: BackendChoice::Cpu, ..EngineOptions::default() })
}

/// Takes the element to READY, waits for its model, and takes it back to NULL.
fn start_and_stop(element: &gst::Element, model: &Path) -> Weak<Engine> {
    let bus = gst::Bus::new();
    element.set_bus(Some(&bus));
    element.set_state(gst::State::Ready).unwrap();
    let kinds = [gst::MessageType::Progress, gst::MessageType::Error];
    loop {
        let message = bus.timed_pop_filtered(gst::ClockTime::from_seconds(60), &kinds).expect("it is loaded");
        match message.view() {
            gst::MessageView::Progress(progress) if progress.get().0 == gst::ProgressType::Complete => break,
            gst::MessageView::Error(error) => panic!("{error:?}"),
            _ => {}
        }
    }
    let engine = Arc::downgrade(&engine(model).expect("it is loaded"));
    element.set_state(gst::State::Null).unwrap();
    engine
}

fn wait_until_freed(engine: &Weak<Engine>) {
    let until = Instant::now() + Duration::from_secs(60);
    while engine.strong_count() > 0 {
        assert!(Instant::now() < until, "it is still there");
        thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn a_model_outlasts_its_last_element_for_a_while() {
    let _alone = alone();
    let model = model("kept");
    let element = element_with(&model.0);
    let first = start_and_stop(&element, &model.0);
    for _ in 0..3 {
        assert!(first.ptr_eq(&start_and_stop(&element, &model.0)), "it was loaded again");
    }
    drop(element);
    let again = start_and_stop(&element_with(&model.0), &model.0);
    assert!(first.ptr_eq(&again), "it was loaded again for another element");
    wait_until_freed(&first);
    assert!(engine(&model.0).is_none());
    // And is kept again once it was needed again.
    let again = start_and_stop(&element_with(&model.0), &model.0);
    assert!(engine(&model.0).is_some());
    wait_until_freed(&again);
}

#[test]
fn a_model_that_is_loaded_for_nobody_is_kept_as_well() {
    let _alone = alone();
    let model = model("probed");
    let element = element_with(&model.0);
    // What transcriberbin does with a new transcriber: it asks for its latency and takes it back.
    element.set_state(gst::State::Paused).unwrap();
    element.set_state(gst::State::Null).unwrap();
    let until = Instant::now() + Duration::from_secs(60);
    let loaded = loop {
        if let Some(engine) = engine(&model.0) {
            break Arc::downgrade(&engine);
        }
        assert!(Instant::now() < until, "nobody loads it");
        thread::sleep(Duration::from_millis(10));
    };
    assert!(loaded.ptr_eq(&start_and_stop(&element, &model.0)), "it was loaded again");
}

#[test]
fn a_model_that_is_kept_makes_room_for_another() {
    let _alone = alone();
    let (one, other) = (model("one"), model("other"));
    let kept = start_and_stop(&element_with(&one.0), &one.0);
    start_and_stop(&element_with(&other.0), &other.0);
    assert_eq!(kept.strong_count(), 0);
}
