// SPDX-License-Identifier: MPL-2.0
//! What transcriberbin makes of an element that can't work: the picture goes on without captions.

use std::time::Duration;

use gst::prelude::*;
use transcriberbin_test::{Bench, model};

/// Longer than any of these pipelines takes on a slow machine.
const PATIENCE: Duration = Duration::from_secs(90);

#[test]
fn passthrough_from_the_start_reaches_the_end() {
    let bench = Bench::new("", 1);
    bench.bin.set_property("passthrough", true);
    bench.play();
    bench.finish(PATIENCE);
    assert_eq!((bench.frames(), bench.text()), (bench.frames_in(), String::new()));
}

#[test]
fn an_error_turns_captions_off_and_the_picture_reaches_its_end() {
    let truncated = model(Some(1_000_000));
    let truncated = format!("model={}", truncated.path().display());
    let mut wrong = vec!["model=/no/such", &truncated, "device=gpu", "look-ahead=400"];
    if parakeet_engine::backend::cuda::count().is_err() {
        wrong.push("backend=cuda");
    }
    let benches = wrong.into_iter().map(|properties| (Bench::new(properties, 1), properties));
    let benches: Vec<_> = benches.inspect(|(bench, _)| bench.play()).collect();
    for (bench, properties) in benches {
        bench.finish(PATIENCE);
        assert!(bench.passes_through(), "{properties}");
        assert_eq!((bench.frames(), bench.text()), (bench.frames_in(), String::new()), "{properties}");
    }
}

#[test]
fn a_bin_may_go_while_the_element_in_it_posts_an_error() {
    // Errors are posted 0.1 s after the element was started.
    for round in 0..60 {
        let bench = Bench::new("model=/no/such", 1);
        bench.pause();
        std::thread::sleep(Duration::from_millis(95 + round % 12));
    }
}

#[test]
fn a_translation_that_nothing_makes_is_an_error() {
    let bench = Bench::new("", 1);
    let languages =
        gst::Structure::builder("languages").field("transcript", "708_1").field("fr", "708_2").build();
    bench.bin.set_property("translation-languages", languages);
    // Either at once, or as soon as the pipeline runs.
    let _ = bench.pipeline.set_state(gst::State::Playing);
    let bus = bench.pipeline.bus().expect("a pipeline has one");
    let patience = gst::ClockTime::try_from(PATIENCE).expect("a short time");
    let message = bus.timed_pop_filtered(patience, &[gst::MessageType::Error]).expect("it is told");
    let gst::MessageView::Error(error) = message.view() else { unreachable!() };
    assert_eq!(error.src(), Some(bench.bin.upcast_ref::<gst::Object>()));
    let reason = error.debug().unwrap_or_default();
    assert!(reason.contains("translation source pad"), "{reason}");
}
