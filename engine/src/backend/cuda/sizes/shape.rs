// SPDX-License-Identifier: MPL-2.0
//! Sizes of a model as the kernels see them, and how a slot's memory lies on the card.

use super::blocks::{SLOTS, SUBSAMPLE_FIRST_THREADS, SUBSAMPLE_SECOND_THREADS};
use super::card::{Card, TENSOR_CORES};
use crate::backend::{CachePrecision, EngineOptions, Precision};
use crate::error::{Error, Result};
use crate::model::config::EncoderConfig;
use crate::model::{Geometry, ModelConfig};

/// Largest width whose rows a warp holds in its registers.
const MOST_WIDTH: usize = 4_096;

/// Mel frames that a slot keeps from step to step at most: what three causal convolutions look back.
pub const KEPT: usize = 14;

/// Rows that `convolution` computes one after the other, at least.
pub const TILE: usize = 16;

/// Most threads of a block.
const MOST_THREADS: usize = 1_024;

/// Everything that the kernels are compiled for.
#[derive(Clone, Debug)]
pub struct Shape {
    /// What the card can do.
    pub card: Card,
    /// Of values; products may be in fewer bits.
    pub precision: Precision,
    /// The products of the layers are in 8 bits.
    pub product8: bool,
    /// Keys and values are kept in 8 bits.
    pub cache8: bool,
    pub encoder: EncoderConfig,
    pub bins: usize,
    pub geometry: Geometry,
    /// Rows of the rings: the largest left context that is streamed with caches, 0 if none is.
    pub left: usize,
    /// Most frames of a chunk that is streamed with caches.
    pub chunk: usize,
    /// Rows that `convolution` computes one after the other.
    pub tile: usize,
    /// Width between the layers of the language prompt, 0 without one.
    pub prompt: usize,
    pub predictor: usize,
    pub predictor_layers: usize,
    pub joint: usize,
    pub vocabulary: usize,
    pub durations: Vec<u32>,
    pub max_symbols: usize,
    /// Values of a row that a thread takes at a time.
    pub lane: usize,
    /// Channels that a thread of `convolution` takes.
    pub per: usize,
}

/// Bytes that a stream of the model holds on a card between two steps, whatever its context or window: rings have room for
/// the longest left context that is streamed with caches. Needs no card. Fails where this backend can't run the model so.
pub fn stream_bytes(config: &ModelConfig, options: &EngineOptions) -> Result<usize> {
    let shape = Shape::new(config, options)?;
    shape.check_rings()?;
    Ok(shape.slot_bytes())
}

impl Shape {
    /// Of a model, on a card that can do all; see [`Shape::on`]. Fails where the kernels can't compute it.
    pub fn new(config: &ModelConfig, options: &EngineOptions) -> Result<Self> {
        let ModelConfig { encoder, decoder, .. } = config;
        let unsupported = |reason: String| Err(Error::Unsupported(format!("{reason}; use the backend cpu")));
        let width = encoder.width;
        if width > MOST_WIDTH {
            return unsupported(format!("cuda runs encoders up to a width of {MOST_WIDTH}, not {width}"));
        }
        let cached: Vec<[i32; 2]> = (0..encoder.contexts.len())
            .filter(|&context| config.is_cache_aware(context))
            .map(|context| encoder.contexts[context])
            .collect();
        let left = cached.iter().map(|[left, _]| *left as usize).max().unwrap_or(0);
        let chunk = cached.iter().map(|[_, right]| *right as usize + 1).max().unwrap_or(0);
        let precision = options.precision.of(config);
        let cache8 = options.cache == CachePrecision::Int8;
        if cache8 && precision == Precision::F32 {
            let reason = "int8 goes with the precisions f16 and bf16".into();
            return Err(Error::Option { option: "cache", reason });
        }
        let product8 = precision == Precision::F8;
        if product8 && !(width.is_multiple_of(16) && encoder.ff_width.is_multiple_of(16)) {
            let reason = "f8 goes with widths that are multiples of 16: use f16".into();
            return Err(Error::Option { option: "precision", reason });
        }
        let most = if precision == Precision::F32 { 4 } else { 8 };
        let divides =
            |lane: &usize| width.is_multiple_of(32 * lane) && encoder.ff_width.is_multiple_of(*lane);
        let lane = [8, 4, 2].into_iter().filter(|&lane| lane <= most).find(divides).unwrap_or(1);
        let per = if width >= 1_024 && width.is_multiple_of(4) { 4 } else { 2 };
        if width.div_ceil(per) > MOST_THREADS {
            return unsupported(format!("cuda runs encoders wider than 2048 in steps of 4, not {width}"));
        }
        Ok(Self {
            card: Card::ANY,
            precision: if product8 { Precision::F16 } else { precision },
            product8,
            cache8,
            encoder: encoder.clone(),
            bins: config.features.mel_bins,
            geometry: Geometry::new(config),
            left,
            chunk,
            tile: chunk.max(TILE),
            prompt: config.prompt.as_ref().map_or(0, |prompt| prompt.hidden),
            predictor: decoder.predictor_width,
            predictor_layers: decoder.predictor_layers,
            joint: decoder.joint_width,
            vocabulary: decoder.vocabulary,
            durations: decoder.durations().to_vec(),
            max_symbols: decoder.max_symbols,
            lane,
            per,
        })
    }

