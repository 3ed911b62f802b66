// SPDX-License-Identifier: MPL-2.0
//! A checkpoint as Hugging Face transformers saves one: a directory of `config.json`, safetensors and a tokenizer.

mod config;
mod directory;
#[cfg(test)]
mod tests;
mod tokenizer;

pub use directory::{config, open};
