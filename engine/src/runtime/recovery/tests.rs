// SPDX-License-Identifier: MPL-2.0
//! Streams whose steps and devices fail, on devices that understand what a test has written into the audio.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};

use super::*;
use crate::backend::timeline::Timeline;
use crate::backend::{Backend, Decoded, Limits, Opened, Slot, Spare, Step};
use crate::model::Model;
use crate::{Engine, Overflow, Result, Stream, StreamOptions, Window};

/// Samples of an encoder frame.
const FRAME: usize = FRAME_SAMPLES as usize;

/// A sample that no device survives.
const POISON: f32 = 0.9;

static MODEL: LazyLock<Arc<Model>> = LazyLock::new(|| {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/parakeet-tdt-mini");
    let mut model = Model::load(&dir).expect("the embedded model loads");
    // What the audio says is said at once.
    model.config.emission_delay_ms = 0;
    Arc::new(model)
});

/// Pieces that are words of their own.
static WORDS: LazyLock<Vec<u32>> = LazyLock::new(|| {
    let alone = |&id: &u32| {
        let piece = MODEL.vocabulary.piece(id).unwrap_or_default();
        piece.len() > 4 && piece.starts_with('\u{2581}') && piece.chars().skip(1).all(char::is_alphabetic)
    };
    (0..1_024).filter(alone).take(200).collect()
});

