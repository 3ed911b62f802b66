// SPDX-License-Identifier: MPL-2.0
//! What host and kernels hand each other.

use bytemuck::{Pod, Zeroable};

use super::extent::Extent;

/// Writes structures once for both sides: as Rust's, and as the declarations that stand ahead of every kernel.
macro_rules! records {
    ($($(#[doc = $about:literal])+ struct $name:ident { $($(#[doc = $what:literal])* $field:ident: $type:ident,)+ })+) => {
        $(
            $(#[doc = $about])+
            #[repr(C)]
            #[derive(Clone, Copy, Debug, Default, PartialEq, Pod, Zeroable)]
            pub struct $name {
                $($(#[doc = $what])* pub $field: $type,)+
            }
        )+

        /// The structures as the kernels see them.
        pub const DECLARATIONS: &str = concat!(
            $("struct ", stringify!($name), " {", $(" ", cuda!($type), " ", stringify!($field), ";",)+ " };\n",)+
        );
    };
}

/// A type's name in the kernels.
macro_rules! cuda {
    (i32) => {
        "int"
    };
    (f32) => {
        "float"
    };
    (u64) => {
        "unsigned long long"
    };
}

records! {
    /// One stream's part of a step. Times and places count from the start of its signal.
    struct Item {
        slot: i32,
        /// 1 in the first step of an utterance: the slot holds nothing yet.
        fresh: i32,
        /// Place in the model's prompt.
        language: i32,
        /// First row of the batch.
        row: i32,
        /// Encoder frames, one row each.
        frames: i32,
        /// Index of the first.
        first: i32,
        /// Frame f sees those from `f / chunk * chunk - left` up to `f / chunk * chunk + chunk + right` that there are.
        left: i32,
        chunk: i32,
        right: i32,
        /// Rows of the rings in use: frame f lies in row `f % ring`; 0 where nothing outlasts the step.
        ring: i32,
        /// First row to decode, counted from `row`.
        decode: i32,
        /// How many rows are decoded.
        decoded: i32,
        /// Where its samples begin in the batch's.
        pcm: i32,
        /// How many there are.
        samples: i32,
        /// Index of the first.
        pcm_first: i32,
        /// Where its mel frames begin in the batch's.
        mel: i32,
        /// Index of the first.
        mel_first: i32,
        /// How many of them the slot kept.
        mel_old: i32,
        /// How many are new.
        mel_new: i32,
        /// How many of the last are kept for the next step.
        mel_keep: i32,
        /// Mel frames of the signal, or the largest `int` while it goes on.
        mel_total: i32,
        /// Where its rows of the second level of subsampling begin in the batch's.
        position: i32,
        /// Index of the first.
        position_first: i32,
        /// How many there are.
        positions: i32,
        /// As `mel_total`, of the first and the second level of subsampling.
        total1: i32,
        total2: i32,
        /// Address of the phrases that are rather heard, 0 if there are none.
        phrases: u64,
    }

    /// How much there is in a step; what the host enqueued covers at least as much.
    struct Counts {
        items: i32,
        rows: i32,
        /// New mel frames.
        mels: i32,
        /// Of the second level of subsampling.
        positions: i32,
        /// Of up to `TILE` rows of one item.
        tiles: i32,
        /// Rows of the joint: items times the frames that each looks at in an iteration.
        joints: i32,
    }

    /// A piece of a step: the `index`th mel frame, position or row of an item, or its tile that begins with that row.
    struct Place {
        item: i32,
        index: i32,
    }

    /// Where an item stands in decoding.
    struct Cursor {
        /// Of its decoded rows.
        frame: i32,
        /// Frame of the last token, -1 before the first.
        last: i32,
        /// Tokens there.
        emitted: i32,
        /// Emitted in this iteration, or -1.
        label: i32,
        active: i32,
        /// State in its phrases.
        phrase: i32,
    }

    /// What a frame's logits say.
    struct Pick {
        label: i32,
        duration: i32,
        /// The largest logit.
        value: f32,
        /// How far the label's is below that: only where phrases had it chosen.
        below: f32,
        /// State in the phrases after the label.
        phrase: i32,
        margin: f32,
        duration_margin: f32,
    }

    /// What the host reads first; the emissions follow.
    struct Results {
        /// How many; those beyond the capacity were not kept, and their items wait.
        tokens: i32,
        /// Items that are not through.
        active: i32,
    }

    /// A token; its frame counts from the first that the step decodes.
    struct Emission {
        item: i32,
        /// -1 if the frame's logits are no numbers; then the item is through.
        id: i32,
        frame: i32,
        duration: i32,
        log_prob: f32,
        confidence: f32,
        margin: f32,
        duration_margin: f32,
    }
}

impl Counts {
    /// One of everything.
    pub const ONE: Self = Self { items: 1, rows: 1, mels: 1, positions: 1, tiles: 1, joints: 1 };
}

/// Bytes before the emissions: the results, filled up.
pub const HEADER: usize = size_of::<Results>().next_multiple_of(16);

/// Where the parts of a step lie in its memory, in bytes.
#[derive(Clone, Copy, Debug)]
pub struct Layout {
    pub counts: usize,
    pub items: usize,
    pub mels: usize,
    pub positions: usize,
    pub rows: usize,
    pub tiles: usize,
    /// Samples, to the end.
    pub pcm: usize,
}

impl Layout {
    /// For a step of this extent.
    pub fn new(extent: &Extent) -> Self {
        let mut at = 0;
        let mut place = |bytes: usize| {
            let start = at;
            at = (at + bytes).next_multiple_of(16);
            start
        };
        let places = size_of::<Place>();
        Self {
            counts: place(size_of::<Counts>()),
            items: place(extent.items * size_of::<Item>()),
            mels: place(extent.mels * places),
            positions: place(extent.positions * places),
            rows: place(extent.rows * places),
            tiles: place(extent.tiles * places),
            pcm: place(0),
        }
    }
}
