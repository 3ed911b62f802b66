// SPDX-License-Identifier: MPL-2.0
//! What the user sets on the element: properties, their defaults and their meaning.

use super::Backend;
use gst::{glib, prelude::*};
use parakeet_engine::{BackendChoice, EngineOptions};
use std::sync::LazyLock;

/// Value of `look-ahead` that leaves the choice to the model.
const LOOK_AHEAD_OF_MODEL: u32 = u32::MAX;

/// The element's properties.
#[derive(Clone, Debug)]
pub struct Settings {
    pub model: Option<String>,
    pub backend: Backend,
    look_ahead: u32,
    language_code: String,
    latency_ms: u32,
    lateness_ms: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            model: None,
            backend: Backend::Auto,
            look_ahead: LOOK_AHEAD_OF_MODEL,
            language_code: "en-US".into(),
            latency_ms: 1_000,
            lateness_ms: 0,
        }
    }
}

impl Settings {
    /// Right context in frames of 80 ms, unless the model chooses.
    pub fn look_ahead(&self) -> Option<u32> {
        Some(self.look_ahead).filter(|frames| *frames != LOOK_AHEAD_OF_MODEL)
    }

    /// Budget for processing.
    pub fn latency(&self) -> gst::ClockTime {
        gst::ClockTime::from_mseconds(self.latency_ms.into())
    }

    /// How much later than the audio the text is meant to be shown.
    pub fn lateness(&self) -> gst::ClockTime {
        gst::ClockTime::from_mseconds(self.lateness_ms.into())
    }

    /// Options for the engine.
    pub fn engine(&self) -> EngineOptions {
        let backend = match self.backend {
            Backend::Auto => BackendChoice::Auto,
            Backend::Cpu => BackendChoice::Cpu,
        };
        EngineOptions { backend, ..EngineOptions::default() }
    }

    /// Sets a property; true if it changes the latency.
    pub fn set(&mut self, name: &str, value: &glib::Value) -> bool {
        match name {
            "model" => self.model = get::<Option<String>>(value).filter(|path| !path.is_empty()),
            "backend" => self.backend = get(value),
            "look-ahead" => self.look_ahead = get(value),
            "language-code" => self.language_code = get::<Option<String>>(value).unwrap_or_default(),
            "latency" => self.latency_ms = get(value),
            "lateness" => self.lateness_ms = get(value),
            _ => unreachable!("GObject passes only installed, writable properties"),
        }
        matches!(name, "look-ahead" | "latency")
    }

    /// A writable property's value.
    pub fn get(&self, name: &str) -> glib::Value {
        match name {
            "model" => self.model.to_value(),
            "backend" => self.backend.to_value(),
            "look-ahead" => self.look_ahead.to_value(),
            "language-code" => self.language_code.to_value(),
            "latency" => self.latency_ms.to_value(),
            "lateness" => self.lateness_ms.to_value(),
            _ => unreachable!("GObject passes only installed properties"),
        }
    }
}

fn get<'v, T: glib::value::FromValue<'v>>(value: &'v glib::Value) -> T {
    value.get().expect("GObject checks the type of a property")
}

/// All properties; `max-observed-delay` is the only one that is not in [`Settings`].
pub static PROPERTIES: LazyLock<Vec<glib::ParamSpec>> = LazyLock::new(|| {
    let default = Settings::default();
    vec![
        glib::ParamSpecString::builder("model")
            .nick("Model")
            .blurb(
                "Directory of a model made by `parakeet convert`, or the name of one in GST_PARAKEET_MODEL_DIR \
                 (NULL = the English model that comes with the plugin). Read on the way from NULL to READY",
            )
            .build(),
        glib::ParamSpecEnum::builder_with_default("backend", default.backend)
            .nick("Backend")
            .blurb("What the model runs on. Read on the way from NULL to READY")
            .build(),
        glib::ParamSpecUInt::builder("look-ahead")
            .nick("Look-ahead")
            .blurb(
                "Audio that the model hears beyond a moment before it decides, in frames of 80 ms; one of the values \
                 the model was trained for (4294967295 = the model's first). Less is earlier and less accurate. \
                 Will count towards total latency",
            )
            .default_value(default.look_ahead)
            .mutable_ready()
            .build(),
        glib::ParamSpecString::builder("language-code")
            .nick("Language code")
            .blurb(
                "Language that is spoken, as a BCP 47 tag. Kept for applications: the language heard is that of the \
                 model, English for the one that comes with the plugin",
            )
            .default_value(Some(default.language_code.as_str()))
            .mutable_ready()
            .build(),
        glib::ParamSpecUInt::builder("latency")
            .nick("Latency")
            .blurb(
                "Time for a word to end and to be recognised, in ms, beyond what the look-ahead takes. \
                 Will count towards total latency of a live pipeline",
            )
            .default_value(default.latency_ms)
            .mutable_playing()
            .build(),
        glib::ParamSpecUInt::builder("lateness")
            .nick("Lateness")
            .blurb("How much later than the audio the text is presented, in ms. Adds no latency")
            .default_value(default.lateness_ms)
            .mutable_ready()
            .build(),
        glib::ParamSpecUInt::builder("max-observed-delay")
            .nick("Maximum observed delay")
            .blurb(
                "Longest time, in ms, from when a word started to when it was pushed, since READY; \
                 0 without a live source",
            )
            .read_only()
            .build(),
    ]
});
