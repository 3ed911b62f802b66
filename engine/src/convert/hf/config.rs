// SPDX-License-Identifier: MPL-2.0
//! `config.json` and `processor_config.json` of transformers (5.23) to [`ModelConfig`]; what the engine can't run is
//! refused by name.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::convert::neutral::{self, HUGGING_FACE};
use crate::model::config::*;

/// What the library's processor class takes for granted where its file doesn't say: right contexts, default first.
const RIGHT_CONTEXTS: [i32; 4] = [13, 6, 1, 0];

/// A model class of the library.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    Tdt,
    Rnnt,
    Nemotron,
    /// With a language prompt.
    Nemotron35,
}

impl Class {
    /// Whether it streams with caches.
    fn is_causal(self) -> bool {
        matches!(self, Self::Nemotron | Self::Nemotron35)
    }
}

/// Reads the configuration of a model and what its processor's files say. The error says which setting is missing or
/// not supported.
pub fn read(
    config: Value,
    processor: Option<Value>,
    features: Option<Value>,
    name: &str,
) -> Result<ModelConfig, String> {
    let mut top = Section::new("", config)?;
    let class = class(&mut top)?;
    let mut encoder = top.section("encoder_config")?;
    let mut processor = processor.map(|value| Section::new("processor_config.json: ", value)).transpose()?;
    let inside = match &mut processor {
        Some(section) => Some(section.section("feature_extractor")?),
        None => None,
    };
    let alone = features.map(|value| Section::new("preprocessor_config.json: ", value)).transpose()?;
    let mel_bins = encoder.take("num_mel_bins", 80)?;
    if let Some(section) = inside.or(alone) {
        extractor(section, class, mel_bins)?;
    }
    let model = ModelConfig {
        format: FORMAT,
        name: name.to_owned(),
        features: FeaturesConfig {
            sample_rate: 16_000,
            mel_bins,
            normalize: if class.is_causal() { Normalize::None } else { Normalize::PerFeature },
        },
        decoder: decoder(&mut top, class)?,
        emission_delay_ms: 0,
        languages: Vec::new(),
        prompt: match class {
            Class::Nemotron35 => Some(prompt(&mut top, processor.as_mut())?),
            Class::Tdt | Class::Rnnt | Class::Nemotron => None,
        },
        encoder: self::encoder(encoder, processor.as_mut(), class)?,
    };
    top.finish()?;
    if let Some(section) = processor {
        section.finish()?;
    }
    model.validate()?;
    Ok(model)
}

fn class(top: &mut Section) -> Result<Class, String> {
    let architectures: Vec<String> = top.take("architectures", Vec::new())?;
    let model_type: String = top.take("model_type", String::new())?;
    let known = match architectures.first().map(String::as_str) {
        Some("ParakeetForTDT") => Some((Class::Tdt, "parakeet_tdt")),
        Some("ParakeetForRNNT") => Some((Class::Rnnt, "parakeet_rnnt")),
        Some("NemotronAsrStreamingForRNNT") => Some((Class::Nemotron, "nemotron_asr_streaming")),
        Some("Nemotron3_5AsrForRNNT") => Some((Class::Nemotron35, "nemotron3_5_asr")),
        _ => None,
    };
    match known {
        Some((class, expected)) if model_type == expected => Ok(class),
        Some((_, expected)) => Err(format!("model_type: {model_type:?}, expected {expected:?}")),
        None => Err(format!(
            "architectures: {architectures:?}, expected ParakeetForTDT, ParakeetForRNNT, \
             NemotronAsrStreamingForRNNT or Nemotron3_5AsrForRNNT"
        )),
    }
}

