// SPDX-License-Identifier: MPL-2.0
//! Everything that makes a model directory: from a NeMo checkpoint, from a directory of Hugging Face transformers, or
//! from nothing.

use std::fs;
use std::path::Path;

use crate::model::{ModelConfig, is_model};
use crate::{Error, Result};

mod describe;
mod hf;
mod nemo;
mod neutral;
mod open;
mod source;
mod staging;
mod synth;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod write;

pub use describe::{Description, Origin, describe};
pub use synth::{Like, SynthOptions, synthesize, synthetic_config};
pub use write::{ConvertOptions, WeightType};

/// Converts a checkpoint to the model directory `out` and returns its configuration. The checkpoint is a `.nemo` file or
/// a directory as Hugging Face transformers saves one.
///
/// `progress` gets bytes written and bytes in all. `out` may be absent, empty or a model directory, whose three files
/// are then replaced; they are written in full in a hidden directory beside it first. One tensor is in memory at a time.
pub fn convert(
    checkpoint: &Path,
    out: &Path,
    options: &ConvertOptions,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<ModelConfig> {
    fs::metadata(checkpoint).map_err(|e| Error::io(checkpoint, e))?;
    if is_model(checkpoint) {
        return Err(Error::model(checkpoint, "a model directory already: there is nothing to convert"));
    }
    let name = options.name.clone().unwrap_or_else(|| open::name_of(checkpoint));
    write::write(out, options, progress, &|scratch| open::open(checkpoint, scratch, &name))
}
