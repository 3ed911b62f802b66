// SPDX-License-Identifier: MPL-2.0
//! Which backend runs a model, on which device and how exactly.

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, Result};
use crate::model::ModelConfig;

/// Which backend runs the model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum BackendChoice {
    /// NVIDIA GPUs where they run the model, else the processor's cores. With a device's number it is that GPU or an error.
    #[default]
    Auto,
    /// The processor's cores.
    Cpu,
    /// NVIDIA GPUs.
    Cuda,
}

/// Which of a backend's devices.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Device {
    /// All of them that run the model; each stream goes to the one with the least to do.
    #[default]
    Auto,
    /// The one with this number, counted from 0 as the driver does.
    Index(usize),
}

/// Type of weights and activations on a GPU; sums are in single precision always. The CPU computes in single precision.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Precision {
    /// What the model's numbers fit into: bfloat16 where its encoder scales its input up (`xscaling`; single precision on cards
    /// without bfloat16), else half precision.
    #[default]
    Auto,
    /// Half precision, exact to three digits. A stream whose numbers grow beyond 65,504 fails, saying so.
    F16,
    /// bfloat16: as fast, exact to two digits.
    Bf16,
    /// Single precision without TF32: to compare with.
    F32,
    /// Half precision, with 8 bits (e4m3) in the products of the encoder's layers, each row and each output scaled by
    /// itself: about twice as fast there, exact to one digit. For cards of compute capability 9.0 with CUDA 12.9 or later.
    F8,
}

/// Type of the keys and values that a stream keeps on a GPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum CachePrecision {
    /// That of the activations.
    #[default]
    Full,
    /// Integers of 8 bits with a scale for each frame and head: half the memory of half precision.
    Int8,
}

/// How an engine is run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct EngineOptions {
    /// Which backend.
    pub backend: BackendChoice,
    /// Which of its devices.
    pub device: Device,
    /// Type of weights and activations on a GPU.
    pub precision: Precision,
    /// Type of keys and values on a GPU.
    pub cache: CachePrecision,
    /// Threads of the CPU backend, all cores if 0.
    pub threads: usize,
}

/// Gives a choice the names that users write.
macro_rules! names {
    ($type:ident, $option:literal, $($variant:ident => $name:literal),+) => {
        impl $type {
            /// Every value, by name.
            pub const ALL: &[(&'static str, Self)] = &[$(($name, Self::$variant)),+];
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let name = Self::ALL.iter().find(|(_, value)| value == self).map_or("", |(name, _)| name);
                f.write_str(name)
            }
        }

        impl FromStr for $type {
            type Err = Error;

            fn from_str(name: &str) -> Result<Self> {
                let known = Self::ALL.iter().find(|(known, _)| *known == name);
                known.map(|(_, value)| *value).ok_or_else(|| {
                    let names: Vec<_> = Self::ALL.iter().map(|(name, _)| *name).collect();
                    let reason = format!("there is no {name:?}; there are {}", names.join(", "));
                    Error::Option { option: $option, reason }
                })
            }
        }
    };
}

names!(BackendChoice, "backend", Auto => "auto", Cpu => "cpu", Cuda => "cuda");
names!(Precision, "precision", Auto => "auto", F16 => "f16", Bf16 => "bf16", F32 => "f32", F8 => "f8");
names!(CachePrecision, "cache", Full => "full", Int8 => "int8");

impl Precision {
    /// The precision that a model is run with.
    pub fn of(self, config: &ModelConfig) -> Self {
        match self {
            Self::Auto if config.encoder.xscaling => Self::Bf16,
            Self::Auto => Self::F16,
            chosen => chosen,
        }
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Index(index) => write!(f, "{index}"),
        }
    }
}

impl FromStr for Device {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        match name {
            "auto" => Ok(Self::Auto),
            _ => name.parse().map(Self::Index).map_err(|_| {
                let reason = format!("{name:?} is neither auto nor the number of a device");
                Error::Option { option: "device", reason }
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::convert::{Like, SynthOptions, synthetic_config};

    #[test]
    fn names_and_values_are_each_others() {
        for (name, choice) in BackendChoice::ALL {
            assert_eq!((choice.to_string(), name.parse().ok()), ((*name).to_owned(), Some(*choice)));
        }
        let error = "tpu".parse::<BackendChoice>().unwrap_err().to_string();
        assert_eq!(error, "backend: there is no \"tpu\"; there are auto, cpu, cuda");
        assert_eq!(("auto".parse().ok(), "3".parse().ok()), (Some(Device::Auto), Some(Device::Index(3))));
        assert!("-1".parse::<Device>().unwrap_err().to_string().contains("neither auto nor the number"));
    }

    #[test]
    fn auto_is_the_precision_that_holds_the_model() {
        let options = SynthOptions { like: Like::TdtMini, vocabulary: None, layers: None, seed: 0 };
        let mut config = synthetic_config(&options).expect("a configuration");
        assert_eq!(Precision::default().of(&config), Precision::F16);
        config.encoder.xscaling = true;
        assert_eq!(Precision::Auto.of(&config), Precision::Bf16);
        assert_eq!(Precision::F8.of(&config), Precision::F8, "what is chosen stays");
    }
}
