// SPDX-License-Identifier: MPL-2.0
//! `parakeet synth-model`: a model of a published shape with random weights, for benchmarks.

use std::path::PathBuf;

use parakeet_engine::convert::{ConvertOptions, Like, SynthOptions, synthesize};

use crate::convert::{cancel_on_interrupt, with_bar};
use crate::failure::Failure;

/// Make a model of a published shape with random weights, for benchmarks
///
/// It costs what the real one costs and emits about as many tokens, but they mean nothing.
#[derive(clap::Args)]
pub struct Args {
    #[arg(long, value_name = "NAME",
        help = format!("Whose shape: {}", Like::ALL.map(|like| like.to_string()).join(", ")))]
    like: Like,
    /// Directory to write
    out: PathBuf,
    /// Number of pieces of the vocabulary [default: the published model's]
    #[arg(long)]
    vocabulary: Option<usize>,
    /// Number of encoder layers [default: the published model's]
    #[arg(long)]
    layers: Option<usize>,
    /// Seed of the weights
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// Writes the model, with a progress bar on a terminal, and says what it is.
pub fn run(args: &Args) -> Result<(), Failure> {
    let Args { like, vocabulary, layers, seed, .. } = *args;
    let options = SynthOptions { like, vocabulary, layers, seed };
    let conversion = ConvertOptions { cancel: cancel_on_interrupt(), ..Default::default() };
    with_bar(&args.out, |progress| synthesize(&options, &args.out, &conversion, progress))
}
