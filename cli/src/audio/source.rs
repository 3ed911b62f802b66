// SPDX-License-Identifier: MPL-2.0
//! What a file or a pipe is, by its first bytes, and how to get at the audio in it.

use std::fmt;
use std::fs::File;
use std::io::{self, Cursor, Read, Seek};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use symphonia::core::io::{MediaSource, ReadOnlySource};

use super::FORMATS;
use super::mpeg::Frame;
use super::tags::{Untagged, id3_size};
use super::wav::{self, Codec};

/// Bytes that are looked at; 8 ms of raw samples.
const HEAD: usize = 256;
/// Bytes that three frames of MPEG audio may take.
const FRAMES: usize = 3 * 1_732;
/// Bytes of tags that are left out behind FLAC, of a file and of a pipe, where they are a delay.
const TAGS: [usize; 2] = [1 << 20, 1 << 16];

/// Audio in a container.
pub struct Source {
    pub media: Box<dyn MediaSource>,
    /// What a WAV header says.
    pub wav: Option<WavFacts>,
}

/// What a WAV header says beyond what reaches the decoder.
pub struct WavFacts {
    /// Channel mask, if there is one.
    pub mask: Option<u32>,
    /// Length in seconds, where it tells.
    pub seconds: Option<f64>,
    /// Bytes that it promised and that never came, told once all is read.
    pub missing: Arc<AtomicU64>,
}

/// What comes from standard input.
pub enum Input<R> {
    /// A sound file.
    Sound(Source),
    /// Anything else: samples.
    Raw(io::Chain<Cursor<Vec<u8>>, R>),
}

/// Why a file isn't decoded here.
pub enum Refusal {
    /// It is something else, which others may read.
    Foreign {
        /// Its name, with an article.
        what: &'static str,
        /// All of it, if it comes from a pipe.
        rest: Option<Box<dyn Read + Send>>,
    },
    /// Nobody knows what it is, or how its audio is coded.
    Unknown(String),
    /// It should be readable and isn't.
    Damaged(String),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Self::Foreign { what, .. } => write!(f, "{what}, which isn't supported, {FORMATS}"),
            Self::Unknown(reason) | Self::Damaged(reason) => f.write_str(reason),
        }
    }
}

impl From<io::Error> for Refusal {
    fn from(error: io::Error) -> Self {
        Self::Damaged(error.to_string())
    }
}

/// A file or a named pipe. The inner error says why it can't be read.
pub fn open(mut file: File) -> io::Result<Result<Source, Refusal>> {
    let length = file.metadata().ok().filter(std::fs::Metadata::is_file).map(|metadata| metadata.len());
    let mut head = read_head(&mut file, HEAD)?;
    let Some(length) = length else { return sound(head, file) };
    let tag = if head.starts_with(b"ID3") { id3_size(&head).map_or(0, |size| size as u64 + 10) } else { 0 };
    if tag > 0 {
        file.seek(io::SeekFrom::Start(tag))?;
        head = read_head(&mut file, HEAD)?;
    }
    match Kind::of(&head) {
        Kind::Foreign(what) => Ok(Err(Refusal::Foreign { what, rest: None })),
        Kind::Wav => {
            file.seek(io::SeekFrom::Start(tag))?;
            wav_source(file, Some(length - tag))
        }
        Kind::Flac => {
            file.seek(io::SeekFrom::Start(tag))?;
            Ok(Ok(media(Untagged::new(file, TAGS[0]))))
        }
        Kind::Sound | Kind::Unknown => {
            file.rewind()?;
            Ok(Ok(Source { media: Box::new(file), wav: None }))
        }
    }
}

/// Standard input: a sound file if it begins as one, else samples. The inner error says why a file can't be read.
pub fn standard_input<R: Read + Send + Sync + 'static>(
    mut input: R,
) -> io::Result<Result<Input<R>, Refusal>> {
    let mut head = read_head(&mut input, HEAD)?;
    if Frame::read(&head).is_some() {
        let more = read_head(&mut input, FRAMES - head.len())?;
        head.extend(more);
    }
    let sound_file = match Kind::of(&head) {
        Kind::Unknown => Frame::begin(&head) == Some(true),
        // Two bytes say it, and samples may have them too.
        Kind::Foreign(_) if head.starts_with(&[0xFF]) => false,
        _ => true,
    };
    if sound_file {
        return Ok(sound(head, input)?.map(Input::Sound));
    }
    Ok(Ok(Input::Raw(Cursor::new(head).chain(input))))
}

