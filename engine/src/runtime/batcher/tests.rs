// SPDX-License-Identifier: MPL-2.0
//! Lanes on devices that a test holds in its hand: which stream is stepped when, and who waits for whom.

mod beside;

use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use super::*;
use crate::backend::{Limits, Mode};
use crate::model::Model;
use crate::{Engine, Error, Event, Fault, Overflow, Stream, StreamOptions, Token, Window};

/// Samples of 80 ms.
const CHUNK: [f32; 1_280] = [0.0; 1_280];

/// What a fake was told, in order.
#[derive(Debug, PartialEq)]
enum Told {
    Open,
    Close(u32),
    Step(Vec<u32>),
}

/// A device that computes nothing. A step begins when it is told, and ends with a permit, or at once when nobody gives
/// any.
struct Fake {
    limits: Limits,
    /// Slots that fit.
    room: usize,
    slots: Vec<bool>,
    told: Sender<Told>,
    permits: Receiver<()>,
    /// What goes wrong in a step.
    fault: Option<Trouble>,
    steps: usize,
}

#[derive(Clone, Copy)]
enum Trouble {
    /// The step of slot 0 fails.
    First,
    /// Slot 0 makes the backend panic.
    Panic,
    /// A result is missing.
    Short,
    /// The second step of slot 0 fails; each before says a token.
    Later,
    /// The device is lost in the step of slot 0.
    Lost,
    /// Slot 0 says a token at the end of time, over which who reckons with it stumbles.
    Absurd,
}

/// The first piece of a word, in the first frame.
fn token() -> Token {
    let id = (0..1_024).find(|&id| model().vocabulary.piece(id).is_some_and(|piece| piece == "\u{2581}he"));
    Token {
        id: id.expect("the model knows it"),
        frame: 0,
        duration: Some(1),
        log_prob: 0.0,
        confidence: 1.0,
        margin: 1.0,
        duration_margin: 1.0,
    }
}

/// The test's hand on a fake.
struct Hand {
    told: Receiver<Told>,
    permits: Sender<()>,
}

impl Fake {
    fn new(streams: usize) -> (Box<Self>, Hand) {
        let ((told, hears), (gives, permits)) = (channel(), channel());
        let limits = Limits { streams, ..Limits::default() };
        let fake = Self { limits, room: usize::MAX, slots: Vec::new(), told, permits, fault: None, steps: 0 };
        (Box::new(fake), Hand { told: hears, permits: gives })
    }

    /// Nobody holds its steps up.
    fn free(streams: usize) -> Box<Self> {
        Self::new(streams).0
    }

    fn tell(&self, told: Told) {
        // A test that doesn't listen doesn't want to know.
        let _ = self.told.send(told);
    }
}

impl Backend for Fake {
    fn name(&self) -> &'static str {
        "fake"
    }

    fn device(&self) -> String {
        "a test's hand".into()
    }

    fn limits(&self) -> Limits {
        self.limits
    }

    fn open(&mut self, _: Mode, _: usize) -> Result<Slot> {
        self.tell(Told::Open);
        let free = self.slots.iter().position(|taken| !taken).unwrap_or(self.slots.len());
        if free >= self.room {
            return Err(Error::Backend {
                backend: "fake",
                device: None,
                kind: Fault::OutOfMemory,
                reason: "no memory for another stream".into(),
            });
        }
        self.slots.resize(self.slots.len().max(free + 1), true);
        self.slots[free] = true;
        Ok(Slot(free as u32))
    }

    fn close(&mut self, slot: Slot) {
        self.tell(Told::Close(slot.0));
        self.slots[slot.0 as usize] = false;
    }

    fn reset(&mut self, _: Slot) {}

    fn step(&mut self, steps: &[Step<'_>]) -> Vec<Result<Decoded>> {
        self.tell(Told::Step(steps.iter().map(|step| step.slot.0).collect()));
        // Without a hand it is free.
        let _ = self.permits.recv();
        self.steps += 1;
        let mut results: Vec<_> = steps
            .iter()
            .map(|step| {
                let fault = self.fault.filter(|_| step.slot.0 == 0);
                assert!(!matches!(fault, Some(Trouble::Panic)), "a fault of the test");
                match fault {
                    Some(Trouble::Later) if self.steps < 2 => {
                        Ok(Decoded { tokens: vec![token()], frames: 1 })
                    }
                    Some(Trouble::Lost) => Err(Error::Backend {
                        backend: "fake",
                        device: None,
                        kind: Fault::DeviceLost,
                        reason: "it is gone".into(),
                    }),
                    Some(Trouble::Absurd) => {
                        let token = Token { frame: u64::MAX / 2, ..token() };
                        Ok(Decoded { tokens: vec![token], frames: 1 })
                    }
                    Some(Trouble::First | Trouble::Later) => Err(Error::Backend {
                        backend: "fake",
                        device: None,
                        kind: Fault::Internal,
                        reason: "broken".into(),
                    }),
                    _ => Ok(Decoded { tokens: Vec::new(), frames: step.pcm.len().div_ceil(1_280) }),
                }
            })
            .collect();
        if matches!(self.fault, Some(Trouble::Short)) {
            results.pop();
        }
        results
    }

    fn slot_bytes(&self, _: Mode) -> usize {
        1_000
    }
}

