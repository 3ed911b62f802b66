// SPDX-License-Identifier: MPL-2.0
//! What every backend must agree on: how many frames a signal has, and which of them see each other.

use std::ops::Range;

use crate::audio::features::{FRAME_SAMPLES, HOP};
use crate::backend::{Mode, Step, StepSizes, Window};
use crate::error::{Error, Result};
use crate::model::ModelConfig;
use crate::model::config::{AttentionStyle, EncoderConfig};

/// Geometry of the three convolutions of the 8x `dw_striding` subsampling (NeMo `ConvSubsampling`): kernel 3 and stride 2
/// on time and mel bins.
#[derive(Clone, Copy, Debug)]
pub struct Geometry {
    pub mel_bins: usize,
    pub channels: usize,
    pub causal: bool,
}

impl Geometry {
    /// That of a model.
    pub fn new(config: &ModelConfig) -> Self {
        let encoder = &config.encoder;
        Self::with(config.features.mel_bins, encoder.subsampling_channels, encoder.causal_subsampling)
    }

    /// Of any convolutions.
    pub fn with(mel_bins: usize, channels: usize, causal: bool) -> Self {
        Self { mel_bins, channels, causal }
    }

    /// Positions of zeros before the first, on time and bins.
    pub fn left_padding(self) -> usize {
        if self.causal { 2 } else { 1 }
    }

    /// Length of the next level.
    pub fn halve(self, length: usize) -> usize {
        if self.causal { length / 2 + 1 } else { length.saturating_sub(1) / 2 + 1 }
    }

    /// Encoder frames of `mel` mel frames.
    pub fn frames(self, mel: usize) -> usize {
        if mel == 0 { 0 } else { (0..3).fold(mel, |length, _| self.halve(length)) }
    }

    /// Encoder frames of a causal model that no later mel frame can change, when `mel` are there: frame `j` ends with
    /// mel frame `8 j`.
    pub fn complete_frames(self, mel: usize) -> usize {
        mel.div_ceil(8)
    }

    /// First mel frame that encoder frame `frame` sees.
    pub fn first_mel(self, frame: usize) -> usize {
        (0..3).fold(frame, |position, _| self.inputs(position..position + 1).start)
    }

    /// Positions of the level before that some positions see.
    pub fn inputs(self, outputs: Range<usize>) -> Range<usize> {
        let left = self.left_padding();
        (2 * outputs.start).saturating_sub(left)..(2 * (outputs.end - 1) + 3).saturating_sub(left)
    }
}

/// Which frames a frame sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Visibility {
    /// Frames before the chunk.
    pub left: i64,
    /// Frames that see the same; 1 for attention that slides.
    pub chunk: i64,
    /// Beyond the chunk.
    pub right: i64,
}

impl Visibility {
    /// Of the mode's context. In a window that a model was trained for, the window itself is the context.
    pub fn new(config: &EncoderConfig, mode: Mode) -> Self {
        const UNLIMITED: i64 = i32::MAX as i64;
        let [left, right] = config.contexts[mode.context()].map(i64::from);
        let or_unlimited = |frames: i64| if frames < 0 { UNLIMITED } else { frames };
        match (config.attention, mode) {
            (AttentionStyle::Regular, _) => {
                Self { left: or_unlimited(left), chunk: 1, right: or_unlimited(right) }
            }
            (AttentionStyle::ChunkedLimited, _) => {
                let chunk = right + 1;
                // NeMo counts the left context in whole chunks.
                Self { left: or_unlimited(left) / chunk * chunk, chunk, right: 0 }
            }
            (AttentionStyle::ChunkedLimitedWithRc, Mode::Buffered { window, .. }) => {
                Self { left: window.left as i64, chunk: window.chunk as i64, right: window.right as i64 }
            }
            (AttentionStyle::ChunkedLimitedWithRc, _) => Self { left: UNLIMITED, chunk: 1, right: UNLIMITED },
        }
    }

    /// Frames visible to `frame`, without regard to where the stream starts and ends.
    pub fn of(self, frame: i64) -> Range<i64> {
        let start = frame / self.chunk * self.chunk;
        start - self.left..start + self.chunk + self.right
    }
}

/// Sinusoids of the relative positions `range`, `[positions, width]`: sine and cosine in turn.
pub fn sinusoids(range: Range<i64>, width: usize) -> Vec<f32> {
    let step = -(10_000.0_f32.ln() / width as f32);
    let mut out = Vec::with_capacity(range.clone().count() * width);
    for position in range {
        for channel in 0..width {
            let angle = position as f32 * ((channel / 2 * 2) as f32 * step).exp();
            out.push(if channel % 2 == 0 { angle.sin() } else { angle.cos() });
        }
    }
    out
}

/// The audio of a sliding window: the last samples of a stream, as many as a window holds.
pub struct WindowPcm {
    window: Window,
    samples: Vec<f32>,
    /// Sample index of the first of them in the stream.
    start: usize,
    /// Encoder frames decoded by earlier windows.
    decoded: usize,
}

/// What a window is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    /// Encoder frames of the window.
    pub frames: usize,
    /// Those of them that are decoded.
    pub decode: Range<usize>,
}

impl WindowPcm {
    /// Without audio yet.
    pub fn new(window: Window) -> Self {
        Self { window, samples: Vec::new(), start: 0, decoded: 0 }
    }

