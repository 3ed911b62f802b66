// SPDX-License-Identifier: MPL-2.0
//! Tokens to words, given out once they can no longer change.

use crate::backend::Token;
use crate::model::Vocabulary;

/// Encoder frames without a token after which a word is given out although its end was not seen: 0.8 s. A token that
/// continues it after that becomes a word of its own. In real speech pieces of one word lie within 4 frames.
const PAUSE: u64 = 10;

/// A word in encoder frames of its utterance.
#[derive(Clone, Debug, PartialEq)]
pub struct FrameWord {
    /// The word with the punctuation that follows it.
    pub text: String,
    /// Frame of its first token.
    pub start: u64,
    /// Frame at which its last token that isn't punctuation ends (NeMo's refinement for TDT), at least `start + 1`.
    pub end: u64,
    /// Least probability of its tokens, NeMo's default aggregation.
    pub confidence: f32,
    /// It goes on, without a space, what a pause had ended.
    pub joined: bool,
    /// The tokens.
    pub tokens: Vec<Token>,
}

/// Collects the tokens of one utterance.
///
/// A word begins at a token with a leading space that isn't punctuation (NeMo `get_words_offsets`). It is complete when
/// the next one begins, after a pause, or at the end of the utterance.
#[derive(Clone, Debug, Default)]
pub struct WordBuilder {
    pending: Vec<Token>,
    /// Whether a word was given out before.
    started: bool,
}

impl WordBuilder {
    /// Takes the next token; gives out the word that it ends.
    pub fn push(&mut self, vocabulary: &Vocabulary, token: Token) -> Option<FrameWord> {
        let complete = if begins_word(vocabulary, token.id) { self.finish(vocabulary) } else { None };
        self.pending.push(token);
        complete
    }

    /// Says that `frames` frames of the utterance are decoded; gives out a word that a pause ended.
    pub fn advance(&mut self, vocabulary: &Vocabulary, frames: u64) -> Option<FrameWord> {
        let last = self.pending.last()?;
        if frames >= last.frame + u64::from(last.duration) + PAUSE { self.finish(vocabulary) } else { None }
    }

    /// Ends the utterance; gives out the last word.
    pub fn finish(&mut self, vocabulary: &Vocabulary) -> Option<FrameWord> {
        let tokens = std::mem::take(&mut self.pending);
        let first = tokens.first()?;
        let start = first.frame;
        let joined = std::mem::replace(&mut self.started, true) && !begins_word(vocabulary, first.id);
        let ids: Vec<u32> = tokens.iter().map(|token| token.id).collect();
        let spoken = tokens.iter().rfind(|token| !vocabulary.is_punctuation(token.id));
        let end = spoken.map_or(start, |token| token.frame + u64::from(token.duration)).max(start + 1);
        let confidence = tokens.iter().map(|token| token.log_prob.exp()).fold(1.0, f32::min);
        Some(FrameWord { text: vocabulary.decode(&ids), start, end, confidence, joined, tokens })
    }

    /// The word not yet given out, as it would be if the utterance ended here.
    pub fn partial(&self, vocabulary: &Vocabulary) -> Option<FrameWord> {
        self.clone().finish(vocabulary)
    }

    /// The first frame that a word not yet given out may start at, when `frames` frames are decoded.
    pub fn horizon(&self, frames: u64) -> u64 {
        self.pending.first().map_or(frames, |token| token.frame)
    }
}

fn begins_word(vocabulary: &Vocabulary, id: u32) -> bool {
    vocabulary.starts_word(id) && !vocabulary.is_punctuation(id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::vocabulary::PieceKind;

    fn vocabulary() -> Vocabulary {
        let pieces = ["\u{2581}he", "\u{2581}was", "n", "'", "t", ".", "\u{2581}", "\u{2581}."];
        Vocabulary::new(pieces.iter().map(|piece| (piece.to_string(), PieceKind::Normal)).collect())
    }

    fn token(id: u32, frame: u64, duration: u32, log_prob: f32) -> Token {
        Token { id, frame, duration, log_prob, margin: 1.0, duration_margin: 1.0 }
    }

    #[test]
    fn words_come_when_the_next_begins() {
        let vocabulary = vocabulary();
        let mut builder = WordBuilder::default();
        assert_eq!(builder.push(&vocabulary, token(0, 3, 2, -0.1)), None);
        assert_eq!(builder.horizon(6), 3);
        let he = builder.push(&vocabulary, token(1, 6, 1, -0.2)).expect("the second word began");
        assert_eq!((he.text.as_str(), he.start, he.end), ("he", 3, 5));
        for (id, frame) in [(2, 7), (3, 8), (4, 8)] {
            assert_eq!(builder.push(&vocabulary, token(id, frame, 1, -0.7)), None);
        }
        assert_eq!(builder.push(&vocabulary, token(5, 12, 4, -0.3)), None, "punctuation ends nothing");
        let wasnt = builder.finish(&vocabulary).expect("one word is pending");
        assert_eq!((wasnt.text.as_str(), wasnt.start, wasnt.end), ("wasn't.", 6, 9));
        assert_eq!(wasnt.confidence, (-0.7_f32).exp());
        assert_eq!((wasnt.tokens.len(), wasnt.joined), (5, false));
        assert_eq!(builder.finish(&vocabulary), None);
        assert_eq!(builder.horizon(20), 20);
    }

    #[test]
    fn a_pause_ends_a_word_and_a_late_mark_stands_alone() {
        let vocabulary = vocabulary();
        let mut builder = WordBuilder::default();
        builder.push(&vocabulary, token(0, 3, 2, 0.0));
        assert_eq!(builder.advance(&vocabulary, 14), None);
        assert_eq!(builder.advance(&vocabulary, 15).map(|word| word.text), Some("he".into()));
        assert_eq!(builder.push(&vocabulary, token(5, 30, 1, 0.0)), None);
        let mark = builder.finish(&vocabulary).expect("the mark is pending");
        assert_eq!((mark.text.as_str(), mark.start, mark.end, mark.joined), (".", 30, 31, true));
    }
}
