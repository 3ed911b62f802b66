// SPDX-License-Identifier: MPL-2.0
//! WAV files as people have them: lengths that are wrong, unknown or of 64 bits, chunks that aren't padded. What comes out
//! is a plain header and the samples up to their real end.

use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// From this length on a header's length may be a recorder's placeholder (0xFFFFFFFF, 0x7FFFFFFF and their like).
const PLACEHOLDER: u64 = 0x7FFF_0000;
/// Length of a WAV file or of its samples that isn't known.
const UNKNOWN: u32 = u32::MAX;
/// Bytes of a `fmt ` or `ds64` chunk that are kept; nobody needs more.
const MOST_KEPT: u64 = 4_096;
/// Bytes behind the samples that are no audio, if nothing follows them.
const SCRAP: usize = 512;
/// Bytes of samples that are read at a time.
const PIECE: usize = 1 << 16;

/// A WAV file that is being read.
pub struct Wav<R> {
    /// `RIFF`, `fmt ` and `data` chunks with nothing between them and unknown lengths.
    pub header: Vec<u8>,
    /// Its samples, in whole blocks.
    pub samples: Samples<R>,
    /// What is to be decoded where that isn't PCM.
    pub codec: Codec,
    /// Which loudspeakers the channels are for, if the file says so, as a Windows channel mask.
    pub mask: Option<u32>,
    /// Length in seconds, where the file tells.
    pub seconds: Option<f64>,
    /// Bytes that the header promised and that never came, told once all is read.
    pub missing: Arc<AtomicU64>,
}

/// What the samples are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Codec {
    /// What the reader of WAV files knows.
    Plain,
    /// An MPEG audio stream.
    Mpeg,
}

/// Opens a WAV file at its first byte; `length` is how long it is, where that is known. The inner error says why it
/// can't be read.
pub fn open<R: Read>(input: R, length: Option<u64>) -> io::Result<Result<Wav<R>, String>> {
    let mut input = Bytes { input, held: Vec::new(), position: 0, length };
    let found = match chunks(&mut input) {
        Ok(Ok(found)) => found,
        Ok(Err(reason)) => return Ok(Err(reason)),
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => {
            return Ok(Err("a WAV file without samples, or cut off before them".into()));
        }
        Err(e) => return Err(e),
    };
    let Found { format, promised } = found;
    let there = length.map(|length| length.saturating_sub(input.position));
    let mut samples = Samples::new(input, &format, promised);
    // A length of 0 is a placeholder too if it is followed by samples.
    if promised == Some(0) {
        samples.follow()?;
    }
    let bytes = match (samples.left, there) {
        (Some(left), Some(there)) => Some(left.min(there)),
        (None, there) => there,
        (left, None) => left.filter(|&left| left < PLACEHOLDER),
    };
    Ok(Ok(Wav {
        header: header(&format.bytes),
        codec: format.codec,
        mask: format.mask,
        seconds: bytes
            .filter(|_| format.bytes_a_second > 0)
            .map(|b| b as f64 / f64::from(format.bytes_a_second)),
        missing: samples.missing.clone(),
        samples,
    }))
}

/// A header for samples of this format and any number.
fn header(format: &[u8]) -> Vec<u8> {
    let mut header = b"RIFF\xff\xff\xff\xffWAVEfmt ".to_vec();
    header.extend((format.len() as u32).to_le_bytes());
    header.extend(format);
    header.extend(b"data");
    header.extend(UNKNOWN.to_le_bytes());
    header
}

/// What the chunks before the samples say.
struct Found {
    format: Format,
    /// Bytes of samples; none if the file doesn't know.
    promised: Option<u64>,
}

/// Reads up to the first sample.
fn chunks<R: Read>(input: &mut Bytes<R>) -> io::Result<Result<Found, String>> {
    let mut riff = [0; 12];
    input.read_exact(&mut riff)?;
    if &riff[..4] == b"RIFX" {
        return Ok(Err("a big-endian WAV file (RIFX), which isn't supported".into()));
    }
    let (mut format, mut long) = (None, None);
    loop {
        let (id, length) = input.chunk()?;
        match &id {
            b"ds64" => {
                let sizes = input.kept(length.into())?;
                long = sizes.get(8..16).and_then(|size| size.try_into().ok()).map(u64::from_le_bytes);
            }
            b"fmt " => match Format::read(&input.kept(length.into())?) {
                Ok(read) => format = Some(read),
                Err(reason) => return Ok(Err(reason)),
            },
            b"data" => {
                let Some(format) = format else {
                    return Ok(Err("a WAV file that doesn't say what its samples are".into()));
                };
                let promised = match (length, long) {
                    (UNKNOWN, Some(long)) => Some(long).filter(|&long| long != u64::MAX),
                    (UNKNOWN, None) => None,
                    (length, _) => Some(u64::from(length)),
                };
                return Ok(Ok(Found { format, promised }));
            }
            _ => input.skip(length.into())?,
        }
    }
}

