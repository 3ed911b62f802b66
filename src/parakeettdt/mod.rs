// SPDX-License-Identifier: MPL-2.0
//! The element `parakeettdt`, for users of the crate.
/**
 * SECTION:element-parakeettdt
 * @see_also: transcriberbin, textwrap, srtenc
 *
 * Turns speech into text with an NVIDIA Parakeet or Nemotron model: FastConformer encoder, TDT or RNN-T decoder.
 * Each word, or phrase or sentence (`text-unit`), is one buffer with the time at which it was spoken; gap events fill the
 * time between.
 *
 * The plugin comes with a small English model, `parakeet-tdt-mini`, so the element works as it is. Larger models are
 * converted once with `parakeet convert` and named in the `model` property. A model is loaded in the background on the
 * way to READY, once for all elements of a process that name the same one; progress messages tell how it goes. It is kept
 * for 10 s after the last of them is in NULL, unless another is loaded, so that stopping and starting one costs nothing.
 *
 * Models with full attention, such as parakeet-tdt-0.6b-v3, hear a window of `left-context`, `chunk` and `right-context`
 * that moves on by a chunk, unless they are set the model's own; a model that was trained for some windows takes no others.
 * Models that stream with caches choose among their own contexts with `look-ahead`. Silence is
 * not recognised at all unless `skip-silence` is off.
 *
 * The model runs on the NVIDIA GPUs that can run it, else on the CPU; `backend` and `device` choose otherwise, and the
 * debug category parakeettdt tells at INFO what was taken and why. A GPU takes its driver, NVRTC and cuBLASLt of CUDA 12 or
 * 13; it computes all elements of a process that name the same model together.
 *
 * With a live source text is pushed at most `latency` after it was begun, which is what the element answers to a latency
 * query beside upstream's: by default what the model hears ahead and how late it emits a word, a second for a word, and what
 * `text-unit` takes. Less makes the element choose a shorter look-ahead or window where those are not set, and cut units of text
 * short. Audio that can't be recognised in time is dropped with a message, unless `overload` says otherwise. Without a live source
 * nothing is ever dropped: the source waits, and so must other branches of the pipeline, with queues as long as that takes.
 *
 * Time stamps of the text are running times, in a segment of its own; ParakeetWordsMeta has the stream time, and the words with
 * their times.
 *
 * The audio is 16 kHz mono; put audioconvert and audioresample before the element.
 *
 * ## Example launch lines
 * |[
 * gst-launch-1.0 -q filesrc location=speech.ogg ! decodebin ! audioconvert ! audioresample ! parakeettdt text-unit=phrase ! srtenc ! fdsink
 * ]| Prints what is said in a file as SubRip captions.
 * |[
 * gst-launch-1.0 -q filesrc location=speech.ogg ! decodebin ! audioconvert ! audioresample ! parakeettdt ! fakesink silent=false dump=true
 * ]| Shows each word's buffer.
 * |[
 * gst-launch-1.0 -q autoaudiosrc ! audioconvert ! audioresample ! parakeettdt latency=3000 text-unit=phrase ! srtenc ! fdsink sync=false
 * ]| Captions what is said into the microphone, each phrase at most 3 s after it was begun.
 * |[
 * gst-launch-1.0 -q filesrc location=speech.ogg ! decodebin ! audioconvert ! audioresample ! parakeettdt text-unit=phrase backend=cuda cache-precision=int8 ! srtenc ! fdsink
 * ]| Runs on the NVIDIA GPUs or fails, and keeps the keys and values of streams in 8 bits.
 *
 * Since: 0.1.0
 */
use gst::{glib, prelude::*};

mod bus;
mod context;
mod deadline;
mod events;
mod imp;
mod input;
mod keep;
mod language;
mod latency;
mod load;
mod meta;
mod model;
mod open;
mod output;
mod places;
mod settings;
mod sink;
mod stamps;
mod state;
mod statistics;
mod text;
mod timeline;
mod worker;

