// SPDX-License-Identifier: MPL-2.0
//! Tests of directories as Hugging Face transformers saves them, sound and spoiled.

use std::fs;
use std::path::{Path, PathBuf};

use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView, serialize};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::Result;
use crate::convert::{ConvertOptions, convert};
use crate::model::config::{AttentionStyle, Normalize, Transducer};
use crate::model::{CONFIG, ModelConfig, WEIGHTS};

const PROCESSOR: &str = "processor_config.json";
const INDEX: &str = "model.safetensors.index.json";
const TOKENIZER: &str = "tokenizer.json";

/// Name, type, shape and data of a tensor.
type Owned = (String, Dtype, Vec<usize>, Vec<u8>);

/// A copy of a fixture that can be spoiled.
struct Copy {
    dir: TempDir,
}

impl Copy {
    fn new(name: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/hf").join(name);
        fs::create_dir(dir.path().join("hf")).unwrap();
        for entry in fs::read_dir(from).unwrap() {
            let path = entry.unwrap().path();
            fs::copy(&path, dir.path().join("hf").join(path.file_name().unwrap())).unwrap();
        }
        Self { dir }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join("hf").join(name)
    }

    fn convert(&self) -> Result<ModelConfig> {
        convert(&self.path(""), &self.dir.path().join("out"), &ConvertOptions::default(), &mut |_, _| {})
    }

    /// The error of converting it, after which nothing is left behind.
    fn refusal(&self) -> String {
        let error = self.convert().unwrap_err().to_string();
        assert_eq!(fs::read_dir(self.dir.path()).unwrap().count(), 1, "{error}");
        error
    }

    /// Changes a value of a JSON file; null takes it away.
    fn set(self, file: &str, pointer: &str, value: Value) -> Self {
        let mut root: Value = serde_json::from_slice(&fs::read(self.path(file)).unwrap()).unwrap();
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        let parent = root.pointer_mut(parent).unwrap().as_object_mut().unwrap();
        match value {
            Value::Null => parent.remove(key),
            value => parent.insert(key.into(), value),
        };
        fs::write(self.path(file), root.to_string()).unwrap();
        self
    }

    /// Changes the list of tensors.
    fn tensors(self, change: fn(&mut Vec<Owned>)) -> Self {
        let bytes = fs::read(self.path(WEIGHTS)).unwrap();
        let tensors = SafeTensors::deserialize(&bytes).unwrap();
        let owned = |(name, view): (String, TensorView<'_>)| {
            (name, view.dtype(), view.shape().to_vec(), view.data().to_vec())
        };
        let mut list: Vec<_> = tensors.tensors().into_iter().map(owned).collect();
        change(&mut list);
        let views = list.iter().map(|(name, dtype, shape, data)| {
            (name.as_str(), TensorView::new(*dtype, shape.clone(), data).unwrap())
        });
        fs::write(self.path(WEIGHTS), serialize(views, None).unwrap()).unwrap();
        self
    }
}

fn refused(copy: Copy, expected: &str) {
    let error = copy.refusal();
    assert!(error.contains(expected), "{error}");
}

#[test]
fn every_class_has_its_configuration() {
    let config = |name: &str| Copy::new(name).convert().unwrap();
    let tdt = config("tdt");
    assert_eq!((tdt.name.as_str(), tdt.features.normalize), ("hf", Normalize::PerFeature));
    assert_eq!(
        (tdt.encoder.attention, &tdt.encoder.contexts[..]),
        (AttentionStyle::Regular, &[[-1, -1]][..])
    );
    assert_eq!((tdt.encoder.conv_context, tdt.encoder.bias, tdt.encoder.xscaling), ([4, 4], false, false));
    assert_eq!(tdt.decoder.kind, Transducer::Tdt { durations: vec![0, 1, 2, 3, 4] });
    assert_eq!((tdt.decoder.vocabulary, tdt.decoder.max_symbols, tdt.decoder.predictor_layers), (64, 10, 2));
    let rnnt = config("rnnt");
    assert_eq!((rnnt.features.mel_bins, rnnt.decoder.max_symbols), (128, 4));
    assert!(rnnt.encoder.bias && rnnt.encoder.xscaling && rnnt.decoder.kind == Transducer::Rnnt);
    let nemotron = config("nemotron");
    assert_eq!(nemotron.features.normalize, Normalize::None);
    assert!(nemotron.encoder.causal_subsampling && nemotron.encoder.conv_context == [8, 0]);
    assert_eq!(nemotron.encoder.attention, AttentionStyle::ChunkedLimited);
    assert_eq!(nemotron.encoder.contexts, [[28, 6], [28, 13], [28, 0], [28, 1]]);
}

