// SPDX-License-Identifier: MPL-2.0
//! A bench for `parakeettdt`: pushes speech into it and records, in order, all that leaves it.

#![allow(dead_code, reason = "each test program uses its part")]

use gst::prelude::*;
use gst_check::Harness;
use parakeet_engine::backend::{self, Backend, Decoded, Limits, Mode, Slot, Step};
use parakeet_engine::{BackendChoice, Engine, EngineOptions, Event, StreamOptions, model::Model};
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::{Arc, LazyLock, Mutex, Once, mpsc},
    time::{Duration, Instant},
};

/// Longest wait for something that must come.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Samples in a millisecond.
pub const MS: usize = 16;

pub const S16: &str = "audio/x-raw,format=S16LE,rate=16000,channels=1,layout=interleaved";
pub const F32: &str = "audio/x-raw,format=F32LE,rate=16000,channels=1,layout=interleaved";

/// The shortest of the clips.
pub const SHORT: &str = "0880";

pub fn init() {
    static INIT: Once = Once::new();
    INIT.call_once(|| {
        gst::init().unwrap();
        gstparakeet::plugin_register_static().unwrap();
    });
}

/// Samples of one of the five LibriVox sentences of Debian's pocketsphinx-testdata.
pub fn speech(clip: &str) -> Vec<i16> {
    let name = format!("sense_and_sensibility_01_austen_64kb-{clip}.wav");
    let path = PathBuf::from("/usr/share/pocketsphinx/test/data/librivox").join(name);
    let wav = fs::read(&path).unwrap_or_else(|error| {
        panic!("{}: {error}; install Debian's package pocketsphinx-testdata", path.display())
    });
    let data = wav.windows(4).position(|bytes| bytes == b"data").expect("a WAV file has a data chunk") + 8;
    wav[data..].as_chunks().0.iter().map(|bytes| i16::from_le_bytes(*bytes)).collect()
}

/// What the model hears in a clip with a context `left,right`.
#[derive(Clone)]
pub struct Expected {
    pub text: String,
    /// Each word with the sample it starts at.
    pub words: Vec<(String, u64)>,
}

/// In one pass of the engine, with silence behind the clip as the element has it. Up to that silence it is what the
/// reference implementation hears, which is without.
pub fn expected(clip: &str, context: &str) -> Expected {
    static HEARD: Mutex<BTreeMap<(String, String), Expected>> = Mutex::new(BTreeMap::new());
    let mut heard = HEARD.lock().unwrap();
    let known = heard.entry((clip.to_owned(), context.to_owned()));
    known.or_insert_with(|| hear(clip, context)).clone()
}

fn hear(clip: &str, context: &str) -> Expected {
    static ENGINE: LazyLock<Arc<Engine>> = LazyLock::new(|| {
        let options = EngineOptions { backend: BackendChoice::Cpu, ..EngineOptions::default() };
        Engine::open(&embedded(), &options).unwrap()
    });
    let look_ahead = context.split_once(',').map(|(_, right)| right.parse().unwrap());
    let pcm: Vec<f32> = speech(clip).iter().map(|sample| f32::from(*sample) / 32_768.0).collect();
    let options =
        StreamOptions { look_ahead, offline: true, queue_samples: pcm.len(), ..StreamOptions::default() };
    let stream = ENGINE.stream(&options).unwrap();
    stream.push(&pcm).unwrap();
    stream.finish();
    let (mut text, mut words, mut tokens) = (String::new(), Vec::new(), Vec::new());
    loop {
        match stream.next().unwrap() {
            Event::Word(word) => {
                if !(text.is_empty() || word.joined) {
                    text.push(' ');
                }
                text.push_str(&word.text);
                tokens.extend(word.tokens.iter().map(|timed| (timed.token.frame, timed.token.id)));
                words.push((word.text, word.start));
            }
            Event::Finished { .. } => break,
            Event::Failed { error, .. } => panic!("{error}"),
            _ => {}
        }
    }
    static GOLDEN: LazyLock<serde_json::Value> =
        LazyLock::new(|| serde_json::from_str(include_str!("../data/expected.json")).unwrap());
    let name = format!("sense_and_sensibility_01_austen_64kb-{clip}.wav");
    let golden = &GOLDEN["files"][&name]["contexts"][context];
    let numbers = |key: &str| golden[key].as_array().unwrap().iter().map(|n| n.as_u64().unwrap());
    // Frames that see beyond the clip may hear the silence there.
    let last = (pcm.len() / 1_280) as u64 - 15;
    let golden: Vec<_> = numbers("start").zip(numbers("tokens")).filter(|token| token.0 < last).collect();
    let heard: Vec<_> =
        tokens.iter().map(|&(frame, id)| (frame, u64::from(id))).filter(|token| token.0 < last).collect();
    assert_eq!(heard, golden, "{clip}, context {context}");
    Expected { text, words }
}

