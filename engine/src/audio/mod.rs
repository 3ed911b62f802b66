// SPDX-License-Identifier: MPL-2.0
//! What happens to samples before a model hears them: silence is left out, what is left queues, and becomes features.

pub(crate) mod features;
mod gate;
mod held;
mod intake;
mod levels;

pub use features::{FRAME_SAMPLES, SAMPLE_RATE};
pub(crate) use gate::{Gate, Part};
pub(crate) use held::Held;
pub(crate) use intake::{Intake, Next};
pub(crate) use levels::Levels;
