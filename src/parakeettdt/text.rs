// SPDX-License-Identifier: MPL-2.0
//! Text on its way out, and the forms in which it goes: buffers of text or JSON, and messages.

use super::places::Moment;
use parakeet_engine::Word;
use serde::Serialize;

/// What buffers hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// `text/x-raw,format=utf8`: the text.
    #[default]
    Utf8,
    /// `application/x-json`: an object that says all that is known of the text.
    Json,
}

impl Format {
    /// All, what is rather taken first.
    const ALL: [Format; 2] = [Format::Utf8, Format::Json];

    /// The media type with its fields.
    fn structure(self) -> gst::Structure {
        match self {
            Format::Utf8 => gst::Structure::builder("text/x-raw").field("format", "utf8").build(),
            Format::Json => gst::Structure::new_empty("application/x-json"),
        }
    }

    /// The caps of a pad that puts out this.
    pub fn caps(self) -> gst::Caps {
        gst::Caps::builder_full().structure(self.structure()).build()
    }

    /// The caps of a pad that may put out any.
    pub fn all_caps() -> gst::Caps {
        Format::ALL.into_iter().map(Format::structure).collect()
    }

    /// The first in caps that were chosen of all.
    pub fn first_of(caps: &gst::CapsRef) -> Option<Format> {
        let first = caps.structure(0)?;
        Format::ALL.into_iter().find(|format| format.structure().name() == first.name())
    }
}

/// A word of a text. Times are running times in nanoseconds.
#[derive(Clone, Debug, PartialEq)]
pub struct TextWord {
    pub text: String,
    pub start: u64,
    pub end: u64,
    /// From 0 to 1.
    pub confidence: f32,
    /// No space is between it and the word before.
    pub joined: bool,
}

impl TextWord {
    /// A word of the engine, between these running times.
    pub fn new(word: &Word, start: u64, end: u64) -> Self {
        let Word { text, confidence, joined, .. } = word;
        TextWord { text: text.clone(), start, end: end.max(start), confidence: *confidence, joined: *joined }
    }

    /// Moves what lies outside of these times to them.
    pub fn keep_within(&mut self, start: u64, end: u64) {
        (self.start, self.end) = (self.start.clamp(start, end), self.end.clamp(start, end));
    }
}

/// Text to push. Times are running times in nanoseconds.
#[derive(Clone, Debug, PartialEq)]
pub struct Text {
    pub text: String,
    pub start: u64,
    pub end: u64,
    /// Its start as a stream time.
    pub stream: Option<u64>,
    /// Something before it was interrupted or lost.
    pub discont: bool,
    /// Running time at which the audio of its start came in.
    pub arrived: Option<u64>,
    /// What it is made of.
    pub words: Vec<TextWord>,
    /// Language that it is in, as an ISO 639 code, if that is known.
    pub language: Option<String>,
}

/// Text since the last that was pushed, which later words may change.
#[derive(Clone, Debug, PartialEq)]
pub struct Partial {
    pub text: Text,
    /// How many bytes of it no later word changes.
    pub stable: usize,
}

/// A token of a word that was recognised.
#[derive(Clone, Debug, PartialEq)]
pub struct RawToken {
    pub token: parakeet_engine::Token,
    /// Where the model emits it, as a running time in nanoseconds.
    pub start: u64,
    /// Where it ends.
    pub end: u64,
}

/// A word as the model gave it.
#[derive(Clone, Debug, PartialEq)]
pub struct Raw {
    pub text: String,
    pub start: Option<Moment>,
    pub tokens: Vec<RawToken>,
}

/// A text as a JSON object. Times are running times in seconds, as buffers have them in nanoseconds.
#[derive(Serialize)]
struct Json<'a> {
    text: &'a str,
    start: f64,
    end: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    stream_time: Option<f64>,
    confidence: f32,
    #[serde(skip_serializing_if = "Option::is_none")]
    language: Option<&'a str>,
    #[serde(rename = "final")]
    is_final: bool,
    words: Vec<JsonWord<'a>>,
}

#[derive(Serialize)]
struct JsonWord<'a> {
    text: &'a str,
    /// No space is before it; left out where one is.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    joined: bool,
    start: f64,
    end: f64,
    confidence: f32,
}

impl Text {
    /// Least confidence of its words, NeMo's default aggregation.
    pub fn confidence(&self) -> f32 {
        self.words.iter().map(|word| word.confidence).fold(1.0, f32::min)
    }

    /// The bytes of a buffer, JSON as a line; `is_final` says that no later word changes it.
    pub fn bytes(&self, format: Format, is_final: bool) -> Vec<u8> {
        if format == Format::Utf8 {
            return self.text.clone().into_bytes();
        }
        let words = self.words.iter().map(|word| JsonWord {
            text: &word.text,
            joined: word.joined,
            start: seconds(word.start),
            end: seconds(word.end),
            confidence: word.confidence,
        });
        let json = Json {
            text: &self.text,
            start: seconds(self.start),
            end: seconds(self.end),
            stream_time: self.stream.map(seconds),
            confidence: self.confidence(),
            language: self.language.as_deref(),
            is_final,
            words: words.collect(),
        };
        // Strings and numbers only, which always serialise; NaN becomes null.
        let mut line = serde_json::to_vec(&json).unwrap_or_default();
        line.push(b'\n');
        line
    }
}

/// Nanoseconds in seconds, to a microsecond.
fn seconds(nanoseconds: u64) -> f64 {
    (nanoseconds / 1_000) as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_an_object_with_its_words() {
        let word = |text: &str, start, end, joined| TextWord {
            text: text.into(),
            start,
            end,
            confidence: if joined { 0.5 } else { 0.75 },
            joined,
        };
        let text = Text {
            text: "我\"用".into(),
            start: 1_000_000_999,
            end: 3_600_000_000_000,
            stream: None,
            discont: false,
            arrived: None,
            words: vec![
                word("我\"", 1_000_000_999, 2_000_000_000, false),
                word("用", 2_000_000_000, 3_600_000_000_000, true),
            ],
            language: Some("zh".into()),
        };
        assert_eq!(text.bytes(Format::Utf8, true), "我\"用".as_bytes());
        let expected = r#"{"text":"我\"用","start":1.0,"end":3600.0,"confidence":0.5,"language":"zh","final":true,"words":[{"text":"我\"","start":1.0,"end":2.0,"confidence":0.75},{"text":"用","joined":true,"start":2.0,"end":3600.0,"confidence":0.5}]}"#;
        // A line each, so that files and sockets have JSON lines.
        assert_eq!(String::from_utf8(text.bytes(Format::Json, true)).unwrap(), format!("{expected}\n"));
        let placed = Text { stream: Some(5_250_000_000), language: None, ..text };
        let json: serde_json::Value = serde_json::from_slice(&placed.bytes(Format::Json, false)).unwrap();
        assert_eq!(json["stream_time"], 5.25);
        assert_eq!((&json["final"], json.get("language")), (&false.into(), None));
    }
}
