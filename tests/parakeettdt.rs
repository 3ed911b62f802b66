// SPDX-License-Identifier: MPL-2.0
//! The element's pads: caps, latency, the order of what leaves, and every kind of input that is not plain speech.

mod common;

use common::*;
use gst::prelude::*;

const SECOND: gst::ClockTime = gst::ClockTime::SECOND;
const ZERO: gst::ClockTime = gst::ClockTime::ZERO;

fn short() -> (Vec<i16>, String) {
    (speech(SHORT), expected(SHORT, "70,13").text)
}

#[test]
fn only_16_khz_mono_is_accepted() {
    let element = element();
    let pad = element.static_pad("sink").unwrap();
    let accepts = |caps: &str| pad.query_accept_caps(&caps.parse().unwrap());
    assert!(accepts(S16));
    assert!(accepts(F32));
    for wrong in ["rate=16000,channels=2", "rate=48000,channels=1", "rate=0,channels=0"] {
        assert!(!accepts(&format!("audio/x-raw,format=S16LE,layout=interleaved,{wrong}")), "{wrong}");
    }
    assert!(!accepts("audio/x-raw,format=S32LE,rate=16000,channels=1,layout=interleaved"));
    let caps = element.static_pad("src").unwrap().query_caps(None);
    assert_eq!(caps.to_string(), "text/x-raw, format=(string)utf8; application/x-json");
}

#[test]
fn properties_have_the_types_that_transcriberbin_looks_for() {
    let element = element();
    assert_eq!(element.property::<String>("language-code"), "en-US");
    element.set_property("language-code", "de-DE");
    assert_eq!(element.property::<String>("language-code"), "de-DE");
    for name in ["latency", "transcribe-latency", "lateness", "max-observed-delay", "look-ahead"] {
        assert_eq!(element.find_property(name).unwrap().value_type(), u32::static_type(), "{name}");
    }
    element.set_property("model", None::<String>);
    assert_eq!(element.property::<Option<String>>("model"), None);
    let class = element.metadata("klass").unwrap();
    assert_eq!(class, "Audio/Text/Filter");
    assert_eq!(element.factory().unwrap().rank(), gst::Rank::NONE);
    assert_eq!(element.type_().name(), "GstParakeetTdt");
}

#[test]
fn without_a_live_source_there_is_no_latency() {
    let mut bench = Bench::new();
    let mut query = gst::query::Latency::new();
    assert!(bench.element.static_pad("src").unwrap().query(&mut query));
    assert_eq!((query.result().0, query.result().1), (false, ZERO));
    bench.push(&[0; 1_600], ZERO, 320);
    bench.drain();
}

#[test]
fn everything_leaves_in_order() {
    let (pcm, expected) = short();
    let mut bench = Bench::new();
    let start = 5 * SECOND;
    let end = bench.push(&pcm, start, 20 * MS);
    let outs = bench.drain();
    let order = [
        gst::EventType::StreamStart,
        gst::EventType::Caps,
        gst::EventType::Segment,
        gst::EventType::Tag,
        gst::EventType::CustomDownstream,
        gst::EventType::Eos,
    ];
    assert_eq!(events(&outs), order);
    let Some(Out::Event(first)) = outs.first() else { panic!("{outs:?}") };
    let gst::EventView::StreamStart(start_event) = first.view() else { panic!("{first:?}") };
    assert!(start_event.stream_flags().contains(gst::StreamFlags::SPARSE), "text has holes");
    assert!(matches!(outs.last(), Some(Out::Event(_))), "nothing comes after EOS");
    assert_eq!(text(&outs), expected);
    assert_eq!(assert_contiguous(&outs), Some((start, end)));
    let is_discont = |out: &Out| matches!(out, Out::Word { discont: true, .. });
    assert_eq!(outs.iter().filter(|out| is_discont(out)).count(), 1, "the first word only");
    bench.assert_no_errors();
}

#[test]
fn tags_keep_their_place_among_the_words() {
    let (pcm, expected) = short();
    let mut bench = Bench::new();
    let at = bench.push(&pcm, ZERO, 20 * MS);
    let mut tags = gst::TagList::new();
    tags.make_mut().add::<gst::tags::Title>(&"second", gst::TagMergeMode::Append);
    bench.harness.push_event(gst::event::Tag::new(tags));
    bench.push(&pcm, at, 20 * MS);
    let outs = bench.drain();
    let is_tag = |out: &Out| match out {
        Out::Event(event) => match event.view() {
            gst::EventView::Tag(tag) => tag.tag().get::<gst::tags::Title>().is_some(),
            _ => false,
        },
        _ => false,
    };
    let tag = outs.iter().position(is_tag);
    let (before, after) = outs.split_at(tag.expect("the tag came through"));
    assert!(starts(before).iter().all(|start| *start < at));
    assert!(starts(after).iter().all(|start| *start >= at));
    assert_eq!(words(before).len(), expected.split(' ').count());
}

