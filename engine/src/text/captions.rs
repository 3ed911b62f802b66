// SPDX-License-Identifier: MPL-2.0
//! Phrases to subtitles: what is on screen together, on which lines, and for how long.

use unicode_width::UnicodeWidthStr;

use super::lines::Lines;
use super::phrases::{LONGEST, SHOWN, Unit, Units, end};
use super::words::Word;
use crate::audio::SAMPLE_RATE;

/// Samples of a second.
const SECOND: u64 = SAMPLE_RATE as u64;
/// Columns that people read in a second: what streaming services ask of subtitles for adults.
const READ: u64 = 20;
/// Least time between two captions, so that the eye sees the change, in samples: two frames of 25 a second.
const GAP: u64 = SECOND * 2 / 25;
/// A silence that ends a caption, in samples: 0.8 s.
const PAUSE: u64 = SECOND * 4 / 5;

/// What is on screen at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caption {
    /// Sample at which its first word starts.
    pub start: u64,
    /// Sample at which it goes: not before its last word ends nor after the next caption starts.
    pub end: u64,
    /// The lines; more than fit only if a single word does not.
    pub lines: Vec<String>,
}

/// Makes captions of the words of a stream: its [phrases](super::TextUnit::Phrase), those of a sentence together as far as they
/// fit.
///
/// A caption covers 7 s at most and no silence longer than 0.8 s. It stays until it could be read, 20 columns in a second and
/// 5/6 s at least, as far as nothing else is said; then 80 ms are free before the next one, where the words leave them.
#[derive(Clone, Debug)]
pub struct Captions {
    lines: Lines,
    phrases: Units,
    words: Vec<Word>,
    /// A complete caption whose end depends on what follows.
    held: Option<Caption>,
}

impl Captions {
    /// Makes captions of so many lines.
    pub fn new(lines: Lines) -> Self {
        Self { lines, phrases: Units::of_lines(lines), words: Vec::new(), held: None }
    }

    /// Takes the next word, which has a text; gives out the captions whose end is known now.
    pub fn word(&mut self, word: Word) -> Vec<Caption> {
        let phrases = self.phrases.word(word);
        phrases.into_iter().flat_map(|phrase| self.phrase(phrase)).collect()
    }

    /// Gives out what is left of audio that ends at the sample `end`.
    pub fn finish(&mut self, end: u64) -> Vec<Caption> {
        let phrase = self.phrases.finish();
        let mut given: Vec<Caption> = phrase.into_iter().flat_map(|phrase| self.phrase(phrase)).collect();
        given.extend(self.complete());
        given.extend(self.held.take().map(|caption| stay(caption, end)));
        given
    }

    fn phrase(&mut self, phrase: Unit) -> Vec<Caption> {
        let mut given = Vec::new();
        if !self.takes(&phrase) {
            given.extend(self.complete());
        }
        self.words.extend(phrase.words);
        if phrase.sentence_end {
            given.extend(self.complete());
        }
        given
    }

    /// Whether the caption in progress takes a phrase too.
    fn takes(&self, phrase: &Unit) -> bool {
        let (Some(first), Some(last)) = (self.words.first(), end(&self.words)) else { return true };
        let words = [&self.words[..], &phrase.words].concat();
        let length = end(&words).unwrap_or(last).saturating_sub(first.start);
        phrase.start.saturating_sub(last) <= PAUSE && length <= LONGEST * SECOND && self.lines.fit(&words)
    }

    /// Makes a caption of the words so far; gives out the one before it.
    fn complete(&mut self) -> Option<Caption> {
        let words = std::mem::take(&mut self.words);
        let start = words.first()?.start;
        let end = end(&words)?.max(start + 1);
        let before = self.held.replace(Caption { start, end, lines: self.lines.lay_out(&words) });
        before.map(|caption| stay(caption, start.saturating_sub(GAP)))
    }
}

