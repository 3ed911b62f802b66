// SPDX-License-Identifier: MPL-2.0
//! A NeMo checkpoint: a `.nemo` archive of a configuration, a tokenizer and a PyTorch checkpoint.

use std::path::Path;

use super::source::Source;
use crate::model::ModelConfig;
use crate::{Error, Result};

mod archive;
mod checkpoint;
mod config;
mod pickle;

pub use archive::sentencepiece;
#[cfg(test)]
pub(crate) use archive::{ModelProto, SentencePiece};
#[cfg(test)]
pub use config::read as read_config;
#[cfg(test)]
pub use pickle::{ElementType, Storage, StoredTensor};

use archive::NemoFile;
use checkpoint::Checkpoint;
use config::NemoConfig;

/// What the model of the file `path` is. `scratch` is a directory for what has to be unpacked, `name` what it will be
/// called.
pub fn config(path: &Path, scratch: &Path, name: &str) -> Result<ModelConfig> {
    Ok(configuration(&NemoFile::open(path, scratch)?, path, name)?.model)
}

/// Opens the file.
pub fn open(path: &Path, scratch: &Path, name: &str) -> Result<Source> {
    let archive = NemoFile::open(path, scratch)?;
    let NemoConfig { model: config, tokenizer } = configuration(&archive, path, name)?;
    let vocabulary = archive.vocabulary(&tokenizer)?;
    let tensors = Box::new(Checkpoint::open(archive.weights()?, path)?);
    Ok(Source { path: path.to_owned(), config, vocabulary, tensors })
}

fn configuration(archive: &NemoFile, path: &Path, name: &str) -> Result<NemoConfig> {
    let unsupported = |reason| Error::Unsupported(format!("{}: {reason}", path.display()));
    config::read(&archive.config()?, name).map_err(unsupported)
}
