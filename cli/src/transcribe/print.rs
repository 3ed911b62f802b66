// SPDX-License-Identifier: MPL-2.0
//! One transcript on standard output, as it comes.

use super::hear::{Heard, Hearing, Source};
use crate::failure::Failure;
use crate::formats::{Writer, seconds};
use crate::terminal::Output;

/// Transcribes `source`. What was heard is printed even if not all could be.
pub fn print(hearing: &Hearing, source: Source, mut writer: Writer) -> Result<(), Failure> {
    let length = match &source {
        Source::File(file) => file.seconds(),
        Source::Stdin => None,
    };
    let mut output = Output::new(matches!(source, Source::File(_)), length);
    output.write(writer.begin())?;
    let fed = hearing.hear(source, &mut |heard| {
        match heard {
            Heard::Word(word) => output.write(&writer.word(word, |id| hearing.piece(id)))?,
            Heard::Progress(sample) => output.progress(seconds(sample)),
        }
        Ok(())
    })?;
    output.write(&writer.end(&hearing.summary(&fed)))?;
    output.finish()?;
    if let Some(warning) = fed.result? {
        eprintln!("warning: {warning}");
    }
    Ok(())
}
