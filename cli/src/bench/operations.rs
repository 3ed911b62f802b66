// SPDX-License-Identifier: MPL-2.0
//! How many operations and bytes a step takes at least, counted from the model's shape.
//!
//! Counted are products, convolutions and attention, a multiplication and an addition as two; the features, norms and
//! activation functions are a few per mille beside them. The bytes are those that no device gets around: the weights
//! once a call, the keys, values and convolution tails of every stream in and what is new of them out. The products of
//! the position table don't count, it is the same for every step.

use parakeet_engine::FRAME_SAMPLES;
use parakeet_engine::backend::Mode;
use parakeet_engine::model::ModelConfig;
use parakeet_engine::model::config::{ConvNorm, Transducer};
use parakeet_engine::{CachePrecision, EngineOptions, Precision};

/// What a step is made of.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Streams in the step.
    pub streams: usize,
    /// Calls of the backend that they are spread over, each of which reads the weights.
    pub calls: usize,
    /// Encoder frames that go through the layers, of each stream: a chunk, or a whole window.
    pub frames: usize,
    /// Frames before them whose keys and values are kept, of each stream; may be a mean.
    pub history: f64,
    /// Encoder frames that are decoded, of each stream.
    pub decoded: usize,
    /// Tokens that all streams emit; may be a mean.
    pub tokens: f64,
    /// Keys, values and convolution tails are kept from step to step.
    pub cached: bool,
}

impl Shape {
    /// Frames of a stream's step once its left context is full, `(layers, kept, decoded)`; one pass is over `samples`
    /// samples.
    pub fn full(mode: Mode, config: &ModelConfig, samples: usize) -> (usize, usize, usize) {
        match mode {
            Mode::Cached { context } => {
                let [left, right] = config.encoder.contexts[context].map(|frames| frames.max(0) as usize);
                (right + 1, left, right + 1)
            }
            Mode::Buffered { window, .. } => (window.frames(), 0, window.chunk),
            Mode::Offline { .. } => {
                let frames = samples.div_ceil(FRAME_SAMPLES as usize);
                (frames, 0, frames)
            }
        }
    }
}

/// Bytes of a number.
#[derive(Clone, Copy, Debug)]
pub struct Widths {
    /// Of a weight, on average.
    pub weight: f64,
    /// Of a value in a convolution tail.
    pub state: f64,
    /// Of a key's or value's element, with its share of a scale.
    pub cache: f64,
}

impl Widths {
    /// On the backend of this name; `stored` are the bytes of a weight in the model's file, where the CPU reads it.
    pub fn new(backend: &str, options: &EngineOptions, config: &ModelConfig, stored: f64) -> Self {
        if backend == "cpu" {
            return Self { weight: stored, state: 4.0, cache: 4.0 };
        }
        let (size, weight) = match options.precision.of(config) {
            Precision::Auto | Precision::F16 | Precision::Bf16 => (2.0, 2.0),
            Precision::F32 => (4.0, 4.0),
            Precision::F8 => (2.0, 2.0 - layer_weights(config) / weights(config)),
        };
        let head = config.encoder.width / config.encoder.heads;
        let cache = match options.cache {
            CachePrecision::Full => size,
            CachePrecision::Int8 => 1.0 + 2.0 / head as f64,
        };
        Self { weight, state: size, cache }
    }
}

/// What a step takes at least.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Work {
    /// Floating-point operations.
    pub operations: f64,
    /// Bytes read and written.
    pub bytes: f64,
}

impl Work {
    /// Of a step of this shape.
    pub fn of(config: &ModelConfig, shape: &Shape, widths: &Widths) -> Self {
        let streams = shape.streams as f64;
        let rows = streams * shape.frames as f64;
        let decoded = streams * shape.decoded as f64;
        // A TDT evaluates its joint for a token or a jump, and an RNN-T for the blank of each frame too.
        let joints = match config.decoder.kind {
            Transducer::Rnnt => decoded + shape.tokens,
            Transducer::Tdt { .. } => shape.tokens,
        };
        let operations = rows * (layers_and_subsampling(config) + attention(config, shape))
            + decoded * 2.0 * prompt_and_joint_input(config)
            + joints * 2.0 * joint_output(config)
            + shape.tokens * 2.0 * predictor(config);
        let state = if shape.cached { state_bytes(config, shape, widths) } else { 0.0 };
        Self { operations, bytes: shape.calls as f64 * weights(config) * widths.weight + streams * state }
    }
}

