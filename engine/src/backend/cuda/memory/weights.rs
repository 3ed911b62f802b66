// SPDX-License-Identifier: MPL-2.0
//! The model's tensors on the card, by role and as the kernels want them.

use std::sync::Arc;

use half::slice::HalfFloatSliceExt;

use crate::audio::features::{FFT, LogMel};
use crate::backend::cuda::card::{Buffer, Device, Kernels, Matrix, upload};
use crate::backend::cuda::sizes::Shape;
use crate::backend::{Precision, fold};
use crate::error::Result;
use crate::model::config::{ConvNorm, ModelConfig};
use crate::model::tensors::{JOINT_OUTPUT, PROMPT};
use crate::model::{Model, TensorData, Weights};

/// Weight and bias of a norm.
pub struct Norm {
    pub weight: Buffer,
    pub bias: Buffer,
}

/// Taps `[taps][channels]` and bias of a convolution over single channels.
pub struct Taps {
    pub taps: Buffer,
    pub bias: Buffer,
}

/// Tables of the front end.
pub struct Features {
    pub window: Buffer,
    pub roots: Buffer,
    pub filters: Buffer,
    pub offsets: Buffer,
    pub weights: Buffer,
}

/// The 8x `dw_striding` subsampling.
pub struct Subsampling {
    pub first: Taps,
    pub depthwise: [Taps; 2],
    pub pointwise: [Matrix; 2],
    pub out: Matrix,
}

/// One Conformer layer. The biases of the feed-forward modules' second halves are halved, as the modules are.
pub struct Layer {
    pub norm_ff1: Norm,
    pub ff1: [Matrix; 2],
    pub norm_attention: Norm,
    /// Heads of attention.
    pub heads: usize,
    /// Query, key and value together; the query's bias has u in it.
    pub qkv: Matrix,
    pub position: Matrix,
    /// v - u, `[width]`.
    pub difference: Buffer,
    pub attention_out: Matrix,
    pub norm_conv: Norm,
    pub pointwise1: Matrix,
    /// With a BatchNorm folded in.
    pub depthwise: Taps,
    /// A LayerNorm, or nothing of use.
    pub conv_norm: Norm,
    pub pointwise2: Matrix,
    pub norm_ff2: Norm,
    pub ff2: [Matrix; 2],
    pub norm_out: Norm,
}

/// The language prompt.
pub struct Prompt {
    /// Of the encoder's output.
    pub inner: Matrix,
    /// What each place adds, `[places][hidden]`.
    pub places: Buffer,
    pub outer: Matrix,
}

/// An LSTM layer: the product of its inputs, and what is added to it.
pub struct Lstm {
    /// Of the hidden state in the first layer, of the layer below's and its own in the others.
    pub product: Matrix,
    /// In the first layer a row for each label, `[vocabulary + 1][4 * width]`; in the others one.
    pub table: Buffer,
}

/// Predictor and joint.
pub struct Decoder {
    /// Embedding `[vocabulary + 1][width]` and input half of the first layer with both biases, until its table is made.
    pub labels: Option<(Buffer, Matrix)>,
    pub lstm: Vec<Lstm>,
    pub joint_encoder: Matrix,
    pub joint_predictor: Matrix,
    pub joint_out: Matrix,
}

/// Everything that a step reads.
pub struct Params {
    pub features: Features,
    pub subsampling: Subsampling,
    pub layers: Vec<Layer>,
    pub prompt: Option<Prompt>,
    pub decoder: Decoder,
}

/// Looks tensors up and brings them to the card.
struct Loader<'a> {
    device: &'a Arc<Device>,
    kernels: &'a Kernels,
    weights: &'a Weights,
    precision: Precision,
}

