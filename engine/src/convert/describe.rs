// SPDX-License-Identifier: MPL-2.0
//! What a model is, told from its configuration alone, whether it is converted yet or not.

use std::path::Path;

use super::open::{self, name_of};
use crate::model::tensors::{TensorSpec, expected, parameters};
use crate::model::{CONFIG, ModelConfig, WEIGHTS, Weights, is_model};
use crate::{Error, Result};

/// Kind of thing that [`describe`] was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A model directory, ready to run.
    Model,
    /// A `.nemo` file.
    Nemo,
    /// A directory as Hugging Face transformers saves one.
    HuggingFace,
}

/// A model that may not be converted yet.
#[derive(Clone, Debug, PartialEq)]
pub struct Description {
    /// What it was told from.
    pub origin: Origin,
    /// What it is.
    pub config: ModelConfig,
    /// Number of trained parameters.
    pub parameters: usize,
    /// Bytes of its weights: those of a model directory, or those that one in half precision will have.
    pub weight_bytes: u64,
}

/// Describes a model directory, a `.nemo` file or a directory of Hugging Face transformers. No weights are read, but a
/// gzip archive has to be unpacked.
pub fn describe(path: &Path) -> Result<Description> {
    if !path.exists() {
        return Err(Error::model(path, "no such model directory or checkpoint"));
    }
    if is_model(path) {
        let config = ModelConfig::read(&path.join(CONFIG))?;
        let weight_bytes = Weights::open(&path.join(WEIGHTS))?.bytes() as u64;
        let parameters = parameters(&config);
        return Ok(Description { origin: Origin::Model, config, parameters, weight_bytes });
    }
    let halves = |spec: &TensorSpec| (spec.elements() * if spec.full_precision { 4 } else { 2 }) as u64;
    let origin = if path.is_dir() { Origin::HuggingFace } else { Origin::Nemo };
    let scratch = tempfile::tempdir().map_err(|e| Error::io(&std::env::temp_dir(), e))?;
    let config = open::config(path, scratch.path(), &name_of(path))?;
    let weight_bytes = expected(&config).iter().map(halves).sum();
    Ok(Description { origin, parameters: parameters(&config), config, weight_bytes })
}
