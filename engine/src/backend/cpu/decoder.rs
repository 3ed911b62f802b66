// SPDX-License-Identifier: MPL-2.0
//! Greedy TDT and RNN-T decoding by label looping over several streams (arXiv:2304.06795, arXiv:2406.06220; NeMo's
//! `greedy_batch`). RNN-T is TDT with duration 0 for a token and 1 for a blank.

use std::ops::Range;
use std::sync::Arc;

use crate::backend::Token;
use crate::backend::constants::ENTROPY_ALPHA as ALPHA;
use crate::model::Boosts;
use crate::model::config::{DecoderConfig, Transducer};

use super::ops::{relu, sigmoid};
use super::params::Decoder;
use super::rows::Rows;

/// The decoder's memory of a stream.
#[derive(Clone, Debug)]
pub struct DecoderState {
    /// Hidden and cell state of each LSTM layer, `[width]`.
    hidden: Vec<Vec<f32>>,
    cell: Vec<Vec<f32>>,
    /// Predictor output after the joint's projection, `[joint_width]`; empty before the first frame.
    predicted: Vec<f32>,
    /// Frames that the last duration reaches into the next chunk.
    pub jump: usize,
    /// Frames decoded in earlier chunks.
    pub frames: u64,
    /// The stream's phrases.
    pub boosts: Option<Arc<Boosts>>,
    /// Where the text stands in them.
    phrase: u32,
}

impl DecoderState {
    pub fn new(config: &DecoderConfig) -> Self {
        let zeros = vec![vec![0.0; config.predictor_width]; config.predictor_layers];
        Self {
            hidden: zeros.clone(),
            cell: zeros,
            predicted: Vec::new(),
            jump: 0,
            frames: 0,
            boosts: None,
            phrase: 0,
        }
    }

    /// Bytes of a stream's state.
    pub fn bytes(config: &DecoderConfig) -> usize {
        (2 * config.predictor_layers * config.predictor_width + config.joint_width) * size_of::<f32>()
    }
}

/// A stream's encoder frames among the rows of a batch.
pub struct Segment<'a> {
    pub rows: Range<usize>,
    pub state: &'a mut DecoderState,
    pub tokens: Vec<Token>,
}

/// Where a stream stands inside its chunk.
struct Cursor {
    segment: usize,
    frame: usize,
    /// Frame of the last token and how many were emitted there.
    last: Option<usize>,
    emitted: usize,
}

/// Decodes `encoded` (`[rows, width]`), the frames of all segments.
pub fn run(config: &DecoderConfig, params: &Decoder, encoded: Rows<'_>, segments: &mut [Segment<'_>]) {
    let joint_width = config.joint_width;
    let fresh: Vec<usize> = (0..segments.len()).filter(|&s| segments[s].state.predicted.is_empty()).collect();
    // Decoding starts from blank, as NeMo's batched decoder does.
    predict(config, params, segments, &fresh.iter().map(|&s| (s, config.vocabulary)).collect::<Vec<_>>());
    let mut projected = Vec::new();
    params.joint_encoder.apply(encoded, &mut projected);

    let mut active: Vec<Cursor> = segments
        .iter()
        .enumerate()
        .map(|(segment, s)| Cursor { segment, frame: s.state.jump, last: None, emitted: 0 })
        .collect();
    let (mut joint, mut logits) = (Vec::new(), Vec::new());
    loop {
        active.retain(|cursor| {
            let segment = &mut segments[cursor.segment];
            let unfinished = cursor.frame < segment.rows.len();
            if !unfinished {
                segment.state.jump = cursor.frame - segment.rows.len();
            }
            unfinished
        });
        if active.is_empty() {
            break;
        }
        joint.clear();
        for cursor in &active {
            let segment = &segments[cursor.segment];
            let row = &projected[(segment.rows.start + cursor.frame) * joint_width..][..joint_width];
            joint.extend(row.iter().zip(&segment.state.predicted).map(|(e, p)| e + p));
        }
        relu(&mut joint);
        params.joint_out.apply(Rows::dense(&joint, joint_width), &mut logits);
        let mut emitting = Vec::new();
        for (cursor, logits) in active.iter_mut().zip(logits.chunks_exact(params.joint_out.outputs)) {
            let segment = &mut segments[cursor.segment];
            if let Some(token) = advance(config, cursor, segment.state, logits, segment.rows.len()) {
                segment.tokens.push(token);
                emitting.push((cursor.segment, token.id as usize));
            }
        }
        predict(config, params, segments, &emitting);
    }
    for segment in segments {
        segment.state.frames += segment.rows.len() as u64;
    }
}

