// SPDX-License-Identifier: MPL-2.0
//! A model directory: `config.json`, `model.safetensors`, `tokens.txt`; and how a `.nemo` file becomes one.

use std::path::Path;

use crate::{Error, Result};

mod checkpoint;
pub mod config;
mod convert;
mod nemo;
mod nemo_config;
mod pickle;
pub mod tensors;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
pub mod vocabulary;
pub mod weights;

pub use config::ModelConfig;
pub use convert::{ConvertOptions, WeightType, convert};
pub use vocabulary::Vocabulary;
pub use weights::{Tensor, TensorData, Weights};

const CONFIG: &str = "config.json";
const WEIGHTS: &str = "model.safetensors";
const TOKENS: &str = "tokens.txt";

/// A model in memory, its parts checked against each other.
#[derive(Debug)]
pub struct Model {
    /// What the model is.
    pub config: ModelConfig,
    /// Its pieces.
    pub vocabulary: Vocabulary,
    /// Its tensors, as [`tensors::expected`] lists them.
    pub weights: Weights,
}

impl Model {
    /// Loads a model directory. The weights are mapped, not read; every tensor's name and shape is checked.
    pub fn load(dir: &Path) -> Result<Self> {
        if dir.is_file() {
            let reason = match dir.extension() {
                Some(extension) if extension == "nemo" => {
                    let (nemo, out) = (dir.display(), dir.with_extension(""));
                    format!(
                        "a NeMo checkpoint: make it a model with `parakeet convert {nemo} {}`",
                        out.display()
                    )
                }
                _ => "expected a model directory, found a file".into(),
            };
            return Err(Error::model(dir, reason));
        }
        if !dir.is_dir() {
            return Err(Error::model(dir, format!("no such model directory; {MAKE_ONE}")));
        }
        for name in [CONFIG, TOKENS, WEIGHTS] {
            let path = dir.join(name);
            if !path.is_file() {
                return Err(Error::model(&path, format!("missing from the model directory; {MAKE_ONE}")));
            }
        }
        let config = ModelConfig::read(&dir.join(CONFIG))?;
        let vocabulary = Vocabulary::read(&dir.join(TOKENS), config.decoder.vocabulary)?;
        let weights = Weights::open(&dir.join(WEIGHTS))?;
        for spec in tensors::expected(&config) {
            weights.tensor(&spec.name, &spec.shape)?;
        }
        Ok(Self { config, vocabulary, weights })
    }
}

const MAKE_ONE: &str = "make one with `parakeet convert MODEL.nemo DIRECTORY`";
