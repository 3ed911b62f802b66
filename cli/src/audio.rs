// SPDX-License-Identifier: MPL-2.0
//! Audio files of any rate and channel count, and raw standard input, as 16 kHz mono.

use std::fs::File;
use std::io::{self, Read, Seek};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use crate::failure::Failure;
use decode::Decoding;
use gstreamer::{Elsewhere, Pipeline};
use mixer::Mixer;
use source::{Input, Refusal, Source};

mod decode;
mod gstreamer;
mod mix;
mod mixer;
mod mpeg;
mod process;
mod source;
mod tags;
mod wav;

const FORMATS: &str = "expected WAV, FLAC, MP3, Ogg Vorbis or, with GStreamer, whatever that decodes";

/// A sound file that is open and whose codec is known.
pub struct AudioFile {
    path: PathBuf,
    /// The channel to hear, counted from 1; all of them if none is named.
    channel: Option<usize>,
    decoder: Decoder,
}

enum Decoder {
    Own(Box<Decoding>),
    GStreamer(Pipeline),
}

/// What comes from standard input.
pub enum Standard {
    /// A sound file.
    File(Box<AudioFile>),
    /// Raw 16 kHz mono S16LE samples.
    Raw(Box<dyn Read + Send>),
}

impl AudioFile {
    /// Opens `path` and reads its headers.
    pub fn open(path: &Path) -> Result<Self, Failure> {
        Self::start(path).map_err(|refusal| Failure::file(path, refusal.to_string()))
    }

    fn start(path: &Path) -> Result<Self, Refusal> {
        let file = File::open(path)?;
        let metadata = file.metadata()?;
        if metadata.is_dir() {
            return Err(Refusal::Damaged(format!("is a directory, {FORMATS}")));
        }
        if !metadata.is_file() {
            return Self::piped(path, source::open(file)?.and_then(|source| Self::of(path, source)));
        }
        if metadata.len() == 0 {
            return Err(Refusal::Damaged(format!("is empty, {FORMATS}")));
        }
        let again = file.try_clone()?;
        match source::open(file)?.and_then(|source| Self::of(path, source)) {
            Err(Refusal::Foreign { what, .. }) => {
                Self::elsewhere(path, what, again).map_err(Refusal::Damaged)
            }
            Err(Refusal::Unknown(reason)) => match Pipeline::open(again) {
                Ok(pipeline) => Ok(Self::by(path, Decoder::GStreamer(pipeline))),
                Err(Elsewhere::Unknown(_) | Elsewhere::NotThere) => Err(Refusal::Unknown(reason)),
                Err(Elsewhere::Refused(reason)) => Err(Refusal::Damaged(reason)),
            },
            other => other,
        }
    }

    /// Waits for the first bytes of standard input.
    pub fn standard_input() -> Result<Standard, Failure> {
        Self::from_pipe(io::stdin())
    }

    fn from_pipe(input: impl Read + Send + Sync + 'static) -> Result<Standard, Failure> {
        let path = Path::new("standard input");
        let opened = match source::standard_input(input).map_err(Refusal::from).and_then(|input| input) {
            Ok(Input::Raw(samples)) => return Ok(Standard::Raw(Box::new(samples))),
            Ok(Input::Sound(source)) => Self::of(path, source),
            Err(refusal) => Err(refusal),
        };
        let file = Self::piped(path, opened).map_err(|refusal| Failure::file(path, refusal.to_string()))?;
        Ok(Standard::File(Box::new(file)))
    }

    /// What came from a pipe: if only GStreamer reads it, all of it is written to a temporary file first, since containers have
    /// to be read back and forth.
    fn piped(path: &Path, opened: Result<Self, Refusal>) -> Result<Self, Refusal> {
        let Err(Refusal::Foreign { what, rest: Some(mut rest) }) = opened else { return opened };
        let spool = |e: io::Error| Refusal::Damaged(format!("can't be kept in a temporary file: {e}"));
        let mut file = tempfile::tempfile().map_err(spool)?;
        io::copy(&mut rest, &mut file).map_err(spool)?;
        Self::elsewhere(path, what, file).map_err(Refusal::Damaged)
    }

