// SPDX-License-Identifier: MPL-2.0
//! The ways to run a stream, and what they mean for a model.

use crate::audio::features::{FRAME_SAMPLES, HANN_AHEAD, HOP};
use crate::error::{Error, Fault, Result};
use crate::model::ModelConfig;
use crate::model::config::{EncoderConfig, MOST_WINDOW, WindowsConfig};

/// How a slot is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Cache-aware streaming with the model's context of this index; a step is one chunk. Only for models that
    /// [are cache-aware](ModelConfig::is_cache_aware) in it.
    Cached {
        /// Index into `EncoderConfig::contexts`.
        context: usize,
    },
    /// Windows of left context, chunk and right context that slide by a chunk; a step is one window.
    Buffered {
        /// Index into `EncoderConfig::contexts`: what a frame sees inside the window.
        context: usize,
        /// The window.
        window: Window,
    },
    /// One pass over the whole utterance, which is one step.
    Offline {
        /// Index into `EncoderConfig::contexts`.
        context: usize,
    },
}

impl Mode {
    /// Index into `EncoderConfig::contexts`.
    pub fn context(self) -> usize {
        let (Self::Cached { context } | Self::Buffered { context, .. } | Self::Offline { context }) = self;
        context
    }

    /// Samples of each signal by itself in a stream whose utterance has so many; none where there are caches.
    pub(crate) fn signal_samples(self, samples: usize) -> Option<usize> {
        match self {
            Self::Cached { .. } => None,
            Self::Buffered { window, .. } => Some(window.samples()),
            Self::Offline { .. } => Some(samples),
        }
    }

    /// How many samples the steps of an utterance take.
    pub fn step_sizes(self, encoder: &EncoderConfig) -> StepSizes {
        match self {
            Self::Cached { context } => {
                let right = encoder.contexts.get(context).map_or(0, |[_, right]| (*right).max(0));
                let samples = |index| chunk_samples(right as usize + 1, index);
                StepSizes { first: samples(0), later: samples(1) }
            }
            Self::Buffered { window: Window { chunk, right, .. }, .. } => {
                let samples = |frames: usize| frames * FRAME_SAMPLES as usize;
                StepSizes { first: samples(chunk + right), later: samples(chunk) }
            }
            Self::Offline { .. } => StepSizes { first: usize::MAX, later: usize::MAX },
        }
    }
}

/// Samples of the steps of an utterance; its last step may have fewer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StepSizes {
    /// Of the first step. It begins with its first frame, so this is also the most that lies between the start of a
    /// frame and the end of the step that decodes it.
    pub first: usize,
    /// Of each later one.
    pub later: usize,
}

impl StepSizes {
    /// Samples of step `index`.
    pub fn of(self, index: u64) -> usize {
        if index == 0 { self.first } else { self.later }
    }
}

/// A window of buffered streaming, in encoder frames of 80 ms (NeMo `speech_to_text_streaming_infer_rnnt.py`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Window {
    /// Frames before the chunk that the encoder hears again, at most.
    pub left: usize,
    /// Frames that are decoded.
    pub chunk: usize,
    /// Frames after the chunk that the encoder hears first.
    pub right: usize,
}

impl Default for Window {
    /// 10 s, 2 s and 2 s.
    fn default() -> Self {
        Self { left: 125, chunk: 25, right: 25 }
    }
}

impl Window {
    /// The model's own window: the longest that it was trained for, or the usual one where it takes any.
    pub fn of(config: &ModelConfig) -> Self {
        Self::trained(config).first().copied().unwrap_or_default()
    }

    /// The windows that the model was trained for, the longest first, which is its own; none where it takes any.
    pub fn trained(config: &ModelConfig) -> Vec<Self> {
        let Some(WindowsConfig { left, chunk, right }) = &config.encoder.windows else { return Vec::new() };
        let mut windows = Vec::new();
        for left in falling(left) {
            for chunk in falling(chunk) {
                windows.extend(falling(right).into_iter().map(|right| Self { left, chunk, right }));
            }
        }
        windows
    }

    /// From seconds, rounded down to frames as NeMo does: 1 s is 12 frames. Fails without a frame to decode, and beyond
    /// 10 minutes.
    pub fn from_seconds(left: f64, chunk: f64, right: f64) -> Result<Self> {
        let frames = |option, seconds: f64| {
            // A multiple of 80 ms stays one in spite of rounding.
            let frames = (seconds * 12.5 + 1e-6).floor();
            if frames >= 0.0 && frames <= MOST_WINDOW as f64 {
                return Ok(frames as usize);
            }
            Err(Error::Option { option, reason: format!("{seconds} s is outside 0 to 600 s") })
        };
        let window = Self {
            left: frames("left", left)?,
            chunk: frames("chunk", chunk)?,
            right: frames("right", right)?,
        };
        window.check().map(|()| window)
    }