/// What samples are, in the forms that every reader knows.
struct Format {
    /// A `fmt ` chunk.
    bytes: Vec<u8>,
    codec: Codec,
    mask: Option<u32>,
    /// Bytes that belong together.
    block: usize,
    bytes_a_second: u32,
}

impl Format {
    fn read(chunk: &[u8]) -> Result<Self, String> {
        let short =
            |at: usize| chunk.get(at..at + 2).map_or(0, |bytes| u16::from_le_bytes([bytes[0], bytes[1]]));
        if chunk.len() < 16 {
            return Err("a WAV file with a damaged header".into());
        }
        let (mut tag, channels, block, bits) = (short(0), short(2), short(12), short(14));
        let rate = u32::from(short(4)) | u32::from(short(6)) << 16;
        let mut mask = None;
        if tag == 0xFFFE && chunk.len() >= 40 {
            tag = short(24);
            let speakers = u32::from(short(20)) | u32::from(short(22)) << 16;
            mask = Some(speakers).filter(|speakers| speakers.count_ones() == u32::from(channels));
        }
        if channels == 0 {
            return Err("a WAV file without channels".into());
        }
        if matches!(tag, 0x50 | 0x55) {
            let bytes_a_second = u32::from(short(8)) | u32::from(short(10)) << 16;
            return Ok(Self { bytes: Vec::new(), codec: Codec::Mpeg, mask, block: 1, bytes_a_second });
        }
        // Samples of 12 or 20 bits lie at the upper end of whole bytes, which may be more than it takes.
        let place = (block / channels).saturating_mul(8);
        let width = match tag {
            1 if (bits..=32).contains(&place) && place > 0 => place,
            1 => bits.next_multiple_of(8),
            _ => bits,
        };
        let extra: &[u8] = match tag {
            1 | 3 => &[],
            6 | 7 => &[0, 0],
            _ => &chunk[16..],
        };
        let block = match tag {
            1 | 3 | 6 | 7 => channels.saturating_mul(width / 8),
            _ => block,
        };
        let mut bytes = Vec::new();
        for field in [tag, channels] {
            bytes.extend(field.to_le_bytes());
        }
        let bytes_a_second = match tag {
            1 | 3 | 6 | 7 => rate.saturating_mul(block.into()),
            _ => u32::from(short(8)) | u32::from(short(10)) << 16,
        };
        bytes.extend(rate.to_le_bytes());
        bytes.extend(bytes_a_second.to_le_bytes());
        for field in [block, width] {
            bytes.extend(field.to_le_bytes());
        }
        bytes.extend(extra);
        Ok(Self { bytes, codec: Codec::Plain, mask, block: block.max(1).into(), bytes_a_second })
    }
}

/// Bytes of a file, some of which may be put back.
struct Bytes<R> {
    input: R,
    /// Bytes that come first, the next one last.
    held: Vec<u8>,
    position: u64,
    length: Option<u64>,
}

impl<R: Read> Bytes<R> {
    /// Up to `count` bytes, fewer only at the end.
    fn up_to(&mut self, count: usize) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.take(count as u64).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    /// Name and length of the chunk that begins here.
    fn chunk(&mut self) -> io::Result<([u8; 4], u32)> {
        let mut chunk = [0; 8];
        self.read_exact(&mut chunk)?;
        let [a, b, c, d, length @ ..] = chunk;
        Ok(([a, b, c, d], u32::from_le_bytes(length)))
    }

    /// The beginning of a chunk of this length; reads all of it.
    fn kept(&mut self, length: u64) -> io::Result<Vec<u8>> {
        let bytes = self.up_to(length.min(MOST_KEPT) as usize)?;
        io::copy(&mut self.take(length.saturating_sub(MOST_KEPT)), &mut io::sink())?;
        self.pad(length)?;
        Ok(bytes)
    }

    fn skip(&mut self, length: u64) -> io::Result<()> {
        io::copy(&mut self.take(length), &mut io::sink())?;
        self.pad(length)
    }

    /// Takes the byte behind a chunk of odd length, which some programs don't write.
    fn pad(&mut self, length: u64) -> io::Result<()> {
        if length % 2 == 1 {
            let next = self.up_to(5)?;
            let skipped = match next[..] {
                [a, b, c, d, e] => is_name([b, c, d, e]) || !is_name([a, b, c, d]),
                _ => !next.is_empty(),
            };
            self.put_back(&next[usize::from(skipped)..]);
        }
        Ok(())
    }

    fn put_back(&mut self, bytes: &[u8]) {
        self.held.extend(bytes.iter().rev());
        self.position -= bytes.len() as u64;
    }
}