/// An engine on one fake; the hand goes first, so that a test that fails doesn't wait for a step that never ends.
struct Held {
    hand: Hand,
    engine: Arc<Engine>,
}

impl Hand {
    fn step(&self) -> Vec<u32> {
        loop {
            if let Told::Step(slots) = self.told.recv().expect("the lane goes on") {
                return slots;
            }
        }
    }

    fn permit(&self) {
        self.permits.send(()).expect("the lane goes on");
    }
}

fn model() -> Arc<Model> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/parakeet-tdt-mini");
    Arc::new(Model::load(&dir).expect("the embedded model loads"))
}

fn engine(fakes: impl IntoIterator<Item = Box<Fake>>) -> Arc<Engine> {
    let fakes = fakes.into_iter().map(|fake| fake as Box<dyn Backend>).collect();
    Engine::with_backends(model(), fakes).expect("the lanes start")
}

fn quick() -> StreamOptions {
    StreamOptions { look_ahead: Some(0), tail_samples: 0, ..Default::default() }
}

fn open(engine: &Arc<Engine>) -> Stream {
    engine.stream(&quick()).expect("a stream")
}

fn push(stream: &Stream) {
    stream.push(&CHUNK).expect("the stream takes audio");
}

fn open_streams(engine: &Engine) -> Vec<usize> {
    engine.statistics().lanes.iter().map(|lane| lane.open_streams).collect()
}

/// Waits for the end of the utterance, and whether the stream got there.
fn survives(stream: &Stream) -> bool {
    loop {
        match stream.next() {
            Some(Event::Finished { .. }) => return true,
            Some(Event::Failed { .. }) | None => return false,
            Some(_) => {}
        }
    }
}

#[test]
fn there_is_no_engine_without_a_device() {
    let refused = Engine::with_backends(model(), Vec::new()).err().expect("nothing can run it");
    assert_eq!(refused.to_string(), "unsupported model: there is no device to run it on");
}

#[test]
fn a_stream_goes_to_the_device_with_the_least_load() {
    let engine = engine([Fake::free(8), Fake::free(8), Fake::free(8)]);
    let mut streams: Vec<_> = (0..6).map(|_| open(&engine)).collect();
    assert_eq!(open_streams(&engine), [2, 2, 2]);
    drop(streams.drain(1..3));
    assert_eq!(open_streams(&engine), [2, 1, 1]);
    // The encoder hears each second of it seven times.
    let windows = StreamOptions { window: Some(Window::default()), ..Default::default() };
    streams.push(engine.stream(&windows).expect("a stream"));
    streams.extend((0..13).map(|_| open(&engine)));
    assert_eq!(open_streams(&engine), [8, 2, 8]);
    drop(streams);
    assert_eq!(open_streams(&engine), [0, 0, 0]);
}

#[test]
fn a_device_without_memory_is_passed_over_and_says_so_when_all_are_full() {
    let (mut small, mut large) = (Fake::free(8), Fake::free(8));
    (small.room, large.room) = (1, 3);
    let engine = engine([small, large]);
    let mut streams: Vec<_> = (0..4).map(|_| open(&engine)).collect();
    assert_eq!(open_streams(&engine), [1, 3]);
    let refused = engine.stream(&quick()).err().expect("there is no memory");
    assert_eq!(refused.to_string(), "backend fake, a test's hand: no memory for another stream");
    assert_eq!(open_streams(&engine), [1, 3]);
    streams.pop();
    streams.push(open(&engine));
    assert_eq!(open_streams(&engine), [1, 3]);
}

