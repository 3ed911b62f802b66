// SPDX-License-Identifier: MPL-2.0
//! The CPU backend against what NeMo computes (`tools/oracle` made the fixtures from random-weight checkpoints).

mod hf;
mod words;

use std::path::{Path, PathBuf};

use safetensors::SafeTensors;
use serde::Deserialize;

use super::*;
use crate::backend::{Token, Window, chunk_samples};
use crate::features::{FRAME_SAMPLES, HOP, LogMelState, normalize_per_feature};
use crate::model::config::AttentionStyle;
use crate::model::{ConvertOptions, WeightType, convert};

/// Largest difference of a log-mel value or an encoder output that single precision explains here.
const TOLERANCE: f32 = 1e-4;

#[derive(Deserialize)]
struct Golden {
    contexts: std::collections::BTreeMap<String, Transcript>,
    #[serde(default)]
    lengths: Vec<Truncated>,
    #[serde(default)]
    windows: std::collections::BTreeMap<String, Vec<Chunk>>,
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
struct Transcript {
    tokens: Vec<u32>,
    frames: Vec<u64>,
    /// Absent for RNN-T.
    durations: Option<Vec<u32>>,
    #[serde(default)]
    chunks: Vec<Chunk>,
}

#[derive(Clone, Debug, Deserialize, PartialEq)]
struct Chunk {
    tokens: Vec<u32>,
    frames: Vec<u64>,
    durations: Option<Vec<u32>>,
    time_jump: Option<usize>,
    encoder_frames: usize,
}

#[derive(Deserialize)]
struct Truncated {
    context: String,
    samples: usize,
    encoder_frames: usize,
    tokens: Vec<u32>,
    frames: Vec<u64>,
    durations: Option<Vec<u32>>,
}

struct Fixture {
    model: Arc<Model>,
    golden: Golden,
    tensors: Vec<u8>,
    _dir: tempfile::TempDir,
}

fn data() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/oracle")
}

fn audio() -> Vec<f32> {
    let mut wav = hound::WavReader::open(data().join("audio.wav")).expect("the fixture is in the tree");
    wav.samples::<i16>().map(|s| f32::from(s.expect("a whole file")) / 32_768.0).collect()
}

impl Fixture {
    fn load(name: &str) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let from = data().join(name);
        let out = dir.path().join(name);
        let options = ConvertOptions { dtype: WeightType::F32, ..Default::default() };
        convert(&from.join("model.nemo"), &out, &options, &mut |_, _| {}).expect("the checkpoint converts");
        let golden = std::fs::read(from.join("golden.json")).expect("the fixture is in the tree");
        Self {
            model: Arc::new(Model::load(&out).expect("what was converted loads")),
            golden: serde_json::from_slice(&golden).expect("the fixture is sound"),
            tensors: std::fs::read(from.join("golden.safetensors")).expect("the fixture is in the tree"),
            _dir: dir,
        }
    }

    fn backend(&self) -> CpuBackend {
        CpuBackend::new(self.model.clone(), 1).expect("the model is complete")
    }

    /// A tensor `[channels, frames]` as `[frames][channels]`.
    fn tensor(&self, name: &str) -> Vec<f32> {
        let tensors = SafeTensors::deserialize(&self.tensors).expect("the fixture is sound");
        let view = tensors.tensor(name).expect("the fixture has it");
        let [channels, frames] = *view.shape() else { panic!("{name} is no matrix") };
        let value = |i: usize| f32::from_le_bytes(view.data()[4 * i..][..4].try_into().expect("four bytes"));
        (0..channels * frames).map(|i| value(i % channels * frames + i / channels)).collect()
    }

    /// The encoder's output in a context that the fixture calls so.
    fn encoded(&self, context: &str) -> Vec<f32> {
        self.tensor(&format!("enc.{}", context.replace(',', "_")))
    }

    /// Index of the context that the fixture calls `left,right`, or 0 for `full`.
    fn context(&self, name: &str) -> usize {
        let pair = |[left, right]: &[i32; 2]| format!("{left},{right}");
        self.model.config.encoder.contexts.iter().position(|c| pair(c) == name).unwrap_or(0)
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

/// The steps that `pcm` is cut into.
fn chunks<'a>(config: &ModelConfig, mode: Mode, pcm: &'a [f32]) -> Vec<(&'a [f32], bool)> {
    let sizes = mode.step_sizes(&config.encoder);
    let (mut steps, mut rest) = (Vec::new(), pcm);
    loop {
        let wanted = sizes.of(steps.len() as u64);
        if rest.len() <= wanted {
            steps.push((rest, true));
            return steps;
        }
        let (chunk, later) = rest.split_at(wanted);
        steps.push((chunk, false));
        rest = later;
    }
}

