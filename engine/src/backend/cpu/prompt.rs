// SPDX-License-Identifier: MPL-2.0
//! The language prompt: tells the decoder, beside each encoder output, which language is spoken.

use super::ops::relu;
use super::parts::Linear;
use super::rows::Rows;

/// The two layers.
pub struct Prompt {
    pub inner: Linear,
    pub outer: Linear,
    /// Places of the one-hot vector.
    pub places: usize,
}

/// Working memory of [`Prompt::apply`].
#[derive(Default)]
pub struct Scratch {
    input: Vec<f32>,
    hidden: Vec<f32>,
    /// `[rows, width]`.
    pub output: Vec<f32>,
}

impl Prompt {
    /// Puts the place of each row of `encoded` beside it and runs both through the layers.
    pub fn apply(&self, encoded: Rows<'_>, languages: impl Iterator<Item = usize>, scratch: &mut Scratch) {
        let Scratch { input, hidden, output } = scratch;
        let width = encoded.width + self.places;
        input.clear();
        for (row, language) in languages.enumerate() {
            input.extend_from_slice(encoded.row(row));
            input.extend((0..self.places).map(|place| f32::from(u8::from(place == language))));
        }
        self.inner.apply(Rows::dense(input, width), hidden);
        relu(hidden);
        self.outer.apply(Rows::dense(hidden, self.inner.outputs), output);
    }
}
