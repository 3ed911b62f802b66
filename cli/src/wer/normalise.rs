// SPDX-License-Identifier: MPL-2.0
//! What of a text counts when it is compared with another.

use unicode_normalization::UnicodeNormalization;
use unicode_properties::{GeneralCategory, UnicodeGeneralCategory};

/// The rule, for people who read the figures.
pub const RULE: &str = "lower case, composed (NFC); dashes and hyphens split words; apostrophes within words are kept, \
                        other punctuation is removed; spaces are collapsed";

/// `text` by [`RULE`]: words with one space between them.
pub fn normalise(text: &str) -> String {
    let text: Vec<char> = text.nfc().flat_map(char::to_lowercase).map(plain_apostrophe).collect();
    let mut spaced = String::with_capacity(text.len());
    for (index, &c) in text.iter().enumerate() {
        let in_word = |at: Option<usize>| at.and_then(|at| text.get(at)).is_some_and(|&c| is_of_word(c));
        match c.general_category() {
            _ if c.is_whitespace() => spaced.push(' '),
            GeneralCategory::DashPunctuation => spaced.push(' '),
            _ if c == '\'' => {
                if in_word(index.checked_sub(1)) && in_word(Some(index + 1)) {
                    spaced.push(c);
                }
            }
            category if is_removed(category) => {}
            // The minus sign and the bullet hyphen are no dashes by category.
            _ if matches!(c, '\u{2212}' | '\u{2043}') => spaced.push(' '),
            _ => spaced.push(c),
        }
    }
    // A mark may have come next to the letter it belongs to.
    let composed: String = spaced.nfc().collect();
    composed.split(' ').filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ")
}

/// The letter apostrophe and the closing quotation mark, which books print, are written ' here.
fn plain_apostrophe(c: char) -> char {
    if matches!(c, '\u{2019}' | '\u{02BC}' | '\u{FF07}') { '\'' } else { c }
}

fn is_of_word(c: char) -> bool {
    c.is_alphanumeric() || matches!(c.general_category(), GeneralCategory::NonspacingMark)
}

fn is_removed(category: GeneralCategory) -> bool {
    matches!(
        category,
        GeneralCategory::ConnectorPunctuation
            | GeneralCategory::OpenPunctuation
            | GeneralCategory::ClosePunctuation
            | GeneralCategory::InitialPunctuation
            | GeneralCategory::FinalPunctuation
            | GeneralCategory::OtherPunctuation
            | GeneralCategory::Control
            | GeneralCategory::Format
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_the_rule_says() {
        let cases = [
            ("Had he married\ta  more amiable woman,\n", "had he married a more amiable woman"),
            ("It's the dogs' \u{2018}bone\u{2019}, isn\u{2019}t it?", "it's the dogs bone isn't it"),
            ("'Tis rock 'n' roll", "tis rock n roll"),
            (
                "ill-disposed\u{2014}cold\u{2010}hearted \u{2013} -3 \u{2212}4",
                "ill disposed cold hearted 3 4",
            ),
            ("1,000 U.S. (dollars) \u{AB}ja\u{BB} \u{BF}qu\u{E9}?", "1000 us dollars ja qu\u{E9}"),
            ("CAFE\u{301} CAF\u{C9} cafe\u{AD}\u{301}", "caf\u{E9} caf\u{E9} caf\u{E9}"),
            ("STRASSE \u{D6}L \u{41F}\u{420}\u{418}\u{412}\u{415}\u{422}", "strasse \u{F6}l привет"),
            ("co\u{AD}operate zero\u{200B}width snake_case", "cooperate zerowidth snakecase"),
            ("... \u{2014} !", ""),
        ];
        for (text, expected) in cases {
            assert_eq!(normalise(text), expected, "{text}");
        }
    }

    proptest! {
        #[test]
        fn once_is_enough(text in "\\PC{0,40}") {
            let once = normalise(&text);
            prop_assert_eq!(normalise(&once), once.clone());
            prop_assert!(!once.contains("  ") && once.trim() == once);
        }

        #[test]
        fn case_and_marks_make_no_difference(words in proptest::collection::vec("[a-z]{1,6}", 1..8)) {
            let plain = words.join(" ");
            let decorated = words.join(", \u{201C}").to_uppercase() + "!";
            prop_assert_eq!(normalise(&plain), plain.clone());
            prop_assert_eq!(normalise(&decorated), plain);
        }
    }
}
