// SPDX-License-Identifier: MPL-2.0
//! Words that are not to be shown.

use std::collections::HashSet;

use super::words::Word;
use crate::error::{Error, Result};

/// What stands for a masked word, of whatever length, as cloud transcribers have it.
const STARS: &str = "***";

/// A list of words that are replaced by `***` wherever they are said, whatever their case. Only whole words are: `ass` leaves
/// `assess` as it is, and of `damn's` and `god-damn` what is listed is masked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mask {
    /// In lower case.
    words: HashSet<String>,
}

impl Mask {
    /// The words of a list, one a line; lines that are empty or begin with `#` are none. Fails if there is no word, or a line
    /// has anything but letters and digits.
    pub fn new(list: &str) -> Result<Self> {
        let lines = list.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        let mut words = HashSet::new();
        for line in lines {
            if !line.chars().all(char::is_alphanumeric) {
                return Err(refusal(format!("{line:?} is not one word of letters and digits")));
            }
            words.insert(line.to_lowercase());
        }
        if words.is_empty() {
            return Err(refusal("the list holds no word".into()));
        }
        Ok(Self { words })
    }

    /// Masks the word's text; its tokens stay what the model said.
    pub fn apply(&self, word: &mut Word) {
        if let Some(masked) = self.masked(&word.text) {
            word.text = masked;
        }
    }

    /// The text with its words masked, if any is to be.
    fn masked(&self, text: &str) -> Option<String> {
        let mut masked = String::new();
        let mut found = false;
        for run in text.split_inclusive(|c: char| !c.is_alphanumeric()) {
            let word = run.trim_end_matches(|c: char| !c.is_alphanumeric());
            if self.words.contains(&word.to_lowercase()) {
                found = true;
                masked.push_str(STARS);
                masked.push_str(&run[word.len()..]);
            } else {
                masked.push_str(run);
            }
        }
        found.then_some(masked)
    }
}

fn refusal(reason: String) -> Error {
    Error::Option { option: "words to mask", reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_words_are_masked_whatever_their_case() {
        let mask = Mask::new("# not before nine\ndamn\n\nÄrger\r\n").expect("two words");
        for (said, shown) in [
            ("damn", "***"),
            ("Damn,", "***,"),
            ("“DAMN!”", "“***!”"),
            ("damn's", "***'s"),
            ("god-damn", "god-***"),
            ("ärger", "***"),
            ("damnation", "damnation"),
            ("dam", "dam"),
            ("", ""),
        ] {
            assert_eq!(mask.masked(said).as_deref().unwrap_or(said), shown);
        }
        assert_eq!(mask.masked("fine"), None);
    }

    #[test]
    fn a_list_without_words_is_refused() {
        for (list, reason) in
            [("", "no word"), ("# all\n\n", "no word"), ("god damn", "god damn"), ("***", "***")]
        {
            let error = Mask::new(list).unwrap_err().to_string();
            assert!(error.starts_with("words to mask: ") && error.contains(reason), "{error}");
        }
    }
}
