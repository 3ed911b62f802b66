// SPDX-License-Identifier: MPL-2.0
//! Engines that the application hands in, and presets.

mod common;

use common::*;
use gst::prelude::*;
use gstparakeet::parakeettdt::{ENGINE_CONTEXT, engine_context};
use parakeet_engine::{BackendChoice, Engine, EngineOptions};
use std::sync::Arc;

const ZERO: gst::ClockTime = gst::ClockTime::ZERO;

/// An engine that no element would open for itself.
fn own_engine(threads: usize) -> Arc<Engine> {
    let options = EngineOptions { backend: BackendChoice::Cpu, threads, ..EngineOptions::default() };
    Engine::open(&embedded(), &options).unwrap()
}

fn without_model() -> gst::Element {
    init();
    gst::ElementFactory::make("parakeettdt").property("model", "/no/such").build().unwrap()
}

/// Fails unless the element recognises, with this engine.
fn check(element: gst::Element, engine: &Arc<Engine>) {
    let before = Arc::strong_count(engine);
    let mut bench = Bench::with(element, false);
    bench.push(&speech(SHORT), ZERO, 20 * MS);
    assert!(Arc::strong_count(engine) > before);
    assert_eq!(text(&bench.drain()), expected(SHORT, "70,13").text);
    bench.assert_no_errors();
}

#[test]
fn an_engine_is_handed_in_by_context() {
    let engine = own_engine(1);
    let element = without_model();
    element.set_context(&engine_context(engine.clone()));
    check(element.clone(), &engine);
    // Another one for the next time.
    element.set_state(gst::State::Ready).unwrap();
    let other = own_engine(2);
    element.set_context(&engine_context(other.clone()));
    check(element, &other);
}

#[test]
fn the_application_is_asked_for_an_engine() {
    let engine = own_engine(1);
    let pipeline = gst::Pipeline::new();
    let answer = engine.clone();
    pipeline.bus().unwrap().set_sync_handler(move |_, message| {
        if let gst::MessageView::NeedContext(need) = message.view()
            && need.context_type() == ENGINE_CONTEXT
        {
            let element = message.src().unwrap().downcast_ref::<gst::Element>().unwrap();
            element.set_context(&engine_context(answer.clone()));
        }
        gst::BusSyncReply::Pass
    });
    let element = without_model();
    pipeline.add(&element).unwrap();
    let before = Arc::strong_count(&engine);
    pipeline.set_state(gst::State::Ready).unwrap();
    let bus = pipeline.bus().unwrap();
    loop {
        let kinds = [gst::MessageType::Progress, gst::MessageType::Error];
        let message = bus.timed_pop_filtered(60 * gst::ClockTime::SECOND, &kinds).expect("one comes");
        let gst::MessageView::Progress(progress) = message.view() else { panic!("{message:?}") };
        if progress.get().0 == gst::ProgressType::Complete {
            break;
        }
    }
    assert!(Arc::strong_count(&engine) > before + 1, "the context and the element hold it");
    pipeline.set_state(gst::State::Null).unwrap();
}

#[test]
fn two_hundred_elements_cost_what_their_streams_do() {
    let one = Bench::with(element(), false);
    one.wait_for_model();
    let play = |count: usize| -> Vec<Bench> {
        let play = |_| {
            let mut bench = Bench::with(element(), false);
            bench.push(&speech(SHORT)[..24_000], ZERO, 24_000);
            bench
        };
        (0..count).map(play).collect()
    };
    // What a first stream brings with it, threads and scratch, is there then.
    let first = play(8);
    let before = status("VmRSS");
    let all = play(192);
    let each = (status("VmRSS") - before) / all.len();
    assert!(each < 4_000, "{each} kB an element; a stream takes some 2 MB");
    drop((first, all));
}

#[test]
fn presets_are_found_and_recognise() {
    init();
    gst::Preset::set_app_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/presets")).unwrap();
    let mut latencies = Vec::new();
    for name in ["low-latency", "balanced", "accurate"] {
        let element = element();
        let preset = element.dynamic_cast_ref::<gst::Preset>().unwrap();
        assert!(preset.preset_names().iter().any(|known| known == name), "{:?}", preset.preset_names());
        preset.load_preset(name).unwrap();
        let mut bench = Bench::with(element, true);
        bench.push(&speech(SHORT), ZERO, 20 * MS);
        latencies.push(bench.harness.query_latency().unwrap());
        assert!(!words(&bench.drain()).is_empty());
        bench.assert_no_errors();
    }
    assert!(latencies.is_sorted_by(|a, b| a < b), "{latencies:?}");
}
