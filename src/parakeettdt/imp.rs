// SPDX-License-Identifier: MPL-2.0
//! The element itself: pads, events, queries, properties and state changes.

use super::{
    model,
    settings::{PROPERTIES, Settings},
    state::{Model, Run, State},
    timeline::SAMPLE_RATE,
};
use gst::{glib, prelude::*, subclass::prelude::*};
use gst_audio::AudioFormat;
use parakeet_engine::{Engine, Error};
use std::{
    env,
    sync::{Arc, Condvar, LazyLock, Mutex, MutexGuard, PoisonError},
    thread,
};

pub(super) static CAT: LazyLock<gst::DebugCategory> = LazyLock::new(|| {
    gst::DebugCategory::new("parakeettdt", gst::DebugColorFlags::empty(), Some("Parakeet speech to text"))
});

/// What to do about a model that can't be loaded.
const OTHER_MODEL: &str = "set property model to a directory made by parakeet convert";

/// What to do about a device that can't run it.
const OTHER_DEVICE: &str = "set properties backend and device to what this machine has";

/// Locking order: feeding -> settings -> state. The latter two are not held across a push, a post, a query, a load, or a
/// call of the engine.
pub struct ParakeetTdt {
    pub(super) sink_pad: gst::Pad,
    pub(super) src_pad: gst::Pad,
    /// Held while audio goes into the stream, so that what waited goes first.
    feeding: Mutex<()>,
    settings: Mutex<Settings>,
    state: Mutex<State>,
    /// The state changed: a model was loaded, a stream came, an event is pending, or everything has to stop.
    pub(super) changed: Condvar,
}

impl ParakeetTdt {
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn feeding(&self) -> MutexGuard<'_, ()> {
        self.feeding.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn settings(&self) -> MutexGuard<'_, Settings> {
        self.settings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes the task look at what is pending.
    pub(super) fn wake(&self) {
        let stream = self.state().run.stream.clone();
        self.changed.notify_all();
        if let Some(stream) = stream {
            stream.interrupt();
        }
    }

    /// Makes every thread in the element return soon. Never blocks.
    pub(super) fn halt(&self) {
        let mut state = self.state();
        state.run.stopping = true;
        let stream = state.run.stream.clone();
        drop(state);
        self.changed.notify_all();
        if let Some(stream) = stream {
            stream.reset();
            stream.interrupt();
        }
    }

    /// Begins anew after [`halt`](Self::halt); no thread is in the element but perhaps one that just opened the stream.
    pub(super) fn restart(&self) {
        let _feeding = self.feeding();
        let mut state = self.state();
        state.run.flush();
        let stream = state.run.stream.clone();
        drop(state);
        // The streaming thread may have pushed between the flush's start and its own return.
        if let Some(stream) = stream {
            stream.reset();
        }
        self.state().run.stopping = false;
    }

    fn src_query(&self, pad: &gst::Pad, query: &mut gst::QueryRef) -> bool {
        let gst::QueryViewMut::Latency(latency) = query.view_mut() else {
            return gst::Pad::query_default(pad, Some(&*self.obj()), query);
        };
        let mut upstream = gst::query::Latency::new();
        if !self.sink_pad.peer_query(&mut upstream) {
            return false;
        }
        let (live, min, max) = upstream.result();
        if live {
            let own = self.model_latency() + self.settings().latency();
            gst::debug!(CAT, obj = pad, "latency of upstream {min}, own {own}");
            // The element never holds a live source back.
            latency.set(true, min.saturating_add(own), gst::ClockTime::NONE);
        } else {
            latency.set(false, min, max);
        }
        true
    }

    /// Audio that is needed beyond a moment before it is decoded: the look-ahead and the chunk it makes.
    pub(super) fn model_latency(&self) -> gst::ClockTime {
        let settings = self.settings().clone();
        let state = self.state();
        let samples = match (&state.run.stream, &state.config) {
            (Some(stream), _) => stream.latency_samples(),
            // What doesn't suit the model is an error once it is loaded.
            (None, Some(config)) => settings.stream(config).latency_samples(config).unwrap_or_default(),
            (None, None) => 0,
        };
        drop(state);
        gst::ClockTime::SECOND.mul_div_floor(samples, u64::from(SAMPLE_RATE)).unwrap_or(gst::ClockTime::MAX)
    }

