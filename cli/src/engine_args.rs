// SPDX-License-Identifier: MPL-2.0
//! The options that say what a model runs on, the same for every command.

use parakeet_engine::EngineOptions;

use crate::failure::Failure;

/// What the model runs on; the engine knows the names.
#[derive(Clone, Debug, clap::Args)]
pub struct EngineArgs {
    /// What the model runs on: auto (NVIDIA GPUs where they run it, else the CPU), cpu or cuda
    #[arg(long, value_name = "NAME", default_value = "auto")]
    backend: String,
    /// Which of the backend's devices: a number from 0 (with the backend auto a GPU's), or auto for all that run the model
    #[arg(long, value_name = "N", default_value = "auto")]
    device: String,
    /// Type of weights and activations on a GPU: f16, bf16, f32, f8 (f16 with products of 8 bits), or auto: f16, and bf16 for
    /// models whose numbers that doesn't hold
    #[arg(long, value_name = "TYPE", default_value = "auto")]
    precision: String,
    /// Type of the keys and values that a stream keeps on a GPU: full (as the activations) or int8
    #[arg(long, value_name = "TYPE", default_value = "full")]
    cache: String,
}

impl EngineArgs {
    /// The options of an engine. Fails if there is no such thing, naming those that there are.
    pub fn options(&self) -> Result<EngineOptions, Failure> {
        Ok(EngineOptions {
            backend: self.backend.parse()?,
            device: self.device.parse()?,
            precision: self.precision.parse()?,
            cache: self.cache.parse()?,
            ..EngineOptions::default()
        })
    }
}