/// What can only be read forwards and began with `head`.
fn sound<R: Read + Send + Sync + 'static>(
    mut head: Vec<u8>,
    mut input: R,
) -> io::Result<Result<Source, Refusal>> {
    // Tags in front say nothing that is needed.
    while let Some(size) = id3_size(&head).filter(|_| head.starts_with(b"ID3")) {
        let tag = size + 10;
        if tag >= head.len() {
            io::copy(&mut (&mut input).take((tag - head.len()) as u64), &mut io::sink())?;
            head = read_head(&mut input, HEAD)?;
        } else {
            head.drain(..tag);
        }
    }
    let kind = Kind::of(&head);
    let input = Cursor::new(head).chain(input);
    match kind {
        Kind::Foreign(what) => Ok(Err(Refusal::Foreign { what, rest: Some(Box::new(input)) })),
        Kind::Wav => wav_source(input, None),
        Kind::Flac => Ok(Ok(media(Untagged::new(input, TAGS[1])))),
        Kind::Sound | Kind::Unknown => Ok(Ok(media(input))),
    }
}

fn wav_source<R: Read + Send + Sync + 'static>(
    input: R,
    length: Option<u64>,
) -> io::Result<Result<Source, Refusal>> {
    let wav = match wav::open(input, length)? {
        Ok(wav) => wav,
        Err(reason) => return Ok(Err(Refusal::Damaged(format!("{reason}, {FORMATS}")))),
    };
    let facts = WavFacts { mask: wav.mask, seconds: wav.seconds, missing: wav.missing };
    let source = match wav.codec {
        Codec::Plain => media(Cursor::new(wav.header).chain(wav.samples)),
        Codec::Mpeg => media(wav.samples),
    };
    Ok(Ok(Source { wav: Some(facts), ..source }))
}

fn media<R: Read + Send + Sync + 'static>(input: R) -> Source {
    Source { media: Box::new(ReadOnlySource::new(input)), wav: None }
}

/// Up to `count` bytes, fewer only at the end.
fn read_head(input: &mut impl Read, count: usize) -> io::Result<Vec<u8>> {
    let mut head = Vec::new();
    input.take(count as u64).read_to_end(&mut head)?;
    Ok(head)
}

/// What a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Wav,
    Flac,
    /// Something else that can be read, most likely.
    Sound,
    /// Something that can't, with its name.
    Foreign(&'static str),
    Unknown,
}

impl Kind {
    fn of(head: &[u8]) -> Self {
        let at = |at: usize, bytes: &[u8]| head.get(at..).is_some_and(|rest| rest.starts_with(bytes));
        let signatures: [(usize, &[u8], Self); 22] = [
            (8, b"WAVE", Self::Wav),
            (0, b"fLaC", Self::Flac),
            (28, b"OpusHead", Self::Foreign("an Ogg Opus file")),
            (28, b"Speex   ", Self::Foreign("an Ogg Speex file")),
            (28, b"\x80theora", Self::Foreign("an Ogg video")),
            (0, b"OggS", Self::Sound),
            (0, b"ID3", Self::Sound),
            (4, b"ftyp", Self::Foreign("an MP4 or QuickTime file")),
            (4, b"moov", Self::Foreign("a QuickTime file")),
            (0, b"\x1A\x45\xDF\xA3", Self::Foreign("a Matroska or WebM file")),
            (0, b"\x30\x26\xB2\x75\x8E\x66\xCF\x11", Self::Foreign("a Windows Media file")),
            (8, b"AIFF", Self::Foreign("an AIFF file")),
            (8, b"AIFC", Self::Foreign("an AIFF file")),
            (8, b"AVI ", Self::Foreign("an AVI file")),
            (0, b"caff", Self::Foreign("a Core Audio file")),
            (0, b"riff\x2E\x91\xCF\x11", Self::Foreign("a Wave64 file")),
            (0, b"#!AMR", Self::Foreign("an AMR file")),
            (0, b".snd", Self::Foreign("an AU file")),
            (0, b"wvpk", Self::Foreign("a WavPack file")),
            (0, b"MAC ", Self::Foreign("a Monkey's Audio file")),
            (0, b"\x00\x00\x01\xBA", Self::Foreign("an MPEG program stream")),
            (0, b"FLV\x01", Self::Foreign("a Flash video")),
        ];
        let riff = ["RIFF", "RF64", "BW64", "RIFX"].iter().any(|name| at(0, name.as_bytes()));
        let known = signatures
            .into_iter()
            .find(|&(place, bytes, kind)| at(place, bytes) && (kind != Self::Wav || riff));
        match known {
            Some((.., kind)) => kind,
            None if at(0, &[0x47]) && at(188, &[0x47]) => Self::Foreign("an MPEG transport stream"),
            None if matches!(head, [0xFF, 0xF0 | 0xF1 | 0xF8 | 0xF9, ..]) => Self::Foreign("an AAC file"),
            None => Self::Unknown,
        }
    }
}
