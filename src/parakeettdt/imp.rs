// SPDX-License-Identifier: MPL-2.0
//! The element itself: pads, events, queries, properties and state changes.

use super::{
    settings::{PROPERTIES, Settable, Settings, settable},
    state::{Run, State},
    statistics::Statistics,
    text::Format,
    timeline::{SAMPLE_RATE, nanoseconds},
};
use gst::{glib, prelude::*, subclass::prelude::*};
use gst_audio::AudioFormat;
use std::{
    sync::{Condvar, LazyLock, Mutex, MutexGuard, PoisonError, TryLockError},
    time::Instant,
};

pub(super) static CAT: LazyLock<gst::DebugCategory> = LazyLock::new(|| {
    gst::DebugCategory::new("parakeettdt", gst::DebugColorFlags::empty(), Some("Parakeet speech to text"))
});

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

    /// [`feeding`](Self::feeding), unless somebody else hands audio over.
    pub(super) fn try_feeding(&self) -> Option<MutexGuard<'_, ()>> {
        match self.feeding.try_lock() {
            Ok(feeding) => Some(feeding),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
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
            let own = self.latency();
            self.state().run.upstream = min.nseconds();
            gst::debug!(CAT, obj = pad, "latency of upstream {min}, own {own}");
            // The element never holds a live source back.
            latency.set(true, min.saturating_add(own), gst::ClockTime::NONE);
        } else {
            latency.set(false, min, max);
        }
        true
    }
}

#[glib::object_subclass]
impl ObjectSubclass for ParakeetTdt {
    const NAME: &'static str = "GstParakeetTdt";
    type Type = super::ParakeetTdt;
    type ParentType = gst::Element;
    type Interfaces = (gst::Preset,);

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
            .event_full_function(|pad, parent, event| {
                Self::catch_panic_pad_function(
                    parent,
                    || Err(gst::FlowError::Error),
                    |imp| match imp.sink_event(pad, event) {
                        true => Ok(gst::FlowSuccess::Ok),
                        // A source that is told of an error posts one, and nothing is wrong.
                        false if imp.state().run.stopping => Err(gst::FlowError::Flushing),
                        false => Err(gst::FlowError::Error),
                    },
                )
            })
            .build();
        let template = class.pad_template("src").expect("the class has this template");
        let src_pad = gst::Pad::builder_from_template(&template)
            .query_function(|pad, parent, query| {
                Self::catch_panic_pad_function(parent, || false, |imp| imp.src_query(pad, query))
            })
            .event_function(|pad, parent, event| {
                Self::catch_panic_pad_function(parent, || false, |imp| imp.src_event(pad, event))
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
        let name = pspec.name();
        let is_running = self.obj().current_state() > gst::State::Ready;
        match settable(name) {
            Settable::Never if is_running => {
                let mut wanted = self.settings().clone();
                wanted.set(name, value);
                if wanted == *self.settings() {
                    return;
                }
                gst::warning!(CAT, imp = self, "property {name} is not set: the state must be NULL or READY");
                gst::element_imp_warning!(
                    self,
                    gst::LibraryError::Settings,
                    ("property {name} can be set in NULL and READY only, and keeps its value")
                );
                return;
            }
            Settable::Later if is_running => {
                gst::warning!(CAT, imp = self, "property {name} acts when the element leaves READY next");
            }
            _ => {}
        }
        let changes_latency = self.settings().set(name, value);
        if name == "latency" {
            self.obj().notify("transcribe-latency");
        } else if name == "transcribe-latency" {
            self.obj().notify("latency");
        }
        if is_running {
            self.fit_queue();
            if changes_latency {
                self.post_latency();
                self.wake();
            }
        }
    }

    fn property(&self, _id: usize, pspec: &glib::ParamSpec) -> glib::Value {
        match pspec.name() {
            "max-observed-delay" => self.state().statistics.max_delay_ms.to_value(),
            "dropped-audio" => nanoseconds(self.state().statistics.dropped).to_value(),
            "stats" => {
                let state = self.state();
                let (statistics, engine) = (state.statistics.clone(), state.model.engine().cloned());
                drop(state);
                statistics.structure(engine.as_deref()).to_value()
            }
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

impl PresetImpl for ParakeetTdt {}

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
            let text = Format::all_caps();
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
        self.state().changed = Some(Instant::now());
        match transition {
            gst::StateChange::NullToReady => {
                self.state().statistics = Statistics::default();
                self.load();
                self.tell_latency();
            }
            gst::StateChange::ReadyToPaused => {
                self.state().played = false;
                self.reload();
            }
            gst::StateChange::PlayingToPaused => self.stop_clock(),
            _ => {}
        }
        let changed = self.parent_change_state(transition);
        self.state().changed = Some(Instant::now());
        match transition {
            gst::StateChange::PausedToPlaying if changed.is_ok() => {
                let mut state = self.state();
                (state.playing, state.played) = (true, true);
                drop(state);
                self.wake();
            }
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
