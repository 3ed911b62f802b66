// SPDX-License-Identifier: MPL-2.0
//! Lengths of the 8x subsampling: how many frames a signal has, and which mel frames they are made of.

use std::ops::Range;

use super::ModelConfig;

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
        Self {
            mel_bins: config.features.mel_bins,
            channels: encoder.subsampling_channels,
            causal: encoder.causal_subsampling,
        }
    }

    /// Positions of zeros before the first, on time and bins.
    pub fn left_padding(self) -> usize {
        if self.causal { 2 } else { 1 }
    }

    /// Length of the next level.
    pub fn halve(self, length: usize) -> usize {
        if self.causal { length / 2 + 1 } else { length.saturating_sub(1) / 2 + 1 }
    }

    /// Lengths of the three levels where the input has this one.
    pub fn lengths(self, input: usize) -> [usize; 3] {
        let one = self.halve(input);
        let two = self.halve(one);
        [one, two, self.halve(two)]
    }

    /// Bins of the three levels; those of the last times the channels is what a frame's projection takes.
    pub fn levels(self) -> [usize; 3] {
        self.lengths(self.mel_bins)
    }

    /// Encoder frames of `mel` mel frames.
    pub fn frames(self, mel: usize) -> usize {
        if mel == 0 { 0 } else { self.lengths(mel)[2] }
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
    fn subsampling_leaves_the_bins_that_nemo_has() {
        let bins = [(80, true), (80, false), (128, true), (128, false)]
            .map(|(mel_bins, causal)| Geometry { mel_bins, channels: 8, causal }.levels()[2]);
        assert_eq!(bins, [11, 10, 17, 16]);
    }
}
