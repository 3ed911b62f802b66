// SPDX-License-Identifier: MPL-2.0
//! The forms a transcript can have: plain text, JSON, SubRip and WebVTT.

use clap::ValueEnum;
use parakeet_engine::{Caption, Captions, Lines, TimedToken, Word};
use serde::Serialize;

/// Form of the transcript.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Format {
    /// The words, as they come
    #[value(name = "txt", alias = "plain")]
    Plain,
    /// One object with words, tokens, times in seconds and confidences, at the end
    Json,
    /// SubRip captions
    Srt,
    /// WebVTT captions
    Vtt,
}

impl Format {
    /// The extension of its files.
    pub fn extension(self) -> &'static str {
        match self {
            Self::Plain => "txt",
            Self::Json => "json",
            Self::Srt => "srt",
            Self::Vtt => "vtt",
        }
    }
}

/// What is known about a transcript as a whole.
#[derive(Debug)]
pub struct Summary<'a> {
    /// Length of the audio in seconds.
    pub audio_seconds: f64,
    /// The model's name.
    pub model: &'a str,
    /// Right context in encoder frames, `None` if unlimited.
    pub look_ahead: Option<u32>,
}

/// Turns words into text of one format, in pieces that are ready to be written.
pub struct Writer {
    format: Format,
    words: usize,
    captions: Captions,
    number: usize,
    json: Json,
}

#[derive(Default, Serialize)]
struct Json {
    text: String,
    words: Vec<JsonWord>,
    tokens: Vec<JsonToken>,
    audio_seconds: f64,
    model: String,
    look_ahead: Option<u32>,
}

#[derive(Serialize)]
struct JsonWord {
    text: String,
    /// No space is before it; left out where one is.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    joined: bool,
    start: f64,
    end: f64,
    confidence: f32,
}

#[derive(Serialize)]
struct JsonToken {
    id: u32,
    piece: String,
    frame: u64,
    /// 0 for RNN-T, which predicts none.
    duration: u32,
    start: f64,
    end: f64,
    confidence: f32,
}

impl Writer {
    /// A writer of `format`, whose captions have such lines.
    pub fn new(format: Format, lines: Lines) -> Self {
        Self { format, words: 0, captions: Captions::new(lines), number: 0, json: Json::default() }
    }

    /// What comes before the first word.
    pub fn begin(&self) -> &'static str {
        if self.format == Format::Vtt { "WEBVTT\n\n" } else { "" }
    }

    /// Takes the next word; `piece` gives the text of a token.
    pub fn word(&mut self, word: &Word, piece: impl Fn(u32) -> String) -> String {
        // Tokens without a text of their own are no word to read.
        self.words += usize::from(!word.text.is_empty());
        match self.format {
            Format::Json => {
                self.json.add(word, piece);
                String::new()
            }
            _ if word.text.is_empty() => String::new(),
            Format::Plain if self.words == 1 || word.joined => word.text.clone(),
            Format::Plain => format!(" {}", word.text),
            Format::Srt | Format::Vtt => {
                self.captions.word(word.clone()).iter().map(|caption| self.caption(caption)).collect()
            }
        }
    }

    /// What is left when there are no more words.
    pub fn end(&mut self, summary: &Summary) -> String {
        match self.format {
            Format::Plain if self.words == 0 => String::new(),
            Format::Plain => "\n".into(),
            Format::Json => {
                let json = std::mem::take(&mut self.json).finish(summary);
                // Strings and numbers only, which always serialise; NaN becomes null.
                serde_json::to_string(&json).unwrap_or_default() + "\n"
            }
            Format::Srt | Format::Vtt => {
                let end = (summary.audio_seconds * 16_000.0).round() as u64;
                self.captions.finish(end).iter().map(|caption| self.caption(caption)).collect()
            }
        }
    }

    fn caption(&mut self, caption: &Caption) -> String {
        self.number += 1;
        let text = caption.lines.join("\n");
        if self.format == Format::Srt {
            let (start, end) = (clock(caption.start, ','), clock(caption.end, ','));
            format!("{}\n{start} --> {end}\n{text}\n\n", self.number)
        } else {
            let (start, end) = (clock(caption.start, '.'), clock(caption.end, '.'));
            let text = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
            format!("{start} --> {end}\n{text}\n\n")
        }
    }
}

impl Json {
    fn add(&mut self, word: &Word, piece: impl Fn(u32) -> String) {
        if !word.text.is_empty() {
            if !self.text.is_empty() && !word.joined {
                self.text.push(' ');
            }
            self.text.push_str(&word.text);
            self.words.push(JsonWord {
                text: word.text.clone(),
                joined: word.joined,
                start: seconds(word.start),
                end: seconds(word.end),
                confidence: word.confidence,
            });
        }
        self.tokens.extend(word.tokens.iter().map(|&TimedToken { token, start, end }| JsonToken {
            id: token.id,
            piece: piece(token.id),
            frame: token.frame,
            duration: token.duration.unwrap_or(0),
            start: seconds(start),
            end: seconds(end),
            confidence: token.confidence,
        }));
    }

    fn finish(mut self, summary: &Summary) -> Self {
        self.audio_seconds = summary.audio_seconds;
        self.model = summary.model.into();
        self.look_ahead = summary.look_ahead;
        self
    }
}

/// Seconds of a number of samples at 16 kHz.
pub fn seconds(samples: u64) -> f64 {
    samples as f64 / 16_000.0
}

