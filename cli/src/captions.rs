// SPDX-License-Identifier: MPL-2.0
//! Words into captions: how many go on screen together, and on which line.

use parakeet_engine::Word;

/// Characters a line, what broadcasters and streaming services agree on.
const LINE: usize = 42;
/// Longest a caption covers, in samples at 16 kHz: 6 s.
const LONGEST: u64 = 96_000;
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

/// Collects words until a caption is complete.
#[derive(Default)]
pub struct Captions {
    words: Vec<String>,
    start: u64,
    end: u64,
}

impl Captions {
    /// Adds the next word and gives the captions that are complete now: the one before the word, the one it ends.
    pub fn word(&mut self, word: &Word) -> Vec<Caption> {
        let mut complete = Vec::new();
        if !self.fits(word) {
            complete.extend(self.finish());
        }
        if self.words.is_empty() {
            self.start = word.start;
        }
        match self.words.last_mut() {
            Some(last) if word.joined => last.push_str(&word.text),
            _ => self.words.push(word.text.clone()),
        }
        self.end = word.end.max(self.start + 1);
        if ends_sentence(&word.text) {
            complete.extend(self.finish());
        }
        complete
    }

    /// The words left over.
    pub fn finish(&mut self) -> Option<Caption> {
        let words = std::mem::take(&mut self.words);
        (!words.is_empty()).then(|| Caption { start: self.start, end: self.end, lines: lay_out(&words) })
    }

    fn fits(&self, word: &Word) -> bool {
        let pause = word.start.saturating_sub(self.end) > PAUSE;
        let long = word.end.saturating_sub(self.start) > LONGEST;
        let mut words: Vec<&str> = self.words.iter().map(String::as_str).collect();
        words.push(&word.text);
        self.words.is_empty() || !(pause || long || split(&words).is_none())
    }
}

fn ends_sentence(word: &str) -> bool {
    let bare = word.trim_end_matches(['"', '\'', ')', '”', '’']);
    let initial = bare.chars().count() == 2 && bare.starts_with(char::is_uppercase);
    bare.ends_with(['.', '?', '!', '…']) && !initial && !ABBREVIATIONS.contains(&bare)
}

fn lay_out(words: &[String]) -> Vec<String> {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let first = split(&words).unwrap_or(words.len());
    let (first, second) = words.split_at(first);
    [first, second].iter().filter(|line| !line.is_empty()).map(|line| line.join(" ")).collect()
}

/// How many words go on the first of at most two lines, so that both are as equal as can be; `None` if the words
/// don't fit.
fn split(words: &[&str]) -> Option<usize> {
    let length =
        |words: &[&str]| words.iter().map(|w| w.chars().count() + 1).sum::<usize>().saturating_sub(1);
    if length(words) <= LINE {
        return Some(words.len());
    }
    (1..words.len())
        .map(|first| (first, length(&words[..first]), length(&words[first..])))
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
        let mut all = Vec::new();
        for (i, text) in text.split(' ').enumerate() {
            let start = i as f64 * (length + gap);
            let samples = |seconds: f64| (seconds * 16_000.0).round() as u64;
            let (start, end) = (samples(start), samples(start + length));
            let word = Word {
                text: text.into(),
                start,
                end,
                confidence: 1.0,
                heard: 0,
                joined: false,
                tokens: Vec::new(),
            };
            all.extend(captions.word(&word));
        }
        all.extend(captions.finish());
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
        assert_eq!((all[1].start, all[1].end), (38_400, 49_600));
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

    #[test]
    fn an_endless_word_stands_alone() {
        let long = "x".repeat(200);
        assert_eq!(text(&captions(&format!("a {long} b"), 0.1, 0.1)), ["a", &long, "b"]);
    }
}