/// Checks that the feature extractor computes what the engine does.
fn extractor(mut section: Section, class: Class, mel_bins: usize) -> Result<(), String> {
    let kind = match class {
        Class::Tdt | Class::Rnnt => "ParakeetFeatureExtractor",
        Class::Nemotron | Class::Nemotron35 => "NemotronAsrStreamingFeatureExtractor",
    };
    section.only("feature_extractor_type", kind, kind)?;
    section.only("feature_size", mel_bins, mel_bins)?;
    section.only("sampling_rate", 16_000, 16_000)?;
    section.only("hop_length", 160, 160)?;
    section.only("n_fft", 512, 512)?;
    section.only("win_length", 400, 400)?;
    section.only("preemphasis", 0.97, 0.97)?;
    section.only("padding_value", 0.0, 0.0)?;
    section.only("mel_filters_dtype", "float32", "float32")?;
    section.finish()
}

fn encoder(
    mut section: Section,
    processor: Option<&mut Section>,
    class: Class,
) -> Result<EncoderConfig, String> {
    let causal = class.is_causal();
    let kind = if causal { "nemotron_asr_streaming_encoder" } else { "parakeet_encoder" };
    section.only("model_type", kind, kind)?;
    section.only("hidden_act", "silu", "silu")?;
    section.only("subsampling_factor", 8, 8)?;
    section.only("subsampling_conv_kernel_size", 3, 3)?;
    section.only("subsampling_conv_stride", 2, 2)?;
    let heads = section.take("num_attention_heads", 8)?;
    section.only("num_key_value_heads", heads, heads)?;
    let bias = section.take("attention_bias", true)?;
    section.only("convolution_bias", true, bias)?;
    let conv_kernel: usize = section.take("conv_kernel_size", 9)?;
    let last = conv_kernel.saturating_sub(1);
    let config = EncoderConfig {
        layers: section.take("num_hidden_layers", 24)?,
        width: section.take("hidden_size", 1024)?,
        heads,
        ff_width: section.take("intermediate_size", 4096)?,
        subsampling_channels: section.take("subsampling_conv_channels", 256)?,
        causal_subsampling: causal,
        conv_kernel,
        conv_context: if causal { [last, 0] } else { [last / 2, last - last / 2] },
        conv_norm: if causal { ConvNorm::LayerNorm } else { ConvNorm::BatchNorm },
        attention: if causal { AttentionStyle::ChunkedLimited } else { AttentionStyle::Regular },
        contexts: if causal { contexts(&mut section, processor)? } else { vec![[-1, -1]] },
        windows: None,
        bias,
        xscaling: section.take("scale_input", true)?,
    };
    if !causal && !last.is_multiple_of(2) {
        return Err(format!("encoder_config.conv_kernel_size: {conv_kernel}, expected an odd number"));
    }
    section.finish()?;
    Ok(config)
}

/// The contexts of a streaming encoder, the model's default first: one left context, several right ones. Where the encoder's
/// own section lists them the first is the default, else the processor's file does, beside the one that is named the default.
fn contexts(section: &mut Section, processor: Option<&mut Section>) -> Result<Vec<[i32; 2]>, String> {
    const SUPPORTED: &str = "supported_num_lookahead_tokens";
    const DEFAULT: &str = "default_num_lookahead_tokens";
    let window: i32 = section.take("sliding_window", 71)?;
    let default: i32 = section.take(DEFAULT, RIGHT_CONTEXTS[0])?;
    let mut rights: Vec<i32> = section.take(SUPPORTED, Vec::new())?;
    let mut others = vec![default];
    if let Some(processor) = processor {
        processor.map.remove(DEFAULT);
        others.extend(processor.take(SUPPORTED, RIGHT_CONTEXTS.to_vec())?);
    }
    if rights.is_empty() {
        rights = others;
    }
    if window < 1 {
        return Err(format!("encoder_config.sliding_window: {window}, expected at least 1"));
    }
    let mut contexts: Vec<[i32; 2]> = Vec::new();
    for right in rights {
        let Some(chunk) = right.checked_add(1).filter(|chunk| *chunk > 0) else {
            return Err(format!("supported_num_lookahead_tokens: {right}, expected at least 0"));
        };
        // The library looks back a whole number of chunks.
        let context = [(window - 1) / chunk * chunk, right];
        if !contexts.contains(&context) {
            contexts.push(context);
        }
    }
    Ok(contexts)
}

