// SPDX-License-Identifier: MPL-2.0
//! Words to units of text that belong together: phrases for captions, sentences for readers.

use super::lines::{Lines, parts, text};
use super::words::Word;
use crate::audio::SAMPLE_RATE;

/// Shortest time that a phrase or sentence is given where silence follows it, in samples: 5/6 s, for who reads it on a screen.
pub(super) const SHOWN: u64 = SAMPLE_RATE as u64 * 5 / 6;
/// Longest time that a phrase covers, in seconds: as long as streaming services leave a subtitle on the screen.
pub(super) const LONGEST: u64 = 7;
/// Abbreviations whose full stop ends no sentence, in lower case. Those made of single letters need no mention.
const ABBREVIATIONS: [&str; 15] =
    ["mr", "mrs", "ms", "dr", "st", "prof", "gen", "sen", "rev", "capt", "jr", "vs", "etc", "mme", "bzw"];

/// What is given out as one piece of text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TextUnit {
    /// Each word by itself, at once.
    #[default]
    Word,
    /// Up to punctuation of any kind, a pause of 0.5 s, two lines of 42 columns (wide characters such as Chinese ones take
    /// two) or 7 s.
    Phrase,
    /// Up to the punctuation that ends a sentence, a pause of 1.5 s, 400 characters or 20 s.
    Sentence,
}

/// Words that are given out together; only a word that is longer by itself makes it longer than its [`TextUnit`] allows.
#[derive(Clone, Debug, PartialEq)]
pub struct Unit {
    /// The words with spaces between them, save before those that are `joined`.
    pub text: String,
    /// Sample at which the first word starts.
    pub start: u64,
    /// Sample at which the last word ends; of a phrase or sentence that is shorter, 5/6 s after `start` as far as silence
    /// follows.
    pub end: u64,
    /// Least confidence of its words.
    pub confidence: f32,
    /// Mean confidence of its words.
    pub mean_confidence: f32,
    /// At least one; one that [may not part](Word::may_part_from) from the word before comes first only if a pause or a
    /// limit lies before it.
    pub words: Vec<Word>,
    /// A sentence ends with it: by punctuation, for [`TextUnit::Sentence`] by a pause or the end of the stream as well.
    pub sentence_end: bool,
}

/// Collects the words of a stream into units.
///
/// What is given out, and in which units, depends on the words alone; how soon depends on [`Units::progress`] too.
#[derive(Clone, Debug, Default)]
pub struct Units {
    kind: TextUnit,
    lines: Lines,
    pending: Vec<Word>,
}

impl Units {
    /// Collects units of `kind`.
    pub fn new(kind: TextUnit) -> Self {
        Self { kind, ..Self::default() }
    }

    /// Collects phrases that fit in these lines.
    pub(super) fn of_lines(lines: Lines) -> Self {
        Self { kind: TextUnit::Phrase, lines, ..Self::default() }
    }

    /// The same kind of units, from the start.
    pub fn emptied(&self) -> Self {
        Self { pending: Vec::new(), ..*self }
    }

    /// Takes the next word; gives out the units that are complete now.
    pub fn word(&mut self, word: Word) -> Vec<Unit> {
        let mut complete: Vec<Unit> = self.progress(word.start).into_iter().collect();
        self.pending.push(word);
        while !self.fits() {
            let count = self.best_cut(self.pending.len() - 1);
            complete.extend(self.give(count, false));
        }
        let last = last_word(&self.pending);
        let ends = match self.kind {
            TextUnit::Word => true,
            TextUnit::Phrase => ends_clause(&last),
            TextUnit::Sentence => ends_sentence(&last),
        };
        if ends {
            complete.extend(self.give(self.pending.len(), false));
        }
        complete
    }

    /// Says that no word that starts before `sample` will come any more; gives out the unit that a pause ends.
    pub fn progress(&mut self, sample: u64) -> Option<Unit> {
        let pause = match self.kind {
            TextUnit::Word => 0,
            TextUnit::Phrase => u64::from(SAMPLE_RATE) / 2,
            TextUnit::Sentence => u64::from(SAMPLE_RATE) * 3 / 2,
        };
        if sample < end(&self.pending)?.saturating_add(pause) {
            return None;
        }
        self.finish()
    }

    /// Ends the utterance; gives out what is left.
    pub fn finish(&mut self) -> Option<Unit> {
        self.give(self.pending.len(), self.kind == TextUnit::Sentence)
    }

