// SPDX-License-Identifier: MPL-2.0
//! Tags that programs append to sound files, and that the format has no place for.

use std::io::{self, Read};

/// Bytes that are read at a time.
const PIECE: usize = 1 << 16;

/// Audio without the tags behind it. What is held back for that is as long as the longest tag that is found.
pub struct Untagged<R> {
    input: R,
    hold: usize,
    bytes: Vec<u8>,
    given: usize,
    over: bool,
}

impl<R: Read> Untagged<R> {
    /// Leaves out tags of up to `hold` bytes.
    pub fn new(input: R, hold: usize) -> Self {
        Self { input, hold, bytes: Vec::new(), given: 0, over: false }
    }

    fn ready(&self) -> usize {
        let hold = if self.over { 0 } else { self.hold };
        self.bytes.len().saturating_sub(hold).saturating_sub(self.given)
    }
}

impl<R: Read> Read for Untagged<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while self.ready() == 0 && !self.over {
            self.bytes.drain(..self.given);
            self.given = 0;
            let before = self.bytes.len();
            self.bytes.resize(before + PIECE, 0);
            let read = self.input.read(&mut self.bytes[before..]);
            self.bytes.truncate(before + *read.as_ref().unwrap_or(&0));
            match read {
                Ok(0) => {
                    self.over = true;
                    let audio = self.bytes.len() - tags(&self.bytes);
                    self.bytes.truncate(audio);
                }
                Ok(_) => {}
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        let count = self.ready().min(out.len());
        out[..count].copy_from_slice(&self.bytes[self.given..self.given + count]);
        self.given += count;
        Ok(count)
    }
}

/// Bytes of all tags at the end of `bytes`.
fn tags(bytes: &[u8]) -> usize {
    let mut rest = bytes;
    while let Some(length) = last_tag(rest) {
        rest = &rest[..rest.len().saturating_sub(length)];
    }
    bytes.len() - rest.len()
}

/// Bytes of the tag that `bytes` ends with: ID3v1, APEv2, Lyrics3 v2 or an ID3v2 with a footer.
fn last_tag(bytes: &[u8]) -> Option<usize> {
    let before = |count: usize| bytes.len().checked_sub(count).map(|at| &bytes[at..]);
    if before(128).is_some_and(|tag| tag.starts_with(b"TAG")) {
        return Some(128);
    }
    if let Some(footer) = before(32).filter(|tag| tag.starts_with(b"APETAGEX")) {
        let number =
            |at: usize| u32::from_le_bytes([footer[at], footer[at + 1], footer[at + 2], footer[at + 3]]);
        let header = if number(20) & 1 << 31 != 0 { 32 } else { 0 };
        return Some((number(12) as usize).max(32).saturating_add(header));
    }
    if let Some(end) = before(15).filter(|end| end.ends_with(b"LYRICS200")) {
        let size = std::str::from_utf8(&end[..6]).ok()?.parse::<usize>().ok()?;
        return Some(size + 15);
    }
    let footer = before(10).filter(|tag| tag.starts_with(b"3DI"))?;
    Some(id3_size(footer)? + 20)
}

/// Bytes of an ID3v2 tag behind its header of 10 bytes.
pub fn id3_size(header: &[u8]) -> Option<usize> {
    let size = header.get(6..10)?;
    size.iter()
        .all(|byte| *byte < 0x80)
        .then(|| size.iter().fold(0, |sum, &byte| sum << 7 | usize::from(byte)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8], hold: usize) -> Vec<u8> {
        let mut out = Vec::new();
        Untagged::new(bytes, hold).read_to_end(&mut out).expect("memory reads");
        out
    }

    #[test]
    fn tags_go_and_audio_stays() {
        let audio: Vec<u8> = (0..200_000_u32).map(|i| (i * 7 % 251) as u8).collect();
        let id3v1 = [b"TAG".as_slice(), &[b' '; 125]].concat();
        let ape_footer = |flags: u32| {
            [
                b"APETAGEX".as_slice(),
                &2000_u32.to_le_bytes(),
                &132_u32.to_le_bytes(),
                &1_u32.to_le_bytes(),
                &flags.to_le_bytes(),
                &[0; 8],
            ]
            .concat()
        };
        let ape = [&[b'x'; 100][..], &ape_footer(0)].concat();
        let ape_with_header = [&ape_footer(1 << 31)[..], &[b'x'; 100], &ape_footer(1 << 31)].concat();
        let lyrics = [b"LYRICSBEGIN".as_slice(), &[b'l'; 29], b"000040LYRICS200"].concat();
        let id3v2 =
            [b"ID3\x04\0\x10\0\0\x01\x02".as_slice(), &[0; 130], b"3DI\x04\0\x10\0\0\x01\x02"].concat();
        for tags in [
            vec![],
            id3v1.clone(),
            ape.clone(),
            ape_with_header.clone(),
            id3v2,
            [ape_with_header, lyrics, id3v1.clone()].concat(),
            [ape, id3v1].concat(),
        ] {
            for hold in [1_000, 1 << 20] {
                let file = [&audio[..], &tags].concat();
                assert!(read(&file, hold) == audio, "{} bytes of tags, {hold} held", tags.len());
            }
        }
        assert!(read(b"", 100).is_empty() && read(b"TAG", 100) == b"TAG");
    }
}
