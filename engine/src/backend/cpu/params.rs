// SPDX-License-Identifier: MPL-2.0
//! The model's tensors by role: matrices stay in the mapped file, vectors and convolution taps are copied.

use crate::error::Result;
use crate::model::config::{ConvNorm, ModelConfig, PromptConfig};
use crate::model::tensors::{JOINT_OUTPUT, PROMPT};
use crate::model::weights::{Stored, TensorData};
use crate::model::{Geometry, Model, Weights};

use super::parts::{Linear, Norm, Taps, vector};
use super::prompt::Prompt;

/// The 8x `dw_striding` subsampling.
pub struct Subsampling {
    pub first: Taps,
    pub depthwise: [Taps; 2],
    pub pointwise: [Linear; 2],
    pub out: Linear,
}

/// One Conformer layer.
pub struct Layer {
    pub norm_ff1: Norm,
    pub ff1: [Linear; 2],
    pub norm_attention: Norm,
    pub query: Linear,
    pub key: Linear,
    pub value: Linear,
    pub position: Linear,
    /// `[heads, width / heads]`, flattened.
    pub bias_u: Vec<f32>,
    pub bias_v: Vec<f32>,
    pub attention_out: Linear,
    pub norm_conv: Norm,
    pub pointwise1: Linear,
    pub depthwise: Taps,
    pub conv_norm: Norm,
    pub pointwise2: Linear,
    pub norm_ff2: Norm,
    pub ff2: [Linear; 2],
    pub norm_out: Norm,
}

/// Input and recurrent half of an LSTM layer; gates in torch's order i, f, g, o.
pub struct Lstm {
    pub input: Linear,
    pub hidden: Linear,
}

/// Predictor and joint.
pub struct Decoder {
    embedding: Stored,
    width: usize,
    pub lstm: Vec<Lstm>,
    pub joint_encoder: Linear,
    pub joint_predictor: Linear,
    pub joint_out: Linear,
}

impl Decoder {
    /// Row `label` of the embedding.
    pub fn embed(&self, label: usize, out: &mut [f32]) {
        let range = label * self.width..(label + 1) * self.width;
        match self.embedding.data() {
            TensorData::F16(data) => {
                out.iter_mut().zip(&data[range]).for_each(|(out, value)| *out = value.to_f32());
            }
            TensorData::F32(data) => out.copy_from_slice(&data[range]),
        }
    }
}

/// Everything a forward pass reads.
pub struct Params {
    pub subsampling: Subsampling,
    pub layers: Vec<Layer>,
    pub prompt: Option<Prompt>,
    pub decoder: Decoder,
}

impl Params {
    /// Looks every tensor up; matrices are not read.
    pub fn load(model: &Model) -> Result<Self> {
        let (config, weights) = (&model.config, &model.weights);
        Ok(Self {
            subsampling: subsampling(config, weights)?,
            layers: (0..config.encoder.layers).map(|i| layer(config, weights, i)).collect::<Result<_>>()?,
            prompt: config.prompt.as_ref().map(|prompt| self::prompt(config, prompt, weights)).transpose()?,
            decoder: decoder(config, weights)?,
        })
    }
}

fn prompt(config: &ModelConfig, prompt: &PromptConfig, weights: &Weights) -> Result<Prompt> {
    let &PromptConfig { places, hidden, .. } = prompt;
    let width = config.encoder.width;
    Ok(Prompt {
        inner: Linear::load(weights, PROMPT[0], &[hidden, width + places], true)?,
        outer: Linear::load(weights, PROMPT[1], &[width, hidden], true)?,
        places,
    })
}

fn subsampling(config: &ModelConfig, weights: &Weights) -> Result<Subsampling> {
    let encoder = &config.encoder;
    let channels = encoder.subsampling_channels;
    let conv = |index| format!("encoder.pre_encode.conv.{index}");
    let taps = |index| Taps::load(weights, &conv(index), &[channels, 1, 3, 3], true);
    let pointwise = |index| Linear::load(weights, &conv(index), &[channels, channels, 1, 1], true);
    let [.., bins] = Geometry::new(config).levels();
    Ok(Subsampling {
        first: taps(0)?,
        depthwise: [taps(2)?, taps(5)?],
        pointwise: [pointwise(3)?, pointwise(6)?],
        out: Linear::load(weights, "encoder.pre_encode.out", &[encoder.width, channels * bins], true)?,
    })
}