#[test]
fn the_end_without_audio_comes_at_once() {
    let mut bench = Bench::new();
    bench.harness.push_event(gst::event::StreamStart::new("again"));
    assert!(words(&bench.drain()).is_empty());
}

#[test]
fn a_second_stream_starts_its_own_timeline() {
    let (pcm, expected) = short();
    let mut bench = Bench::new();
    for id in ["one", "two"] {
        if id == "two" {
            assert!(bench.harness.push_event(gst::event::StreamStart::new(id)));
            let segment = gst::FormattedSegment::<gst::ClockTime>::new();
            assert!(bench.harness.push_event(gst::event::Segment::new(&segment)));
        }
        let end = bench.push(&pcm, ZERO, 20 * MS);
        let outs = bench.drain();
        assert_eq!(text(&outs), expected);
        assert_eq!(assert_contiguous(&outs), Some((ZERO, end)));
    }
}

#[test]
fn a_flush_forgets_and_goes_on() {
    let (pcm, expected) = short();
    let mut bench = Bench::new();
    bench.wait_for_model();
    for round in 0..3u64 {
        bench.push(&speech("0870")[..40_000], ZERO, 20 * MS);
        flush(&mut bench);
        bench.so_far();
        let start = round * 100 * SECOND;
        let end = bench.push(&pcm, start, 20 * MS);
        let outs = bench.drain();
        assert_eq!(text(&outs), expected, "round {round}");
        assert_eq!(assert_contiguous(&outs), Some((start, end)));
        flush(&mut bench);
        bench.until(gst::EventType::FlushStop);
    }
    assert!(bench.bus.pop_filtered(&[gst::MessageType::Progress]).is_none(), "the model stays loaded");
    bench.assert_no_errors();
}

#[test]
fn a_flush_before_the_model_is_loaded_loses_no_sticky_event() {
    let (pcm, expected) = short();
    let mut bench = Bench::new();
    flush(&mut bench);
    bench.push(&pcm, ZERO, 20 * MS);
    let outs = bench.drain();
    assert_eq!(text(&outs), expected);
    let pad = bench.element.static_pad("src").unwrap();
    assert!(pad.current_caps().is_some() && pad.stream_id().is_some());
}

#[test]
fn a_flush_frees_a_blocked_source() {
    let mut bench = Bench::new();
    let pad = bench.element.static_pad("sink").unwrap();
    let pusher = std::thread::spawn({
        let pad = pad.clone();
        move || {
            let hour = vec![0i16; 3_600 * 16_000];
            pad.chain(buffer(&hour, Some(ZERO)))
        }
    });
    std::thread::sleep(std::time::Duration::from_millis(300));
    assert!(pad.send_event(gst::event::FlushStart::new()));
    assert_eq!(pusher.join().unwrap(), Err(gst::FlowError::Flushing));
    assert!(pad.send_event(gst::event::FlushStop::new(true)));
    let segment = gst::FormattedSegment::<gst::ClockTime>::new();
    assert!(pad.send_event(gst::event::Segment::new(&segment)));
    let (pcm, expected) = short();
    bench.push(&pcm, ZERO, 20 * MS);
    assert_eq!(text(&bench.drain()), expected);
}

#[test]
fn short_gaps_are_silence() {
    let (pcm, expected) = short();
    let mut bench = Bench::new();
    let at = bench.push(&pcm, ZERO, 20 * MS);
    assert!(bench.harness.push_event(gst::event::Gap::builder(at).duration(SECOND).build()));
    let end = bench.push(&pcm, at + SECOND, 20 * MS);
    let outs = bench.drain();
    assert!(words(&outs).len() >= expected.split(' ').count());
    assert_eq!(assert_contiguous(&outs), Some((ZERO, end)));
}

