// SPDX-License-Identifier: MPL-2.0
//! What of a card decides which kernels there are and how they divide its memory.

use std::fmt::Display;

use crate::backend::Precision;
use crate::error::{Error, Result};
use crate::model::ModelConfig;

/// What a card can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Card {
    /// Compute capability, major and minor.
    pub capability: (i32, i32),
    /// Bytes of shared memory that a block may ask for.
    pub shared_memory: usize,
}

/// Capability from which on there are bfloat16, copies to shared memory that threads don't wait for, and products of tensor
/// cores as the kernels use them.
pub const TENSOR_CORES: (i32, i32) = (8, 0);

/// Capability from which on numbers of 8 bits (e4m3) are converted.
const E4M3: (i32, i32) = (8, 9);

impl Card {
    /// One that refuses nothing.
    pub const ANY: Self = Self { capability: (i32::MAX, 0), shared_memory: usize::MAX };

    /// Whether the kernels for tensor cores run on it.
    pub fn tensor_cores(&self) -> bool {
        self.capability >= TENSOR_CORES
    }

    /// The precision that a model is run with here: where it would be bfloat16 by itself and the card has none, single.
    pub fn precision(&self, chosen: Precision, config: &ModelConfig) -> Precision {
        match chosen.of(config) {
            Precision::Bf16 if chosen == Precision::Auto && !self.tensor_cores() => Precision::F32,
            precision => precision,
        }
    }

    /// Fails where it can't compute in this precision, saying what it can.
    pub fn check(&self, precision: Precision) -> Result<()> {
        let least = match precision {
            Precision::Auto | Precision::F16 | Precision::F32 => return Ok(()),
            Precision::Bf16 => TENSOR_CORES,
            Precision::F8 => E4M3,
        };
        if self.capability >= least {
            return Ok(());
        }
        Err(Error::Option { option: "precision", reason: self.lacks(precision, least, "f16") })
    }

    /// Says that `what` needs compute capability `least`, and what to use instead.
    pub fn lacks(&self, what: impl Display, least: (i32, i32), instead: &str) -> String {
        let ((major, minor), (has_major, has_minor)) = (least, self.capability);
        format!(
            "{what} needs a card of compute capability {major}.{minor} or later, this one has \
             {has_major}.{has_minor}: use {instead}"
        )
    }
}

/// Those that the kernels are compiled for to be checked, with what NVIDIA's CUDA programming guide says of their memory.
#[cfg(test)]
pub const CARDS: [Card; 8] = {
    const fn card(major: i32, minor: i32, kilobytes: usize) -> Card {
        Card { capability: (major, minor), shared_memory: kilobytes << 10 }
    }
    [
        card(7, 5, 64),
        card(8, 0, 163),
        card(8, 6, 99),
        card(8, 7, 163),
        card(8, 9, 99),
        card(9, 0, 227),
        card(10, 0, 227),
        card(12, 0, 99),
    ]
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::convert::{Like, SynthOptions, synthetic_config};

    #[test]
    fn cards_run_the_precisions_that_they_have() {
        use Precision::{Bf16, F8, F16, F32};
        for card in CARDS {
            let runs: Vec<_> =
                [F16, F32, Bf16, F8].into_iter().filter(|&precision| card.check(precision).is_ok()).collect();
            let expected: &[_] = match card.capability {
                (7, _) => &[F16, F32],
                (8, 0..=7) => &[F16, F32, Bf16],
                _ => &[F16, F32, Bf16, F8],
            };
            assert_eq!(runs, expected, "{card:?}");
        }
        let refused = |precision| CARDS[0].check(precision).expect_err("it hasn't that").to_string();
        assert_eq!(
            [refused(Bf16), refused(F8)],
            [
                "precision: bf16 needs a card of compute capability 8.0 or later, this one has 7.5: use f16",
                "precision: f8 needs a card of compute capability 8.9 or later, this one has 7.5: use f16",
            ]
        );
    }

    #[test]
    fn a_card_without_bfloat16_takes_what_holds_the_model() {
        use Precision::{Auto, Bf16, F16, F32};
        let options = SynthOptions { like: Like::TdtMini, vocabulary: None, layers: None, seed: 0 };
        let mut config = synthetic_config(&options).expect("a configuration");
        let [t4, .., h100, _, _] = CARDS;
        assert_eq!([t4, h100].map(|card| card.precision(Auto, &config)), [F16, F16]);
        config.encoder.xscaling = true;
        assert_eq!([t4, h100].map(|card| card.precision(Auto, &config)), [F32, Bf16]);
        assert_eq!(t4.precision(Bf16, &config), Bf16, "what is chosen stays, and is refused");
    }
}
