// SPDX-License-Identifier: MPL-2.0
//! A `.nemo` file: a tar archive, plain or gzip, read in place. No name in it ever becomes a path on disk.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use flate2::read::MultiGzDecoder;
use prost::Message;
use tar::{Archive, EntryType};

use crate::model::vocabulary::{PieceKind, Vocabulary, byte_of};
use crate::{Error, Result};

/// Bytes of a member that is read whole; real ones have up to 1 MB.
const SMALL_MEMBER: u64 = 64 << 20;
/// Members of an archive; real ones have under 100.
const MEMBERS: usize = 10_000;
/// Bytes of a header that goes before a member: a long name, or times and the like that Python's tarfile adds.
const EXTENDED_HEADER: u64 = 64 << 10;
/// A gzip archive may not unpack to more than this many times its size, plus [`SMALL_MEMBER`].
const GZIP_RATIO: u64 = 20;

/// An open `.nemo` file.
pub struct NemoFile {
    path: PathBuf,
    file: File,
    /// Offset and size in `file` of each member.
    members: HashMap<String, (u64, u64)>,
}

impl NemoFile {
    /// Opens `path` and lists it. A gzip archive is unpacked to a file without a name in `scratch`.
    pub fn open(path: &Path, scratch: &Path) -> Result<Self> {
        let io_error = |e| Error::io(path, e);
        let mut file = File::open(path).map_err(io_error)?;
        if file.metadata().map_err(io_error)?.is_dir() {
            return Err(Error::model(path, "expected a .nemo file, found a directory"));
        }
        let mut magic = [0; 2];
        let gzip = file.read_exact(&mut magic).is_ok() && magic == [0x1f, 0x8b];
        file.rewind().map_err(io_error)?;
        if gzip {
            file = unpack(file, path, scratch)?;
        }
        let members = list(&file, path)?;
        Ok(Self { path: path.to_owned(), file, members })
    }

    /// The model's configuration as YAML.
    pub fn config(&self) -> Result<String> {
        let bytes = self.small("model_config.yaml")?;
        String::from_utf8(bytes).map_err(|_| self.fail("model_config.yaml is not UTF-8"))
    }

    /// The vocabulary of the SentencePiece model `name`.
    pub fn vocabulary(&self, name: &str) -> Result<Vocabulary> {
        sentencepiece(&self.small(name)?).map_err(|reason| self.fail(format!("{name}: {reason}")))
    }

    /// The checkpoint, `model_weights.ckpt`.
    pub fn weights(&self) -> Result<BufReader<Section>> {
        let (start, length) = self.member("model_weights.ckpt")?;
        let file = self.file.try_clone().map_err(|e| Error::io(&self.path, e))?;
        Ok(BufReader::with_capacity(1 << 16, Section { file, start, length, position: 0 }))
    }

    fn small(&self, name: &str) -> Result<Vec<u8>> {
        let (start, length) = self.member(name)?;
        if length > SMALL_MEMBER {
            return Err(self.fail(format!("{name} has {length} bytes, expected at most {SMALL_MEMBER}")));
        }
        let mut bytes = Vec::new();
        let file = self.file.try_clone().map_err(|e| Error::io(&self.path, e))?;
        Section { file, start, length, position: 0 }
            .read_to_end(&mut bytes)
            .map_err(|e| Error::io(&self.path, e))?;
        Ok(bytes)
    }

    fn member(&self, name: &str) -> Result<(u64, u64)> {
        let missing = || self.fail(format!("{name} is missing: not a NeMo checkpoint"));
        self.members.get(name).copied().ok_or_else(missing)
    }

    fn fail(&self, reason: impl Into<String>) -> Error {
        Error::model(&self.path, reason)
    }
}

/// A part of a file as a file of its own.
#[derive(Debug)]
pub struct Section {
    file: File,
    start: u64,
    length: u64,
    position: u64,
}

impl Read for Section {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.file.seek(SeekFrom::Start(self.start + self.position))?;
        let left = self.length.saturating_sub(self.position);
        let read = (&self.file).take(left).read(buffer)?;
        self.position += read as u64;
        Ok(read)
    }
}

impl Seek for Section {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let position = match to {
            SeekFrom::Start(position) => Some(position),
            SeekFrom::End(offset) => self.length.checked_add_signed(offset),
            SeekFrom::Current(offset) => self.position.checked_add_signed(offset),
        };
        let inside = position.filter(|&position| position <= self.length);
        self.position = inside.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        Ok(self.position)
    }
}