impl<R: Read> Read for Bytes<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let count = if self.held.is_empty() {
            self.input.read(out)?
        } else {
            let count = out.len().min(self.held.len());
            out[..count].fill_with(|| self.held.pop().unwrap_or_default());
            count
        };
        self.position += count as u64;
        Ok(count)
    }
}

/// Whether these bytes can name a chunk.
fn is_name(bytes: [u8; 4]) -> bool {
    bytes.iter().all(|byte| (0x20..0x7f).contains(byte)) && bytes.iter().any(u8::is_ascii_alphabetic)
}

/// The samples of a WAV file, to their real end.
pub struct Samples<R> {
    input: Bytes<R>,
    /// Bytes up to where the header says that they end; none if it doesn't.
    left: Option<u64>,
    /// Bytes that the header says there are.
    promised: u64,
    format: Vec<u8>,
    block: usize,
    /// Bytes that are read and not given out.
    ready: Vec<u8>,
    given: usize,
    over: bool,
    missing: Arc<AtomicU64>,
}

impl<R: Read> Samples<R> {
    fn new(input: Bytes<R>, format: &Format, promised: Option<u64>) -> Self {
        Self {
            input,
            left: promised,
            promised: promised.unwrap_or(0),
            format: format.bytes.clone(),
            block: format.block,
            ready: Vec::new(),
            given: 0,
            over: false,
            missing: Arc::default(),
        }
    }

    /// Reads on until whole blocks are ready, or nothing more comes.
    fn refill(&mut self) -> io::Result<()> {
        self.ready.drain(..self.given);
        self.given = 0;
        while self.ready.len() < self.block && !self.over {
            if self.left == Some(0) {
                self.follow()?;
                continue;
            }
            let wanted = self.left.map_or(PIECE, |left| left.min(PIECE as u64) as usize);
            let before = self.ready.len();
            self.ready.resize(before + wanted, 0);
            let read = self.input.read(&mut self.ready[before..]);
            self.ready.truncate(before + *read.as_ref().unwrap_or(&0));
            match read {
                Ok(0) => {
                    self.over = true;
                    let missing = self.left.unwrap_or(0);
                    self.missing
                        .store(if self.promised < PLACEHOLDER { missing } else { 0 }, Ordering::Relaxed);
                }
                Ok(count) => self.left = self.left.map(|left| left - count as u64),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    /// Where the samples should end: finds out whether they do.
    fn follow(&mut self) -> io::Result<()> {
        let odd = self.promised % 2 == 1;
        let next = self.input.up_to(SCRAP)?;
        let short = next.len() < SCRAP && self.promised > 0;
        let after = |at: usize| next.get(at..).is_some_and(|next| self.input.is_no_audio(next));
        let at = usize::from(odd && !after(0));
        if short && !after(at) || next.is_empty() {
            self.over = true;
        } else if after(at) {
            self.input.put_back(&next[at..]);
            self.over = !self.next_sound()?;
        } else {
            self.input.put_back(&next);
            self.left = None;
        }
        Ok(())
    }

    /// Goes to the samples of a WAV file of the same format that follows this one, if one does.
    fn next_sound(&mut self) -> io::Result<bool> {
        let found = loop {
            match self.input.chunk() {
                Ok((id, length)) if matches!(&id, b"RIFF" | b"RF64") => {
                    self.input.put_back(&[&id[..], &length.to_le_bytes()].concat());
                    break chunks(&mut self.input);
                }
                Ok((id, length)) if is_name(id) => self.input.skip(length.into())?,
                Ok(_) => return Ok(false),
                Err(e) => break Err(e),
            }
        };
        match found {
            Ok(Ok(Found { format, promised })) if format.bytes == self.format => {
                self.promised = promised.unwrap_or(0);
                self.left = promised;
                Ok(true)
            }
            Ok(_) => Err(io::Error::other("another WAV file of another format follows, which is not read")),
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
            Err(e) => Err(e),
        }
    }
}

impl<R> Bytes<R> {
    /// Whether what begins so is a chunk or a tag.
    fn is_no_audio(&self, next: &[u8]) -> bool {
        if next.starts_with(b"TAG") && next.len() <= 128
            || next.starts_with(b"ID3")
            || next.starts_with(b"APETAGEX")
        {
            return true;
        }
        let Some(&[a, b, c, d, ref length @ ..]) = next.first_chunk::<8>() else { return false };
        let end = self.position - next.len() as u64 + 8 + u64::from(u32::from_le_bytes(*length));
        is_name([a, b, c, d]) && self.length.is_none_or(|length| end <= length + 1)
    }
}

impl<R: Read> Read for Samples<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let block = self.block;
        let whole = |ready: &[u8]| ready.len() / block * block;
        if self.given == whole(&self.ready) {
            self.refill()?;
        }
        let count = (whole(&self.ready) - self.given).min(out.len());
        out[..count].copy_from_slice(&self.ready[self.given..self.given + count]);
        self.given += count;
        Ok(count)
    }
}
