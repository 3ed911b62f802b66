// SPDX-License-Identifier: MPL-2.0
//! `config.json` of a model directory: every fact the engine needs, typed and checked.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// Version of the layout of `config.json` that this crate writes and reads. It rises when something that was there means
/// something else. What is added may be absent, and a version that doesn't know it refuses a file that has it, by name.
pub(crate) const FORMAT: u32 = 1;

/// Most frames of a window: 10 minutes.
pub(crate) const MOST_WINDOW: usize = 7_500;

/// Everything about a model but its weights and its vocabulary.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelConfig {
    /// Layout version of the file, [`FORMAT`].
    pub(crate) format: u32,
    /// Name for people, e.g. `parakeet-tdt-mini`.
    pub name: String,
    /// Log-mel front end.
    pub features: FeaturesConfig,
    /// FastConformer encoder.
    pub encoder: EncoderConfig,
    /// Predictor, joint and decoding rule.
    pub decoder: DecoderConfig,
    /// How long after a word begins the model emits it, in milliseconds, 0 if that isn't known: what word starts are early
    /// by. `parakeet wer --times` measures it.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub emission_delay_ms: u32,
    /// Languages that it hears, as ISO 639 codes such as `en`, where it is told none and they are known.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub languages: Vec<String>,
    /// Language prompt, where the model is told what it hears.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompt: Option<PromptConfig>,
}

/// Longest [`ModelConfig::emission_delay_ms`]: a pause of 0.8 s ends a word, and what comes then must not start before it.
pub const MOST_DELAY_MS: u32 = 800;

fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// Language prompt (NeMo `EncDecRNNTBPEModelWithPrompt`, transformers `Nemotron3_5AsrForRNNT`): a one-hot language beside
/// each encoder output goes through two linear layers with a ReLU between them, back to the encoder's width.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PromptConfig {
    /// Places of the one-hot vector.
    pub places: usize,
    /// Width between the two layers.
    pub hidden: usize,
    /// Place of each language code; `auto` leaves the language to the model.
    pub languages: BTreeMap<String, usize>,
}

impl PromptConfig {
    /// Name of the place that leaves the language to the model.
    pub(crate) const AUTO: &str = "auto";

    /// The place of a language: of the code itself, whatever its case, or of its language alone (`de` for `de-AT`);
    /// without a code that of `auto`, or else the first place. The error lists the codes there are.
    pub(crate) fn place(&self, code: Option<&str>) -> Result<usize> {
        let find = |wanted: &str| {
            self.languages.iter().find(|(code, _)| code.eq_ignore_ascii_case(wanted)).map(|(_, place)| *place)
        };
        let Some(code) = code else { return Ok(find(Self::AUTO).unwrap_or(0)) };
        let alone = code.split(['-', '_']).next().unwrap_or_default();
        find(code).or_else(|| find(alone)).ok_or_else(|| {
            let known: Vec<&str> = self.languages.keys().map(String::as_str).collect();
            let reason = format!("the model has no language {code:?}; it has {}", known.join(", "));
            Error::Option { option: "language", reason }
        })
    }

    fn validate(&self) -> Result<(), String> {
        within("prompt.places", self.places, 1, 100_000)?;
        within("prompt.hidden", self.hidden, 1, 131_072)?;
        let outside = |(_, place): &(&String, &usize)| **place >= self.places;
        match self.languages.iter().find(outside) {
            Some((code, place)) => {
                Err(format!("prompt.languages: {code} has place {place}, but there are {}", self.places))
            }
            None => Ok(()),
        }
    }
}

/// Log-mel front end (NeMo `AudioToMelSpectrogramPreprocessor`). Window 400, hop 160, FFT 512 at 16 kHz in every
/// checkpoint of the family; another value is refused at conversion.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FeaturesConfig {
    /// Samples a second.
    pub sample_rate: u32,
    /// Mel bins; 80 or 128 in every published checkpoint.
    pub mel_bins: usize,
    /// What happens to the log-mel frames before the encoder.
    pub normalize: Normalize,
}

