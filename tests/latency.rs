// SPDX-License-Identifier: MPL-2.0
//! The latency of a live pipeline: what is answered, that it holds, and what happens when recognition is too slow.

mod common;

use common::*;
use gst::prelude::*;
use gstparakeet::parakeettdt::engine_context;
use parakeet_engine::model::ModelConfig;
use std::sync::mpsc;

const SECOND: gst::ClockTime = gst::ClockTime::SECOND;
const ZERO: gst::ClockTime = gst::ClockTime::ZERO;

fn ms(ms: u64) -> gst::ClockTime {
    gst::ClockTime::from_mseconds(ms)
}

/// What the first word takes beyond the audio that the model hears.
const WORD: u64 = 1_000;

/// How long after a word begins the model emits it, in ms.
fn delay() -> u64 {
    let config = ModelConfig::read(&embedded().join("config.json")).expect("the embedded model is sound");
    config.emission_delay_ms.into()
}

/// What the model hears beyond where a word is spoken, in ms rounded up, with a look-ahead of so many frames.
fn heard(look_ahead: u64) -> u64 {
    (look_ahead * 1_280 + 200).div_ceil(16) + delay()
}

#[test]
fn a_live_source_is_told_the_whole_latency() {
    let element = element();
    let mut bench = Bench::with(element, true);
    bench.harness.set_upstream_latency(ms(20));
    let answer = |bench: &Bench| bench.harness.query_latency().unwrap();
    assert_eq!(answer(&bench), ms(20 + heard(13) + WORD), "what the model takes at its best");
    bench.push(&[0; 32_000], ZERO, 320);
    bench.wait_for_model();
    // A gap says that the stream is open.
    while !matches!(bench.next_out(), Out::Gap { .. }) {}
    assert_eq!(answer(&bench), ms(20 + heard(13) + WORD));
    assert!(bench.bus.pop_filtered(&[gst::MessageType::Latency]).is_none());
    for (set, other) in [("latency", "transcribe-latency"), ("transcribe-latency", "latency")] {
        let value = if set == "latency" { 4_000_u32 } else { 5_000 };
        bench.element.set_property(set, value);
        assert_eq!(bench.element.property::<u32>(other), value);
        bench.message(gst::MessageType::Latency);
        assert_eq!(answer(&bench), ms(20) + ms(value.into()), "no more and no less");
    }
    bench.element.set_property("latency", 100_u32);
    assert_eq!(answer(&bench), ms(20 + heard(13) + WORD), "the look-ahead is in use");
}

#[test]
fn the_look_ahead_is_chosen_to_fit_the_latency() {
    for (beyond, look_ahead) in [(4_000, 13), (2_100, 13), (2_000, 6), (1_100, 1), (1_050, 0), (10, 0)] {
        let latency = delay() + beyond;
        let element = element();
        element.set_property("latency", latency as u32);
        let mut bench = Bench::with(element, true);
        let least = heard(look_ahead) + WORD;
        let answer = latency.max(least);
        assert_eq!(bench.harness.query_latency().unwrap(), ms(answer), "latency {latency}");
        let is_raised = answer > latency;
        let told = bench.bus.pop_filtered(&[gst::MessageType::Latency]).is_some();
        assert_eq!(told, is_raised, "latency {latency}");
        bench.push(&speech("0890"), ZERO, 20 * MS);
        let expected = expected("0890", &format!("70,{look_ahead}")).text;
        assert_eq!(text(&bench.drain()), expected, "latency {latency}");
    }
}

/// Each text that leaves, with the time on the test clock at which it does.
fn texts_in_time(element: &gst::Element) -> mpsc::Receiver<(gst::ClockTime, String, gst::ClockTime)> {
    let (sender, texts) = mpsc::channel();
    let weak = element.downgrade();
    element.static_pad("src").unwrap().add_probe(gst::PadProbeType::BUFFER, move |_, info| {
        let Some(gst::PadProbeData::Buffer(buffer)) = &info.data else { unreachable!() };
        let text = String::from_utf8(buffer.map_readable().unwrap().to_vec()).unwrap();
        let now = weak.upgrade().unwrap().current_running_time().unwrap();
        // The test may have heard enough.
        let _ = sender.send((buffer.pts().unwrap(), text, now));
        gst::PadProbeReturn::Ok
    });
    texts
}

