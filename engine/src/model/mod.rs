//! A model directory: `config.json`, `model.safetensors`, `tokens.txt`.

pub mod config;
