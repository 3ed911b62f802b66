// SPDX-License-Identifier: MPL-2.0
//! The CPU backend.
mod matmul;
mod rows;