    /// A file, known to be `what`, that is left to GStreamer.
    fn elsewhere(path: &Path, what: &str, mut file: File) -> Result<Self, String> {
        file.rewind().map_err(|e| e.to_string())?;
        match Pipeline::open(file) {
            Ok(pipeline) => Ok(Self::by(path, Decoder::GStreamer(pipeline))),
            Err(Elsewhere::NotThere) => Err(format!(
                "{what}, which GStreamer reads, but there is no {}: install it (Debian: gstreamer1.0-tools \
                 gstreamer1.0-plugins-good gstreamer1.0-plugins-bad), or convert the file with `ffmpeg -i FILE FILE.wav`",
                gstreamer::PROGRAM
            )),
            Err(Elsewhere::Unknown(reason) | Elsewhere::Refused(reason)) => Err(format!("{what}: {reason}")),
        }
    }

    fn of(path: &Path, source: Source) -> Result<Self, Refusal> {
        Ok(Self::by(path, Decoder::Own(Box::new(Decoding::new(path, source)?))))
    }

    fn by(path: &Path, decoder: Decoder) -> Self {
        Self { path: path.to_owned(), channel: None, decoder }
    }

    /// Hears only this channel, counted from 1. It is an error of [`AudioFile::read`] if there is no such.
    pub fn only(self, channel: Option<usize>) -> Self {
        Self { channel, ..self }
    }

    /// Length in seconds, where the file tells.
    pub fn seconds(&self) -> Option<f64> {
        match &self.decoder {
            Decoder::Own(decoding) => decoding.seconds(),
            Decoder::GStreamer(_) => None,
        }
    }

    /// Decodes the file and gives its audio, in pieces of any size, to `out`, until that breaks. The result may be a
    /// warning for people.
    ///
    /// Damaged packets become silence, so that the times after them stay right, and are the error at the end.
    pub fn read(self, out: &mut dyn FnMut(&[f32]) -> ControlFlow<()>) -> Result<Option<String>, Failure> {
        let mut mixer: Option<Mixer> = None;
        let result = match self.decoder {
            Decoder::Own(mut decoding) => decoding.decode(self.channel, &mut mixer, out),
            Decoder::GStreamer(pipeline) => pipeline.decode(self.channel, &mut mixer, out),
        };
        result.map_err(|reason| Failure::file(&self.path, reason))?;
        let cancelled = mixer.and_then(|mixer| mixer.cancelled());
        Ok(cancelled.map(|(channel, seconds)| {
            format!(
                "{}: its channels cancel each other for {seconds:.1} s, where channel {channel} was heard alone",
                self.path.display()
            )
        }))
    }
}

/// All audio of the file `path`; it is an error if there is none.
pub fn read_whole(path: &Path) -> Result<Vec<f32>, Failure> {
    let mut pcm = Vec::new();
    AudioFile::open(path)?.read(&mut |piece| {
        pcm.extend_from_slice(piece);
        ControlFlow::Continue(())
    })?;
    if pcm.is_empty() {
        return Err(Failure::file(path, "holds no audio"));
    }
    Ok(pcm)
}

/// Gives raw 16 kHz mono S16LE audio from `input` to `out` as it arrives. The result says whether the last byte was
/// half a sample.
pub fn read_raw(mut input: impl Read, out: &mut dyn FnMut(&[f32]) -> ControlFlow<()>) -> io::Result<bool> {
    let mut bytes = [0; 8_192];
    let mut held = 0;
    loop {
        let got = match input.read(&mut bytes[held..]) {
            Ok(0) => return Ok(held == 1),
            Ok(got) => held + got,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(e),
        };
        let samples: Vec<f32> = bytes[..got]
            .chunks_exact(2)
            .map(|b| f32::from(i16::from_le_bytes([b[0], b[1]])) / 32_768.0)
            .collect();
        held = got % 2;
        bytes[0] = bytes[got - 1];
        if !samples.is_empty() && out(&samples).is_break() {
            return Ok(false);
        }
    }
}

#[cfg(test)]
mod files;
#[cfg(test)]
mod tests;
