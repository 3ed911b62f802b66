// SPDX-License-Identifier: MPL-2.0
//! `tokens.txt`: the pieces of the vocabulary, and text from token ids as NeMo makes it.

use std::collections::{HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;

use unicode_properties::{GeneralCategory, GeneralCategoryGroup, UnicodeGeneralCategory};

use crate::{Error, Result};

/// SentencePiece's mark for a space, U+2581.
pub const SPACE: char = '\u{2581}';

/// What SentencePiece, and with it NeMo, writes for the unknown piece: spaces and a mark.
const UNKNOWN: &str = "\u{2581}\u{2047}\u{2581}";

/// Kind of a piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PieceKind {
    /// Text.
    Normal,
    /// Stands for what the vocabulary can't spell.
    Unknown,
    /// Has a meaning, but no text.
    Control,
    /// One byte of UTF-8, written `<0x41>`.
    Byte(u8),
    /// Text that the tokenizer's maker put in by hand.
    UserDefined,
}

/// What a token says that is no text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Signal {
    /// The speaker is done: `<EOU>` of the EOU models.
    EndOfUtterance,
    /// A short answer such as "yeah" is done, the other speaker goes on: `<EOB>`.
    EndOfBackchannel,
    /// The language that is heard, such as `en-US` or `en`: `<en-US>` or `<en>` of models that find out.
    Language(String),
}

/// Tags of tokenizers that look like a language of three letters.
const NO_LANGUAGES: [&str; 8] = ["bos", "cls", "eos", "msk", "pad", "sep", "unk", "usr"];

impl Signal {
    /// The signal that a piece stands for.
    fn of(piece: &str, kind: PieceKind) -> Option<Self> {
        if matches!(kind, PieceKind::Unknown | PieceKind::Byte(_)) {
            return None;
        }
        match tag(piece)? {
            "EOU" => Some(Self::EndOfUtterance),
            "EOB" => Some(Self::EndOfBackchannel),
            name => is_language(name).then(|| Self::Language(name.to_owned())),
        }
    }
}

/// The name of a piece that stands for something other than text: `EOU` of `<EOU>`, `/s` of `</s>`, `|nospeech|`, `0x41`.
fn tag(piece: &str) -> Option<&str> {
    let name = piece.strip_prefix('<')?.strip_suffix('>')?;
    let is_name = name.bytes().all(|b| b.is_ascii_alphanumeric() || b"|/_-:.".contains(&b))
        && name.bytes().any(|b| b.is_ascii_alphanumeric());
    is_name.then_some(name)
}

/// Whether `name` is a language of BCP 47, perhaps with script and region: `de`, `pt-BR`, `es-419`, `zh-Hans-CN`.
fn is_language(name: &str) -> bool {
    let mut parts = name.split('-').peekable();
    let language = parts.next().unwrap_or_default();
    let is_script = |part: &&str| {
        part.len() == 4
            && part.starts_with(|c: char| c.is_ascii_uppercase())
            && part[1..].bytes().all(|b| b.is_ascii_lowercase())
    };
    let is_region = |part: &&str| match part.len() {
        2 => part.bytes().all(|b| b.is_ascii_uppercase()),
        3 => part.bytes().all(|b| b.is_ascii_digit()),
        _ => false,
    };
    parts.next_if(is_script);
    parts.next_if(is_region);
    (2..=3).contains(&language.len())
        && language.bytes().all(|b| b.is_ascii_lowercase())
        && parts.next().is_none()
        && !NO_LANGUAGES.contains(&name)
}

/// What a token adds to the text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Said<'a> {
    /// Nothing, as with control pieces.
    Nothing,
    /// A byte of UTF-8, which may be part of a character.
    Byte(u8),
    /// Text, U+2581 for a space.
    Text(&'a str),
}

/// The vocabulary of a model: a token's id is its index here. Blank is not in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vocabulary {
    pieces: Vec<(String, PieceKind)>,
    punctuation: HashSet<char>,
    signals: HashMap<u32, Signal>,
    fingerprint: u64,
}

impl Vocabulary {
    /// A vocabulary of these pieces, ids counting from 0.
    pub(crate) fn new(pieces: Vec<(String, PieceKind)>) -> Self {
        let punctuation = pieces.iter().flat_map(|(piece, _)| punctuation_of(piece)).collect();
        let signals = (0..)
            .zip(&pieces)
            .filter_map(|(id, (piece, kind))| Some((id, Signal::of(piece, *kind)?)))
            .collect();
        let mut hasher = DefaultHasher::new();
        pieces.hash(&mut hasher);
        Self { pieces, punctuation, signals, fingerprint: hasher.finish() }
    }

