// SPDX-License-Identifier: MPL-2.0
//! Where text of scripts that put no spaces between words may part.
//!
//! Those scripts are what UAX #29 leaves out of its class `ALetter`: Han, Hiragana and Katakana, which are wide, and the
//! scripts of South-East Asia (Thai, Lao, Khmer, Burmese and their kin), which are narrow. Their wide punctuation goes
//! with them.

use unicode_properties::{GeneralCategory, GeneralCategoryGroup, UnicodeGeneralCategory};
use unicode_segmentation::UnicodeSegmentation;
use unicode_width::UnicodeWidthChar;

use crate::model::script::lacks_spaces;

/// Characters before a place that are looked at: more than any rule looks back in text that somebody speaks.
pub const CONTEXT: usize = 16;

/// What is between two pieces of text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Nothing: one character as people see it (a grapheme cluster) goes on.
    Character,
    /// The same word goes on, or punctuation belongs to it.
    Word,
    /// A run of a script without spaces goes on, in which Unicode finds no words without a dictionary.
    Run,
    /// A word ends and another begins, with no space in between.
    Boundary,
}

impl Place {
    /// Between `before` and `after`; nothing ends where one is empty.
    ///
    /// A word ends where UAX #29 has a word boundary and one side is of a script without spaces. There is none before
    /// punctuation, save what opens a bracket or quote, nor after that; none before marks that lengthen, repeat or shrink
    /// the letter before them; and none inside a run of the scripts of South-East Asia, where UAX #29 itself advises
    /// against its rules.
    pub fn between(before: &str, after: &str) -> Self {
        let before = last_chars(before);
        if before.ends_with(|c: char| c.is_ascii()) && after.starts_with(|c: char| c.is_ascii()) {
            return Self::Word;
        }
        let Some(next) = after.graphemes(true).next() else { return Self::Word };
        let joint = format!("{before}{next}");
        if !before.is_empty() && joint.grapheme_indices(true).all(|(at, _)| at != before.len()) {
            return Self::Character;
        }
        let (Some(last), Some(first)) = (before.chars().next_back(), next.chars().next()) else {
            return Self::Word;
        };
        let (left, right) = (Script::ending(before), Script::of(first));
        if goes_on(first) || leads_on(last) || (left, right) == (Script::Spaced, Script::Spaced) {
            return Self::Word;
        }
        let boundary = joint.split_word_bound_indices().any(|(at, _)| at == before.len());
        match (left, right) {
            (Script::Narrow, Script::Narrow) => Self::Run,
            _ if boundary => Self::Boundary,
            (Script::Spaced, _) | (_, Script::Spaced) => Self::Word,
            _ => Self::Run,
        }
    }

    /// Whether text may be parted here if it must.
    pub fn may_part(self) -> bool {
        matches!(self, Self::Run | Self::Boundary)
    }
}

/// Whether what ends with `before` and what begins with `after` have no space between them, were they two sentences.
pub fn runs_on(before: &str, after: &str) -> bool {
    let first = after.chars().next().map_or(Script::Spaced, Script::of);
    Script::ending(before) != Script::Spaced && first != Script::Spaced
}

/// The last [`CONTEXT`] characters of `text`.
pub fn last_chars(text: &str) -> &str {
    text.char_indices().rev().take(CONTEXT).last().map_or("", |(at, _)| &text[at..])
}

/// How a script writes its words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Script {
    Spaced,
    Wide,
    Narrow,
}

impl Script {
    /// Of the last letter or mark of punctuation.
    fn ending(text: &str) -> Self {
        let last = last_chars(text).graphemes(true).next_back().and_then(|cluster| cluster.chars().next());
        last.map_or(Self::Spaced, Self::of)
    }

    fn of(c: char) -> Self {
        let unspaced = match c.general_category_group() {
            GeneralCategoryGroup::Letter | GeneralCategoryGroup::Number => lacks_spaces(c),
            GeneralCategoryGroup::Punctuation => c.width() == Some(2),
            _ => false,
        };
        match c.width() {
            _ if !unspaced => Self::Spaced,
            Some(2) => Self::Wide,
            _ => Self::Narrow,
        }
    }
}