    /// Gives out what there is no more time to wait for, up to the best place: punctuation, else a pause, else the last
    /// word.
    pub fn cut(&mut self) -> Option<Unit> {
        let count = self.best_cut(self.pending.len());
        self.give(count, false)
    }

    /// What was not given out yet, as it would be if the stream ended here: a hypothesis that later words change.
    pub fn partial(&self) -> Option<Unit> {
        self.clone().finish()
    }

    /// Where what is not given out yet starts.
    pub fn pending_start(&self) -> Option<u64> {
        self.pending.first().map(|word| word.start)
    }

    /// Gives out the first `count` words.
    fn give(&mut self, count: usize, ended: bool) -> Option<Unit> {
        let words: Vec<Word> = self.pending.drain(..count).collect();
        let start = words.first()?.start;
        let shown = match self.kind {
            TextUnit::Word => start,
            TextUnit::Phrase | TextUnit::Sentence => words.last()?.until.min(start + SHOWN),
        };
        let sum: f32 = words.iter().map(|word| word.confidence).sum();
        Some(Unit {
            text: text(&words),
            start,
            end: end(&words)?.max(start).max(shown),
            confidence: words.iter().map(|word| word.confidence).fold(1.0, f32::min),
            mean_confidence: sum / words.len() as f32,
            sentence_end: ended || ends_sentence(&last_word(&words)),
            words,
        })
    }

    /// Whether what is pending is within the limits of a unit; a single word always is.
    fn fits(&self) -> bool {
        let (Some(first), Some(end)) = (self.pending.first(), end(&self.pending)) else { return true };
        let seconds = end.saturating_sub(first.start).div_ceil(u64::from(SAMPLE_RATE));
        self.pending.len() == 1
            || match self.kind {
                TextUnit::Word => false,
                TextUnit::Phrase => seconds <= LONGEST && self.lines.fit(&self.pending),
                TextUnit::Sentence => seconds <= 20 && text(&self.pending).chars().count() <= 400,
            }
    }

    /// How many words to give out, at most so many: up to punctuation, else up to the longest pause, else as many as can
    /// be. The first half is left whole, and pieces stay with their word, where possible.
    fn best_cut(&self, most: usize) -> usize {
        let words = &self.pending;
        let rank = |&cut: &usize| {
            let pause = words.get(cut).map_or(0, |next| next.start.saturating_sub(words[cut - 1].end));
            let parts = cut == words.len() || parts(words, cut);
            (parts, cut >= words.len() / 2, ends_clause(&last_word(&words[..cut])), pause, cut)
        };
        (1..=most).max_by_key(rank).unwrap_or(words.len())
    }
}

/// The last sample that one of `words` covers.
pub(super) fn end(words: &[Word]) -> Option<u64> {
    words.iter().map(|word| word.end).max()
}

/// The last word with the pieces joined to it.
fn last_word(words: &[Word]) -> String {
    let first = (0..words.len()).rev().find(|&at| parts(words, at)).unwrap_or(0);
    text(&words[first..])
}

/// `word` without the quotes and brackets that close after it.
fn without_closing(word: &str) -> &str {
    word.trim_end_matches(['"', '\'', '”', '’', '»', '›', ')', ']', '}', '」', '』', '）', '】', '》', '〉'])
}

/// Whether punctuation of any kind follows `word`, other than the full stop of an abbreviation.
fn ends_clause(word: &str) -> bool {
    let marks = [',', ';', ':', '、', '，', '；', '：', '،', '؛', '—', '–'];
    without_closing(word).ends_with(marks) || ends_sentence(word)
}

fn ends_sentence(word: &str) -> bool {
    let bare = without_closing(word);
    match bare.strip_suffix('.') {
        Some(before) => {
            let before = before.trim_start_matches(|c: char| !c.is_alphanumeric());
            !(is_initials(before) || ABBREVIATIONS.contains(&before.to_lowercase().as_str()))
        }
        None => bare.ends_with([
            '?', '!', '…', '‽', '。', '？', '！', '｡', '．', '؟', '۔', '।', '॥', '։', '።', '⁇', '⁈', '⁉',
            '\u{37e}',
        ]),
    }
}

