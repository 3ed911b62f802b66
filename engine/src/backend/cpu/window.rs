// SPDX-License-Identifier: MPL-2.0
//! The audio of a sliding window and its log-mel frames. What windows share is computed once.

use std::ops::Range;

use crate::audio::Held;
use crate::audio::features::{HANN, HANN_AHEAD, HOP, LogMel, LogMelState, mel_frames};
use crate::backend::Window;

/// Mel frames at a window's start that hear it: the signal begins there, with no sample before it.
const HEAD: usize = HANN.div_ceil(2).div_ceil(HOP);
/// Mel frames that the last ones of a window are computed with, so that they hear all that they see.
const RUN_UP: usize = 2;

/// The last samples of a stream, as many as a window holds, and their features.
#[derive(Default)]
pub struct WindowAudio {
    pcm: Held,
    /// The stream as one signal: its mel frames, from index `mel_first` on.
    stream: LogMelState,
    mel: Vec<f32>,
    mel_first: usize,
}

impl WindowAudio {
    /// Bytes that a full window holds: its samples, its mel frames and the same normalised.
    pub fn bytes(window: Window, bins: usize) -> usize {
        (window.samples() + 2 * window.samples() / HOP * bins) * size_of::<f32>()
    }

    /// Takes the samples of the next step, whose window begins with sample `origin`.
    pub fn push(&mut self, mel: &LogMel, pcm: &[f32], origin: usize) {
        self.pcm.push(pcm);
        self.pcm.drop_before(origin);
        mel.push(&mut self.stream, pcm, &mut self.mel);
        let gone = origin.div_ceil(HOP).min(self.stream.frames());
        if gone > self.mel_first {
            self.mel.drain(..(gone - self.mel_first) * mel.bins());
            self.mel_first = gone;
        }
    }

    /// Mel frames of the window as a signal of its own, to `out`.
    pub fn features(&self, mel: &LogMel, out: &mut Vec<f32>) {
        out.clear();
        let (pcm, start) = (self.pcm.samples(), self.pcm.first());
        let total = mel_frames(pcm.len(), true);
        let known = (self.stream.frames() * HOP).saturating_sub(start) / HOP;
        let known = known.min(total);
        if !start.is_multiple_of(HOP) || known <= HEAD + RUN_UP {
            signal(mel, pcm, 0..total, out);
            return;
        }
        let head = if start == 0 { 0 } else { HEAD };
        signal(mel, &pcm[..HEAD * HOP + HANN_AHEAD], 0..head, out);
        let first = start / HOP + head - self.mel_first;
        out.extend_from_slice(&self.mel[first * mel.bins()..][..(known - head) * mel.bins()]);
        let run_up = known - RUN_UP;
        signal(mel, &pcm[run_up * HOP..], RUN_UP..total - run_up, out);
    }
}

/// Appends the mel frames `frames` of `pcm` as a whole signal.
fn signal(mel: &LogMel, pcm: &[f32], frames: Range<usize>, out: &mut Vec<f32>) {
    if frames.is_empty() {
        return;
    }
    let (mut state, mut all) = (LogMelState::default(), Vec::new());
    mel.push(&mut state, pcm, &mut all);
    mel.finish(&mut state, &mut all);
    out.extend_from_slice(&all[frames.start * mel.bins()..frames.end * mel.bins()]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audio::FRAME_SAMPLES;
    use crate::backend::timeline::Timeline;
    use crate::backend::{Mode, Slot, Step, StepSizes};
    use crate::model::Geometry;
    use crate::model::config::{FeaturesConfig, Normalize};
    use proptest::prelude::*;

    fn noise(count: usize) -> Vec<f32> {
        let mut state = 9_u32;
        let next = |_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 24) as f32 - 0.5
        };
        (0..count).map(next).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]
        #[test]
        fn windows_share_features_exactly_and_decode_every_frame_once(
            left in 0_usize..6, chunk in 1_usize..5, right in 0_usize..5, total in 1_usize..20_000, causal: bool,
        ) {
            let mel = LogMel::new(&FeaturesConfig {
                sample_rate: 16_000, mel_bins: 16, normalize: Normalize::None,
            });
            let geometry = Geometry { mel_bins: 16, channels: 4, causal };
            let window = Window { left, chunk, right };
            let frame = FRAME_SAMPLES as usize;
            let sizes = StepSizes { first: (chunk + right) * frame, later: chunk * frame };
            let mut timeline = Timeline::with(geometry, Mode::Buffered { context: 0, window }, sizes);
            let pcm = noise(total);
            let mut audio = WindowAudio::default();
            let (mut at, mut decoded, mut index) = (0, 0, 0);
            let mut features = Vec::new();
            while at < total {
                let next = (at + sizes.of(index)).min(total);
                let end = next == total;
                let step = Step { slot: Slot(0), pcm: &pcm[at..next], end };
                let portion = timeline.next(&step).expect("a step of the right size");
                audio.push(&mel, step.pcm, portion.origin);
                audio.features(&mel, &mut features);
                let mut alone = Vec::new();
                let start = next.saturating_sub(window.samples());
                signal(&mel, &pcm[start..next], 0..(next - start) / HOP, &mut alone);
                prop_assert!(features == alone, "window {index}");
                prop_assert_eq!((portion.origin, portion.frames.end), (start, geometry.frames((next - start) / HOP)));
                prop_assert!(portion.decode.end <= portion.frames.end);
                if !end {
                    let at = start + portion.decode.start * frame;
                    prop_assert_eq!((at, portion.decode.len()), (decoded * frame, chunk));
                }
                decoded += portion.decode.len();
                at = next;
                index += 1;
            }
            prop_assert_eq!(decoded, geometry.frames(total / HOP), "each frame once");
        }
    }
}
