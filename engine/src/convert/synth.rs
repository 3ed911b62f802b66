// SPDX-License-Identifier: MPL-2.0
//! Models of a published shape with random weights, for benchmarks where the trained ones can't be had.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::str::FromStr;

use fastrand::Rng;

use super::source::{Listed, Source, TensorSource};
use super::write::{ConvertOptions, write};
use crate::model::config::*;
use crate::model::tensors::{JOINT_OUTPUT, TensorSpec, expected};
use crate::model::vocabulary::{PieceKind, SPACE, Vocabulary};
use crate::{Error, Result};

/// A published model whose shape can be had with random weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Like {
    /// parakeet-tdt-0.6b-v3: 24 layers x 1024, full attention, TDT, 8,192 pieces.
    Tdt06bV3,
    /// parakeet-tdt-1.1b: 42 layers x 1024, 80 mel bins, full attention, TDT, 1,024 pieces.
    Tdt11b,
    /// parakeet-rnnt-1.1b: the same as an RNN-T.
    Rnnt11b,
    /// parakeet-tdt_ctc-110m: 17 layers x 512, 80 mel bins, full attention, TDT, 1,024 pieces.
    TdtCtc110m,
    /// parakeet-unified-en-0.6b: 24 layers x 1024, windows of its own, RNN-T, 1,024 pieces.
    Unified06b,
    /// nemotron-speech-streaming-en-0.6b: 24 layers x 1024, cache-aware, RNN-T, 1,024 pieces.
    NemotronStreaming06b,
    /// nemotron-3.5-asr-streaming-0.6b: 24 layers x 1024, cache-aware, RNN-T, 13,087 pieces, language prompt.
    Nemotron35Streaming06b,
    /// parakeet_realtime_eou_120m-v1: 17 layers x 512, cache-aware, RNN-T, 1,026 pieces.
    RealtimeEou120m,
    /// parakeet-tdt-mini: 12 layers x 256, cache-aware, TDT, 1,024 pieces.
    TdtMini,
}

impl Like {
    /// Every one.
    pub const ALL: [Self; 9] = [
        Self::Tdt06bV3,
        Self::Tdt11b,
        Self::Rnnt11b,
        Self::TdtCtc110m,
        Self::Unified06b,
        Self::NemotronStreaming06b,
        Self::Nemotron35Streaming06b,
        Self::RealtimeEou120m,
        Self::TdtMini,
    ];
}

impl fmt::Display for Like {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tdt06bV3 => "parakeet-tdt-0.6b-v3",
            Self::Tdt11b => "parakeet-tdt-1.1b",
            Self::Rnnt11b => "parakeet-rnnt-1.1b",
            Self::TdtCtc110m => "parakeet-tdt_ctc-110m",
            Self::Unified06b => "parakeet-unified-en-0.6b",
            Self::NemotronStreaming06b => "nemotron-speech-streaming-en-0.6b",
            Self::Nemotron35Streaming06b => "nemotron-3.5-asr-streaming-0.6b",
            Self::RealtimeEou120m => "parakeet_realtime_eou_120m-v1",
            Self::TdtMini => "parakeet-tdt-mini",
        })
    }
}

impl FromStr for Like {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|like| like.to_string() == name).ok_or_else(|| {
            let known = Self::ALL.map(|like| like.to_string()).join(", ");
            Error::Option { option: "like", reason: format!("there is no shape {name:?}; there are {known}") }
        })
    }
}

/// What to make.
#[derive(Clone, Debug)]
pub struct SynthOptions {
    /// Whose shape.
    pub like: Like,
    /// Number of pieces, if not as many as the published model has.
    pub vocabulary: Option<usize>,
    /// Number of encoder layers, if not as many as the published model has.
    pub layers: Option<usize>,
    /// Seed of the weights: the same seed and shape give the same model.
    pub seed: u64,
}