/// Normalisation of log-mel features.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Normalize {
    /// None: streams exactly.
    None,
    /// Mean and deviation of each bin over the utterance or window.
    PerFeature,
}

/// FastConformer encoder (NeMo `ConformerEncoder`, `dw_striding`, factor 8).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EncoderConfig {
    /// Number of Conformer layers.
    pub layers: usize,
    /// Width of the residual stream, `d_model`.
    pub width: usize,
    /// Attention heads; divides `width`.
    pub heads: usize,
    /// Width of the feed-forward modules' inner layer.
    pub ff_width: usize,
    /// Channels of the subsampling convolutions.
    pub subsampling_channels: usize,
    /// Subsampling pads 2 left and 1 right (true) or 1 and 1 (false).
    pub causal_subsampling: bool,
    /// Taps of the depthwise convolution.
    pub conv_kernel: usize,
    /// Left and right context of the depthwise convolution; their sum is `conv_kernel - 1`.
    pub conv_context: [usize; 2],
    /// Norm after the depthwise convolution.
    pub conv_norm: ConvNorm,
    /// How attention is limited.
    pub attention: AttentionStyle,
    /// Contexts `[left, right]` in encoder frames that the model was trained for, default first; -1 is unlimited.
    pub contexts: Vec<[i32; 2]>,
    /// Windows that the model was trained for, where it was for some only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub windows: Option<WindowsConfig>,
    /// Linear layers and convolutions of the layers have a bias.
    pub bias: bool,
    /// The subsampled input is multiplied by `sqrt(width)`.
    pub xscaling: bool,
}

/// Windows of buffered streaming that a model was trained for: each left context with each chunk and each right context,
/// in encoder frames (NeMo `att_chunk_context_size`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WindowsConfig {
    /// Frames before the chunk.
    pub left: Vec<usize>,
    /// Frames of the chunk.
    pub chunk: Vec<usize>,
    /// Frames after the chunk.
    pub right: Vec<usize>,
}

impl WindowsConfig {
    fn validate(&self, attention: AttentionStyle) -> Result<(), String> {
        if attention != AttentionStyle::ChunkedLimitedWithRc {
            return Err("encoder.windows: only for attention chunked_limited_with_rc".into());
        }
        let mut most = 0;
        for (name, least, frames) in
            [("left", 0, &self.left), ("chunk", 1, &self.chunk), ("right", 0, &self.right)]
        {
            within(&format!("number of encoder.windows.{name}"), frames.len(), 1, 16)?;
            for &frames in frames {
                within(&format!("encoder.windows.{name}"), frames, least, MOST_WINDOW)?;
            }
            most += frames.iter().max().unwrap_or(&0);
        }
        within("frames of the longest of encoder.windows", most, 1, MOST_WINDOW)
    }
}

/// Norm inside the convolution module. Both are called `batch_norm` in the state dict.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ConvNorm {
    /// BatchNorm1d with running statistics.
    BatchNorm,
    /// LayerNorm over channels.
    LayerNorm,
}

/// `att_context_style` of NeMo's encoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AttentionStyle {
    /// Key `j` is visible to query `i` iff `i - left <= j <= i + right`.
    Regular,
    /// Chunks of `right + 1` frames see themselves and `left` frames before them.
    ChunkedLimited,
    /// Chunks see themselves and some frames before and after them; the window of buffered streaming says how many of
    /// each. One pass over everything sees everything.
    ChunkedLimitedWithRc,
}

/// Predictor, joint and decoding rule.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DecoderConfig {
    /// Number of pieces, without blank. Blank's id is this number.
    pub vocabulary: usize,
    /// Width of embedding and LSTM.
    pub predictor_width: usize,
    /// LSTM layers.
    pub predictor_layers: usize,
    /// Width of the joint network.
    pub joint_width: usize,
    /// TDT or RNN-T.
    pub kind: Transducer,
    /// Most symbols that may be emitted at one frame.
    pub max_symbols: usize,
}

