// SPDX-License-Identifier: MPL-2.0
//! Phrases that streams rather hear, on models of random weights.

use std::sync::Arc;

use super::{Fixture, audio, chunks};
use crate::backend::{Backend, Mode, Slot, Step, Token, Window};
use crate::model::{Boosts, Model};

/// Phrases of these pieces.
fn of_pieces(model: &Model, phrases: &[(&[u32], f32)]) -> Option<Arc<Boosts>> {
    Some(Arc::new(Boosts::of_pieces(&model.vocabulary, phrases).expect("it is small")))
}

/// Phrases that outweigh everything: one of three pieces, and a hundred of one to six that overlap.
fn phrases(model: &Model) -> [Arc<Boosts>; 2] {
    let pieces = model.vocabulary.len() as u32;
    let mut state = 1_u32;
    let mut below = |limit: u32| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) % limit
    };
    let many: Vec<Vec<u32>> =
        (0..100).map(|_| (0..1 + below(6)).map(|_| below(pieces.min(40))).collect()).collect();
    let many: Vec<(&[u32], f32)> = many.iter().map(|pieces| (&pieces[..], 1e3)).collect();
    let three = Boosts::of_pieces(&model.vocabulary, &[(&[3, 5, 4], 1e4)]);
    [three, Boosts::of_pieces(&model.vocabulary, &many)].map(|made| Arc::new(made.expect("they are few")))
}

/// What slots say of `pcm`, stepped together.
fn said(
    backend: &mut dyn Backend,
    model: &Model,
    mode: Mode,
    slots: &[Slot],
    pcm: &[f32],
) -> Vec<Vec<Token>> {
    let mut said = vec![Vec::new(); slots.len()];
    for (pcm, end) in chunks(&model.config, mode, pcm) {
        let steps: Vec<_> = slots.iter().map(|&slot| Step { slot, pcm, end }).collect();
        for (result, said) in backend.step(&steps).into_iter().zip(&mut said) {
            said.extend(result.expect("the step succeeds").tokens);
        }
    }
    said
}

/// Slots of streams with these phrases.
pub fn open(backend: &mut dyn Backend, mode: Mode, vocabularies: &[Option<Arc<Boosts>>]) -> Vec<Slot> {
    let open = |boosts: &Option<Arc<Boosts>>| {
        let slot = backend.open(mode, 0).expect("a slot");
        if let Some(boosts) = boosts {
            backend.boost(slot, boosts).expect("the phrases are the model's");
        }
        slot
    };
    vocabularies.iter().map(open).collect()
}

/// What streams with these phrases say of `pcm`, one each, stepped together.
pub fn hear(
    backend: &mut dyn Backend,
    model: &Model,
    mode: Mode,
    vocabularies: &[Option<Arc<Boosts>>],
    pcm: &[f32],
) -> Vec<Vec<Token>> {
    let slots = open(backend, mode, vocabularies);
    let said = said(backend, model, mode, &slots, pcm);
    slots.into_iter().for_each(|slot| backend.close(slot));
    said
}

/// Which tokens and where.
pub fn places(said: &[Token]) -> Vec<(u32, u64, Option<u32>)> {
    said.iter().map(|token| (token.id, token.frame, token.duration)).collect()
}

/// Phrases choose among pieces and nothing else, in every way to run a stream, from chunk to chunk, and for no stream but theirs.
pub fn phrases_lead_the_text(new: &dyn Fn(&Fixture) -> Box<dyn Backend>) {
    let pcm = audio();
    let (mut compared, mut changed) = (0, 0);
    for name in ["causal", "rnnt", "fullatt"] {
        let fixture = Fixture::load(name);
        let model = &fixture.model;
        let mut vocabularies = vec![None, of_pieces(model, &[(&[1, 2, 3], 0.0)])];
        vocabularies.extend(phrases(model).map(Some));
        let contexts = 0..model.config.encoder.contexts.len();
        let windows = Mode::Buffered { context: 0, window: Window { left: 20, chunk: 5, right: 5 } };
        let mut modes: Vec<Mode> = contexts.clone().map(|context| Mode::Offline { context }).collect();
        match model.config.is_cache_aware(0) {
            true => modes.extend(contexts.map(|context| Mode::Cached { context })),
            false => modes.push(windows),
        }
        let mut offline = Vec::new();
        for mode in modes {
            let what = format!("{name} {mode:?}");
            let mut backend = new(&fixture);
            let mut alone = |boosts: &Option<Arc<Boosts>>| {
                hear(&mut *backend, model, mode, std::slice::from_ref(boosts), &pcm).remove(0)
            };
            let alone: Vec<_> = vocabularies.iter().map(&mut alone).collect();
            let plain = &alone[0];
            assert_eq!(places(&alone[1]), places(plain), "{what}: with phrases that add nothing");
            let numbers = |token: &Token| [token.log_prob, token.confidence, token.margin];
            let pairs = alone[1].iter().zip(plain).flat_map(|(a, b)| numbers(a).into_iter().zip(numbers(b)));
            let worst = pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(worst < 1e-3, "{what}: {worst}");
            match mode {
                Mode::Offline { .. } => offline.push(alone.clone()),
                // In chunks as at once: where the text stands in its phrases goes from one to the next.
                Mode::Cached { context } => {
                    for (streamed, whole) in alone.iter().zip(&offline[context]) {
                        assert_eq!(places(streamed), places(whole), "{what}");
                    }
                }
                Mode::Buffered { .. } => {}
            }
            for boosted in &alone[2..] {
                changed += usize::from(places(boosted) != places(plain));
                let Some((first, undisturbed)) = boosted.first().zip(plain.first()) else { continue };
                // Until the predictor has heard of it nothing but the piece can be different.
                assert_eq!(
                    (first.frame, first.duration),
                    (undisturbed.frame, undisturbed.duration),
                    "{what}"
                );
                assert!((first.confidence - undisturbed.confidence).abs() < 1e-4, "{what}");
                let below = undisturbed.log_prob - first.log_prob;
                let margin = if first.id == undisturbed.id { undisturbed.margin } else { -below };
                assert!((first.margin - margin).abs() < 1e-3 && below > -1e-3, "{what}: {first:?}");
            }
            let slots = open(&mut *backend, mode, &vocabularies);
            for utterance in 0..2 {
                let together = said(&mut *backend, model, mode, &slots, &pcm);
                for (index, (together, alone)) in together.iter().zip(&alone).enumerate() {
                    assert_eq!(places(together), places(alone), "{what}, utterance {utterance} of {index}");
                    compared += together.len();
                }
                slots.iter().for_each(|&slot| backend.reset(slot));
            }
        }
    }
    println!("{compared} tokens compared, {changed} streams changed by their phrases");
    assert!(compared > 1_000 && changed > 10);
}
