// SPDX-License-Identifier: MPL-2.0
//! The tensors that a configuration implies: names and shapes as in NeMo's state dict.

use super::Geometry;
use super::config::{ConvNorm, ModelConfig};

/// One tensor that the model needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorSpec {
    /// Name as in NeMo's state dict.
    pub name: String,
    /// Sizes, outermost first.
    pub shape: Vec<usize>,
    /// Norms and biases keep 32 bits; matrices and convolutions have the weights' type.
    pub full_precision: bool,
}

impl TensorSpec {
    /// Number of elements.
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }
}

/// Every tensor that `config` implies, in the order in which a forward pass meets them.
pub fn expected(config: &ModelConfig) -> Vec<TensorSpec> {
    let mut specs = Specs(Vec::new());
    encoder(config, &mut specs);
    let decoder = &config.decoder;
    let outputs = decoder.vocabulary + 1 + decoder.durations().len();
    let width = decoder.predictor_width;
    if let Some(prompt) = &config.prompt {
        let inputs = config.encoder.width + prompt.places;
        specs.linear(PROMPT[0], prompt.hidden, inputs, true);
        specs.linear(PROMPT[1], config.encoder.width, prompt.hidden, true);
    }
    specs.weight("decoder.prediction.embed.weight", &[decoder.vocabulary + 1, width]);
    for layer in 0..decoder.predictor_layers {
        let lstm = "decoder.prediction.dec_rnn.lstm";
        specs.weight(&format!("{lstm}.weight_ih_l{layer}"), &[4 * width, width]);
        specs.weight(&format!("{lstm}.weight_hh_l{layer}"), &[4 * width, width]);
        specs.vector(&format!("{lstm}.bias_ih_l{layer}"), 4 * width);
        specs.vector(&format!("{lstm}.bias_hh_l{layer}"), 4 * width);
    }
    specs.linear("joint.enc", decoder.joint_width, config.encoder.width, true);
    specs.linear("joint.pred", decoder.joint_width, width, true);
    specs.linear(JOINT_OUTPUT, outputs, decoder.joint_width, true);
    specs.0
}

/// Number of trained parameters that a configuration implies: all tensors but the statistics of batch norms.
pub fn parameters(config: &ModelConfig) -> usize {
    let statistic = |spec: &&TensorSpec| spec.name.contains(".batch_norm.running_");
    expected(config).iter().filter(|spec| !statistic(spec)).map(TensorSpec::elements).sum()
}

/// The two layers of the language prompt.
pub const PROMPT: [&str; 2] = ["prompt_kernel.0", "prompt_kernel.2"];

/// The joint's output layer. NeMo calls it `joint.joint_net.1` where the joint has no dropout.
pub const JOINT_OUTPUT: &str = "joint.joint_net.2";

fn encoder(config: &ModelConfig, specs: &mut Specs) {
    let encoder = &config.encoder;
    let (width, channels) = (encoder.width, encoder.subsampling_channels);
    for (index, inputs, kernel) in [(0, 1, 3), (2, 1, 3), (3, channels, 1), (5, 1, 3), (6, channels, 1)] {
        let name = format!("encoder.pre_encode.conv.{index}");
        specs.weight(&format!("{name}.weight"), &[channels, inputs, kernel, kernel]);
        specs.vector(&format!("{name}.bias"), channels);
    }
    let bins = Geometry::new(config).levels()[2];
    specs.linear("encoder.pre_encode.out", width, channels * bins, true);
    for layer in 0..encoder.layers {
        let layer = format!("encoder.layers.{layer}");
        specs.norm(&format!("{layer}.norm_feed_forward1"), width);
        specs.linear(&format!("{layer}.feed_forward1.linear1"), encoder.ff_width, width, encoder.bias);
        specs.linear(&format!("{layer}.feed_forward1.linear2"), width, encoder.ff_width, encoder.bias);
        specs.norm(&format!("{layer}.norm_self_att"), width);
        for projection in ["q", "k", "v", "out"] {
            specs.linear(&format!("{layer}.self_attn.linear_{projection}"), width, width, encoder.bias);
        }
        specs.linear(&format!("{layer}.self_attn.linear_pos"), width, width, false);
        for bias in ["pos_bias_u", "pos_bias_v"] {
            let shape = [encoder.heads, width / encoder.heads];
            specs.push(&format!("{layer}.self_attn.{bias}"), &shape, true);
        }
        specs.norm(&format!("{layer}.norm_conv"), width);
        let conv = format!("{layer}.conv");
        specs.conv1d(&format!("{conv}.pointwise_conv1"), [2 * width, width, 1], encoder.bias);
        specs.conv1d(&format!("{conv}.depthwise_conv"), [width, 1, encoder.conv_kernel], encoder.bias);
        specs.norm(&format!("{conv}.batch_norm"), width);
        if encoder.conv_norm == ConvNorm::BatchNorm {
            specs.vector(&format!("{conv}.batch_norm.running_mean"), width);
            specs.vector(&format!("{conv}.batch_norm.running_var"), width);
        }
        specs.conv1d(&format!("{conv}.pointwise_conv2"), [width, width, 1], encoder.bias);
        specs.norm(&format!("{layer}.norm_feed_forward2"), width);
        specs.linear(&format!("{layer}.feed_forward2.linear1"), encoder.ff_width, width, encoder.bias);
        specs.linear(&format!("{layer}.feed_forward2.linear2"), width, encoder.ff_width, encoder.bias);
        specs.norm(&format!("{layer}.norm_out"), width);
    }
}