/// Kind of transducer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Transducer {
    /// Token-and-duration transducer with these durations in frames (arXiv:2304.06795).
    Tdt {
        /// Durations, in the order of the joint's last outputs.
        durations: Vec<u32>,
    },
    /// Classic transducer: a token stays at its frame, a blank moves on by one.
    Rnnt,
}

/// What [`ModelConfig::read`] looks at first, so that an older or newer layout is told apart from a damaged one.
#[derive(Deserialize)]
struct Versioned {
    format: u32,
}

impl ModelConfig {
    /// Reads and checks a `config.json`.
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read(path).map_err(|e| Error::io(path, e))?;
        let versioned: Versioned = serde_json::from_slice(&text)
            .map_err(|e| Error::model(path, format!("not the configuration of a model directory: {e}")))?;
        if versioned.format != FORMAT {
            let reason = format!(
                "format {}, but this version reads format {FORMAT}: convert the checkpoint again",
                versioned.format
            );
            return Err(Error::model(path, reason));
        }
        let config: Self = serde_json::from_slice(&text).map_err(|e| Error::model(path, e.to_string()))?;
        config.validate().map_err(|reason| Error::model(path, reason))?;
        Ok(config)
    }

    /// Whether the model streams exactly in its context `context`, chunk by chunk with caches: nothing in it hears
    /// beyond a chunk. What doesn't is streamed in windows.
    pub fn is_cache_aware(&self, context: usize) -> bool {
        let encoder = &self.encoder;
        let limited = |&[left, right]: &[i32; 2]| left >= 0 && right >= 0;
        encoder.causal_subsampling
            && encoder.conv_context[1] == 0
            && encoder.attention == AttentionStyle::ChunkedLimited
            && encoder.contexts.get(context).is_some_and(limited)
            && self.features.normalize == Normalize::None
    }

    /// How long after a word begins the model emits it, in samples.
    pub fn emission_delay(&self) -> u64 {
        u64::from(self.emission_delay_ms) * u64::from(self.features.sample_rate) / 1_000
    }

    /// Writes a `config.json` for people to read.
    pub(crate) fn write(&self, path: &Path) -> Result<()> {
        let mut text = serde_json::to_string_pretty(self).map_err(|e| Error::model(path, e.to_string()))?;
        text.push('\n');
        std::fs::write(path, text).map_err(|e| Error::io(path, e))
    }

    /// Checks every value's range and how the values fit together; the error says which one is wrong.
    pub(crate) fn validate(&self) -> Result<(), String> {
        let ModelConfig { features, encoder, decoder, .. } = self;
        if self.name.is_empty() || self.name.len() > 255 || self.name.chars().any(char::is_control) {
            return Err("name: expected 1 to 255 bytes without control characters".into());
        }
        if features.sample_rate != 16_000 {
            return Err(format!("features.sample_rate: expected 16000, found {}", features.sample_rate));
        }
        within("features.mel_bins", features.mel_bins, 8, 512)?;
        if self.emission_delay_ms > MOST_DELAY_MS {
            return Err(format!(
                "emission_delay_ms: {} is more than {MOST_DELAY_MS}",
                self.emission_delay_ms
            ));
        }
        let is_code = |code: &String| {
            (2..=3).contains(&code.len()) && code.bytes().all(|byte| byte.is_ascii_lowercase())
        };
        if let Some(code) = self.languages.iter().find(|code| !is_code(code)) {
            return Err(format!("languages: {code:?} is no ISO 639 code, two or three small letters"));
        }
        encoder.validate()?;
        if let Some(prompt) = &self.prompt {
            prompt.validate()?;
        }
        decoder.validate()
    }
}