    /// Reads `tokens.txt`, which must have `expected` lines: a piece with tab, line feed, carriage return and backslash
    /// escaped, then for a piece that isn't normal a tab and its kind (`unknown`, `control`, `byte`, `user`).
    pub(crate) fn read(path: &Path, expected: usize) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(|e| Error::io(path, e))?;
        let lines: Vec<&str> = text.split_terminator('\n').collect();
        if lines.len() != expected {
            let reason = format!("expected {expected} pieces, one a line, found {}", lines.len());
            return Err(Error::model(path, reason));
        }
        let pieces = lines.iter().enumerate().map(|(id, line)| {
            parse(line).ok_or_else(|| {
                Error::model(path, format!("line {}: not a piece and its kind: {line:?}", id + 1))
            })
        });
        Ok(Self::new(pieces.collect::<Result<_>>()?))
    }

    /// Writes `tokens.txt` as [`Vocabulary::read`] reads it.
    pub(crate) fn write(&self, path: &Path) -> Result<()> {
        let mut text = String::new();
        for (piece, kind) in &self.pieces {
            text.push_str(&escape(piece));
            text.push_str(match kind {
                PieceKind::Normal => "",
                PieceKind::Unknown => "\tunknown",
                PieceKind::Control => "\tcontrol",
                PieceKind::Byte(_) => "\tbyte",
                PieceKind::UserDefined => "\tuser",
            });
            text.push('\n');
        }
        std::fs::write(path, text).map_err(|e| Error::io(path, e))
    }

    /// Number of pieces.
    pub fn len(&self) -> usize {
        self.pieces.len()
    }

    /// Whether there is no piece.
    pub fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// The piece as SentencePiece spells it, a leading space as U+2581; `None` for blank and beyond.
    pub fn piece(&self, id: u32) -> Option<&str> {
        self.get(id).map(|(piece, _)| piece.as_str())
    }

    /// The kind of a piece; `None` for blank and beyond.
    #[cfg(test)]
    pub(crate) fn kind(&self, id: u32) -> Option<PieceKind> {
        self.get(id).map(|&(_, kind)| kind)
    }

    /// What the token says instead of text.
    pub(crate) fn signal(&self, id: u32) -> Option<&Signal> {
        self.signals.get(&id)
    }

    /// What the token adds to the text; blank and beyond add nothing, nor do pieces that are a tag such as `<pad>`.
    pub(crate) fn said(&self, id: u32) -> Said<'_> {
        match self.get(id) {
            Some((_, PieceKind::Byte(byte))) => Said::Byte(*byte),
            Some((_, PieceKind::Unknown)) => Said::Text(UNKNOWN),
            Some((piece, PieceKind::Normal | PieceKind::UserDefined)) if tag(piece).is_none() => {
                Said::Text(piece)
            }
            _ => Said::Nothing,
        }
    }

    /// The text that the token stands for, a space as U+2581; none where it stands for a byte, no text or unknown text.
    pub(crate) fn text(&self, id: u32) -> Option<&str> {
        match self.said(id) {
            Said::Text(text) if text != UNKNOWN && !text.is_empty() => Some(text),
            _ => None,
        }
    }

    /// The byte that the token stands for.
    pub(crate) fn byte(&self, id: u32) -> Option<u8> {
        match self.said(id) {
            Said::Byte(byte) => Some(byte),
            _ => None,
        }
    }

    /// Tells vocabularies apart, inside one process.
    pub(crate) fn fingerprint(&self) -> u64 {
        self.fingerprint
    }

    /// Whether the token begins with a space, and with it a word.
    pub(crate) fn starts_word(&self, id: u32) -> bool {
        self.piece(id).is_some_and(|piece| piece.starts_with(SPACE))
    }

    /// Whether the token is a space and nothing more.
    pub(crate) fn is_space(&self, id: u32) -> bool {
        self.piece(id).is_some_and(|piece| piece.chars().eq([SPACE]))
    }

    /// Whether the token's text is one mark of the vocabulary's punctuation.
    pub(crate) fn is_punctuation(&self, id: u32) -> bool {
        let Some(piece) = self.piece(id) else {
            return false;
        };
        let mut text = piece.strip_prefix(SPACE).unwrap_or(piece).chars();
        text.next().is_some_and(|mark| self.is_punctuation_mark(mark)) && text.next().is_none()
    }

    /// Whether the token is a mark of punctuation that belongs to what is before it.
    pub(crate) fn is_closing(&self, id: u32) -> bool {
        let opens = |mark: char| {
            matches!(
                mark.general_category(),
                GeneralCategory::OpenPunctuation | GeneralCategory::InitialPunctuation
            ) || matches!(mark, '\u{bf}' | '\u{a1}')
        };
        self.is_punctuation(id) && !self.piece(id).is_some_and(|piece| piece.contains(opens))
    }

    /// Whether NeMo takes `mark` for punctuation with this vocabulary: it is in Unicode's category P and in a piece that
    /// neither begins with U+2581 or `##` nor stands in `<>` or `[]` (NeMo `extract_punctuation_from_vocab`).
    fn is_punctuation_mark(&self, mark: char) -> bool {
        self.punctuation.contains(&mark)
    }

    /// The text of these tokens: SentencePiece's decoding, then NeMo's rule that one space before a mark of punctuation
    /// goes. Blank, ids beyond the vocabulary and tags such as `<pad>` have no text. Spaces that pieces begin with are
    /// stripped until there is text; SentencePiece strips only the first one where a tokenizer was built to keep extra
    /// spaces.
    pub fn decode(&self, ids: &[u32]) -> String {
        self.attach_punctuation(&self.decode_pieces(ids, true))
    }

    /// The text of these tokens where others came before them, and how many spaces are before and behind it; a text that
    /// is empty has all of them before it. `spaces` were behind the text before.
    pub(crate) fn decode_on(&self, ids: &[u32], spaces: usize) -> (usize, String, usize) {
        let spaced = self.decode_pieces(ids, false);
        let bare = spaced.trim_start_matches(' ');
        let before = spaces + spaced.len() - bare.len();
        let joined = bare.chars().next().is_some_and(|mark| self.is_punctuation_mark(mark));
        let text = bare.trim_end_matches(' ');
        let before = before.saturating_sub(usize::from(joined));
        (before, self.attach_punctuation(text), bare.len() - text.len())
    }

    fn get(&self, id: u32) -> Option<&(String, PieceKind)> {
        self.pieces.get(usize::try_from(id).ok()?)
    }

    /// SentencePiece's decoding; `strip` takes away what pieces begin with in spaces until there is text.
    fn decode_pieces(&self, ids: &[u32], strip: bool) -> String {
        let mut text = String::new();
        let mut bytes = Vec::new();
        for said in ids.iter().filter(|id| !self.signals.contains_key(id)).map(|&id| self.said(id)) {
            if let Said::Byte(byte) = said {
                bytes.push(byte);
                continue;
            }
            push_utf8(&mut text, &bytes);
            bytes.clear();
            if let Said::Text(piece) = said {
                let strip = strip && text.is_empty() && piece != UNKNOWN;
                let piece = if strip { piece.strip_prefix(SPACE).unwrap_or(piece) } else { piece };
                text.extend(piece.chars().map(|c| if c == SPACE { ' ' } else { c }));
            }
        }
        push_utf8(&mut text, &bytes);
        text
    }

    fn attach_punctuation(&self, text: &str) -> String {
        let mut attached = String::with_capacity(text.len());
        let mut chars = text.chars().peekable();
        while let Some(c) = chars.next() {
            match chars.next_if(|&next| c.is_whitespace() && self.is_punctuation_mark(next)) {
                Some(mark) => attached.push(mark),
                None => attached.push(c),
            }
        }
        attached
    }
}

