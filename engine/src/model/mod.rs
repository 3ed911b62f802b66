// SPDX-License-Identifier: MPL-2.0
//! A model directory: `config.json`, `model.safetensors`, `tokens.txt`; and how a checkpoint becomes one.

use std::path::Path;

use crate::{Error, Result};

mod checkpoint;
pub mod config;
mod convert;
mod describe;
mod find;
mod hf;
mod hf_config;
#[cfg(test)]
mod hf_tests;
mod hf_tokenizer;
mod nemo;
mod nemo_config;
mod pickle;
mod source;
mod staging;
mod synth;
pub mod tensors;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
pub mod vocabulary;
pub mod weights;

pub use config::ModelConfig;
pub use convert::{ConvertOptions, WeightType, convert};
pub use describe::{Description, Origin, describe, parameters};
pub use find::{EMBEDDED, find_model};
pub use synth::{Like, SynthOptions, synthesize, synthetic_config};
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

/// Whether `dir` looks like a model directory of this crate, of whatever version.
fn is_model(dir: &Path) -> bool {
    let of_this_format = |text: Vec<u8>| {
        let config: Option<serde_json::Value> = serde_json::from_slice(&text).ok();
        let has = |key: &str| config.as_ref().is_some_and(|config| config.get(key).is_some());
        ["format", "features", "encoder", "decoder"].into_iter().all(has)
    };
    std::fs::read(dir.join(CONFIG)).is_ok_and(of_this_format)
        && dir.join(WEIGHTS).exists()
        && dir.join(TOKENS).exists()
}

/// What a model is called that nobody named: its checkpoint's name without `.nemo`.
fn name_of(checkpoint: &Path) -> String {
    let place = checkpoint.canonicalize().unwrap_or_else(|_| checkpoint.to_owned());
    let name = if place.is_dir() { place.file_name() } else { checkpoint.file_stem() };
    name.unwrap_or_default().to_string_lossy().into_owned()
}

const MAKE_ONE: &str = "make one with `parakeet convert MODEL.nemo DIRECTORY`";
