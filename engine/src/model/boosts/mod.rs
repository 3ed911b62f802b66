// SPDX-License-Identifier: MPL-2.0
//! Phrases that a stream is to hear rather than what sounds like them: contextual biasing inside greedy decoding, after NeMo's
//! phrase boosting (`context_biasing/boosting_graph_batched.py`) with its rule that blank stays blank.

mod list;
mod spelling;
#[cfg(test)]
mod tests;
mod tree;

use std::fmt;

use super::vocabulary::Vocabulary;
use crate::error::{Error, Result};
use spelling::Spelling;
use tree::Way;

/// Most phrases.
const MOST_PHRASES: usize = 10_000;

/// Most bytes of a phrase.
const MOST_BYTES: usize = 256;

/// Most arcs of the automaton: 12 MB.
const MOST_ARCS: usize = 1 << 20;

/// Largest boost, and the most that is added to a logit however much of a phrase is said. Where twice as much is added, the model
/// comes to hear a text so unlike anything that it was trained on that it takes silence for speech.
const MOST_BOOST: f32 = 10.0;

/// Phrases and how much rather each is heard, as an automaton over a model's pieces.
///
/// Whether something is said at a frame is the model's decision alone, and so is how long it lasts; and a phrase begins only with a
/// piece that the model finds no less likely than that there is none: none comes out of silence. Which piece is said is decided by
/// its logit and what the phrases add to that: for the first piece of a phrase half its boost, for each piece with which the text
/// goes on in it the boost and what was added for the piece before; for one that is the last of its phrase the boost at
/// least, and never more than 10. Where the text leaves a phrase nothing is added; a phrase that is said is said for good, and
/// what comes behind it begins anew. Of several phrases the one that adds the most counts.
///
/// A phrase is looked for in the pieces that the model's tokenizer makes of it, which is how models that were trained with that
/// tokenizer spell it.
#[derive(Clone, PartialEq)]
pub struct Boosts {
    /// Of the pieces that it was made for.
    fingerprint: u64,
    phrases: usize,
    tables: Tables,
}

// No boost is NaN.
impl Eq for Boosts {}

impl fmt::Debug for Boosts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Boosts").field("phrases", &self.phrases).field("bytes", &self.bytes()).finish()
    }
}

/// The automaton as numbers.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Tables {
    /// For each piece, what is added to its logit and the state after it where nothing better is known.
    pub root: Vec<(f32, u32)>,
    /// Where the arcs of each state begin, and at last where they end; the first state has none.
    pub first: Vec<u32>,
    /// Of each state in the order of their pieces. None adds less than the root does for its piece.
    pub arcs: Vec<Arc>,
}

/// What taking a piece does.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Arc {
    pub piece: u32,
    /// Added to the piece's logit.
    pub boost: f32,
    /// The state after it.
    pub next: u32,
}

/// What is added for a piece with which so many pieces of a phrase are said, in boosts of the phrase: what the others have gained is
/// lost where the text leaves it. The first piece counts half, as it tells least.
fn weight(pieces: usize, whole: bool) -> f32 {
    let weight = pieces as f32 - 0.5;
    if whole { weight.max(1.0) } else { weight }
}

impl Boosts {
    /// What a phrase is boosted by if nothing else is said.
    pub const DEFAULT: f32 = 2.0;