struct Specs(Vec<TensorSpec>);

impl Specs {
    fn push(&mut self, name: &str, shape: &[usize], full_precision: bool) {
        self.0.push(TensorSpec { name: name.to_owned(), shape: shape.to_vec(), full_precision });
    }

    fn weight(&mut self, name: &str, shape: &[usize]) {
        self.push(name, shape, false);
    }

    fn vector(&mut self, name: &str, size: usize) {
        self.push(name, &[size], true);
    }

    fn norm(&mut self, name: &str, size: usize) {
        self.vector(&format!("{name}.weight"), size);
        self.vector(&format!("{name}.bias"), size);
    }

    fn linear(&mut self, name: &str, outputs: usize, inputs: usize, bias: bool) {
        self.weight(&format!("{name}.weight"), &[outputs, inputs]);
        if bias {
            self.vector(&format!("{name}.bias"), outputs);
        }
    }

    fn conv1d(&mut self, name: &str, shape: [usize; 3], bias: bool) {
        self.weight(&format!("{name}.weight"), &shape);
        if bias {
            self.vector(&format!("{name}.bias"), shape[0]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::config::*;

    /// The shape of parakeet-tdt-0.6b-v3.
    fn v3() -> ModelConfig {
        ModelConfig {
            format: FORMAT,
            name: "v3".into(),
            features: FeaturesConfig { sample_rate: 16_000, mel_bins: 128, normalize: Normalize::PerFeature },
            encoder: EncoderConfig {
                layers: 24,
                width: 1024,
                heads: 8,
                ff_width: 4096,
                subsampling_channels: 256,
                causal_subsampling: false,
                conv_kernel: 9,
                conv_context: [4, 4],
                conv_norm: ConvNorm::BatchNorm,
                attention: AttentionStyle::Regular,
                contexts: vec![[-1, -1]],
                windows: None,
                bias: false,
                xscaling: false,
            },
            decoder: DecoderConfig {
                vocabulary: 8192,
                predictor_width: 640,
                predictor_layers: 2,
                joint_width: 640,
                kind: Transducer::Tdt { durations: vec![0, 1, 2, 3, 4] },
                max_symbols: 10,
            },
            emission_delay_ms: 0,
            languages: Vec::new(),
            prompt: None,
        }
    }

    #[test]
    fn v3_has_the_published_number_of_parameters() {
        let mut config = v3();
        let running_statistics = 24 * 2 * 1024;
        let count = |config: &ModelConfig| expected(config).iter().map(TensorSpec::elements).sum::<usize>();
        assert_eq!(count(&config), 627_008_134 + running_statistics);
        config.encoder.bias = true;
        assert_eq!(count(&config), 627_450_502 + running_statistics);
    }

    #[test]
    fn ranges_are_checked() {
        type Spoil = fn(&mut ModelConfig);
        let cases: [(&str, Spoil); 12] = [
            ("name", |c| c.name.clear()),
            ("sample_rate", |c| c.features.sample_rate = 8000),
            ("mel_bins", |c| c.features.mel_bins = 0),
            ("layers", |c| c.encoder.layers = 1 << 40),
            ("width", |c| c.encoder.heads = 7),
            ("conv_context", |c| c.encoder.conv_context = [usize::MAX, 8]),
            ("contexts", |c| c.encoder.contexts.clear()),
            ("contexts", |c| c.encoder.contexts = vec![[-2, 0]]),
            ("multiple", |c| {
                c.encoder.attention = AttentionStyle::ChunkedLimited;
                c.encoder.contexts = vec![[70, 12]];
            }),
            ("without end", |c| c.encoder.attention = AttentionStyle::ChunkedLimited),
            ("vocabulary", |c| c.decoder.vocabulary = 0),
            ("durations", |c| c.decoder.kind = Transducer::Tdt { durations: vec![] }),
        ];
        assert_eq!(v3().validate(), Ok(()));
        for (word, spoil) in cases {
            let mut config = v3();
            spoil(&mut config);
            let error = config.validate().unwrap_err();
            assert!(error.contains(word), "{word}: {error}");
        }
    }
}