/// Appends bytes as UTF-8, one U+FFFD for each byte that is in no character, as SentencePiece does.
fn push_utf8(text: &mut String, bytes: &[u8]) {
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        text.extend(chunk.invalid().iter().map(|_| char::REPLACEMENT_CHARACTER));
    }
}

fn punctuation_of(piece: &str) -> impl Iterator<Item = char> {
    let enclosed = |open, close| piece.len() >= 2 && piece.starts_with(open) && piece.ends_with(close);
    let special =
        enclosed('[', ']') || enclosed('<', '>') || piece.starts_with("##") || piece.starts_with(SPACE);
    let is_mark = |c: &char| c.general_category_group() == GeneralCategoryGroup::Punctuation;
    piece.chars().filter(move |c| !special && is_mark(c))
}

fn escape(piece: &str) -> String {
    piece.replace('\\', "\\\\").replace('\n', "\\n").replace('\r', "\\r").replace('\t', "\\t")
}

fn unescape(text: &str) -> Option<String> {
    let mut piece = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        piece.push(match c {
            '\\' => match chars.next()? {
                '\\' => '\\',
                'n' => '\n',
                'r' => '\r',
                't' => '\t',
                _ => return None,
            },
            c => c,
        });
    }
    Some(piece)
}

fn parse(line: &str) -> Option<(String, PieceKind)> {
    let (text, kind) = match line.split_once('\t') {
        Some((text, kind)) => (text, kind),
        None => (line, "normal"),
    };
    let piece = unescape(text)?;
    let kind = match kind {
        "normal" => PieceKind::Normal,
        "unknown" => PieceKind::Unknown,
        "control" => PieceKind::Control,
        "byte" => PieceKind::Byte(byte_of(&piece)?),
        "user" => PieceKind::UserDefined,
        _ => return None,
    };
    Some((piece, kind))
}