/// Whether `c` begins no word and no line: it belongs to what is before it.
fn goes_on(c: char) -> bool {
    match c.general_category() {
        GeneralCategory::OpenPunctuation | GeneralCategory::InitialPunctuation => false,
        // Marks of length and repetition: ー 々 ゝ ๆ.
        GeneralCategory::ModifierLetter => true,
        _ if c.general_category_group() == GeneralCategoryGroup::Punctuation || c.is_whitespace() => true,
        _ => is_small_kana(c) || is_following_vowel(c),
    }
}

/// Whether `c` ends no word and no line: it belongs to what is after it.
fn leads_on(c: char) -> bool {
    match c.general_category() {
        GeneralCategory::OpenPunctuation | GeneralCategory::InitialPunctuation => true,
        // Vowels that Thai and Lao write before their consonant, and what puts the next consonant under the last one in
        // Burmese and Khmer.
        _ => matches!(c, '\u{E40}'..='\u{E44}' | '\u{EC0}'..='\u{EC4}' | '\u{1039}' | '\u{17D2}'),
    }
}

fn is_small_kana(c: char) -> bool {
    "ぁぃぅぇぉっゃゅょゎゕゖァィゥェォッャュョヮヵヶ".contains(c)
        || matches!(c, '\u{31F0}'..='\u{31FF}' | '\u{FF67}'..='\u{FF6F}')
}

/// Vowels and signs that Thai and Lao write after their consonant, though Unicode has them as letters.
fn is_following_vowel(c: char) -> bool {
    matches!(c, '\u{E2F}' | '\u{E30}' | '\u{E32}' | '\u{E33}' | '\u{E45}' | '\u{EB0}' | '\u{EB2}' | '\u{EB3}')
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `text` with `|` at each boundary and `·` inside runs.
    fn parted(text: &str) -> String {
        let mut parted = String::new();
        for (at, c) in text.char_indices() {
            if at > 0 {
                match Place::between(&text[..at], &text[at..]) {
                    Place::Boundary => parted.push('|'),
                    Place::Run => parted.push('·'),
                    Place::Word | Place::Character => {}
                }
            }
            parted.push(c);
        }
        parted
    }

    #[test]
    fn words_of_scripts_without_spaces_end_as_unicode_says() {
        let cases = [
            ("我用Python写", "我|用|Python|写"),
            ("2024年に3.5％、", "2024|年|に|3.5％、"),
            ("「人々」、と。", "「人々」、|と。"),
            ("他说“你好”，Python。", "他|说|“你|好”，|Python。"),
            ("きょう、コーヒー", "きょ|う、|コー·ヒー"),
            ("らーめん", "らー|め|ん"),
            ("３．５点", "３．５|点"),
            ("don't well-known Ünïcode 3.5 한국어 שלום", "don't well-known Ünïcode 3.5 한국어 שלום"),
            ("हिन्दी Ελλάδα привет عربي", "हिन्दी Ελλάδα привет عربي"),
        ];
        for (text, expected) in cases {
            assert_eq!(parted(text), expected, "{text}");
        }
    }

    #[test]
    fn runs_are_cut_between_what_people_see_as_characters() {
        let cases = [
            ("ไปเที่ยวกับPython", "ไป·เที่·ย·ว·กั·บ|Python"),
            ("มาก ๆ", "มา·ก ๆ"),
            ("ສະບາຍດີ", "ສະ·ບາ·ຍ·ດີ"),
            ("ខ្មែរ។", "ខ្មែ·រ។"),
            ("မြန်မာ၊", "မြ·န်·မာ၊"),
        ];
        for (text, expected) in cases {
            assert_eq!(parted(text), expected, "{text}");
        }
    }

    #[test]
    fn sentences_of_such_scripts_follow_without_a_space() {
        assert!(runs_on("你好。", "世界") && runs_on("は", "「い") && runs_on("ไป", "มา"));
        assert!(
            !runs_on("Python", "写") && !runs_on("写", "Python") && !runs_on("", "写") && !runs_on("a", "b")
        );
    }
}
