// SPDX-License-Identifier: MPL-2.0
//! Why the tool ends without success.

use std::io;
use std::path::{Path, PathBuf};

/// What the user gets to read after `error: `.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The engine's own words.
    #[error(transparent)]
    Engine(#[from] parakeet_engine::Error),
    /// An audio file can't be read, or not to its end.
    #[error("{path}: {reason}", path = path.display())]
    Audio {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A list of phrases can't be read, or the model can't write them.
    #[error("{path}: {1}", path = .0.display())]
    Vocabulary(PathBuf, String),
    /// The thread that decodes the file panicked.
    #[error("the audio decoder broke down, the transcript ends where it did")]
    Decoder,
    /// The engine ended a stream early without a reason.
    #[error("the stream was closed before its end")]
    Closed,
    /// No model was named and none is installed.
    #[error("no model found beside {path} or above, give one with --model DIR", path = .0.display())]
    NoModel(PathBuf),
    /// Standard output.
    #[error("standard output: {0}")]
    Output(#[from] io::Error),
}

impl Failure {
    /// A problem of the audio file `path`.
    pub fn audio(path: &Path, reason: impl Into<String>) -> Self {
        Failure::Audio { path: path.to_owned(), reason: reason.into() }
    }

    /// The reader of our output went away, which is no failure to report.
    pub fn is_broken_pipe(&self) -> bool {
        matches!(self, Failure::Output(e) if e.kind() == io::ErrorKind::BrokenPipe)
    }
}
