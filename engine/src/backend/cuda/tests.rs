// SPDX-License-Identifier: MPL-2.0
//! The CUDA backend against what NeMo computes, and against the CPU backend.

use std::cell::RefCell;
use std::collections::HashMap;
use std::path::Path;

use half::{bf16, f16};

use super::*;
use crate::backend::conformance::{Conformance, Fixture, chunks};
use crate::backend::cpu::CpuBackend;
use crate::backend::{BackendChoice, CachePrecision, Precision};

/// Largest difference of an encoder output in single precision, whose sums run in another order than NeMo's.
const TOLERANCE: f32 = 1e-3;

fn options(precision: Precision) -> EngineOptions {
    EngineOptions { backend: BackendChoice::Cuda, precision, ..Default::default() }
}

fn backend(model: &Arc<Model>, options: &EngineOptions) -> CudaBackend {
    CudaBackend::new(model.clone(), options, 0).expect("the card runs the model")
}

fn mini() -> Arc<Model> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/parakeet-tdt-mini");
    Arc::new(Model::load(&dir).expect("the model is in the tree"))
}

/// Real speech.
fn speech() -> Vec<f32> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/data/speech.wav");
    let mut wav = hound::WavReader::open(path).expect("the clip is in the tree");
    wav.samples::<i16>().map(|s| f32::from(s.expect("a whole file")) / 32_768.0).collect()
}

impl CudaBackend {
    /// The encoder's output of the last step, `[rows][width]`.
    fn encoded(&self) -> Vec<f32> {
        let count = self.batch.extent().rows * self.shape.encoder.width;
        let at = self.scratch.y.address;
        match self.shape.precision {
            Precision::F32 => self.device.read::<f32>(at, count).expect("a copy"),
            Precision::F16 => {
                let bits = self.device.read::<u16>(at, count).expect("a copy");
                bits.into_iter().map(|bits| f16::from_bits(bits).to_f32()).collect()
            }
            Precision::Bf16 => {
                let bits = self.device.read::<u16>(at, count).expect("a copy");
                bits.into_iter().map(|bits| bf16::from_bits(bits).to_f32()).collect()
            }
        }
    }
}

/// Runs `pcm` through one slot: the encoder's output and what each step decoded.
fn run(backend: &mut CudaBackend, place: usize, mode: Mode, pcm: &[f32]) -> (Vec<f32>, Vec<Decoded>) {
    let slot = backend.open(mode, place).expect("a slot");
    let config = backend.model.config.clone();
    let (mut encoded, mut decoded) = (Vec::new(), Vec::new());
    for (pcm, end) in chunks(&config, mode, pcm) {
        backend.batch.clear();
        let result = backend.step(&[Step { slot, pcm, end }]).remove(0);
        decoded.push(result.expect("the step succeeds"));
        encoded.extend(backend.encoded());
    }
    backend.close(slot);
    (encoded, decoded)
}

/// In single precision, one backend for each model that comes along.
fn conformance() -> Conformance {
    let backends: RefCell<HashMap<String, CudaBackend>> = RefCell::default();
    let run = move |fixture: &Fixture, place: usize, mode: Mode, pcm: &[f32]| {
        let mut backends = backends.borrow_mut();
        let key = format!("{:?}", fixture.model.config);
        let new = || backend(&fixture.model, &options(Precision::F32));
        run(backends.entry(key).or_insert_with(new), place, mode, pcm)
    };
    Conformance { run: Box::new(run), tolerance: TOLERANCE }
}

macro_rules! conforms {
    ($($name:ident)+) => {
        $(
            #[test]
            #[ignore = "needs an NVIDIA GPU"]
            fn $name() {
                conformance().$name();
            }
        )+
    };
}

conforms! {
    offline_equals_nemo
    streaming_equals_nemo_offline_chunk_by_chunk
    windows_equal_nemos_buffered_script_chunk_by_chunk
    every_tail_equals_nemo_offline
    a_language_prompt_equals_transformers
    offline_and_streamed_equal_transformers
}

fn tokens(decoded: &[Decoded]) -> Vec<(u32, u64, Option<u32>)> {
    decoded.iter().flat_map(|d| &d.tokens).map(|t| (t.id, t.frame, t.duration)).collect()
}

