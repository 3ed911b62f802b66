// SPDX-License-Identifier: MPL-2.0
//! Sizes of a model as the kernels see them, and how a slot's memory lies on the card.

use crate::backend::{CachePrecision, EngineOptions, Precision};
use crate::error::{Error, Result};
use crate::model::config::{ConvNorm, EncoderConfig};
use crate::model::{Geometry, ModelConfig};

/// Slots of a block: memory is taken in pieces of this many streams.
pub const SLOTS: usize = 32;

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
    lane: usize,
    /// Channels that a thread of `convolution` takes.
    per: usize,
}

/// Bytes that a stream of the model holds on a card between two steps, whatever its context or window: rings have room for
/// the longest left context that is streamed with caches. Needs no card. Fails where this backend can't run the model so.
pub fn stream_bytes(config: &ModelConfig, options: &EngineOptions) -> Result<usize> {
    let shape = Shape::new(config, options)?;
    shape.check_rings(usize::MAX)?;
    Ok(shape.slot_bytes())
}

impl Shape {
    /// Of a model. Fails where the kernels can't compute it.
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
        let cache8 = options.cache == CachePrecision::Int8;
        if cache8 && options.precision == Precision::F32 {
            let reason = "int8 goes with the precisions f16 and bf16".into();
            return Err(Error::Option { option: "cache", reason });
        }
        let product8 = options.precision == Precision::F8;
        if product8 && !(width.is_multiple_of(16) && encoder.ff_width.is_multiple_of(16)) {
            let reason = "f8 goes with widths that are multiples of 16: use f16".into();
            return Err(Error::Option { option: "precision", reason });
        }
        let most = if options.precision == Precision::F32 { 4 } else { 8 };
        let divides =
            |lane: &usize| width.is_multiple_of(32 * lane) && encoder.ff_width.is_multiple_of(*lane);
        let lane = [8, 4, 2].into_iter().filter(|&lane| lane <= most).find(divides).unwrap_or(1);
        let per = if width >= 1_024 && width.is_multiple_of(4) { 4 } else { 2 };
        if width.div_ceil(per) > MOST_THREADS {
            return unsupported(format!("cuda runs encoders wider than 2048 in steps of 4, not {width}"));
        }
        Ok(Self {
            precision: if product8 { Precision::F16 } else { options.precision },
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

    fn rings_bytes(&self) -> usize {
        self.encoder.layers * self.encoder.heads * self.ring_bytes()
    }

    /// Frames of convolution input that a slot keeps in each layer.
    fn tail(&self) -> usize {
        self.encoder.conv_context[0]
    }

    fn tails_bytes(&self) -> usize {
        let kept = if self.left > 0 { self.tail() } else { 0 };
        self.encoder.layers * kept * self.encoder.width * self.size()
    }

    /// Bytes of `Memory` in `decode.cu`.
    pub fn memory_bytes(&self) -> usize {
        (2 * self.predictor_layers * self.predictor + self.joint + 1) * 4
    }

    fn state_bytes(&self) -> usize {
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

    /// Parts that the bins of a position are cut into, so that few streams fill a card too.
    pub const PARTS: usize = 4;

    /// Threads of a block of `convolution`.
    pub fn convolution_threads(&self) -> usize {
        (self.encoder.width / self.per).next_multiple_of(32)
    }

    /// Whether attention runs on tensor cores.
    pub fn tensor_cores(&self) -> bool {
        self.precision != Precision::F32 && self.head().is_multiple_of(16) && self.head() <= 128
    }

    /// Shared memory of a block of `attention_simple`.
    pub fn simple_attention_memory(&self) -> usize {
        4 * (63 * (self.head() + 1) + 16 * (self.head() + 17))
    }

    /// Shared memory of a block of `attention_window`.
    pub fn window_attention_memory(&self) -> usize {
        256 * (2 * self.head() + 16) + 512 + 22_528
    }

    /// Warps of a block of `attention_ring` on a card that gives a block `most` bytes of shared memory; none where that
    /// kernel can't be used.
    pub fn ring_warps(&self, most: usize) -> Option<usize> {
        let fits = |warps: &usize| self.ring_attention_memory(*warps) <= most;
        let suits = self.left > 0
            && self.tensor_cores()
            && self.chunk <= 16
            && (!self.cache8 || self.head().is_multiple_of(32));
        let warps = if self.cache8 { 8 } else { 4 };
        suits.then(|| (1..=warps).rev().find(fits)).flatten()
    }

    /// Whether a card that gives a block `most` bytes of shared memory can keep rings of this type.
    pub fn check_rings(&self, most: usize) -> Result<()> {
        if self.cache8 && self.left > 0 && self.ring_warps(most).is_none() {
            let reason = "the model's heads or chunks don't go with int8: use full".into();
            return Err(Error::Option { option: "cache", reason });
        }
        Ok(())
    }

    /// Shared memory of a block of `attention_ring` of so many warps, as `attention_ring.cu` lays it out.
    pub fn ring_attention_memory(&self, warps: usize) -> usize {
        let (left, head) = (self.left, self.head());
        let keys = if left <= 80 { left + 16 } else { 64 };
        let columns = (keys + 30) / 16 * 16 + 4;
        let row = if self.cache8 { head } else { 2 * head };
        let pitch = row + 16;
        let table = (left + 31) * (2 * head + 16) + ((left + 31) * 4 + 8).next_multiple_of(16);
        let key_rows = keys.max(64 * columns / pitch + 17);
        let scales = if self.cache8 { (8 * keys).next_multiple_of(16) } else { 0 };
        table + warps * ((key_rows + keys) * pitch + scales)
    }

    /// The macros of `common.cuh` and of the kernels, as options of the compiler.
    pub fn macros(&self) -> Vec<String> {
        let Self { encoder, geometry, .. } = self;
        let [bins1, bins2, bins3] = geometry.levels();
        let real = match self.precision {
            Precision::F32 => 0,
            Precision::F16 | Precision::F8 => 1,
            Precision::Bf16 => 2,
        };
        let numbers = [
            ("REAL", real),
            ("WIDTH", encoder.width),
            ("HEADS", encoder.heads),
            ("HEAD", self.head()),
            ("LAYERS", encoder.layers),
            ("LEFT", self.left),
            ("CACHE8", usize::from(self.cache8)),
            ("PRODUCT8", usize::from(self.product8)),
            ("TAPS", encoder.conv_kernel),
            ("TAIL", self.tail()),
            ("AHEAD", encoder.conv_context[1]),
            ("CONV_NORM", usize::from(encoder.conv_norm == ConvNorm::LayerNorm)),
            ("FF", encoder.ff_width),
            ("BINS", self.bins),
            ("KEPT", self.kept()),
            ("SLOTS", SLOTS),
            ("KV_BYTES", self.ring_bytes()),
            ("TAIL_AT", SLOTS * self.rings_bytes()),
            ("STATE_AT", SLOTS * (self.rings_bytes() + self.tails_bytes())),
            ("STATE_BYTES", self.state_bytes()),
            ("PAD", geometry.left_padding()),
            ("CHANNELS", geometry.channels),
            ("BINS1", bins1),
            ("BINS2", bins2),
            ("BINS3", bins3),
            ("PARTS", Self::PARTS),
            ("LANE", self.lane),
            ("PER", self.per),
            ("TILE", self.tile),
            ("PRED", self.predictor),
            ("PRED_LAYERS", self.predictor_layers),
            ("JOINT", self.joint),
            ("VOCABULARY", self.vocabulary),
            ("DURATIONS", self.durations.len()),
            ("LOGITS", self.logits()),
            ("MAX_SYMBOLS", self.max_symbols),
        ];
        let mut macros: Vec<_> = numbers.iter().map(|(name, value)| format!("-D{name}={value}")).collect();
        let durations: Vec<_> = self.durations.iter().map(u32::to_string).collect();
        macros.push(format!("-DDURATION_VALUES={{{}}}", durations.join(",")));
        macros
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
