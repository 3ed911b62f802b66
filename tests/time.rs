// SPDX-License-Identifier: MPL-2.0
//! Time stamps as real feeds have them: jitter, bursts, losses, jumps; and the times that the text gets.

mod common;

use common::*;
use gst::prelude::*;
use proptest::{
    prelude::*,
    test_runner::{Config, TestRunner},
};

const SECOND: gst::ClockTime = gst::ClockTime::SECOND;
const ZERO: gst::ClockTime = gst::ClockTime::ZERO;

/// Samples of a packet of 20 ms.
const PACKET: usize = 20 * MS;

fn short() -> (Vec<i16>, String) {
    (speech(SHORT), expected(SHORT, "70,13").text)
}

/// All clips, with a second of silence between.
fn all_clips() -> Vec<i16> {
    ["0870", "0880", "0890", "0920", "0930"]
        .iter()
        .flat_map(|clip| [speech(clip), vec![0; 16_000]].concat())
        .collect()
}

/// One packet of a feed.
#[derive(Clone, Copy, Debug)]
struct Packet {
    lost: bool,
    discont: bool,
    /// Off in ms.
    jitter: i64,
}

/// What is heard of audio that comes in such packets, the last of them repeated.
fn heard(pcm: &[i16], packets: impl IntoIterator<Item = Packet>) -> Vec<Out> {
    let mut bench = Bench::new();
    let start = 10 * SECOND;
    for (number, (samples, packet)) in pcm.chunks(PACKET).zip(packets).enumerate() {
        if packet.lost {
            continue;
        }
        let stamp =
            (start + time(number * PACKET)).nseconds().saturating_add_signed(packet.jitter * 1_000_000);
        let mut buffer = buffer(samples, Some(gst::ClockTime::from_nseconds(stamp)));
        if packet.discont {
            buffer.get_mut().unwrap().set_flags(gst::BufferFlags::DISCONT);
        }
        bench.harness.push(buffer).unwrap();
    }
    let outs = bench.drain();
    bench.assert_no_errors();
    outs
}

const CLEAN: Packet = Packet { lost: false, discont: false, jitter: 0 };

#[test]
fn a_discontinuity_of_contiguous_audio_means_nothing() {
    let pcm = all_clips();
    let clean = heard(&pcm, std::iter::repeat(CLEAN));
    assert!(words(&clean).len() > 50);
    for every in [1, 7, 50] {
        let flagged = (0..).map(|n: usize| Packet { discont: n.is_multiple_of(every), ..CLEAN });
        let outs = heard(&pcm, flagged);
        assert_eq!(words(&outs), words(&clean), "DISCONT on every buffer of {every}");
        assert_eq!(starts(&outs), starts(&clean));
    }
}

/// Numbers that look random, from a seed (SplitMix64).
struct Numbers(u64);

impl Numbers {
    /// One below `limit`.
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % limit
    }
}

/// How a feed stamps its packets.
#[derive(Clone, Copy, Debug)]
enum Stamping {
    Exact,
    /// Off by up to 100 ms.
    Jitter,
    /// Up to twelve at once, stamped with when they came.
    Bursts,
}

/// A feed that loses `loss` of 100 packets and flags one of 20.
fn feed(seed: u64, loss: u64, stamping: Stamping) -> impl Iterator<Item = Packet> {
    let mut numbers = Numbers(seed);
    let mut left = 0;
    std::iter::repeat_with(move || {
        if left == 0 {
            left = 1 + numbers.below(12);
        }
        left -= 1;
        let jitter = match stamping {
            Stamping::Exact => 0,
            Stamping::Jitter => numbers.below(201) as i64 - 100,
            Stamping::Bursts => left as i64 * 20 + numbers.below(10) as i64,
        };
        Packet { lost: numbers.below(100) < loss, discont: numbers.below(20) == 0, jitter }
    })
}

#[test]
fn what_a_feed_does_to_its_time_stamps_costs_no_words() {
    let pcm = all_clips();
    let clean = words(&heard(&pcm, std::iter::repeat(CLEAN)));
    let stampings = vec![Stamping::Exact, Stamping::Jitter, Stamping::Bursts];
    let feeds = (any::<u64>(), 0u64..=5, prop::sample::select(stampings));
    let mut runner = TestRunner::new(Config { cases: 4, failure_persistence: None, ..Config::default() });
    runner
        .run(&feeds, |(seed, loss, stamping)| {
            let unspoilt = words(&heard(&pcm, feed(seed, 0, stamping)));
            prop_assert_eq!(&unspoilt, &clean, "without a loss not a sample is another");
            let said = words(&heard(&pcm, feed(seed, loss, stamping)));
            prop_assert!(said.len() * 100 >= clean.len() * 95, "{} of {} words", said.len(), clean.len());
            Ok(())
        })
        .unwrap();
}

