// SPDX-License-Identifier: MPL-2.0
//! A checkpoint of any kind, opened: what the model is, its pieces, and its tensors under NeMo's names.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::Result;
use crate::model::{ModelConfig, Vocabulary};

/// A tensor as the checkpoint has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// The checkpoint's own name.
    pub name: String,
    /// Sizes, outermost first.
    pub shape: Vec<usize>,
}

/// Where tensors come from, one at a time.
pub trait TensorSource {
    /// Every tensor by NeMo's name.
    fn list(&self) -> BTreeMap<String, Listed>;

    /// The elements of a tensor, by the checkpoint's own name, in row-major order and single precision.
    fn read(&mut self, name: &str) -> Result<Vec<f32>>;
}

/// An open checkpoint.
pub struct Source {
    /// Named in errors.
    pub path: PathBuf,
    /// What the model is.
    pub config: ModelConfig,
    /// Its pieces, as many as the configuration says.
    pub vocabulary: Vocabulary,
    /// Its tensors.
    pub tensors: Box<dyn TensorSource>,
}