/// The byte that a piece like `<0x41>` stands for.
pub(crate) fn byte_of(piece: &str) -> Option<u8> {
    let digits = piece.strip_prefix("<0x")?.strip_suffix('>')?;
    let plain = digits.len() == 2 && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    plain.then(|| u8::from_str_radix(digits, 16).ok()).flatten()
}

#[cfg(test)]
impl Vocabulary {
    /// Of these pieces; bytes as `<0xE4>`, `<unk>` the unknown piece.
    pub(crate) fn of(pieces: &[&str]) -> Self {
        let kind = |piece: &str| match byte_of(piece) {
            Some(byte) => PieceKind::Byte(byte),
            None if piece == "<unk>" => PieceKind::Unknown,
            None => PieceKind::Normal,
        };
        Self::new(pieces.iter().map(|piece| (piece.to_string(), kind(piece))).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vocabulary() -> Vocabulary {
        let normal = |piece: &str| (piece.to_owned(), PieceKind::Normal);
        let byte = |byte| (format!("<0x{byte:02X}>"), PieceKind::Byte(byte));
        Vocabulary::new(vec![
            ("<unk>".into(), PieceKind::Unknown),
            normal("\u{2581}he"),
            normal("llo"),
            normal("\u{2581}"),
            normal(","),
            normal("\u{2581}?"),
            normal("\u{2581}\u{2581}x"),
            ("<s>".into(), PieceKind::Control),
            byte(0xC3),
            byte(0xA9),
            byte(0xE2),
            ("<sep>".into(), PieceKind::UserDefined),
            normal("a\nb\\n\tc\r"),
            normal("!"),
            normal("byte"),
        ])
    }

    fn round_trip(vocabulary: &Vocabulary) -> (String, Result<Vocabulary>) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tokens.txt");
        vocabulary.write(&path).unwrap();
        (std::fs::read_to_string(&path).unwrap(), Vocabulary::read(&path, vocabulary.len()))
    }

    #[test]
    fn tokens_txt_keeps_every_piece_and_kind() {
        let vocabulary = vocabulary();
        let (text, read) = round_trip(&vocabulary);
        assert_eq!(read.unwrap(), vocabulary);
        assert!(text.starts_with("<unk>\tunknown\n\u{2581}he\nllo\n"), "{text}");
        assert!(text.contains("\n<s>\tcontrol\n<0xC3>\tbyte\n"), "{text}");
        assert!(text.contains("\n<sep>\tuser\na\\nb\\\\n\\tc\\r\n!\nbyte\n"), "{text}");
    }

    #[test]
    fn a_wrong_number_of_pieces_or_a_broken_line_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tokens.txt");
        let read = |text: &str, expected| {
            std::fs::write(&path, text).unwrap();
            Vocabulary::read(&path, expected)
        };
        assert!(read("a\n\nb\n", 3).is_ok());
        assert!(
            read("a\nb\n", 3).unwrap_err().to_string().contains("expected 3 pieces, one a line, found 2")
        );
        for line in ["a\tnoun", "a\\", "a\\x", "<0x4>\tbyte", "<0x+4>\tbyte", "a\tunknown\t"] {
            let error = read(&format!("a\n{line}\n"), 2).unwrap_err().to_string();
            assert!(error.contains("line 2"), "{error}");
        }
    }

