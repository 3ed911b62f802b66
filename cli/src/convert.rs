// SPDX-License-Identifier: MPL-2.0
//! `parakeet convert`: a checkpoint to a model directory.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::ValueEnum;
use parakeet_engine::convert::{ConvertOptions, WeightType, convert};
use parakeet_engine::model::ModelConfig;

use crate::failure::Failure;
use crate::terminal;

/// Convert a checkpoint (a .nemo file, or a directory of Hugging Face transformers) to a model directory
#[derive(clap::Args)]
pub struct Args {
    /// The checkpoint, as downloaded: FILE.nemo or DIRECTORY
    checkpoint: PathBuf,
    /// Directory to write config.json, model.safetensors and tokens.txt to; created if need be
    out: PathBuf,
    /// How weights are stored
    #[arg(long, value_enum, default_value_t = Dtype::F16)]
    dtype: Dtype,
    /// Name of the model, for people [default: the checkpoint's]
    #[arg(long)]
    name: Option<String>,
    /// How long after a word begins the model emits it, in milliseconds, as `parakeet wer --times` measures it; word
    /// starts are earlier by it
    #[arg(long, value_name = "MS")]
    emission_delay: Option<u32>,
    /// A language that the model hears, as an ISO 639 code such as en, for one that isn't told which; may be given again
    #[arg(long, value_name = "CODE")]
    language: Vec<String>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Dtype {
    /// Half precision: half the size and half the memory traffic
    F16,
    /// Single precision, as most checkpoints have it
    F32,
}

/// Converts, with a progress bar on a terminal, and says what the model is.
pub fn run(args: &Args) -> Result<(), Failure> {
    let dtype = match args.dtype {
        Dtype::F16 => WeightType::F16,
        Dtype::F32 => WeightType::F32,
    };
    let options = ConvertOptions {
        dtype,
        name: args.name.clone(),
        emission_delay_ms: args.emission_delay,
        languages: args.language.clone(),
        cancel: cancel_on_interrupt(),
    };
    with_bar(&args.out, |progress| convert(&args.checkpoint, &args.out, &options, progress))
}

/// A flag that an interrupt sets.
pub fn cancel_on_interrupt() -> Arc<AtomicBool> {
    let cancel = Arc::new(AtomicBool::new(false));
    let flag = cancel.clone();
    // Without a handler an interrupt leaves the hidden directory behind, which the next conversion removes.
    let _ = ctrlc::set_handler(move || flag.store(true, Ordering::Relaxed));
    cancel
}

/// Shows the progress of what makes the model directory `out`, and then what it is.
pub fn with_bar(
    out: &Path,
    make: impl FnOnce(&mut dyn FnMut(u64, u64)) -> parakeet_engine::Result<ModelConfig>,
) -> Result<(), Failure> {
    let bar = terminal::bytes_bar();
    let config = make(&mut |done, total| {
        if let Some(bar) = &bar {
            bar.set_length(total);
            bar.set_position(done);
        }
    });
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
    let config = config?;
    let contexts: Vec<String> =
        config.encoder.contexts.iter().map(|[left, right]| format!("{left},{right}")).collect();
    eprintln!(
        "{out}: {name}, {layers} layers x {width}, {pieces} pieces, contexts {contexts}",
        out = out.display(),
        name = config.name,
        layers = config.encoder.layers,
        width = config.encoder.width,
        pieces = config.decoder.vocabulary,
        contexts = contexts.join(" "),
    );
    Ok(())
}