fn layer(config: &ModelConfig, weights: &Weights, index: usize) -> Result<Layer> {
    let encoder = &config.encoder;
    let (width, ff) = (encoder.width, encoder.ff_width);
    let name = |part: &str| format!("encoder.layers.{index}.{part}");
    let norm = |part: &str| Norm::load(weights, &name(part), width);
    let linear = |part: &str, shape: &[usize]| Linear::load(weights, &name(part), shape, encoder.bias);
    let head_bias = |part: &str| {
        let shape = [encoder.heads, width / encoder.heads];
        Ok::<_, crate::Error>(weights.tensor(&name(part), &shape)?.to_f32())
    };
    let conv_norm = name("conv.batch_norm");
    Ok(Layer {
        norm_ff1: norm("norm_feed_forward1")?,
        ff1: [linear("feed_forward1.linear1", &[ff, width])?, linear("feed_forward1.linear2", &[width, ff])?],
        norm_attention: norm("norm_self_att")?,
        query: linear("self_attn.linear_q", &[width, width])?,
        key: linear("self_attn.linear_k", &[width, width])?,
        value: linear("self_attn.linear_v", &[width, width])?,
        position: Linear::load(weights, &name("self_attn.linear_pos"), &[width, width], false)?,
        bias_u: head_bias("self_attn.pos_bias_u")?,
        bias_v: head_bias("self_attn.pos_bias_v")?,
        attention_out: linear("self_attn.linear_out", &[width, width])?,
        norm_conv: norm("norm_conv")?,
        pointwise1: linear("conv.pointwise_conv1", &[2 * width, width, 1])?,
        depthwise: Taps::load(
            weights,
            &name("conv.depthwise_conv"),
            &[width, 1, encoder.conv_kernel],
            encoder.bias,
        )?,
        conv_norm: match encoder.conv_norm {
            ConvNorm::LayerNorm => Norm::load(weights, &conv_norm, width)?,
            ConvNorm::BatchNorm => Norm::load_batch(weights, &conv_norm, width)?,
        },
        pointwise2: linear("conv.pointwise_conv2", &[width, width, 1])?,
        norm_ff2: norm("norm_feed_forward2")?,
        ff2: [linear("feed_forward2.linear1", &[ff, width])?, linear("feed_forward2.linear2", &[width, ff])?],
        norm_out: norm("norm_out")?,
    })
}

fn decoder(config: &ModelConfig, weights: &Weights) -> Result<Decoder> {
    let decoder = &config.decoder;
    let (width, joint) = (decoder.predictor_width, decoder.joint_width);
    let lstm = |layer: usize| {
        let half = |kind: &str| {
            let name = |what: &str| format!("decoder.prediction.dec_rnn.lstm.{what}_{kind}_l{layer}");
            Ok::<_, crate::Error>(Linear {
                weight: weights.stored(&name("weight"), &[4 * width, width])?,
                bias: Some(vector(weights, &name("bias"), 4 * width)?),
                outputs: 4 * width,
            })
        };
        Ok::<_, crate::Error>(Lstm { input: half("ih")?, hidden: half("hh")? })
    };
    let outputs = decoder.vocabulary + 1 + decoder.durations().len();
    let embedding = "decoder.prediction.embed.weight";
    Ok(Decoder {
        embedding: weights.stored(embedding, &[decoder.vocabulary + 1, width])?,
        width,
        lstm: (0..decoder.predictor_layers).map(lstm).collect::<Result<_>>()?,
        joint_encoder: Linear::load(weights, "joint.enc", &[joint, config.encoder.width], true)?,
        joint_predictor: Linear::load(weights, "joint.pred", &[joint, width], true)?,
        joint_out: Linear::load(weights, JOINT_OUTPUT, &[outputs, joint], true)?,
    })
}
