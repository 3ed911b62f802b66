// SPDX-License-Identifier: MPL-2.0
//! A model directory: `config.json`, `model.safetensors`, `tokens.txt`. [`convert`](crate::convert::convert) makes one.

use std::path::Path;

use crate::{Error, Result};

mod boosts;
pub mod config;
mod find;
mod geometry;
pub(crate) mod script;
pub(crate) mod tensors;
pub(crate) mod vocabulary;
pub(crate) mod weights;

pub use boosts::Boosts;
pub use config::ModelConfig;
pub use find::{EMBEDDED, find_model};
pub(crate) use geometry::Geometry;
pub use tensors::parameters;
pub use vocabulary::Vocabulary;
pub use weights::{Tensor, TensorData, Weights};

pub(crate) const CONFIG: &str = "config.json";
pub(crate) const WEIGHTS: &str = "model.safetensors";
pub(crate) const TOKENS: &str = "tokens.txt";

/// A model in memory, its parts checked against each other.
#[derive(Debug)]
pub struct Model {
    /// What the model is.
    pub config: ModelConfig,
    /// Its pieces.
    pub vocabulary: Vocabulary,
    /// Its tensors: all that the configuration implies, by name and shape. The joint's output layer is `joint.joint_net.2`.
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
pub(crate) fn is_model(dir: &Path) -> bool {
    let of_this_format = |text: Vec<u8>| {
        let config: Option<serde_json::Value> = serde_json::from_slice(&text).ok();
        let has = |key: &str| config.as_ref().is_some_and(|config| config.get(key).is_some());
        ["format", "features", "encoder", "decoder"].into_iter().all(has)
    };
    std::fs::read(dir.join(CONFIG)).is_ok_and(of_this_format)
        && dir.join(WEIGHTS).exists()
        && dir.join(TOKENS).exists()
}

const MAKE_ONE: &str = "make one with `parakeet convert MODEL.nemo DIRECTORY`";