/// Something that left the source pad.
#[derive(Clone, Debug)]
pub enum Out {
    Word { text: String, start: gst::ClockTime, end: gst::ClockTime, discont: bool },
    Gap { start: gst::ClockTime, end: gst::ClockTime },
    Event(gst::Event),
}

/// A temporary directory that is removed on drop.
pub struct Scratch(pub PathBuf);

impl Scratch {
    pub fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("gstparakeet-{}-{name}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Scratch(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The model of the source tree.
pub fn embedded() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("models/parakeet-tdt-mini")
}

/// The element in a harness, with a bus and a record of its output.
pub struct Bench {
    pub harness: Harness,
    pub element: gst::Element,
    pub bus: gst::Bus,
    record: mpsc::Receiver<Out>,
}

/// The element with the model of the source tree, wherever the tests were built, on the CPU, whose words are the
/// reference's to the last.
pub fn element() -> gst::Element {
    init();
    let model = concat!(env!("CARGO_MANIFEST_DIR"), "/models/parakeet-tdt-mini");
    let element = gst::ElementFactory::make("parakeettdt").property("model", model);
    element.property_from_str("backend", "cpu").build().unwrap()
}

/// The embedded model on a processor that can be held.
pub struct Held {
    pub engine: Arc<Engine>,
    hold: Arc<Mutex<()>>,
}

/// Its backend.
struct HeldBackend {
    inner: Box<dyn Backend>,
    hold: Arc<Mutex<()>>,
}

impl Held {
    pub fn new() -> Self {
        let model = Arc::new(Model::load(&embedded()).unwrap());
        let options = EngineOptions { backend: BackendChoice::Cpu, ..EngineOptions::default() };
        let inner = backend::open(&model, &options).unwrap().backends.pop().unwrap();
        let hold = Arc::new(Mutex::new(()));
        let held = HeldBackend { inner, hold: hold.clone() };
        let engine = Engine::with_backends(model, vec![Box::new(held)]).unwrap();
        Held { engine, hold }
    }

    /// No step begins while this lasts.
    pub fn hold(&self) -> std::sync::MutexGuard<'_, ()> {
        self.hold.lock().unwrap()
    }
}

impl Backend for HeldBackend {
    fn name(&self) -> &'static str {
        "held"
    }

    fn device(&self) -> String {
        self.inner.device()
    }

    fn limits(&self) -> Limits {
        self.inner.limits()
    }

    fn open(&mut self, mode: Mode, language: usize) -> parakeet_engine::Result<Slot> {
        self.inner.open(mode, language)
    }

    fn close(&mut self, slot: Slot) {
        self.inner.close(slot);
    }

    fn reset(&mut self, slot: Slot) {
        self.inner.reset(slot);
    }

    fn step(&mut self, steps: &[Step<'_>]) -> Vec<parakeet_engine::Result<Decoded>> {
        let _hold = self.hold.lock().unwrap();
        self.inner.step(steps)
    }

    fn slot_bytes(&self, mode: Mode) -> usize {
        self.inner.slot_bytes(mode)
    }
}

impl Bench {
    /// A source that is not live, with S16LE audio.
    pub fn new() -> Self {
        Bench::with(element(), false)
    }