#[test]
fn contexts_come_from_both_files() {
    let contexts = |copy: Copy| copy.convert().unwrap().encoder.contexts;
    let other = Copy::new("nemotron")
        .set(CONFIG, "/encoder_config/default_num_lookahead_tokens", json!(1))
        .set(CONFIG, "/encoder_config/sliding_window", json!(31));
    assert_eq!(contexts(other), [[30, 1], [28, 6], [28, 13], [30, 0]], "whole chunks, the default first");
    let silent = Copy::new("nemotron").set(PROCESSOR, "/supported_num_lookahead_tokens", Value::Null);
    assert_eq!(contexts(silent), [[28, 6], [28, 13], [28, 1], [28, 0]]);
    let absent = Copy::new("nemotron");
    fs::remove_file(absent.path(PROCESSOR)).unwrap();
    assert_eq!(contexts(absent), [[28, 6]]);
    let negative = Copy::new("nemotron").set(PROCESSOR, "/supported_num_lookahead_tokens", json!([-1]));
    refused(negative, "supported_num_lookahead_tokens: -1, expected at least 0");
}

/// The Nemotrons' directories say more than what the library itself writes.
#[test]
fn published_nemotrons_are_read() {
    const SUPPORTED: &str = "/encoder_config/supported_num_lookahead_tokens";
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/published");
    let json = fs::read(path.join("nemotron-3.5-asr-streaming-0.6b.json")).unwrap();
    let model = super::config::read(serde_json::from_slice(&json).unwrap(), None, None, "nemotron").unwrap();
    assert_eq!(model.encoder.contexts, [[28, 3], [28, 0], [28, 6], [28, 13]]);
    assert_eq!((model.decoder.kind, model.prompt.map(|prompt| prompt.places)), (Transducer::Rnnt, Some(6)));

    let published = |name: &str, window: i32, rights: [i32; 4]| {
        let copy = Copy::new(name).set(CONFIG, "/durations", json!([])).set(CONFIG, SUPPORTED, json!(rights));
        let copy = copy.set(CONFIG, "/encoder_config/sliding_window", json!(window));
        let copy = copy.set(CONFIG, "/encoder_config/default_num_lookahead_tokens", json!(rights[0]));
        let copy = copy.set(PROCESSOR, "/supported_num_lookahead_tokens", json!(rights));
        copy.set(PROCESSOR, "/default_num_lookahead_tokens", json!(rights[0])).convert().unwrap()
    };
    let multilingual = published("nemotron35", 57, [3, 0, 6, 13]);
    assert_eq!(multilingual.encoder.contexts, [[56, 3], [56, 0], [56, 6], [56, 13]]);
    let english = published("nemotron", 71, [13, 6, 1, 0]);
    assert_eq!(english.encoder.contexts, [[70, 13], [70, 6], [70, 1], [70, 0]]);
    assert!((0..4).all(|context| multilingual.is_cache_aware(context) && english.is_cache_aware(context)));

    let first = Copy::new("nemotron").set(CONFIG, SUPPORTED, json!([3, 0]));
    assert_eq!(first.convert().unwrap().encoder.contexts, [[28, 3], [28, 0]], "the first is the default");
    refused(Copy::new("nemotron").set(CONFIG, SUPPORTED, json!([-2])), "tokens: -2, expected at least 0");
    refused(Copy::new("rnnt").set(CONFIG, "/durations", json!([0, 1])), "durations: [0,1], expected []");
    refused(Copy::new("tdt").set(CONFIG, "/durations", json!([])), "decoder.kind.durations");
}