impl EncoderConfig {
    fn validate(&self) -> Result<(), String> {
        within("encoder.layers", self.layers, 1, 256)?;
        within("encoder.width", self.width, 2, 16_384)?;
        within("encoder.heads", self.heads, 1, 1_024)?;
        within("encoder.ff_width", self.ff_width, 1, 131_072)?;
        within("encoder.subsampling_channels", self.subsampling_channels, 1, 8_192)?;
        within("encoder.conv_kernel", self.conv_kernel, 1, 1_024)?;
        if !self.width.is_multiple_of(2) || !self.width.is_multiple_of(self.heads) {
            return Err(format!(
                "encoder.width: {} is not even or not a multiple of {} heads",
                self.width, self.heads
            ));
        }
        let [left, right] = self.conv_context;
        if left.checked_add(right) != Some(self.conv_kernel - 1) {
            return Err(format!(
                "encoder.conv_context: {left} + {right} is not conv_kernel - 1 = {}",
                self.conv_kernel - 1
            ));
        }
        if self.contexts.is_empty() || self.contexts.len() > 64 {
            return Err(format!("encoder.contexts: expected 1 to 64, found {}", self.contexts.len()));
        }
        self.contexts.iter().try_for_each(|&context| self.validate_context(context))?;
        self.windows.as_ref().map_or(Ok(()), |windows| windows.validate(self.attention))
    }

    fn validate_context(&self, [left, right]: [i32; 2]) -> Result<(), String> {
        if left.min(right) < -1 || left.max(right) > 100_000 {
            return Err(format!("encoder.contexts: [{left}, {right}] is outside -1 to 100000"));
        }
        if self.attention == AttentionStyle::ChunkedLimited {
            if right < 0 {
                return Err(format!("encoder.contexts: [{left}, {right}] has chunks without end"));
            }
            if left > 0 && left % (right + 1) != 0 {
                return Err(format!(
                    "encoder.contexts: in [{left}, {right}] left is not a multiple of right + 1"
                ));
            }
        }
        Ok(())
    }
}

impl DecoderConfig {
    fn validate(&self) -> Result<(), String> {
        within("decoder.vocabulary", self.vocabulary, 1, 1_000_000)?;
        within("decoder.predictor_width", self.predictor_width, 1, 16_384)?;
        within("decoder.predictor_layers", self.predictor_layers, 1, 16)?;
        within("decoder.joint_width", self.joint_width, 1, 16_384)?;
        within("decoder.max_symbols", self.max_symbols, 1, 10_000)?;
        let durations = self.durations();
        if self.kind != Transducer::Rnnt {
            within("number of decoder.kind.durations", durations.len(), 1, 64)?;
        }
        durations
            .iter()
            .try_for_each(|&duration| within("decoder.kind.durations", duration as usize, 0, 1_000))
    }

    /// Durations of a TDT model in the order of the joint's last outputs; empty for RNN-T.
    pub fn durations(&self) -> &[u32] {
        match &self.kind {
            Transducer::Tdt { durations } => durations,
            Transducer::Rnnt => &[],
        }
    }
}

fn within(name: &str, value: usize, least: usize, most: usize) -> Result<(), String> {
    if (least..=most).contains(&value) {
        return Ok(());
    }
    Err(format!("{name}: expected {least} to {most}, found {value}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn languages_are_found_by_code_and_by_language() {
        let languages = [("auto", 101), ("de", 9), ("en-US", 0), ("pt-BR", 12)];
        let languages = languages.map(|(code, place)| (code.to_owned(), place)).into();
        let prompt = PromptConfig { places: 128, hidden: 8, languages };
        let places =
            [(None, 101), (Some("EN-us"), 0), (Some("de-AT"), 9), (Some("de_CH"), 9), (Some("pt-BR"), 12)];
        for (code, place) in places {
            assert_eq!(prompt.place(code).ok(), Some(place), "{code:?}");
        }
        let error = prompt.place(Some("fr-FR")).unwrap_err().to_string();
        assert!(error.contains("no language \"fr-FR\"; it has auto, de, en-US, pt-BR"), "{error}");
        assert_eq!(prompt.validate(), Ok(()));
        assert!(PromptConfig { places: 13, ..prompt }.validate().unwrap_err().contains("auto has place 101"));
    }
}