    pub(super) fn post(&self, message: gst::Message) {
        // It is refused without a bus: then nobody wants to know.
        let _ = self.obj().post_message(message);
    }

    fn progress(&self, kind: gst::ProgressType, text: &str) {
        self.post(gst::message::Progress::builder(kind, "model", text).src(&*self.obj()).build());
    }

    /// Starts to load the model, on a thread of its own.
    fn load(&self) -> Result<(), gst::StateChangeError> {
        let settings = self.settings().clone();
        let options = settings.engine().map_err(|error| {
            gst::element_imp_error!(self, gst::LibraryError::Settings, ("property {error}"));
            gst::StateChangeError
        })?;
        let plugin =
            self.obj().factory().and_then(|factory| factory.plugin()).and_then(|plugin| plugin.filename());
        let plugin = plugin.or_else(|| env::current_exe().ok()).unwrap_or_default();
        let found = model::find(settings.model.as_deref(), &plugin);
        let config = found.as_deref().ok().and_then(model::config);
        let mut state = self.state();
        state.load += 1;
        state.model = Model::Loading;
        state.config = config;
        state.max_delay_ms = 0;
        let load = state.load;
        drop(state);
        let directory = match found {
            Ok(directory) => directory,
            Err(reason) => {
                self.loaded(load, Err(format!("{reason}; {OTHER_MODEL}")));
                return Ok(());
            }
        };
        self.progress(gst::ProgressType::Start, &format!("loading model {}", directory.display()));
        let element = self.obj().downgrade();
        let spawned = thread::Builder::new().name("parakeet-load".into()).spawn(move || {
            let opened = Engine::open(&directory, &options).map_err(|error| match error {
                Error::Backend { .. } | Error::Option { .. } => format!("{error}; {OTHER_DEVICE}"),
                _ => format!("{error}; {OTHER_MODEL}"),
            });
            if let Some(element) = element.upgrade() {
                let imp = element.imp();
                if let Ok(engine) = &opened {
                    imp.tell_devices(engine);
                }
                imp.loaded(load, opened);
            }
        });
        spawned.map(drop).map_err(|error| {
            gst::element_imp_error!(
                self,
                gst::CoreError::Thread,
                ("cannot start a thread to load the model: {error}")
            );
            gst::StateChangeError
        })
    }

    /// Logs what the model runs on, and why it doesn't run on what `auto` would rather have taken.
    fn tell_devices(&self, engine: &Engine) {
        for device in engine.devices() {
            gst::info!(CAT, imp = self, "the model runs on backend {device}");
        }
        for reason in engine.passed_over() {
            gst::info!(CAT, imp = self, "passed over: {reason}");
        }
    }

    /// Takes the result of attempt `load`, unless the element has gone back to NULL meanwhile.
    fn loaded(&self, load: u64, opened: Result<Arc<Engine>, String>) {
        let mut state = self.state();
        if state.load != load {
            drop(state);
            return;
        }
        let failure = match opened {
            Ok(engine) => {
                state.model = Model::Ready(engine);
                None
            }
            Err(reason) => {
                state.model = Model::Failed;
                Some(reason)
            }
        };
        drop(state);
        self.changed.notify_all();
        match failure {
            None => self.progress(gst::ProgressType::Complete, "model loaded"),
            Some(reason) => {
                self.progress(gst::ProgressType::Error, "model not loaded");
                gst::element_imp_error!(
                    self,
                    gst::ResourceError::OpenRead,
                    ("cannot load the model: {reason}")
                );
            }
        }
    }

    /// Lets the model go.
    fn unload(&self) {
        let mut state = self.state();
        state.load += 1;
        let model = std::mem::take(&mut state.model);
        drop(state);
        if matches!(model, Model::Loading) {
            self.progress(gst::ProgressType::Canceled, "loading stopped");
        }
    }
}

#[glib::object_subclass]
impl ObjectSubclass for ParakeetTdt {
    const NAME: &'static str = "GstParakeetTdt";
    type Type = super::ParakeetTdt;
    type ParentType = gst::Element;

