// SPDX-License-Identifier: MPL-2.0
//! Tokens that two windows say of one sound.

use std::collections::VecDeque;

use crate::backend::Token;
use crate::model::Vocabulary;

/// Frames from a token that begins a word to where the same one is still of the same sound: 160 ms, in which nobody says a
/// word twice.
const WORD: u64 = 2;
/// The same for a piece within a word, as the second "an" of "banana" is, and where no seam lies between.
const PIECE: u64 = 1;
/// Tokens that are looked back at.
const LOOK_BACK: usize = 4;

/// Watches for tokens of windows that come again for the same sound.
///
/// A window hears the sound at its end with little behind it, and may say a word a frame or two early; the next window, which
/// hears all of it, then says it when it is due.
#[derive(Debug, Default)]
pub struct Seam {
    /// The last tokens that were new, and their frames, which go on where they are said again.
    last: VecDeque<(u32, u64)>,
    /// How many of them may come again after one that did.
    again: usize,
}

impl Seam {
    /// Whether `token`, of a chunk that begins with frame `chunk`, is a new one.
    pub fn is_new(&mut self, vocabulary: &Vocabulary, token: &Token, chunk: u64) -> bool {
        let word = vocabulary.starts_word(token.id);
        let repeats = |&(id, frame): &(u32, u64), continues: bool| {
            let seam = frame < chunk && token.frame >= chunk;
            let reach = if seam && (word || continues) { WORD } else { PIECE };
            id == token.id && token.frame.saturating_sub(frame) <= reach && (seam || word || continues)
        };
        let next = self.last.len() - self.again;
        let known = match self.last.get(next) {
            Some(expected) if repeats(expected, true) => Some(next),
            _ => {
                // Whatever begins a word may come again with all that follows it, another piece by itself.
                let first = if word { 0 } else { self.last.len().saturating_sub(1) };
                (first..self.last.len()).rev().find(|at| repeats(&self.last[*at], false))
            }
        };
        if let Some(at) = known {
            self.last[at].1 = token.frame;
            self.again = self.last.len() - at - 1;
            return false;
        }
        self.again = 0;
        self.last.push_back((token.id, token.frame));
        if self.last.len() > LOOK_BACK {
            self.last.pop_front();
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::vocabulary::PieceKind;

    #[test]
    fn the_same_sound_is_said_once() {
        let pieces =
            ["\u{2581}made", "an", "\u{2581}that"].map(|piece| (piece.to_owned(), PieceKind::Normal));
        let vocabulary = Vocabulary::new(pieces.into());
        let kept = |tokens: &[(u32, u64)], chunk: u64| {
            let mut seam = Seam::default();
            let token = |&(id, frame): &(u32, u64)| Token {
                id,
                frame,
                duration: Some(1),
                log_prob: 0.0,
                confidence: 1.0,
                margin: 1.0,
                duration_margin: 1.0,
            };
            let is_new = |token: &Token| seam.is_new(&vocabulary, token, token.frame / chunk * chunk);
            tokens.iter().map(token).filter(is_new).count()
        };
        assert_eq!(kept(&[(0, 9), (0, 10)], 10), 1);
        assert_eq!(kept(&[(0, 9), (0, 11)], 10), 1);
        assert_eq!(kept(&[(0, 8), (0, 9)], 10), 1, "no word lasts for a frame");
        assert_eq!(kept(&[(0, 7), (0, 9)], 10), 2, "within a window it is what the model hears");
        assert_eq!(kept(&[(1, 8), (1, 9)], 10), 2, "within a window");
        assert_eq!(kept(&[(2, 9), (2, 12)], 10), 2, "that that");
        assert_eq!(kept(&[(1, 9), (1, 11)], 10), 2, "an an");
        assert_eq!(kept(&[(1, 9), (1, 10)], 10), 1);
        assert_eq!(kept(&[(0, 8), (1, 9), (0, 10), (1, 11), (2, 12)], 10), 3, "all of a word");
        assert_eq!(kept(&[(0, 8), (1, 9), (0, 10), (2, 11), (1, 12)], 10), 4, "its beginning");
        assert_eq!(kept(&[(0, 9), (2, 11), (0, 13)], 10), 3);
        assert_eq!(kept(&[(0, 7), (0, 8), (0, 9), (0, 10)], 1), 1, "windows of one frame");
    }
}
