// SPDX-License-Identifier: MPL-2.0
//! The CUDA backend against what NeMo computes, and against the CPU backend.

mod beside;
mod overflow;
mod phrases;

use std::cell::RefCell;
use std::collections::HashMap;
use std::path::Path;

use half::{bf16, f16};

use super::sizes::{CARDS, Card};
use super::*;
use crate::audio::features::HOP;
use crate::backend::conformance::{Conformance, Fixture, chunks};
use crate::backend::cpu::CpuBackend;
use crate::backend::{BackendChoice, CachePrecision, Precision};
use crate::convert::{ConvertOptions, Like, SynthOptions, synthesize};
use crate::{Engine, Event, StreamOptions};

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
        let at = &self.scratch.y;
        match self.shape.precision {
            Precision::F32 => self.device.read::<f32>(at, count).expect("a copy"),
            Precision::Auto | Precision::F16 | Precision::F8 => {
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

/// Decodes real speech in every context: at least `least` percent of the tokens are the CPU's.
fn agrees_with_the_cpu(precision: Precision, cache: CachePrecision, least: usize) {
    let cuda = backend(&mini(), &EngineOptions { cache, ..options(precision) });
    hears_as_the_cpu(cuda, &format!("{precision} cache {cache}"), least);
}

fn hears_as_the_cpu(mut cuda: CudaBackend, what: &str, least: usize) {
    let (model, pcm, precision) = (mini(), speech(), cuda.shape.precision);
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
    println!("{what}: {same} of {all} tokens as by the CPU");
    assert!(same * 100 >= all * least, "{what}: {same} of {all}");
}

#[test]
#[ignore = "needs an NVIDIA GPU"]
fn real_speech_is_what_the_cpu_hears() {
    agrees_with_the_cpu(Precision::F32, CachePrecision::Full, 100);
    agrees_with_the_cpu(Precision::F16, CachePrecision::Full, 90);
    agrees_with_the_cpu(Precision::Bf16, CachePrecision::Full, 90);
    agrees_with_the_cpu(Precision::F16, CachePrecision::Int8, 90);
}

/// What is compiled for older cards, as PTX, which runs on newer ones too, and with little memory: attention in several
/// passes, and few rows 8 at a time.
#[test]
#[ignore = "needs an NVIDIA GPU"]
fn what_lesser_cards_run_hears_real_speech() {
    let model = mini();
    let device = Device::open(0).expect("there is a card");
    let own = device.card;
    let older = CARDS.into_iter().filter(|card| card.capability <= own.capability);
    let smaller = [45, 32].map(|kilobytes| Card { shared_memory: kilobytes << 10, ..own });
    for card in older.chain(smaller) {
        let (major, minor) = card.capability;
        let card = Card { shared_memory: card.shared_memory.min(own.shared_memory), ..card };
        for (precision, cache) in [
            (Precision::F16, CachePrecision::Full),
            (Precision::F16, CachePrecision::Int8),
            (Precision::Bf16, CachePrecision::Full),
        ] {
            let options = EngineOptions { cache, ..options(precision) };
            let shape = Shape::new(&model.config, &options).expect("cards run the model");
            // What a card refuses is checked without one.
            let Ok(shape) = shape.on(card) else { continue };
            let (warps, rows) = (shape.ring_warps(), shape.skinny_rows());
            let what = format!("{card:?} {precision} cache {cache}, warps {warps:?}, few rows {rows:?}");
            let target = Target::Ptx(10 * major + minor);
            let cuda = CudaBackend::with(model.clone(), shape, device.clone(), target);
            hears_as_the_cpu(cuda.unwrap_or_else(|e| panic!("{what}: {e}")), &what, 90);
        }
    }
}

/// How the large models are cut for cards whose blocks have 99 KB gives what a block of all of the card's memory does.
#[test]
#[ignore = "needs an NVIDIA GPU of compute capability 9.0"]
fn large_models_are_the_same_in_99_kilobytes() {
    let (dir, pcm) = (tempfile::tempdir().expect("a directory"), speech());
    let (like, layers) = (Like::NemotronStreaming06b, Some(2));
    let synthetic = SynthOptions { like, vocabulary: None, layers, seed: 1 };
    let path = dir.path().join("model");
    synthesize(&synthetic, &path, &ConvertOptions::default(), &mut |_, _| {}).expect("a model");
    let model = Arc::new(Model::load(&path).expect("it is whole"));
    for cache in [CachePrecision::Full, CachePrecision::Int8] {
        let wanted = EngineOptions { cache, ..options(Precision::F16) };
        let mut large = backend(&model, &wanted);
        let card = Card { shared_memory: 99 << 10, ..large.device.card };
        let shape = Shape::new(&model.config, &wanted).and_then(|shape| shape.on(card)).expect("it fits");
        assert_ne!(shape.macros(), large.shape.macros());
        let target = Target::of(card.capability).expect("the card is known");
        let device = large.device.clone();
        let mut small = CudaBackend::with(model.clone(), shape, device, target).expect("it runs");
        for context in 0..model.config.encoder.contexts.len() {
            let mode = Mode::Cached { context };
            let [expected, got] = [&mut large, &mut small].map(|cuda| run(cuda, 0, mode, &pcm).0);
            let squares =
                |values: &mut dyn Iterator<Item = f32>| values.map(|x| f64::from(x * x)).sum::<f64>();
            let differences = squares(&mut expected.iter().zip(&got).map(|(x, y)| x - y));
            let error = (differences / squares(&mut expected.iter().copied())).sqrt();
            println!("{cache} {mode:?}: {error:.5} of {} values", got.len());
            assert!(expected.len() == got.len() && error < 1e-2, "{cache} {mode:?}: {error}");
        }
    }
}

#[test]
#[ignore = "needs an NVIDIA GPU of compute capability 9.0"]
fn products_in_8_bits_hear_real_speech() {
    agrees_with_the_cpu(Precision::F8, CachePrecision::Full, 85);
    agrees_with_the_cpu(Precision::F8, CachePrecision::Int8, 85);
}

/// Each load of a model gives the same weights, and each run of a model the same tokens.
#[test]
#[ignore = "needs an NVIDIA GPU of compute capability 9.0"]
fn products_in_8_bits_are_repeatable() {
    let (model, pcm) = (mini(), speech());
    let mut first = None;
    for _ in 0..3 {
        let mut cuda = backend(&model, &options(Precision::F8));
        let mut weights = Vec::new();
        for layer in &cuda.params.layers {
            let matrices = [&layer.qkv, &layer.attention_out, &layer.pointwise1, &layer.pointwise2];
            for matrix in matrices.into_iter().chain(&layer.ff1).chain(&layer.ff2) {
                let scales = matrix.scales.as_ref().expect("the matrix is in 8 bits");
                weights.extend(cuda.device.read::<u8>(&matrix.weight, matrix.weight.bytes));
                weights.extend(cuda.device.read::<u8>(scales, scales.bytes));
            }
        }
        let runs: Vec<_> = (0..3).map(|_| run(&mut cuda, 0, Mode::Cached { context: 0 }, &pcm)).collect();
        println!("{} matrices, {} tokens", weights.len() / 2, tokens(&runs[0].1).len());
        assert!(!weights.is_empty() && !tokens(&runs[0].1).is_empty());
        let (weights_before, run_before) = first.get_or_insert_with(|| (weights.clone(), runs[0].clone()));
        let differing = weights_before.iter().zip(&weights).filter(|(before, now)| before != now).count();
        assert_eq!(differing, 0, "of {} buffers", weights.len());
        for (encoded, decoded) in &runs {
            assert_eq!(tokens(decoded), tokens(&run_before.1));
            assert!(*encoded == run_before.0, "the encoder's output differs");
        }
    }
}

/// `y + 0.5 x w^T + bias` with rows and outputs of very different sizes, each of which has a scale.
#[test]
#[ignore = "needs an NVIDIA GPU of compute capability 9.0"]
fn products_in_8_bits_are_close() {
    const INPUTS: usize = 1_024;
    const OUTPUTS: usize = 512;
    let CudaBackend { device, kernels, mut products, .. } = backend(&mini(), &options(Precision::F8));
    let quantise = kernels.quantise_rows.as_ref().expect("products are in 8 bits");
    let mut random = fastrand::Rng::with_seed(8);
    // Values of a matrix whose rows differ by factors of up to 64, as half precision has them.
    let mut matrix = |rows: usize, width: usize| -> Vec<f32> {
        let row = |i: usize| (0.5_f32).powi((i % 7) as i32);
        let value = |i: usize| f16::from_f32((random.f32() - 0.5) * row(i / width)).to_f32();
        (0..rows * width).map(value).collect()
    };
    let rows8 = |values: &[f32], rows: usize| -> card::Rows8 {
        let from = card::upload(&device, Precision::F16, values).expect("memory");
        let padded = sizes::padded8(sizes::ladder(rows));
        let to = card::Rows8 {
            values: device.zeros(padded * INPUTS).expect("memory"),
            scales: device.zeros(padded * 4).expect("memory"),
        };
        let arguments = [(&from).into(), INPUTS.into(), (&to.values).into(), (&to.scales).into()];
        device.launch(quantise, [rows, 1], &arguments).expect("a launch");
        to
    };
    let weight = matrix(OUTPUTS, INPUTS);
    let bias = matrix(1, OUTPUTS);
    let card::Rows8 { values, scales } = rows8(&weight, OUTPUTS);
    let matrix8 = card::Matrix {
        weight: values,
        scales: Some(scales),
        bias: Some(card::upload(&device, Precision::F16, &bias).expect("memory")),
        outputs: OUTPUTS,
        inputs: INPUTS,
    };
    for rows in [3, 40, 300] {
        let (x, before) = (matrix(rows, INPUTS), matrix(rows, OUTPUTS));
        let mut padded = before.clone();
        padded.resize(sizes::padded8(sizes::ladder(rows)) * OUTPUTS, 0.0);
        let y = card::upload(&device, Precision::F16, &padded).expect("memory");
        let way = card::Way { scale: 0.5, add: true, ..products.plain() };
        let input = rows8(&x, rows);
        products.run8(&matrix8, way, rows, &input, (y.address, OUTPUTS)).expect("a product");
        let got = device.read::<u16>(&y, rows * OUTPUTS).expect("a copy");
        let mut of_rows = vec![[0.0_f64; 2]; rows];
        let mut of_outputs = vec![[0.0_f64; 2]; OUTPUTS];
        for (i, got) in got.iter().enumerate() {
            let (row, output) = (i / OUTPUTS, i % OUTPUTS);
            let pairs = x[row * INPUTS..][..INPUTS].iter().zip(&weight[output * INPUTS..][..INPUTS]);
            let sum: f64 = pairs.map(|(x, w)| f64::from(*x) * f64::from(*w)).sum();
            let expected = f64::from(before[i]) + 0.5 * sum + f64::from(bias[output]);
            let error = f64::from(f16::from_bits(*got).to_f32()) - expected;
            for [errors, values] in [&mut of_rows[row], &mut of_outputs[output]] {
                (*errors, *values) = (*errors + error * error, *values + expected * expected);
            }
        }
        let worst = |sums: &[[f64; 2]]| {
            sums.iter().map(|[errors, values]| (errors / values).sqrt()).fold(0.0, f64::max)
        };
        let (row, output) = (worst(&of_rows), worst(&of_outputs));
        println!("{} values of {rows} rows: error {row:.4} of a row, {output:.4} of an output", got.len());
        assert!(row < 5e-2, "{rows} rows: {row} of a row");
        // An output's norm is that of its few largest rows: less evens out, and another's scale makes it 1 and more.
        assert!(output < 0.2, "{rows} rows: {output} of an output");
    }
}

#[test]
fn products_in_8_bits_want_even_widths() {
    let mut config = mini().config.clone();
    assert!(Shape::new(&config, &options(Precision::F8)).is_ok_and(|shape| shape.product8));
    config.encoder.ff_width = 1_000;
    let error = Shape::new(&config, &options(Precision::F8)).expect_err("1000 is no multiple of 16");
    assert_eq!(error.to_string(), "precision: f8 goes with widths that are multiples of 16: use f16");
    assert!(Shape::new(&config, &options(Precision::F16)).is_ok());
}

#[test]
fn a_card_without_the_kernels_refuses_and_says_what_to_use() {
    let shape = |precision, cache, card: Card| {
        let options = EngineOptions { cache, ..options(precision) };
        Shape::new(&mini().config, &options).and_then(|shape| shape.on(card))
    };
    let refused =
        |precision, cache, card| shape(precision, cache, card).expect_err("the card can't").to_string();
    let [t4, .., h100, _, _] = CARDS;
    assert_eq!(
        refused(Precision::Bf16, CachePrecision::Full, t4),
        "precision: bf16 needs a card of compute capability 8.0 or later, this one has 7.5: use f16"
    );
    assert_eq!(
        refused(Precision::F16, CachePrecision::Int8, t4),
        "cache: int8 needs a card of compute capability 8.0 or later, this one has 7.5: use full"
    );
    assert_eq!(
        refused(Precision::F16, CachePrecision::Int8, Card { shared_memory: 20 << 10, ..h100 }),
        "cache: a block of this card has 20 KB of shared memory, too little for int8: use full"
    );
    // Half precision runs on all.
    let f16 = shape(Precision::F16, CachePrecision::Full, t4).expect("it runs");
    assert_eq!((f16.ring_warps(), f16.skinny_rows(), f16.tensor_cores()), (None, None, false));
    assert!(CARDS.iter().all(|card| shape(Precision::F32, CachePrecision::Full, *card).is_ok()));
    assert!(shape(Precision::F8, CachePrecision::Int8, h100).is_ok());
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

/// Whole signals of many lengths in one step, more rows than a step of chunks may have.
fn files_are_as_alone(precision: Precision, least: usize) {
    let (model, pcm) = (mini(), speech());
    let mut cuda = backend(&model, &options(precision));
    let mode = Mode::Offline { context: 0 };
    let (geometry, limits) = (cuda.shape.geometry, cuda.limits());
    let (mut files, mut rows): (Vec<&[f32]>, _) = (Vec::new(), 0);
    while rows <= limits.frames {
        let file = &pcm[..pcm.len() - 401 * files.len()];
        rows += geometry.frames(file.len() / HOP);
        files.push(file);
    }
    assert!(rows <= limits.whole_frames, "{rows} rows");
    let count = files.len();
    let mut step = |files: &[&[f32]]| -> Vec<_> {
        let slots: Vec<_> = files.iter().map(|_| cuda.open(mode, 0).expect("a slot")).collect();
        let steps = files.iter().zip(&slots).map(|(pcm, &slot)| Step { slot, pcm, end: true });
        let results = cuda.step(&steps.collect::<Vec<_>>());
        slots.into_iter().for_each(|slot| cuda.close(slot));
        results.into_iter().map(|result| tokens(&[result.expect("the step succeeds")])).collect()
    };
    let together = step(&files);
    let (mut same, mut all) = (0, 0);
    for (file, got) in files.into_iter().zip(together) {
        let alone = step(&[file]).remove(0);
        if precision == Precision::F32 {
            assert_eq!(got, alone, "{} samples", file.len());
        }
        let (equal, of) = agreement(&got, &alone);
        (same, all) = (same + equal, all + of);
    }
    println!("{precision}: {count} files, {rows} rows, {same} of {all} tokens as alone");
    assert!(all > 10 * count && same * 100 >= all * least, "{precision}: {same} of {all}");
}

#[test]
#[ignore = "needs an NVIDIA GPU"]
fn files_do_not_touch_each_other() {
    files_are_as_alone(Precision::F32, 100);
    files_are_as_alone(Precision::F16, 99);
}

#[test]
#[ignore = "needs an NVIDIA GPU of compute capability 9.0"]
fn files_do_not_touch_each_other_in_8_bits() {
    files_are_as_alone(Precision::F8, 97);
}

#[test]
#[ignore = "needs two NVIDIA GPUs"]
fn streams_are_spread_over_all_cards() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/parakeet-tdt-mini");
    let engine = Engine::open(&dir, &options(Precision::F16)).expect("the cards run the model");
    let cards = count().expect("there are cards");
    assert!(cards > 1 && engine.devices().len() == cards, "{:?}", engine.devices());
    let pcm = speech();
    let streams: Vec<_> = (0..10 * cards)
        .map(|_| {
            let options = StreamOptions { queue_samples: pcm.len(), ..Default::default() };
            engine.stream(&options).expect("a stream")
        })
        .collect();
    let lanes = engine.statistics().lanes;
    assert!(lanes.iter().all(|lane| lane.open_streams == 10), "{lanes:?}");
    let words = streams.iter().map(|stream| {
        stream.push(&pcm).expect("room");
        stream.finish();
        let mut words = Vec::new();
        loop {
            match stream.next().expect("an event") {
                Event::Word(word) => words.push(word.text),
                Event::Finished { .. } => return words,
                Event::Failed { error, .. } => panic!("{error}"),
                _ => {}
            }
        }
    });
    let words: Vec<_> = words.collect();
    assert!(words[0].len() > 10 && words.iter().all(|other| *other == words[0]), "{words:?}");
    let chunks: Vec<_> = engine.statistics().lanes.iter().map(|lane| lane.chunks).collect();
    println!("{cards} cards, {chunks:?} chunks, {} words each", words[0].len());
    assert!(chunks.iter().all(|&count| count == chunks[0] && count > 0), "{chunks:?}");
}

#[test]
#[ignore = "needs an NVIDIA GPU"]
fn a_copy_stays_inside_its_buffer() {
    let device = Device::open(0).expect("a card");
    let (small, large) = (device.zeros(64).expect("memory"), device.zeros(100).expect("memory"));
    device.write(small.part(60, 4).expect("it is inside"), &[7_u32]).expect("a copy");
    assert_eq!(device.read::<u8>(&small, 64).expect("a copy")[59..62], [0, 7, 0]);
    let told = |error: Result<()>| error.expect_err("it is outside").to_string();
    let expected = |bytes: usize, held: usize| {
        format!("backend cuda: a copy reaches to byte {bytes} of memory that has {held}")
    };
    assert_eq!(told(small.part(61, 4).map(drop)), expected(65, 64));
    assert_eq!(told(small.part(usize::MAX, 4).map(drop)), expected(usize::MAX, 64));
    assert_eq!(told(device.write(&small, &[0_u64; 9])), expected(72, 64));
    assert_eq!(told(device.read::<u8>(&small, 65).map(drop)), expected(65, 64));
    assert_eq!(told(device.copy(&large, &small)), expected(100, 64));
    device.copy(&small, &large).expect("a copy");
    assert_eq!(device.read::<u8>(&large, 100).expect("a copy")[59..65], [0, 7, 0, 0, 0, 0]);
    let mut host = device.pinned(32).expect("memory");
    assert_eq!(told(device.send(&host, (&large).into())), expected(100, 32));
    assert_eq!(told(device.fetch((&small).into(), &mut host)), expected(64, 32));
}