#[test]
fn who_opens_waits_for_the_step_under_way_only_and_who_closes_for_nothing() {
    let (fake, hand) = Fake::new(1);
    let held = Held { hand, engine: engine([fake]) };
    let engine = &held.engine;
    let streams = [open(engine), open(engine), open(engine)];
    streams.iter().for_each(push);
    assert_eq!(held.hand.step(), [0]);
    let [first, second, third] = streams;
    drop(first);
    drop(second);
    let lane = engine.lanes().pop().expect("there is one");
    lane.queue.request(Box::new(|backend| drop(backend.open(Mode::Offline { context: 0 }, 0))));
    held.hand.permit();
    // The step under way was stream 0's, and stream 1's would be next, but it has gone: both slots are free at once.
    let told: Vec<_> = held.hand.told.iter().take(4).collect();
    assert_eq!(told, [Told::Close(0), Told::Close(1), Told::Open, Told::Step(vec![2])]);
    let opener = {
        let engine = engine.clone();
        thread::spawn(move || (engine.stream_bytes(&quick()).ok(), open(&engine)))
    };
    // The third stream has no other chunk.
    held.hand.permit();
    let (bytes, fourth) = opener.join().expect("no panic");
    assert_eq!(bytes, Some(1_000));
    drop(held.hand);
    drop((third, fourth));
    assert_eq!(open_streams(engine), [0]);
}

#[test]
fn the_earliest_deadline_comes_first() {
    let (fake, hand) = Fake::new(1);
    let held = Held { hand, engine: engine([fake]) };
    let engine = &held.engine;
    let slow = StreamOptions { look_ahead: Some(13), ..Default::default() };
    let busy = open(engine);
    let slow = engine.stream(&slow).expect("a stream");
    let quick = [open(engine), open(engine)];
    push(&busy);
    assert_eq!(held.hand.step(), [0]);
    // Its chunk was complete first but lasts for 1.12 s.
    slow.push(&[0.0; 20_000]).expect("the stream takes audio");
    for stream in &quick {
        stream.push(&[0.0; 200]).expect("the stream takes audio");
    }
    let mut order = Vec::new();
    for _ in 0..3 {
        held.hand.permit();
        order.extend(held.hand.step());
    }
    assert_eq!(order, [2, 3, 1]);
    drop(held.hand);
}

#[test]
fn audio_that_comes_faster_than_it_is_spoken_takes_what_live_streams_leave() {
    let (fake, hand) = Fake::new(1);
    let held = Held { hand, engine: engine([fake]) };
    // A chunk of a minute, so that no pause of the test is as long.
    let window = Window { left: 0, chunk: 750, right: 0 };
    let minute = vec![0.0; 960_000];
    let options =
        StreamOptions { window: Some(window), queue_samples: 3 * minute.len(), ..Default::default() };
    let [file, live] = [(); 2].map(|()| held.engine.stream(&options).expect("a stream"));
    for _ in 0..3 {
        file.push(&minute).expect("the stream takes audio");
    }
    let mut order = held.hand.step();
    live.push(&minute).expect("the stream takes audio");
    for _ in 0..3 {
        held.hand.permit();
        order.extend(held.hand.step());
    }
    assert_eq!(order, [0, 1, 0, 0]);
    drop(held.hand);
}

#[test]
fn an_overloaded_device_hears_some_streams_without_a_break() {
    let (fake, hand) = Fake::new(4);
    let held = Held { hand, engine: engine([fake]) };
    let engine = &held.engine;
    let capacity = 8 * CHUNK.len();
    let options = StreamOptions { queue_samples: capacity, overflow: Overflow::DropOldest, ..quick() };
    let streams: Vec<_> = (0..20).map(|_| engine.stream(&options).expect("a stream")).collect();
    let mut steps = [0_u64; 20];
    let mut lost = [0_u64; 20];
    let mut lost_of_late = [0_u64; 20];
    // Twenty chunks come in a round, and eight can be stepped in it.
    for round in 0..200 {
        for stream in &streams {
            push(stream);
        }
        for _ in 0..if round == 0 { 1 } else { 2 } {
            held.hand.step().into_iter().for_each(|slot| steps[slot as usize] += 1);
            held.hand.permit();
        }
        for (at, stream) in streams.iter().enumerate() {
            while let Some(event) = stream.try_next() {
                if let Event::Lost { samples, .. } = event {
                    lost[at] += samples;
                    lost_of_late[at] += if round >= 100 { samples } else { 0 };
                }
            }
        }
    }
    println!("{steps:?} {lost:?} {lost_of_late:?}");
    let whole = lost_of_late.iter().filter(|lost| **lost == 0).count();
    assert!((4..=8).contains(&whole), "heard without a break: {whole} {lost_of_late:?}");
    assert!(steps.iter().sum::<u64>() > 4 * 350, "no step is wasted: {steps:?}");
    drop(held.hand);
    assert!(engine.statistics().total().dropped_samples >= lost.iter().sum());
}

