// SPDX-License-Identifier: MPL-2.0
//! Words on the lines of a screen.

use std::ops::Range;

use unicode_width::UnicodeWidthStr;

use super::words::Word;

/// How much is on a screen at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lines {
    /// Columns of a line; a wide character, as of Chinese, takes two. By default 42, what broadcasters and streaming services
    /// agree on.
    pub columns: usize,
    /// Lines, by default two.
    pub count: usize,
}

impl Default for Lines {
    fn default() -> Self {
        Self { columns: 42, count: 2 }
    }
}

impl Lines {
    /// Whether there is room for `words`, which part where [`Word::may_part_from`] says so.
    pub(super) fn fit(self, words: &[Word]) -> bool {
        // Filling each line as far as it goes leaves the least for the others.
        fill(words, self.columns).is_some_and(|lines| lines.len() <= self.count)
    }

    /// The words on as few lines as they take, which are as equal as can be; on one if there is no room for them.
    pub(super) fn lay_out(self, words: &[Word]) -> Vec<String> {
        let Some(fewest) = fill(words, self.columns) else { return vec![text(words)] };
        let even = (1..self.columns)
            .find_map(|columns| fill(words, columns).filter(|lines| lines.len() <= fewest.len()));
        even.unwrap_or(fewest).into_iter().map(|line| text(&words[line])).collect()
    }
}

/// The words of each line, filled one after the other; none if a piece is longer than a line by itself.
fn fill(words: &[Word], columns: usize) -> Option<Vec<Range<usize>>> {
    let starts: Vec<usize> = (0..words.len()).filter(|&at| parts(words, at)).collect();
    let ends = starts.iter().skip(1).copied().chain([words.len()]);
    let (mut lines, mut length): (Vec<Range<usize>>, usize) = (Vec::new(), 0);
    for (start, end) in starts.iter().copied().zip(ends) {
        let width = text(&words[start..end]).width();
        if width > columns {
            return None;
        }
        let space = usize::from(length > 0 && !words[start].joined);
        match lines.last_mut() {
            Some(line) if length + space + width <= columns => {
                line.end = end;
                length += space + width;
            }
            _ => {
                lines.push(start..end);
                length = width;
            }
        }
    }
    Some(lines)
}

/// Words with spaces between them, save before those that are joined.
pub(super) fn text(words: &[Word]) -> String {
    words.iter().fold(String::new(), |mut text, word| {
        if !(text.is_empty() || word.joined || word.text.is_empty()) {
            text.push(' ');
        }
        text + &word.text
    })
}

/// Whether text may part before the word `at`.
pub(super) fn parts(words: &[Word], at: usize) -> bool {
    at == 0 || words[at].may_part_from(&words[at - 1])
}
