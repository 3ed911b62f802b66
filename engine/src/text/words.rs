// SPDX-License-Identifier: MPL-2.0
//! Tokens to words, given out once they can no longer change.

use unicode_segmentation::UnicodeSegmentation;

use super::breaks::{Place, last_chars, runs_on};
use crate::backend::Token;
use crate::model::Vocabulary;
use crate::model::vocabulary::{SPACE, Said};

/// Encoder frames without a token after which a word is given out although its end was not seen: 0.8 s. A token that
/// continues it after that becomes a word of its own. In real speech pieces of one word lie within 4 frames.
const PAUSE: u64 = 10;
/// Encoder frames after which the bytes of a character that is not complete are given out for what they are: 4 s. Till
/// then a pause doesn't part them.
const UNFINISHED: u64 = 50;
/// Characters of a run of a script without spaces, in which no word ends by Unicode's rules, that are one word. Of wide
/// ones and the punctuation after them there is room in a line of 42 columns, and a longer word of Katakana is rare.
const MOST_CHARACTERS: usize = 16;
/// Encoder frames that such a word may last before the next token begins another: 1.6 s, twice the pause that ends a word.
const MOST_FRAMES: u64 = 20;
/// Tokens of any word, for what is no language: hardly a word that people write is half as long.
const MOST_TOKENS: usize = 256;

/// A token with the time that NeMo gives it: it lasts for its duration, with RNN-T for a frame; a mark of punctuation
/// that TDT emits takes no time and stands where the token before it ended (NeMo `_refine_timestamps_tdt`).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TimedToken {
    /// The token; its frame counts from the start of the utterance.
    pub token: Token,
    /// Where it starts, in the unit of the word that it belongs to.
    pub start: u64,
    /// Where it ends, at least `start`.
    pub end: u64,
}

/// A word in encoder frames of its utterance.
///
/// It starts and ends with its first and last token as NeMo has it (`get_words_offsets`), but lasts for a frame at least
/// and ends no later than the next word starts. So it is empty where both start in one frame.
#[derive(Clone, Debug, PartialEq)]
pub struct FrameWord {
    /// The word with the punctuation that follows it.
    pub text: String,
    /// Frame of its first token.
    pub start: u64,
    /// Frame at which its last token ends.
    pub end: u64,
    /// Frame that the next word starts at or after, where another may come.
    pub next: Option<u64>,
    /// Least confidence of its tokens, NeMo's default aggregation.
    pub confidence: f32,
    /// No space is between it and the word before.
    pub joined: bool,
    /// The tokens.
    pub tokens: Vec<TimedToken>,
}

/// A word with its place on the stream's sample clock: samples at 16 kHz pushed since creation or reset.
#[derive(Clone, Debug, PartialEq)]
pub struct Word {
    /// The word with the punctuation that follows it; may be empty if its pieces have no text.
    pub text: String,
    /// Sample at which it is spoken: where the model emits its first token, to an encoder frame, less the model's
    /// [delay](crate::model::ModelConfig::emission_delay_ms); but not in silence before it, nor in the word before.
    pub start: u64,
    /// Sample at which it ends, later than `start`: where its last token does, but no later than the next word starts and
    /// the audio ends.
    pub end: u64,
    /// Sample that no other word starts before, as far as is known: `end`, or later where silence follows.
    pub until: u64,
    /// Least confidence of its tokens.
    pub confidence: f32,
    /// How far the stream had heard when the word was given out: the sample after the last of that chunk.
    pub heard: u64,
    /// No space is between it and the word before: that is of a script without spaces, or a pause had ended it before a
    /// late piece came.
    pub joined: bool,
    /// Its tokens; they start and end on the stream's sample clock where the model emits them, their frames count from the
    /// start of the utterance.
    pub tokens: Vec<TimedToken>,
}

impl Word {
    /// Whether text may part between `before`, the word before this one, and this one: at a space, and between words of
    /// scripts without spaces, but not before punctuation that closes nor after what opens.
    pub fn may_part_from(&self, before: &Word) -> bool {
        !self.joined || Place::between(&before.text, &self.text).may_part()
    }
}

