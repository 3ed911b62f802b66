// SPDX-License-Identifier: MPL-2.0
//! What the user sets on the element: properties, their defaults and their meaning.

use super::{
    Backend, CachePrecision, Overload, Precision, TextUnit,
    language::Language,
    latency::{self, LATENCY_OF_MODEL, Wanted},
};
use gst::{glib, prelude::*};
use parakeet_engine::{
    BackendChoice, Boosts, EngineOptions, Error, Mask, StreamOptions, Units,
    model::{ModelConfig, Vocabulary},
};
use std::sync::{Arc, LazyLock};

/// Value of `look-ahead`, `left-context`, `chunk` and `right-context` that leaves the choice to the model.
const OF_MODEL: u32 = u32::MAX;

/// Value of `device` that leaves the choice to the element.
const AUTO: &str = "auto";

/// Value of `language-code` if nobody sets it.
const ENGLISH: &str = "en-US";

/// Milliseconds of an encoder frame.
const FRAME_MS: usize = 80;

/// The element's properties.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    pub model: Option<String>,
    backend: Backend,
    device: String,
    precision: Precision,
    cache_precision: CachePrecision,
    threads: u32,
    look_ahead_ms: u32,
    left_context_ms: u32,
    chunk_ms: u32,
    right_context_ms: u32,
    skip_silence: bool,
    text_unit: TextUnit,
    partials: bool,
    raw: bool,
    mask_profanities: bool,
    profanities: Option<String>,
    vocabulary: Option<String>,
    vocabulary_boost: f32,
    /// None if nobody set it.
    language_code: Option<String>,
    latency_ms: u32,
    lateness_ms: u32,
    overload: Overload,
}

/// What decides which model is loaded and where.
#[derive(Clone, Debug, PartialEq)]
pub struct ToLoad {
    model: Option<String>,
    backend: Backend,
    device: String,
    precision: Precision,
    cache_precision: CachePrecision,
    threads: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            model: None,
            backend: Backend::Auto,
            device: AUTO.into(),
            precision: Precision::Auto,
            cache_precision: CachePrecision::Full,
            threads: 0,
            look_ahead_ms: OF_MODEL,
            left_context_ms: OF_MODEL,
            chunk_ms: OF_MODEL,
            right_context_ms: OF_MODEL,
            skip_silence: true,
            text_unit: TextUnit::Word,
            partials: false,
            raw: false,
            mask_profanities: false,
            profanities: None,
            vocabulary: None,
            vocabulary_boost: Boosts::DEFAULT,
            language_code: None,
            latency_ms: LATENCY_OF_MODEL,
            lateness_ms: 0,
            overload: Overload::Auto,
        }
    }
}

impl Settings {
    /// How a stream of the model is run: with its caches if it has any, else in windows. What is left to the element is
    /// chosen to fit the latency.
    pub fn stream(&self, model: &ModelConfig) -> StreamOptions {
        let frames = |ms: u32| (ms != OF_MODEL).then_some(ms as usize / FRAME_MS);
        let wanted = Wanted {
            // More than 32 bits hold is no look-ahead of any model.
            look_ahead: frames(self.look_ahead_ms).map(|frames| frames as u32),
            left: frames(self.left_context_ms),
            chunk: frames(self.chunk_ms),
            right: frames(self.right_context_ms),
        };
        let Self { skip_silence, partials, .. } = *self;
        let language = self.language(model).told;
        let options = StreamOptions { language, skip_silence, partials, ..StreamOptions::default() };
        wanted.fit(self.latency_ms, options, model)
    }

    /// What `language-code` means to the model.
    pub fn language(&self, model: &ModelConfig) -> Language {
        Language::new(self.language_code.as_deref(), ENGLISH, model)
    }

    /// What decides what is loaded.
    pub fn to_load(&self) -> ToLoad {
        ToLoad {
            model: self.model.clone(),
            backend: self.backend,
            device: self.device.clone(),
            precision: self.precision,
            cache_precision: self.cache_precision,
            threads: self.threads,
        }
    }

    /// The words to be masked. Reads a file; fails if it can't be, or is none.
    pub fn mask(&self) -> Result<Option<Mask>, String> {
        if !self.mask_profanities {
            return Ok(None);
        }
        let Some(path) = &self.profanities else {
            return Err(
                "property mask-profanities needs a list: name its file in property profanities".into()
            );
        };
        read_list("profanities", path, Mask::new).map(Some)
    }