/// What the CPU backend decodes of the mini model.
fn by_cpu(model: &Arc<Model>, mode: Mode, pcm: &[f32]) -> Vec<(u32, u64, Option<u32>)> {
    let mut backend = CpuBackend::new(model.clone(), 0).expect("the model is complete");
    let slot = backend.open(mode, 0).expect("a slot");
    let steps = chunks(&model.config, mode, pcm);
    let decoded: Vec<_> = steps
        .into_iter()
        .map(|(pcm, end)| backend.step(&[Step { slot, pcm, end }]).remove(0).expect("the step succeeds"))
        .collect();
    tokens(&decoded)
}

/// Tokens that both have at the same place, by a common prefix rule: equal entries over the longer length.
fn agreement(a: &[(u32, u64, Option<u32>)], b: &[(u32, u64, Option<u32>)]) -> (usize, usize) {
    let same = a.iter().filter(|token| b.contains(token)).count();
    (same, a.len().max(b.len()))
}

#[test]
#[ignore = "needs an NVIDIA GPU"]
fn real_speech_is_what_the_cpu_hears() {
    let (model, pcm) = (mini(), speech());
    for (precision, cache) in [
        (Precision::F32, CachePrecision::Full),
        (Precision::F16, CachePrecision::Full),
        (Precision::Bf16, CachePrecision::Full),
        (Precision::F16, CachePrecision::Int8),
    ] {
        let mut cuda = backend(&model, &EngineOptions { cache, ..options(precision) });
        let (mut same, mut all) = (0, 0);
        for context in 0..model.config.encoder.contexts.len() {
            for mode in [Mode::Cached { context }, Mode::Offline { context }] {
                let expected = by_cpu(&model, mode, &pcm);
                assert!(!expected.is_empty());
                let got = tokens(&run(&mut cuda, 0, mode, &pcm).1);
                if precision == Precision::F32 {
                    assert_eq!(got, expected, "{mode:?}");
                }
                let (equal, of) = agreement(&got, &expected);
                (same, all) = (same + equal, all + of);
            }
        }
        println!("{precision} cache {cache}: {same} of {all} tokens as by the CPU");
        assert!(same * 100 >= all * 90, "{precision} {cache}: {same} of {all}");
    }
}

/// Every precision, alone and among others.
#[test]
#[ignore = "needs an NVIDIA GPU"]
fn streams_do_not_touch_each_other() {
    const STREAMS: usize = 64;
    const ROUNDS: usize = 1_000 / STREAMS + 1;
    let (model, pcm) = (mini(), speech());
    for precision in [Precision::F32, Precision::F16] {
        let mut cuda = backend(&model, &options(precision));
        let contexts = model.config.encoder.contexts.len();
        let alone: Vec<_> = (0..contexts)
            .map(|context| tokens(&run(&mut cuda, 0, Mode::Cached { context }, &pcm).1))
            .collect();
        let (mut same, mut all, mut streams) = (0, 0, 0);
        for round in 0..ROUNDS {
            // Streams of all contexts, each begun a few steps after the one before, through recycled slots.
            let mut running: Vec<_> = (0..STREAMS)
                .map(|i| {
                    let context = (i + round) % contexts;
                    let mode = Mode::Cached { context };
                    let steps = chunks(&model.config, mode, &pcm);
                    (cuda.open(mode, 0).expect("a slot"), context, steps, Vec::new(), i % 7)
                })
                .collect();
            let mut step = 0;
            while running
                .iter()
                .any(|(_, _, steps, decoded, late)| step < steps.len() + late || decoded.is_empty())
            {
                let due: Vec<usize> = (0..STREAMS)
                    .filter(|&i| step >= running[i].4 && step - running[i].4 < running[i].2.len())
                    .collect();
                let steps: Vec<_> = due
                    .iter()
                    .map(|&i| {
                        let (slot, _, steps, _, late) = &running[i];
                        let (pcm, end) = steps[step - late];
                        Step { slot: *slot, pcm, end }
                    })
                    .collect();
                for (result, i) in cuda.step(&steps).into_iter().zip(due) {
                    running[i].3.push(result.expect("the step succeeds"));
                }
                step += 1;
            }
            for (slot, context, _, decoded, _) in running {
                let got = tokens(&decoded);
                if precision == Precision::F32 {
                    assert_eq!(got, alone[context], "round {round}, context {context}");
                }
                let (equal, of) = agreement(&got, &alone[context]);
                (same, all, streams) = (same + equal, all + of, streams + 1);
                cuda.close(slot);
            }
        }
        println!("{precision}: {streams} streams, {same} of {all} tokens as alone");
        assert!(same * 100 >= all * 99);
    }
}