/// Collects the tokens of utterances, whose frames don't decrease within one.
///
/// A word begins at a token with a leading space that isn't punctuation (NeMo `get_words_offsets`), unless it is a space alone
/// before such a mark; in scripts without spaces at a token before which a word ends by [`Place`]; a run of those scripts without
/// such a place is cut before it has more than 16 characters or lasts longer than 1.6 s. Marks of punctuation that no word is
/// before, since that was given out or there is none, are left out. A word is complete when the next one begins, after a pause, or
/// at the end of the utterance. No character is cut, though its bytes may be tokens of their own.
#[derive(Clone, Debug, Default)]
pub struct WordBuilder {
    pending: Vec<TimedToken>,
    /// The last of `pending` that are bytes of a character that is not complete.
    bytes: Vec<u8>,
    /// Characters, as people see them, of `pending` without spaces at the ends of tokens.
    characters: usize,
    /// The last characters of the text so far.
    context: String,
    /// Those of the utterances before.
    previous: String,
    /// Whether a word with a text was given out in this utterance.
    started: bool,
    /// Spaces behind it.
    spaces: usize,
    /// Where the last token ended, `None` before the first.
    end: Option<u64>,
}

impl WordBuilder {
    /// Takes the next token; gives out the word that it ends.
    pub fn push(&mut self, vocabulary: &Vocabulary, token: Token) -> Option<FrameWord> {
        let mut complete = None;
        if begins_word(vocabulary, token.id) && !vocabulary.is_space(token.id) {
            self.give_up_bytes();
            complete = self.take(vocabulary, self.pending.len(), token.frame);
        } else if let Some((at, frame)) = self.space(vocabulary)
            && !vocabulary.is_closing(token.id)
        {
            complete = self.take(vocabulary, at, frame);
        }
        let timed = match self.end {
            Some(end) if token.duration.is_some() && vocabulary.is_punctuation(token.id) => {
                TimedToken { token, start: end, end }
            }
            _ => TimedToken { token, start: token.frame, end: token.end() },
        };
        self.end = Some(timed.end);
        let said = vocabulary.said(token.id);
        if !matches!(said, Said::Byte(_)) {
            self.give_up_bytes();
        }
        self.pending.push(timed);
        let (tokens, text) = match said {
            Said::Nothing => (1, String::new()),
            Said::Text(piece) => (1, piece.replace(SPACE, " ")),
            Said::Byte(byte) => {
                self.bytes.push(byte);
                match self.character() {
                    Some(character) => (character.len_utf8(), character.into()),
                    None => (self.bytes.len(), String::new()),
                }
            }
        };
        // At most one of the two: what begins a word is alone now.
        let at = self.pending.len() - tokens;
        let frame = self.pending.get(at).map_or(token.frame, |next| next.token.frame);
        if self.parts(at, frame, &text) {
            complete = self.take(vocabulary, at, frame);
        }
        self.append(&text);
        complete
    }

    /// Says that `frames` frames of the utterance are decoded; gives out a word that a pause ended.
    pub fn advance(&mut self, vocabulary: &Vocabulary, frames: u64) -> Option<FrameWord> {
        let end = self.pending.last()?.token.end();
        if frames >= end + UNFINISHED {
            self.give_up_bytes();
        }
        let whole = self.whole();
        let next = self.pending.get(whole).map_or(frames, |timed| timed.token.frame);
        if frames >= end + PAUSE { self.take(vocabulary, whole, next) } else { None }
    }

    /// Ends the utterance, or what belongs together in it; gives out the last word.
    pub fn finish(&mut self, vocabulary: &Vocabulary) -> Option<FrameWord> {
        self.give_up_bytes();
        self.take(vocabulary, self.pending.len(), u64::MAX)
    }

    /// Gives out what is known of the word that is being said, of whole characters, when `frames` frames are decoded; what
    /// still comes of it makes another.
    pub fn give(&mut self, vocabulary: &Vocabulary, frames: u64) -> Option<FrameWord> {
        self.take(vocabulary, self.whole(), frames)
    }

    /// Begins another utterance, with frames from 0, after [`WordBuilder::finish`].
    pub fn restart(&mut self) {
        let said = if self.context.is_empty() { &mut self.previous } else { &mut self.context };
        *self = Self { previous: std::mem::take(said), ..Self::default() };
    }

