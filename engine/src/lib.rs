//! Streaming speech recognition with NVIDIA Parakeet and Nemotron models.

#![deny(unsafe_code)]

pub mod backend;
pub mod error;
pub mod features;
pub mod model;

pub use error::{Error, Result};
