// SPDX-License-Identifier: MPL-2.0
//! Text to pieces, as the model's tokenizer would have them.

use std::collections::HashMap;

use crate::model::script::lacks_spaces;
use crate::model::vocabulary::{SPACE, Vocabulary};

/// Share of the pieces that a tokenizer which merges pairs makes of two others, in percent.
const MERGED: usize = 95;

/// The pieces of a vocabulary by their text.
pub struct Spelling {
    pieces: HashMap<String, u32>,
    bytes: HashMap<u8, u32>,
    /// Letters of the longest piece.
    longest: usize,
    /// Its pieces are not what merging pairs makes.
    whole: bool,
    case: Case,
}

/// Which letters a vocabulary has.
#[derive(Clone, Copy, PartialEq)]
enum Case {
    Both,
    Lower,
    Upper,
}

impl Spelling {
    /// Of a vocabulary whose pieces are in the order of their scores, as SentencePiece has them.
    pub fn new(vocabulary: &Vocabulary) -> Self {
        let (mut pieces, mut bytes) = (HashMap::new(), HashMap::new());
        for id in 0..vocabulary.len() as u32 {
            if let Some(text) = vocabulary.text(id) {
                pieces.entry(text.to_owned()).or_insert(id);
            } else if let Some(byte) = vocabulary.byte(id) {
                bytes.entry(byte).or_insert(id);
            }
        }
        let has = |is: fn(char) -> bool| pieces.keys().any(|piece| piece.contains(is));
        let case = match (has(char::is_uppercase), has(char::is_lowercase)) {
            (true, false) => Case::Upper,
            (false, true) => Case::Lower,
            _ => Case::Both,
        };
        let longest = pieces.keys().map(|piece| piece.chars().count()).max().unwrap_or(0);
        let mut spelling = Self { pieces, bytes, longest, whole: false, case };
        let long: Vec<_> = spelling.pieces.iter().filter(|(text, _)| text.chars().count() > 1).collect();
        let merged = long.iter().filter(|(text, id)| spelling.is_merged(text, **id)).count();
        spelling.whole = merged * 100 < long.len() * MERGED;
        spelling
    }

    /// Whether a piece is two that come before it, or letters.
    fn is_merged(&self, text: &str, id: u32) -> bool {
        let before =
            |part: &str| part.chars().count() == 1 || self.pieces.get(part).is_some_and(|&other| other < id);
        text.char_indices().skip(1).any(|(at, _)| before(&text[..at]) && before(&text[at..]))
    }

    /// The ways in which a phrase may be said: as it is written and with a capital first letter; where the vocabulary has no
    /// capitals, or nothing else, the case is its. None if it has no letters, or where the pieces don't do.
    pub fn ways(&self, phrase: &str) -> Vec<Vec<u32>> {
        let text = phrase.split_whitespace().collect::<Vec<_>>().join(SPACE.encode_utf8(&mut [0; 4]));
        let text = match self.case {
            Case::Both => text,
            Case::Lower => text.to_lowercase(),
            Case::Upper => text.to_uppercase(),
        };
        let Some(first) = text.chars().next() else { return Vec::new() };
        let mut texts = vec![text.clone()];
        if self.case == Case::Both && first.is_lowercase() {
            texts.push(first.to_uppercase().chain(text.chars().skip(1)).collect());
        }
        let mut ways = Vec::new();
        for text in texts {
            let spaced = format!("{SPACE}{text}");
            let bare = lacks_spaces(first).then_some(text);
            for text in [Some(spaced), bare].into_iter().flatten() {
                ways.extend(self.merge(&text));
                ways.extend(self.whole.then(|| self.fewest(&text)).flatten());
            }
        }
        ways.sort_unstable();
        ways.dedup();
        ways
    }

    /// Merges the pair whose piece comes first in the vocabulary until no two neighbours are one (SentencePiece's BPE).
    fn merge(&self, text: &str) -> Option<Vec<u32>> {
        let mut parts: Vec<&str> = text.char_indices().map(|(at, c)| &text[at..at + c.len_utf8()]).collect();
        // Where each begins.
        let mut starts: Vec<usize> = text.char_indices().map(|(at, _)| at).collect();
        loop {
            let pair = |index: usize| {
                &text[starts[index]..starts[index] + parts[index].len() + parts[index + 1].len()]
            };
            let found = (0..parts.len().saturating_sub(1))
                .filter_map(|index| self.pieces.get(pair(index)).map(|&id| (id, index)));
            let Some((_, index)) = found.min() else { break };
            parts[index] = pair(index);
            parts.remove(index + 1);
            starts.remove(index + 1);
        }
        self.ids(&parts)
    }

    /// The fewest pieces, the first of them as long as possible.
    fn fewest(&self, text: &str) -> Option<Vec<u32>> {
        let ends: Vec<usize> = text.char_indices().map(|(at, _)| at).chain([text.len()]).collect();
        // From each letter to the end: how many, and where the first of them ends.
        let mut best: Vec<Option<(usize, usize)>> = vec![None; ends.len()];
        *best.last_mut()? = Some((0, 0));
        for from in (0..ends.len() - 1).rev() {
            let most = (from + self.longest.max(1)).min(ends.len() - 1);
            let found = (from + 1..=most).rev().filter_map(|to| {
                let part = &text[ends[from]..ends[to]];
                let known = to == from + 1 || self.pieces.contains_key(part);
                best[to].filter(|_| known).map(|(count, _)| (count + 1, to))
            });
            best[from] = found.min_by_key(|&(count, _)| count);
        }
        let (mut parts, mut at) = (Vec::new(), 0);
        while at + 1 < ends.len() {
            let (_, to) = best[at]?;
            parts.push(&text[ends[at]..ends[to]]);
            at = to;
        }
        self.ids(&parts)
    }

    /// The pieces of these texts, of a letter without one its bytes'.
    fn ids(&self, parts: &[&str]) -> Option<Vec<u32>> {
        let mut ids = Vec::new();
        for &part in parts {
            match self.pieces.get(part) {
                Some(&id) => ids.push(id),
                None => {
                    for byte in part.bytes() {
                        ids.push(*self.bytes.get(&byte)?);
                    }
                }
            }
        }
        Some(ids)
    }
}