/// Weights of all layers that are multiplied with each frame.
fn layer_weights(config: &ModelConfig) -> f64 {
    let encoder = &config.encoder;
    let (width, inner) = (encoder.width as f64, encoder.ff_width as f64);
    // Two feed-forward modules; query, key, value and output; twice the width and once in the convolution module.
    let products = 4.0 * width * inner + 4.0 * width * width + 3.0 * width * width;
    encoder.layers as f64 * (products + encoder.conv_kernel as f64 * width)
}

/// Scores, positions and values of one frame in all layers.
fn attention(config: &ModelConfig, shape: &Shape) -> f64 {
    let seen = shape.history + shape.frames as f64;
    let positions = seen + shape.frames as f64 - 1.0;
    config.encoder.layers as f64 * 2.0 * config.encoder.width as f64 * (2.0 * seen + positions)
}

/// Multiplications of the subsampling for one frame; it has 8 mel frames, then 4, 2 and 1 positions.
fn subsampling(config: &ModelConfig) -> f64 {
    let channels = config.encoder.subsampling_channels as f64;
    let bins = levels(config);
    let taps = 9.0 * channels * (4.0 * bins[0] + 2.0 * bins[1] + bins[2]);
    let products = channels * channels * (2.0 * bins[1] + bins[2]);
    taps + products + bins[2] * channels * config.encoder.width as f64
}

/// Bins after each of the three convolutions.
fn levels(config: &ModelConfig) -> [f64; 3] {
    let mut bins = config.features.mel_bins;
    [(); 3].map(|()| {
        bins = if config.encoder.causal_subsampling { bins / 2 + 1 } else { bins.div_ceil(2) };
        bins as f64
    })
}

fn layers_and_subsampling(config: &ModelConfig) -> f64 {
    2.0 * (layer_weights(config) + subsampling(config))
}

fn prompt_and_joint_input(config: &ModelConfig) -> f64 {
    let width = config.encoder.width as f64;
    let prompt = config.prompt.as_ref().map_or(0.0, |prompt| 2.0 * width * prompt.hidden as f64);
    prompt + width * config.decoder.joint_width as f64
}

fn joint_output(config: &ModelConfig) -> f64 {
    let decoder = &config.decoder;
    decoder.joint_width as f64 * (decoder.vocabulary + 1 + decoder.durations().len()) as f64
}

fn predictor(config: &ModelConfig) -> f64 {
    let decoder = &config.decoder;
    let width = decoder.predictor_width as f64;
    decoder.predictor_layers as f64 * 8.0 * width * width + width * decoder.joint_width as f64
}

/// Weights that a step reads, each once.
fn weights(config: &ModelConfig) -> f64 {
    let encoder = &config.encoder;
    let (width, channels) = (encoder.width as f64, encoder.subsampling_channels as f64);
    // Five norms and that of the convolution, two vectors each; BatchNorm is folded into the taps.
    let norms = if encoder.conv_norm == ConvNorm::LayerNorm { 12.0 } else { 10.0 };
    let subsampling = 27.0 * channels + 2.0 * channels * channels + levels(config)[2] * channels * width;
    layer_weights(config)
        + encoder.layers as f64 * norms * width
        + subsampling
        + prompt_and_joint_input(config)
        + joint_output(config)
        + predictor(config)
}

/// Keys, values and convolution tails of one stream, in and out.
fn state_bytes(config: &ModelConfig, shape: &Shape, widths: &Widths) -> f64 {
    let encoder = &config.encoder;
    let tail = encoder.conv_kernel as f64 - 1.0;
    let frames = shape.frames as f64;
    let row = encoder.layers as f64 * encoder.width as f64;
    row * (2.0 * (shape.history + frames) * widths.cache + (tail + frames.min(tail)) * widths.state)
}

#[cfg(test)]
mod tests {
    use super::*;
    use parakeet_engine::Window;
    use parakeet_engine::convert::{Like, SynthOptions, synthetic_config};

    fn large(like: Like) -> ModelConfig {
        synthetic_config(&SynthOptions { like, vocabulary: None, layers: None, seed: 1 }).unwrap()
    }

    fn assert_near(found: f64, expected: f64) {
        assert!((found / expected - 1.0).abs() < 1e-3, "found {found:e}, expected {expected:e}");
    }