    #[test]
    fn decoding_follows_sentencepiece() {
        let decode = |ids: &[u32]| vocabulary().decode_pieces(ids, true);
        assert_eq!(decode(&[]), "");
        assert_eq!(decode(&[1, 2, 3, 2]), "hello llo");
        assert_eq!(decode(&[3, 1]), "he", "spaces are stripped until there is text");
        assert_eq!(decode(&[6, 6]), " x  x", "one space a piece");
        assert_eq!(decode(&[0, 1]), " \u{2047}  he");
        assert_eq!(decode(&[7, 1, 7, 2]), "hello");
        assert_eq!(decode(&[8, 9, 1]), "\u{e9} he");
        assert_eq!(decode(&[10, 8, 2, 9]), "\u{fffd}\u{fffd}llo\u{fffd}");
        assert_eq!(decode(&[11, 12]), "a\nb\\n\tc\r", "a tag is no text, whoever put it in");
        assert_eq!(decode(&[1, 15, u32::MAX]), "he");
    }

    #[test]
    fn one_space_before_punctuation_goes() {
        let decode = |ids: &[u32]| vocabulary().decode(ids);
        assert_eq!(decode(&[1, 2, 3, 4, 1]), "hello, he");
        assert_eq!(decode(&[1, 3, 3, 13]), "he !");
        assert_eq!(
            decode(&[1, 5]),
            "he ?",
            "a mark that only stands after a space is not supported punctuation"
        );
    }

    #[test]
    fn pieces_say_what_words_need() {
        let vocabulary = vocabulary();
        let starts: Vec<u32> = (0..16).filter(|&id| vocabulary.starts_word(id)).collect();
        assert_eq!(starts, [1, 3, 5, 6]);
        let marks: Vec<u32> = (0..16).filter(|&id| vocabulary.is_punctuation(id)).collect();
        assert_eq!(marks, [4, 13]);
        assert_eq!((vocabulary.piece(2), vocabulary.piece(15)), (Some("llo"), None));
        assert_eq!(vocabulary.kind(9), Some(PieceKind::Byte(0xA9)));
    }

    #[test]
    fn signals_and_other_tags_are_no_text() {
        let languages = ["en-US", "en", "yue", "es-419", "zh-Hans", "sr-Latn-RS"];
        let signals = [("<EOU>", Signal::EndOfUtterance), ("<EOB>", Signal::EndOfBackchannel)];
        let signals = signals.into_iter().map(|(piece, signal)| (piece.to_owned(), Some(signal)));
        let languages = languages.map(|code| (format!("<{code}>"), Some(Signal::Language(code.into()))));
        let tags = [
            "<unk>",
            "<pad>",
            "<s>",
            "</s>",
            "<bos>",
            "<eos>",
            "<sep>",
            "<mask>",
            "<0x41>",
            "<b>",
            "<EN-us>",
            "<en-us>",
            "<|en|>",
            "<|startoftranscript|>",
            "<|0.00|>",
            "<extra_id_0>",
            "<spk:1>",
            "<en-US-x>",
        ];
        let tags = tags.map(|piece| (piece.to_owned(), None));
        let all: Vec<(String, Option<Signal>)> = signals.chain(languages).chain(tags).collect();
        for kind in [PieceKind::Normal, PieceKind::Control, PieceKind::UserDefined] {
            let pieces = all.iter().map(|(piece, _)| (piece.clone(), kind));
            let vocabulary = Vocabulary::new(pieces.chain([("yes".into(), PieceKind::Normal)]).collect());
            for (id, (piece, signal)) in (0..).zip(&all) {
                assert_eq!(vocabulary.signal(id), signal.as_ref(), "{piece} {kind:?}");
                assert_eq!(vocabulary.decode(&[id, all.len() as u32, id]), "yes", "{piece} {kind:?}");
            }
        }
    }

    #[test]
    fn what_only_looks_like_a_tag_is_text() {
        let pieces = ["<", ">", "<>", "<->", "a<b", "<3", "<a b>", "<\u{e9}>"];
        let normal = pieces.iter().map(|piece| (piece.to_string(), PieceKind::Normal));
        let vocabulary = Vocabulary::new(normal.chain([("<en>".into(), PieceKind::Unknown)]).collect());
        let ids: Vec<u32> = (0..8).collect();
        assert_eq!(vocabulary.decode(&ids), pieces.concat());
        assert_eq!((vocabulary.decode(&[8]).as_str(), vocabulary.signal(8)), (" \u{2047} ", None));
    }
}
