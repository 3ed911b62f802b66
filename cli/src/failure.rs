// SPDX-License-Identifier: MPL-2.0
//! Why the tool ends without success.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// What the user gets to read after `error: `.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The engine's own words.
    #[error(transparent)]
    Engine(#[from] parakeet_engine::Error),
    /// A file can't be read, or not to its end, or isn't what it should be.
    #[error("{path}: {reason}", path = path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The thread that decodes the file panicked.
    #[error("the audio decoder broke down, the transcript ends where it did")]
    Decoder,
    /// The engine ended a stream early without a reason.
    #[error("the stream was closed before its end")]
    Closed,
    /// No model was named and none is installed.
    #[error("no model found beside {path} or above, give one with --model DIR", path = .0.display())]
    NoModel(PathBuf),
    /// A server has no place to listen at.
    #[error("cannot listen at {0}: {1}; choose another address or port with --listen")]
    Listen(SocketAddr, io::Error),
    /// The command can't be meant like that.
    #[error("{0}")]
    Usage(String),
    /// Results of some files are missing; why was told for each.
    #[error("{missing} of {all} files have no result; the same command does what is missing")]
    Files {
        /// Files without.
        missing: usize,
        /// Files that were wanted.
        all: usize,
    },
    /// Standard output.
    #[error("standard output: {0}")]
    Output(#[from] io::Error),
}

impl Failure {
    /// A problem of the file `path`.
    pub fn file(path: &Path, reason: impl Into<String>) -> Self {
        Failure::File { path: path.to_owned(), reason: reason.into() }
    }

    /// What to print of it if it belongs to the file `path`, among others.
    pub fn of_file(&self, path: &Path) -> String {
        match self {
            Failure::File { .. } => format!("error: {self}"),
            _ => format!("error: {}: {self}", path.display()),
        }
    }

    /// The exit status: 2 for a command that is wrong, else 1.
    pub fn status(&self) -> u8 {
        if matches!(self, Failure::Usage(_)) { 2 } else { 1 }
    }

    /// The reader of our output went away, which is no failure to report.
    pub fn is_broken_pipe(&self) -> bool {
        matches!(self, Failure::Output(e) if e.kind() == io::ErrorKind::BrokenPipe)
    }
}
