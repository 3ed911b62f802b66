// SPDX-License-Identifier: MPL-2.0
//! What is said of a signal that is too long to be decoded in one step.

use super::Window;
use crate::audio::SAMPLE_RATE;
use crate::error::{Error, Fault};
use crate::model::ModelConfig;

/// Why a step over `samples` samples that needs so many bytes isn't begun where so many are free, and what does instead.
pub fn no_room(
    backend: &'static str,
    config: &ModelConfig,
    samples: usize,
    needed: usize,
    free: usize,
) -> Error {
    let gigabytes = |bytes: usize| bytes as f64 / 1e9;
    let minutes = samples as f64 / f64::from(SAMPLE_RATE) / 60.0;
    let Window { left, chunk, right } = Window::of(config);
    let [left, chunk, right] = [left, chunk, right].map(|frames| frames as f64 / 12.5);
    let reason = format!(
        "{minutes:.1} minutes at once need {:.2} GB of memory, and {:.2} GB are free; what fits are windows of a left context \
         of {left} s, chunks of {chunk} s and a right context of {right} s (--left {left} --chunk {chunk} --right {right})",
        gigabytes(needed),
        gigabytes(free),
    );
    Error::Backend { backend, device: None, kind: Fault::OutOfMemory, reason }
}
