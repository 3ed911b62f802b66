// SPDX-License-Identifier: MPL-2.0
//! How a stream is run, and what that means for a model.

use crate::audio::SAMPLE_RATE;
use crate::backend::{Mode, Window};
use crate::error::{Error, Result};
use crate::model::ModelConfig;

/// How a stream is run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamOptions {
    /// Right context in encoder frames of 80 ms, one that the model was trained for; its first context if `None`.
    pub look_ahead: Option<u32>,
    /// Language that is spoken, as a BCP 47 tag, or `auto`; what a model with a language prompt is told, others don't
    /// mind. `None` is `auto` where the model has it.
    pub language: Option<String>,
    /// Window of buffered streaming. If `None`, a model that can is streamed with caches, and another in
    /// [`Window::default`].
    pub window: Option<Window>,
    /// One pass over each utterance, at its end; audio of any length is queued until then.
    pub offline: bool,
    /// Skips silence: what comes before speech and after it is not recognised, and each stretch of speech is an utterance
    /// of its own.
    pub skip_silence: bool,
    /// Tells of words that are not complete, as [`Event::Partial`](crate::Event::Partial).
    pub partials: bool,
    /// Samples that may be queued; a chunk's worth at least is always allowed.
    pub queue_samples: usize,
    /// What happens when the queue is full.
    pub overflow: Overflow,
}

impl Default for StreamOptions {
    /// The model's first context, a queue of 30 s that holds the writer back.
    fn default() -> Self {
        Self {
            look_ahead: None,
            language: None,
            window: None,
            offline: false,
            skip_silence: false,
            partials: false,
            queue_samples: 30 * SAMPLE_RATE as usize,
            overflow: Overflow::Block,
        }
    }
}

impl StreamOptions {
    /// How a stream of the model is run. Fails if the model has no such context or the window is none.
    pub fn mode(&self, config: &ModelConfig) -> Result<Mode> {
        let context = self.context(config)?;
        if self.offline {
            return Ok(Mode::Offline { context });
        }
        match self.window {
            None if config.is_cache_aware(context) => Ok(Mode::Cached { context }),
            window => {
                let window = window.unwrap_or_default();
                window.check().map(|()| Mode::Buffered { context, window })
            }
        }
    }

    /// Place of the language in the model's prompt, 0 if it has none. Fails if it lacks the language.
    pub fn language_place(&self, config: &ModelConfig) -> Result<usize> {
        config.prompt.as_ref().map_or(Ok(0), |prompt| prompt.place(self.language.as_deref()))
    }

    /// Index of the model's context with these right frames, or of its first.
    fn context(&self, config: &ModelConfig) -> Result<usize> {
        let contexts = &config.encoder.contexts;
        let Some(wanted) = self.look_ahead else { return Ok(0) };
        let known = contexts.iter().position(|[_, right]| i64::from(*right) == i64::from(wanted));
        known.ok_or_else(|| {
            let known: Vec<String> = contexts
                .iter()
                .filter(|[_, right]| *right >= 0)
                .map(|[_, right]| right.to_string())
                .collect();
            let reason = if known.is_empty() {
                "the model hears everything; chunk and right context set its latency".into()
            } else {
                format!("the model has no context of {wanted} frames; it has {}", known.join(", "))
            };
            Error::Option { option: "look-ahead", reason }
        })
    }

    /// Samples from the start of an encoder frame to the end of the chunk that decodes it, at most.
    pub fn latency_samples(&self, config: &ModelConfig) -> Result<u64> {
        self.mode(config).map(|mode| mode.step_sizes(&config.encoder).first as u64)
    }
}

/// What happens to audio that doesn't fit into the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overflow {
    /// [`Stream::push`](crate::Stream::push) waits.
    Block,
    /// The oldest audio is given up and reported as [`Event::Lost`](crate::Event::Lost).
    DropOldest,
}
