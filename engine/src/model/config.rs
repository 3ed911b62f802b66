//! `config.json` of a model directory: every fact the engine needs, typed and checked.

use serde::{Deserialize, Serialize};

/// Version of the layout of `config.json` that this crate writes and reads.
pub const FORMAT: u32 = 1;

/// Everything about a model but its weights and its vocabulary.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelConfig {
    /// Layout version of this file, [`FORMAT`].
    pub format: u32,
    /// Name for people, e.g. `parakeet-tdt-mini`.
    pub name: String,
    /// Log-mel front end.
    pub features: FeaturesConfig,
    /// FastConformer encoder.
    pub encoder: EncoderConfig,
    /// Predictor, joint and decoding rule.
    pub decoder: DecoderConfig,
}

/// Log-mel front end (NeMo `AudioToMelSpectrogramPreprocessor`). Window 400, hop 160, FFT 512 at 16 kHz in every
/// checkpoint of the family; another value is refused at conversion.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FeaturesConfig {
    /// Samples a second.
    pub sample_rate: u32,
    /// Mel bins, 80 or 128.
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
    /// Linear layers and convolutions of the layers have a bias.
    pub bias: bool,
    /// The subsampled input is multiplied by `sqrt(width)`.
    pub xscaling: bool,
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
