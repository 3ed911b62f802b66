// SPDX-License-Identifier: MPL-2.0
//! More live streams than the machine can do, for a minute, on the real clock.

mod common;

use common::*;
use gst::prelude::*;
use std::time::{Duration, Instant};

/// Samples of a packet: 100 ms.
const PACKET: usize = 100 * MS;

/// What the model hears before it decides, in ms, and the latency asked for.
const LOOK_AHEAD: u32 = 80;

/// A live pipeline that is fed from here.
struct Live {
    pipeline: gst::Pipeline,
    source: gst::Element,
    element: gst::Element,
}

impl Live {
    fn new() -> Self {
        let element = element();
        element.set_property("look-ahead", LOOK_AHEAD);
        let source = gst::ElementFactory::make("appsrc")
            .property("caps", S16.parse::<gst::Caps>().unwrap())
            .property("is-live", true)
            .property_from_str("format", "time")
            .build()
            .unwrap();
        let sink = gst::ElementFactory::make("fakesink").property("sync", false).property("async", false);
        let sink = sink.build().unwrap();
        let pipeline = gst::Pipeline::new();
        pipeline.add_many([&source, &element, &sink]).unwrap();
        gst::Element::link_many([&source, &element, &sink]).unwrap();
        pipeline.set_state(gst::State::Playing).unwrap();
        Live { pipeline, source, element }
    }

    /// Brings a packet as it is said now.
    fn bring(&self, pcm: &[i16]) {
        let running = self.pipeline.current_running_time().expect("it plays");
        let packet = buffer(pcm, Some(running.saturating_sub(time(PACKET))));
        let flow: gst::FlowReturn = self.source.emit_by_name("push-buffer", &[&packet]);
        assert_eq!(flow, gst::FlowReturn::Ok);
    }

    fn dropped(&self) -> f64 {
        self.element.property::<u64>("dropped-audio") as f64 / 1e9
    }

    fn delay(&self) -> u32 {
        self.element.property("max-observed-delay")
    }

    /// How many messages of losses came since the last call.
    fn losses(&self) -> usize {
        let messages = self.pipeline.bus().unwrap();
        let element = messages.iter_filtered(&[gst::MessageType::Element]);
        element.filter(|message| message.structure().unwrap().has_name("parakeettdt/audio-dropped")).count()
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.pipeline.set_state(gst::State::Null).unwrap();
    }
}

/// Brings packets to all for so long, in real time.
fn play(all: &[Live], long: Duration) {
    let pcm = speech("0870");
    let begin = Instant::now();
    let mut n = 0;
    while begin.elapsed() < long {
        for (at, live) in all.iter().enumerate() {
            // Each hears another part of it.
            let first = ((n * PACKET) + at * 7_777) % (pcm.len() - PACKET);
            live.bring(&pcm[first..first + PACKET]);
        }
        n += 1;
        std::thread::sleep(
            (begin + Duration::from_millis(100) * n as u32).saturating_duration_since(Instant::now()),
        );
    }
}

/// Least, median and greatest.
fn spread<T: Copy + PartialOrd>(values: impl Iterator<Item = T>) -> [T; 3] {
    let mut values: Vec<T> = values.collect();
    values.sort_by(|a, b| a.partial_cmp(b).expect("numbers"));
    [values[0], values[values.len() / 2], values[values.len() - 1]]
}

/// How much audio of one stream a second of the machine recognises.
fn pace() -> f64 {
    let element = element();
    element.set_property("look-ahead", LOOK_AHEAD);
    let mut bench = Bench::with(element, false);
    bench.wait_for_model();
    let pcm = speech("0870").repeat(4);
    let begin = Instant::now();
    bench.push(&pcm, gst::ClockTime::ZERO, PACKET);
    bench.drain();
    pcm.len() as f64 / 16_000.0 / begin.elapsed().as_secs_f64()
}

#[test]
#[ignore = "takes all cores for 90 s: cargo test --release --test overload -- --ignored --nocapture"]
fn three_times_more_streams_than_the_machine_can_do_lag_no_more_than_their_latency() {
    init();
    let pace = pace();
    let cores = std::thread::available_parallelism().unwrap().get();
    let streams = (3.0 * pace * cores as f64) as usize;
    println!(
        "a stream alone is recognised {pace:.1} times faster than it is said, by one of {cores} cores at most"
    );
    let mut all: Vec<Live> = (0..streams).map(|_| Live::new()).collect();
    play(&all, Duration::from_secs(60));
    let answer = {
        let mut query = gst::query::Latency::new();
        assert!(all[0].element.static_pad("src").unwrap().query(&mut query));
        query.result().1.mseconds() as u32
    };
    let delays = spread(all.iter().map(Live::delay));
    let dropped = spread(all.iter().map(Live::dropped));
    let words: u64 = all
        .iter()
        .map(|live| live.element.property::<gst::Structure>("stats").get::<u64>("buffers").unwrap())
        .sum();
    let told = all.iter().filter(|live| live.losses() > 0).count();
    println!(
        "{streams} streams for 60 s: latency {answer} ms, greatest delay of a stream {delays:?} ms (least, median, greatest), \
         dropped of each {dropped:.1?} s, told by {told}; {words} words"
    );
    // The load falls: a tenth is left.
    all.truncate(streams / 30);
    let before: Vec<f64> = all.iter().map(Live::dropped).collect();
    play(&all, Duration::from_secs(2));
    let meanwhile: Vec<f64> = all.iter().map(Live::dropped).collect();
    play(&all, Duration::from_secs(15));
    let after = spread(all.iter().zip(&meanwhile).map(|(live, before)| live.dropped() - before));
    let during = spread(meanwhile.iter().zip(&before).map(|(now, before)| now - before));
    println!("{} left: dropped in the first 2 s {during:.2?} s, in the 15 s after {after:.2?} s", all.len());
    assert!(delays[2] <= answer, "late");
    assert!(told == streams, "each says what it lost");
    assert!(after[2] == 0.0, "it recovers");
}