/// The configuration of such a model.
pub fn synthetic_config(options: &SynthOptions) -> Result<ModelConfig> {
    let like = options.like;
    let (layers, width) = match like {
        Like::Tdt11b | Like::Rnnt11b => (42, 1024),
        Like::TdtCtc110m | Like::RealtimeEou120m => (17, 512),
        Like::TdtMini => (12, 256),
        Like::Tdt06bV3 | Like::Unified06b | Like::NemotronStreaming06b | Like::Nemotron35Streaming06b => {
            (24, 1024)
        }
    };
    let mini = like == Like::TdtMini;
    let attention = match like {
        Like::Tdt06bV3 | Like::Tdt11b | Like::Rnnt11b | Like::TdtCtc110m => AttentionStyle::Regular,
        Like::Unified06b => AttentionStyle::ChunkedLimitedWithRc,
        _ => AttentionStyle::ChunkedLimited,
    };
    let causal = attention == AttentionStyle::ChunkedLimited;
    let is_rnnt = match like {
        Like::Tdt06bV3 | Like::Tdt11b | Like::TdtCtc110m | Like::TdtMini => false,
        Like::Rnnt11b | Like::Unified06b => true,
        Like::NemotronStreaming06b | Like::Nemotron35Streaming06b | Like::RealtimeEou120m => true,
    };
    let config = ModelConfig {
        format: FORMAT,
        name: format!("synthetic-{like}"),
        features: FeaturesConfig {
            sample_rate: 16_000,
            mel_bins: if matches!(like, Like::Tdt11b | Like::Rnnt11b | Like::TdtCtc110m) { 80 } else { 128 },
            normalize: if causal { Normalize::None } else { Normalize::PerFeature },
        },
        encoder: EncoderConfig {
            layers: options.layers.unwrap_or(layers),
            width,
            heads: if mini { 4 } else { 8 },
            ff_width: 4 * width,
            subsampling_channels: if mini { 128 } else { 256 },
            causal_subsampling: causal,
            conv_kernel: 9,
            conv_context: if causal { [8, 0] } else { [4, 4] },
            conv_norm: if causal { ConvNorm::LayerNorm } else { ConvNorm::BatchNorm },
            attention,
            contexts: match like {
                Like::Nemotron35Streaming06b => vec![[56, 3], [56, 0], [56, 6], [56, 13]],
                Like::RealtimeEou120m => vec![[70, 1]],
                Like::NemotronStreaming06b | Like::TdtMini => vec![[70, 13], [70, 6], [70, 1], [70, 0]],
                _ => vec![[-1, -1]],
            },
            windows: (like == Like::Unified06b).then(|| WindowsConfig {
                left: vec![70],
                chunk: vec![1, 2, 7, 13],
                right: vec![0, 1, 2, 3, 4, 7, 13],
            }),
            bias: matches!(like, Like::Tdt11b | Like::Rnnt11b | Like::TdtCtc110m | Like::Unified06b),
            xscaling: matches!(like, Like::Tdt11b | Like::Rnnt11b | Like::Unified06b),
        },
        decoder: DecoderConfig {
            vocabulary: options.vocabulary.unwrap_or(match like {
                Like::Tdt06bV3 => 8_192,
                Like::Nemotron35Streaming06b => 13_087,
                Like::RealtimeEou120m => 1_026,
                _ => 1_024,
            }),
            predictor_width: if mini { 320 } else { 640 },
            predictor_layers: if width == 1024 { 2 } else { 1 },
            joint_width: if mini { 320 } else { 640 },
            kind: if is_rnnt { Transducer::Rnnt } else { Transducer::Tdt { durations: vec![0, 1, 2, 3, 4] } },
            // What a random network says of a frame it goes on saying, so that each frame gets one chance. After a token
            // of a TDT the next frame heard is most often another.
            max_symbols: if is_rnnt { 1 } else { 10 },
        },
        emission_delay_ms: 0,
        languages: Vec::new(),
        prompt: (like == Like::Nemotron35Streaming06b).then(|| PromptConfig {
            places: 128,
            hidden: 2 * width,
            languages: [("auto", 101), ("en-US", 0), ("es-ES", 2)]
                .map(|(code, place)| (code.to_owned(), place))
                .into(),
        }),
    };
    config.validate().map_err(Error::Unsupported)?;
    Ok(config)
}