impl Loader<'_> {
    /// In the precision of the activations.
    fn real(&self, values: &[f32]) -> Result<Buffer> {
        upload(self.device, self.precision, values)
    }

    fn tensor(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        Ok(self.weights.tensor(name, shape)?.to_f32())
    }

    fn floats(&self, name: &str, shape: &[usize]) -> Result<Buffer> {
        self.device.upload(&self.tensor(name, shape)?)
    }

    /// A tensor as it is, without widening it first where both types are half precision.
    fn stored(&self, name: &str, shape: &[usize]) -> Result<Buffer> {
        match self.weights.tensor(name, shape)?.data {
            TensorData::F16(data) if self.precision == Precision::F16 => self.device.upload(data),
            TensorData::F16(data) => self.real(&data.to_f32_vec()),
            TensorData::F32(data) => self.real(data),
        }
    }

    /// `bias` multiplies the bias that the model has.
    fn matrix(&self, name: &str, shape: &[usize], bias: Option<f32>) -> Result<Matrix> {
        let bias = match bias {
            Some(factor) => {
                let values = self.tensor(&format!("{name}.bias"), &shape[..1])?;
                Some(self.real(&values.iter().map(|value| value * factor).collect::<Vec<_>>())?)
            }
            None => None,
        };
        let weight = self.stored(&format!("{name}.weight"), shape)?;
        Ok(Matrix { weight, scales: None, bias, outputs: shape[0], inputs: shape[1..].iter().product() })
    }

    /// In 8 bits where the products of the layers are.
    fn narrow(&self, matrix: Matrix) -> Result<Matrix> {
        let Some(kernel) = &self.kernels.quantise_rows else { return Ok(matrix) };
        let weight = self.device.buffer(matrix.outputs * matrix.inputs)?;
        let scales = self.device.buffer(matrix.outputs * 4)?;
        let arguments = [(&matrix.weight).into(), matrix.inputs.into(), (&weight).into(), (&scales).into()];
        self.device.launch(kernel, [matrix.outputs, 1], &arguments)?;
        self.device.wait()?;
        Ok(Matrix { weight, scales: Some(scales), ..matrix })
    }

    /// As [`Loader::matrix`], with a bias in single precision, for results in single precision.
    fn precise(&self, name: &str, shape: &[usize]) -> Result<Matrix> {
        let bias = Some(self.floats(&format!("{name}.bias"), &shape[..1])?);
        Ok(Matrix { bias, ..self.matrix(name, shape, None)? })
    }

    fn norm(&self, name: &str, width: usize) -> Result<Norm> {
        let part = |part: &str| self.floats(&format!("{name}.{part}"), &[width]);
        Ok(Norm { weight: part("weight")?, bias: part("bias")? })
    }

    /// From a tensor `[channels, 1, ...]`, whose taps follow each other channel by channel; `fold` is a factor and a
    /// summand for each channel.
    fn taps(&self, name: &str, shape: &[usize], bias: bool, fold: Option<[Vec<f32>; 2]>) -> Result<Taps> {
        let channels = shape[0];
        let by_channel = self.tensor(&format!("{name}.weight"), shape)?;
        let [factors, summands] = fold.unwrap_or([vec![1.0; channels], vec![0.0; channels]]);
        let bias =
            if bias { self.tensor(&format!("{name}.bias"), &[channels])? } else { vec![0.0; channels] };
        let mut taps = fold::channels_last(&by_channel, channels);
        for tap in taps.chunks_exact_mut(channels) {
            tap.iter_mut().zip(&factors).for_each(|(value, factor)| *value *= factor);
        }
        let bias: Vec<f32> = (0..channels).map(|i| bias[i] * factors[i] + summands[i]).collect();
        Ok(Taps { taps: self.device.upload(&taps)?, bias: self.device.upload(&bias)? })
    }
}

impl Params {
    /// Copies everything to the card.
    pub fn load(device: &Arc<Device>, model: &Model, shape: &Shape, kernels: &Kernels) -> Result<Self> {
        let loader = Loader { device, kernels, weights: &model.weights, precision: shape.precision };
        let config = &model.config;
        Ok(Self {
            features: features(&loader, config)?,
            subsampling: subsampling(&loader, config, shape)?,
            layers: (0..config.encoder.layers).map(|i| layer(&loader, config, i)).collect::<Result<_>>()?,
            prompt: prompt(&loader, config)?,
            decoder: decoder(&loader, config, shape)?,
        })
    }
}

fn features(loader: &Loader<'_>, config: &ModelConfig) -> Result<Features> {
    let mel = LogMel::new(&config.features);
    let root = |k: usize| {
        let angle = -std::f64::consts::TAU * k as f64 / FFT as f64;
        [angle.cos(), angle.sin()]
    };
    let roots: Vec<[f64; 2]> = (0..FFT / 2).map(root).collect();
    let (mut filters, mut offsets, mut weights) = (Vec::new(), Vec::new(), Vec::<f32>::new());
    for (first, triangle) in mel.filters() {
        filters.push([*first as i32, triangle.len() as i32]);
        offsets.push(weights.len() as i32);
        weights.extend(triangle);
    }
    Ok(Features {
        window: loader.device.upload(mel.window())?,
        roots: loader.device.upload(&roots)?,
        filters: loader.device.upload(&filters)?,
        offsets: loader.device.upload(&offsets)?,
        weights: loader.device.upload(&weights)?,
    })
}

