// SPDX-License-Identifier: MPL-2.0
//! What NVRTC is to make for a card.

use super::library::Nvrtc;
use crate::backend::cuda::failed;
use crate::error::Result;

/// What kernels are compiled to, by the number of an architecture: 90 is that of compute capability 9.0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// Machine code of the card's own.
    Code(i32),
    /// PTX of an older one, of which the driver makes machine code: for cards that are newer than the compiler.
    Ptx(i32),
}

impl Target {
    /// For a card of this capability by a compiler that knows these architectures; none if they are all newer.
    fn new((major, minor): (i32, i32), known: &[i32]) -> Option<Self> {
        let own = 10 * major + minor;
        let nearest = known.iter().copied().filter(|&architecture| architecture <= own).max()?;
        Some(if nearest == own { Self::Code(own) } else { Self::Ptx(nearest) })
    }

    /// For a card of this capability. Fails without NVRTC, or if it is too new for the card.
    pub fn of(capability: (i32, i32)) -> Result<Self> {
        let compiler = Nvrtc::get()?;
        Self::new(capability, &compiler.architectures()).ok_or_else(|| {
            let ((major, minor), (card_major, card_minor)) = (compiler.version(), capability);
            failed(format!(
                "NVRTC of CUDA {major}.{minor} knows no card of compute capability {card_major}.{card_minor}: \
                 install an older one"
            ))
        })
    }

    /// Whether kernels may start before the one ahead is through: from 9.0 on they wait for it by themselves
    /// (`wait_for_last` in `common.cuh`).
    pub fn starts_early(self) -> bool {
        let (Self::Code(architecture) | Self::Ptx(architecture)) = self;
        architecture >= 90
    }

    /// The compiler's option.
    pub fn option(self) -> String {
        match self {
            Self::Code(architecture) => format!("--gpu-architecture=sm_{architecture}"),
            Self::Ptx(architecture) => format!("--gpu-architecture=compute_{architecture}"),
        }
    }

    /// How names of files of it end.
    pub fn ending(self) -> &'static str {
        match self {
            Self::Code(_) => "cubin",
            Self::Ptx(_) => "ptx",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What NVRTC of CUDA 12.9 names.
    const KNOWN: [i32; 19] =
        [50, 52, 53, 60, 61, 62, 70, 72, 75, 80, 86, 87, 89, 90, 100, 101, 103, 120, 121];

    #[test]
    fn cards_get_their_own_code_or_ptx_of_the_nearest_before() {
        let target = |capability| Target::new(capability, &KNOWN);
        assert_eq!(target((7, 5)), Some(Target::Code(75)));
        assert_eq!(target((12, 1)), Some(Target::Code(121)));
        assert_eq!(target((15, 0)), Some(Target::Ptx(121)));
        // Between two that are known: PTX of a newer one doesn't run.
        assert_eq!(target((10, 7)), Some(Target::Ptx(103)));
        assert_eq!(target((3, 5)), None);
        assert_eq!(Target::new((12, 0), &[]), None);
    }

    #[test]
    fn the_compiler_is_told_and_files_are_named() {
        let told = |target: Target| (target.option(), target.ending(), target.starts_early());
        assert_eq!(told(Target::Code(90)), ("--gpu-architecture=sm_90".into(), "cubin", true));
        assert_eq!(told(Target::Ptx(120)), ("--gpu-architecture=compute_120".into(), "ptx", true));
        assert_eq!(told(Target::Ptx(89)), ("--gpu-architecture=compute_89".into(), "ptx", false));
    }
}
