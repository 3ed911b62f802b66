// SPDX-License-Identifier: MPL-2.0
//! What text buffers carry beside their text.

use gst::meta::CustomMeta;

/// The meta's name.
const NAME: &str = "ParakeetTextMeta";

/// Makes the meta known, once in a process.
pub fn register() {
    CustomMeta::register(NAME, &[]);
}

/// Adds where the text starts as a stream time in nanoseconds: its time stamp is a running time.
pub fn add(buffer: &mut gst::BufferRef, stream_time: u64) {
    match CustomMeta::add(buffer, NAME) {
        Ok(mut meta) => meta.mut_structure().set("stream-time", stream_time),
        Err(error) => gst::warning!(super::imp::CAT, "no meta on a buffer: {error}"),
    }
}