fn assert_close(what: &str, got: &[f32], expected: &[f32]) {
    assert_eq!(got.len(), expected.len(), "{what}: lengths");
    assert!(!got.is_empty(), "{what}: nothing to compare");
    let worst = got.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    println!("{what}: {} elements, largest difference {worst:.2e}", got.len());
    assert!(worst <= TOLERANCE, "{what}: largest difference {worst}");
}

fn assert_tokens(what: &str, got: &[Token], ids: &[u32], frames: &[u64], durations: Option<&[u32]>) {
    assert_eq!(got.iter().map(|t| t.id).collect::<Vec<_>>(), ids, "{what}: tokens");
    assert_eq!(got.iter().map(|t| t.frame).collect::<Vec<_>>(), frames, "{what}: frames");
    if let Some(durations) = durations {
        assert_eq!(got.iter().filter_map(|t| t.duration).collect::<Vec<_>>(), durations, "{what}: durations");
    }
}

/// Compares what one step decoded; returns the number of tokens.
fn assert_chunk(what: &str, got: &Decoded, expected: &Chunk) -> usize {
    assert_eq!(got.frames, expected.encoder_frames, "{what}");
    let Chunk { tokens: ids, frames, durations, .. } = expected;
    assert_tokens(what, &got.tokens, ids, frames, durations.as_deref());
    ids.len()
}

fn tokens(decoded: &[Decoded]) -> Vec<Token> {
    decoded.iter().flat_map(|d| d.tokens.clone()).collect()
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
        assert_close(&format!("{name} {raw}"), &frames[..expected.len()], &expected);
        assert_eq!(frames.len(), pcm.len() / HOP * mel.bins());
        if name == "fullatt" {
            normalize_per_feature(&mut frames, mel.bins());
            assert_close("fullatt features", &frames, &fixture.tensor("features"));
        }
    }
}

#[test]
fn offline_equals_nemo() {
    let pcm = audio();
    let mut compared = 0;
    for name in ["causal", "fullatt", "rnnt"] {
        let fixture = Fixture::load(name);
        for (context, expected) in &fixture.golden.contexts {
            let mode = Mode::Offline { context: fixture.context(context) };
            let (encoded, decoded) = fixture.run(mode, &pcm);
            let what = format!("{name} {context} offline");
            assert_close(&what, &encoded, &fixture.encoded(context));
            let Transcript { tokens: ids, frames, durations, .. } = expected;
            assert_tokens(&what, &tokens(&decoded), ids, frames, durations.as_deref());
            compared += ids.len();
        }
    }
    println!("{compared} tokens compared");
    assert!(compared > 100);
}

