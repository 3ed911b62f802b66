// SPDX-License-Identifier: MPL-2.0
//! Loads the model off the state changes, and lets it go.

use super::{
    imp::{CAT, ParakeetTdt},
    keep, model,
    state::Model,
};
use gst::{prelude::*, subclass::prelude::*};
use parakeet_engine::{Engine, EngineOptions, Error};
use std::{env, path::Path, sync::Arc, thread};

/// What to do about a model that can't be loaded.
const OTHER_MODEL: &str = "set property model to a directory made by parakeet convert";

/// What to do about a device that can't run it.
const OTHER_DEVICE: &str = "set properties backend and device to what this machine has";

/// Why there is no model.
enum Failure {
    /// A property has no such value.
    Setting(String),
    /// It is not there, is none, or nothing runs it.
    Model(String),
}

impl ParakeetTdt {
    /// Starts to load the model, on a thread of its own, which posts what goes wrong: the state change always succeeds.
    pub(super) fn load(&self) {
        let settings = self.settings().clone();
        let plugin =
            self.obj().factory().and_then(|factory| factory.plugin()).and_then(|plugin| plugin.filename());
        let plugin = plugin.or_else(|| env::current_exe().ok()).unwrap_or_default();
        let found = model::find(settings.model.as_deref(), &plugin);
        let handed = self.handed();
        let config = match &handed {
            Some(engine) => Some(engine.config().clone()),
            None => found.as_deref().ok().and_then(model::config),
        };
        let wanted = settings
            .engine()
            .map_err(|error| Failure::Setting(error.to_string()))
            .and_then(|options| found.map(|path| (path, options)).map_err(model_failure));
        let mut state = self.state();
        state.load += 1;
        let old = std::mem::replace(&mut state.model, Model::Loading);
        let before = state.loaded_as.replace((settings.to_load(), identity(handed.as_ref())));
        let was_handed = before.is_some_and(|loaded| loaded.1.is_some());
        state.config = config;
        let load = state.load;
        drop(state);
        let_go(old, was_handed);
        let element = self.obj().downgrade();
        let spawned = thread::Builder::new().name("parakeet-load".into()).spawn(move || {
            let handed = element.upgrade().and_then(|element| element.imp().ask_for_engine());
            if let (None, Ok((directory, _)), Some(element)) = (&handed, &wanted, element.upgrade()) {
                element.imp().tell_loading(load, directory);
            }
            let handed_in = identity(handed.as_ref());
            let opened = match handed {
                Some(engine) => Ok(engine),
                None => wanted.and_then(|(directory, options)| open(&directory, &options)),
            };
            match (element.upgrade(), opened) {
                (Some(element), opened) => element.imp().loaded(load, opened, handed_in),
                (None, Ok(engine)) => let_go(Model::Ready(engine), handed_in.is_some()),
                (None, Err(_)) => {}
            }
        });
        if let Err(error) = spawned {
            self.state().model = Model::Failed;
            let text = format!("cannot start a thread to load the model: {error}");
            self.raise(gst::CoreError::Thread, &text);
        }
    }

    /// Loads anew if what is to be loaded was set otherwise since.
    pub(super) fn reload(&self) {
        let wanted = (self.settings().to_load(), identity(self.handed().as_ref()));
        if self.state().loaded_as.as_ref() != Some(&wanted) {
            self.load();
        }
    }

    fn tell_loading(&self, load: u64, directory: &Path) {
        if self.state().load == load {
            self.progress(gst::ProgressType::Start, &format!("loading model {}", directory.display()));
        }
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

    /// Takes the result of attempt `load`, unless the element was stopped or set otherwise since: then it may want it soon.
    fn loaded(&self, load: u64, opened: Result<Arc<Engine>, Failure>, handed_in: Option<usize>) {
        if self.state().load != load {
            if let Ok(engine) = opened {
                let_go(Model::Ready(engine), handed_in.is_some());
            }
            return;
        }
        let model = match opened {
            Ok(engine) => {
                self.tell_devices(&engine);
                Model::Ready(engine)
            }
            Err(failure) => {
                self.progress(gst::ProgressType::Error, "model not loaded");
                // Before audio is refused, so that the reason comes before what a source makes of that.
                let error = match failure {
                    Failure::Setting(text) => {
                        self.error(gst::LibraryError::Settings, &format!("property {text}"))
                    }
                    Failure::Model(text) => {
                        self.error(gst::ResourceError::OpenRead, &format!("cannot load the model: {text}"))
                    }
                };
                self.post_settled(error, |state| state.load == load);
                Model::Failed
            }
        };
        let is_ready = matches!(model, Model::Ready(_));
        let mut state = self.state();
        if state.load != load {
            drop(state);
            let_go(model, handed_in.is_some());
            return;
        }
        if let (Model::Ready(engine), Some((_, handed))) = (&model, &mut state.loaded_as) {
            // It may have been handed in when it was asked for.
            *handed = handed_in;
            state.config = Some(engine.config().clone());
        }
        state.model = model;
        drop(state);
        self.wake();
        if is_ready {
            self.progress(gst::ProgressType::Complete, "model loaded");
            self.open_for_waiting();
        }
    }

    /// Lets the model go, for others to keep.
    pub(super) fn unload(&self) {
        let mut state = self.state();
        state.load += 1;
        let was_handed = state.loaded_as.take().is_some_and(|loaded| loaded.1.is_some());
        let model = std::mem::take(&mut state.model);
        drop(state);
        if matches!(model, Model::Loading) {
            self.progress(gst::ProgressType::Canceled, "loading stopped");
        }
        let_go(model, was_handed);
    }
}

/// What tells one engine from another.
fn identity(engine: Option<&Arc<Engine>>) -> Option<usize> {
    engine.map(|engine| Arc::as_ptr(engine) as usize)
}

fn model_failure(reason: String) -> Failure {
    Failure::Model(format!("{reason}; {OTHER_MODEL}"))
}

/// Keeps a model for a while, unless it was handed in: whose it is decides how long.
fn let_go(model: Model, was_handed: bool) {
    if let (Model::Ready(engine), false) = (model, was_handed) {
        keep::keep(engine);
    }
}

fn open(directory: &Path, options: &EngineOptions) -> Result<Arc<Engine>, Failure> {
    if let Some(engine) = Engine::find(directory, options) {
        return Ok(engine);
    }
    keep::release();
    Engine::open(directory, options).map_err(|error| match error {
        Error::Backend { .. } | Error::Option { .. } => Failure::Model(format!("{error}; {OTHER_DEVICE}")),
        _ => model_failure(error.to_string()),
    })
}