#[test]
fn what_cannot_run_is_refused_by_name() {
    let cases = [
        (CONFIG, "/architectures", json!(["ParakeetForCTC"]), "architectures: [\"ParakeetForCTC\"]"),
        (CONFIG, "/architectures", json!([]), "architectures: [], expected ParakeetForTDT"),
        (CONFIG, "/model_type", json!("other"), "model_type: \"other\", expected \"parakeet_tdt\""),
        (CONFIG, "/hidden_act", json!("tanh"), "hidden_act: \"tanh\", expected \"relu\""),
        (CONFIG, "/vocab_size", json!(64), "vocab_size: 64, expected 65"),
        (CONFIG, "/durations", json!("short"), "durations: invalid type"),
        (CONFIG, "/new_option", json!(true), "new_option: not a setting that this version knows"),
        (CONFIG, "/encoder_config", json!(null), "encoder_config is missing"),
        (CONFIG, "/encoder_config", json!(3), "encoder_config: expected an object"),
        (CONFIG, "/encoder_config/new", json!(1), "encoder_config.new: not a setting"),
        (CONFIG, "/encoder_config/model_type", json!("x"), "encoder_config.model_type: \"x\""),
        (CONFIG, "/encoder_config/hidden_act", json!("relu"), "encoder_config.hidden_act"),
        (
            CONFIG,
            "/encoder_config/subsampling_factor",
            json!(4),
            "encoder_config.subsampling_factor: 4, expected 8",
        ),
        (
            CONFIG,
            "/encoder_config/convolution_bias",
            json!(true),
            "encoder_config.convolution_bias: true, expected false",
        ),
        (
            CONFIG,
            "/encoder_config/num_key_value_heads",
            json!(2),
            "encoder_config.num_key_value_heads: 2, expected 4",
        ),
        (CONFIG, "/encoder_config/conv_kernel_size", json!(8), "encoder_config.conv_kernel_size: 8"),
        (CONFIG, "/encoder_config/hidden_size", json!(-1), "encoder_config.hidden_size: invalid value"),
        (CONFIG, "/encoder_config/num_hidden_layers", json!(0), "encoder.layers: expected 1 to 256"),
        (
            PROCESSOR,
            "/feature_extractor/n_fft",
            json!(400),
            "processor_config.json: feature_extractor.n_fft: 400",
        ),
        (
            PROCESSOR,
            "/feature_extractor/preemphasis",
            json!(0.9),
            "feature_extractor.preemphasis: 0.9, expected 0.97",
        ),
        (
            PROCESSOR,
            "/feature_extractor/feature_size",
            json!(128),
            "feature_extractor.feature_size: 128, expected 80",
        ),
        (
            PROCESSOR,
            "/feature_extractor/mel_filters_dtype",
            json!("bfloat16"),
            "feature_extractor.mel_filters_dtype",
        ),
        (
            PROCESSOR,
            "/feature_extractor/feature_extractor_type",
            json!("NemotronAsrStreamingFeatureExtractor"),
            "feature_extractor.feature_extractor_type",
        ),
        (PROCESSOR, "/feature_extractor/dither", json!(1), "feature_extractor.dither: not a setting"),
        (PROCESSOR, "/new_option", json!(1), "processor_config.json: new_option: not a setting"),
        (CONFIG, "/quantization_config", json!({"bits": 4}), "quantization_config.bits: not a setting"),
    ];
    for (file, pointer, value, expected) in cases {
        refused(Copy::new("tdt").set(file, pointer, value), expected);
    }
}

