// SPDX-License-Identifier: MPL-2.0
//! The options that name phrases which are rather heard than others.

use std::path::PathBuf;
use std::sync::Arc;

use parakeet_engine::{Boosts, Engine, Error, StreamOptions};

use crate::failure::Failure;
use crate::streaming::StreamArgs;

/// A list of phrases.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct VocabularyArgs {
    /// Text file of phrases that are rather heard than what sounds like them, one a line, perhaps with a tab and its boost
    /// behind it; lines that are empty or begin with # are left out
    #[arg(long, value_name = "FILE")]
    vocabulary: Option<PathBuf>,
    /// Boost of phrases without one of their own, 0 to 10: 0 adds nothing, a large one has them heard everywhere
    #[arg(long, value_name = "N", default_value_t = Boosts::DEFAULT, requires = "vocabulary")]
    boost: f32,
}

impl VocabularyArgs {
    /// The phrases for the engine's model, if any are named.
    pub fn read(&self, engine: &Engine) -> Result<Option<Arc<Boosts>>, Failure> {
        let Some(path) = &self.vocabulary else { return Ok(None) };
        let fail = |reason: String| Failure::file(path, reason);
        let text = std::fs::read_to_string(path).map_err(|e| fail(e.to_string()))?;
        let boosts = Boosts::parse(engine.vocabulary(), &text, self.boost);
        boosts.map(|boosts| Some(Arc::new(boosts))).map_err(|e| match e {
            Error::Option { reason, .. } => fail(reason),
            other => other.into(),
        })
    }

    /// The options of a stream of the engine's model, with the phrases. Fails if these are none for it, or a window is none.
    pub fn options(&self, streaming: &StreamArgs, engine: &Engine) -> Result<StreamOptions, Failure> {
        let vocabulary = self.read(engine)?;
        Ok(StreamOptions { vocabulary, ..streaming.options(engine.config())? })
    }
}
