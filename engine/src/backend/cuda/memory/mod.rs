// SPDX-License-Identifier: MPL-2.0
//! What lies on a card: the weights, the streams and the working memory of a step.

mod phrases;
mod pool;
mod scratch;
mod weights;

pub use phrases::{PhraseStore, Phrases};
pub use pool::Pool;
pub use scratch::Scratch;
pub use weights::{Layer, Norm, Params};