#[test]
fn wrong_tensors_are_named_as_the_library_names_them() {
    refused(
        Copy::new("tdt").tensors(|list| list.retain(|(name, ..)| name != "decoder.embedding.weight")),
        "tensor decoder.prediction.embed.weight is missing",
    );
    refused(
        Copy::new("tdt").tensors(|list| {
            list.iter_mut()
                .filter(|t| t.0.ends_with("layers.1.self_attn.o_proj.weight"))
                .for_each(|t| t.2 = vec![20, 80]);
        }),
        "tensor encoder.layers.1.self_attn.o_proj.weight: expected shape [40, 40], found [20, 80]",
    );
    refused(
        Copy::new("tdt").tensors(|list| list.push(("ctc_head.bias".into(), Dtype::F16, vec![1], vec![0; 2]))),
        "has a tensor \"ctc_head.bias\"",
    );
    refused(
        Copy::new("tdt").tensors(|list| {
            list.iter_mut().filter(|t| t.0 == "encoder_projector.bias").for_each(|t| t.1 = Dtype::I16);
        }),
        "tensor encoder_projector.bias is of type I16",
    );
}

#[test]
fn files_that_lie_about_themselves_are_refused() {
    let written = |bytes: &[u8]| {
        let copy = Copy::new("tdt");
        fs::write(copy.path(WEIGHTS), bytes).unwrap();
        copy
    };
    let whole = fs::read(Copy::new("tdt").path(WEIGHTS)).unwrap();
    refused(written(&whole[..whole.len() - 1]), "truncated or not a safetensors file: its tensors have");
    refused(written(&whole[..100]), "its header claims");
    refused(
        written(&[&(10_u64 << 30).to_le_bytes()[..], b"{}"].concat()),
        "its header claims 10737418240 bytes",
    );
    refused(written(b"{}"), "truncated or not a safetensors file");
    let header = br#"{"a":{"dtype":"F32","shape":[2684354560],"data_offsets":[0,10737418240]}}"#;
    let claim = [&(header.len() as u64).to_le_bytes()[..], header].concat();
    refused(written(&claim), "its tensors have 10737418240 bytes, found 0");
    for (file, expected) in [(CONFIG, "not JSON"), (TOKENIZER, "not a BPE or Unigram tokenizer")] {
        let copy = Copy::new("tdt");
        fs::write(copy.path(file), "[").unwrap();
        refused(copy, expected);
    }
    for (file, expected) in [
        (WEIGHTS, "neither model.safetensors nor model.safetensors.index.json"),
        (TOKENIZER, "neither tokenizer.json nor tokenizer.model"),
        (CONFIG, "config.json: "),
    ] {
        let copy = Copy::new("tdt");
        fs::remove_file(copy.path(file)).unwrap();
        refused(copy, expected);
    }
}

#[test]
fn shards_stay_in_the_directory_and_agree_with_their_index() {
    let first = "model-00001-of-00002.safetensors";
    for place in ["../hf/model-00001-of-00002.safetensors", "/etc/passwd", "..", ""] {
        let copy = Copy::new("rnnt").set(INDEX, "/weight_map/joint.head.bias", json!(place));
        refused(copy, "points outside the directory");
    }
    let gone = Copy::new("rnnt");
    fs::remove_file(gone.path(first)).unwrap();
    refused(gone, first);
    let swapped = Copy::new("rnnt");
    let name = "joint.head.bias";
    let index: Value = serde_json::from_slice(&fs::read(swapped.path(INDEX)).unwrap()).unwrap();
    let other =
        if index["weight_map"][name] == first { first.replace("00001-", "00002-") } else { first.into() };
    refused(swapped.set(INDEX, "/weight_map/joint.head.bias", json!(other)), "\"joint.head.bias\" is not in");
    let invented = Copy::new("rnnt").set(INDEX, "/weight_map/invented", json!(first));
    refused(invented, "tensor \"invented\" is not in the file it names");
}

#[test]
fn a_vocabulary_must_fit() {
    let short = Copy::new("tdt");
    let text = fs::read_to_string(short.path(TOKENIZER)).unwrap().replace("\"id\": 64", "\"id\": 65");
    fs::write(short.path(TOKENIZER), text).unwrap();
    short.convert().unwrap();
    let unigram = Copy::new("rnnt").set(TOKENIZER, "/model/vocab", json!([["a", 0.0]]));
    let unigram = unigram.set(TOKENIZER, "/added_tokens", Value::Null);
    refused(unigram, "its tokenizer has 1 pieces, expected 64");
}
