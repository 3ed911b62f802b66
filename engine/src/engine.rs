// SPDX-License-Identifier: MPL-2.0
//! One model on one device, shared by everybody in the process who asks for the same.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock, Mutex, PoisonError, Weak};

use crate::backend::{self, Backend, EngineOptions};
use crate::batcher::{Batcher, SharedBackend};
use crate::error::{Error, Result};
use crate::model::{Model, ModelConfig, Vocabulary};
use crate::options::StreamOptions;
use crate::stream::{Shared, Stream};

/// A loaded model and the thread that runs its streams.
pub struct Engine {
    model: Arc<Model>,
    vocabulary: Arc<Vocabulary>,
    backend: SharedBackend,
    batcher: Batcher,
}

/// What makes two engines the same.
type Key = (PathBuf, EngineOptions);

/// Where an engine is, or will be once its load is done.
type Place = Arc<Mutex<Weak<Engine>>>;

/// The engines in use. Each has a lock of its own, so that loading one model doesn't hold up another.
static ENGINES: LazyLock<Mutex<HashMap<Key, Place>>> = LazyLock::new(Mutex::default);

impl Engine {
    /// The engine for the model directory `dir`, loaded unless somebody holds it already. Blocks while it loads.
    pub fn open(dir: &Path, options: &EngineOptions) -> Result<Arc<Self>> {
        let path = dir.canonicalize().unwrap_or_else(|_| dir.to_owned());
        let place = {
            let mut engines = ENGINES.lock().unwrap_or_else(PoisonError::into_inner);
            engines.retain(|_, place| {
                Arc::strong_count(place) > 1 || place.lock().is_ok_and(|e| e.strong_count() > 0)
            });
            engines.entry((path, options.clone())).or_default().clone()
        };
        let mut place = place.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(engine) = place.upgrade() {
            return Ok(engine);
        }
        let engine = Arc::new(Self::load(dir, options)?);
        *place = Arc::downgrade(&engine);
        Ok(engine)
    }

    fn load(dir: &Path, options: &EngineOptions) -> Result<Self> {
        let model = Arc::new(Model::load(dir)?);
        let mut backends = backend::open(&model, options)?;
        let backend = backends.remove(0);
        let name = backend.name();
        let backend = Arc::new(Mutex::new(backend));
        let batcher = Batcher::start(backend.clone())
            .map_err(|e| Error::Backend { backend: name, reason: format!("cannot start its thread: {e}") })?;
        Ok(Self { vocabulary: Arc::new(model.vocabulary.clone()), model, backend, batcher })
    }

    /// What the model is.
    pub fn config(&self) -> &ModelConfig {
        &self.model.config
    }

    /// The model's pieces.
    pub fn vocabulary(&self) -> &Vocabulary {
        &self.vocabulary
    }

    /// Bytes of state that such a stream holds in the backend between two steps.
    pub fn stream_bytes(&self, options: &StreamOptions) -> Result<usize> {
        let mode = options.mode(self.config())?;
        Ok(self.lock().slot_bytes(mode))
    }

    /// Opens a stream. Fails if the model has no such context, can't be streamed, or memory is out.
    pub fn stream(self: &Arc<Self>, options: &StreamOptions) -> Result<Stream> {
        let mode = options.mode(self.config())?;
        let language = options.language_place(self.config())?;
        let slot = self.lock().open(mode, language)?;
        let sizes = mode.step_sizes(&self.config().encoder);
        let shared = Arc::new(Shared::new(slot, self.vocabulary.clone(), sizes, options));
        Ok(Stream::new(self.clone(), shared, self.batcher.queue().clone()))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Box<dyn Backend>> {
        self.backend.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
