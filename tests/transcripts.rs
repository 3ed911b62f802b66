// SPDX-License-Identifier: MPL-2.0
//! The element's words are those of one pass of the engine, whatever the context, buffer size and format.

mod common;

use common::*;
use gst::prelude::*;

const CLIPS: [&str; 5] = ["0870", "0880", "0890", "0920", "0930"];

/// Pushes a clip and checks words and their starts.
fn check(clip: &str, look_ahead: Option<u32>, context: &str, size: usize) {
    let element = element();
    if let Some(frames) = look_ahead {
        element.set_property("look-ahead", frames * 80);
    }
    let mut bench = Bench::with(element, false);
    let pcm = speech(clip);
    let end = bench.push(&pcm, gst::ClockTime::ZERO, size);
    let outs = bench.drain();
    let expected = expected(clip, context);
    let case = format!("{clip}, context {context}, buffers of {size} samples");
    assert_eq!(text(&outs), expected.text, "{case}");
    for ((word, sample), start) in expected.words.iter().zip(starts(&outs)) {
        assert_eq!(start, time(*sample as usize), "start of {word} in {case}");
    }
    assert_eq!(assert_contiguous(&outs), Some((gst::ClockTime::ZERO, end)), "{case}");
    bench.assert_no_errors();
}

#[test]
fn every_clip_in_the_first_context() {
    for clip in CLIPS {
        check(clip, None, "70,13", 20 * MS);
    }
}

#[test]
fn every_context() {
    for (look_ahead, context) in [(13, "70,13"), (6, "70,6"), (1, "70,1"), (0, "70,0")] {
        check("0890", Some(look_ahead), context, 64 * MS);
        check("0930", Some(look_ahead), context, 64 * MS);
    }
}

#[test]
fn every_buffer_size() {
    for size in [MS, 10 * MS, 333, 1_000 * MS, usize::MAX] {
        check(SHORT, None, "70,13", size);
    }
    for size in [MS, usize::MAX] {
        check(SHORT, Some(0), "70,0", size);
    }
}

#[test]
fn floats_give_the_same_words() {
    let mut bench = Bench::new();
    bench.harness.set_src_caps_str(F32);
    let pcm: Vec<f32> = speech(SHORT).iter().map(|sample| f32::from(*sample) / 32_768.0).collect();
    bench.harness.push(buffer_f32(&pcm, Some(gst::ClockTime::ZERO))).unwrap();
    assert_eq!(text(&bench.drain()), expected(SHORT, "70,13").text);
}

#[test]
fn the_format_may_change_within_a_sentence() {
    let pcm = speech(SHORT);
    let (begin, rest) = pcm.split_at(pcm.len() / 2);
    let mut bench = Bench::new();
    let at = bench.push(begin, gst::ClockTime::ZERO, 20 * MS);
    bench.harness.set_src_caps_str(F32);
    let rest: Vec<f32> = rest.iter().map(|sample| f32::from(*sample) / 32_768.0).collect();
    bench.harness.push(buffer_f32(&rest, Some(at))).unwrap();
    assert_eq!(text(&bench.drain()), expected(SHORT, "70,13").text);
}