#[test]
fn a_unit_is_cut_short_when_its_time_is_up() {
    let pcm = speech("0870");
    let whole = expected("0870", "70,13");
    for (unit, latency) in [("phrase", 2_500), ("sentence", 4_000), ("sentence", 2_060)] {
        let element = element();
        element.set_property_from_str("text-unit", unit);
        element.set_property("latency", latency as u32);
        element.set_property("partials", true);
        let texts = texts_in_time(&element);
        let mut bench = Bench::with(element, true);
        bench.harness.set_time(ZERO).unwrap();
        bench.wait_for_model();
        bench.push(&pcm, ZERO, 20 * MS);
        // The clock stands still until all that can be decoded is.
        while bench.bus.timed_pop_filtered(3 * SECOND, &[gst::MessageType::Element]).is_some() {}
        let mut outs = Vec::new();
        while words(&outs).join(" ").split(' ').count() < whole.words.len() {
            outs.push(bench.next_in_time());
        }
        assert_eq!(text(&outs), whole.text, "{unit}, {latency}: no word is lost or cut");
        assert_contiguous(&outs);
        let texts: Vec<_> = texts.try_iter().collect();
        assert!(texts.len() > 1, "{texts:?}");
        for (start, text, now) in &texts {
            assert!(*now <= *start + ms(latency), "{text:?} of {start} leaves at {now}");
        }
        let longest = texts.iter().map(|(_, text, _)| text.split(' ').count()).max();
        assert!(longest > Some(1), "{texts:?}");
    }
}

#[test]
fn without_a_latency_a_live_unit_is_what_it_is_of_a_file() {
    for unit in ["phrase", "sentence"] {
        let mut heard = Vec::new();
        for live in [false, true] {
            let element = element();
            element.set_property_from_str("text-unit", unit);
            let mut bench = Bench::with(element, live);
            bench.push(&speech("0870"), ZERO, 20 * MS);
            heard.push(words(&bench.drain()));
        }
        assert_eq!(heard[0], heard[1]);
    }
    let element = element();
    element.set_property_from_str("text-unit", "phrase");
    let bench = Bench::with(element, true);
    assert_eq!(bench.harness.query_latency().unwrap(), ms(heard(13) + WORD + 7_000));
}

#[test]
fn the_last_words_dont_wait_for_more_audio() {
    for (look_ahead, wait) in [(13, true), (13, false), (0, true)] {
        let element = element();
        element.set_property("look-ahead", look_ahead as u32 * 80);
        let mut bench = Bench::with(element, true);
        if wait {
            bench.wait_for_model();
        }
        let pcm = speech(SHORT);
        bench.push(&pcm, ZERO, 20 * MS);
        let expected = expected(SHORT, &format!("70,{look_ahead}"));
        let mut outs = Vec::new();
        while words(&outs).len() < expected.words.len() {
            outs.push(bench.next_in_time());
        }
        assert_eq!(text(&outs), expected.text);
        let now = bench.element.current_running_time().unwrap();
        let last = *starts(&outs).last().unwrap();
        assert!(now <= last + ms(heard(look_ahead) + WORD), "{now}");
        // The source goes on.
        bench.push(&pcm, now + 60 * SECOND, 20 * MS);
        outs.extend(bench.drain());
        assert_eq!(text(&outs), format!("{0} {0}", expected.text));
        bench.assert_no_errors();
    }
}