/// "J", "U.S", "e.g", but not the pronoun "I".
fn is_initials(word: &str) -> bool {
    let mut pieces = word.split('.');
    let single = |piece: &str| piece.chars().count() == 1 && piece.chars().all(char::is_alphabetic);
    pieces.all(single) && (word.contains('.') || word.chars().all(char::is_uppercase) && word != "I")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Words of `length` samples, each `gap` after the one before; `+` before a word says that it is joined.
    fn words(text: &str, length: u64, gap: u64) -> Vec<Word> {
        let at = |i: usize| i as u64 * (length + gap);
        let made = text.split(' ').enumerate().map(|(i, text)| match text.strip_prefix('+') {
            Some(piece) => Word { heard: 0, joined: true, ..Word::of(piece, at(i), at(i) + length) },
            None => Word::of(text, at(i), at(i) + length),
        });
        made.collect()
    }

    fn units(kind: TextUnit, words: Vec<Word>) -> Vec<Unit> {
        let mut units = Units::new(kind);
        let mut all: Vec<Unit> = words.into_iter().flat_map(|word| units.word(word)).collect();
        all.extend(units.finish());
        all
    }

    fn texts(units: &[Unit]) -> Vec<&str> {
        units.iter().map(|unit| unit.text.as_str()).collect()
    }

    #[test]
    fn sentences_end_with_their_punctuation() {
        let cases: [(&str, &[&str]); 9] = [
            ("He had. Had he? Yes! Well", &["He had.", "Had he?", "Yes!", "Well"]),
            ("And Mr. J. R. Dash, e.g. Dr. Who, left.", &["And Mr. J. R. Dash, e.g. Dr. Who, left."]),
            ("the U.S. Army paid 3.5 of 1,000.", &["the U.S. Army paid 3.5 of 1,000."]),
            ("so do I. But (see etc.) not you.", &["so do I.", "But (see etc.) not you."]),
            ("“Go.” (Stop!) 'No?' on", &["“Go.”", "(Stop!)", "'No?'", "on"]),
            ("今日は。 明日？ はい！」 終", &["今日は。", "明日？", "はい！」", "終"]),
            ("ماذا؟ अंत। wait… done", &["ماذا؟", "अंत।", "wait…", "done"]),
            ("one, two; three", &["one, two; three"]),
            ("he was +n't +. So", &["he wasn't.", "So"]),
        ];
        for (text, expected) in cases {
            assert_eq!(texts(&units(TextUnit::Sentence, words(text, 4000, 1000))), expected, "{text}");
        }
        let all = units(TextUnit::Sentence, words("One. two", 4000, 1000));
        assert_eq!((all[0].start, all[0].end, all[0].words.len()), (0, 4000, 1));
        assert!(all[0].sentence_end && all[1].sentence_end);
    }

    #[test]
    fn a_short_phrase_stays_as_long_as_silence_follows() {
        // 16,000 * 5 / 6 = 13,333.
        for (kind, until, end) in [
            (TextUnit::Phrase, 9_000, 10_000 + 3_000),
            (TextUnit::Phrase, 20_000, 20_000),
            (TextUnit::Sentence, 40_000, 10_000 + 13_333),
            (TextUnit::Word, 40_000, 10_000 + 3_000),
        ] {
            let all = units(kind, vec![Word { until, ..Word::of("Yes.", 10_000, 13_000) }]);
            assert_eq!((all[0].start, all[0].end), (10_000, end), "{kind:?}, {until}");
        }
    }

    #[test]
    fn phrases_end_with_any_punctuation_and_words_come_alone() {
        let text = "Yes, Mr. Dash: go “home”, dogs' well-known — now.";
        let all = units(TextUnit::Phrase, words(text, 4000, 1000));
        assert_eq!(texts(&all), ["Yes,", "Mr. Dash:", "go “home”,", "dogs' well-known —", "now."]);
        assert_eq!(
            all.iter().map(|unit| unit.sentence_end).collect::<Vec<_>>(),
            [false, false, false, false, true]
        );
        let mut single = Units::new(TextUnit::Word);
        for word in words("Yes, sir. +? no", 4000, 1000) {
            let expected = (vec![word.text.clone()], word.text.ends_with(['.', '?']));
            let given = single.word(word);
            assert_eq!(
                (texts(&given).iter().map(|t| t.to_string()).collect(), given[0].sentence_end),
                expected
            );
        }
        assert_eq!((single.partial(), single.finish()), (None, None));
    }

    #[test]
    fn pauses_end_units_as_soon_as_progress_tells() {
        for (kind, pause, ended) in [(TextUnit::Phrase, 8000, false), (TextUnit::Sentence, 24_000, true)] {
            assert_eq!(units(kind, words("one two", 4000, pause - 1)).len(), 1);
            assert_eq!(units(kind, words("one two", 4000, pause)).len(), 2);
            let mut units = Units::new(kind);
            assert_eq!(units.word(Word::of("one", 0, 4000)), []);
            assert_eq!(units.progress(4000 + pause - 1), None);
            assert_eq!(units.partial().map(|unit| unit.text), Some("one".into()));
            let unit = units.progress(4000 + pause).expect("the pause is long enough");
            assert_eq!((unit.text.as_str(), unit.end, unit.sentence_end), ("one", 4000, ended));
            assert_eq!((units.progress(u64::MAX), units.partial()), (None, None));
        }
    }

    #[test]
    fn what_is_hurried_is_cut_at_the_best_place() {
        let mut units = Units::new(TextUnit::Sentence);
        assert_eq!(units.cut(), None);
        let given = words("one two three, four five", 4000, 0).into_iter().flat_map(|word| units.word(word));
        assert_eq!(given.count(), 0);
        let cut = |units: &mut Units| units.cut().map(|unit| (unit.text, unit.sentence_end));
        assert_eq!(cut(&mut units), Some(("one two three,".into(), false)));
        assert_eq!(cut(&mut units), Some(("four five".into(), false)), "as many as there are");
        assert_eq!(cut(&mut units), None);
        let mut spoken = words("one two three four five", 4000, 0);
        spoken[3].start += 2000;
        spoken.drain(..).for_each(|word| drop(units.word(word)));
        assert_eq!(cut(&mut units), Some(("one two three".into(), false)), "before the pause");
        assert_eq!(units.pending_start(), Some(14_000));
    }

    #[test]
    fn long_units_are_cut_where_the_pause_or_punctuation_is() {
        let mut spoken = words(&["seven77"; 40].join(" "), 800, 0);
        let all = units(TextUnit::Phrase, spoken.clone());
        assert_eq!(all.iter().map(|unit| unit.words.len()).collect::<Vec<_>>(), [10, 10, 10, 10]);
        assert!(all.iter().all(|unit| !unit.sentence_end));
        spoken[7].end -= 400;
        assert_eq!(units(TextUnit::Phrase, spoken)[0].words.len(), 8);
        let slow = units(TextUnit::Phrase, words(&["la"; 20].join(" "), 16_000, 0));
        assert_eq!(
            slow.iter().map(|unit| unit.end - unit.start).collect::<Vec<_>>(),
            [112_000, 112_000, 96_000]
        );
        let mut spoken = words(&["seven77"; 80].join(" "), 800, 0);
        spoken[39].text.push(',');
        let all = units(TextUnit::Sentence, spoken);
        assert_eq!(all.iter().map(|unit| unit.words.len()).collect::<Vec<_>>(), [40, 40]);
        assert_eq!(all.iter().map(|unit| unit.sentence_end).collect::<Vec<_>>(), [false, true]);
        let long = "x".repeat(500);
        let alone = units(TextUnit::Phrase, words(&format!("a {long} b"), 800, 0));
        assert_eq!(texts(&alone), ["a", &long, "b"]);
    }

    /// Words of one character each, save those that punctuation belongs to, without spaces.
    fn unspaced(text: &str) -> Vec<Word> {
        let mut parts: Vec<String> = Vec::new();
        for c in text.chars() {
            match parts.last_mut() {
                Some(last) if "、。？！」".contains(c) || last.ends_with('「') => last.push(c),
                _ => parts.push(c.into()),
            }
        }
        let made = parts
            .iter()
            .zip(0..)
            .map(|(text, i)| Word { joined: i > 0, ..Word::of(text, i * 400, i * 400 + 400) });
        made.collect()
    }

    #[test]
    fn units_of_scripts_without_spaces_end_with_punctuation_or_two_lines_of_wide_characters() {
        let all = units(TextUnit::Phrase, unspaced("今日は、いい天気。「はい。」と言った"));
        assert_eq!(texts(&all), ["今日は、", "いい天気。", "「はい。」", "と言った"]);
        let all = units(TextUnit::Sentence, unspaced("今日は、いい天気。行く？「はい」"));
        assert_eq!(texts(&all), ["今日は、いい天気。", "行く？", "「はい」"]);
        let all = units(TextUnit::Phrase, unspaced(&"漢".repeat(100)));
        assert_eq!(texts(&all), ["漢".repeat(42), "漢".repeat(42), "漢".repeat(16)]);
        let thai = words(&["+ภาษา"; 40].join(" "), 400, 0);
        assert_eq!(
            units(TextUnit::Phrase, thai)[0].text,
            "ภาษา".repeat(20),
            "narrow, and parted where words are"
        );
        let mark = format!("{}」", "漢".repeat(42));
        let all = units(TextUnit::Phrase, unspaced(&mark));
        assert_eq!(texts(&all), ["漢".repeat(41), "漢」".into()], "no line begins with a closing mark");
    }

    #[test]
    fn mixed_text_has_spaces_where_the_words_have() {
        let mixed = words("iPhone を +使 +う。 Let's +n't go", 400, 0);
        assert_eq!(texts(&units(TextUnit::Sentence, mixed)), ["iPhone を使う。", "Let'sn't go"]);
    }

    #[test]
    fn confidence_is_the_least_and_the_mean() {
        let mut spoken = words("one two", 4000, 0);
        spoken[1].confidence = 0.5;
        let all = units(TextUnit::Sentence, spoken);
        assert_eq!((all[0].confidence, all[0].mean_confidence), (0.5, 0.75));
    }

    proptest! {
        #[test]
        fn nothing_is_lost_reordered_or_changed_by_progress(
            spoken in proptest::collection::vec(
                ("[a-zA-Z.,?! 。0-9'\"]{0,12}", 0_u64..40_000, 0_u64..60_000, any::<bool>(), 0.0_f32..1.0),
                0..120,
            ),
            marks in proptest::collection::vec(0_u64..30_000, 1..20),
            kind in prop_oneof![Just(TextUnit::Word), Just(TextUnit::Phrase), Just(TextUnit::Sentence)],
        ) {
            let mut at = 0;
            let mut all = Vec::new();
            for (text, gap, length, joined, confidence) in spoken {
                // Most gaps are short, as in speech.
                let start = at + if gap < 30_000 { gap / 30 } else { gap };
                at = start + length / 4;
                let tokens = Vec::new();
                all.push(Word { text, start, end: at, until: at, confidence, heard: 0, joined, tokens });
            }
            let expected = units(kind, all.clone());

            let mut collector = Units::new(kind);
            let (mut given, mut horizon, mut marks) = (Vec::new(), 0, marks.iter().cycle());
            for (i, word) in all.iter().enumerate() {
                while let Some(mark) = marks.next().filter(|mark| horizon + *mark <= word.start) {
                    horizon += mark + 1;
                    given.extend(collector.progress(horizon - 1));
                }
                given.extend(collector.word(word.clone()));
                let known: usize = given.iter().map(|unit: &Unit| unit.words.len()).sum();
                let partial = collector.partial().map_or(vec![], |unit| unit.words);
                prop_assert_eq!(&all[known..=i], &partial[..]);
            }
            given.extend(collector.finish());
            prop_assert_eq!(&given, &expected);

            let taken: Vec<Word> = given.iter().flat_map(|unit| unit.words.clone()).collect();
            prop_assert_eq!(&taken, &all);
            for unit in &given {
                prop_assert_eq!(unit.start, unit.words[0].start);
                prop_assert!(unit.start <= unit.end && unit.confidence <= unit.mean_confidence + 1e-6);
                let spoken: String = unit.words.iter().map(|word| word.text.replace(' ', "")).collect();
                prop_assert_eq!(unit.text.replace(' ', ""), spoken);
                let length = unit.end - unit.start;
                let (longest, most) = match kind {
                    TextUnit::Word => (0, 0),
                    TextUnit::Phrase => (112_000, 2 * Lines::default().columns + 1),
                    TextUnit::Sentence => (320_000, 400),
                };
                let within = length <= longest && unit.text.chars().count() <= most;
                prop_assert!(within || unit.words.len() == 1, "{} samples: {:?}", length, unit.text);
            }
            prop_assert!(given.is_sorted_by(|a, b| a.end <= b.start));
        }
    }
}