    /// Phrases, each with its boost, for a model of this vocabulary. A phrase is heard as it is written and with a capital first
    /// letter; where the vocabulary has no capitals, or nothing else, the case is its.
    ///
    /// Fails, naming the phrase, if one is empty, too long or can't be written with the model's pieces, if a boost isn't between
    /// 0 and 10, and if there are more than 10,000 phrases or these have too much in common.
    pub fn new<'a>(
        vocabulary: &Vocabulary,
        phrases: impl IntoIterator<Item = (&'a str, f32)>,
    ) -> Result<Self> {
        let spelling = Spelling::new(vocabulary);
        let (mut ways, mut count) = (Vec::new(), 0);
        for (phrase, boost) in phrases {
            count += 1;
            if count > MOST_PHRASES {
                return Err(refused(format!("there are more than {MOST_PHRASES} phrases")));
            }
            if !(0.0..=MOST_BOOST).contains(&boost) {
                return Err(refused(format!(
                    "the boost of {phrase:?} is {boost}, expected 0 to {MOST_BOOST}"
                )));
            }
            if phrase.len() > MOST_BYTES {
                let reason = format!("{phrase:?} has {} bytes, {MOST_BYTES} are the most", phrase.len());
                return Err(refused(reason));
            }
            if phrase.trim().is_empty() {
                return Err(refused(format!("{phrase:?} is no phrase")));
            }
            let first = ways.len();
            ways.extend(spelling.ways(phrase).into_iter().map(|pieces| Way { pieces, boost }));
            if ways.len() == first {
                return Err(refused(format!("{phrase:?} can't be written with the model's pieces")));
            }
        }
        Self::compile(vocabulary, &ways, count, MOST_BOOST)
    }

    /// Of `phrases` phrases that are written in these ways and add `most` at most.
    fn compile(vocabulary: &Vocabulary, ways: &[Way], phrases: usize, most: f32) -> Result<Self> {
        let starts_word = |piece| vocabulary.starts_word(piece);
        let most = tree::Most { arcs: MOST_ARCS, added: most };
        let tables = tree::compile(ways, vocabulary.len(), starts_word, most).ok_or_else(|| {
            let reason =
                format!("{phrases} phrases make more than {MOST_ARCS} arcs; take fewer or shorter ones");
            refused(reason)
        })?;
        Ok(Self { fingerprint: vocabulary.fingerprint(), phrases, tables })
    }

    /// Phrases of these pieces, which may add anything.
    #[cfg(test)]
    pub(crate) fn of_pieces(vocabulary: &Vocabulary, phrases: &[(&[u32], f32)]) -> Result<Self> {
        let ways = phrases.iter().map(|&(pieces, boost)| Way { pieces: pieces.to_vec(), boost });
        Self::compile(vocabulary, &ways.collect::<Vec<_>>(), phrases.len(), f32::INFINITY)
    }

    /// How many phrases there are.
    pub fn len(&self) -> usize {
        self.phrases
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.phrases == 0
    }

    /// Bytes that a device holds of it, once for all streams that have it.
    pub fn bytes(&self) -> usize {
        let Tables { root, first, arcs } = &self.tables;
        size_of_val(&root[..]) + size_of_val(&first[..]) + size_of_val(&arcs[..])
    }

    /// Fails if it was made for other pieces.
    pub(crate) fn check(&self, vocabulary: &Vocabulary) -> Result<()> {
        match self.fingerprint == vocabulary.fingerprint() {
            true => Ok(()),
            false => Err(refused("it was made for a model with other pieces".into())),
        }
    }

    pub(crate) fn tables(&self) -> &Tables {
        &self.tables
    }

    /// The piece that is said in `state`, and the state after it, by `logits` of all pieces and blank, of which blank's is not the
    /// largest: the first of the largest sums, where pieces that are less likely than blank count only if a phrase goes on with
    /// them.
    pub(crate) fn choose(&self, state: u32, logits: &[f32]) -> (usize, u32) {
        let Tables { root, .. } = &self.tables;
        let blank = logits[root.len()];
        let (mut best, mut most, mut next) = (0, f32::NEG_INFINITY, 0);
        for (piece, (&logit, &(boost, after))) in logits.iter().zip(root).enumerate() {
            if logit >= blank && logit + boost > most {
                (best, most, next) = (piece, logit + boost, after);
            }
        }
        for arc in self.arcs(state) {
            let (piece, logit) = (arc.piece as usize, logits[arc.piece as usize]);
            let sum = logit + arc.boost;
            if sum > most || (sum == most && piece <= best) {
                (best, most, next) = (piece, sum, arc.next);
            }
        }
        (best, next)
    }

    fn arcs(&self, state: u32) -> &[Arc] {
        let Tables { first, arcs, .. } = &self.tables;
        &arcs[first[state as usize] as usize..first[state as usize + 1] as usize]
    }
}

fn refused(reason: String) -> Error {
    Error::Option { option: "vocabulary", reason }
}