    /// The phrases that are rather heard, for a model. Reads a file; fails if it can't be, or the model can't write a phrase.
    pub fn vocabulary(&self, model: &Vocabulary) -> Result<Option<Arc<Boosts>>, String> {
        let Some(path) = &self.vocabulary else { return Ok(None) };
        let parse = |list: &str| Boosts::parse(model, list, self.vocabulary_boost);
        read_list("vocabulary", path, parse).map(|boosts| Some(Arc::new(boosts)))
    }

    /// Whether words are told with their tokens.
    pub fn tells_raw(&self) -> bool {
        self.raw
    }

    /// An empty collection of the units that text is pushed in.
    pub fn units(&self) -> Units {
        Units::new(match self.text_unit {
            TextUnit::Word => parakeet_engine::TextUnit::Word,
            TextUnit::Phrase => parakeet_engine::TextUnit::Phrase,
            TextUnit::Sentence => parakeet_engine::TextUnit::Sentence,
        })
    }

    /// The answer to a latency query, for a model that hears so many ms beyond a moment.
    pub fn latency(&self, heard_ms: u64) -> gst::ClockTime {
        gst::ClockTime::from_mseconds(latency::answer_ms(self.latency_ms, heard_ms, self.text_unit))
    }

    /// The latency that was asked for, where it is less than what is answered.
    pub fn raised(&self, heard_ms: u64) -> Option<gst::ClockTime> {
        let asked = gst::ClockTime::from_mseconds(self.latency_ms.into());
        (self.latency_ms != LATENCY_OF_MODEL && asked < self.latency(heard_ms)).then_some(asked)
    }

    /// Whether audio waits rather than being dropped when recognition is slower than it comes.
    pub fn blocks(&self, live: bool) -> bool {
        match self.overload {
            Overload::Auto => !live,
            Overload::DropOldest => false,
            Overload::Block => true,
        }
    }

    /// How much later than the audio the text is meant to be shown.
    pub fn lateness(&self) -> gst::ClockTime {
        gst::ClockTime::from_mseconds(self.lateness_ms.into())
    }

    /// Options for the engine. Fails if `device` is no device's name.
    pub fn engine(&self) -> Result<EngineOptions, Error> {
        let backend = match self.backend {
            Backend::Auto => BackendChoice::Auto,
            Backend::Cpu => BackendChoice::Cpu,
            Backend::Cuda => BackendChoice::Cuda,
        };
        let precision = match self.precision {
            Precision::Auto => parakeet_engine::Precision::Auto,
            Precision::F16 => parakeet_engine::Precision::F16,
            Precision::Bf16 => parakeet_engine::Precision::Bf16,
            Precision::F32 => parakeet_engine::Precision::F32,
            Precision::F8 => parakeet_engine::Precision::F8,
        };
        let cache = match self.cache_precision {
            CachePrecision::Full => parakeet_engine::CachePrecision::Full,
            CachePrecision::Int8 => parakeet_engine::CachePrecision::Int8,
        };
        let device = self.device.parse()?;
        let threads = self.threads as usize;
        Ok(EngineOptions { backend, device, precision, cache, threads })
    }

    /// Sets a property; true if it changes the latency.
    pub fn set(&mut self, name: &str, value: &glib::Value) -> bool {
        match name {
            "model" => self.model = get::<Option<String>>(value).filter(|path| !path.is_empty()),
            "backend" => self.backend = get(value),
            "device" => self.device = get::<Option<String>>(value).unwrap_or_else(|| AUTO.into()),
            "precision" => self.precision = get(value),
            "cache-precision" => self.cache_precision = get(value),
            "threads" => self.threads = get(value),
            "look-ahead" => self.look_ahead_ms = get(value),
            "left-context" => self.left_context_ms = get(value),
            "chunk" => self.chunk_ms = get(value),
            "right-context" => self.right_context_ms = get(value),
            "skip-silence" => self.skip_silence = get(value),
            "text-unit" => self.text_unit = get(value),
            "partials" => self.partials = get(value),
            "raw" => self.raw = get(value),
            "mask-profanities" => self.mask_profanities = get(value),
            "profanities" => self.profanities = get::<Option<String>>(value).filter(|path| !path.is_empty()),
            "vocabulary" => self.vocabulary = get::<Option<String>>(value).filter(|path| !path.is_empty()),
            "vocabulary-boost" => self.vocabulary_boost = get(value),
            "language-code" => self.language_code = Some(get::<Option<String>>(value).unwrap_or_default()),
            "latency" | "transcribe-latency" => self.latency_ms = get(value),
            "lateness" => self.lateness_ms = get(value),
            "overload" => self.overload = get(value),
            _ => unreachable!("GObject passes only installed, writable properties"),
        }
        matches!(
            name,
            "look-ahead" | "chunk" | "right-context" | "latency" | "transcribe-latency" | "text-unit"
        )
    }

