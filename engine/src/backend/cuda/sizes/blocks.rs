// SPDX-License-Identifier: MPL-2.0
//! The blocks that kernels run in: their threads, and what of its work a block does.

/// Names constants, and lists them for the kernels, which know them by the same names.
macro_rules! constants {
    ($($(#[doc = $about:literal])+ $name:ident = $value:expr;)+) => {
        $($(#[doc = $about])+ pub const $name: usize = $value;)+

        /// All of these.
        pub const CONSTANTS: &[(&str, usize)] = &[$((stringify!($name), $name)),+];
    };
}

constants! {
    /// Threads of `mel_frames`.
    MEL_THREADS = 128;
    /// Threads of `mel_history`.
    HISTORY_THREADS = 128;
    /// Threads of `mel_normalize`.
    NORMALIZE_THREADS = 256;
    /// Bins that a block of it takes.
    NORMALIZE_BINS = 32;
    /// Most threads of `subsample_first`.
    SUBSAMPLE_FIRST_THREADS = 128;
    /// Most threads of `subsample_second`.
    SUBSAMPLE_SECOND_THREADS = 256;
    /// Parts that the bins of a position are cut into, so that few streams fill a card too.
    PARTS = 4;
    /// Rows, of a warp each, of a block of `layer_norm` and `layer_norm_twice`.
    NORM_ROWS = 4;
    /// Threads of `silu`.
    SILU_THREADS = 256;
    /// Threads of `quantise_rows`.
    QUANTISE_THREADS = 128;
    /// Threads of `prompt`.
    PROMPT_THREADS = 256;
    /// Threads of `position_table`: one warp.
    POSITION_THREADS = 32;
    /// Threads of `attention_simple`.
    SIMPLE_THREADS = 128;
    /// Rows of an item that a block of it takes.
    SIMPLE_ROWS = 16;
    /// Threads of `attention_window`.
    WINDOW_THREADS = 128;
    /// Rows of an item that a block of it takes, and keys at a time.
    WINDOW_ROWS = 64;
    /// Most rows of an item that `attention_ring` takes.
    RING_ROWS = 16;
    /// Threads of the kernels of `decode.cu`.
    DECODE_THREADS = 256;
    /// Slots of a block of memory, which is taken and given back as one.
    SLOTS = 32;
    /// Threads of the kernels of `skinny.cu`.
    SKINNY_THREADS = 512;
    /// Most rows that these take.
    SKINNY_ROWS = 16;
}