/// Writes a model directory with weights in half precision, one tensor in memory at a time, and returns its
/// configuration. `out` and `progress` are as for [`convert`](super::convert()); of the options it is the name and the
/// cancellation that count.
pub fn synthesize(
    options: &SynthOptions,
    out: &Path,
    conversion: &ConvertOptions,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<ModelConfig> {
    let mut config = synthetic_config(options)?;
    if let Some(name) = &conversion.name {
        config.name.clone_from(name);
    }
    write(out, conversion, progress, &|_| {
        let tensors = Box::new(Weights::new(&config, options.like, options.seed));
        let vocabulary = vocabulary(config.decoder.vocabulary);
        Ok(Source { path: out.to_owned(), config: config.clone(), vocabulary, tensors })
    })
}

/// Made-up syllables, every third the beginning of a word.
fn vocabulary(pieces: usize) -> Vocabulary {
    const ONSETS: [&str; 16] =
        ["b", "d", "f", "g", "h", "j", "k", "l", "m", "n", "p", "r", "s", "t", "v", "z"];
    const RHYMES: [&str; 8] = ["a", "e", "i", "o", "u", "an", "er", "is"];
    let syllable = |number: usize| {
        let mut text = String::new();
        let mut rest = number;
        loop {
            text.push_str(ONSETS[rest % 16]);
            text.push_str(RHYMES[rest / 16 % 8]);
            rest /= 128;
            if rest == 0 {
                return text;
            }
            rest -= 1;
        }
    };
    let piece = |id: usize| match id {
        0 => ("<unk>".to_owned(), PieceKind::Unknown),
        id if id % 3 == 1 => (format!("{SPACE}{}", syllable(id / 3)), PieceKind::Normal),
        id => (syllable(id), PieceKind::Normal),
    };
    Vocabulary::new((0..pieces).map(piece).collect())
}

/// Random weights, each tensor by its name and the seed alone.
struct Weights {
    specs: BTreeMap<String, TensorSpec>,
    seed: u64,
    blank: Blank,
    /// How much the last token decides the next.
    predictor_gain: f32,
}

/// Where the joint's output for blank is, how much is added to it, and how much livelier it is than a token's.
struct Blank {
    index: usize,
    lead: f32,
    gain: f32,
}

impl Weights {
    fn new(config: &ModelConfig, like: Like, seed: u64) -> Self {
        let specs = expected(config).into_iter().map(|spec| (spec.name.clone(), spec)).collect();
        let vocabulary = config.decoder.vocabulary;
        let rnnt = config.decoder.kind == Transducer::Rnnt;
        // A token wins where the best of all tokens beats blank. Their logits are about normal with deviation 1, so the
        // best is near the expected maximum, and blank is put so far from it that a token wins often enough. In a model
        // of one symbol a frame the frame decides: blank's logit follows the sound more than the token before.
        let blank = Blank {
            index: vocabulary,
            lead: expected_maximum(vocabulary) + margin(like),
            gain: if rnnt { 2.0 } else { 1.0 },
        };
        Self { specs, seed, blank, predictor_gain: if rnnt { 0.5 } else { 2.0 } }
    }
}

/// How far blank is ahead of the best token. Found for each shape with speech, noise and both much quieter, such that about 3
/// tokens a second come of them.
fn margin(like: Like) -> f32 {
    match like {
        Like::Tdt06bV3 => 0.35,
        Like::Tdt11b => 1.95,
        Like::TdtCtc110m => 1.7,
        Like::Rnnt11b => 2.75,
        Like::Unified06b | Like::NemotronStreaming06b => 2.25,
        Like::Nemotron35Streaming06b => 1.35,
        Like::RealtimeEou120m => 0.75,
        Like::TdtMini => -0.6,
    }
}

/// About the expected maximum of so many standard normal numbers.
fn expected_maximum(count: usize) -> f32 {
    let spread = (2.0 * (count.max(3) as f32).ln()).sqrt();
    spread - ((4.0 * std::f32::consts::PI).ln() + spread.powi(2).ln() - 2.0_f32.ln()) / (2.0 * spread)
}

impl TensorSource for Weights {
    fn list(&self) -> BTreeMap<String, Listed> {
        let listed = |spec: &TensorSpec| Listed { name: spec.name.clone(), shape: spec.shape.clone() };
        self.specs.iter().map(|(name, spec)| (name.clone(), listed(spec))).collect()
    }

    fn read(&mut self, name: &str) -> Result<Vec<f32>> {
        let spec =
            self.specs.get(name).ok_or_else(|| Error::Unsupported(format!("tensor {name} is missing")))?;
        let mut rng = Rng::with_seed(name.bytes().fold(self.seed ^ 0xcbf2_9ce4_8422_2325, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        }));
        Ok(self.values(spec, &mut rng))
    }
}

