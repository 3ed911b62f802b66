// SPDX-License-Identifier: MPL-2.0
//! What knows CUDA's libraries: the driver, NVRTC and cuBLASLt, opened at run time, each behind a safe layer.

mod device;
mod kernels;
mod library;
mod peaks;
mod products;
mod skinny;
mod target;

pub use device::{Argument, Buffer, Device, Graph, Mark, Pinned, upload};
pub use kernels::Kernels;
pub use library::Type;
pub use peaks::measure;
pub use products::{Matrix, Products, Rows8, Way};
pub use skinny::{SkinnyKernel, SkinnyKernels};
pub use target::Target;
