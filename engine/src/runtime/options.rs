// SPDX-License-Identifier: MPL-2.0
//! How a stream is run, and what that means for a model.

use std::sync::Arc;

use crate::audio::SAMPLE_RATE;
use crate::backend::{Mode, Window};
use crate::error::{Error, Result};
use crate::model::{Boosts, ModelConfig};

/// Milliseconds of an encoder frame.
const FRAME_MS: u64 = 80;

/// Frames of a window, at least: in less than 0.64 s the model that comes with this crate hears no word at all.
const LEAST_WINDOW: usize = 8;

/// How a stream is run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamOptions {
    /// Right context in encoder frames of 80 ms, one that the model was trained for; its first context if `None`.
    pub look_ahead: Option<u32>,
    /// Language that is spoken, as a BCP 47 tag, or `auto`; what a model with a language prompt is told, others don't
    /// mind. `None` is `auto` where the model has it.
    pub language: Option<String>,
    /// Window of buffered streaming, one that the model was trained for where it was for some only. If `None`, a model that
    /// can is streamed with caches, and another in [its own window](Window::of).
    pub window: Option<Window>,
    /// What one pass over each utterance decodes, whatever the window. A model that streams with caches decodes just that
    /// chunk by chunk: it is stepped as if this was not set, in no more memory. Another hears the whole utterance at its
    /// end: audio of any length is queued until then, whatever `queue_samples` says, and text comes at the end.
    pub offline: bool,
    /// Phrases that are rather heard than what sounds like them, made with the vocabulary of the model.
    pub vocabulary: Option<Arc<Boosts>>,
    /// Skips silence: what comes before speech and after it is not recognised, and each stretch of speech is an utterance
    /// of its own.
    pub skip_silence: bool,
    /// Tells of words that are not complete, as [`Event::Partial`](crate::Event::Partial).
    pub partials: bool,
    /// Samples of silence that the model hears behind each utterance, however that ends: without any it says a last word
    /// that nothing follows wrongly or not at all. They take no time on the sample clock. NeMo's own results are without.
    pub tail_samples: usize,
    /// Samples that may be queued; a chunk's worth at least is always allowed.
    pub queue_samples: usize,
    /// What happens when the queue is full.
    pub overflow: Overflow,
}

impl Default for StreamOptions {
    /// The model's first context, 0.5 s of silence behind each utterance, a queue of 30 s that holds the writer back.
    fn default() -> Self {
        Self {
            look_ahead: None,
            language: None,
            window: None,
            offline: false,
            vocabulary: None,
            skip_silence: false,
            partials: false,
            tail_samples: SAMPLE_RATE as usize / 2,
            queue_samples: 30 * SAMPLE_RATE as usize,
            overflow: Overflow::Block,
        }
    }
}

impl StreamOptions {
    /// How a stream of the model is run. Fails if the model has no such context or window.
    pub fn mode(&self, config: &ModelConfig) -> Result<Mode> {
        let context = self.context(config)?;
        match self.window.filter(|_| !self.offline) {
            None if config.is_cache_aware(context) => Ok(Mode::Cached { context }),
            None if self.offline => Ok(Mode::Offline { context }),
            window => {
                let window = window.unwrap_or_else(|| Window::of(config));
                window.check_for(config)?;
                if config.encoder.windows.is_none() && window.frames() < LEAST_WINDOW {
                    let reason = format!(
                        "left, chunk and right are {} s together, in which no word can be heard; take {} s at least",
                        window.frames() as f64 / 12.5,
                        LEAST_WINDOW as f64 / 12.5
                    );
                    return Err(Error::Option { option: "chunk", reason });
                }
                Ok(Mode::Buffered { context, window })
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
            let known: Vec<u64> =
                contexts.iter().filter_map(|[_, right]| u64::try_from(*right).ok()).collect();
            let list = |unit: u64| {
                let list: Vec<String> = known.iter().map(|frames| (frames * unit).to_string()).collect();
                list.join(", ")
            };
            let reason = if known.is_empty() {
                "the model hears everything; chunk and right context set its latency".into()
            } else {
                let ms = u64::from(wanted) * FRAME_MS;
                format!(
                    "the model has none of {ms} ms (frames of 80 ms: {wanted}); it has {} ms (frames: {})",
                    list(FRAME_MS),
                    list(1)
                )
            };
            Error::Option { option: "look-ahead", reason }
        })
    }