    /// The word not yet given out, as it would be if the utterance ended here; of whole characters.
    pub fn partial(&self, vocabulary: &Vocabulary) -> Option<FrameWord> {
        self.clone().take(vocabulary, self.whole(), u64::MAX)
    }

    /// The first frame that a word not yet given out may start at, when `frames` frames are decoded.
    pub fn horizon(&self, frames: u64) -> u64 {
        self.pending.first().map_or(frames, |first| first.token.frame)
    }

    /// The place and frame of the last pending token if it is a space only, behind which a word begins, or a mark that belongs to
    /// the word before it.
    fn space(&self, vocabulary: &Vocabulary) -> Option<(usize, u64)> {
        let last = self.pending.last().filter(|last| vocabulary.is_space(last.token.id))?;
        Some((self.pending.len() - 1, last.token.frame))
    }

    /// Tokens of `pending` before the bytes of a character that is not complete.
    fn whole(&self) -> usize {
        self.pending.len() - self.bytes.len()
    }

    /// The character that the last byte completes.
    fn character(&mut self) -> Option<char> {
        loop {
            match std::str::from_utf8(&self.bytes) {
                Ok(text) => {
                    let character = text.chars().next()?;
                    self.bytes.clear();
                    return Some(character);
                }
                Err(error) => {
                    let wrong = error.error_len()?;
                    self.bytes.drain(..wrong);
                    self.append(&String::from(char::REPLACEMENT_CHARACTER).repeat(wrong));
                }
            }
        }
    }

    /// Takes bytes without the rest of their character for what they are.
    fn give_up_bytes(&mut self) {
        let wrong = std::mem::take(&mut self.bytes).len();
        self.append(&String::from(char::REPLACEMENT_CHARACTER).repeat(wrong));
    }

    /// Whether a word ends before the pending token `at`, which is at `frame` and adds `text`.
    fn parts(&self, at: usize, frame: u64, text: &str) -> bool {
        if self.characters == 0 || at >= 2 * MOST_TOKENS {
            return at >= MOST_TOKENS;
        }
        match Place::between(&self.context, text) {
            Place::Boundary => true,
            Place::Run => {
                self.characters + text.graphemes(true).count() > MOST_CHARACTERS
                    || frame.saturating_sub(self.horizon(frame)) >= MOST_FRAMES
            }
            Place::Word => at >= MOST_TOKENS,
            // Marks without end on one letter.
            Place::Character => false,
        }
    }

    fn append(&mut self, text: &str) {
        if text.is_empty() {
            return;
        }
        self.characters += text.trim().graphemes(true).count();
        self.context.push_str(text);
        let cut = self.context.len() - last_chars(&self.context).len();
        self.context.drain(..cut);
    }

    /// The first `count` pending tokens as a word; what comes after it starts at frame `next` or later.
    fn take(&mut self, vocabulary: &Vocabulary, count: usize, next: u64) -> Option<FrameWord> {
        let mut tokens: Vec<TimedToken> = self.pending.drain(..count).collect();
        self.characters = 0;
        let is_space = |timed: &TimedToken| vocabulary.is_space(timed.token.id);
        if tokens.iter().all(|timed| is_space(timed) || vocabulary.is_closing(timed.token.id)) {
            tokens.retain(is_space);
        }
        let (first, last) = (tokens.first()?, tokens.last()?);
        let start = first.token.frame;
        let end = last.end.max(start + 1).min(next.max(start));
        let next = Some(next).filter(|next| *next != u64::MAX);
        let ids: Vec<u32> = tokens.iter().map(|timed| timed.token.id).collect();
        let confidence = tokens.iter().map(|timed| timed.token.confidence).fold(1.0, f32::min);
        let (before, text, after) = vocabulary.decode_on(&ids, self.spaces);
        let joined = if self.started { before == 0 } else { runs_on(&self.previous, &text) };
        if text.is_empty() {
            self.spaces = before;
        } else {
            self.spaces = after;
            self.started = true;
        }
        Some(FrameWord { text, start, end, next, confidence, joined, tokens })
    }
}

fn begins_word(vocabulary: &Vocabulary, id: u32) -> bool {
    vocabulary.starts_word(id) && !vocabulary.is_punctuation(id)
}

