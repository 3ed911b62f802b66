// SPDX-License-Identifier: MPL-2.0
//! The blocks that kernels are launched in.

use super::Shape;
use super::blocks::*;

/// Threads of a block, and bytes of shared memory that it asks for beyond what the kernel declares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block {
    pub threads: usize,
    pub shared: usize,
}

impl Shape {
    /// The block of kernel `name`, the largest where there are several; none where the model or the card has no such kernel.
    pub fn block(&self, name: &str) -> Option<Block> {
        let block = |threads, shared| Some(Block { threads, shared });
        match name {
            "mel_frames" => block(MEL_THREADS, 0),
            "mel_history" => block(HISTORY_THREADS, 0),
            "mel_normalize" => block(NORMALIZE_THREADS, 0),
            "subsample_first" => block(self.subsample_first_threads(), 0),
            "subsample_second" => block(self.subsample_second_threads(), 0),
            "layer_norm" | "layer_norm_twice" => block(32 * NORM_ROWS, 0),
            "silu" => block(SILU_THREADS, 0),
            "quantise_rows" if self.product8 => block(QUANTISE_THREADS, 0),
            "convolution" | "convolution_early" => block(self.convolution_threads(), 0),
            "prompt" => block(PROMPT_THREADS, 0),
            "position_table" => block(POSITION_THREADS, 0),
            "attention_simple" => block(SIMPLE_THREADS, self.simple_attention_memory()),
            "attention_ring" => {
                let warps = self.ring_warps()?;
                block(32 * warps, self.ring_attention_memory(warps))
            }
            "attention_window" if self.windows_on_tensor_cores() => {
                block(WINDOW_THREADS, self.window_attention_memory())
            }
            "decode_begin" | "rank" | "decide" | "lstm_cell" | "look" | "decode_end" | "keep_start" => {
                block(DECODE_THREADS, 0)
            }
            _ => {
                let rows = self.skinny_rows()?;
                let kernel = self.skinny_shapes().into_iter().find(|kernel| kernel.name == name)?;
                block(SKINNY_THREADS, kernel.bytes(rows))
            }
        }
    }
}