fn decoder(top: &mut Section, class: Class) -> Result<DecoderConfig, String> {
    let default: usize = match class {
        Class::Tdt | Class::Rnnt => 8_192,
        Class::Nemotron => 1_024,
        Class::Nemotron35 => 13_087,
    };
    let blank: usize = top.take("blank_token_id", default)?;
    top.only("vocab_size", default + 1, blank.saturating_add(1))?;
    top.only("hidden_act", "relu", "relu")?;
    let width = top.take("decoder_hidden_size", 640)?;
    Ok(DecoderConfig {
        vocabulary: blank,
        predictor_width: width,
        predictor_layers: top.take("num_decoder_layers", 2)?,
        joint_width: width,
        kind: match class {
            Class::Tdt => Transducer::Tdt { durations: top.take("durations", vec![0, 1, 2, 3, 4])? },
            Class::Rnnt | Class::Nemotron | Class::Nemotron35 => {
                top.only("durations", Value::Array(Vec::new()), Value::Array(Vec::new()))?;
                Transducer::Rnnt
            }
        },
        max_symbols: top.take("max_symbols_per_step", 10)?,
    })
}

/// The language prompt. The codes are in the processor's file alone; without it only `auto` has a name.
fn prompt(top: &mut Section, processor: Option<&mut Section>) -> Result<PromptConfig, String> {
    let places = top.take("num_prompts", 128)?;
    let auto = top.take("default_prompt_id", 101)?;
    let mut languages = BTreeMap::from([(PromptConfig::AUTO.to_owned(), auto)]);
    if let Some(section) = processor {
        section.only("num_prompts", places, places)?;
        languages = section.take("prompt_dictionary", languages)?;
    }
    Ok(PromptConfig { places, hidden: top.take("prompt_intermediate_size", 2_048)?, languages })
}

/// An object of the file; settings are taken out one by one, so that what is left is what nobody knows.
struct Section {
    /// How its settings are called in errors, but for their own names.
    prefix: String,
    map: Map<String, Value>,
}

impl Section {
    fn new(prefix: &str, value: Value) -> Result<Self, String> {
        match value {
            Value::Object(map) => Ok(Self { prefix: prefix.to_owned(), map }),
            _ => Err(format!("{}expected an object", prefix)),
        }
    }

    fn section(&mut self, key: &str) -> Result<Self, String> {
        let name = format!("{}{key}", self.prefix);
        let value = self.map.remove(key).ok_or_else(|| format!("{name} is missing"))?;
        Self::new(&format!("{name}."), value).map_err(|_| format!("{name}: expected an object"))
    }

    /// The setting, or the library's default where it is absent or null.
    fn take<T: DeserializeOwned>(&mut self, key: &str, default: T) -> Result<T, String> {
        match self.map.remove(key) {
            None | Some(Value::Null) => Ok(default),
            Some(value) => serde_json::from_value(value).map_err(|e| format!("{}{key}: {e}", self.prefix)),
        }
    }

    /// A setting that must be `expected`.
    fn only<T>(&mut self, key: &str, default: T, expected: T) -> Result<(), String>
    where
        T: Into<Value> + Clone,
    {
        let found = match self.map.remove(key) {
            None | Some(Value::Null) => default.into(),
            Some(value) => value,
        };
        let expected = expected.into();
        if found == expected || (found.is_number() && found.as_f64() == expected.as_f64()) {
            return Ok(());
        }
        let found: String = found.to_string().chars().take(60).collect();
        Err(format!("{}{key}: {found}, expected {expected}", self.prefix))
    }

    /// Refuses what is left and unknown.
    fn finish(self) -> Result<(), String> {
        neutral::check(&self.prefix, &self.map, HUGGING_FACE, &|_| false)
    }
}