#[test]
fn long_gaps_separate_and_are_known_downstream_at_once() {
    let (pcm, expected) = short();
    let mut bench = Bench::new();
    let gap = |start| gst::event::Gap::builder(start).duration(30 * SECOND).build();
    let mut outs = Vec::new();
    let mut wait_until = |bench: &Bench, position| {
        while assert_contiguous(&outs).is_none_or(|span| span.1 < position) {
            outs.push(bench.next_out());
        }
        text(&outs)
    };
    assert!(bench.harness.push_event(gap(ZERO)));
    wait_until(&bench, 30 * SECOND);
    let end = bench.push(&pcm, 30 * SECOND, 20 * MS);
    assert!(bench.harness.push_event(gap(end)));
    assert_eq!(wait_until(&bench, end + 30 * SECOND), expected);
    let last = bench.push(&pcm, end + 30 * SECOND, 20 * MS);
    outs.extend(bench.drain());
    assert_eq!(text(&outs), format!("{expected} {expected}"));
    assert_eq!(assert_contiguous(&outs), Some((ZERO, last)));
}

#[test]
fn buffers_flagged_as_gap_are_silence() {
    let mut bench = Bench::new();
    for n in 0..100u64 {
        let mut noise = buffer(&[30_000; 320], Some(n * time(320)));
        noise.get_mut().unwrap().set_flags(gst::BufferFlags::GAP);
        bench.harness.push(noise).unwrap();
    }
    let outs = bench.drain();
    assert!(words(&outs).is_empty());
    assert_eq!(assert_contiguous(&outs), Some((ZERO, 2 * SECOND)));
}

#[test]
fn audio_outside_of_the_segment_is_not_heard() {
    let (pcm, expected) = short();
    let mut bench = Bench::new();
    let mut segment = gst::FormattedSegment::<gst::ClockTime>::new();
    segment.set_start(10 * SECOND);
    assert!(bench.harness.push_event(gst::event::Segment::new(&segment)));
    bench.push(&speech("0870")[..8_000], SECOND, 20 * MS);
    // The first buffer reaches a second into the segment's past.
    let early: Vec<i16> = [vec![20_000; 16_000], pcm].concat();
    bench.push(&early, 9 * SECOND, usize::MAX);
    let outs = bench.drain();
    assert_eq!(text(&outs), expected);
    assert_eq!(assert_contiguous(&outs).unwrap().0, ZERO, "the running time of the segment's start");
}

#[test]
fn audio_without_time_stamps_continues_and_is_never_guessed() {
    let (pcm, expected) = short();
    let mut bench = Bench::new();
    bench.harness.push(buffer(&[20_000; 320], None)).unwrap();
    bench.harness.push(buffer(&[20_000; 320], None)).unwrap();
    let warning = bench.message(gst::MessageType::Warning);
    let gst::MessageView::Warning(warning) = warning.view() else { unreachable!() };
    assert!(warning.error().to_string().contains("time stamp"));
    assert!(bench.bus.pop_filtered(&[gst::MessageType::Warning]).is_none(), "one warning");
    let (first, rest) = pcm.split_at(320);
    bench.harness.push(buffer(first, Some(SECOND))).unwrap();
    for piece in rest.chunks(320) {
        bench.harness.push(buffer(piece, None)).unwrap();
    }
    let outs = bench.drain();
    assert_eq!(text(&outs), expected);
    assert_eq!(assert_contiguous(&outs), Some((SECOND, SECOND + time(pcm.len()))));
}

#[test]
fn samples_that_are_no_numbers_are_silence() {
    let mut bench = Bench::new();
    bench.harness.set_src_caps_str(F32);
    let (pcm, expected) = short();
    let pcm: Vec<f32> = pcm.iter().map(|sample| f32::from(*sample) / 32_768.0).collect();
    let broken: Vec<f32> = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::NAN].repeat(2_000);
    bench.harness.push(buffer_f32(&broken, Some(ZERO))).unwrap();
    bench.harness.push(buffer_f32(&broken, Some(time(8_000)))).unwrap();
    bench.message(gst::MessageType::Warning);
    assert!(bench.bus.pop_filtered(&[gst::MessageType::Warning]).is_none(), "one warning");
    bench.harness.push(buffer_f32(&pcm, Some(60 * SECOND))).unwrap();
    assert_eq!(text(&bench.drain()), expected);
}

#[test]
fn empty_buffers_are_nothing() {
    let (pcm, expected) = short();
    let mut bench = Bench::new();
    for (n, piece) in pcm.chunks(3_200).enumerate() {
        bench.harness.push(buffer(&[], None)).unwrap();
        bench.harness.push(buffer(piece, Some(time(n * 3_200)))).unwrap();
        bench.harness.push(buffer(&[], Some(500 * SECOND))).unwrap();
    }
    assert_eq!(text(&bench.drain()), expected);
    assert!(bench.bus.pop_filtered(&[gst::MessageType::Warning]).is_none());
}

