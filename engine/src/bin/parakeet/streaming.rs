// SPDX-License-Identifier: MPL-2.0
//! The options that say how a model is streamed, the same for every command.

use parakeet_engine::{StreamOptions, Window};

use crate::failure::Failure;

/// Usual windows in seconds, left, chunk and right, from the default to the quickest and the most accurate.
pub const WINDOWS: [[f64; 3]; 4] = [[10.0, 2.0, 2.0], [10.0, 1.0, 1.0], [10.0, 0.5, 0.5], [10.0, 10.0, 5.0]];

/// How the model is streamed.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct StreamArgs {
    /// Frames of 80 ms that the model looks ahead; a model has a few to choose from, its first is the default
    #[arg(long, value_name = "N")]
    pub look_ahead: Option<u32>,
    /// Seconds before a chunk that are heard again with it. With --left, --chunk or --right the model hears windows;
    /// models with full attention always do [default: 10]
    #[arg(long, value_name = "SECONDS", conflicts_with = "offline")]
    left: Option<f64>,
    /// Seconds of a chunk, whose words come out together [default: 2]
    #[arg(long, value_name = "SECONDS", conflicts_with = "offline")]
    chunk: Option<f64>,
    /// Seconds after a chunk that are heard before its words come out [default: 2]
    #[arg(long, value_name = "SECONDS", conflicts_with = "offline")]
    right: Option<f64>,
    /// Hear everything, then decode it in one pass
    #[arg(long)]
    offline: bool,
    /// Leave silence out: each stretch of speech is recognised by itself
    #[arg(long)]
    skip_silence: bool,
}

impl StreamArgs {
    /// The options of a stream.
    pub fn options(&self) -> Result<StreamOptions, Failure> {
        let Self { look_ahead, left, chunk, right, offline, skip_silence } = *self;
        let window = match (left, chunk, right) {
            (None, None, None) => None,
            _ => {
                Some(Window::from_seconds(left.unwrap_or(10.0), chunk.unwrap_or(2.0), right.unwrap_or(2.0))?)
            }
        };
        Ok(StreamOptions { look_ahead, window, offline, skip_silence, ..StreamOptions::default() })
    }
}