fn subsampling(loader: &Loader<'_>, config: &ModelConfig, shape: &Shape) -> Result<Subsampling> {
    let (channels, width) = (config.encoder.subsampling_channels, config.encoder.width);
    let name = |index: usize| format!("encoder.pre_encode.conv.{index}");
    let taps = |index| loader.taps(&name(index), &[channels, 1, 3, 3], true, None);
    let pointwise = |index| loader.matrix(&name(index), &[channels, channels, 1, 1], Some(1.0));
    let bins = shape.geometry.levels()[2];
    let scale = if config.encoder.xscaling { (width as f32).sqrt() } else { 1.0 };
    let out = "encoder.pre_encode.out";
    // NeMo flattens channel by channel, the kernels bin by bin.
    let weight = loader.tensor(&format!("{out}.weight"), &[width, channels * bins])?;
    let rows = weight.chunks_exact(channels * bins);
    let turned: Vec<f32> = rows.flat_map(|row| fold::channels_last(row, channels)).collect();
    let bias = loader.tensor(&format!("{out}.bias"), &[width])?;
    let bias: Vec<f32> = bias.iter().map(|value| value * scale).collect();
    Ok(Subsampling {
        first: taps(0)?,
        depthwise: [taps(2)?, taps(5)?],
        pointwise: [pointwise(3)?, pointwise(6)?],
        out: Matrix {
            weight: loader.real(&turned)?,
            scales: None,
            bias: Some(loader.real(&bias)?),
            outputs: width,
            inputs: channels * bins,
        },
    })
}

fn layer(loader: &Loader<'_>, config: &ModelConfig, index: usize) -> Result<Layer> {
    let encoder = &config.encoder;
    let (width, ff) = (encoder.width, encoder.ff_width);
    let name = |what: &str| format!("encoder.layers.{index}.{what}");
    let bias = encoder.bias.then_some(1.0);
    let matrix = |what: &str, shape: &[usize]| loader.narrow(loader.matrix(&name(what), shape, bias)?);
    let half = |what: &str| loader.narrow(loader.matrix(&name(what), &[width, ff], bias.map(|_| 0.5))?);
    let norm = |what: &str| loader.norm(&name(what), width);
    let head = [encoder.heads, width / encoder.heads];
    let u = loader.tensor(&name("self_attn.pos_bias_u"), &head)?;
    let v = loader.tensor(&name("self_attn.pos_bias_v"), &head)?;
    let (mut qkv, mut qkv_bias) = (Vec::new(), Vec::new());
    for (part, extra) in [("q", Some(&u)), ("k", None), ("v", None)] {
        qkv.extend(loader.tensor(&name(&format!("self_attn.linear_{part}.weight")), &[width, width])?);
        let mut values = match encoder.bias {
            true => loader.tensor(&name(&format!("self_attn.linear_{part}.bias")), &[width])?,
            false => vec![0.0; width],
        };
        for (value, extra) in values.iter_mut().zip(extra.into_iter().flatten()) {
            *value += extra;
        }
        qkv_bias.extend(values);
    }
    let difference: Vec<f32> = v.iter().zip(&u).map(|(v, u)| v - u).collect();
    // NeMo names both norms so.
    let conv_norm = name("conv.batch_norm");
    let fold = match encoder.conv_norm {
        ConvNorm::LayerNorm => None,
        ConvNorm::BatchNorm => {
            let part = |part: &str| loader.tensor(&format!("{conv_norm}.{part}"), &[width]);
            let (mut factor, mut summand) = (part("weight")?, part("bias")?);
            let (mean, variance) = (part("running_mean")?, part("running_var")?);
            fold::batch_norm(&mut factor, &mut summand, &mean, &variance);
            Some([factor, summand])
        }
    };
    let taps = &[width, 1, encoder.conv_kernel];
    Ok(Layer {
        norm_ff1: norm("norm_feed_forward1")?,
        ff1: [matrix("feed_forward1.linear1", &[ff, width])?, half("feed_forward1.linear2")?],
        norm_attention: norm("norm_self_att")?,
        heads: encoder.heads,
        qkv: loader.narrow(Matrix {
            weight: loader.real(&qkv)?,
            scales: None,
            bias: Some(loader.real(&qkv_bias)?),
            outputs: 3 * width,
            inputs: width,
        })?,
        position: loader.matrix(&name("self_attn.linear_pos"), &[width, width], None)?,
        difference: loader.device.upload(&difference)?,
        attention_out: matrix("self_attn.linear_out", &[width, width])?,
        norm_conv: norm("norm_conv")?,
        pointwise1: matrix("conv.pointwise_conv1", &[2 * width, width, 1])?,
        depthwise: loader.taps(&name("conv.depthwise_conv"), taps, encoder.bias, fold)?,
        conv_norm: loader.norm(&conv_norm, width)?,
        pointwise2: matrix("conv.pointwise_conv2", &[width, width, 1])?,
        norm_ff2: norm("norm_feed_forward2")?,
        ff2: [matrix("feed_forward2.linear1", &[ff, width])?, half("feed_forward2.linear2")?],
        norm_out: norm("norm_out")?,
    })
}