fn unpack(file: File, path: &Path, scratch: &Path) -> Result<File> {
    let packed = file.metadata().map_err(|e| Error::io(path, e))?.len();
    let limit = packed.saturating_mul(GZIP_RATIO).saturating_add(SMALL_MEMBER);
    let mut unpacked = tempfile::tempfile_in(scratch).map_err(|e| Error::io(scratch, e))?;
    let mut reader = MultiGzDecoder::new(BufReader::with_capacity(1 << 16, file)).take(limit + 1);
    let bytes = io::copy(&mut reader, &mut unpacked).map_err(|e| {
        Error::model(path, format!("damaged gzip archive, or no room in {}: {e}", scratch.display()))
    })?;
    if bytes > limit {
        return Err(Error::model(
            path,
            format!("gzip archive that unpacks to more than {GZIP_RATIO} times its size"),
        ));
    }
    unpacked.rewind().map_err(|e| Error::io(scratch, e))?;
    Ok(unpacked)
}

fn list(file: &File, path: &Path) -> Result<HashMap<String, (u64, u64)>> {
    let fail = |reason: String| Error::model(path, reason);
    // The message may quote whatever bytes are there.
    let damaged = |e: io::Error| {
        let quoted: String = e.to_string().escape_debug().take(120).collect();
        fail(format!("truncated or not a tar archive: {quoted}"))
    };
    let total = file.metadata().map_err(|e| Error::io(path, e))?.len();
    let rewound = || (&*file).rewind().map(|()| Archive::new(file)).map_err(|e| Error::io(path, e));
    // The reader holds such headers in memory, so that their sizes are looked at before it does.
    for entry in rewound()?.entries_with_seek().map_err(damaged)?.raw(true) {
        let entry = entry.map_err(damaged)?;
        let kind = entry.header().entry_type();
        let regular = matches!(kind, EntryType::Regular | EntryType::Continuous);
        if !regular && entry.size() > EXTENDED_HEADER {
            return Err(fail(format!("a header of {} bytes before a member", entry.size())));
        }
    }
    let mut archive = rewound()?;
    let mut members = HashMap::new();
    for entry in archive.entries_with_seek().map_err(damaged)? {
        let entry = entry.map_err(damaged)?;
        let name = safe_name(&entry.path_bytes()).map_err(fail)?;
        match entry.header().entry_type() {
            EntryType::Regular | EntryType::Continuous => {}
            EntryType::Directory | EntryType::XGlobalHeader => continue,
            other => return Err(fail(format!("member {name:?} is a {other:?}, not a file"))),
        }
        let (start, size) = (entry.raw_file_position(), entry.size());
        if start.checked_add(size).is_none_or(|end| end > total) {
            let left = total.saturating_sub(start);
            return Err(fail(format!(
                "member {name:?} claims {size} bytes, but {left} are left: truncated file"
            )));
        }
        if members.len() == MEMBERS {
            return Err(fail(format!("more than {MEMBERS} members")));
        }
        if members.insert(name.clone(), (start, size)).is_some() {
            return Err(fail(format!("member {name:?} appears twice")));
        }
    }
    Ok(members)
}

/// The name of a member without `./`, if it stays inside the archive.
fn safe_name(bytes: &[u8]) -> Result<String, String> {
    let name = std::str::from_utf8(bytes).map_err(|_| "a member's name is not UTF-8")?;
    if name.starts_with('/') || name.contains(['\\', '\0']) || name.split('/').any(|part| part == "..") {
        return Err(format!("member {name:?} points outside the archive"));
    }
    let parts: Vec<_> = name.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
    Ok(parts.join("/"))
}

/// The vocabulary of a SentencePiece model. The error is a reason.
pub fn sentencepiece(model: &[u8]) -> Result<Vocabulary, String> {
    let model = ModelProto::decode(model).map_err(|e| format!("not a SentencePiece model: {e}"))?;
    let pieces = model.pieces.into_iter().map(|piece| {
        let kind = match piece.kind.unwrap_or(1) {
            1 | 5 => PieceKind::Normal,
            2 => PieceKind::Unknown,
            3 => PieceKind::Control,
            4 => PieceKind::UserDefined,
            6 => PieceKind::Byte(
                byte_of(&piece.piece)
                    .ok_or_else(|| format!("piece {:?} is said to be a byte", piece.piece))?,
            ),
            other => return Err(format!("piece {:?} of unknown kind {other}", piece.piece)),
        };
        Ok((piece.piece, kind))
    });
    Ok(Vocabulary::new(pieces.collect::<Result<_, String>>()?))
}

/// What is needed of SentencePiece's `ModelProto`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct ModelProto {
    /// In the order of their ids.
    #[prost(message, repeated, tag = "1")]
    pub pieces: Vec<SentencePiece>,
}

/// `ModelProto.SentencePiece`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct SentencePiece {
    /// The text.
    #[prost(string, tag = "1")]
    pub piece: String,
    /// 1 normal (default), 2 unknown, 3 control, 4 user defined, 5 unused, 6 byte.
    #[prost(int32, optional, tag = "3")]
    pub kind: Option<i32>,
}
