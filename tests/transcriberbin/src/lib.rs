// SPDX-License-Identifier: MPL-2.0
//! `parakeettdt` in transcriberbin of gst-plugins-rs, unchanged: a picture and speech go in, a picture with CEA-708 captions comes
//! out, and what those say is read back.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, Once, PoisonError};
use std::time::Duration;

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

/// A sentence of real speech, 16 kHz mono.
pub fn speech() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../data/speech.wav")
}

/// What captions say, with what they were read from.
#[derive(Default)]
struct Captions {
    parser: CCDataParser,
    text: String,
}

impl Captions {
    /// Reads the cc_data of a frame.
    fn read(&mut self, data: &[u8]) {
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
    captions: Arc<Mutex<Captions>>,
}

impl Bench {
    /// The speech `repeats` times over, with `parakeettdt` of these properties, as in a launch line.
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
             bin.src_video ! ccextractor name=x ! fakesink sync=false async=false \
             x.caption ! ccconverter ! closedcaption/x-cea-708,format=cc_data ! \
             appsink name=captions sync=false async=false"
        );
        let pipeline = gst::parse::launch(&launch).expect("the elements are installed");
        let pipeline = pipeline.downcast::<gst::Pipeline>().expect("a pipeline");
        let named = |name: &str| pipeline.by_name(name).expect("it is in the line");
        let bin = named("bin");
        bin.set_property("transcriber", &transcriber);
        // A little longer than the sound, for the last caption.
        let seconds = 8 * repeats as i32 + 6;
        named("picture").set_property("num-buffers", seconds * FRAMERATE);
        let heard = Arc::<Mutex<Captions>>::default();
        if let Some(sink) = pipeline.by_name("captions").and_downcast::<gst_app::AppSink>() {
            read(&sink, heard.clone());
        }
        Self { pipeline, bin, captions: heard }
    }

    /// Starts it.
    pub fn play(&self) {
        self.pipeline.set_state(gst::State::Playing).expect("it starts");
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

    /// What the captions say up to now, a space between words.
    pub fn text(&self) -> String {
        let captions = self.captions.lock().unwrap_or_else(PoisonError::into_inner);
        captions.text.split_whitespace().collect::<Vec<_>>().join(" ")
    }

    /// Whether the bin has given up captioning.
    pub fn passes_through(&self) -> bool {
        self.bin.property("passthrough")
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        let _ = self.pipeline.set_state(gst::State::Null);
    }
}

/// Has what comes to the sink read.
fn read(sink: &gst_app::AppSink, captions: Arc<Mutex<Captions>>) {
    let take = move |sink: &gst_app::AppSink| {
        let sample = sink.pull_sample().map_err(|_| gst::FlowError::Eos)?;
        let buffer = sample.buffer().ok_or(gst::FlowError::Error)?;
        let data = buffer.map_readable().map_err(|_| gst::FlowError::Error)?;
        captions.lock().unwrap_or_else(PoisonError::into_inner).read(&data);
        Ok(gst::FlowSuccess::Ok)
    };
    sink.set_callbacks(gst_app::AppSinkCallbacks::builder().new_sample(take).build());
}

/// What the element alone makes of the speech.
pub fn words() -> String {
    init();
    let launch = format!(
        "filesrc location={} ! wavparse ! audioconvert ! audioresample ! parakeettdt ! appsink name=out sync=false",
        speech().display()
    );
    let pipeline = gst::parse::launch(&launch).expect("the elements are installed");
    let pipeline = pipeline.downcast::<gst::Pipeline>().expect("a pipeline");
    let out = pipeline.by_name("out").and_downcast::<gst_app::AppSink>().expect("it is in the line");
    pipeline.set_state(gst::State::Playing).expect("it starts");
    let mut words = Vec::new();
    while let Ok(sample) = out.pull_sample() {
        let buffer = sample.buffer().expect("text");
        let data = buffer.map_readable().expect("memory");
        words.push(String::from_utf8(data.to_vec()).expect("UTF-8"));
    }
    let _ = pipeline.set_state(gst::State::Null);
    words.join(" ").split_whitespace().collect::<Vec<_>>().join(" ")
}
