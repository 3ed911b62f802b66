// SPDX-License-Identifier: MPL-2.0
//! Tokens to words, words to phrases and sentences.

mod breaks;
mod mask;
mod phrases;
mod place;
mod seam;
#[cfg(test)]
mod unspaced;
mod words;

pub use mask::Mask;
pub use phrases::{TextUnit, Unit, Units};
pub(crate) use place::{Clock, Placement};
pub(crate) use seam::Seam;
pub(crate) use words::{FrameWord, WordBuilder};
pub use words::{TimedToken, Word};