/// Leaves a caption on screen for as long as it takes to read it, but not beyond the sample `until` if nothing is said there.
fn stay(mut caption: Caption, until: u64) -> Caption {
    let columns: usize = caption.lines.iter().map(|line| line.width()).sum();
    let read = (columns as u64 * SECOND / READ).clamp(SHOWN, LONGEST * SECOND);
    caption.end = caption.end.max(until.min(caption.start + read));
    caption
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::lines::text;
    use super::*;

    /// Words of `length` samples, each `gap` after the one before.
    fn words(text: &str, length: u64, gap: u64) -> Vec<Word> {
        let at = |i: usize| i as u64 * (length + gap);
        text.split(' ').enumerate().map(|(i, text)| Word::of(text, at(i), at(i) + length)).collect()
    }

    /// Captions of words of which the last ends with the audio.
    fn captions(lines: Lines, words: &[Word]) -> Vec<Caption> {
        let mut captions = Captions::new(lines);
        let mut all: Vec<Caption> = words.iter().flat_map(|word| captions.word(word.clone())).collect();
        all.extend(captions.finish(end(words).unwrap_or(0)));
        all
    }

    fn usual(text: &str, length: u64, gap: u64) -> Vec<Caption> {
        captions(Lines::default(), &words(text, length, gap))
    }

    fn texts(captions: &[Caption]) -> Vec<String> {
        captions.iter().map(|caption| caption.lines.join("/")).collect()
    }

    #[test]
    fn phrases_of_a_sentence_come_together_and_sentences_apart() {
        let all = usual("And Mr. J. Dash, had \"leisure.\" Had he? Yes", 4_800, 1_600);
        assert_eq!(texts(&all), ["And Mr. J. Dash, had \"leisure.\"", "Had he?", "Yes"]);
        assert_eq!((all[0].start, all[0].end), (0, 36_800), "read in less than it takes to say it");
        assert_eq!((all[1].start, all[1].end), (38_400, 51_200 - 1_280), "two words and what follows");
        assert_eq!((all[2].start, all[2].end), (51_200, 56_000), "no longer than the audio");
        // All of it doesn't fit, so it parts at the comma; lines of 21 and 21 columns, then 29 and 27.
        let long = "it was told to him in the most exact words, but he was not of the sort of men to whom that means much";
        assert_eq!(
            texts(&usual(long, 800, 100)),
            [
                "it was told to him in/the most exact words,",
                "but he was not of the sort of/men to whom that means much"
            ]
        );
    }

    #[test]
    fn captions_stay_as_long_as_it_takes_to_read_them() {
        // 16,000 * 5 / 6, and 31 columns of 20 a second.
        let all = usual("Yes. incomprehensibilities,counting. Then", 3_200, 48_000);
        let lengths: Vec<u64> = all.iter().map(|caption| caption.end - caption.start).collect();
        assert_eq!(lengths, [13_333, 24_800, 3_200]);
    }

    #[test]
    fn pauses_and_seven_seconds_end_captions() {
        assert_eq!(texts(&usual("one two", 4_800, 12_801)), ["one", "two"]);
        assert_eq!(texts(&usual("one two", 4_800, 12_800)), ["one two"]);
        let all = usual(&["la"; 20].join(" "), 8_000, 7_000);
        assert!(all.iter().all(|caption| caption.end - caption.start <= 112_000), "{all:?}");
        assert_eq!(all.len(), 3);
    }

    #[test]
    fn lines_are_as_many_and_as_long_as_is_asked() {
        let text = ["seven77"; 40].join(" ");
        for (columns, count, first) in [(42, 2, 2), (42, 1, 1), (20, 3, 3), (7, 1, 1)] {
            let all = captions(Lines { columns, count }, &words(&text, 160, 0));
            assert_eq!(all[0].lines.len(), first);
            assert!(
                all.iter().all(|c| c.lines.len() <= count && c.lines.iter().all(|l| l.width() <= columns))
            );
            assert_eq!(texts(&all).join(" ").replace('/', " "), text);
        }
        let long = "x".repeat(200);
        assert_eq!(
            texts(&usual(&format!("a {long} b"), 1_600, 1_600)),
            ["a", &long, "b"],
            "a word without end"
        );
    }

    /// Captions of words without spaces between them.
    fn unspaced(texts_of_words: &[&str]) -> Vec<String> {
        let made = texts_of_words.iter().zip(0..);
        let made = made.map(|(text, i)| Word { joined: i > 0, ..Word::of(text, i * 100, i * 100 + 100) });
        texts(&captions(Lines::default(), &made.collect::<Vec<_>>()))
    }

    #[test]
    fn wide_characters_take_two_columns_and_lines_break_between_them() {
        assert_eq!(unspaced(&["今日", "は。", "「は", "い。」", "次"]), ["今日は。", "「はい。」", "次"]);
        let line = "漢".repeat(21);
        assert_eq!(unspaced(&["漢"; 50]), [format!("{line}/{line}"), "漢".repeat(8)]);
        let late: Vec<&str> = ["漢"; 13].into_iter().chain(["、"]).chain(["漢"; 13]).collect();
        assert_eq!(
            unspaced(&late),
            [format!("{0}、/{0}", "漢".repeat(13))],
            "no line begins with a closing mark"
        );
        assert_eq!(unspaced(&["wasn", "'t"]), ["wasn't"]);
    }

    proptest! {
        #[test]
        fn every_rule_holds_of_any_words(
            spoken in proptest::collection::vec(
                ("[a-zA-Z0-9漢字'\"]{1,12}[.,?!。]{0,1}", 0_u64..40_000, 0_u64..60_000, any::<bool>()),
                1..120,
            ),
            columns in 10_usize..60,
            count in 1_usize..4,
            silence in 0_u64..200_000,
        ) {
            let mut at = 0;
            let mut all = Vec::new();
            for (text, gap, length, joined) in spoken {
                // Most gaps are short, as in speech.
                let start = at + if gap < 30_000 { gap / 30 } else { gap };
                at = start + length / 4 + 1;
                all.push(Word { joined, ..Word::of(&text, start, at) });
            }
            let lines = Lines { columns, count };
            let mut maker = Captions::new(lines);
            let mut given: Vec<Caption> = all.iter().flat_map(|word| maker.word(word.clone())).collect();
            given.extend(maker.finish(at + silence));

            let mut rest = &all[..];
            for (index, caption) in given.iter().enumerate() {
                // Its words: as many as its letters.
                let bare = |text: &str| text.replace(' ', "");
                let said = bare(&caption.lines.concat());
                let number = (1..=rest.len()).find(|&n| bare(&text(&rest[..n])) == said);
                prop_assert!(number.is_some(), "{:?} isn't what comes next", caption);
                let (own, more) = rest.split_at(number.unwrap_or(0));
                rest = more;
                let alone = own.len() == 1;
                let fits = caption.lines.len() <= count && caption.lines.iter().all(|line| line.width() <= columns);
                prop_assert!(fits || alone, "{:?}", caption);
                let spoken_end = end(own).unwrap_or(0);
                prop_assert_eq!(caption.start, own[0].start);
                prop_assert!(caption.end >= spoken_end, "{:?} goes before its last word", caption);
                let length = caption.end - caption.start;
                prop_assert!(length <= 112_000 || alone, "{:?}", caption);
                let latest = match given.get(index + 1) {
                    Some(next) => {
                        prop_assert!(caption.end <= next.start);
                        prop_assert!(next.start - caption.end >= 1_280 || caption.end == spoken_end, "{:?}", caption);
                        next.start - 1_280.min(next.start)
                    }
                    None => at + silence,
                };
                let columns: usize = caption.lines.iter().map(|line| line.width()).sum();
                let asked = (columns as u64 * 800).clamp(13_333, 112_000);
                prop_assert!(length >= asked || caption.end >= latest, "{:?} goes too soon", caption);
            }
            prop_assert!(rest.is_empty(), "lost: {:?}", rest);
        }
    }
}
