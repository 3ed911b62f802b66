// SPDX-License-Identifier: MPL-2.0
//! Words into captions: how many go on screen together, and on which line.

use parakeet_engine::Word;
use unicode_width::UnicodeWidthStr;

/// Columns of a line, what broadcasters and streaming services agree on; a wide character, as of Chinese, takes two.
const LINE: usize = 42;
/// Longest a caption covers, in samples at 16 kHz: 6 s.
const LONGEST: u64 = 96_000;
/// Shortest that a caption stays on screen where nothing follows it at once, in samples at 16 kHz: 5/6 s, as streaming
/// services ask.
const SHORTEST: u64 = 13_333;
/// Columns that people read in a second.
const READ: u64 = 20;
/// A silence that ends a caption, in samples at 16 kHz: 0.8 s.
const PAUSE: u64 = 12_800;
/// Words whose full stop ends no sentence.
const ABBREVIATIONS: [&str; 9] = ["Mr.", "Mrs.", "Ms.", "Dr.", "St.", "Prof.", "Gen.", "vs.", "etc."];

/// One caption: one or two lines of text between two times.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caption {
    /// First sample at 16 kHz.
    pub start: u64,
    /// Sample after the last one.
    pub end: u64,
    /// The lines, at most two unless a single word is longer than a line.
    pub lines: Vec<String>,
}

/// Collects words until a caption is complete, and keeps that until it is known how long it may stay on screen.
#[derive(Default)]
pub struct Captions {
    words: Vec<Part>,
    last: Option<Word>,
    start: u64,
    end: u64,
    held: Option<Caption>,
}

/// What stays on one line.
#[derive(Clone)]
struct Part {
    text: String,
    /// A space is before it, if it isn't the first of its line.
    spaced: bool,
}

impl Captions {
    /// Adds the next word and gives the captions whose end is known now.
    pub fn word(&mut self, word: &Word) -> Vec<Caption> {
        if !self.fits(word) {
            self.complete();
        }
        let shown = self.release(word.start);
        if self.words.is_empty() {
            self.start = word.start;
        }
        self.end = word.end.max(self.start + 1);
        self.words = self.with(word);
        self.last = Some(Word { tokens: Vec::new(), ..word.clone() });
        if ends_sentence(&word.text) {
            self.complete();
        }
        shown.into_iter().collect()
    }

    /// The captions left over, of audio that ends at this sample.
    pub fn finish(&mut self, end: u64) -> Vec<Caption> {
        self.complete();
        self.release(end).into_iter().collect()
    }

    /// Makes a caption of the words so far.
    fn complete(&mut self) {
        let words = std::mem::take(&mut self.words);
        if !words.is_empty() {
            self.held = Some(Caption { start: self.start, end: self.end, lines: lay_out(&words) });
        }
    }

    /// The complete caption, which may stay until this sample.
    fn release(&mut self, until: u64) -> Option<Caption> {
        let mut caption = self.held.take()?;
        let columns: usize = caption.lines.iter().map(|line| line.width()).sum();
        let read = (columns as u64 * 16_000 / READ).clamp(SHORTEST, LONGEST);
        caption.end = caption.end.max(until.min(caption.start + read));
        Some(caption)
    }

    fn fits(&self, word: &Word) -> bool {
        let pause = word.start.saturating_sub(self.end) > PAUSE;
        let long = word.end.saturating_sub(self.start) > LONGEST;
        self.words.is_empty() || !(pause || long || split(&self.with(word)).is_none())
    }

    /// What there would be with the next word.
    fn with(&self, word: &Word) -> Vec<Part> {
        let mut parts = self.words.clone();
        let stays = self.last.as_ref().is_some_and(|last| !word.may_part_from(last));
        match parts.last_mut() {
            Some(last) if stays => last.text.push_str(&word.text),
            _ => parts.push(Part { text: word.text.clone(), spaced: !word.joined }),
        }
        parts
    }
}

fn ends_sentence(word: &str) -> bool {
    let bare = word.trim_end_matches(['"', '\'', ')', '”', '’', '」', '』', '）']);
    let initial = bare.chars().count() == 2 && bare.starts_with(char::is_uppercase);
    bare.ends_with(['.', '?', '!', '…', '。', '？', '！', '｡', '．'])
        && !initial
        && !ABBREVIATIONS.contains(&bare)
}

fn lay_out(parts: &[Part]) -> Vec<String> {
    let (first, second) = parts.split_at(split(parts).unwrap_or(parts.len()));
    let line = |parts: &[Part]| {
        parts.iter().fold(String::new(), |mut line, part| {
            if part.spaced && !line.is_empty() {
                line.push(' ');
            }
            line + &part.text
        })
    };
    [first, second].iter().filter(|parts| !parts.is_empty()).map(|parts| line(parts)).collect()
}

