// SPDX-License-Identifier: MPL-2.0
//! What every backend must reproduce: NeMo's and transformers' outputs for random-weight checkpoints (`tools/oracle` made
//! the fixtures).

pub mod phrases;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use safetensors::SafeTensors;
use serde::Deserialize;

use crate::audio::features::{FRAME_SAMPLES, HOP};
use crate::backend::{Decoded, Mode, Token, Window};
use crate::convert::{ConvertOptions, WeightType, convert};
use crate::model::config::AttentionStyle;
use crate::model::{Model, ModelConfig};

#[derive(Deserialize)]
pub struct Golden {
    pub contexts: std::collections::BTreeMap<String, Transcript>,
    #[serde(default)]
    pub lengths: Vec<Truncated>,
    #[serde(default)]
    pub windows: std::collections::BTreeMap<String, Vec<Chunk>>,
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
pub struct Transcript {
    pub tokens: Vec<u32>,
    pub frames: Vec<u64>,
    /// Absent for RNN-T.
    pub durations: Option<Vec<u32>>,
    #[serde(default)]
    pub chunks: Vec<Chunk>,
}

#[derive(Clone, Debug, Deserialize, PartialEq)]
pub struct Chunk {
    pub tokens: Vec<u32>,
    pub frames: Vec<u64>,
    pub durations: Option<Vec<u32>>,
    pub time_jump: Option<usize>,
    pub encoder_frames: usize,
}

#[derive(Deserialize)]
pub struct Truncated {
    pub context: String,
    pub samples: usize,
    pub encoder_frames: usize,
    pub tokens: Vec<u32>,
    pub frames: Vec<u64>,
    pub durations: Option<Vec<u32>>,
}

pub struct Fixture {
    pub model: Arc<Model>,
    pub golden: Golden,
    pub tensors: Vec<u8>,
    pub _dir: tempfile::TempDir,
}

pub fn data() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/oracle")
}

pub fn audio() -> Vec<f32> {
    let mut wav = hound::WavReader::open(data().join("audio.wav")).expect("the fixture is in the tree");
    wav.samples::<i16>().map(|s| f32::from(s.expect("a whole file")) / 32_768.0).collect()
}