    #[test]
    fn the_shape_with_600_million_parameters_is_as_worked_out_by_hand() {
        let config = large(Like::NemotronStreaming06b);
        let taps = 24.0 * 9.0 * 1024.0;
        // Two feed-forwards of 1024 x 4096 in and out, 3 + 1 squares of 1024 in the attention, 2 + 1 in the convolution.
        assert_near(2.0 * (layer_weights(&config) - taps), 1.1576e9);
        let shape =
            Shape { streams: 1, calls: 1, frames: 1, history: 70.0, decoded: 1, tokens: 0.0, cached: true };
        // 24 layers x 2 x 1024 x (71 scores + 71 values + 71 positions).
        assert_near(attention(&config, &shape), 24.0 * 2.0 * 1024.0 * 213.0);
        // Bins 65, 33, 17: 9 taps x 256 x (4 x 65 + 2 x 33 + 17), 256 x 256 x (2 x 33 + 17), 17 x 256 x 1024.
        assert_near(subsampling(&config), 790_272.0 + 5_439_488.0 + 4_456_448.0);
        let half = Widths { weight: 2.0, state: 2.0, cache: 2.0 };
        // Read 24 x 2 x 70 x 1024 x 2 bytes (6.88 MB) of keys and values and write 98 kB, and 8 rows and 1 of the tails.
        assert_near(state_bytes(&config, &shape, &half), 6.881e6 + 98_304.0 + 393_216.0 + 49_152.0);
        // An int8 ring has 16 bits of scale for 128 values: 3.49 MB.
        let options = EngineOptions { cache: CachePrecision::Int8, ..Default::default() };
        let int8 = Widths::new("cuda", &options, &config, 4.0);
        assert_near(70.0 * 24.0 * 2.0 * 1024.0 * int8.cache, 3.494e6);
        // Of 592 M weights 579 M in 8 bits.
        let options = EngineOptions { precision: Precision::F8, ..Default::default() };
        let f8 = Widths::new("cuda", &options, &config, 4.0);
        assert_near(weights(&config) * f8.weight, 579.0e6 + 2.0 * 13.2e6);
        // 71 frames of keys and values, 9 of the tails, and the weights: 579 M in the layers, with the rest 592 M.
        let one = Work::of(&config, &shape, &half);
        let rest = 6_912.0 + 131_072.0 + 4_456_448.0 + 655_360.0 + 656_000.0 + 6_553_600.0 + 409_600.0;
        assert_near(one.bytes, 2.0 * (578.8e6 + taps + 24.0 * 12.0 * 1024.0 + rest) + 7.422e6);
    }

    #[test]
    fn streams_share_the_weights_and_nothing_else() {
        let config = large(Like::NemotronStreaming06b);
        let widths = Widths::new("cuda", &EngineOptions::default(), &config, 4.0);
        let at = |streams: usize| {
            let tokens = streams as f64 * 0.25;
            let shape =
                Shape { streams, calls: 1, frames: 7, history: 70.0, decoded: 7, tokens, cached: true };
            Work::of(&config, &shape, &widths)
        };
        let (one, many) = (at(1), at(100));
        assert_near(many.operations, 100.0 * one.operations);
        let shared = weights(&config) * widths.weight;
        assert_near(many.bytes - shared, 100.0 * (one.bytes - shared));
    }

    #[test]
    fn a_window_goes_through_the_layers_whole_and_keeps_nothing() {
        let config = large(Like::Tdt06bV3);
        let window = Window { left: 125, chunk: 25, right: 25 };
        let (frames, history, decoded) = Shape::full(Mode::Buffered { context: 0, window }, &config, 0);
        assert_eq!((frames, history, decoded), (175, 0, 25));
        assert_eq!(Shape::full(Mode::Offline { context: 0 }, &config, 32_000), (25, 0, 25));
        let widths = Widths::new("cuda", &EngineOptions::default(), &config, 4.0);
        let at = |streams: usize| {
            let shape =
                Shape { streams, calls: 1, frames, history: 0.0, decoded, tokens: 0.0, cached: false };
            Work::of(&config, &shape, &widths)
        };
        assert_eq!(at(1).bytes, at(50).bytes);
        // The layers, 175 x 2 + 349 scores, values and positions, and the subsampling of bins 64, 32 and 16.
        let layers = 175.0 * (1.1576e9 + 24.0 * 2.0 * 1024.0 * (699.0 + 9.0));
        let convolutions = 175.0 * 2.0 * (774_144.0 + 5_242_880.0 + 4_194_304.0);
        assert_near(at(1).operations, layers + convolutions + 25.0 * 2.0 * 1024.0 * 640.0);
    }
}