/// `hh:mm:ss` and milliseconds after `point`, of a time in samples at 16 kHz.
fn clock(samples: u64, point: char) -> String {
    let ms = (samples + 8) / 16;
    let (h, m, s, ms) = (ms / 3_600_000, ms / 60_000 % 60, ms / 1_000 % 60, ms % 1_000);
    format!("{h:02}:{m:02}:{s:02}{point}{ms:03}")
}

#[cfg(test)]
mod tests {
    use parakeet_engine::Token;

    use super::*;

    fn word(text: &str, start: u64, end: u64) -> Word {
        let tokens = Vec::new();
        Word { text: text.into(), start, end, until: end, confidence: 0.5, heard: 0, joined: false, tokens }
    }

    fn write(format: Format, words: &[Word]) -> String {
        let mut writer = Writer::new(format, Lines::default());
        let mut text = writer.begin().to_owned();
        for word in words {
            text += &writer.word(word, |id| id.to_string());
        }
        text + &writer.end(&Summary { audio_seconds: 1.25, model: "m", look_ahead: Some(6) })
    }

    #[test]
    fn plain() {
        assert_eq!(write(Format::Plain, &[word("Hello", 0, 1), word("world.", 2, 3)]), "Hello world.\n");
        assert_eq!(write(Format::Plain, &[]), "");
        assert_eq!(write(Format::Plain, &[word("", 0, 1), word("a", 1, 2), word("", 2, 3)]), "a\n");
    }

    #[test]
    fn late_punctuation_joins_its_word() {
        let words = [
            word("Well", 0, 1),
            Word { heard: 0, joined: true, ..word(".", 20_000, 20_001) },
            word("So", 30_000, 30_001),
        ];
        assert_eq!(write(Format::Plain, &words), "Well. So\n");
        assert!(write(Format::Json, &words).contains(r#""text":"Well. So""#));
    }

    #[test]
    fn scripts_without_spaces_get_none() {
        let joined = |text, at| Word { joined: true, ..word(text, at, at + 1_280) };
        let words =
            [word("我", 0, 1_280), joined("用", 1_280), joined("Python", 2_560), joined("写。", 3_840)];
        assert_eq!(write(Format::Plain, &words), "我用Python写。\n");
        assert_eq!(write(Format::Srt, &words), "1\n00:00:00,000 --> 00:00:00,833\n我用Python写。\n\n");
        assert!(write(Format::Vtt, &words).ends_with("\n我用Python写。\n\n"));
        let json: serde_json::Value = serde_json::from_str(&write(Format::Json, &words)).unwrap();
        assert_eq!(json["text"], "我用Python写。");
        assert_eq!(
            (&json["words"][0]["joined"], &json["words"][1]["joined"]),
            (&serde_json::Value::Null, &true.into())
        );
    }

    #[test]
    fn srt() {
        let words = [
            word("A<b", 0, 1_280),
            word("&c.", 1_280, 17_280),
            word("D", 16_000 * 3_661, 16_000 * 3_661 + 8),
        ];
        let expected = "1\n00:00:00,000 --> 00:00:01,080\nA<b &c.\n\n2\n01:01:01,000 --> 01:01:01,001\nD\n\n";
        assert_eq!(write(Format::Srt, &words), expected);
        assert_eq!(write(Format::Srt, &[]), "");
    }

    #[test]
    fn vtt_escapes() {
        let words = [word("A<b", 0, 1_280), word("&c-->d.", 1_280, 17_280)];
        let expected = "WEBVTT\n\n00:00:00.000 --> 00:00:01.080\nA&lt;b &amp;c--&gt;d.\n\n";
        assert_eq!(write(Format::Vtt, &words), expected);
        assert_eq!(write(Format::Vtt, &[]), "WEBVTT\n\n");
    }

    #[test]
    fn json_is_one_object() {
        let token = |id, frame, duration| Token {
            id,
            frame,
            duration,
            log_prob: -0.5,
            confidence: 0.75,
            margin: 1.0,
            duration_margin: 1.0,
        };
        let timed = |token, start, end| TimedToken { token, start, end };
        let say = Word { tokens: vec![timed(token(7, 0, Some(2)), 0, 2_560)], ..word("Say", 0, 1_280) };
        let hi =
            Word { tokens: vec![timed(token(8, 3, None), 3_840, 4_000)], ..word("\"hi\"", 1_280, 4_000) };
        let text = write(Format::Json, &[say, hi]);
        let json: serde_json::Value = serde_json::from_str(&text).unwrap();
        let expected = serde_json::json!({
            "text": "Say \"hi\"",
            "words": [
                {"text": "Say", "start": 0.0, "end": 0.08, "confidence": 0.5},
                {"text": "\"hi\"", "start": 0.08, "end": 0.25, "confidence": 0.5},
            ],
            "tokens": [
                {"id": 7, "piece": "7", "frame": 0, "duration": 2, "start": 0.0, "end": 0.16, "confidence": 0.75},
                {"id": 8, "piece": "8", "frame": 3, "duration": 0, "start": 0.24, "end": 0.25, "confidence": 0.75},
            ],
            "audio_seconds": 1.25,
            "model": "m",
            "look_ahead": 6,
        });
        assert_eq!(json, expected);
        assert!(text.ends_with("}\n") && text.lines().count() == 1);
    }
}