#[test]
fn what_a_stream_drops_counts_for_its_device() {
    let (first, second) = (Fake::new(1), Fake::new(1));
    let engine = engine([first.0, second.0]);
    let options = StreamOptions { queue_samples: 1, overflow: Overflow::DropOldest, ..quick() };
    let _before = open(&engine);
    let stream = engine.stream(&options).expect("a stream");
    (0..8).for_each(|_| push(&stream));
    // The first step goes on, whose device is asked.
    drop((first.1, second.1));
    let dropped: Vec<_> = engine.statistics().lanes.iter().map(|lane| lane.dropped_samples).collect();
    assert!(dropped[0] == 0 && dropped[1] > 0, "{dropped:?}");
}

#[test]
fn what_fails_takes_nobody_along() {
    for (fault, alone) in [(Trouble::First, true), (Trouble::Panic, false), (Trouble::Short, false)] {
        let (mut fake, hand) = Fake::new(2);
        fake.fault = Some(fault);
        let held = Held { hand, engine: engine([fake]) };
        let engine = &held.engine;
        let streams = [open(engine), open(engine), open(engine)];
        streams.iter().for_each(Stream::finish);
        held.hand.step();
        drop(held.hand);
        // The first is stepped alone, or the second with it as it was quick enough.
        let survivors: Vec<_> = streams.iter().map(survives).collect();
        match fault {
            Trouble::Short => assert!(survivors.iter().any(|survives| !survives)),
            _ => assert!(!survivors[0] && survivors[2], "{survivors:?}"),
        }
        assert!(survivors[1] || !alone, "{survivors:?}");
        drop(streams);
        assert_eq!(open_streams(engine), [0]);
    }
}

#[test]
fn a_question_that_panics_is_an_error_of_who_asked() {
    let engine = engine([Fake::free(1)]);
    let lane = engine.lanes().pop().expect("there is one");
    let answer: Result<()> = lane.ask(|_| panic!("a fault of the test"));
    assert_eq!(
        answer.unwrap_err().to_string(),
        "backend fake, a test's hand: broke down when it was asked something"
    );
    push(&open(&engine));
}

#[test]
fn statistics_count_what_was_done() {
    let engine = engine([Fake::free(4)]);
    let streams: Vec<_> = (0..200).map(|_| open(&engine)).collect();
    for stream in &streams {
        stream.push(&[0.0; 200]).expect("the stream takes audio");
        push(stream);
        stream.finish();
    }
    assert!(streams.iter().all(survives));
    let total = engine.statistics().total();
    assert_eq!((total.open_streams, total.dropped_samples, total.memory), (200, 0, None));
    // The first chunk has 200 samples; if `finish` was too late for the second, a third has none.
    assert!((400..=600).contains(&total.chunks), "{total:?}");
    assert_eq!((total.wait_seconds.count(), total.step_seconds.count()), (total.chunks, total.steps));
    assert_eq!(total.frames, 400);
    assert!(
        total.batch.max() <= 4.0 && (total.batch.mean() * total.steps as f64).round() == total.chunks as f64
    );
    engine.reset_statistics();
    let total = engine.statistics().total();
    assert_eq!((total.open_streams, total.chunks, total.wait_seconds.count()), (200, 0, 0));
}

