// SPDX-License-Identifier: MPL-2.0
//! WAV files whose header promises more audio than there is: recorded to a pipe, or cut off.

use std::io::{self, Read, Seek, SeekFrom};

/// From this length on a header's length is a recorder's placeholder (0xFFFFFFFF, 0x7FFFFFFF and their like).
const PLACEHOLDER: u64 = 0x7FFF_0000;

/// A header that tells the truth, and how far the old one was from it.
#[derive(Debug, PartialEq, Eq)]
pub struct Repaired {
    /// The file up to its first sample, with the real length of the audio.
    pub header: Vec<u8>,
    /// Bytes of audio that were promised and aren't there; 0 if the length was only a placeholder.
    pub missing: u64,
}

/// Looks at the WAV file `file` and gives a header to use in place of its own, or `None` if that one is right (or
/// the file is no WAV). The file is left at its first sample if there is a new header, else at its start.
pub fn repair<F: Read + Seek>(file: &mut F) -> io::Result<Option<Repaired>> {
    let end = file.seek(SeekFrom::End(0))?;
    file.seek(SeekFrom::Start(0))?;
    let repaired = data_chunk(file, end)?.filter(|&(start, promised)| {
        let there = end - start;
        promised > there || (promised == 0 && there > 0)
    });
    let Some((start, promised)) = repaired else {
        file.seek(SeekFrom::Start(0))?;
        return Ok(None);
    };
    file.seek(SeekFrom::Start(0))?;
    let mut header = vec![0; start as usize];
    file.read_exact(&mut header)?;
    let there = end - start;
    let length = |n: u64| u32::try_from(n).unwrap_or(u32::MAX).to_le_bytes();
    header[4..8].copy_from_slice(&length(end - 8));
    header[start as usize - 4..].copy_from_slice(&length(there));
    let missing = if promised >= PLACEHOLDER { 0 } else { promised.saturating_sub(there) };
    Ok(Some(Repaired { header, missing }))
}

/// Where the samples of a RIFF WAVE file start and how many bytes of them its header promises.
fn data_chunk<F: Read + Seek>(file: &mut F, end: u64) -> io::Result<Option<(u64, u64)>> {
    let mut riff = [0; 12];
    if end < 12 {
        return Ok(None);
    }
    file.read_exact(&mut riff)?;
    if &riff[..4] != b"RIFF" || &riff[8..] != b"WAVE" {
        return Ok(None);
    }
    let mut at = 12;
    while at + 8 <= end {
        file.seek(SeekFrom::Start(at))?;
        let mut chunk = [0; 8];
        file.read_exact(&mut chunk)?;
        let length = u64::from(u32::from_le_bytes([chunk[4], chunk[5], chunk[6], chunk[7]]));
        if &chunk[..4] == b"data" {
            // A copy of the header is held in memory; a sound file has its samples within the first megabytes.
            return Ok((at < 1 << 26).then_some((at + 8, length)));
        }
        at += 8 + length + length % 2;
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    fn wav(promised: u32, there: usize) -> Vec<u8> {
        let mut bytes = b"RIFF\xff\xff\xff\xffWAVELIST\x03\0\0\0abc\0fmt \x04\0\0\0\x01\0\x01\0data".to_vec();
        bytes.extend(promised.to_le_bytes());
        bytes.extend(vec![1; there]);
        bytes
    }

    #[test]
    fn honest_headers_stay() {
        for (promised, there) in [(100, 100), (100, 120), (0, 0)] {
            assert_eq!(repair(&mut Cursor::new(wav(promised, there))).unwrap(), None);
        }
        assert_eq!(repair(&mut Cursor::new(b"RIFF".to_vec())).unwrap(), None);
        assert_eq!(repair(&mut Cursor::new(b"OggS and so on, and on".to_vec())).unwrap(), None);
    }

    #[test]
    fn false_lengths_are_corrected() {
        for (promised, missing) in [(u32::MAX, 0), (0x7FFF_FFFF, 0), (0, 0), (1_000, 900)] {
            let mut file = Cursor::new(wav(promised, 100));
            let repaired = repair(&mut file).unwrap().unwrap();
            assert_eq!(repaired.missing, missing);
            assert_eq!(repaired.header[repaired.header.len() - 4..], 100u32.to_le_bytes());
            assert_eq!(file.position() as usize, repaired.header.len());
        }
    }
}
