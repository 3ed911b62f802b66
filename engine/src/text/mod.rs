// SPDX-License-Identifier: MPL-2.0
//! Tokens to words, words to phrases, sentences and captions.

mod breaks;
mod captions;
mod lines;
mod mask;
mod phrases;
mod place;
mod seam;
#[cfg(test)]
mod unspaced;
mod words;

pub use captions::{Caption, Captions};
pub use lines::Lines;
pub use mask::Mask;
pub use phrases::{TextUnit, Unit, Units};
pub(crate) use place::{Clock, Placement};
pub(crate) use seam::Seam;
pub(crate) use words::{FrameWord, WordBuilder};
pub use words::{TimedToken, Word};