    /// A writable property's value.
    pub fn get(&self, name: &str) -> glib::Value {
        match name {
            "model" => self.model.to_value(),
            "backend" => self.backend.to_value(),
            "device" => self.device.to_value(),
            "precision" => self.precision.to_value(),
            "cache-precision" => self.cache_precision.to_value(),
            "threads" => self.threads.to_value(),
            "look-ahead" => self.look_ahead_ms.to_value(),
            "left-context" => self.left_context_ms.to_value(),
            "chunk" => self.chunk_ms.to_value(),
            "right-context" => self.right_context_ms.to_value(),
            "skip-silence" => self.skip_silence.to_value(),
            "text-unit" => self.text_unit.to_value(),
            "partials" => self.partials.to_value(),
            "raw" => self.raw.to_value(),
            "mask-profanities" => self.mask_profanities.to_value(),
            "profanities" => self.profanities.to_value(),
            "vocabulary" => self.vocabulary.to_value(),
            "vocabulary-boost" => self.vocabulary_boost.to_value(),
            "language-code" => self.language_code.as_deref().unwrap_or(ENGLISH).to_value(),
            "latency" | "transcribe-latency" => self.latency_ms.to_value(),
            "lateness" => self.lateness_ms.to_value(),
            "overload" => self.overload.to_value(),
            _ => unreachable!("GObject passes only installed properties"),
        }
    }
}

/// What setting a property means to an element beyond READY.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settable {
    /// It acts.
    Now,
    /// It is kept for the next time.
    Later,
    /// It is refused.
    Never,
}

/// What setting this property means to an element beyond READY.
pub fn settable(name: &str) -> Settable {
    match name {
        "latency" | "transcribe-latency" | "overload" => Settable::Now,
        // transcriberbin sets it whenever the language of a pad changes, and starts the element anew for it.
        "language-code" => Settable::Later,
        _ => Settable::Never,
    }
}

/// What the file at `path` says, which a property names.
fn read_list<T>(
    property: &str,
    path: &str,
    parse: impl FnOnce(&str) -> Result<T, Error>,
) -> Result<T, String> {
    let list = std::fs::read_to_string(path).map_err(|error| error.to_string());
    let parsed = list.and_then(|list| parse(&list).map_err(|error| error.to_string()));
    parsed.map_err(|error| format!("property {property}: {path}: {error}"))
}

fn get<'v, T: glib::value::FromValue<'v>>(value: &'v glib::Value) -> T {
    value.get().expect("GObject checks the type of a property")
}

