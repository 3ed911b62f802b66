// SPDX-License-Identifier: MPL-2.0
//! `parakeettdt` in transcriberbin of gst-plugins-rs, unchanged: a picture and speech go in, a picture with CEA-708 captions comes
//! out, and what those say is read back.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, Once, PoisonError};
use std::time::{Duration, Instant};

use cea708_types::{CCDataParser, tables::Code};
use gst::prelude::*;

/// Frames of the picture in a second.
const FRAMERATE: i32 = 25;

/// Registers every plugin that takes part.
pub fn init() {
    static REGISTERED: Once = Once::new();
    REGISTERED.call_once(|| {
        gst::init().expect("GStreamer starts");
        gstparakeet::plugin_register_static().expect("the plugin registers");
        gstrsclosedcaption::plugin_register_static().expect("the plugin registers");
        gsttextwrap::plugin_register_static().expect("the plugin registers");
    });
}

/// The source tree.
fn tree() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// A sentence of real speech, 16 kHz mono, a little more than 6 s.
pub fn speech() -> PathBuf {
    tree().join("tests/data/speech.wav")
}

/// The model of the source tree in a directory of its own, which no other test loads, with only so many bytes of its weights if
/// they are to be cut short.
pub fn model(weights: Option<usize>) -> tempfile::TempDir {
    let own = tempfile::tempdir().expect("temporary files can be written");
    let original = tree().join("models/parakeet-tdt-mini");
    for name in ["config.json", "tokens.txt", "model.safetensors"] {
        let mut bytes = fs::read(original.join(name)).expect("the model is in the tree");
        if let (Some(length), "model.safetensors") = (weights, name) {
            bytes.truncate(length);
        }
        fs::write(own.path().join(name), bytes).expect("temporary files can be written");
    }
    own
}

/// What captions say, with what they were read from.
#[derive(Default)]
pub struct Captions {
    parser: CCDataParser,
    /// What was said until now, as it came: a new line is a space.
    pub text: String,
    frames: usize,
}

impl Captions {
    /// Reads what is on a frame.
    fn frame(&mut self, buffer: &gst::BufferRef) {
        self.frames += 1;
        for meta in buffer.iter_meta::<gst_video::VideoCaptionMeta>() {
            assert_eq!(meta.caption_type(), gst_video::VideoCaptionType::Cea708Raw);
            self.read(meta.data());
        }
    }

    /// Reads the cc_data of a frame.
    pub fn read(&mut self, data: &[u8]) {
        // The parser wants the header that is in MPEG-2 user data: flags with the number of triples, and a reserved byte.
        let triples = data.len() / 3;
        let mut whole = vec![0xc0 | triples as u8, 0xff];
        whole.extend_from_slice(data);
        self.parser.push(&whole).expect("sound captions");
        while let Some(packet) = self.parser.pop_packet() {
            for code in
                packet.services().iter().filter(|service| service.number() == 1).flat_map(|s| s.codes())
            {
                match code {
                    Code::CR | Code::HCR | Code::FF => self.text.push(' '),
                    code => self.text.extend(code.char()),
                }
            }
        }
    }
}

/// A pipeline with a transcriberbin in it.
pub struct Bench {
    /// All of it.
    pub pipeline: gst::Pipeline,
    /// The bin.
    pub bin: gst::Element,
    /// The element in it.
    pub transcriber: gst::Element,
    captions: Arc<Mutex<Captions>>,
    told: Arc<Mutex<Vec<gst::Structure>>>,
}