/// What happens to a step of these streams, counted from 0.
type Fate = Box<dyn FnMut(usize, &[Step<'_>]) -> Option<Fault> + Send>;

/// A device that hears a word where a frame's first sample says which.
struct Listener {
    name: String,
    slots: Vec<Option<(Mode, Timeline, Vec<f32>)>>,
    room: usize,
    steps: usize,
    fate: Fate,
    broken: bool,
    /// The largest step.
    largest: Arc<AtomicUsize>,
}

impl Listener {
    fn new(name: &str, fate: impl FnMut(usize, &[Step<'_>]) -> Option<Fault> + Send + 'static) -> Self {
        Self {
            name: name.into(),
            slots: Vec::new(),
            room: usize::MAX,
            steps: 0,
            fate: Box::new(fate),
            broken: false,
            largest: Arc::default(),
        }
    }

    /// That nothing ever happens to.
    fn sound(name: &str) -> Self {
        Self::new(name, |_, _| None)
    }

    fn error(&self, kind: Fault) -> Error {
        let reason = format!("{kind:?} on {}", self.name);
        Error::Backend { backend: "listener", device: None, kind, reason }
    }

    fn hear(&mut self, step: &Step<'_>) -> Result<Decoded> {
        let state = self.slots.get_mut(step.slot.0 as usize).and_then(Option::as_mut);
        let (_, timeline, pcm) = state.expect("the slot is open");
        let portion = timeline.next(step).expect("a chunk that is due");
        pcm.extend_from_slice(step.pcm);
        let first = portion.decoded;
        let tokens = (first..first + portion.decode.len()).filter_map(|frame| {
            // As written by `audio`; where frames don't begin with those of the audio, a little later.
            let said = pcm.get(((frame * FRAME + 1).saturating_sub(FRAME))..=frame * FRAME)?;
            let index = (said.iter().find(|&&x| x > 0.0 && x < POISON)? * 1_000.0).round() as usize;
            let id = *WORDS.get(index.checked_sub(1)?)?;
            Some(token(id, frame as u64))
        });
        Ok(Decoded { tokens: tokens.collect(), frames: portion.decode.len() })
    }
}

impl Backend for Listener {
    fn name(&self) -> &'static str {
        "listener"
    }

    fn device(&self) -> String {
        self.name.clone()
    }

    fn limits(&self) -> Limits {
        Limits { streams: 64, ..Limits::default() }
    }

    fn open(&mut self, mode: Mode, _: usize) -> Result<Slot> {
        if self.broken {
            return Err(self.error(Fault::DeviceLost));
        }
        if self.slots.iter().flatten().count() >= self.room {
            return Err(self.error(Fault::OutOfMemory));
        }
        let free = self.slots.iter().position(Option::is_none).unwrap_or(self.slots.len());
        if free == self.slots.len() {
            self.slots.push(None);
        }
        self.slots[free] = Some((mode, Timeline::new(&MODEL.config, mode), Vec::new()));
        Ok(Slot(free as u32))
    }

    fn close(&mut self, slot: Slot) {
        self.slots[slot.0 as usize] = None;
    }

    fn reset(&mut self, slot: Slot) {
        if let Some((mode, timeline, pcm)) = &mut self.slots[slot.0 as usize] {
            (*timeline, *pcm) = (Timeline::new(&MODEL.config, *mode), Vec::new());
        }
    }

    fn step(&mut self, steps: &[Step<'_>]) -> Vec<Result<Decoded>> {
        self.largest.fetch_max(steps.len(), Ordering::Relaxed);
        let fault = if self.broken { Some(Fault::DeviceLost) } else { (self.fate)(self.steps, steps) };
        self.steps += 1;
        self.broken |= fault == Some(Fault::DeviceLost);
        // What failed may have run in part: nothing can be told of its state any more.
        let heard: Vec<_> = steps.iter().map(|step| self.hear(step)).collect();
        match fault {
            Some(fault) => steps.iter().map(|_| Err(self.error(fault))).collect(),
            None => heard,
        }
    }

    fn slot_bytes(&self, _: Mode) -> usize {
        0
    }
}

fn boxed(listeners: Vec<Listener>) -> Vec<Box<dyn Backend>> {
    listeners.into_iter().map(|listener| Box::new(listener) as Box<dyn Backend>).collect()
}

fn engine(listeners: Vec<Listener>) -> Arc<Engine> {
    Engine::with_backends(MODEL.clone(), boxed(listeners)).expect("the lanes start")
}

/// Audio of so many frames with the words that stream `index` says, one every other frame, and their texts.
fn audio(index: usize, frames: usize) -> (Vec<f32>, Vec<String>) {
    let mut pcm = vec![0.0; frames * FRAME];
    let mut texts = Vec::new();
    for frame in (0..frames).step_by(2) {
        let word = (frame / 2 + 31 * index) % WORDS.len();
        pcm[frame * FRAME] = (word + 1) as f32 / 1_000.0;
        let piece = MODEL.vocabulary.piece(WORDS[word]).expect("it is one of them");
        texts.push(piece.trim_start_matches('\u{2581}').to_owned());
    }
    (pcm, texts)
}

/// What was heard of an utterance.
#[derive(Default)]
struct Heard {
    words: Vec<String>,
    starts: Vec<u64>,
    recovered: Vec<(u64, Fault)>,
    failed: Option<Error>,
}

fn hear(stream: &Stream) -> Heard {
    let mut heard = Heard::default();
    let mut horizon = 0;
    loop {
        match stream.next() {
            Some(Event::Word(word)) => {
                assert!(word.start >= horizon, "{} starts at {} before {horizon}", word.text, word.start);
                heard.words.push(word.text);
                heard.starts.push(word.start);
            }
            Some(Event::Progress { sample }) => horizon = sample,
            Some(Event::Recovered { sample, error, .. }) => {
                heard.recovered.push((sample, error.fault().expect("of a backend")));
            }
            Some(Event::Failed { error, .. }) => heard.failed = Some(error),
            Some(Event::Finished { .. }) | None => return heard,
            Some(_) => {}
        }
    }
}

/// Each of so many streams says its own words, all at once; what was heard of each, after it was compared with what was said.
fn run(engine: &Arc<Engine>, streams: usize, frames: usize, options: &StreamOptions) -> Vec<Heard> {
    let streams: Vec<_> = (0..streams).map(|_| engine.stream(options).expect("a stream")).collect();
    let said: Vec<_> = (0..streams.len()).map(|index| audio(index, frames)).collect();
    for piece in 0..frames {
        for (stream, (pcm, _)) in streams.iter().zip(&said) {
            // One that has failed takes nothing.
            let _ = stream.push(&pcm[piece * FRAME..][..FRAME]);
        }
    }
    streams.iter().for_each(Stream::finish);
    let heard = streams.iter().zip(&said).enumerate().map(|(index, (stream, (_, texts)))| {
        let heard = hear(stream);
        let said = &texts[..if heard.failed.is_some() { heard.words.len() } else { texts.len() }];
        assert_eq!(heard.words, said, "stream {index}: {:?}", heard.failed);
        for (word, start) in heard.starts.iter().enumerate() {
            // The last before a failure lasts for 20 ms, and begins earlier for it where there is less.
            let said = 2 * word as u64 * FRAME_SAMPLES;
            assert!(
                (said.saturating_sub(320)..=said).contains(start),
                "stream {index}, word {word}: {start}"
            );
        }
        heard
    });
    heard.collect()
}

/// Each way to run a stream, with a left context that is shorter than what they say.
fn ways() -> Vec<StreamOptions> {
    let window = |left, chunk, right| StreamOptions {
        window: Some(Window { left, chunk, right }),
        queue_samples: 1 << 20,
        ..Default::default()
    };
    let cached = |look_ahead| StreamOptions {
        look_ahead: Some(look_ahead),
        queue_samples: 1 << 20,
        ..Default::default()
    };
    vec![cached(0), cached(1), cached(6), cached(13), window(20, 5, 3), window(7, 2, 0), window(0, 4, 9)]
}

#[test]
fn streams_of_a_lost_device_go_on_where_they_were() {
    let mut moved = 0;
    for options in ways() {
        for lost in [0, 1, 2, 17, 60, 111] {
            let fate = move |step, _: &[Step<'_>]| (step == lost).then_some(Fault::DeviceLost);
            let engine = engine(vec![Listener::new("fragile", fate), Listener::sound("sturdy")]);
            let heard = run(&engine, 6, 200, &options);
            assert!(heard.iter().all(|heard| heard.failed.is_none()));
            assert!(heard.iter().all(|heard| heard.recovered.len() <= 1));
            moved += heard.iter().filter(|heard| !heard.recovered.is_empty()).count();
            let open: Vec<_> = engine.statistics().lanes.iter().map(|lane| lane.open_streams).collect();
            assert_eq!(open, [0, 0]);
        }
    }
    // Three of six are on each device.
    assert!(moved >= 3 * 7 * 4, "{moved} streams moved");
}

/// What happens to each step with poison in it.
fn poisoned(fault: Fault) -> impl FnMut(usize, &[Step<'_>]) -> Option<Fault> + Send + 'static {
    move |_, steps| steps.iter().any(|step| step.pcm.contains(&POISON)).then_some(fault)
}

/// So many streams that say 120 frames and end, one of them with poison in frame 61.
fn with_poison(engine: &Arc<Engine>, options: &StreamOptions, count: usize, guilty: usize) -> Vec<Stream> {
    let streams: Vec<_> = (0..count).map(|_| engine.stream(options).expect("a stream")).collect();
    for (index, stream) in streams.iter().enumerate() {
        let (mut pcm, _) = audio(index, 120);
        if index == guilty {
            pcm[61 * FRAME + 5] = POISON;
        }
        stream.push(&pcm).expect("the stream takes audio");
        stream.finish();
    }
    streams
}

#[test]
fn who_breaks_every_step_ends_alone() {
    for options in ways() {
        let listener = Listener::new("device", poisoned(Fault::Internal));
        let largest = listener.largest.clone();
        let engine = engine(vec![listener]);
        let streams = with_poison(&engine, &options, 50, 33);
        let mut words = 0;
        for (index, stream) in streams.iter().enumerate() {
            let heard = hear(stream);
            let (_, texts) = audio(index, 120);
            if index == 33 {
                let error = heard.failed.expect("it ends");
                assert_eq!(error.to_string(), "backend listener, device: Internal on device");
                assert!(heard.words.len() < 40 && texts.starts_with(&heard.words), "{:?}", heard.words);
            } else {
                assert!(heard.failed.is_none(), "stream {index}: {:?}", heard.failed);
                assert_eq!(heard.words, texts, "stream {index}");
                words += texts.len();
            }
        }
        assert_eq!(words, 49 * 60);
        assert!(largest.load(Ordering::Relaxed) > 1, "they are stepped together");
    }
}

#[test]
fn who_breaks_a_device_breaks_no_more_than_it_takes_to_tell() {
    let names = ["first", "second", "third"];
    let engine = engine(names.map(|name| Listener::new(name, poisoned(Fault::DeviceLost))).into());
    let options = StreamOptions { look_ahead: Some(0), queue_samples: 1 << 20, ..Default::default() };
    let streams = with_poison(&engine, &options, 30, 17);
    let heard: Vec<_> = streams.iter().map(hear).collect();
    for (index, heard) in heard.iter().enumerate() {
        let (_, texts) = audio(index, 120);
        assert_eq!(heard.failed.is_some(), index == 17, "stream {index}: {:?}", heard.failed);
        assert!(index == 17 || heard.words == texts, "stream {index}");
    }
    let lost = engine.lanes().iter().filter(|lane| lane.works().is_err()).count();
    assert_eq!(lost, 2, "of three devices");
}

#[test]
fn steps_that_fail_for_once_cost_nobody_anything() {
    for kind in [Fault::Internal, Fault::OutOfMemory] {
        for options in ways() {
            let mut left = vec![430, 250, 120, 3];
            let fate = move |step, steps: &[Step<'_>]| {
                // One alone would be to blame.
                let due = left.last().is_some_and(|&due| step >= due) && steps.len() > 1;
                due.then(|| left.pop()).map(|_| kind)
            };
            let engine = engine(vec![Listener::new("device", fate)]);
            let heard = run(&engine, 20, 150, &options);
            let failed: Vec<_> = heard.iter().map(|heard| &heard.failed).collect();
            assert!(failed.iter().all(|failed| failed.is_none()), "{options:?}: {failed:?}");
            let recovered: Vec<_> = heard.iter().flat_map(|heard| &heard.recovered).collect();
            assert!(recovered.iter().all(|(_, fault)| *fault == kind));
        }
    }
}

#[test]
fn a_device_that_fails_again_and_again_ends_its_streams() {
    let fate = |step, _: &[Step<'_>]| (step > 40).then_some(Fault::Internal);
    let engine = engine(vec![Listener::new("device", fate)]);
    let heard = run(&engine, 20, 150, &ways()[0]);
    assert!(heard.iter().all(|heard| heard.failed.is_some()));
    // Only steps of several fail now, and so does each that hears something again.
    let fate = |step, steps: &[Step<'_>]| (step % 7 == 3 && steps.len() > 1).then_some(Fault::Internal);
    let engine = self::engine(vec![Listener::new("device", fate)]);
    run(&engine, 20, 150, &ways()[0]);
}

#[test]
fn one_pass_is_made_again_with_all_of_its_audio() {
    let fate = |step, _: &[Step<'_>]| (step == 0).then_some(Fault::DeviceLost);
    let engine = engine(vec![Listener::new("fragile", fate), Listener::sound("sturdy")]);
    let window = Window { left: 1, chunk: 1_000, right: 0 };
    let options = [
        StreamOptions { offline: true, ..Default::default() },
        StreamOptions { window: Some(window), ..Default::default() },
    ];
    for options in options {
        let heard = run(&engine, 2, 700, &options);
        assert!(heard.iter().all(|heard| heard.failed.is_none() && heard.words.len() == 350));
    }
    assert!(engine.lanes()[0].works().is_err());
}

#[test]
fn a_reason_that_lies_with_the_stream_is_no_reason_to_try_again() {
    let fate = |step, _: &[Step<'_>]| (step == 5).then_some(Fault::Refused);
    let engine = engine(vec![Listener::new("device", fate), Listener::sound("other")]);
    let heard = run(&engine, 1, 100, &ways()[0]);
    assert_eq!(heard[0].failed.as_ref().and_then(Error::fault), Some(Fault::Refused));
    assert!(heard[0].recovered.is_empty());
}

#[test]
fn audio_lost_meanwhile_is_told_and_the_rest_is_heard() {
    let fate = |step, _: &[Step<'_>]| {
        if step == 30 {
            std::thread::sleep(Duration::from_millis(200));
        }
        (step == 30).then_some(Fault::DeviceLost)
    };
    let engine = engine(vec![Listener::new("fragile", fate), Listener::sound("sturdy")]);
    let options = StreamOptions {
        look_ahead: Some(0),
        queue_samples: 4 * FRAME,
        overflow: Overflow::DropOldest,
        ..Default::default()
    };
    let stream = engine.stream(&options).expect("a stream");
    let (pcm, texts) = audio(0, 300);
    let mut words = Vec::new();
    let mut lost = Vec::new();
    let mut recovered = 0;
    let mut take = |event| match event {
        Event::Word(word) => words.push((word.text, word.start)),
        Event::Lost { start, samples } => lost.push(start..start + samples),
        Event::Recovered { .. } => recovered += 1,
        Event::Failed { error, .. } => panic!("{error}"),
        _ => {}
    };
    for piece in pcm.chunks(FRAME) {
        stream.push(piece).expect("the stream takes audio");
        std::thread::sleep(Duration::from_millis(2));
        while let Some(event) = stream.try_next() {
            take(event);
        }
    }
    stream.finish();
    loop {
        match stream.next().expect("the stream goes on") {
            Event::Finished { sample } => break assert_eq!(sample, pcm.len() as u64),
            event => take(event),
        }
    }
    assert_eq!(recovered, 1);
    let mut words = words.into_iter().peekable();
    let mut heard = 0;
    for (index, text) in texts.iter().enumerate() {
        let said = 2 * index as u64 * FRAME_SAMPLES;
        let near = |start: u64| start + FRAME_SAMPLES > said && start < said + FRAME_SAMPLES;
        if words.next_if(|(word, start)| word == text && near(*start)).is_some() {
            heard += 1;
            continue;
        }
        let around = |lost: &std::ops::Range<u64>| {
            lost.start < said + FRAME_SAMPLES && said < lost.end + FRAME_SAMPLES
        };
        assert!(lost.iter().any(around), "{text} at {said} is missing, {:?} is next", words.peek());
    }
    assert_eq!(words.next(), None, "{heard} of {} words were heard", texts.len());
    assert!(heard > 50, "{heard} words");
}

/// An engine that loses its only device in step 40, with a spare one.
fn with_spare(spare: impl FnOnce() -> Listener + Send + 'static) -> Arc<Engine> {
    let fate = |step, _: &[Step<'_>]| (step == 40).then_some(Fault::DeviceLost);
    let spare: Spare = Box::new(move || Ok((Box::new(spare()) as Box<dyn Backend>, MODEL.config.clone())));
    let backends = boxed(vec![Listener::new("fragile", fate)]);
    let opened = Opened { backends, passed_over: Vec::new(), spare: Some(spare) };
    Arc::new(Engine::start(MODEL.clone(), opened).expect("the lane starts"))
}

#[test]
fn a_spare_device_takes_the_streams_that_it_can_bear() {
    let engine = with_spare(|| Listener::sound("spare"));
    let heard = run(&engine, 5, 200, &ways()[0]);
    assert!(heard.iter().all(|heard| heard.failed.is_none()));
    assert!(engine.works() && engine.devices().len() == 2);
    let heard = run(&engine, 3, 200, &ways()[0]);
    assert!(heard.iter().all(|heard| heard.failed.is_none() && heard.recovered.is_empty()));
}

#[test]
fn a_spare_device_takes_no_more_than_it_can_bear() {
    // A chunk of 1.12 s takes 340 ms, so three live streams would be 91 % of the time.
    let slow = |_, _: &[Step<'_>]| {
        std::thread::sleep(Duration::from_millis(340));
        None
    };
    let slowest = &ways()[3];
    let engine = with_spare(move || Listener::new("spare", slow));
    let heard = run(&engine, 8, 600, slowest);
    let failed: Vec<_> = heard.iter().filter_map(|heard| heard.failed.as_ref()).collect();
    assert_eq!(failed.len(), 6, "two are taken");
    assert!(failed.iter().all(|error| error.fault() == Some(Fault::DeviceLost)));
    let streams = [(); 2].map(|()| engine.stream(slowest).expect("it has room for two"));
    let refused = engine.stream(slowest).err().expect("no more").to_string();
    assert_eq!(
        refused,
        "backend listener, spare: it stands in for devices that were lost, and can't keep up with more streams"
    );
    drop(streams);
}

#[test]
fn streams_leave_a_device_that_has_no_room_for_them() {
    let fate = |step, _: &[Step<'_>]| (step == 30).then_some(Fault::DeviceLost);
    let (mut small, large) = (Listener::sound("small"), Listener::sound("large"));
    small.room = 3;
    let engine = engine(vec![Listener::new("fragile", fate), small, large]);
    let heard = run(&engine, 9, 200, &ways()[0]);
    assert!(heard.iter().all(|heard| heard.failed.is_none()));
}

#[test]
fn what_is_kept_is_what_another_slot_needs() {
    let encoder = &MODEL.config.encoder;
    for options in ways() {
        let mode = options.mode(&MODEL.config).expect("the model has it");
        let history = History::new(mode, encoder);
        let sizes = mode.step_sizes(encoder);
        for steps in [0, 1, 5, 40, 1_000] {
            // The step that fails was taken.
            let (decoded, taken) = (steps * history.chunk, sizes.first as u64 + steps * sizes.later as u64);
            let kept = taken.saturating_sub(history.samples as u64);
            let origin = history.origin(decoded, kept);
            assert_eq!(origin % history.chunk, 0);
            assert!(origin * FRAME_SAMPLES >= kept, "it is kept");
            assert!(origin == 0 || origin == decoded - history.left, "no less than the left context");
        }
    }
}

fn token(id: u32, frame: u64) -> Token {
    Token { id, frame, duration: Some(1), log_prob: 0.0, confidence: 1.0, margin: 1.0, duration_margin: 1.0 }
}

#[test]
fn nothing_is_said_twice_at_a_seam_and_nothing_is_lost() {
    let said = [(1, 10), (2, 14), (3, 18), (4, 19)];
    let again = |heard: &[(u32, u64)]| -> Vec<(u32, u64)> {
        let mut echo = Echo::default();
        for (id, frame) in said {
            assert!(echo.admit(token(id, frame)).is_some());
        }
        echo.reopen(20);
        let heard = heard.iter().filter_map(|&(id, frame)| echo.admit(token(id, frame)));
        heard.map(|token| (token.id, token.frame)).collect()
    };
    for (heard, expected) in [
        // The same, and what follows.
        (vec![(1, 10), (2, 14), (3, 18), (4, 19), (5, 22)], vec![(5, 22)]),
        // A little later or earlier.
        (vec![(2, 14), (3, 19), (4, 20), (5, 23)], vec![(5, 23)]),
        (vec![(2, 14), (3, 17), (4, 18), (5, 21)], vec![(5, 21)]),
        // A word that was not said yet, because it is heard earlier now.
        (vec![(3, 18), (4, 18), (5, 19), (6, 22)], vec![(5, 20), (6, 22)]),
        (vec![(3, 18), (4, 18), (5, 21), (6, 22)], vec![(5, 21), (6, 22)]),
        // Another word for a sound of which one was said.
        (vec![(3, 18), (7, 19), (5, 22)], vec![(5, 22)]),
        // The same word again, later, is another.
        (vec![(3, 18), (4, 19), (4, 22), (4, 24)], vec![(4, 22), (4, 24)]),
        (vec![], vec![]),
    ] {
        assert_eq!(again(&heard), expected, "{heard:?}");
    }
}

#[test]
fn a_seam_may_be_heard_again_and_again() {
    let mut echo = Echo::default();
    assert!(echo.admit(token(1, 18)).is_some());
    for _ in 0..3 {
        echo.reopen(20);
        assert_eq!(echo.admit(token(1, 19)), None);
    }
    assert!(echo.admit(token(1, 21)).is_some(), "it is said once more");
}

#[test]
fn what_is_heard_just_before_the_seam_and_was_not_said_is_said_after_it() {
    let mut echo = Echo::default();
    assert!(echo.admit(token(1, 10)).is_some());
    echo.reopen(20);
    assert_eq!(echo.admit(token(1, 10)), None);
    let late = echo.admit(token(2, 19)).expect("nobody has said it");
    assert_eq!((late.id, late.frame), (2, 20), "no earlier than what may still be spoken of");
}
