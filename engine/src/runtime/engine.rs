// SPDX-License-Identifier: MPL-2.0
//! One model on one device or several, shared by everybody in the process who asks for the same.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock, Mutex, PoisonError, Weak};

use super::device::{DeviceLanes, Threads};
use super::fleet::{Fleet, take_least};
use super::lane::Wanted;
use super::options::StreamOptions;
use super::statistics::Statistics;
use super::stream::{self, Shared, Stream, StreamLane};
use crate::backend::{self, Backend, EngineOptions, Opened};
use crate::error::{Error, Result};
use crate::model::{Model, ModelConfig, Vocabulary};

/// A loaded model and the threads that run its streams, one for each device, and another where that computes whole signals.
pub struct Engine {
    model: Arc<Model>,
    vocabulary: Arc<Vocabulary>,
    fleet: Arc<Fleet>,
    /// Of all lanes; they end with the engine.
    _threads: Threads,
    passed_over: Vec<String>,
}

/// What makes two engines the same.
type Key = (PathBuf, EngineOptions);

/// Where an engine is, or will be once its load is done.
type Place = Arc<Mutex<Weak<Engine>>>;

/// The engines in use. Each has a lock of its own, so that loading one model doesn't hold up another.
static ENGINES: LazyLock<Mutex<HashMap<Key, Place>>> = LazyLock::new(Mutex::default);

impl Engine {
    /// The engine for the model directory `dir`, loaded unless somebody holds one already whose devices aren't all lost. Blocks
    /// while it loads.
    pub fn open(dir: &Path, options: &EngineOptions) -> Result<Arc<Self>> {
        let place = {
            let mut engines = ENGINES.lock().unwrap_or_else(PoisonError::into_inner);
            engines.retain(|_, place| {
                Arc::strong_count(place) > 1 || place.lock().is_ok_and(|e| e.strong_count() > 0)
            });
            engines.entry(key(dir, options)).or_default().clone()
        };
        let mut place = place.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(engine) = place.upgrade().filter(|engine| engine.works()) {
            return Ok(engine);
        }
        let engine = Arc::new(Self::load(dir, options)?);
        *place = Arc::downgrade(&engine);
        Ok(engine)
    }

    /// The engine that [`Engine::open`] would give without loading anything. Blocks while somebody loads it.
    pub fn find(dir: &Path, options: &EngineOptions) -> Option<Arc<Self>> {
        let place =
            ENGINES.lock().unwrap_or_else(PoisonError::into_inner).get(&key(dir, options)).cloned()?;
        let place = place.lock().unwrap_or_else(PoisonError::into_inner);
        place.upgrade().filter(|engine| engine.works())
    }

    fn load(dir: &Path, options: &EngineOptions) -> Result<Self> {
        let model = Arc::new(Model::load(dir)?);
        Self::start(model.clone(), backend::open(&model, options)?)
    }

    /// The model on these backends, one for each device: what [`Engine::open`] makes of those that it finds, without sharing
    /// it. Each is run by a thread of its own, and so is what [`Backend::beside`] makes of it.
    ///
    /// Fails if there is none, or if a thread can't be started.
    pub fn with_backends(model: Arc<Model>, backends: Vec<Box<dyn Backend>>) -> Result<Arc<Self>> {
        if backends.is_empty() {
            return Err(no_device());
        }
        Self::start(model, Opened { backends, passed_over: Vec::new(), spare: None }).map(Arc::new)
    }

    pub(crate) fn start(model: Arc<Model>, opened: Opened) -> Result<Self> {
        let Opened { backends, passed_over, spare } = opened;
        let threads = Threads::default();
        let devices = backends.into_iter().map(|backend| DeviceLanes::start(backend, &threads));
        Ok(Self {
            vocabulary: Arc::new(model.vocabulary.clone()),
            model,
            fleet: Fleet::new(devices.collect::<Result<_>>()?, &threads, spare),
            _threads: threads,
            passed_over: passed_over.iter().map(Error::to_string).collect(),
        })
    }

    /// What the model is.
    pub fn config(&self) -> &ModelConfig {
        &self.model.config
    }

    /// The model's pieces.
    pub fn vocabulary(&self) -> &Vocabulary {
        &self.vocabulary
    }

    /// What the model runs on: the backend and name of each device, such as `cuda, NVIDIA H100 80GB HBM3 (0)`.
    pub fn devices(&self) -> Vec<String> {
        self.lanes().iter().map(|lane| lane.describe()).collect()
    }

    /// Why GPUs that `auto` would rather have taken don't run the model, one reason each.
    pub fn passed_over(&self) -> &[String] {
        &self.passed_over
    }

    /// Bytes of state that such a stream holds in the backend between two steps; a vocabulary's [bytes](crate::Boosts::bytes) are
    /// held once for all streams that have it. Waits for the step under way.
    pub fn stream_bytes(&self, options: &StreamOptions) -> Result<usize> {
        let mode = options.mode(self.config())?;
        let lane = self.lanes().into_iter().next().ok_or_else(no_device)?;
        lane.ask(move |backend| backend.slot_bytes(mode))
    }

    /// Opens a stream on the device with the least load: the encoder frames that its streams have in a second of audio.
    /// Where that one has no memory left the others are tried. Waits for the step under way, no longer; where that is one over a
    /// whole signal, only who opens another such stream.
    ///
    /// Fails if the model has no such context, can't be streamed, if the vocabulary is another model's, or memory is out.
    pub fn stream(self: &Arc<Self>, options: &StreamOptions) -> Result<Stream> {
        let mode = options.mode(self.config())?;
        let language = options.language_place(self.config())?;
        if let Some(boosts) = &options.vocabulary {
            boosts.check(&self.vocabulary)?;
        }
        let wanted = Wanted { mode, language, boosts: options.vocabulary.clone() };
        let load = stream::load(mode);
        let (mut devices, mut lost, mut refused) = (self.fleet.devices(), None, None);
        while let Some(device) = take_least(&mut devices, load, &mut lost) {
            match device.open(&wanted, load) {
                Ok(place) => {
                    let how = (wanted, self.config());
                    let shared = Shared::new(self.fleet.clone(), self.vocabulary.clone(), how, options);
                    return Ok(Stream::new(self.clone(), place, shared));
                }
                Err(error) => drop(refused.get_or_insert(error)),
            }
        }
        // What a device that works says counts more.
        let refused = refused.or(lost);
        Err(refused.unwrap_or_else(no_device))
    }

    /// What the engine has done since it was opened, or since [`Engine::reset_statistics`]. Waits for the step under way.
    pub fn statistics(&self) -> Statistics {
        Statistics { lanes: self.fleet.devices().iter().flat_map(|device| device.statistics()).collect() }
    }

    /// Begins the counts and distributions of [`Engine::statistics`] anew.
    pub fn reset_statistics(&self) {
        self.fleet.devices().iter().for_each(|device| device.reset_statistics());
    }

    /// Whether there is a device that isn't lost: after that only another engine helps, in this process if it has another
    /// device, else in another one.
    pub fn works(&self) -> bool {
        self.fleet.devices().iter().any(|device| device.works().is_ok())
    }

    /// The main lane of each device.
    pub(crate) fn lanes(&self) -> Vec<Arc<StreamLane>> {
        self.fleet.devices().iter().map(|device| device.main().clone()).collect()
    }
}

fn key(dir: &Path, options: &EngineOptions) -> Key {
    (dir.canonicalize().unwrap_or_else(|_| dir.to_owned()), options.clone())
}

fn no_device() -> Error {
    Error::Unsupported("there is no device to run it on".into())
}
