// SPDX-License-Identifier: MPL-2.0
//! What the element is linked to may change, and so may properties, each in its states.

mod common;

use common::*;
use gst::prelude::*;

const SECOND: gst::ClockTime = gst::ClockTime::SECOND;
const ZERO: gst::ClockTime = gst::ClockTime::ZERO;

fn short() -> (Vec<i16>, String) {
    (speech(SHORT), expected(SHORT, "70,13").text)
}

#[test]
fn text_goes_on_when_the_source_pad_is_linked_again() {
    let (pcm, expected) = short();
    let mut bench = Bench::new();
    let pad = bench.element.static_pad("src").unwrap();
    let peer = pad.peer().unwrap();
    bench.push(&pcm, ZERO, 20 * MS);
    pad.unlink(&peer).unwrap();
    let mut at = time(pcm.len());
    // Refused once text finds nobody.
    let refused = (0..100_000).find_map(|n| {
        let start = (n % (pcm.len() / 1_600)) * 1_600;
        let pushed = bench.harness.push(buffer(&pcm[start..start + 1_600], Some(at)));
        at += time(1_600);
        pushed.err()
    });
    assert_eq!(refused, Some(gst::FlowError::NotLinked));
    bench.so_far();
    pad.link(&peer).unwrap();
    let start = at + 10 * SECOND;
    let end = bench.push(&pcm, start, 20 * MS);
    let outs = bench.drain();
    assert_eq!(text(&outs), expected);
    assert!(starts(&outs).iter().all(|word| *word >= start && *word < end), "{outs:?}");
    bench.assert_no_errors();
}

#[test]
fn another_source_may_be_live_or_not() {
    let long: Vec<i16> =
        ["0870", "0880", "0890", "0920", "0930"].iter().flat_map(|clip| speech(clip)).collect();
    let long = long.repeat(3);
    assert!(time(long.len()) > 60 * SECOND);
    let restart = |bench: &mut Bench, live: bool| {
        bench.harness.set_live(live);
        assert!(bench.harness.push_event(gst::event::StreamStart::new("other")));
        let segment = gst::FormattedSegment::<gst::ClockTime>::new();
        assert!(bench.harness.push_event(gst::event::Segment::new(&segment)));
    };
    let mut bench = Bench::with(element(), true);
    bench.push(&speech(SHORT), ZERO, 20 * MS);
    restart(&mut bench, false);
    bench.push(&long, ZERO, 20 * MS);
    bench.message(gst::MessageType::Latency);
    assert_eq!(bench.element.property::<u64>("dropped-audio"), 0, "a file waits");
    restart(&mut bench, true);
    bench.push(&long.repeat(20), ZERO, usize::MAX);
    bench.message(gst::MessageType::Latency);
    bench.drain();
    assert!(bench.element.property::<u64>("dropped-audio") > 0, "a live source doesn't");
    bench.assert_no_errors();
}