    /// A bench around an element whose properties are set.
    pub fn with(element: gst::Element, live: bool) -> Self {
        let bus = gst::Bus::new();
        element.set_bus(Some(&bus));
        let (sender, record) = mpsc::channel();
        let probe =
            gst::PadProbeType::BUFFER | gst::PadProbeType::EVENT_DOWNSTREAM | gst::PadProbeType::EVENT_FLUSH;
        element.static_pad("src").unwrap().add_probe(probe, move |_, info| {
            let out = match &info.data {
                Some(gst::PadProbeData::Buffer(buffer)) => word(buffer),
                Some(gst::PadProbeData::Event(event)) => match event.view() {
                    gst::EventView::Gap(gap) => {
                        let (start, duration) = gap.get();
                        Out::Gap { start, end: start + duration.expect("gaps have a duration") }
                    }
                    _ => Out::Event(event.clone()),
                },
                _ => return gst::PadProbeReturn::Ok,
            };
            // The bench may be gone before the element.
            let _ = sender.send(out);
            gst::PadProbeReturn::Ok
        });
        let mut harness = Harness::with_element(&element, Some("sink"), Some("src"));
        harness.set_live(live);
        harness.set_src_caps_str(S16);
        Bench { harness, element, bus, record }
    }

    /// Pushes samples as S16LE in buffers of `size` samples, the first at `start`. Returns where they end.
    pub fn push(&mut self, pcm: &[i16], start: gst::ClockTime, size: usize) -> gst::ClockTime {
        let mut at = 0;
        for piece in pcm.chunks(size) {
            self.harness.push(buffer(piece, Some(start + time(at)))).unwrap();
            at += piece.len();
        }
        start + time(at)
    }

    /// Brings nothing for so long, and waits until that has left. Returns where it ends.
    pub fn pause(&mut self, start: gst::ClockTime, long: gst::ClockTime) -> gst::ClockTime {
        assert!(self.harness.push_event(gst::event::Gap::builder(start).duration(long).build()));
        while !matches!(self.next_out(), Out::Gap { end, .. } if end >= start + long) {}
        start + long
    }

    /// Ends the stream and returns all output since the last call, up to EOS.
    pub fn drain(&mut self) -> Vec<Out> {
        assert!(self.harness.push_event(gst::event::Eos::new()));
        self.until(gst::EventType::Eos)
    }

