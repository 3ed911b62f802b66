// SPDX-License-Identifier: MPL-2.0
//! Tokens to words, words to phrases and sentences.

mod phrases;
mod words;

pub use phrases::{TextUnit, Unit, Units};
pub(crate) use words::{FrameWord, WordBuilder};
pub use words::{TimedToken, Word};
