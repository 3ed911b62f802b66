// SPDX-License-Identifier: MPL-2.0
//! Numbers of NeMo's that every backend computes with.

/// `eps` of every norm in the encoder.
pub const EPSILON: f32 = 1e-5;

/// Exponent of the entropy that a token's confidence is made of (`asr_confidence_utils.py`, `entropy_tsallis_exp`).
pub const ENTROPY_ALPHA: f64 = 0.33;