    /// Takes the samples of the next step and lets go of those that no window holds any more.
    pub fn push(&mut self, pcm: &[f32]) {
        self.samples.extend_from_slice(pcm);
        let surplus = self.samples.len().saturating_sub(self.window.samples());
        self.samples.drain(..surplus);
        self.start += surplus;
    }

    /// The samples of the window.
    pub fn samples(&self) -> &[f32] {
        &self.samples
    }

    /// Sample index of the first of them in the stream.
    pub fn start(&self) -> usize {
        self.start
    }

    /// The frames of the window and which of them are decoded now: the chunk, or at the stream's `end` all that is left.
    ///
    /// The last window is as long as the others and so may begin between two frames (NeMo's rule): its first frame
    /// to decode is then the one that holds the end of those decoded before.
    pub fn advance(&mut self, geometry: Geometry, end: bool) -> Span {
        let frame = FRAME_SAMPLES as usize;
        let frames = geometry.frames(self.samples.len() / HOP);
        let left = (self.decoded * frame).saturating_sub(self.start) / frame;
        let all = geometry.frames((self.start + self.samples.len()) / HOP);
        let count = if end { all.saturating_sub(self.decoded) } else { self.window.chunk };
        let decode = left.min(frames)..(left + count).min(frames);
        self.decoded += decode.len();
        Span { frames, decode }
    }
}

/// Where an utterance stands in its steps.
pub struct Progress {
    /// Of a step.
    sizes: StepSizes,
    steps: u64,
    ended: bool,
}

impl Progress {
    /// Before the first step.
    pub fn new(encoder: &EncoderConfig, mode: Mode) -> Self {
        Self { sizes: mode.step_sizes(encoder), steps: 0, ended: false }
    }

    /// Takes the next step, and says whether it is the first. Fails after the last one, and if it has not as many samples
    /// as are due, where only the last may have fewer.
    pub fn take(&mut self, step: &Step<'_>) -> Result<bool, String> {
        if self.ended {
            return Err("the utterance of this slot has ended: it must be reset first".into());
        }
        let (expected, came) = (self.sizes.of(self.steps), step.pcm.len());
        if came > expected || (came < expected && !step.end) {
            return Err(match expected {
                usize::MAX => {
                    format!("one pass takes its signal in one step, {came} samples came without the end")
                }
                _ => format!("a chunk of {expected} samples was due, {came} came"),
            });
        }
        let first = self.steps == 0;
        (self.ended, self.steps) = (step.end, self.steps + 1);
        Ok(first)
    }
}

/// Whether the model can be run in this mode.
pub fn check(config: &ModelConfig, mode: Mode, backend: &'static str) -> Result<()> {
    let context = mode.context();
    if context >= config.encoder.contexts.len() {
        return Err(Error::Backend { backend, reason: format!("the model has no context {context}") });
    }
    match mode {
        Mode::Cached { .. } if !config.is_cache_aware(context) => Err(Error::Unsupported(format!(
            "{} is not causal, so it cannot be streamed chunk by chunk with caches",
            config.name
        ))),
        Mode::Buffered { window, .. } => window.check(),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_equal_nemo() {
        // non-causal 700 -> 88, 1100 -> 138; causal 700 -> 89, 105 -> 14, 121 -> 16, 1 -> 1.
        let geometry = |causal| Geometry { mel_bins: 80, channels: 8, causal };
        let causal = [(700, 89), (105, 14), (121, 16), (1, 1), (0, 0)];
        let symmetric = [(700, 88), (1100, 138), (0, 0)];
        for (mel, frames) in causal {
            assert_eq!(geometry(true).frames(mel), frames, "causal, {mel}");
        }
        for (mel, frames) in symmetric {
            assert_eq!(geometry(false).frames(mel), frames, "symmetric, {mel}");
        }
    }

    #[test]
    fn receptive_field_of_causal_frames() {
        let geometry = Geometry { mel_bins: 80, channels: 8, causal: true };
        assert_eq!(geometry.first_mel(0), 0);
        assert_eq!(geometry.first_mel(5), 40 - 14);
        assert_eq!(geometry.complete_frames(0), 0);
        assert_eq!(geometry.complete_frames(1), 1);
        assert_eq!(geometry.complete_frames(8), 1);
        assert_eq!(geometry.complete_frames(9), 2);
    }

    #[test]
    fn chunks_see_themselves_and_the_left_context() {
        // The example of NeMo's mask for [4, 1]: rows 0-1 see 0-1, 2-3 see 0-3, 4-5 see 0-5, 6-7 see 2-7.
        let visibility = Visibility { left: 4, chunk: 2, right: 0 };
        let expected = [(0, 0..2), (1, 0..2), (2, 0..4), (5, 0..6), (6, 2..8), (7, 2..8)];
        for (frame, frames) in expected {
            let seen = visibility.of(frame);
            assert_eq!(seen.start.max(0)..seen.end, frames, "frame {frame}");
        }
    }

    #[test]
    fn chunks_with_right_context_see_it() {
        // NeMo's chunked_limited_with_rc [4, 2, 1]: a row of chunk k sees 2 k - 4 up to 2 k + 2.
        let visibility = Visibility { left: 4, chunk: 2, right: 1 };
        for (frame, frames) in [(0, 0..3), (1, 0..3), (2, 0..5), (5, 0..7), (6, 2..9), (7, 2..9)] {
            let seen = visibility.of(frame);
            assert_eq!(seen.start.max(0)..seen.end, frames, "frame {frame}");
        }
    }
}