    /// Whether there is a frame to decode and the window isn't longer than 10 minutes.
    pub(crate) fn check(self) -> Result<()> {
        if self.chunk == 0 {
            let reason = "shorter than an encoder frame of 80 ms".into();
            return Err(Error::Option { option: "chunk", reason });
        }
        let Self { left, chunk, right } = self;
        if [left, chunk, right].into_iter().any(|part| part > MOST_WINDOW) || self.frames() > MOST_WINDOW {
            let reason = "left, chunk and right are more than 10 minutes together".into();
            return Err(Error::Option { option: "left", reason });
        }
        Ok(())
    }

    /// Whether the model can be run in it: a window of its training where it was trained for some only.
    pub(crate) fn check_for(self, config: &ModelConfig) -> Result<()> {
        self.check()?;
        let Some(trained) = &config.encoder.windows else { return Ok(()) };
        let WindowsConfig { left, chunk, right } = trained;
        let parts = [("left", self.left, left), ("chunk", self.chunk, chunk), ("right", self.right, right)];
        match parts.into_iter().find(|(_, frames, known)| !known.contains(frames)) {
            None => Ok(()),
            Some((option, frames, _)) => {
                let reason = format!(
                    "{} s ({frames} frames), but the model was trained for windows of {}",
                    seconds(frames),
                    parts.map(|(name, _, known)| listed(name, known)).join("; ")
                );
                Err(Error::Option { option, reason })
            }
        }
    }

    /// Frames of a whole window.
    pub fn frames(self) -> usize {
        self.left + self.chunk + self.right
    }

    /// Samples of a whole window.
    pub fn samples(self) -> usize {
        self.frames() * FRAME_SAMPLES as usize
    }
}

/// The different values, the greatest first.
fn falling(frames: &[usize]) -> Vec<usize> {
    let mut frames = frames.to_vec();
    frames.sort_unstable_by(|a, b| b.cmp(a));
    frames.dedup();
    frames
}

/// Frames of 80 ms in seconds.
fn seconds(frames: usize) -> f64 {
    frames as f64 / 12.5
}

/// Values of a part of a window for people: `chunk 1.04 or 0.56 s (13 or 7 frames)`.
fn listed(name: &str, frames: &[usize]) -> String {
    let frames = falling(frames);
    let any = |values: Vec<String>| match values.split_last() {
        Some((last, others)) if !others.is_empty() => format!("{} or {last}", others.join(", ")),
        _ => values.concat(),
    };
    let times = any(frames.iter().map(|&frames| seconds(frames).to_string()).collect());
    format!("{name} {times} s ({} frames)", any(frames.iter().map(usize::to_string).collect()))
}

/// Samples that chunk `index` of a cache-aware stream adds when a chunk has `frames` encoder frames.
///
/// Encoder frame `j` of a causal model ends with mel frame `8 j`, and that one sees 200 samples beyond its centre:
/// the first chunk is 7 mel frames shorter and a window's half longer than the others.
pub fn chunk_samples(frames: usize, index: u64) -> usize {
    if index == 0 { (frames - 1) * 8 * HOP + HANN_AHEAD } else { frames * FRAME_SAMPLES as usize }
}

/// Whether the model can be run in this mode.
pub fn check(config: &ModelConfig, mode: Mode, backend: &'static str) -> Result<()> {
    let context = mode.context();
    if context >= config.encoder.contexts.len() {
        return Err(Error::Backend {
            backend,
            device: None,
            kind: Fault::Internal,
            reason: format!("the model has no context {context}"),
        });
    }
    match mode {
        Mode::Cached { .. } if !config.is_cache_aware(context) => Err(Error::Unsupported(format!(
            "{} is not causal, so it cannot be streamed chunk by chunk with caches",
            config.name
        ))),
        Mode::Buffered { window, .. } => window.check_for(config),
        Mode::Cached { .. } | Mode::Offline { .. } => Ok(()),
    }
}

/// Frames that the ring of a slot holds: the left context and the chunk, or a whole window; offline it is sized when
/// the frames are known.
pub fn ring_rows(config: &ModelConfig, mode: Mode) -> usize {
    match mode {
        Mode::Buffered { window, .. } => window.frames() + usize::from(config.encoder.causal_subsampling),
        Mode::Cached { context } => {
            let [left, right] = config.encoder.contexts[context];
            left as usize + right as usize + 1
        }
        Mode::Offline { .. } => 1,
    }
}