/// One decision: the token emitted, or none for a blank; moves the cursor on.
fn advance(
    config: &DecoderConfig,
    cursor: &mut Cursor,
    state: &mut DecoderState,
    logits: &[f32],
    length: usize,
) -> Option<Token> {
    let (labels, durations) = logits.split_at(config.vocabulary + 1);
    let (best, mut margin) = arg_max(labels);
    let blank = best == config.vocabulary;
    let (duration, duration_margin) = match &config.kind {
        Transducer::Tdt { durations: values } => {
            let (index, margin) = arg_max(durations);
            (Some(values[index]), margin)
        }
        Transducer::Rnnt => (None, f32::INFINITY),
    };
    let jump = duration.unwrap_or(0) as usize;
    if blank {
        cursor.frame += jump.max(1);
        return None;
    }
    let mut label = best;
    // What isn't a number is left alone: whoever reads the token finds out.
    if let Some(boosts) = state.boosts.as_ref().filter(|_| labels[best].is_finite()) {
        (label, state.phrase) = boosts.choose(state.phrase, labels);
        if label != best {
            margin = labels[label] - labels[best];
        }
    }
    let frame = cursor.frame;
    cursor.emitted = if cursor.last == Some(frame) { cursor.emitted + 1 } else { 1 };
    cursor.last = Some(frame);
    cursor.frame += jump;
    if cursor.frame < length && cursor.frame == frame && cursor.emitted >= config.max_symbols {
        cursor.frame += 1;
    }
    let (log_prob, confidence) = certainty(labels, labels[best]);
    Some(Token {
        id: label as u32,
        frame: state.frames + frame as u64,
        duration,
        log_prob: log_prob - (labels[best] - labels[label]),
        confidence,
        margin,
        duration_margin,
    })
}

/// Natural log of the probability of the largest of these logits, and NeMo's confidence in it: Tsallis entropy of the
/// softmax, alpha 0.33, exponentially normalised (`asr_confidence_utils.py`, `entropy_tsallis_exp`).
fn certainty(logits: &[f32], largest: f32) -> (f32, f32) {
    // Thousands of small terms would be lost beside the largest in single precision.
    let (mut sum, mut sum_of_powers) = (0.0, 0.0);
    for logit in logits {
        let below = logit - largest;
        sum += f64::from(below.exp());
        sum_of_powers += f64::from((ALPHA as f32 * below).exp());
    }
    // Minus the entropy, which is greatest where all are equally probable.
    let exp_of = |sum_of_powers: f64| ((1.0 - sum_of_powers) / (1.0 - ALPHA)).exp();
    let least = exp_of((logits.len() as f64).powf(1.0 - ALPHA));
    let confidence = (exp_of(sum_of_powers / sum.powf(ALPHA)) - least) / (1.0 - least);
    // Rounding may lead out of the interval by a hair; logits that aren't finite give 0, as in NeMo.
    (-sum.ln() as f32, (confidence as f32).clamp(0.0, 1.0).max(0.0))
}

/// Index of the largest value, the first of equals, and how far it is above the next.
fn arg_max(values: &[f32]) -> (usize, f32) {
    let (mut best, mut second) = (0, f32::NEG_INFINITY);
    for (i, &value) in values.iter().enumerate().skip(1) {
        if value > values[best] {
            second = values[best];
            best = i;
        } else if value > second {
            second = value;
        }
    }
    (best, values[best] - second)
}