#[test]
fn half_a_sample_is_an_error() {
    let mut bench = Bench::new();
    let mut odd = gst::Buffer::from_mut_slice(vec![0u8; 321]);
    odd.get_mut().unwrap().set_pts(ZERO);
    assert_eq!(bench.harness.push(odd), Err(gst::FlowError::Error));
    bench.message(gst::MessageType::Error);
}

#[test]
fn a_segment_in_bytes_is_an_error() {
    let mut bench = Bench::new();
    let segment = gst::FormattedSegment::<gst::format::Bytes>::new();
    bench.harness.push_event(gst::event::Segment::new(&segment));
    bench.message(gst::MessageType::Error);
}

#[test]
fn what_downstream_returns_reaches_the_source() {
    for error in [gst::FlowError::Eos, gst::FlowError::NotLinked, gst::FlowError::Error] {
        let mut bench = Bench::new();
        let pad = bench.element.static_pad("src").unwrap();
        pad.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
            info.flow_res = Err(error);
            gst::PadProbeReturn::Handled
        });
        let mut at = ZERO;
        let pcm = speech("0870");
        let returned = (0..10_000).find_map(|_| {
            let piece = &pcm[time_to_samples(at) % (pcm.len() - 1_600)..][..1_600];
            let flow = bench.harness.push(buffer(piece, Some(at)));
            at += time(1_600);
            flow.err()
        });
        assert_eq!(returned, Some(error));
    }
}

fn time_to_samples(time: gst::ClockTime) -> usize {
    (time.nseconds() / 62_500) as usize
}

#[test]
fn a_refusal_after_the_end_is_an_error() {
    let (pcm, _) = short();
    let mut bench = Bench::new();
    bench.wait_for_model();
    let pad = bench.element.static_pad("src").unwrap();
    pad.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
        info.flow_res = Err(gst::FlowError::Error);
        gst::PadProbeReturn::Handled
    });
    // Less than a chunk, so that no word leaves before the end.
    bench.push(&pcm[..14_000], ZERO, usize::MAX);
    let outs = bench.drain();
    assert_eq!(events(&outs).last(), Some(&gst::EventType::Eos));
    bench.message(gst::MessageType::Error);
}

/// The element, made to work on silence as on speech.
fn without_gate() -> gst::Element {
    let element = element();
    element.set_property("skip-silence", false);
    element
}

#[test]
fn a_live_source_never_waits_and_is_told_what_was_lost() {
    let mut bench = Bench::with(without_gate(), true);
    let second = vec![0i16; 16_000];
    for n in 0..200u64 {
        bench.harness.push(buffer(&second, Some(n * SECOND))).unwrap();
    }
    let outs = bench.drain();
    assert_eq!(assert_contiguous(&outs), Some((ZERO, 200 * SECOND)));
    let mut lost = ZERO;
    while let Some(message) = bench.bus.pop_filtered(&[gst::MessageType::Warning]) {
        let gst::MessageView::Warning(warning) = message.view() else { unreachable!() };
        let details = warning.details().expect("a loss has details");
        assert_eq!(details.name(), "parakeettdt/audio-dropped");
        lost += details.get::<gst::ClockTime>("duration").unwrap();
    }
    assert!(lost > ZERO && lost < 200 * SECOND, "lost {lost}");
    bench.assert_no_errors();
}

#[test]
fn after_a_loss_the_next_word_is_a_discontinuity() {
    let pcm = speech(SHORT);
    let mut bench = Bench::with(without_gate(), true);
    bench.wait_for_model();
    let mut at = bench.push(&pcm, ZERO, 1_600);
    // With its first word out, the first sentence is being decoded when the flood comes.
    while !matches!(bench.next_out(), Out::Word { .. }) {}
    let silence = vec![0i16; 100 * 16_000];
    at = bench.push(&silence, at, 16_000);
    bench.push(&pcm, at, 1_600);
    let outs = bench.drain();
    let loss = bench.message(gst::MessageType::Warning);
    let gst::MessageView::Warning(loss) = loss.view() else { unreachable!() };
    let lost: gst::ClockTime = loss.details().unwrap().get("duration").unwrap();
    assert!(lost >= SECOND, "lost {lost}");
    let after: Vec<bool> = outs
        .iter()
        .filter_map(|out| match out {
            Out::Word { start, discont, .. } if *start >= at => Some(*discont),
            _ => None,
        })
        .collect();
    assert!(after.len() > 2, "the sentence after the loss is heard: {outs:?}");
    assert!(after[0] && after[1..].iter().all(|discont| !discont), "{after:?}");
    bench.assert_no_errors();
}