/// All properties; those that can only be read are not in [`Settings`].
pub static PROPERTIES: LazyLock<Vec<glib::ParamSpec>> = LazyLock::new(|| {
    let default = Settings::default();
    vec![
        glib::ParamSpecString::builder("model")
            .nick("Model")
            .blurb(
                "Directory of a model made by `parakeet convert`, or the name of one in GST_PARAKEET_MODEL_DIR \
                 (NULL = the English model that comes with the plugin)",
            )
            .mutable_ready()
            .build(),
        glib::ParamSpecEnum::builder_with_default("backend", default.backend)
            .nick("Backend")
            .blurb(
                "What the model runs on; debug category parakeettdt tells at INFO what auto took and why",
            )
            .mutable_ready()
            .build(),
        glib::ParamSpecString::builder("device")
            .nick("Device")
            .blurb(
                "Which of the backend's devices: its number (with backend auto that of a GPU), or auto for all that run \
                 the model, where each stream goes to the one with the least to do",
            )
            .default_value(Some(default.device.as_str()))
            .mutable_ready()
            .build(),
        glib::ParamSpecEnum::builder_with_default("precision", default.precision)
            .nick("Precision")
            .blurb("Type of weights and activations on a GPU")
            .mutable_ready()
            .build(),
        glib::ParamSpecEnum::builder_with_default("cache-precision", default.cache_precision)
            .nick("Cache precision")
            .blurb("Type of the keys and values that a stream keeps on a GPU; less memory lets more streams in")
            .mutable_ready()
            .build(),
        glib::ParamSpecUInt::builder("threads")
            .nick("Threads")
            .blurb(
                "Threads that compute on the CPU, for all elements of the process that name the same model and number \
                 (0 = one a core)",
            )
            .maximum(1_024)
            .default_value(default.threads)
            .mutable_ready()
            .build(),
        glib::ParamSpecUInt::builder("look-ahead")
            .nick("Look-ahead")
            .blurb(
                "Audio that a model which streams with caches hears beyond a moment before it decides, in ms; one of those \
                 it was trained for, rounded down to frames of 80 ms: 1040, 480, 80 or 0 with the model that comes with the \
                 plugin (4294967295 = the model's first, or the longest that fits into latency). \
                 Less is earlier and less accurate. Is part of latency",
            )
            .default_value(default.look_ahead_ms)
            .mutable_ready()
            .build(),
        glib::ParamSpecUInt::builder("left-context")
            .nick("Left context")
            .blurb(
                "Audio before a chunk that a model with full attention hears again with it, in ms \
                 (4294967295 = the model's own, most often 10000). Models that stream with caches have their own",
            )
            .default_value(default.left_context_ms)
            .mutable_ready()
            .build(),
        glib::ParamSpecUInt::builder("chunk")
            .nick("Chunk")
            .blurb(
                "Audio whose words a model with full attention gives together, in ms; rounded down to frames of 80 ms \
                 (4294967295 = the model's own, most often 2000, or less to fit into latency). Is part of latency with such a model",
            )
            .minimum(FRAME_MS as u32)
            .default_value(default.chunk_ms)
            .mutable_ready()
            .build(),
        glib::ParamSpecUInt::builder("right-context")
            .nick("Right context")
            .blurb(
                "Audio after a chunk that a model with full attention hears before it gives the chunk's words, in ms \
                 (4294967295 = the model's own, most often 2000, or less to fit into latency). \
                 Less is earlier and less accurate. Is part of latency with such a model",
            )
            .default_value(default.right_context_ms)
            .mutable_ready()
            .build(),
        glib::ParamSpecBoolean::builder("skip-silence")
            .nick("Skip silence")
            .blurb("Leave out what holds no speech: it costs nothing and gives no words. Speech is heard from 0.5 s before it")
            .default_value(default.skip_silence)
            .mutable_ready()
            .build(),
        glib::ParamSpecEnum::builder_with_default("text-unit", default.text_unit)
            .nick("Text unit")
            .blurb(
                "What a buffer holds. More than a word comes once it is complete, so later; of a live source earlier, \
                 cut short, if latency demands",
            )
            .mutable_ready()
            .build(),
        glib::ParamSpecBoolean::builder("partials")
            .nick("Partials")
            .blurb(
                "Post element messages named parakeettdt/partial with the text that was recognised but not pushed yet, and how \
                 much of it is stable; as JSON it is pushed too, with final false",
            )
            .default_value(default.partials)
            .mutable_ready()
            .build(),
        glib::ParamSpecBoolean::builder("raw")
            .nick("Raw")
            .blurb(
                "Post element messages named parakeettdt/raw with each word and its tokens: what the model said, when, for \
                 how long, and how sure it was",
            )
            .default_value(default.raw)
            .mutable_ready()
            .build(),
        glib::ParamSpecBoolean::builder("mask-profanities")
            .nick("Mask profanities")
            .blurb("Show *** in place of the words that profanities lists, wherever they are said")
            .default_value(default.mask_profanities)
            .mutable_ready()
            .build(),
        glib::ParamSpecString::builder("profanities")
            .nick("Profanities")
            .blurb(
                "File of the words that mask-profanities masks, one a line; lines that begin with # are none. Their case \
                 doesn't matter",
            )
            .mutable_ready()
            .build(),
        glib::ParamSpecString::builder("vocabulary")
            .nick("Vocabulary")
            .blurb(
                "File of phrases that are rather heard than what sounds like them, one a line, perhaps with a tab and its \
                 boost behind it; lines that begin with # are none",
            )
            .mutable_ready()
            .build(),
        glib::ParamSpecFloat::builder("vocabulary-boost")
            .nick("Vocabulary boost")
            .blurb("Boost of phrases without one of their own: 0 adds nothing, 1 suits hundreds of phrases, 2 some")
            .minimum(0.0)
            .maximum(10.0)
            .default_value(default.vocabulary_boost)
            .mutable_ready()
            .build(),
        glib::ParamSpecString::builder("language-code")
            .nick("Language code")
            .blurb(
                "Language that is spoken, as a BCP 47 tag, for models that are told which, or auto where they find out. \
                 Other models hear what they were trained for, the one that comes with the plugin English. The text has it for a \
                 tag; one that the model is known to lack is a warning, and the model goes on with its own",
            )
            .default_value(Some(ENGLISH))
            .mutable_ready()
            .build(),
        latency("latency", "Latency", &default),
        latency("transcribe-latency", "Transcribe latency", &default),
        glib::ParamSpecUInt::builder("lateness")
            .nick("Lateness")
            .blurb("How much later than the audio the text is presented, in ms. Adds no latency")
            .default_value(default.lateness_ms)
            .mutable_ready()
            .build(),
        glib::ParamSpecEnum::builder_with_default("overload", default.overload)
            .nick("Overload")
            .blurb("What happens when recognition is slower than the audio comes")
            .mutable_playing()
            .build(),
        glib::ParamSpecUInt::builder("max-observed-delay")
            .nick("Maximum observed delay")
            .blurb("Longest time, in ms, from when the start of a text came in to when it was pushed, since READY")
            .read_only()
            .build(),
        glib::ParamSpecUInt64::builder("dropped-audio")
            .nick("Dropped audio")
            .blurb("How much audio was dropped because recognition was too slow, in ns, since READY")
            .read_only()
            .build(),
        glib::ParamSpecBoxed::builder::<gst::Structure>("stats")
            .nick("Statistics")
            .blurb(
                "Since READY: text buffers pushed (buffers, uint64), audio that came in, that was dropped and that \
                 never came, as jumps of its time stamps say, in ns (audio, dropped-audio, missing-audio, uint64), times that it \
                 was cut by jumps in time (cuts, uint64), max-observed-delay, and what the devices of the model did for all \
                 elements that share it (devices, a GstValueArray)",
            )
            .read_only()
            .build(),
    ]
});

