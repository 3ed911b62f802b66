// SPDX-License-Identifier: MPL-2.0
//! `tokenizer.json` of Hugging Face tokenizers to a [`Vocabulary`]: BPE and Unigram models made from SentencePiece.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::model::vocabulary::{PieceKind, Vocabulary, byte_of};

#[derive(Deserialize)]
struct Tokenizer {
    model: TokenizerModel,
    #[serde(default)]
    added_tokens: Vec<Added>,
}

#[derive(Deserialize)]
#[serde(tag = "type")]
enum TokenizerModel {
    #[serde(rename = "BPE")]
    Bpe {
        vocab: BTreeMap<String, usize>,
        unk_token: Option<String>,
        #[serde(default)]
        byte_fallback: bool,
    },
    Unigram {
        vocab: Vec<(String, f64)>,
        unk_id: Option<usize>,
        #[serde(default)]
        byte_fallback: bool,
    },
}

#[derive(Deserialize)]
struct Added {
    id: usize,
    content: String,
    #[serde(default)]
    special: bool,
}

/// The first `pieces` pieces; blank and what else was added behind them is left out. The error is a reason.
pub fn read(json: &[u8], pieces: usize) -> Result<Vocabulary, String> {
    let tokenizer: Tokenizer =
        serde_json::from_slice(json).map_err(|e| format!("not a BPE or Unigram tokenizer: {e}"))?;
    let (listed, unknown, bytes) = match tokenizer.model {
        TokenizerModel::Bpe { vocab, unk_token, byte_fallback } => {
            let listed: Vec<_> = vocab.into_iter().map(|(piece, id)| (id, piece)).collect();
            (listed, unk_token, byte_fallback)
        }
        TokenizerModel::Unigram { vocab, unk_id, byte_fallback } => {
            let unknown = unk_id.and_then(|id| vocab.get(id)).map(|(piece, _)| piece.clone());
            let listed = vocab.into_iter().enumerate().map(|(id, (piece, _))| (id, piece)).collect();
            (listed, unknown, byte_fallback)
        }
    };
    let mut by_id = BTreeMap::new();
    for (id, piece) in listed {
        if id >= pieces {
            continue;
        }
        let kind = match byte_of(&piece).filter(|_| bytes) {
            _ if unknown.as_ref() == Some(&piece) => PieceKind::Unknown,
            Some(byte) => PieceKind::Byte(byte),
            None => PieceKind::Normal,
        };
        if let Some((other, _)) = by_id.insert(id, (piece.clone(), kind)) {
            return Err(format!("pieces {other:?} and {piece:?} share the id {id}"));
        }
    }
    for Added { id, content, special } in tokenizer.added_tokens {
        if id >= pieces {
            continue;
        }
        let kind = match by_id.get(&id) {
            Some((piece, _)) if *piece != content => {
                return Err(format!("pieces {piece:?} and {content:?} share the id {id}"));
            }
            Some((_, PieceKind::Unknown)) => PieceKind::Unknown,
            _ if special => PieceKind::Control,
            _ => PieceKind::UserDefined,
        };
        by_id.insert(id, (content, kind));
    }
    let ids = 0..by_id.len();
    if let Some(hole) = ids.zip(by_id.keys()).find_map(|(id, key)| (id != *key).then_some(id)) {
        return Err(format!("there is no piece with the id {hole}"));
    }
    Ok(Vocabulary::new(by_id.into_values().collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn added(id: usize, content: &str, special: bool) -> String {
        format!(r#"{{"id": {id}, "content": "{content}", "special": {special}, "lstrip": false}}"#)
    }

    fn tokenizer(model: &str, added: &[String]) -> String {
        format!(r#"{{"version": "1.0", "added_tokens": [{}], "model": {model}}}"#, added.join(","))
    }

    const BPE: &str = r#"{"type": "BPE", "unk_token": "<unk>", "byte_fallback": true, "merges": [],
        "vocab": {"<unk>": 0, "\u2581a": 1, "<0x41>": 2, "<pad>": 3, "<EOU>": 4, "b": 5}}"#;

    fn kinds(vocabulary: &Vocabulary) -> Vec<PieceKind> {
        (0..vocabulary.len() as u32).filter_map(|id| vocabulary.kind(id)).collect()
    }

    #[test]
    fn pieces_keep_their_ids_and_kinds() {
        let added = [
            added(0, "<unk>", true),
            added(3, "<pad>", true),
            added(4, "<EOU>", false),
            added(6, "<blank>", true),
        ];
        let vocabulary = read(tokenizer(BPE, &added).as_bytes(), 6).unwrap();
        let expected = [
            PieceKind::Unknown,
            PieceKind::Normal,
            PieceKind::Byte(0x41),
            PieceKind::Control,
            PieceKind::UserDefined,
            PieceKind::Normal,
        ];
        assert_eq!(kinds(&vocabulary), expected);
        assert_eq!(vocabulary.piece(1), Some("\u{2581}a"));
        assert_eq!(vocabulary.decode(&[1, 2, 3, 5]), "aAb");
        let unigram =
            r#"{"type": "Unigram", "unk_id": 1, "vocab": [["\u2581a", -1.5], ["<unk>", 0], ["<0x41>", 0]]}"#;
        let vocabulary = read(tokenizer(unigram, &[]).as_bytes(), 3).unwrap();
        assert_eq!(kinds(&vocabulary), [PieceKind::Normal, PieceKind::Unknown, PieceKind::Normal]);
    }

    #[test]
    fn what_is_no_vocabulary_is_refused() {
        let error = |text: String, pieces| read(text.as_bytes(), pieces).unwrap_err();
        let wordpiece = r#"{"type": "WordPiece", "vocab": {}}"#;
        assert!(error(tokenizer(wordpiece, &[]), 1).contains("not a BPE or Unigram tokenizer"));
        let twice = r#"{"type": "BPE", "unk_token": null, "vocab": {"a": 0, "b": 0}}"#;
        assert!(error(tokenizer(twice, &[]), 2).contains("\"a\" and \"b\" share the id 0"));
        let hole = r#"{"type": "BPE", "unk_token": null, "vocab": {"a": 0, "b": 2}}"#;
        assert!(error(tokenizer(hole, &[]), 3).contains("no piece with the id 1"));
        assert!(error(tokenizer(BPE, &[added(5, "c", false)]), 6).contains("\"b\" and \"c\" share the id 5"));
        assert_eq!(read(tokenizer(BPE, &[]).as_bytes(), 9).unwrap().len(), 6);
    }
}
