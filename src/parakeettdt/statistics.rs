// SPDX-License-Identifier: MPL-2.0
//! What the element counts.

use super::timeline::nanoseconds;

/// Counts since READY.
#[derive(Clone, Debug, Default)]
pub struct Statistics {
    /// Text buffers pushed.
    pub buffers: u64,
    /// Samples that came in.
    pub samples: u64,
    /// Samples that were dropped because recognition was too slow.
    pub dropped: u64,
    /// Nanoseconds of audio that never came, as time stamps say.
    pub missing: u64,
    /// Times that recognition began anew in mid-stream.
    pub cuts: u64,
    /// Longest time in ms from when the start of a text came in to when it was pushed.
    pub max_delay_ms: u32,
}

impl Statistics {
    /// For the property `stats`.
    pub fn structure(&self) -> gst::Structure {
        gst::Structure::builder("parakeettdt/stats")
            .field("buffers", self.buffers)
            .field("audio", nanoseconds(self.samples))
            .field("dropped-audio", nanoseconds(self.dropped))
            .field("missing-audio", self.missing)
            .field("cuts", self.cuts)
            .field("max-observed-delay", self.max_delay_ms)
            .build()
    }
}