#[test]
fn properties_say_when_they_act_and_refuse_to_be_set_otherwise() {
    let element = element();
    let others = [
        ("model", "/no/such"),
        ("backend", "cuda"),
        ("device", "7"),
        ("precision", "f32"),
        ("cache-precision", "int8"),
        ("threads", "1"),
        ("look-ahead", "80"),
        ("left-context", "1000"),
        ("chunk", "1000"),
        ("right-context", "1000"),
        ("skip-silence", "false"),
        ("text-unit", "phrase"),
        ("partials", "true"),
        ("raw", "true"),
        ("lateness", "100"),
    ];
    let flags = |name: &str| element.find_property(name).unwrap().flags();
    for (name, _) in others {
        assert!(flags(name).contains(gst::PARAM_FLAG_MUTABLE_READY), "{name}");
        assert!(!flags(name).contains(gst::PARAM_FLAG_MUTABLE_PLAYING), "{name}");
    }
    for name in ["latency", "transcribe-latency", "overload"] {
        assert!(flags(name).contains(gst::PARAM_FLAG_MUTABLE_PLAYING), "{name}");
    }
    let bench = Bench::with(element.clone(), false);
    bench.wait_for_model();
    for (name, value) in others {
        let before = element.property_value(name);
        element.set_property_from_str(name, value);
        assert_eq!(format!("{:?}", element.property_value(name)), format!("{before:?}"), "{name}");
        element.set_property_from_value(name, &before);
        let warning = bench.message(gst::MessageType::Warning);
        let gst::MessageView::Warning(warning) = warning.view() else { unreachable!() };
        assert!(warning.error().to_string().contains(&format!("property {name} ")), "{warning:?}");
    }
    assert!(bench.bus.pop_filtered(&[gst::MessageType::Warning]).is_none(), "the same again is no matter");
    element.set_property("language-code", "de-DE");
    assert_eq!(element.property::<String>("language-code"), "de-DE", "transcriberbin sets it at any time");
    element.set_property_from_str("overload", "block");
    assert_eq!(
        gst::glib::EnumValue::from_value(&element.property_value("overload")).unwrap().1.nick(),
        "block"
    );
    assert!(bench.bus.pop_filtered(&[gst::MessageType::Warning]).is_none());
    element.set_state(gst::State::Ready).unwrap();
    for (name, value) in &others[1..] {
        element.set_property_from_str(name, value);
    }
    assert!(bench.bus.pop_filtered(&[gst::MessageType::Warning]).is_none());
    assert_eq!(element.property::<u32>("look-ahead"), 80);
    assert_eq!(element.property::<String>("device"), "7");
}

#[test]
fn a_source_that_brings_too_little_is_told() {
    let mut bench = Bench::new();
    let pcm = speech(SHORT);
    bench.push(&pcm, ZERO, 20 * MS);
    // What came is over, and nothing more is awaited.
    let end = bench.pause(time(pcm.len()), 10 * SECOND);
    // Nor looked for, once the element looked whether it still was.
    std::thread::sleep(std::time::Duration::from_secs(6));
    bench.push(&pcm[..12_000], end, 20 * MS);
    let warning = bench.message(gst::MessageType::Warning);
    let gst::MessageView::Warning(warning) = warning.view() else { unreachable!() };
    let details = warning.details().unwrap();
    assert_eq!(details.name(), "parakeettdt/upstream-stalled");
    assert!(details.get::<gst::ClockTime>("waiting-audio").unwrap() <= time(12_000));
    assert!(warning.error().to_string().contains("queues"), "{warning:?}");
    bench.drain();
    assert!(bench.bus.pop_filtered(&[gst::MessageType::Warning]).is_none(), "one warning");
    bench.assert_no_errors();
}

#[test]
fn a_pipeline_whose_branches_wait_for_each_other_is_told_why() {
    init();
    let line = format!(
        "filesrc location={0}/tests/data/speech.wav ! wavparse ! tee name=t t. ! queue name=other ! \
         audioconvert ! vorbisenc ! matroskamux name=m ! fakesink \
         t. ! queue ! audioconvert ! audioresample ! parakeettdt model={0}/models/parakeet-tdt-mini backend=cpu ! m.",
        env!("CARGO_MANIFEST_DIR")
    );
    for (ns, hangs) in [(1_000_000_000_u64, true), (10_000_000_000, false)] {
        let pipeline = gst::parse::launch(&line).unwrap().downcast::<gst::Pipeline>().unwrap();
        let queue = pipeline.by_name("other").unwrap();
        queue.set_property("max-size-time", ns);
        queue.set_property("max-size-bytes", 0_u32);
        queue.set_property("max-size-buffers", 0_u32);
        pipeline.set_state(gst::State::Playing).unwrap();
        let kinds = [gst::MessageType::Warning, gst::MessageType::Eos, gst::MessageType::Error];
        let bus = pipeline.bus().unwrap();
        let message = bus.timed_pop_filtered(60 * SECOND, &kinds).expect("one of them comes");
        match message.view() {
            gst::MessageView::Warning(warning) if hangs => {
                assert_eq!(warning.details().unwrap().name(), "parakeettdt/upstream-stalled");
            }
            gst::MessageView::Eos(_) => assert!(!hangs, "it has room enough as it is"),
            other => panic!("{other:?}"),
        }
        pipeline.set_state(gst::State::Null).unwrap();
    }
}
