// SPDX-License-Identifier: MPL-2.0
//! Everything that kernels are compiled for, as macros: sizes of the model, of blocks and of memory, and the numbers that
//! other backends compute with too. No kernel says any of them itself.

use super::attention::{Ring, WINDOW_COLUMNS};
use super::blocks::{CONSTANTS, SLOTS};
use super::shape::Shape;
use super::skinny::ROW_LIMITS;
use crate::audio::features::{DEVIATION_GUARD, FFT, HANN, HOP, LOG_GUARD, PREEMPHASIS};
use crate::backend::Precision;
use crate::backend::constants::{ENTROPY_ALPHA, EPSILON};
use crate::model::config::ConvNorm;

impl Shape {
    /// The macros as options of the compiler.
    pub fn macros(&self) -> Vec<String> {
        let mut all = Vec::new();
        let mut whole = |numbers: &[(&str, usize)]| {
            all.extend(numbers.iter().map(|(name, value)| format!("-D{name}={value}")));
        };
        whole(&self.model_macros());
        whole(&self.attention_macros());
        whole(CONSTANTS);
        for kernel in self.skinny_shapes() {
            let name = kernel.name.to_uppercase();
            whole(&[(&format!("{name}_TILES"), kernel.tiles), (&format!("{name}_PIECES"), kernel.pieces)]);
            for rows in ROW_LIMITS {
                whole(&[(&format!("{name}_BYTES_{rows}"), kernel.bytes(rows))]);
            }
        }
        let single = [("PREEMPHASIS", PREEMPHASIS), ("LOG_GUARD", LOG_GUARD), ("EPSILON", EPSILON)];
        all.extend(single.map(|(name, value)| format!("-D{name}={value:e}f")));
        let double = [("DEVIATION_GUARD", DEVIATION_GUARD), ("ENTROPY_ALPHA", ENTROPY_ALPHA)];
        all.extend(double.map(|(name, value)| format!("-D{name}={value:e}")));
        let durations: Vec<_> = self.durations.iter().map(u32::to_string).collect();
        all.push(format!("-DDURATION_VALUES={{{}}}", durations.join(",")));
        all
    }

    fn model_macros(&self) -> [(&'static str, usize); 43] {
        let Self { encoder, geometry, .. } = self;
        let [bins1, bins2, bins3] = geometry.levels();
        let real = match self.precision {
            Precision::F32 => 0,
            Precision::Auto | Precision::F16 | Precision::F8 => 1,
            Precision::Bf16 => 2,
        };
        [
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
            ("CONVOLUTION_THREADS", self.convolution_threads()),
            ("FF", encoder.ff_width),
            ("HOP", HOP),
            ("HANN", HANN),
            ("FFT", FFT),
            ("BINS", self.bins),
            ("KEPT", self.kept()),
            ("KV_BYTES", self.ring_bytes()),
            ("TAIL_AT", SLOTS * self.rings_bytes()),
            ("STATE_AT", SLOTS * (self.rings_bytes() + self.tails_bytes())),
            ("STATE_BYTES", self.state_bytes()),
            ("MEMORY_BYTES", self.memory_bytes()),
            ("PAD", geometry.left_padding()),
            ("CHANNELS", geometry.channels),
            ("BINS1", bins1),
            ("BINS2", bins2),
            ("BINS3", bins3),
            ("LANE", self.lane),
            ("PER", self.per),
            ("TILE", self.tile),
            ("PRED", self.predictor),
            ("PRED_LAYERS", self.predictor_layers),
            ("JOINT", self.joint),
            ("VOCABULARY", self.vocabulary),
            ("BLANK", self.vocabulary),
            ("DURATIONS", self.durations.len()),
            ("LOGITS", self.logits()),
            ("MAX_SYMBOLS", self.max_symbols),
            ("SKINNY", usize::from(self.skinny_rows().is_some())),
            ("SKINNY_DECODER", usize::from(self.skinny_decoder())),
            ("RING8_SCALES_AT", 2 * self.left * self.head()),
        ]
    }

    fn attention_macros(&self) -> [(&'static str, usize); 17] {
        let ring = Ring::new(self);
        [
            ("TENSOR_CORES", usize::from(self.tensor_cores())),
            ("RINGS", usize::from(self.ring_warps().is_some())),
            ("HEAD_PITCH", self.pitch()),
            ("ONE_PASS", usize::from(ring.one_pass)),
            ("KEYS", ring.keys),
            ("COLUMNS", ring.columns),
            ("RING_ROW", ring.row),
            ("RING_PITCH", ring.pitch),
            ("K_ROWS", ring.key_rows),
            ("TABLE_ROWS", ring.table_rows),
            ("TABLE_BYTES", ring.table_bytes),
            ("SCALES_AT", ring.scales_at),
            ("WARP_BYTES", ring.warp_bytes),
            ("RING_THREADS", 32 * ring.most_warps),
            ("WINDOW_COLUMNS", WINDOW_COLUMNS),
            ("SIMPLE_BYTES", self.simple_attention_memory()),
            ("WINDOW_BYTES", self.window_attention_memory()),
        ]
    }
}
