// SPDX-License-Identifier: MPL-2.0
//! A checkpoint of any kind, opened: what the model is, its pieces, and its tensors under NeMo's names.

use std::collections::BTreeMap;
use std::io::{Read, Seek};
use std::path::{Path, PathBuf};

use super::checkpoint::Checkpoint;
use super::nemo::NemoFile;
use super::nemo_config::{self, NemoConfig};
use super::vocabulary::Vocabulary;
use super::{ModelConfig, hf};
use crate::{Error, Result};

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

impl<R: Read + Seek> TensorSource for Checkpoint<R> {
    fn list(&self) -> BTreeMap<String, Listed> {
        let listed = |(name, tensor): (&String, &super::pickle::StoredTensor)| {
            (name.clone(), Listed { name: name.clone(), shape: tensor.shape.clone() })
        };
        self.tensors().iter().map(listed).collect()
    }

    fn read(&mut self, name: &str) -> Result<Vec<f32>> {
        self.read(name)
    }
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

/// Opens a `.nemo` file or a directory as transformers saves one. `scratch` is a directory for what has to be unpacked.
pub fn open(path: &Path, scratch: &Path, name: &str) -> Result<Source> {
    let source = if path.is_dir() { hf::open(path, name)? } else { open_nemo(path, scratch, name)? };
    let (found, expected) = (source.vocabulary.len(), source.config.decoder.vocabulary);
    if found != expected {
        return Err(Error::model(path, format!("its tokenizer has {found} pieces, expected {expected}")));
    }
    Ok(source)
}

/// What the checkpoint `path` is, without its weights.
pub fn config(path: &Path, scratch: &Path, name: &str) -> Result<ModelConfig> {
    if path.is_dir() {
        return hf::config(path, name);
    }
    Ok(nemo_config(&NemoFile::open(path, scratch)?, path, name)?.model)
}

fn open_nemo(path: &Path, scratch: &Path, name: &str) -> Result<Source> {
    let archive = NemoFile::open(path, scratch)?;
    let NemoConfig { model: config, tokenizer } = nemo_config(&archive, path, name)?;
    let vocabulary = archive.vocabulary(&tokenizer)?;
    let tensors = Box::new(Checkpoint::open(archive.weights()?, path)?);
    Ok(Source { path: path.to_owned(), config, vocabulary, tensors })
}

fn nemo_config(archive: &NemoFile, path: &Path, name: &str) -> Result<NemoConfig> {
    let unsupported = |reason| Error::Unsupported(format!("{}: {reason}", path.display()));
    nemo_config::read(&archive.config()?, name).map_err(unsupported)
}