impl Fixture {
    pub fn load(name: &str) -> Self {
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

    /// A tensor `[channels, frames]` as `[frames][channels]`.
    pub fn tensor(&self, name: &str) -> Vec<f32> {
        let tensors = SafeTensors::deserialize(&self.tensors).expect("the fixture is sound");
        let view = tensors.tensor(name).expect("the fixture has it");
        let [channels, frames] = *view.shape() else { panic!("{name} is no matrix") };
        let value = |i: usize| f32::from_le_bytes(view.data()[4 * i..][..4].try_into().expect("four bytes"));
        (0..channels * frames).map(|i| value(i % channels * frames + i / channels)).collect()
    }

    /// The encoder's output in a context that the fixture calls so.
    pub fn encoded(&self, context: &str) -> Vec<f32> {
        self.tensor(&format!("enc.{}", context.replace(',', "_")))
    }

    /// Index of the context that the fixture calls `left,right`, or 0 for `full`.
    pub fn context(&self, name: &str) -> usize {
        let pair = |[left, right]: &[i32; 2]| format!("{left},{right}");
        self.model.config.encoder.contexts.iter().position(|c| pair(c) == name).unwrap_or(0)
    }
}

/// A fixture of `tools/oracle/hf.py`.
pub fn load_hf(name: &str) -> Fixture {
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/hf").join(name);
    let dir = tempfile::tempdir().expect("a temporary directory");
    let out = dir.path().join(name);
    let options = ConvertOptions { dtype: WeightType::F32, ..Default::default() };
    let config = convert(&from, &out, &options, &mut |_, _| {}).expect("the directory converts");
    assert_eq!(config.name, name);
    let golden = std::fs::read(from.join("golden.json")).expect("the fixture is in the tree");
    Fixture {
        model: Arc::new(Model::load(&out).expect("what was converted loads")),
        golden: serde_json::from_slice(&golden).expect("the fixture is sound"),
        tensors: std::fs::read(from.join("golden.safetensors")).expect("the fixture is in the tree"),
        _dir: dir,
    }
}

/// The steps that `pcm` is cut into.
pub fn chunks<'a>(config: &ModelConfig, mode: Mode, pcm: &'a [f32]) -> Vec<(&'a [f32], bool)> {
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

pub fn assert_tokens(what: &str, got: &[Token], ids: &[u32], frames: &[u64], durations: Option<&[u32]>) {
    assert_eq!(got.iter().map(|t| t.id).collect::<Vec<_>>(), ids, "{what}: tokens");
    assert_eq!(got.iter().map(|t| t.frame).collect::<Vec<_>>(), frames, "{what}: frames");
    if let Some(durations) = durations {
        assert_eq!(got.iter().filter_map(|t| t.duration).collect::<Vec<_>>(), durations, "{what}: durations");
    }
}

/// Compares what one step decoded; returns the number of tokens.
pub fn assert_chunk(what: &str, got: &Decoded, expected: &Chunk) -> usize {
    assert_eq!(got.frames, expected.encoder_frames, "{what}");
    let Chunk { tokens: ids, frames, durations, .. } = expected;
    assert_tokens(what, &got.tokens, ids, frames, durations.as_deref());
    ids.len()
}

pub fn tokens(decoded: &[Decoded]) -> Vec<Token> {
    decoded.iter().flat_map(|d| d.tokens.clone()).collect()
}

/// Runs a fixture's model over samples with a place of the prompt: encoder output and what each step decoded.
pub type Run = Box<dyn Fn(&Fixture, usize, Mode, &[f32]) -> (Vec<f32>, Vec<Decoded>)>;

/// A backend and how far its encoder output may be off.
pub struct Conformance {
    pub run: Run,
    pub tolerance: f32,
}

impl Conformance {
    fn run(&self, fixture: &Fixture, place: usize, mode: Mode, pcm: &[f32]) -> (Vec<f32>, Vec<Decoded>) {
        (self.run)(fixture, place, mode, pcm)
    }

    pub fn assert_close(&self, what: &str, got: &[f32], expected: &[f32]) {
        assert_close(what, got, expected, self.tolerance);
    }

    pub fn offline_equals_nemo(&self) {
        let pcm = audio();
        let mut compared = 0;
        for name in ["causal", "fullatt", "rnnt"] {
            let fixture = Fixture::load(name);
            for (context, expected) in &fixture.golden.contexts {
                let mode = Mode::Offline { context: fixture.context(context) };
                let (encoded, decoded) = self.run(&fixture, 0, mode, &pcm);
                let what = format!("{name} {context} offline");
                self.assert_close(&what, &encoded, &fixture.encoded(context));
                let Transcript { tokens: ids, frames, durations, .. } = expected;
                assert_tokens(&what, &tokens(&decoded), ids, frames, durations.as_deref());
                compared += ids.len();
            }
        }
        println!("{compared} tokens compared");
        assert!(compared > 100);
    }

    pub fn streaming_equals_nemo_offline_chunk_by_chunk(&self) {
        let pcm = audio();
        let mut compared = 0;
        for name in ["causal", "rnnt"] {
            let fixture = Fixture::load(name);
            for (context, expected) in &fixture.golden.contexts {
                let mode = Mode::Cached { context: fixture.context(context) };
                let (encoded, decoded) = self.run(&fixture, 0, mode, &pcm);
                let what = format!("{name} {context} streamed");
                self.assert_close(&what, &encoded, &fixture.encoded(context));
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

    pub fn windows_equal_nemos_buffered_script_chunk_by_chunk(&self) {
        let pcm = audio();
        let mut compared = 0;
        let windows = Fixture::load("fullatt").golden.windows;
        assert_eq!(windows.len(), 5);
        for (name, expected) in windows {
            let mut fixture = Fixture::load("fullatt");
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
            let (encoded, decoded) = self.run(&fixture, 0, mode, &pcm);
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
            self.assert_close(
                &format!("fullatt windows {name}"),
                &kept,
                &fixture.tensor(&format!("buf.{name}")),
            );
            assert_eq!(decoded.len(), expected.len(), "{name}");
            for (i, (got, chunk)) in decoded.iter().zip(&expected).enumerate() {
                compared += assert_chunk(&format!("windows {name}, window {i}"), got, chunk);
            }
        }
        println!("{compared} tokens compared");
        assert!(compared > 200);
    }

    pub fn every_tail_equals_nemo_offline(&self) {
        let pcm = audio();
        let fixture = Fixture::load("causal");
        assert!(fixture.golden.lengths.len() > 20);
        for case in &fixture.golden.lengths {
            // NeMo makes an encoder frame of the biases alone where there is not a single mel frame; here there is none.
            let is_empty = case.samples < HOP;
            let context = fixture.context(&case.context);
            for mode in [Mode::Cached { context }, Mode::Offline { context }] {
                let (_, decoded) = self.run(&fixture, 0, mode, &pcm[..case.samples]);
                let what = format!("{} samples, {}, {mode:?}", case.samples, case.context);
                let frames = decoded.iter().map(|d| d.frames).sum::<usize>();
                if is_empty {
                    assert_eq!((frames, tokens(&decoded)), (0, Vec::new()), "{what}");
                    continue;
                }
                assert_eq!(frames, case.encoder_frames, "{what}");
                assert_tokens(
                    &what,
                    &tokens(&decoded),
                    &case.tokens,
                    &case.frames,
                    case.durations.as_deref(),
                );
            }
        }
    }

    pub fn a_language_prompt_equals_transformers(&self) {
        let pcm = audio();
        let fixture = load_hf("nemotron35");
        let prompt = fixture.model.config.prompt.clone().expect("the model has a prompt");
        assert_eq!(prompt.place(None).ok(), Some(5), "auto");
        let (mut compared, mut heard) = (0, std::collections::HashSet::new());
        for (name, expected) in &fixture.golden.contexts {
            let (pair, language) = name.split_once(' ').expect("a context and a language");
            let place = prompt.place(Some(language)).expect("the model has it");
            let context = fixture.context(pair);
            for mode in [Mode::Offline { context }, Mode::Cached { context }] {
                let (encoded, decoded) = self.run(&fixture, place, mode, &pcm);
                let what = format!("nemotron35 {name} {mode:?}");
                self.assert_close(&what, &encoded, &fixture.encoded(pair));
                assert_tokens(&what, &tokens(&decoded), &expected.tokens, &expected.frames, None);
                compared += expected.tokens.len();
            }
            heard.insert(expected.tokens.clone());
        }
        println!("{compared} tokens compared");
        assert!(compared > 500);
        assert_eq!(
            heard.len(),
            fixture.golden.contexts.len(),
            "every language and context gives other tokens"
        );
    }

    pub fn offline_and_streamed_equal_transformers(&self) {
        let pcm = audio();
        let mut compared = 0;
        for (name, contexts) in [("tdt", 1), ("rnnt", 1), ("nemotron", 4)] {
            let fixture = load_hf(name);
            assert_eq!(fixture.model.config.encoder.contexts.len(), contexts, "{name}");
            assert_eq!(fixture.golden.contexts.len(), contexts, "{name}");
            for (pair, expected) in &fixture.golden.contexts {
                let context = fixture.context(pair);
                let mut modes = vec![Mode::Offline { context }];
                if name == "nemotron" {
                    modes.push(Mode::Cached { context });
                }
                for mode in modes {
                    let (encoded, decoded) = self.run(&fixture, 0, mode, &pcm);
                    let what = format!("{name} {mode:?}");
                    self.assert_close(&what, &encoded, &fixture.encoded(pair));
                    let Transcript { tokens: ids, frames, durations, .. } = expected;
                    assert_tokens(&what, &tokens(&decoded), ids, frames, durations.as_deref());
                    compared += ids.len();
                }
            }
        }
        println!("{compared} tokens compared");
        assert!(compared > 500);
    }
}

pub fn assert_close(what: &str, got: &[f32], expected: &[f32], tolerance: f32) {
    assert_eq!(got.len(), expected.len(), "{what}: lengths");
    assert!(!got.is_empty(), "{what}: nothing to compare");
    let worst = got.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    println!("{what}: {} elements, largest difference {worst:.2e}", got.len());
    assert!(worst <= tolerance, "{what}: largest difference {worst}");
}