    /// All output up to an event of this type.
    pub fn until(&mut self, kind: gst::EventType) -> Vec<Out> {
        let mut outs = Vec::new();
        loop {
            let out =
                self.record.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("no {kind:?} came: {outs:?}"));
            let is_last = matches!(&out, Out::Event(event) if event.type_() == kind);
            outs.push(out);
            if is_last {
                return outs;
            }
        }
    }

    /// The next thing that leaves.
    pub fn next_out(&self) -> Out {
        self.record.recv_timeout(PATIENCE).expect("more comes out")
    }

    /// The next thing that leaves, with the test clock moved on to what is waited for whenever nothing leaves for a while.
    pub fn next_in_time(&self) -> Out {
        let clock = self.harness.testclock().expect("harnesses have one");
        for _ in 0..600 {
            if let Ok(out) = self.record.recv_timeout(Duration::from_millis(100)) {
                return out;
            }
            if clock.peek_id_count() > 0 {
                clock.crank();
            }
        }
        panic!("nothing leaves");
    }

    /// Output that has left already.
    pub fn so_far(&self) -> Vec<Out> {
        self.record.try_iter().collect()
    }

    /// Waits for a message of this type, with whatever else the bus holds before.
    pub fn message(&self, kind: gst::MessageType) -> gst::Message {
        let patience = gst::ClockTime::from_seconds(PATIENCE.as_secs());
        self.bus.timed_pop_filtered(patience, &[kind]).unwrap_or_else(|| panic!("no {kind:?} was posted"))
    }

    /// Pushes until that is refused.
    pub fn push_until_refused(&mut self) {
        let until = Instant::now() + PATIENCE;
        while self.harness.push(buffer(&[0; 1_600], Some(gst::ClockTime::ZERO))).is_ok() {
            assert!(Instant::now() < until, "it is taken");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Audio is pushed until it is refused: the text of the error that the element posts.
    pub fn refusal(&mut self) -> String {
        self.push_until_refused();
        let message = self.message(gst::MessageType::Error);
        let gst::MessageView::Error(error) = message.view() else { unreachable!() };
        error.error().to_string()
    }

    /// Waits until the model is loaded.
    pub fn wait_for_model(&self) {
        loop {
            let message = self.message(gst::MessageType::Progress);
            let gst::MessageView::Progress(progress) = message.view() else { unreachable!() };
            match progress.get().0 {
                gst::ProgressType::Complete => return,
                gst::ProgressType::Start => {}
                other => panic!("the model was not loaded: {other:?}"),
            }
        }
    }

    pub fn assert_no_errors(&self) {
        assert!(self.bus.pop_filtered(&[gst::MessageType::Error]).is_none());
    }
}

fn word(buffer: &gst::BufferRef) -> Out {
    let map = buffer.map_readable().unwrap();
    let text = std::str::from_utf8(&map).expect("text is UTF-8").to_owned();
    assert!(!text.trim().is_empty(), "text is never blank");
    let start = buffer.pts().expect("words have a time stamp");
    let end = start + buffer.duration().expect("words have a duration");
    Out::Word { text, start, end, discont: buffer.flags().contains(gst::BufferFlags::DISCONT) }
}

/// Duration of a number of samples.
pub fn time(samples: usize) -> gst::ClockTime {
    gst::ClockTime::from_nseconds(samples as u64 * 62_500)
}

/// A buffer of S16LE samples.
pub fn buffer(pcm: &[i16], pts: Option<gst::ClockTime>) -> gst::Buffer {
    let bytes: Vec<u8> = pcm.iter().flat_map(|sample| sample.to_le_bytes()).collect();
    stamped(bytes, pts, pcm.len())
}

/// A buffer of F32LE samples.
pub fn buffer_f32(pcm: &[f32], pts: Option<gst::ClockTime>) -> gst::Buffer {
    let bytes: Vec<u8> = pcm.iter().flat_map(|sample| sample.to_le_bytes()).collect();
    stamped(bytes, pts, pcm.len())
}

fn stamped(bytes: Vec<u8>, pts: Option<gst::ClockTime>, samples: usize) -> gst::Buffer {
    let mut buffer = gst::Buffer::from_mut_slice(bytes);
    let header = buffer.get_mut().unwrap();
    header.set_pts(pts);
    header.set_duration(time(samples));
    buffer
}

/// The words of a record.
pub fn words(outs: &[Out]) -> Vec<String> {
    let text = |out: &Out| match out {
        Out::Word { text, .. } => Some(text.clone()),
        _ => None,
    };
    outs.iter().filter_map(text).collect()
}

/// The text of a record.
pub fn text(outs: &[Out]) -> String {
    words(outs).join(" ")
}

/// Time stamps of the words of a record.
pub fn starts(outs: &[Out]) -> Vec<gst::ClockTime> {
    let start = |out: &Out| match out {
        Out::Word { start, .. } => Some(*start),
        _ => None,
    };
    outs.iter().filter_map(start).collect()
}

/// The event types of a record, in order.
pub fn events(outs: &[Out]) -> Vec<gst::EventType> {
    let kind = |out: &Out| match out {
        Out::Event(event) => Some(event.type_()),
        _ => None,
    };
    outs.iter().filter_map(kind).collect()
}

/// Fails unless words and gaps follow each other without hole or overlap; returns where they start and end.
pub fn assert_contiguous(outs: &[Out]) -> Option<(gst::ClockTime, gst::ClockTime)> {
    let mut span: Option<(gst::ClockTime, gst::ClockTime)> = None;
    for out in outs {
        let (Out::Word { start, end, .. } | Out::Gap { start, end }) = out else { continue };
        assert!(end > start, "{out:?} has no length");
        if let Some((_, position)) = span {
            assert_eq!(*start, position, "{out:?} leaves a hole or overlaps");
        }
        span = Some((span.map_or(*start, |span| span.0), *end));
    }
    span
}

/// A pause of flushing, as a seek makes it, and a new segment.
pub fn flush(bench: &mut Bench) {
    assert!(bench.harness.push_event(gst::event::FlushStart::new()));
    assert!(bench.harness.push_event(gst::event::FlushStop::new(true)));
    let segment = gst::FormattedSegment::<gst::ClockTime>::new();
    assert!(bench.harness.push_event(gst::event::Segment::new(&segment)));
}

/// A number of this process that the kernel counts; memory in kB.
pub fn status(field: &str) -> usize {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with(field)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}
