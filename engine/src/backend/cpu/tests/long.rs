// SPDX-License-Identifier: MPL-2.0
//! Signals that are much longer than a block of rows.

use std::path::Path;

use super::*;
use crate::Fault;
use crate::backend::visibility::Visibility;

/// So many times real speech, by the model of this repository.
fn speech(times: usize) -> (Arc<Model>, Vec<f32>) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut wav =
        hound::WavReader::open(root.join("tests/data/speech.wav")).expect("the clip is in the tree");
    let pcm: Vec<f32> =
        wav.samples::<i16>().map(|s| f32::from(s.expect("a whole file")) / 32_768.0).collect();
    let model = Model::load(&root.join("models/parakeet-tdt-mini")).expect("the model is in the tree");
    (Arc::new(model), pcm.repeat(times))
}

/// What a backend's slot of this mode decodes.
fn heard(backend: &mut CpuBackend, mode: Mode, pcm: &[f32]) -> Vec<Token> {
    let slot = backend.open(mode, 0).expect("a slot");
    let config = backend.config().clone();
    let mut all = Vec::new();
    for (pcm, end) in chunks(&config, mode, pcm) {
        all.extend(backend.step(&[Step { slot, pcm, end }]).remove(0).expect("the step succeeds").tokens);
    }
    backend.close(slot);
    all
}

#[test]
fn blocks_of_rows_give_what_all_rows_together_give() {
    let mut compared = 0;
    for name in ["causal", "fullatt", "rnnt"] {
        let fixture = Fixture::load(name);
        let shared = fixture.backend().shared;
        let Shared { params, model, .. } = &*shared;
        let encoder = &model.config.encoder;
        // Two blocks of one thread and a part of a third.
        let rows = 2 * whole::block(1) + 37;
        let mut random = fastrand::Rng::with_seed(3);
        let x: Vec<f32> = (0..rows * encoder.width).map(|_| random.f32() - 0.5).collect();
        for context in 0..encoder.contexts.len() {
            let visibility = Visibility::new(encoder, Mode::Offline { context });
            let positions = Arc::new(PositionTables::Made(visibility.distances(rows)));
            let mut state = encoder::EncoderState::whole(encoder, rows, visibility, positions);
            let (mut expected, mut got) = (x.clone(), x.clone());
            let mut scratch = encoder::Scratch::default();
            let segment = encoder::Segment { rows: 0..rows, first: 0, state: &mut state };
            encoder::run(encoder, &params.layers, &mut expected, &mut [segment], &mut scratch);
            let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().expect("a thread");
            let layers = &params.layers;
            pool.install(|| whole::run(encoder, layers, &mut got, &mut state, &mut scratch));
            assert_close(&format!("{name} {context}"), &got, &expected, TOLERANCE);
            compared += got.len();
        }
    }
    assert!(compared > 10_000);
}

#[test]
fn a_long_signal_is_heard_at_once_as_it_is_chunk_by_chunk() {
    let (model, pcm) = speech(6);
    let mut backend = CpuBackend::new(model, 2).expect("the model is complete");
    for context in [0, 3] {
        let places = |tokens: Vec<Token>| -> Vec<_> {
            tokens.into_iter().map(|token| (token.id, token.frame, token.duration)).collect()
        };
        let streamed = places(heard(&mut backend, Mode::Cached { context }, &pcm));
        assert!(streamed.len() > 100, "{} tokens", streamed.len());
        assert_eq!(places(heard(&mut backend, Mode::Offline { context }, &pcm)), streamed);
    }
}

#[test]
fn a_backend_beside_another_hears_the_same() {
    let (model, pcm) = speech(1);
    let mut backend = CpuBackend::new(model, 1).expect("the model is complete");
    let mut beside = backend.beside().expect("there is one").expect("it has threads");
    let mode = Mode::Offline { context: 0 };
    let [slot, other] = [backend.open(mode, 0).expect("a slot"), beside.open(mode, 0).expect("a slot")];
    assert_eq!(slot, other, "each has slots of its own");
    let step = [Step { slot, pcm: &pcm, end: true }];
    let [alone, both] = [backend.step(&step), beside.step(&step)].map(|mut results| results.remove(0));
    let [alone, both] = [alone, both].map(|result| result.expect("the step succeeds"));
    assert!(alone == both && alone.tokens.len() > 10);
}

#[test]
fn what_does_not_fit_is_refused_with_what_does_and_others_go_on() {
    let (model, pcm) = speech(1);
    let mut backend = CpuBackend::new(model, 1).expect("the model is complete");
    backend.available = || Some(100_000_000);
    let mode = Mode::Offline { context: 0 };
    let [first, long, last] = [(); 3].map(|()| backend.open(mode, 0).expect("a slot"));
    let hours = vec![0.0; 3 * 3_600 * 16_000];
    let step = |slot, pcm| Step { slot, pcm, end: true };
    let results = backend.step(&[step(first, &pcm), step(long, &hours), step(last, &pcm)]);
    let needed = backend.signal_bytes(mode, hours.len()).expect("it is known") as f64 / 1e9;
    let error = results[1].as_ref().expect_err("it doesn't fit");
    assert_eq!(error.fault(), Some(Fault::OutOfMemory));
    let expected = format!(
        "backend cpu: 180.0 minutes at once need {needed:.2} GB of memory, and 0.10 GB are free; what fits are windows of a \
         left context of 10 s, chunks of 2 s and a right context of 2 s (--left 10 --chunk 2 --right 2)"
    );
    assert_eq!(error.to_string(), expected);
    for result in [&results[0], &results[2]] {
        assert!(result.as_ref().is_ok_and(|decoded| decoded.tokens.len() > 10), "{result:?}");
    }
}