#[test]
fn what_was_decoded_comes_before_the_failure_which_says_how_far_it_came() {
    let mut fake = Fake::free(1);
    fake.fault = Some(Trouble::Later);
    let engine = engine([fake]);
    let stream = open(&engine);
    stream.push(&[0.0; 200]).expect("the stream takes audio");
    push(&stream);
    let events: Vec<_> = std::iter::from_fn(|| stream.next()).collect();
    let [.., Event::Word(word), Event::Progress { sample: 200 }, Event::Failed { error, sample: 200 }] =
        &events[..]
    else {
        panic!("{events:?}")
    };
    assert_eq!((word.text.as_str(), word.heard, word.end), ("he", 200, 200));
    assert_eq!(error.to_string(), "backend fake, a test's hand: broken");
    assert_eq!(stream.push(&CHUNK), Err(crate::PushError::Closed));
}

#[test]
#[cfg(debug_assertions)] // Arithmetic panics then only.
fn a_panic_beside_a_step_ends_its_streams_and_no_other() {
    let mut fake = Fake::free(1);
    fake.fault = Some(Trouble::Absurd);
    let engine = engine([fake]);
    let (first, second) = (open(&engine), open(&engine));
    first.finish();
    let events: Vec<_> = std::iter::from_fn(|| first.next()).collect();
    let Some(Event::Failed { error, sample: 0 }) = events.last() else { panic!("{events:?}") };
    assert_eq!(error.to_string(), "backend fake, a test's hand: panicked beside a step");
    second.finish();
    assert!(survives(&second));
}

#[test]
fn nobody_waits_for_a_lane_whose_thread_is_gone() {
    let engine = engine([Fake::free(1)]);
    let stream = Arc::new(open(&engine));
    let reader = {
        let stream = stream.clone();
        thread::spawn(move || survives(&stream))
    };
    let lane = engine.lanes().pop().expect("there is one");
    // What the thread drops when it ends for whatever reason.
    drop(Runner { lane: lane.clone(), backend: Fake::free(1), buffers: Vec::new(), pool: None });
    assert!(!reader.join().expect("no panic"), "the stream failed");
    assert_eq!(stream.push(&CHUNK), Err(crate::PushError::Closed));
    assert!(engine.stream(&quick()).is_err(), "nobody would step it");
}

#[test]
fn a_thread_that_pushes_and_does_not_read_is_told_to() {
    let engine = engine([Fake::free(8)]);
    let options = StreamOptions { queue_samples: 16_000, ..quick() };
    let stream = engine.stream(&options).expect("a stream");
    // Each ends an utterance, and none is taken.
    (0..300).for_each(|_| stream.finish());
    let pcm = vec![0.0; 64_000];
    let mut rest = &pcm[..];
    let mut told = 0;
    let mut finished = 0;
    while !rest.is_empty() {
        match stream.push(rest) {
            Ok(()) => rest = &[],
            Err(crate::PushError::Unread { taken }) => {
                rest = &rest[taken..];
                told += 1;
                while let Some(event) = stream.try_next() {
                    finished += usize::from(matches!(event, Event::Finished { .. }));
                }
            }
            Err(error) => panic!("{error}"),
        }
    }
    assert!(told > 0, "the queue holds a quarter of it");
    while finished < 300 {
        finished += usize::from(matches!(stream.next().expect("the stream goes on"), Event::Finished { .. }));
    }
}

#[test]
fn a_lost_device_gets_no_more_streams() {
    let (mut lost, sound) = (Fake::free(4), Fake::free(4));
    lost.fault = Some(Trouble::Lost);
    let engine = engine([lost, sound]);
    let (first, second) = (open(&engine), open(&engine));
    assert_eq!((open_streams(&engine), engine.works()), (vec![1, 1], true));
    first.finish();
    assert!(survives(&first), "it goes on on the other");
    assert_eq!(open_streams(&engine), [0, 2]);
    let more: Vec<_> = (0..3).map(|_| open(&engine)).collect();
    assert_eq!(open_streams(&engine), [0, 5], "the other device takes them all");
    second.finish();
    assert!(survives(&second) && engine.works());
    drop(more);
}

#[test]
fn an_engine_without_a_device_left_says_so() {
    let mut lost = Fake::free(4);
    lost.fault = Some(Trouble::Lost);
    let engine = engine([lost]);
    let stream = open(&engine);
    stream.finish();
    assert!(!survives(&stream) && !engine.works());
    let refused = engine.stream(&quick()).err().expect("there is no device");
    assert_eq!(
        (refused.fault(), refused.to_string()),
        (Some(Fault::DeviceLost), "backend fake, a test's hand: it is gone".into())
    );
}