impl Weights {
    fn values(&self, spec: &TensorSpec, rng: &mut Rng) -> Vec<f32> {
        let name = spec.name.as_str();
        let size = spec.elements();
        let inputs = size / spec.shape[0];
        // Uniform numbers of this deviation.
        let mut noise = |deviation: f32, middle: f32| -> Vec<f32> {
            let scale = 2.0 * 3.0_f32.sqrt() * deviation;
            (0..size).map(|_| middle + scale * (rng.f32() - 0.5)).collect()
        };
        let preserving = |gain: f32| gain / (inputs as f32).sqrt();
        let is_weight = name.ends_with(".weight");
        if name.contains("norm") && spec.shape.len() == 1 {
            return match name.rsplit('.').next() {
                Some("weight") => noise(0.05, 1.0),
                // The deviation of what comes out of a gate and a convolution here.
                Some("running_var") => noise(0.02, 0.4),
                _ => noise(0.05, 0.0),
            };
        }
        // Taps without a sum hear changes only, so that the encoder's output moves with the sound. Behind the rectifier of
        // the prompt they take away what all frames have in common; what is left of its variance is 0.3.
        let prompted = name == "prompt_kernel.2.weight";
        if prompted || name.ends_with("depthwise_conv.weight") || name == "encoder.pre_encode.conv.0.weight" {
            let mut values = noise(preserving(if prompted { 1.8 } else { 2.0 }), 0.0);
            for taps in values.chunks_exact_mut(inputs) {
                let mean = taps.iter().sum::<f32>() / inputs as f32;
                taps.iter_mut().for_each(|tap| *tap -= mean);
            }
            return values;
        }
        match name {
            _ if name.starts_with("encoder.pre_encode.") && is_weight => noise(preserving(1.6), 0.0),
            _ if name.contains("pointwise_conv2") && is_weight => noise(preserving(3.0), 0.0),
            _ if name.starts_with("joint.joint_net") => self.joint_output(spec, noise(1.0, 0.0)),
            "joint.enc.weight" => noise(preserving(1.0), 0.0),
            "joint.pred.weight" => noise(preserving(self.predictor_gain), 0.0),
            "decoder.prediction.embed.weight" => noise(1.0, 0.0),
            _ if name.starts_with("decoder.") && is_weight => noise(preserving(1.5), 0.0),
            _ if name.starts_with("decoder.") && spec.shape.len() == 2 => noise(preserving(1.5), 0.0),
            _ if spec.shape.len() >= 2 => noise(preserving(1.0), 0.0),
            _ => noise(0.02, 0.0),
        }
    }

