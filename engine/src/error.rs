//! The one error type of the crate.

use std::path::{Path, PathBuf};

/// What can go wrong, naming the thing and, where there is one, the remedy.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file could not be read, written or created.
    #[error("{path}: {source}", path = path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The operating system's reason.
        source: std::io::Error,
    },
    /// A model directory, checkpoint or one of their files is damaged or incomplete.
    #[error("{path}: {reason}", path = path.display())]
    Model {
        /// The file or directory.
        path: PathBuf,
        /// What was expected and what was found.
        reason: String,
    },
    /// The model is sound, but nothing here can run it (that way).
    #[error("unsupported model: {0}")]
    Unsupported(String),
    /// An option has a value that the model or the machine doesn't have.
    #[error("{option}: {reason}")]
    Option {
        /// Name of the option, as the user writes it.
        option: &'static str,
        /// The values there are.
        reason: String,
    },
    /// A backend failed, or a device or library that it needs is missing.
    #[error("backend {backend}{}: {reason}", device.as_ref().map(|device| format!(", {device}")).unwrap_or_default())]
    Backend {
        /// Its [name](crate::backend::Backend::name), such as `cuda`.
        backend: &'static str,
        /// The [device](crate::backend::Backend::device), once an engine runs on it.
        device: Option<Box<str>>,
        /// What kind of failure, for callers that can do something about it.
        kind: Fault,
        /// What failed.
        reason: String,
    },
}

/// Kind of a backend's failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// The device has no memory left for it: fewer streams, a shorter window or another device may do.
    OutOfMemory,
    /// The device can't be used any more by this process: only another device or another process helps.
    DeviceLost,
    /// The device, its driver or its libraries can't do it, now or ever; what is missing is in the reason.
    Refused,
    /// Anything else: a defect, of a program or of a model.
    Internal,
}

impl Error {
    /// Kind of the failure, where a backend failed.
    pub fn fault(&self) -> Option<Fault> {
        match self {
            Self::Backend { kind, .. } => Some(*kind),
            _ => None,
        }
    }

    pub(crate) fn io(path: &Path, source: std::io::Error) -> Self {
        Error::Io { path: path.to_owned(), source }
    }

    pub(crate) fn model(path: &Path, reason: impl Into<String>) -> Self {
        Error::Model { path: path.to_owned(), reason: reason.into() }
    }
}

/// `Result` with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;