#[test]
fn what_is_lost_is_as_good_as_silence() {
    let mut pcm = all_clips();
    for seed in 0..2 {
        let packets = || [CLEAN; 50].into_iter().chain(feed(seed, 5, Stamping::Exact));
        let outs = heard(&pcm, packets());
        let mut zeroed = pcm.clone();
        for (samples, packet) in zeroed.chunks_mut(PACKET).zip(packets()) {
            if packet.lost {
                samples.fill(0);
            }
        }
        let filled = heard(&zeroed, std::iter::repeat(CLEAN));
        assert_eq!((words(&outs), starts(&outs)), (words(&filled), starts(&filled)));
        pcm.rotate_left(160);
    }
}

#[test]
fn a_jump_in_time_starts_a_new_sentence_there() {
    let (pcm, expected) = short();
    let both = format!("{expected} {expected}");
    for flag in [false, true] {
        let start = 60 * SECOND;
        let mut bench = Bench::new();
        bench.push(&pcm, ZERO, 20 * MS);
        let mut first = buffer(&pcm[..320], Some(start));
        if flag {
            first.get_mut().unwrap().set_flags(gst::BufferFlags::DISCONT);
        }
        bench.harness.push(first).unwrap();
        let end = bench.push(&pcm[320..], start + time(320), 20 * MS);
        let outs = bench.drain();
        assert_eq!(text(&outs), both);
        let starts = starts(&outs);
        let (one, two) = starts.split_at(starts.len() / 2);
        assert!(one.iter().zip(two).all(|(one, two)| *one + start == *two));
        assert_eq!(assert_contiguous(&outs), Some((ZERO, end)));
    }
}

#[test]
fn time_that_jumps_back_starts_anew_there() {
    let (pcm, expected) = short();
    for (before, after) in [(3_600 * SECOND, ZERO), (10 * SECOND, 9 * SECOND)] {
        let mut bench = Bench::new();
        bench.push(&pcm, before, 20 * MS);
        bench.push(&pcm, after, 20 * MS);
        let outs = bench.drain();
        assert_eq!(text(&outs), format!("{expected} {expected}"));
        let starts = starts(&outs);
        let (one, two) = starts.split_at(starts.len() / 2);
        assert!(one.iter().zip(two).all(|(one, two)| *one - before == *two - after), "{starts:?}");
        for out in &outs {
            if let Out::Word { start, end, .. } = out {
                assert!(*end - *start >= gst::ClockTime::from_mseconds(80), "{out:?}");
            }
        }
        let second = outs.iter().filter(|out| matches!(out, Out::Word { .. })).nth(starts.len() / 2);
        assert!(matches!(second, Some(Out::Word { discont: true, .. })), "{second:?}");
    }
}

#[test]
fn cuts_all_the_time_are_told() {
    let (pcm, _) = short();
    let mut bench = Bench::new();
    for (number, piece) in pcm.chunks(PACKET).enumerate() {
        bench.harness.push(buffer(piece, Some(number as u64 * 2 * SECOND))).unwrap();
    }
    let warning = bench.message(gst::MessageType::Warning);
    let gst::MessageView::Warning(warning) = warning.view() else { unreachable!() };
    assert_eq!(warning.details().unwrap().name(), "parakeettdt/cut-audio");
    bench.drain();
    assert!(bench.bus.pop_filtered(&[gst::MessageType::Warning]).is_none(), "one warning");
    let stats: gst::Structure = bench.element.property("stats");
    let jumps = pcm.chunks(PACKET).count() as u64 - 1;
    assert_eq!(stats.get::<u64>("cuts").unwrap(), jumps);
    let missing = jumps * (2 * SECOND - time(PACKET)).nseconds();
    assert_eq!(stats.get::<u64>("missing-audio").unwrap(), missing);
}

/// Segment events of a record, with the place of each.
fn segments(outs: &[Out]) -> Vec<(usize, gst::FormattedSegment<gst::ClockTime>)> {
    let segment = |(index, out): (usize, &Out)| match out {
        Out::Event(event) => match event.view() {
            gst::EventView::Segment(segment) => {
                Some((index, segment.segment().downcast_ref().unwrap().clone()))
            }
            _ => None,
        },
        _ => None,
    };
    outs.iter().enumerate().filter_map(segment).collect()
}