#[cfg(test)]
impl Word {
    /// Said from one sample to another, without tokens.
    pub(super) fn of(text: &str, start: u64, end: u64) -> Self {
        let tokens = Vec::new();
        Self { text: text.into(), start, end, until: end, confidence: 1.0, heard: 0, joined: false, tokens }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::vocabulary::PieceKind;

    fn vocabulary() -> Vocabulary {
        let pieces = ["\u{2581}he", "\u{2581}was", "n", "'", "t", ".", "\u{2581}", "\u{2581}."];
        Vocabulary::new(pieces.iter().map(|piece| (piece.to_string(), PieceKind::Normal)).collect())
    }

    fn token(id: u32, frame: u64, duration: u32, confidence: f32) -> Token {
        Token {
            id,
            frame,
            duration: Some(duration),
            log_prob: -0.5,
            confidence,
            margin: 1.0,
            duration_margin: 1.0,
        }
    }

    /// The texts of the words that tokens make, one a frame.
    fn said(vocabulary: &Vocabulary, ids: &[u32]) -> Vec<String> {
        let mut builder = WordBuilder::default();
        let words =
            ids.iter().zip(4..).filter_map(|(id, frame)| builder.push(vocabulary, token(*id, frame, 1, 1.0)));
        let mut words: Vec<String> = words.map(|word| word.text).collect();
        words.extend(builder.finish(vocabulary).map(|word| word.text));
        words.retain(|text| !text.is_empty());
        words
    }

    #[test]
    fn words_come_when_the_next_begins() {
        let vocabulary = vocabulary();
        let mut builder = WordBuilder::default();
        assert_eq!(builder.push(&vocabulary, token(0, 3, 2, 0.9)), None);
        assert_eq!(builder.horizon(6), 3);
        let he = builder.push(&vocabulary, token(1, 6, 1, 0.8)).expect("the second word began");
        assert_eq!((he.text.as_str(), he.start, he.end), ("he", 3, 5));
        for (id, frame) in [(2, 7), (3, 8), (4, 8)] {
            assert_eq!(builder.push(&vocabulary, token(id, frame, 1, 0.4)), None);
        }
        assert_eq!(builder.push(&vocabulary, token(5, 12, 4, 0.6)), None, "punctuation ends nothing");
        let wasnt = builder.finish(&vocabulary).expect("one word is pending");
        assert_eq!((wasnt.text.as_str(), wasnt.start, wasnt.end), ("wasn't.", 6, 9));
        assert_eq!(wasnt.confidence, 0.4);
        assert_eq!((wasnt.tokens.len(), wasnt.joined), (5, false));
        let times: Vec<_> = wasnt.tokens.iter().map(|timed| (timed.start, timed.end)).collect();
        assert_eq!(
            times,
            [(6, 7), (7, 8), (8, 8), (8, 9), (9, 9)],
            "marks stand where the token before ends"
        );
        assert_eq!(builder.finish(&vocabulary), None);
        assert_eq!(builder.horizon(20), 20);
    }

    #[test]
    fn a_pause_ends_a_word_and_a_late_mark_goes() {
        let vocabulary = vocabulary();
        let mut builder = WordBuilder::default();
        builder.push(&vocabulary, token(0, 3, 2, 1.0));
        assert_eq!(builder.advance(&vocabulary, 14), None);
        assert_eq!(builder.advance(&vocabulary, 15).map(|word| word.text), Some("he".into()));
        assert_eq!(builder.push(&vocabulary, token(5, 30, 1, 1.0)), None);
        assert_eq!(builder.finish(&vocabulary), None, "its word is out");
        builder.push(&vocabulary, token(0, 33, 2, 1.0));
        assert_eq!(builder.advance(&vocabulary, 40), None);
        builder.push(&vocabulary, token(7, 44, 1, 1.0));
        assert_eq!(builder.finish(&vocabulary).map(|word| word.text), Some("he.".into()), "its word isn't");
    }

    #[test]
    fn a_mark_that_begins_the_utterance_goes_unless_it_opens() {
        let pieces = ["\u{2581}he", ".", "x\u{bf}\u{ab}", "\u{bf}", "\u{ab}", "\u{2581}"];
        let pieces = pieces.map(|piece| (piece.to_string(), PieceKind::Normal));
        let vocabulary = Vocabulary::new(pieces.into());
        let said = |ids: &[u32]| said(&vocabulary, ids);
        assert_eq!(said(&[1, 0]), ["he"]);
        assert_eq!(said(&[1, 1]), [""; 0]);
        assert_eq!(said(&[3, 0, 1]).concat(), "\u{bf}he.");
        assert_eq!(said(&[4, 0]).concat(), "\u{ab}he");
        assert_eq!(said(&[5, 1, 0]), ["he"], "a space before it makes no word of it");
    }

    #[test]
    fn a_mark_behind_a_space_belongs_to_the_word_before() {
        let vocabulary = vocabulary();
        let said = |ids: &[u32]| said(&vocabulary, ids);
        assert_eq!(said(&[0, 6, 5, 1]), ["he.", "was"]);
        assert_eq!(said(&[0, 6, 2, 1]), ["he", "n", "was"], "a space alone begins a word");
        assert_eq!(said(&[0, 6, 6, 2]), ["he", "n"]);
    }

    #[test]
    fn tokens_of_rnnt_last_a_frame_and_its_marks_are_not_refined() {
        let vocabulary = vocabulary();
        let mut builder = WordBuilder::default();
        let rnnt = |id, frame| Token { duration: None, ..token(id, frame, 0, 1.0) };
        builder.push(&vocabulary, rnnt(0, 3));
        builder.push(&vocabulary, rnnt(5, 6));
        let he = builder.push(&vocabulary, rnnt(1, 6)).expect("the second word began");
        assert_eq!((he.text.as_str(), he.start, he.end), ("he.", 3, 6), "it ends where the next starts");
        let times: Vec<_> = he.tokens.iter().map(|timed| (timed.start, timed.end)).collect();
        assert_eq!(times, [(3, 4), (6, 7)]);
        let was = builder.push(&vocabulary, rnnt(0, 6)).expect("the third word began");
        assert_eq!((was.start, was.end), (6, 6), "two words of one frame");
        assert_eq!(builder.finish(&vocabulary).map(|word| (word.start, word.end)), Some((6, 7)));
    }

    proptest! {
        /// Whatever the tokens of an utterance, its words are monotone, overlap nowhere and keep the tokens, and what was
        /// said of the words to come holds.
        #[test]
        fn words_follow_each_other(
            steps in prop::collection::vec(
                (0..8_u32, 0..4_u64, prop::option::of(0..40_u32), prop::option::of(0..30_u64)),
                0..60,
            )
        ) {
            let vocabulary = vocabulary();
            let (mut builder, mut words) = (WordBuilder::default(), Vec::new());
            let (mut frame, mut horizon) = (0, 0);
            for &(id, step, duration, pause) in &steps {
                frame += step;
                words.extend(builder.push(&vocabulary, Token { duration, ..token(id, frame, 0, 1.0) }));
                prop_assert!(builder.horizon(frame) >= horizon);
                if let Some(pause) = pause {
                    // Frames up to this one are decoded: the next token is at it or later.
                    frame += 1 + pause;
                    words.extend(builder.advance(&vocabulary, frame));
                    horizon = builder.horizon(frame);
                }
            }
            words.extend(builder.finish(&vocabulary));
            for pair in words.windows(2) {
                let [word, next] = pair else { unreachable!("windows of two") };
                prop_assert!(word.start <= word.end && word.end <= next.start, "{:?}", pair);
                prop_assert!(word.end > word.start || next.start == word.start, "{:?}", pair);
            }
            prop_assert!(words.last().is_none_or(|word| word.end > word.start));
            let tokens: Vec<_> = words.iter().flat_map(|word| &word.tokens).collect();
            prop_assert!(tokens.iter().all(|timed| timed.start <= timed.end));
            // All but marks that no word is before.
            let mut kept = tokens.iter().map(|timed| timed.token.id).peekable();
            for id in steps.iter().map(|step| step.0) {
                prop_assert!(kept.next_if_eq(&id).is_some() || [3, 5, 7].contains(&id), "{}", id);
            }
            prop_assert!(kept.next().is_none());
        }
    }
}