/// Feeds one label to the predictor of each segment named.
fn predict(
    config: &DecoderConfig,
    params: &Decoder,
    segments: &mut [Segment<'_>],
    labels: &[(usize, usize)],
) {
    if labels.is_empty() {
        return;
    }
    let width = config.predictor_width;
    let mut input = vec![0.0; labels.len() * width];
    for (row, &(_, label)) in input.chunks_exact_mut(width).zip(labels) {
        params.embed(label, row);
    }
    let (mut hidden, mut gates, mut recurrent) = (Vec::new(), Vec::new(), Vec::new());
    for (layer, lstm) in params.lstm.iter().enumerate() {
        hidden.clear();
        for &(segment, _) in labels {
            hidden.extend_from_slice(&segments[segment].state.hidden[layer]);
        }
        lstm.input.apply(Rows::dense(&input, width), &mut gates);
        lstm.hidden.apply(Rows::dense(&hidden, width), &mut recurrent);
        gates.iter_mut().zip(&recurrent).for_each(|(gate, r)| *gate += r);
        let rows = gates.chunks_exact_mut(4 * width).zip(input.chunks_exact_mut(width));
        for ((gates, output), &(segment, _)) in rows.zip(labels) {
            let (input_forget, rest) = gates.split_at_mut(2 * width);
            let (candidate, out) = rest.split_at_mut(width);
            sigmoid(input_forget);
            sigmoid(out);
            let (input_gate, forget_gate) = input_forget.split_at(width);
            let state = &mut *segments[segment].state;
            for i in 0..width {
                let cell = forget_gate[i] * state.cell[layer][i] + input_gate[i] * candidate[i].tanh();
                state.cell[layer][i] = cell;
                output[i] = out[i] * cell.tanh();
            }
            state.hidden[layer].copy_from_slice(output);
        }
    }
    let mut predicted = Vec::new();
    params.joint_predictor.apply(Rows::dense(&input, width), &mut predicted);
    for (row, &(segment, _)) in predicted.chunks_exact(config.joint_width).zip(labels) {
        let state = &mut *segments[segment].state;
        state.predicted.clear();
        state.predicted.extend_from_slice(row);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logits_that_are_not_finite_have_no_confidence() {
        for broken in [f32::NAN, f32::INFINITY] {
            assert_eq!(certainty(&[0.0, broken, 1.0], broken).1, 0.0);
        }
    }

    #[test]
    fn certainty_is_exact_for_the_largest_vocabulary() {
        for count in [2_usize, 129, 1_025, 13_001] {
            let mut logits = vec![3.0; count];
            let (log_prob, confidence) = certainty(&logits, 3.0);
            assert!(
                (log_prob + (count as f32).ln()).abs() < 1e-5 && confidence < 1e-6,
                "{count}: {confidence}"
            );
            logits[..count - 1].fill(-1_000.0);
            assert_eq!(certainty(&logits, 3.0), (0.0, 1.0), "{count}");
            for below in [1.0_f64, 5.0, 20.0, 50.0] {
                logits[..count - 1].fill((3.0 - below) as f32);
                // Of one probability and `others` equal ones.
                let others = (count - 1) as f64;
                let sum = 1.0 + others * (-below).exp();
                let powers = (1.0 + others * (-0.33 * below).exp()) / sum.powf(0.33);
                let least = ((1.0 - (count as f64).powf(0.67)) / 0.67).exp();
                let expected = (((1.0 - powers) / 0.67).exp() - least) / (1.0 - least);
                let (log_prob, confidence) = certainty(&logits, 3.0);
                assert!((f64::from(log_prob) + sum.ln()).abs() < 1e-6, "{count}, {below}: {log_prob}");
                assert!((f64::from(confidence) - expected).abs() < 1e-6, "{count}, {below}: {confidence}");
            }
        }
    }
}