    /// Samples from where a word is spoken to the end of the chunk that decodes it, at most, if the model's delay is right.
    pub fn latency_samples(&self, config: &ModelConfig) -> Result<u64> {
        self.mode(config).map(|mode| mode.step_sizes(&config.encoder).first as u64 + config.emission_delay())
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::mode;
    use crate::convert::{Like, SynthOptions, synthetic_config};
    use crate::model::config::{AttentionStyle, WindowsConfig};

    fn v3() -> ModelConfig {
        let options = SynthOptions { like: Like::Tdt06bV3, vocabulary: None, layers: None, seed: 0 };
        synthetic_config(&options).expect("a configuration")
    }

    /// With the windows of parakeet-unified-en-0.6b.
    fn unified() -> ModelConfig {
        let mut config = v3();
        config.encoder.attention = AttentionStyle::ChunkedLimitedWithRc;
        config.encoder.windows = Some(WindowsConfig {
            left: vec![70],
            chunk: vec![1, 2, 7, 13],
            right: vec![0, 1, 2, 3, 4, 7, 13],
        });
        config.validate().expect("a sound configuration");
        config
    }

    fn window(config: &ModelConfig, window: Option<Window>) -> Result<Window> {
        match (StreamOptions { window, ..Default::default() }).mode(config)? {
            Mode::Buffered { window, .. } => Ok(window),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_model_has_its_own_window() {
        assert_eq!(window(&v3(), None).unwrap(), Window { left: 125, chunk: 25, right: 25 });
        let config = unified();
        let own = window(&config, None).unwrap();
        assert_eq!(own, Window { left: 70, chunk: 13, right: 13 });
        let options = StreamOptions::default();
        // 26 frames of 80 ms at 16 kHz.
        assert_eq!(options.latency_samples(&config).unwrap(), 26 * 1_280);
        let offline = StreamOptions { offline: true, window: Some(own), ..options };
        assert_eq!(offline.mode(&config).unwrap(), Mode::Offline { context: 0 });
    }

    #[test]
    fn a_window_that_hears_no_word_is_refused() {
        let refused = window(&v3(), Some(Window { left: 0, chunk: 1, right: 0 })).unwrap_err();
        assert_eq!(
            refused.to_string(),
            "chunk: left, chunk and right are 0.08 s together, in which no word can be heard; take 0.64 s at least"
        );
        let least = Window { left: 4, chunk: 1, right: 3 };
        assert_eq!(window(&v3(), Some(least)).unwrap(), least);
    }

    #[test]
    fn a_late_model_is_later() {
        let config = ModelConfig { emission_delay_ms: 450, ..v3() };
        // 50 frames of 80 ms and 450 ms at 16 kHz.
        assert_eq!(StreamOptions::default().latency_samples(&config).unwrap(), 50 * 1_280 + 7_200);
    }

    #[test]
    fn one_pass_of_a_model_with_caches_is_streamed() {
        let like = Like::NemotronStreaming06b;
        let options = SynthOptions { like, vocabulary: None, layers: None, seed: 0 };
        let config = synthetic_config(&options).expect("a configuration");
        for (context, [_, right]) in config.encoder.contexts.iter().enumerate() {
            let look_ahead = u32::try_from(*right).ok();
            let window = Some(Window::default());
            let offline = StreamOptions { look_ahead, window, offline: true, ..Default::default() };
            assert_eq!(offline.mode(&config).unwrap(), Mode::Cached { context });
        }
    }

    #[test]
    fn a_model_runs_in_the_windows_of_its_training_only() {
        let config = unified();
        let trained = Window::trained(&config);
        assert_eq!((trained.len(), trained[0]), (4 * 7, Window::of(&config)));
        for &known in &trained {
            assert_eq!(window(&config, Some(known)).unwrap(), known);
        }
        assert_eq!(Window::from_seconds(5.6, 1.04, 1.04).unwrap(), trained[0]);
        assert_eq!(Window::from_seconds(5.65, 0.57, 0.0).unwrap(), Window { left: 70, chunk: 7, right: 0 });
        let all = "the model was trained for windows of left 5.6 s (70 frames); chunk 1.04, 0.56, 0.16 or 0.08 s \
                   (13, 7, 2 or 1 frames); right 1.04, 0.56, 0.32, 0.24, 0.16, 0.08 or 0 s \
                   (13, 7, 4, 3, 2, 1 or 0 frames)";
        for (sizes, expected) in [
            ([125, 13, 13], "left: 10 s (125 frames)"),
            ([70, 25, 25], "chunk: 2 s (25 frames)"),
            ([70, 13, 5], "right: 0.4 s (5 frames)"),
        ] {
            let [left, chunk, right] = sizes;
            let other = Window { left, chunk, right };
            let error = window(&config, Some(other)).unwrap_err().to_string();
            assert_eq!(error, format!("{expected}, but {all}"));
            let opened = mode::check(&config, Mode::Buffered { context: 0, window: other }, "any");
            assert_eq!(opened.unwrap_err().to_string(), error, "a backend takes no other either");
            assert_eq!(window(&v3(), Some(other)).unwrap(), other, "full attention takes any");
        }
    }
}
