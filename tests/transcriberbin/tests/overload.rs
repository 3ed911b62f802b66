// SPDX-License-Identifier: MPL-2.0
//! A recogniser that is too slow for a while: transcriberbin's queue before it loses audio, and captions go on after that.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use gst::prelude::*;
use transcriberbin_test::{Bench, words};

/// Longer than the pipeline takes on a slow machine.
const PATIENCE: Duration = Duration::from_secs(150);

#[test]
fn captions_go_on_after_audio_that_the_queue_lost() {
    let bench = Bench::new("", 5);
    let is_slow = Arc::new(AtomicBool::new(false));
    let slow = is_slow.clone();
    let sink = bench.transcriber.static_pad("sink").expect("it has one");
    sink.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
        let length = info.buffer().and_then(|buffer| buffer.duration()).unwrap_or_default();
        if slow.load(Ordering::Relaxed) {
            // As if recognition took four times as long as what it hears.
            std::thread::sleep(4 * Duration::from(length));
        }
        gst::PadProbeReturn::Ok
    });
    bench.play();
    bench.wait(PATIENCE, |bench| bench.text().split(' ').count() > 4);
    is_slow.store(true, Ordering::Relaxed);
    std::thread::sleep(Duration::from_secs(12));
    is_slow.store(false, Ordering::Relaxed);
    bench.finish(PATIENCE);
    assert!(!bench.passes_through());
    let stats: gst::Structure = bench.transcriber.property("stats");
    let counted = |name| stats.get::<u64>(name).expect("it is counted");
    assert!(counted("missing-audio") > 1_000_000_000, "{stats}");
    // What the queue let through too late.
    let dropped = bench.told("parakeettdt/audio-dropped");
    let dropped = dropped.iter().map(|told| told.get::<u64>("duration").expect("it is told how much"));
    assert_eq!(dropped.sum::<u64>(), counted("dropped-audio"), "{stats}");
    assert!(bench.text().ends_with(&words()), "{}", bench.text());
}