/// Both names of the latency, which the ecosystem knows.
fn latency(name: &'static str, nick: &'static str, default: &Settings) -> glib::ParamSpec {
    glib::ParamSpecUInt::builder(name)
        .nick(nick)
        .blurb(
            "Longest time from when a text was begun to when it is pushed, in ms, with all that model and text unit take; \
             what is answered to a latency query of a live pipeline. Never less than the model needs \
             (4294967295 = what model and text unit take)",
        )
        .default_value(default.latency_ms)
        .mutable_playing()
        .build()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The engine's options once the property has the value of this nick.
    fn options<T: glib::prelude::StaticType>(property: &str, nick: &str) -> EngineOptions {
        let values = glib::EnumClass::with_type(T::static_type()).expect("an enumeration");
        let value = values.to_value_by_nick(nick).expect("the element has what the engine has");
        let mut settings = Settings::default();
        settings.set(property, &value);
        settings.engine().expect("the device is one")
    }

    #[test]
    fn what_the_engine_runs_on_has_the_same_names_here() {
        for (name, backend) in BackendChoice::ALL {
            assert_eq!(options::<Backend>("backend", name).backend, *backend);
        }
        for (name, precision) in parakeet_engine::Precision::ALL {
            assert_eq!(options::<Precision>("precision", name).precision, *precision);
        }
        for (name, cache) in parakeet_engine::CachePrecision::ALL {
            assert_eq!(options::<CachePrecision>("cache-precision", name).cache, *cache);
        }
    }
}