    /// Turns numbers of deviation 1 into the joint's output layer: logits of deviation 1, blank ahead of them.
    fn joint_output(&self, spec: &TensorSpec, mut values: Vec<f32>) -> Vec<f32> {
        let Some(&[_, inputs]) = spec.shape.first_chunk::<2>() else {
            debug_assert!(spec.name == format!("{JOINT_OUTPUT}.bias"));
            values.iter_mut().for_each(|value| *value *= 0.02);
            values[self.blank.index] += self.blank.lead;
            return values;
        };
        // Half of the hidden values are zero, the others are of a normal number with the sum of both sides' variance.
        let scale = (2.0 / (inputs as f32 * HIDDEN_VARIANCE)).sqrt();
        values.iter_mut().for_each(|value| *value *= scale);
        values[self.blank.index * inputs..][..inputs].iter_mut().for_each(|value| *value *= self.blank.gain);
        values
    }
}

/// Variance of what enters the joint's rectifier: 1 of the encoder's side and what the predictor's side adds.
const HIDDEN_VARIANCE: f32 = 1.3;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::parameters;

    fn options(like: Like) -> SynthOptions {
        SynthOptions { like, vocabulary: None, layers: None, seed: 1 }
    }

    #[test]
    fn the_shapes_are_the_published_ones() {
        let count = |options: &SynthOptions| parameters(&synthetic_config(options).unwrap());
        assert_eq!(count(&options(Like::Tdt06bV3)), 627_008_134);
        let v2 = SynthOptions { vocabulary: Some(1_024), ..options(Like::Tdt06bV3) };
        assert_eq!(count(&v2), 617_825_926);
        let mini = crate::model::ModelConfig::read(
            &Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/parakeet-tdt-mini/config.json"),
        )
        .unwrap();
        let like_mini = ModelConfig {
            name: "parakeet-tdt-mini".into(),
            // Of its weights, not of its shape.
            emission_delay_ms: mini.emission_delay_ms,
            languages: vec!["en".into()],
            ..synthetic_config(&options(Like::TdtMini)).unwrap()
        };
        assert_eq!(like_mini, mini);
        assert!(synthetic_config(&SynthOptions { layers: Some(0), ..options(Like::TdtMini) }).is_err());
    }

    /// What conversion reads of the published settings is what is made here, but for names and the prompt's languages.
    #[test]
    fn the_settings_are_the_published_ones() {
        let published = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/published");
        let mut compared = 0;
        for like in Like::ALL {
            let Ok(yaml) = std::fs::read_to_string(published.join(format!("{like}.yaml"))) else { continue };
            let read = crate::convert::nemo::read_config(&yaml, "same").unwrap().model;
            let mut made = synthetic_config(&options(like)).unwrap();
            made.name = "same".into();
            // One chance a frame is for random weights.
            made.decoder.max_symbols = read.decoder.max_symbols;
            if let (Some(made), Some(read)) = (&mut made.prompt, &read.prompt) {
                made.languages = read.languages.clone();
            }
            assert_eq!(made, read, "{like}");
            compared += 1;
        }
        assert_eq!(compared, 7, "parakeet-tdt-1.1b is like parakeet-rnnt-1.1b, parakeet-tdt-mini is our own");
    }

    #[test]
    fn names_are_read_as_they_are_written() {
        for like in Like::ALL {
            assert_eq!(like.to_string().parse::<Like>().unwrap(), like);
        }
    }

    #[test]
    fn weights_are_finite_in_half_precision_and_pieces_differ() {
        let small = SynthOptions { layers: Some(1), vocabulary: Some(5_000), ..options(Like::TdtMini) };
        let config = synthetic_config(&small).unwrap();
        let mut weights = Weights::new(&config, Like::TdtMini, 7);
        for (name, spec) in weights.specs.clone() {
            let values = weights.read(&name).unwrap();
            assert_eq!(values.len(), spec.elements(), "{name}");
            assert!(values.iter().all(|value| value.abs() < 100.0), "{name}");
            assert!(values.iter().any(|value| *value != values[0]), "{name}");
        }
        let vocabulary = vocabulary(5_000);
        let pieces: std::collections::HashSet<_> = (0..5_000).map(|id| vocabulary.piece(id)).collect();
        assert_eq!(pieces.len(), 5_000);
    }
}