#[test]
fn a_word_after_a_pause_doesnt_wait_for_a_whole_chunk() {
    let mut bench = Bench::with(element(), true);
    bench.wait_for_model();
    let pcm = speech(SHORT);
    bench.push(&pcm, ZERO, 20 * MS);
    let end = bench.pause(time(pcm.len()), 10 * SECOND);
    let clock = bench.harness.testclock().unwrap();
    // The element looks whether more is to be awaited.
    for _ in 0..5 {
        if clock.peek_id_count() > 0 {
            clock.crank();
        }
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    assert!(clock.time() < end);
    clock.set_time(end);
    assert_eq!(clock.peek_id_count(), 0);
    let (word, start) = expected(SHORT, "70,13").words.pop().unwrap();
    let last = &pcm[start as usize - 200 * MS..];
    assert!(last.len() < 1_120 * MS, "{word} is short");
    bench.push(last, end, 20 * MS);
    while !matches!(bench.next_in_time(), Out::Word { .. }) {}
    bench.assert_no_errors();
}

#[test]
fn a_gap_without_end_means_until_now() {
    let element = element();
    // The clock jumps, and nothing is to be too late for it.
    element.set_property_from_str("overload", "block");
    let mut bench = Bench::with(element, true);
    bench.harness.set_upstream_latency(ms(100));
    bench.wait_for_model();
    let end = bench.push(&speech(SHORT), ZERO, 20 * MS);
    bench.harness.set_time(10 * SECOND).unwrap();
    assert!(bench.harness.push_event(gst::event::Gap::builder(end).build()));
    let mut outs = Vec::new();
    while assert_contiguous(&outs).is_none_or(|span| span.1 < 10 * SECOND - ms(100)) {
        outs.push(bench.next_out());
    }
    assert_eq!(text(&outs), expected(SHORT, "70,13").text);
    assert_eq!(assert_contiguous(&outs).unwrap().1, 10 * SECOND - ms(100));
}

/// A bench with audio that waited for its turn for a second longer than there is time, and a sentence after it.
fn late(overload: &str) -> (Bench, Vec<Out>) {
    let held = Held::new();
    let element = element();
    element.set_context(&engine_context(held.engine.clone()));
    element.set_property("skip-silence", false);
    element.set_property("look-ahead", 80_u32);
    element.set_property_from_str("overload", overload);
    let mut bench = Bench::with(element, true);
    bench.wait_for_model();
    let hold = held.hold();
    // The first chunk is in a step, the others wait.
    let at = bench.push(&[0; 32_000], ZERO, 20 * MS);
    std::thread::sleep(std::time::Duration::from_millis(1_500));
    let at = bench.push(&[0; 320], at, 20 * MS);
    drop(hold);
    // Nothing waits any more.
    std::thread::sleep(std::time::Duration::from_millis(500));
    bench.push(&speech(SHORT), at, 20 * MS);
    let outs = bench.drain();
    (bench, outs)
}

#[test]
fn audio_that_is_too_late_is_dropped_and_counted() {
    let (bench, outs) = late("auto");
    let dropped: u64 = bench.element.property("dropped-audio");
    // What was too late, and half as much again as there is time.
    assert!(dropped >= SECOND.nseconds() && dropped < 2 * SECOND.nseconds(), "{dropped}");
    let stats: gst::Structure = bench.element.property("stats");
    assert_eq!(stats.get::<u64>("dropped-audio").unwrap(), dropped);
    assert_eq!(stats.get::<u64>("buffers").unwrap(), words(&outs).len() as u64);
    let devices = stats.get::<gst::Array>("devices").unwrap();
    let [device] = devices.as_slice() else { panic!("{devices:?}") };
    let device = device.get::<gst::Structure>().unwrap();
    let count = |name: &str| device.get::<u64>(name).unwrap();
    assert_eq!((count("streams"), count("dropped-audio")), (1, dropped), "{device:?}");
    assert!(count("chunks") >= count("steps") && count("steps") > 0, "{device:?}");
    assert!(0 < count("step-time-p50") && count("step-time-p50") <= count("step-time-max"), "{device:?}");
    assert!(count("lag-p50") <= count("lag-p95") && count("lag-p95") <= count("lag-max"), "{device:?}");
    assert_eq!(device.get::<f64>("batch-mean").unwrap(), 1.0);
    let message = bench.message(gst::MessageType::Element);
    let structure = message.structure().unwrap();
    assert_eq!(structure.name(), "parakeettdt/audio-dropped");
    assert_eq!(structure.get::<gst::ClockTime>("duration").unwrap().nseconds(), dropped);
    for field in ["timestamp", "running-time"] {
        assert!(structure.get::<gst::ClockTime>(field).unwrap() < SECOND / 2, "the oldest goes");
    }
    let discont: Vec<bool> = outs
        .iter()
        .filter_map(|out| if let Out::Word { discont, .. } = out { Some(*discont) } else { None })
        .collect();
    assert!(discont[0] && discont[1..].iter().all(|discont| !discont), "{discont:?}");
    assert!(words(&outs).len() > 5, "what is in time is heard: {outs:?}");
}

#[test]
fn nothing_is_dropped_where_the_source_is_to_wait() {
    let (bench, outs) = late("block");
    assert_eq!(bench.element.property::<u64>("dropped-audio"), 0);
    assert!(!words(&outs).is_empty());
    assert!(bench.bus.pop_filtered(&[gst::MessageType::Element]).is_none());
}

#[test]
fn the_greatest_delay_is_counted_from_when_audio_came() {
    let element = element();
    // The clock jumps, and nothing is to be too late for it.
    element.set_property_from_str("overload", "block");
    let mut bench = Bench::with(element, true);
    bench.wait_for_model();
    let (sender, notified) = mpsc::channel();
    bench.element.connect_notify(Some("max-observed-delay"), move |element, _| {
        // The test may have heard enough.
        let _ = sender.send(element.property::<u32>("max-observed-delay"));
    });
    bench.harness.set_time(5 * SECOND).unwrap();
    bench.push(&speech(SHORT), ZERO, 20 * MS);
    std::thread::sleep(std::time::Duration::from_millis(500));
    bench.harness.set_time(9 * SECOND).unwrap();
    bench.drain();
    let delay: u32 = bench.element.property("max-observed-delay");
    assert_eq!(delay, 4_000, "what came late is not late by that much more");
    assert_eq!(notified.try_iter().last(), Some(delay));
    let warning = bench.message(gst::MessageType::Warning);
    let gst::MessageView::Warning(warning) = warning.view() else { unreachable!() };
    assert_eq!(warning.details().unwrap().name(), "parakeettdt/excessive-delay");
    assert_eq!(
        bench.element.property::<gst::Structure>("stats").get::<u32>("max-observed-delay").unwrap(),
        delay
    );
}