    /// Width of a head.
    pub fn head(&self) -> usize {
        self.encoder.width / self.encoder.heads
    }

    /// What to say of a stream whose logits are no numbers.
    pub fn overflow(&self) -> String {
        let name = if self.product8 { Precision::F8 } else { self.precision };
        match name {
            Precision::Bf16 | Precision::F32 => {
                format!(
                    "in precision {name} this model computes what is no number: the checkpoint may be damaged"
                )
            }
            Precision::Auto | Precision::F16 | Precision::F8 => {
                format!("precision {name} overflowed in this model; use bf16")
            }
        }
    }

    /// Bytes of a value.
    pub fn size(&self) -> usize {
        if self.precision == Precision::F32 { 4 } else { 2 }
    }

    /// Values of a row of logits.
    pub fn logits(&self) -> usize {
        (self.vocabulary + 1 + self.durations.len()).next_multiple_of(16)
    }

    /// Mel frames that a slot of this model keeps.
    pub fn kept(&self) -> usize {
        if self.left > 0 { KEPT } else { 0 }
    }

    /// Bytes of K and V of one slot, layer and head; in 8 bits each row has a scale of 4 bytes.
    pub fn ring_bytes(&self) -> usize {
        let row = if self.cache8 { self.head() + 4 } else { self.head() * self.size() };
        (2 * self.left * row).next_multiple_of(if self.cache8 { 128 } else { 16 })
    }

    pub fn rings_bytes(&self) -> usize {
        self.encoder.layers * self.encoder.heads * self.ring_bytes()
    }

    /// Frames of convolution input that a slot keeps in each layer.
    pub fn tail(&self) -> usize {
        self.encoder.conv_context[0]
    }

    pub fn tails_bytes(&self) -> usize {
        let kept = if self.left > 0 { self.tail() } else { 0 };
        self.encoder.layers * kept * self.encoder.width * self.size()
    }

    /// Bytes of `Memory` in `decode.cu`, a slot's decoder state.
    pub fn memory_bytes(&self) -> usize {
        (2 * self.predictor_layers * self.predictor + self.joint + 2) * 4
    }

    pub fn state_bytes(&self) -> usize {
        (self.kept() * self.bins * 4 + self.memory_bytes()).next_multiple_of(16)
    }

    /// Bytes of one slot.
    pub fn slot_bytes(&self) -> usize {
        self.rings_bytes() + self.tails_bytes() + self.state_bytes()
    }

    /// Bytes of a block of [`SLOTS`] slots.
    pub fn block_bytes(&self) -> usize {
        SLOTS * self.slot_bytes()
    }

    /// Threads of a block of `subsample_first`, two channels at a time.
    pub fn subsample_first_threads(&self) -> usize {
        self.geometry.channels.div_ceil(2).next_multiple_of(32).min(SUBSAMPLE_FIRST_THREADS)
    }

    /// Threads of a block of `subsample_second`.
    pub fn subsample_second_threads(&self) -> usize {
        self.geometry.channels.next_multiple_of(32).min(SUBSAMPLE_SECOND_THREADS)
    }

    /// Threads of a block of `convolution`.
    pub fn convolution_threads(&self) -> usize {
        (self.encoder.width / self.per).next_multiple_of(32)
    }

    /// The same on this card. Fails where the card can't compute so, saying what it can.
    pub fn on(self, card: Card) -> Result<Self> {
        card.check(if self.product8 { Precision::F8 } else { self.precision })?;
        let shape = Self { card, ..self };
        shape.check_rings()?;
        Ok(shape)
    }