/// How many parts go on the first of at most two lines, so that both are as equal as can be; `None` if they don't fit.
fn split(parts: &[Part]) -> Option<usize> {
    let width = |parts: &[Part]| {
        let before = parts.first().map_or(0, |part| usize::from(part.spaced));
        parts.iter().map(|part| usize::from(part.spaced) + part.text.width()).sum::<usize>() - before
    };
    if width(parts) <= LINE {
        return Some(parts.len());
    }
    (1..parts.len())
        .map(|first| (first, width(&parts[..first]), width(&parts[first..])))
        .filter(|&(_, first, second)| first <= LINE && second <= LINE)
        .min_by_key(|&(_, first, second)| first.abs_diff(second))
        .map(|(first, ..)| first)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Captions of words of `length` seconds, each `gap` seconds after the one before.
    fn captions(text: &str, length: f64, gap: f64) -> Vec<Caption> {
        let mut captions = Captions::default();
        let (mut all, mut last) = (Vec::new(), 0);
        for (i, text) in text.split(' ').enumerate() {
            let start = i as f64 * (length + gap);
            let samples = |seconds: f64| (seconds * 16_000.0).round() as u64;
            let (start, end) = (samples(start), samples(start + length));
            let word = Word {
                text: text.into(),
                start,
                end,
                until: end,
                confidence: 1.0,
                heard: 0,
                joined: false,
                tokens: Vec::new(),
            };
            all.extend(captions.word(&word));
            last = end;
        }
        all.extend(captions.finish(last));
        all
    }

    fn text(captions: &[Caption]) -> Vec<String> {
        captions.iter().map(|c| c.lines.join("/")).collect()
    }

    #[test]
    fn sentences_end_captions_and_titles_do_not() {
        let all = captions("And Mr. J. Dash had \"leisure.\" Had he? Yes", 0.3, 0.1);
        assert_eq!(text(&all), ["And Mr. J. Dash had \"leisure.\"", "Had he?", "Yes"]);
        assert_eq!((all[0].start, all[0].end), (0, 36_800));
        // Two words of 0.3 s, and what follows 0.1 s after them.
        assert_eq!((all[1].start, all[1].end), (38_400, 51_200));
        assert_eq!((all[2].start, all[2].end), (51_200, 56_000), "no longer than the audio");
    }

    #[test]
    fn captions_stay_as_long_as_it_takes_to_read_them() {
        // 16,000 * 5 / 6, and 31 columns of 20 a second.
        let all = captions("Yes. incomprehensibilities,counting. Then", 0.2, 3.0);
        let length = |caption: &Caption| caption.end - caption.start;
        assert_eq!(all.iter().map(length).collect::<Vec<_>>(), [13_333, 24_800, 3_200]);
    }

    #[test]
    fn pauses_end_captions() {
        assert_eq!(text(&captions("one two", 0.3, 0.9)), ["one", "two"]);
        assert_eq!(text(&captions("one two", 0.3, 0.8)), ["one two"]);
    }

    #[test]
    fn captions_last_at_most_six_seconds() {
        let all = captions(&["la"; 20].join(" "), 0.5, 0.5);
        assert!(all.iter().all(|c| c.end - c.start <= LONGEST), "{all:?}");
        assert_eq!(all.len(), 4);
    }

    #[test]
    fn two_lines_of_42_characters() {
        let all = captions(&["seven77"; 40].join(" "), 0.01, 0.0);
        assert!(all.iter().all(|c| c.lines.len() <= 2 && c.lines.iter().all(|l| l.chars().count() <= LINE)));
        assert_eq!(all[0].lines.len(), 2);
        assert_eq!(text(&all).join(" ").replace('/', " "), ["seven77"; 40].join(" "));
    }

    /// Captions of words without spaces between them.
    fn unspaced(texts: &[&str]) -> Vec<String> {
        let mut captions = Captions::default();
        let mut all = Vec::new();
        for (text, i) in texts.iter().zip(0..) {
            let (text, start, end) = (text.to_string(), i * 100, i * 100 + 100);
            let joined = i > 0;
            all.extend(captions.word(&Word {
                text,
                start,
                end,
                until: end,
                confidence: 1.0,
                heard: 0,
                joined,
                tokens: Vec::new(),
            }));
        }
        all.extend(captions.finish(u64::MAX));
        text(&all)
    }

    #[test]
    fn wide_characters_take_two_columns_and_lines_break_between_them() {
        assert_eq!(unspaced(&["今日", "は。", "「は", "い。」", "次"]), ["今日は。", "「はい。」", "次"]);
        let line = "漢".repeat(21);
        assert_eq!(unspaced(&["漢"; 50]), [format!("{line}/{line}"), "漢".repeat(8)]);
        let full: Vec<&str> = ["漢"; 41].into_iter().chain(["漢、", "漢"]).collect();
        assert_eq!(unspaced(&full), [format!("{}/{line}", "漢".repeat(20)), "漢、漢".into()]);
        let late: Vec<&str> = ["漢"; 13].into_iter().chain(["、"]).chain(["漢"; 13]).collect();
        assert_eq!(
            unspaced(&late),
            [format!("{0}、/{0}", "漢".repeat(13))],
            "no line begins with a closing mark"
        );
        assert_eq!(unspaced(&["wasn", "'t"]), ["wasn't"]);
    }

    #[test]
    fn an_endless_word_stands_alone() {
        let long = "x".repeat(200);
        assert_eq!(text(&captions(&format!("a {long} b"), 0.1, 0.1)), ["a", &long, "b"]);
    }
}
