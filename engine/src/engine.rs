// SPDX-License-Identifier: MPL-2.0
//! One model on one device, shared by everybody in the process who asks for the same.

use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::{Arc, LazyLock, Mutex, PoisonError, Weak};

use crate::backend::cpu::CpuBackend;
use crate::backend::{Backend, Mode};
use crate::batcher::{Batcher, SharedBackend};
use crate::error::{Error, Result};
use crate::model::{Model, ModelConfig, Vocabulary};
use crate::stream::{Shared, Stream, StreamOptions};

/// Which backend runs the model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum BackendChoice {
    /// The best that works on this machine.
    #[default]
    Auto,
    /// The processor's cores.
    Cpu,
}

impl fmt::Display for BackendChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Cpu => "cpu",
        })
    }
}

impl FromStr for BackendChoice {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        [Self::Auto, Self::Cpu].into_iter().find(|choice| choice.to_string() == name).ok_or_else(|| {
            let reason = format!("there is no backend {name:?}; there are auto and cpu");
            Error::Option { option: "backend", reason }
        })
    }
}

/// How an engine is run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct EngineOptions {
    /// Which backend.
    pub backend: BackendChoice,
    /// Threads of the CPU backend, all cores if 0.
    pub threads: usize,
}

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
        let backend: Box<dyn Backend> = match options.backend {
            BackendChoice::Auto | BackendChoice::Cpu => {
                Box::new(CpuBackend::new(model.clone(), options.threads)?)
            }
        };
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

    /// Bytes of state that a stream of this right context holds in the backend.
    pub fn stream_bytes(&self, look_ahead: Option<u32>) -> Result<usize> {
        let (context, _) = self.context(look_ahead)?;
        Ok(self.lock().slot_bytes(Mode::Cached { context }))
    }

    /// Opens a stream. Fails if the model has no such context, can't be streamed, or memory is out.
    pub fn stream(self: &Arc<Self>, options: &StreamOptions) -> Result<Stream> {
        let (context, look_ahead) = self.context(options.look_ahead)?;
        let slot = self.lock().open(Mode::Cached { context })?;
        let shared = Arc::new(Shared::new(slot, self.vocabulary.clone(), look_ahead, options));
        Ok(Stream::new(self.clone(), shared, self.batcher.queue().clone()))
    }

    /// Index and right context of the model's context with these right frames, or of its first.
    fn context(&self, look_ahead: Option<u32>) -> Result<(usize, u32)> {
        let contexts = &self.model.config.encoder.contexts;
        let right = |index: usize| contexts.get(index).map_or(0, |[_, right]| *right);
        let index = match look_ahead {
            None => 0,
            Some(wanted) => {
                let known = contexts.iter().position(|[_, right]| i64::from(*right) == i64::from(wanted));
                known.ok_or_else(|| {
                    let known: Vec<String> = contexts.iter().map(|[_, right]| right.to_string()).collect();
                    let reason =
                        format!("the model has no context of {wanted} frames; it has {}", known.join(", "));
                    Error::Option { option: "look-ahead", reason }
                })?
            }
        };
        Ok((index, right(index).max(0) as u32))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Box<dyn Backend>> {
        self.backend.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