    /// Whether the card can keep rings of this type.
    fn check_rings(&self) -> Result<()> {
        if !self.cache8 || self.left == 0 || self.ring_warps().is_some() {
            return Ok(());
        }
        let anywhere = Self { card: Card::ANY, ..self.clone() };
        let reason = if anywhere.ring_warps().is_none() {
            "the model's heads or chunks don't go with int8: use full".into()
        } else if self.card.tensor_cores() {
            let kilobytes = self.card.shared_memory >> 10;
            format!("a block of this card has {kilobytes} KB of shared memory, too little for int8: use full")
        } else {
            self.card.lacks("int8", TENSOR_CORES, "full")
        };
        Err(Error::Option { option: "cache", reason })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::convert::{Like, SynthOptions, synthetic_config};

    #[test]
    fn a_stream_of_the_large_models_holds_so_much() {
        let bytes = |like, cache| {
            let model = SynthOptions { like, vocabulary: None, layers: None, seed: 0 };
            let config = synthetic_config(&model).expect("a configuration");
            stream_bytes(&config, &EngineOptions { cache, ..Default::default() }).expect("it runs")
        };
        // Decoder state: hidden and cell of 2 LSTM layers of 640, what the joint makes of it (640) and a time jump, 4 bytes
        // each: (2 * 2 * 640 + 640 + 1) * 4 = 12,804. Features: 14 mel frames of 128 bins, 4 bytes each = 7,168. Together
        // 19,972, in units of 16 bytes 19,984.
        let state = 19_984;
        // Convolutions: 24 layers, 8 frames of 1,024 halves = 393,216.
        let tails = 24 * 8 * 1_024 * 2;
        // Rings: 24 layers, K and V, 70 frames of 1,024 halves = 6,881,280.
        let halves = 24 * 2 * 70 * 1_024 * 2;
        // Of 24 layers and 8 heads, K and V, 70 frames of 128 bytes and a scale: 18,480 bytes, in lines of 128 18,560.
        let bytes8 = 24 * 8 * 18_560;
        let like = Like::NemotronStreaming06b;
        let full = bytes(like, CachePrecision::Full);
        assert_eq!((full, full), (halves + tails + state, 7_294_480));
        assert!(full <= 7_400_000);
        let int8 = bytes(like, CachePrecision::Int8);
        assert_eq!((int8, int8), (bytes8 + tails + state, 3_976_720));
        // Windows leave nothing but the decoder's state, in units of 16 bytes.
        assert_eq!(bytes(Like::Tdt06bV3, CachePrecision::Int8), 12_816);
    }

    #[test]
    fn every_published_shape_has_its_sizes() {
        for like in Like::ALL {
            let model = SynthOptions { like, vocabulary: None, layers: None, seed: 0 };
            let config = synthetic_config(&model).expect("a configuration");
            for (precision, cache) in [
                (Precision::F16, CachePrecision::Full),
                (Precision::Bf16, CachePrecision::Int8),
                (Precision::F32, CachePrecision::Full),
                (Precision::F8, CachePrecision::Int8),
            ] {
                let options = EngineOptions { precision, cache, ..Default::default() };
                let shape = Shape::new(&config, &options).unwrap_or_else(|e| panic!("{like}: {e}"));
                shape.check_rings().unwrap_or_else(|e| panic!("{like} {precision} {cache}: {e}"));
                // Streams of windows keep the decoder's state alone.
                assert_eq!(shape.left > 0, config.is_cache_aware(0), "{like}");
                assert_eq!(shape.rings_bytes() > 0, config.is_cache_aware(0), "{like}");
                assert!(shape.slot_bytes() >= shape.memory_bytes(), "{like}");
            }
        }
    }

    #[test]
    fn what_a_card_cannot_run_is_told_without_one() {
        let model = SynthOptions { like: Like::TdtMini, vocabulary: None, layers: None, seed: 0 };
        let config = synthetic_config(&model).expect("a configuration");
        let int8 = EngineOptions { cache: CachePrecision::Int8, ..Default::default() };
        let single = EngineOptions { precision: Precision::F32, ..int8.clone() };
        let error = stream_bytes(&config, &single).expect_err("they don't go together").to_string();
        assert_eq!(error, "cache: int8 goes with the precisions f16 and bf16");
        let mut odd = config.clone();
        odd.encoder.heads = 16;
        let error = stream_bytes(&odd, &int8).expect_err("heads of 16").to_string();
        assert_eq!(error, "cache: the model's heads or chunks don't go with int8: use full");
        let mut wide = config;
        wide.encoder.width = 8_192;
        let error = stream_bytes(&wide, &int8).expect_err("too wide").to_string();
        let expected =
            "unsupported model: cuda runs encoders up to a width of 4096, not 8192; use the backend cpu";
        assert_eq!(error, expected);
    }
}
