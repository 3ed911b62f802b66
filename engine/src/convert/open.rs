// SPDX-License-Identifier: MPL-2.0
//! Opens a checkpoint of any kind.

use std::path::Path;

use super::source::Source;
use super::{hf, nemo};
use crate::model::ModelConfig;
use crate::{Error, Result};

/// Opens a `.nemo` file or a directory as transformers saves one. `scratch` is a directory for what has to be unpacked.
pub fn open(path: &Path, scratch: &Path, name: &str) -> Result<Source> {
    let source = if path.is_dir() { hf::open(path, name)? } else { nemo::open(path, scratch, name)? };
    let (found, expected) = (source.vocabulary.len(), source.config.decoder.vocabulary);
    if found != expected {
        return Err(Error::model(path, format!("its tokenizer has {found} pieces, expected {expected}")));
    }
    Ok(source)
}

/// What the checkpoint `path` is, without its weights.
pub fn config(path: &Path, scratch: &Path, name: &str) -> Result<ModelConfig> {
    if path.is_dir() { hf::config(path, name) } else { nemo::config(path, scratch, name) }
}

/// What a model is called that nobody named: its checkpoint's name without `.nemo`.
pub fn name_of(checkpoint: &Path) -> String {
    let place = checkpoint.canonicalize().unwrap_or_else(|_| checkpoint.to_owned());
    let name = if place.is_dir() { place.file_name() } else { checkpoint.file_stem() };
    name.unwrap_or_default().to_string_lossy().into_owned()
}