pub use context::{ENGINE_CONTEXT, engine_context};

glib::wrapper! {
    /// GStreamer element that recognises speech. Create it by its factory, `parakeettdt`.
    pub struct ParakeetTdt(ObjectSubclass<imp::ParakeetTdt>)
        @extends gst::Element, gst::Object,
        @implements gst::Preset;
}

/// What the model runs on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, glib::Enum)]
#[enum_type(name = "GstParakeetBackend")]
pub enum Backend {
    /// NVIDIA GPUs where they run the model, else the processor.
    #[default]
    #[enum_value(name = "Auto: NVIDIA GPUs where they run the model, else the CPU", nick = "auto")]
    Auto,
    /// The processor.
    #[enum_value(name = "CPU: works everywhere", nick = "cpu")]
    Cpu,
    /// NVIDIA GPUs.
    #[enum_value(name = "CUDA: NVIDIA GPUs, or an error", nick = "cuda")]
    Cuda,
}

/// Type of weights and activations on a GPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, glib::Enum)]
#[enum_type(name = "GstParakeetPrecision")]
pub enum Precision {
    /// By the model.
    #[default]
    #[enum_value(name = "Auto: F16, or BF16 for a model whose numbers that doesn't hold", nick = "auto")]
    Auto,
    /// Half precision.
    #[enum_value(name = "F16: half precision, exact to three digits", nick = "f16")]
    F16,
    /// bfloat16.
    #[enum_value(name = "BF16: as fast as F16, exact to two digits", nick = "bf16")]
    Bf16,
    /// Single precision.
    #[enum_value(name = "F32: single precision, to compare with", nick = "f32")]
    F32,
    /// Half precision, with 8 bits in the products of the encoder's layers.
    #[enum_value(
        name = "F8: F16 with products of 8 bits, the fastest, exact to one digit; for compute capability 9.0 with CUDA 12.9 or later",
        nick = "f8"
    )]
    F8,
}

/// Type of the keys and values that a stream keeps on a GPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, glib::Enum)]
#[enum_type(name = "GstParakeetCachePrecision")]
pub enum CachePrecision {
    /// That of the activations.
    #[default]
    #[enum_value(name = "Full: as the activations", nick = "full")]
    Full,
    /// Integers of 8 bits.
    #[enum_value(name = "Int8: half the memory of half precision", nick = "int8")]
    Int8,
}

/// What one text buffer holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, glib::Enum)]
#[enum_type(name = "GstParakeetTextUnit")]
pub enum TextUnit {
    /// Each word by itself.
    #[default]
    #[enum_value(name = "Word: each by itself, as soon as it can't change any more", nick = "word")]
    Word,
    /// Up to punctuation or a pause.
    #[enum_value(
        name = "Phrase: up to punctuation, a pause of 0.5 s, two caption lines or 7 s",
        nick = "phrase"
    )]
    Phrase,
    /// Up to a full stop or a long pause.
    #[enum_value(
        name = "Sentence: up to its punctuation, a pause of 1.5 s, 400 characters or 20 s",
        nick = "sentence"
    )]
    Sentence,
}

/// What happens when recognition is slower than the audio comes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, glib::Enum)]
#[enum_type(name = "GstParakeetOverload")]
pub enum Overload {
    /// By the source.
    #[default]
    #[enum_value(name = "Auto: drop-oldest with a live source, else block", nick = "auto")]
    Auto,
    /// The oldest audio goes.
    #[enum_value(
        name = "Drop oldest: audio that waited too long for its text to be in time is dropped",
        nick = "drop-oldest"
    )]
    DropOldest,
    /// The source waits.
    #[enum_value(name = "Block: the source waits", nick = "block")]
    Block,
}

pub(crate) fn register(plugin: &gst::Plugin) -> Result<(), glib::BoolError> {
    meta::register();
    gst::Element::register(Some(plugin), "parakeettdt", gst::Rank::NONE, ParakeetTdt::static_type())
}
