// SPDX-License-Identifier: MPL-2.0
//! The CPU backend against what NeMo computes.

mod hf;
mod long;
mod shapes;
mod words;

use serde::Deserialize;

use super::*;
use crate::audio::features::{HOP, LogMelState, normalize_per_feature};
use crate::backend::conformance::{self, Conformance, Fixture, assert_close, audio, chunks, data, tokens};
use crate::backend::mode::chunk_samples;
use crate::backend::{Token, Window};

/// Largest difference of a log-mel value or an encoder output that single precision explains here.
const TOLERANCE: f32 = 1e-4;

impl Fixture {
    fn backend(&self) -> CpuBackend {
        CpuBackend::new(self.model.clone(), 1).expect("the model is complete")
    }

    /// Runs `pcm` through one slot and returns the encoder's output and what each step decoded.
    fn run(&self, mode: Mode, pcm: &[f32]) -> (Vec<f32>, Vec<Decoded>) {
        self.run_in(0, mode, pcm)
    }

    /// The same with a place of the prompt.
    fn run_in(&self, language: usize, mode: Mode, pcm: &[f32]) -> (Vec<f32>, Vec<Decoded>) {
        let mut backend = self.backend();
        let positions = backend.positions(mode);
        let mut state = Box::new(SlotState::new(&self.model.config, mode, language, positions));
        let (mut encoded, mut decoded) = (Vec::new(), Vec::new());
        for (pcm, end) in chunks(&self.model.config, mode, pcm) {
            let step = Step { slot: Slot(0), pcm, end };
            let mut job = Job { step, state, result: Ok(Decoded::default()) };
            let mut scratch = Scratch::default();
            backend.shared.run(&mut [&mut job], &mut scratch);
            encoded.extend_from_slice(&scratch.rows);
            decoded.push(job.result.expect("the step succeeds"));
            state = job.state;
        }
        (encoded, decoded)
    }
}

fn conformance() -> Conformance {
    Conformance {
        run: Box::new(|fixture, place, mode, pcm| fixture.run_in(place, mode, pcm)),
        tolerance: TOLERANCE,
    }
}

#[test]
fn offline_equals_nemo() {
    conformance().offline_equals_nemo();
}

#[test]
fn streaming_equals_nemo_offline_chunk_by_chunk() {
    conformance().streaming_equals_nemo_offline_chunk_by_chunk();
}

#[test]
fn windows_equal_nemos_buffered_script_chunk_by_chunk() {
    conformance().windows_equal_nemos_buffered_script_chunk_by_chunk();
}

#[test]
fn every_tail_equals_nemo_offline() {
    conformance().every_tail_equals_nemo_offline();
}

#[test]
fn phrases_lead_the_text() {
    conformance::phrases::phrases_lead_the_text(&|fixture| Box::new(fixture.backend()));
}

#[test]
fn features_equal_nemo() {
    let pcm = audio();
    for (name, raw) in [("causal", "features"), ("fullatt", "features_raw"), ("rnnt", "features")] {
        let fixture = Fixture::load(name);
        let mel = LogMel::new(&fixture.model.config.features);
        let (mut state, mut frames) = (LogMelState::default(), Vec::new());
        mel.push(&mut state, &pcm, &mut frames);
        mel.finish(&mut state, &mut frames);
        // The fixture holds only the first 200 of the unnormalised frames.
        let expected = fixture.tensor(raw);
        assert_close(&format!("{name} {raw}"), &frames[..expected.len()], &expected, TOLERANCE);
        assert_eq!(frames.len(), pcm.len() / HOP * mel.bins());
        if name == "fullatt" {
            normalize_per_feature(&mut frames, mel.bins());
            assert_close("fullatt features", &frames, &fixture.tensor("features"), TOLERANCE);
        }
    }
}

#[test]
fn seams_neither_double_nor_lose_a_frame() {
    let pcm = audio();
    let fixture = Fixture::load("fullatt");
    let (mut state, mut windows, mut tokens) = (7_u32, 0, 0);
    let mut below = |limit: u32| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        ((state >> 8) % limit) as usize
    };
    for _ in 0..200 {
        let window = Window { left: below(40), chunk: 1 + below(30), right: below(20) };
        let pcm = &pcm[..HOP + below((pcm.len() - HOP) as u32)];
        let (_, decoded) = fixture.run(Mode::Buffered { context: 0, window }, pcm);
        let (mut done, mut last) = (0, None);
        for step in &decoded {
            for token in &step.tokens {
                let inside = done..done + step.frames as u64;
                assert!(inside.contains(&token.frame), "{window:?}: {token:?} outside {inside:?}");
                assert!(last <= Some(token.frame), "{window:?}: {token:?} after frame {last:?}");
                last = Some(token.frame);
            }
            done += step.frames as u64;
            tokens += step.tokens.len();
        }
        let all = Geometry::new(&fixture.model.config).frames(pcm.len() / HOP);
        assert_eq!(done, all as u64, "{window:?}, {} samples", pcm.len());
        windows += decoded.len();
    }
    println!("{windows} windows, {tokens} tokens");
    assert!(windows > 500 && tokens > 1_000);
}

