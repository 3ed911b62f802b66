// SPDX-License-Identifier: MPL-2.0
//! Scripts that put no spaces between words.

use unicode_segmentation::UnicodeSegmentation;

/// Whether `letter` is of a script without spaces between words: what UAX #29 leaves out of its class `ALetter`.
pub fn lacks_spaces(letter: char) -> bool {
    // Between letters of scripts with spaces there is no boundary.
    letter.is_alphabetic() && format!("{letter}a").split_word_bound_indices().count() == 2
}