fn prompt(loader: &Loader<'_>, config: &ModelConfig) -> Result<Option<Prompt>> {
    let Some(prompt) = &config.prompt else { return Ok(None) };
    let (places, hidden, width) = (prompt.places, prompt.hidden, config.encoder.width);
    let [inner, outer] = PROMPT;
    let weight = loader.tensor(&format!("{inner}.weight"), &[hidden, width + places])?;
    let rows = || weight.chunks_exact(width + places);
    let of_encoder: Vec<f32> = rows().flat_map(|row| row[..width].iter().copied()).collect();
    let of_places: Vec<f32> =
        (0..places).flat_map(|place| rows().map(move |row| row[width + place])).collect();
    let bias = loader.tensor(&format!("{inner}.bias"), &[hidden])?;
    Ok(Some(Prompt {
        inner: Matrix {
            weight: loader.real(&of_encoder)?,
            scales: None,
            bias: Some(loader.real(&bias)?),
            outputs: hidden,
            inputs: width,
        },
        places: loader.device.upload(&of_places)?,
        outer: loader.matrix(outer, &[width, hidden], Some(1.0))?,
    }))
}

fn decoder(loader: &Loader<'_>, config: &ModelConfig, shape: &Shape) -> Result<Decoder> {
    let decoder = &config.decoder;
    let (width, joint) = (decoder.predictor_width, decoder.joint_width);
    let name = |what: &str, layer: usize| format!("decoder.prediction.dec_rnn.lstm.{what}_l{layer}");
    let half = |what: &str, layer| loader.tensor(&name(what, layer), &[4 * width, width]);
    let bias = |layer| {
        let [input, hidden] =
            ["bias_ih", "bias_hh"].map(|what| loader.tensor(&name(what, layer), &[4 * width]));
        Ok::<Vec<f32>, crate::Error>(input?.iter().zip(&hidden?).map(|(i, h)| i + h).collect())
    };
    let mut lstm = Vec::new();
    for layer in 0..decoder.predictor_layers {
        let (input, hidden) = (half("weight_ih", layer)?, half("weight_hh", layer)?);
        let (weight, inputs) = if layer == 0 {
            (hidden, width)
        } else {
            let rows = input.chunks_exact(width).zip(hidden.chunks_exact(width));
            (rows.flat_map(|(i, h)| i.iter().chain(h).copied()).collect(), 2 * width)
        };
        lstm.push(Lstm {
            product: Matrix {
                weight: loader.real(&weight)?,
                scales: None,
                bias: None,
                outputs: 4 * width,
                inputs,
            },
            table: match layer {
                0 => loader.device.buffer((decoder.vocabulary + 1) * 4 * width * 4)?,
                _ => loader.device.upload(&bias(layer)?)?,
            },
        });
    }
    let outputs = decoder.vocabulary + 1 + decoder.durations().len();
    // Rows of zeros fill the logits' rows up.
    let mut out = loader.tensor(&format!("{JOINT_OUTPUT}.weight"), &[outputs, joint])?;
    let mut out_bias = loader.tensor(&format!("{JOINT_OUTPUT}.bias"), &[outputs])?;
    out.resize(shape.logits() * joint, 0.0);
    out_bias.resize(shape.logits(), 0.0);
    Ok(Decoder {
        labels: Some((
            loader.stored("decoder.prediction.embed.weight", &[decoder.vocabulary + 1, width])?,
            Matrix {
                weight: loader.real(&half("weight_ih", 0)?)?,
                scales: None,
                bias: Some(loader.device.upload(&bias(0)?)?),
                outputs: 4 * width,
                inputs: width,
            },
        )),
        lstm,
        joint_encoder: loader.precise("joint.enc", &[joint, config.encoder.width])?,
        joint_predictor: loader.precise("joint.pred", &[joint, width])?,
        joint_out: Matrix {
            weight: loader.real(&out)?,
            scales: None,
            bias: Some(loader.device.upload(&out_bias)?),
            outputs: shape.logits(),
            inputs: joint,
        },
    })
}