#[test]
fn streaming_equals_nemo_offline_chunk_by_chunk() {
    let pcm = audio();
    let mut compared = 0;
    for name in ["causal", "rnnt"] {
        let fixture = Fixture::load(name);
        for (context, expected) in &fixture.golden.contexts {
            let mode = Mode::Cached { context: fixture.context(context) };
            let (encoded, decoded) = fixture.run(mode, &pcm);
            let what = format!("{name} {context} streamed");
            assert_close(&what, &encoded, &fixture.encoded(context));
            assert!(!expected.chunks.is_empty(), "{what}: the fixture has no chunks");
            assert_eq!(decoded.len(), expected.chunks.len(), "{what}: chunks");
            for (i, (got, chunk)) in decoded.iter().zip(&expected.chunks).enumerate() {
                compared += assert_chunk(&format!("{what}, chunk {i}"), got, chunk);
            }
        }
    }
    println!("{compared} tokens compared");
    assert!(compared > 100);
}

#[test]
fn windows_equal_nemos_buffered_script_chunk_by_chunk() {
    let pcm = audio();
    let mut fixture = Fixture::load("fullatt");
    let mut compared = 0;
    assert_eq!(fixture.golden.windows.len(), 5);
    for (name, expected) in std::mem::take(&mut fixture.golden.windows) {
        let (sizes, masked) = match name.strip_suffix("-masked") {
            Some(sizes) => (sizes, true),
            None => (name.as_str(), false),
        };
        let sizes: Vec<usize> = sizes.split('-').map(|size| size.parse().expect("a number")).collect();
        let [left, chunk, right] = sizes[..] else { panic!("{name} is no window") };
        let model = Arc::get_mut(&mut fixture.model).expect("nobody else has it");
        model.config.encoder.attention =
            if masked { AttentionStyle::ChunkedLimitedWithRc } else { AttentionStyle::Regular };
        let mode = Mode::Buffered { context: 0, window: Window { left, chunk, right } };
        let (encoded, decoded) = fixture.run(mode, &pcm);
        let width = fixture.model.config.encoder.width;
        // All frames of every window were encoded; NeMo's are those that were decoded.
        let (mut kept, mut rows, mut seen, mut done) = (Vec::new(), &encoded[..], 0, 0);
        let window = (left + chunk + right) * FRAME_SAMPLES as usize;
        for ((pcm, _), step) in chunks(&fixture.model.config, mode, &pcm).iter().zip(&decoded) {
            seen += pcm.len();
            let start = seen.saturating_sub(window);
            let frames = (seen - start).div_ceil(FRAME_SAMPLES as usize);
            let first = (done * FRAME_SAMPLES as usize - start) / FRAME_SAMPLES as usize;
            kept.extend_from_slice(&rows[first * width..(first + step.frames) * width]);
            rows = &rows[frames * width..];
            done += step.frames;
        }
        assert_close(&format!("fullatt windows {name}"), &kept, &fixture.tensor(&format!("buf.{name}")));
        assert_eq!(decoded.len(), expected.len(), "{name}");
        for (i, (got, chunk)) in decoded.iter().zip(&expected).enumerate() {
            compared += assert_chunk(&format!("windows {name}, window {i}"), got, chunk);
        }
    }
    println!("{compared} tokens compared");
    assert!(compared > 200);
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
fn every_tail_equals_nemo_offline() {
    let pcm = audio();
    let fixture = Fixture::load("causal");
    assert!(fixture.golden.lengths.len() > 20);
    for case in &fixture.golden.lengths {
        // NeMo makes an encoder frame of the biases alone where there is not a single mel frame; here there is none.
        let is_empty = case.samples < HOP;
        let context = fixture.context(&case.context);
        for mode in [Mode::Cached { context }, Mode::Offline { context }] {
            let (_, decoded) = fixture.run(mode, &pcm[..case.samples]);
            let what = format!("{} samples, {}, {mode:?}", case.samples, case.context);
            let frames = decoded.iter().map(|d| d.frames).sum::<usize>();
            if is_empty {
                assert_eq!((frames, tokens(&decoded)), (0, Vec::new()), "{what}");
                continue;
            }
            assert_eq!(frames, case.encoder_frames, "{what}");
            assert_tokens(&what, &tokens(&decoded), &case.tokens, &case.frames, case.durations.as_deref());
        }
    }
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
