// SPDX-License-Identifier: MPL-2.0
//! A model directory in the making: hidden beside its place until it is complete, gone if it never is.

use std::fs::{self, File, TryLockError};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use crate::model::{CONFIG, TOKENS, WEIGHTS, is_model};
use crate::{Error, Result};

/// The directory `.NAME.part` beside `NAME`.
///
/// Whoever makes `NAME` holds a lock in it, so what is there without being locked was left by a process that was killed,
/// and is cleaned up by the next.
#[derive(Debug)]
pub struct Staging {
    out: PathBuf,
    part: PathBuf,
    /// Locked for as long as it is open.
    _lock: File,
}

impl Staging {
    /// Prepares to make `out`, which may be absent, empty or a model directory. Fails while another process makes it.
    pub fn new(out: &Path) -> Result<Self> {
        if out.exists() && !is_replaceable(out)? {
            let reason = "already exists and is not a model directory: choose another or remove it";
            return Err(Error::model(out, reason));
        }
        // The real place of a directory that is there, so that everything stays in one file system.
        let out =
            if out.exists() { out.canonicalize().map_err(|e| Error::io(out, e))? } else { out.to_owned() };
        let (Some(parent), Some(name)) = (out.parent(), out.file_name()) else {
            return Err(Error::model(&out, "not a place for a model directory"));
        };
        let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
        fs::create_dir_all(parent).map_err(|e| Error::io(parent, e))?;
        let part = parent.join(format!(".{}.part", name.to_string_lossy()));
        match fs::create_dir(&part) {
            Err(e) if e.kind() == ErrorKind::AlreadyExists && is_directory(&part) => {}
            result => result.map_err(|e| Error::io(&part, e))?,
        }
        let lock = lock(&part, &out)?;
        let staging = Self { out, part, _lock: lock };
        // The files go into a directory of their own, which has the permissions that directories have here.
        let dir = staging.dir();
        let cleaned = if is_directory(&dir) { fs::remove_dir_all(&dir) } else { Ok(()) };
        cleaned.and_then(|()| fs::create_dir(&dir)).map_err(|e| Error::io(&dir, e))?;
        Ok(staging)
    }

    /// Where the files go for now.
    pub fn dir(&self) -> PathBuf {
        self.part.join("model")
    }

    /// Puts the model in its place.
    pub fn publish(self) -> Result<()> {
        let out = &self.out;
        if !out.exists() {
            return fs::rename(self.dir(), out).map_err(|e| Error::io(out, e));
        }
        // Other files, such as a model's card, stay. Without a config.json the directory doesn't load, so no moment of
        // the exchange can be taken for a model.
        let config = out.join(CONFIG);
        if config.exists() {
            fs::remove_file(&config).map_err(|e| Error::io(&config, e))?;
        }
        for name in [WEIGHTS, TOKENS, CONFIG] {
            let target = out.join(name);
            fs::rename(self.dir().join(name), &target).map_err(|e| Error::io(&target, e))?;
        }
        Ok(())
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        // What can't be removed now is removed by the next conversion.
        let _ = fs::remove_dir_all(&self.part);
    }
}

fn lock(part: &Path, out: &Path) -> Result<File> {
    let path = part.join("lock");
    let file = File::options().create(true).truncate(false).write(true).open(&path);
    let file = file.map_err(|e| Error::io(&path, e))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(Error::model(out, "another conversion is writing it now")),
        // A file system without locks still converts.
        Err(TryLockError::Error(e)) if e.kind() == ErrorKind::Unsupported => Ok(file),
        Err(TryLockError::Error(e)) => Err(Error::io(&path, e)),
    }
}

/// Whether there is a directory itself, not a link to one.
fn is_directory(path: &Path) -> bool {
    path.symlink_metadata().is_ok_and(|metadata| metadata.is_dir())
}

/// Whether a directory is a model's, or holds nothing but files that a conversion writes.
fn is_replaceable(out: &Path) -> Result<bool> {
    if !out.is_dir() {
        return Ok(false);
    }
    if is_model(out) {
        return Ok(true);
    }
    for entry in fs::read_dir(out).map_err(|e| Error::io(out, e))? {
        let name = entry.map_err(|e| Error::io(out, e))?.file_name();
        if ![CONFIG, WEIGHTS, TOKENS].iter().any(|ours| name == *ours) || out.join(CONFIG).exists() {
            return Ok(false);
        }
    }
    Ok(true)
}