#[test]
fn streamed_tails_equal_offline_for_every_remainder() {
    let pcm = audio();
    let fixture = Fixture::load("causal");
    let mut compared = 0;
    for context in 0..fixture.model.config.encoder.contexts.len() {
        // 8 mel frames are an encoder frame; 41 lengths meet every remainder, around several chunk ends.
        for mel in (90..131).chain([0, 1, 2, 7, 8, 9, 10]) {
            let pcm = &pcm[..mel * HOP + 37];
            let (streamed, _) = fixture.run(Mode::Cached { context }, pcm);
            let (offline, _) = fixture.run(Mode::Offline { context }, pcm);
            assert_eq!(streamed.len(), offline.len(), "{mel} mel frames, context {context}");
            let worst = streamed.iter().zip(&offline).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(worst <= TOLERANCE, "{mel} mel frames, context {context}: {worst}");
            compared += offline.len();
        }
    }
    println!("{compared} elements compared");
}

#[test]
fn streams_do_not_touch_each_other() {
    let pcm = audio();
    let fixture = Fixture::load("causal");
    let config = &fixture.model.config;
    let alone: Vec<_> = (0..config.encoder.contexts.len())
        .map(|context| tokens(&fixture.run(Mode::Cached { context }, &pcm).1))
        .collect();
    let mut backend = CpuBackend::new(fixture.model.clone(), 2).expect("the model is complete");
    // Streams of all contexts, begun one after another, each on its own stretch of time, through recycled slots.
    let mut waiting: Vec<_> = (0..40).map(|i| i % config.encoder.contexts.len()).collect();
    let mut running = Vec::new();
    let mut done = 0;
    while done < 40 {
        while running.len() < 11 {
            let Some(context) = waiting.pop() else { break };
            let mode = Mode::Cached { context };
            let mut steps = chunks(config, mode, &pcm);
            steps.reverse();
            running.push((backend.open(mode, 0).expect("a slot"), context, steps, Vec::new()));
        }
        let steps: Vec<_> = running
            .iter_mut()
            .filter_map(|(slot, _, steps, _)| steps.pop().map(|(pcm, end)| Step { slot: *slot, pcm, end }))
            .collect();
        for (result, (_, _, _, tokens)) in backend.step(&steps).into_iter().zip(&mut running) {
            tokens.extend(result.expect("the step succeeds").tokens);
        }
        running.retain(|(slot, context, steps, tokens)| {
            if steps.is_empty() {
                let same = |a: &Token, b: &Token| (a.id, a.frame, a.duration) == (b.id, b.frame, b.duration);
                assert_eq!(tokens.len(), alone[*context].len());
                assert!(tokens.iter().zip(&alone[*context]).all(|(a, b)| same(a, b)), "context {context}");
                backend.close(*slot);
                done += 1;
            }
            !steps.is_empty()
        });
    }
    assert!(backend.slots.len() <= 11, "slots are used again");
}

#[test]
fn a_wrong_step_fails_alone() {
    let pcm = audio();
    let fixture = Fixture::load("causal");
    let mut backend = fixture.backend();
    let mode = Mode::Cached { context: 2 };
    let (good, bad, gone) = (backend.open(mode, 0).unwrap(), backend.open(mode, 0).unwrap(), Slot(77));
    let wanted = chunk_samples(2, 0);
    let steps = [(bad, wanted - 1), (good, wanted), (gone, wanted), (good, wanted)].map(|(slot, len)| Step {
        slot,
        pcm: &pcm[..len],
        end: false,
    });
    let results = backend.step(&steps);
    let errors: Vec<_> = results.iter().map(|r| r.as_ref().err().map(ToString::to_string)).collect();
    assert_eq!(results[1].as_ref().map(|decoded| decoded.frames).ok(), Some(2));
    assert!(errors[0].as_ref().is_some_and(|e| e.contains("1480 samples was due, 1479 came")), "{errors:?}");
    assert!(errors[2].as_ref().is_some_and(|e| e.contains("slot 77 is not open")), "{errors:?}");
    assert!(errors[3].is_some(), "one slot twice");
    assert!(backend.open(Mode::Cached { context: 9 }, 0).is_err());
    let full = Fixture::load("fullatt").backend().open(Mode::Cached { context: 0 }, 0);
    assert!(full.is_err_and(|e| e.to_string().contains("not causal")));
}

#[test]
fn a_slot_whose_state_a_panic_took_is_nobodys_until_it_is_closed() {
    let fixture = Fixture::load("rnnt");
    let mut backend = CpuBackend::new(fixture.model.clone(), 1).expect("the model is complete");
    let open = |backend: &mut CpuBackend| backend.open(Mode::Cached { context: 0 }, 0).expect("a slot");
    let (lost, other) = (open(&mut backend), open(&mut backend));
    backend.slots[lost.0 as usize] = None;
    let third = open(&mut backend);
    assert!(third != lost && third != other);
    let step = |slot| Step { slot, pcm: &[], end: true };
    assert!(backend.step(&[step(lost)]).remove(0).is_err_and(|e| e.to_string().contains("is not open")));
    backend.close(lost);
    backend.close(lost);
    assert_eq!((open(&mut backend), open(&mut backend)), (lost, Slot(3)), "once");
}