#[test]
fn text_has_its_running_time_in_a_segment_of_its_own() {
    let (pcm, expected) = short();
    let element = element();
    element.set_property("lateness", 250u32);
    let (sender, metas) = std::sync::mpsc::channel();
    element.static_pad("src").unwrap().add_probe(gst::PadProbeType::BUFFER, move |_, info| {
        let Some(gst::PadProbeData::Buffer(buffer)) = &info.data else { unreachable!() };
        let meta = gst::meta::CustomMeta::from_buffer(buffer, "ParakeetWordsMeta").expect("each has one");
        let stream = gst::ClockTime::from_nseconds(meta.structure().get("stream-time").unwrap());
        // The bench may be gone before the element.
        let _ = sender.send((buffer.pts().unwrap(), stream));
        gst::PadProbeReturn::Ok
    });
    let mut bench = Bench::with(element, false);
    let mut segment = gst::FormattedSegment::<gst::ClockTime>::new();
    // Sound that starts late, as of an MP4 with an edit list.
    segment.set_base(5 * SECOND);
    segment.set_time(SECOND);
    assert!(bench.harness.push_event(gst::event::Segment::new(&segment)));
    let end = bench.push(&pcm, ZERO, 20 * MS);
    // The next file of a `concat`.
    segment.set_start(100 * SECOND);
    segment.set_base(5 * SECOND + end);
    segment.set_time(ZERO);
    assert!(bench.harness.push_event(gst::event::Segment::new(&segment)));
    bench.push(&pcm, 100 * SECOND, 20 * MS);
    let outs = bench.drain();
    let segments = segments(&outs);
    for (_, segment) in &segments {
        assert_eq!((segment.start(), segment.base()), (Some(ZERO), Some(gst::ClockTime::from_mseconds(250))));
    }
    let (before, after) = outs.split_at(segments.last().unwrap().0);
    assert_eq!((text(before), text(after)), (expected.clone(), expected));
    assert_eq!(assert_contiguous(&outs), Some((5 * SECOND, 5 * SECOND + end + end)));
    let metas: Vec<_> = metas.try_iter().collect();
    let (one, two) = metas.split_at(metas.len() / 2);
    assert!(one.iter().all(|(pts, stream)| *pts - 5 * SECOND == *stream - SECOND), "{one:?}");
    assert!(two.iter().all(|(pts, stream)| *pts - 5 * SECOND - end == *stream), "{two:?}");
}

#[test]
fn a_faster_segment_has_text_sooner() {
    let (pcm, expected) = short();
    let mut bench = Bench::new();
    let mut segment = gst::FormattedSegment::<gst::ClockTime>::new();
    segment.set_rate(2.0);
    assert!(bench.harness.push_event(gst::event::Segment::new(&segment)));
    let end = bench.push(&pcm, ZERO, 20 * MS);
    let outs = bench.drain();
    assert_eq!(text(&outs), expected);
    assert_eq!(assert_contiguous(&outs), Some((ZERO, end / 2)));
}

#[test]
fn speech_backwards_is_refused_with_a_reason() {
    let mut bench = Bench::new();
    let seek = gst::event::Seek::new(
        -1.0,
        gst::SeekFlags::FLUSH,
        gst::SeekType::Set,
        ZERO,
        gst::SeekType::Set,
        SECOND,
    );
    assert!(!bench.element.static_pad("src").unwrap().send_event(seek));
    let mut segment = gst::FormattedSegment::<gst::ClockTime>::new();
    segment.set_rate(-1.0);
    segment.set_stop(SECOND);
    bench.harness.push_event(gst::event::Segment::new(&segment));
    let message = bench.message(gst::MessageType::Error);
    let gst::MessageView::Error(error) = message.view() else { unreachable!() };
    assert!(error.error().to_string().contains("backwards"), "{error:?}");
}

#[test]
fn what_was_coded_how_is_not_said_of_the_text() {
    let mut bench = Bench::new();
    let mut tags = gst::TagList::new();
    let list = tags.make_mut();
    list.add::<gst::tags::AudioCodec>(&"Opus", gst::TagMergeMode::Append);
    list.add::<gst::tags::Bitrate>(&64_000, gst::TagMergeMode::Append);
    bench.harness.push_event(gst::event::Tag::new(tags.clone()));
    tags.make_mut().add::<gst::tags::Title>(&"title", gst::TagMergeMode::Append);
    bench.harness.push_event(gst::event::Tag::new(tags));
    let told: Vec<Vec<String>> = bench
        .drain()
        .iter()
        .filter_map(|out| match out {
            Out::Event(event) => match event.view() {
                gst::EventView::Tag(tag) => {
                    Some(tag.tag().iter_generic().map(|(name, _)| name.to_string()).collect())
                }
                _ => None,
            },
            _ => None,
        })
        .collect();
    assert_eq!(told.last().unwrap().as_slice(), ["title", "language-code"]);
    assert!(told.iter().flatten().all(|name| name == "title" || name == "language-code"), "{told:?}");
}
