// SPDX-License-Identifier: MPL-2.0
//! What text buffers carry beside their text.

use super::text::{Text, TextWord};
use gst::meta::CustomMeta;

/// The meta's name.
const NAME: &str = "ParakeetWordsMeta";

/// Makes the meta known, once in a process. It has no tags: elements that copy metas keep it, whatever they do to the text.
pub fn register() {
    CustomMeta::register(NAME, &[]);
}

/// Adds what is known of a text to its buffer: its words with their running times, as the buffer's time stamp is one, its
/// least confidence, its start as a stream time, and its language where that is known.
pub fn add(buffer: &mut gst::BufferRef, text: &Text) {
    let mut meta = match CustomMeta::add(buffer, NAME) {
        Ok(meta) => meta,
        Err(error) => {
            gst::warning!(super::imp::CAT, "no meta on a buffer: {error}");
            return;
        }
    };
    let structure = meta.mut_structure();
    structure.set("words", gst::Array::new(text.words.iter().map(word)));
    structure.set("confidence", f64::from(text.confidence()));
    structure.set_if_some("stream-time", text.stream);
    structure.set_if_some("language", text.language.as_ref());
}

fn word(word: &TextWord) -> gst::Structure {
    gst::Structure::builder("word")
        .field("text", &word.text)
        .field("start", word.start)
        .field("end", word.end)
        .field("confidence", f64::from(word.confidence))
        .field("joined", word.joined)
        .build()
}