    fn with_class(class: &Self::Class) -> Self {
        let template = class.pad_template("sink").expect("the class has this template");
        let sink_pad = gst::Pad::builder_from_template(&template)
            .chain_function(|_, parent, buffer| {
                Self::catch_panic_pad_function(
                    parent,
                    || Err(gst::FlowError::Error),
                    |imp| imp.sink_chain(buffer),
                )
            })
            .event_function(|pad, parent, event| {
                Self::catch_panic_pad_function(parent, || false, |imp| imp.sink_event(pad, event))
            })
            .build();
        let template = class.pad_template("src").expect("the class has this template");
        let src_pad = gst::Pad::builder_from_template(&template)
            .query_function(|pad, parent, query| {
                Self::catch_panic_pad_function(parent, || false, |imp| imp.src_query(pad, query))
            })
            .activatemode_function(|pad, parent, mode, active| {
                Self::catch_panic_pad_function(
                    parent,
                    || Err(gst::loggable_error!(CAT, "panicked before")),
                    |imp| match (mode, active) {
                        (gst::PadMode::Push, true) => {
                            imp.state().run = Run::default();
                            Ok(imp.start_task()?)
                        }
                        (gst::PadMode::Push, false) => {
                            imp.halt();
                            Ok(pad.stop_task()?)
                        }
                        _ => Err(gst::loggable_error!(CAT, "only push mode is supported")),
                    },
                )
            })
            .flags(gst::PadFlags::FIXED_CAPS)
            .build();
        ParakeetTdt {
            sink_pad,
            src_pad,
            feeding: Mutex::default(),
            settings: Mutex::default(),
            state: Mutex::default(),
            changed: Condvar::new(),
        }
    }
}

impl ObjectImpl for ParakeetTdt {
    fn properties() -> &'static [glib::ParamSpec] {
        &PROPERTIES
    }

    fn set_property(&self, _id: usize, value: &glib::Value, pspec: &glib::ParamSpec) {
        let changes_latency = self.settings().set(pspec.name(), value);
        if changes_latency && self.obj().current_state() > gst::State::Ready {
            self.post(gst::message::Latency::builder().src(&*self.obj()).build());
        }
    }

    fn property(&self, _id: usize, pspec: &glib::ParamSpec) -> glib::Value {
        match pspec.name() {
            "max-observed-delay" => self.state().max_delay_ms.to_value(),
            name => self.settings().get(name),
        }
    }

    fn constructed(&self) {
        self.parent_constructed();
        let element = self.obj();
        element.add_pad(&self.sink_pad).expect("a new element has no pads");
        element.add_pad(&self.src_pad).expect("a new element has no pad src");
    }
}

impl GstObjectImpl for ParakeetTdt {}

impl ElementImpl for ParakeetTdt {
    fn metadata() -> Option<&'static gst::subclass::ElementMetadata> {
        static METADATA: LazyLock<gst::subclass::ElementMetadata> = LazyLock::new(|| {
            gst::subclass::ElementMetadata::new(
                "Parakeet speech to text",
                "Audio/Text/Filter",
                "Turns speech into timed words with NVIDIA Parakeet and Nemotron models",
                "The gst-plugin-parakeet authors",
            )
        });
        Some(&METADATA)
    }

    fn pad_templates() -> &'static [gst::PadTemplate] {
        static TEMPLATES: LazyLock<Vec<gst::PadTemplate>> = LazyLock::new(|| {
            let audio = gst_audio::AudioCapsBuilder::new_interleaved()
                .format_list([AudioFormat::S16le, AudioFormat::F32le])
                .rate(SAMPLE_RATE as i32)
                .channels(1)
                .build();
            let text = gst::Caps::builder("text/x-raw").field("format", "utf8").build();
            let template = |name, direction, caps| {
                gst::PadTemplate::new(name, direction, gst::PadPresence::Always, caps)
                    .expect("the caps are valid")
            };
            vec![
                template("sink", gst::PadDirection::Sink, &audio),
                template("src", gst::PadDirection::Src, &text),
            ]
        });
        &TEMPLATES
    }

    fn change_state(
        &self,
        transition: gst::StateChange,
    ) -> Result<gst::StateChangeSuccess, gst::StateChangeError> {
        if transition == gst::StateChange::NullToReady {
            self.load()?;
        }
        let changed = self.parent_change_state(transition);
        match transition {
            gst::StateChange::PausedToReady => {
                // Who opened the stream may still be feeding it.
                let _feeding = self.feeding();
                // Dropped without the state locked, so that the engine gets the stream's place back.
                let _run = std::mem::replace(&mut self.state().run, Run::stopped());
            }
            gst::StateChange::ReadyToNull => self.unload(),
            _ => {}
        }
        changed
    }
}