impl Bench {
    /// The speech `repeats` times over, with `parakeettdt` of these properties, as in a launch line. The picture lasts longer
    /// than the sound, for the last caption.
    pub fn new(properties: &str, repeats: usize) -> Self {
        init();
        let transcriber = gst::parse::launch(&format!("parakeettdt name=transcriber {properties}"));
        let transcriber = transcriber.expect("the element has these properties");
        let speech = speech();
        // Each frame of the picture and its sound come at their time: the bin keeps to the clock.
        let files = vec![format!("filesrc location={} ! wavparse ! c.", speech.display()); repeats].join(" ");
        let launch = format!(
            "transcriberbin name=bin mux-method=cea708 cc-caps=closedcaption/x-cea-708,format=(string)cc_data \
             concat name=c ! audioconvert ! audioresample ! bin.sink_audio {files} \
             videotestsrc name=picture pattern=black ! video/x-raw,width=64,height=64,framerate={FRAMERATE}/1 ! bin.sink_video \
             bin.src_audio ! fakesink sync=false async=false \
             bin.src_video ! fakesink name=screen sync=false async=false"
        );
        let pipeline = gst::parse::launch(&launch).expect("the elements are installed");
        let pipeline = pipeline.downcast::<gst::Pipeline>().expect("a pipeline");
        let named = |name: &str| pipeline.by_name(name).expect("it is in the line");
        let bin = named("bin");
        bin.set_property("transcriber", &transcriber);
        let seconds = 7 * repeats as i32 + 5;
        named("picture").set_property("num-buffers", seconds * FRAMERATE);
        let captions = Arc::<Mutex<Captions>>::default();
        let seen = captions.clone();
        let screen = named("screen").static_pad("sink").expect("a sink has one");
        screen.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
            if let Some(buffer) = info.buffer() {
                locked(&seen).frame(buffer);
            }
            gst::PadProbeReturn::Ok
        });
        let told = Arc::<Mutex<Vec<gst::Structure>>>::default();
        let heard = told.clone();
        pipeline.bus().expect("a pipeline has one").set_sync_handler(move |_, message| {
            if let gst::MessageView::Element(element) = message.view() {
                locked(&heard).extend(element.structure().map(ToOwned::to_owned));
            }
            gst::BusSyncReply::Pass
        });
        Self { pipeline, bin, transcriber, captions, told }
    }

    /// Starts it, in two steps: the bin starts what makes captions when the picture's caps come, and panics now and then if the
    /// pipeline changes its state meanwhile.
    pub fn play(&self) {
        self.pause();
        self.pipeline.set_state(gst::State::Playing).expect("it starts");
    }

    /// Has it ready to play.
    pub fn pause(&self) {
        self.pipeline.set_state(gst::State::Paused).expect("it starts");
        let bin = self.bin.downcast_ref::<gst::Bin>().expect("it is one");
        let is_paused =
            |name: &str| bin.by_name(name).is_some_and(|part| part.current_state() >= gst::State::Paused);
        self.wait(Duration::from_secs(30), |bench| {
            bench.passes_through()
                || ["transcription-bin", "transcription-bin-sink_audio"].map(is_paused) == [true; 2]
        });
    }

    /// Waits for the end of the stream. Panics with an error of the pipeline, or if it hangs.
    pub fn finish(&self, patience: Duration) {
        let bus = self.pipeline.bus().expect("a pipeline has one");
        let left = gst::ClockTime::try_from(patience).expect("a short time");
        let message = bus
            .timed_pop_filtered(left, &[gst::MessageType::Eos, gst::MessageType::Error])
            .unwrap_or_else(|| panic!("no end of the stream after {patience:?}; so far: {}", self.text()));
        if let gst::MessageView::Error(error) = message.view() {
            panic!("{error:?}");
        }
    }

    /// Waits until it is so. Panics if that takes too long.
    pub fn wait(&self, patience: Duration, what: impl Fn(&Self) -> bool) {
        let until = Instant::now() + patience;
        while !what(self) {
            assert!(Instant::now() < until, "so far: {}", self.text());
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// What the captions say up to now, a space between words.
    pub fn text(&self) -> String {
        locked(&self.captions).text.split_whitespace().collect::<Vec<_>>().join(" ")
    }

    /// How many frames of the picture came out.
    pub fn frames(&self) -> usize {
        locked(&self.captions).frames
    }

    /// How many went in, once all have.
    pub fn frames_in(&self) -> usize {
        let picture = self.pipeline.by_name("picture").expect("it is in the line");
        picture.property::<i32>("num-buffers") as usize
    }

    /// The element messages of this name.
    pub fn told(&self, name: &str) -> Vec<gst::Structure> {
        locked(&self.told).iter().filter(|structure| structure.name() == name).cloned().collect()
    }

    /// Whether the bin has given up captioning.
    pub fn passes_through(&self) -> bool {
        self.bin.property("passthrough")
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        // What hangs, and is told by a panic, may not let itself be stopped either.
        if !std::thread::panicking() {
            let _ = self.pipeline.set_state(gst::State::Null);
        }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the element alone makes of the speech.
pub fn words() -> String {
    let words: Vec<String> = heard(&speech()).into_iter().map(|(_, word)| word).collect();
    words.join(" ")
}

/// The words that the element alone hears in a file, with where they are spoken.
pub fn heard(file: &Path) -> Vec<(gst::ClockTime, String)> {
    let launch = format!(
        "filesrc location={} ! decodebin caps=audio/x-raw expose-all-streams=false ! audioconvert ! audioresample ! \
         parakeettdt ! fakesink name=out sync=false",
        file.display()
    );
    buffers(&launch)
        .into_iter()
        .map(|(at, text)| (at, String::from_utf8_lossy(&text).trim().to_owned()))
        .collect()
}

/// What comes to the sink `out` of a pipeline up to its end, with time stamps.
pub fn buffers(launch: &str) -> Vec<(gst::ClockTime, Vec<u8>)> {
    init();
    let pipeline = gst::parse::launch(launch).expect("the elements are installed");
    let pipeline = pipeline.downcast::<gst::Pipeline>().expect("a pipeline");
    let buffers = Arc::<Mutex<Vec<_>>>::default();
    let seen = buffers.clone();
    let out = pipeline.by_name("out").and_then(|sink| sink.static_pad("sink")).expect("it is in the line");
    out.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
        if let Some(buffer) = info.buffer() {
            let map = buffer.map_readable().expect("memory that can be read");
            locked(&seen).push((buffer.pts().expect("a time stamp"), map.to_vec()));
        }
        gst::PadProbeReturn::Ok
    });
    pipeline.set_state(gst::State::Playing).expect("it starts");
    let ends = [gst::MessageType::Eos, gst::MessageType::Error];
    let patience = gst::ClockTime::from_seconds(90);
    let end = pipeline.bus().expect("a pipeline has one").timed_pop_filtered(patience, &ends);
    assert_eq!(end.map(|message| message.type_()), Some(gst::MessageType::Eos), "{launch}");
    let _ = pipeline.set_state(gst::State::Null);
    std::mem::take(&mut *locked(&buffers))
}
