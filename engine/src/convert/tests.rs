// SPDX-License-Identifier: MPL-2.0
//! Tests of conversion and loading as a whole.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use half::{bf16, f16};
use tar::{Builder, EntryType};
use tempfile::TempDir;
use zip::CompressionMethod;

use super::nemo::ElementType;
use super::testing::{TestNemo, TestTensor, checkpoint, header, tar};
use super::*;
use crate::model::{CONFIG, Model, TOKENS, TensorData, WEIGHTS, tensors};

const QUERY: &str = "encoder.layers.0.self_attn.linear_q.weight";
const NORM: &str = "encoder.layers.0.norm_out.weight";

/// A place for a checkpoint and its model.
struct Place {
    dir: TempDir,
}

impl Place {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    fn nemo(&self) -> PathBuf {
        self.dir.path().join("tiny.nemo")
    }

    fn out(&self) -> PathBuf {
        self.dir.path().join("deep/tiny")
    }

    fn convert(&self, dtype: WeightType) -> Result<ModelConfig> {
        convert(&self.nemo(), &self.out(), &ConvertOptions { dtype, ..Default::default() }, &mut |_, _| {})
    }

    /// The error of converting these bytes, after which nothing is left behind.
    fn refusal(&self, nemo: &[u8]) -> String {
        fs::write(self.nemo(), nemo).unwrap();
        let error = self.convert(WeightType::F16).unwrap_err().to_string();
        assert!(!self.out().exists(), "{error}");
        assert_eq!(fs::read_dir(self.dir.path().join("deep")).unwrap().count(), 0, "{error}");
        error
    }
}

fn refusal(nemo: &TestNemo) -> String {
    Place::new().refusal(&tar(&nemo.members()))
}

fn converted() -> Place {
    let place = Place::new();
    TestNemo::new().write(&place.nemo());
    place.convert(WeightType::F16).unwrap();
    place
}

fn values(model: &Model, name: &str) -> Vec<f32> {
    let spec = tensors::expected(&model.config).into_iter().find(|spec| spec.name == name).unwrap();
    model.weights.tensor(name, &spec.shape).unwrap().to_f32()
}

fn original(tensor: &TestTensor) -> Vec<f32> {
    tensor.bytes.as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect()
}

fn load_error(dir: &Path) -> String {
    Model::load(dir).unwrap_err().to_string()
}

#[test]
fn every_tensor_survives_in_both_types() {
    let nemo = TestNemo::new();
    for dtype in [WeightType::F16, WeightType::F32] {
        let place = Place::new();
        nemo.write(&place.nemo());
        let mut steps = Vec::new();
        let options = ConvertOptions { dtype, name: Some("other name".into()), ..Default::default() };
        let config =
            convert(&place.nemo(), &place.out(), &options, &mut |done, total| steps.push((done, total)));
        let model = Model::load(&place.out()).unwrap();
        assert_eq!(model.config, config.unwrap());
        assert_eq!(model.config.name, "other name");
        let specs = tensors::expected(&model.config);
        for spec in &specs {
            let tensor = model.weights.tensor(&spec.name, &spec.shape).unwrap();
            assert_eq!(tensor.to_f32(), original(&nemo.tensors[&spec.name]), "{}", spec.name);
            let half = matches!(tensor.data, TensorData::F16(_));
            assert_eq!(half, dtype == WeightType::F16 && !spec.full_precision, "{}", spec.name);
        }
        let total = model.weights.bytes() as u64;
        assert_eq!((steps[0], steps[steps.len() - 1]), ((0, total), (total, total)));
        assert!(steps.is_sorted() && steps.len() == specs.len() + 1);
        assert!(!model.weights.has("preprocessor.featurizer.window"));
        assert_eq!(model.vocabulary.decode(&[1, 2, 3, 4]), "abA.");
    }
}

#[test]
fn languages_are_written_down() {
    let place = Place::new();
    TestNemo::new().write(&place.nemo());
    let convert_with = |code: &str| {
        let options = ConvertOptions { languages: vec![code.into()], ..Default::default() };
        convert(&place.nemo(), &place.out(), &options, &mut |_, _| {})
    };
    let refused = convert_with("en-US").unwrap_err().to_string();
    assert!(refused.contains("language") && refused.contains("\"en-US\" is no ISO 639 code"), "{refused}");
    convert_with("en").unwrap();
    assert_eq!(Model::load(&place.out()).unwrap().config.languages, ["en"]);
}

#[test]
fn a_hybrid_gives_its_transducer() {
    let place = Place::new();
    let mut nemo = TestNemo::new().with_yaml("EncDecRNNTBPEModel", "EncDecHybridRNNTCTCBPEModel");
    let plain = nemo.tensors.len();
    for (name, shape) in [("weight", &[6, 8, 1][..]), ("bias", &[6][..])] {
        let values = vec![0.5; shape.iter().product()];
        nemo.tensors.insert(format!("ctc_decoder.decoder_layers.0.{name}"), TestTensor::new(shape, &values));
    }
    assert_eq!(nemo.tensors.len(), plain + 2);
    nemo.write(&place.nemo());
    convert(&place.nemo(), &place.out(), &ConvertOptions::default(), &mut |_, _| {}).unwrap();
    let model = Model::load(&place.out()).unwrap();
    assert!(!model.weights.has("ctc_decoder.decoder_layers.0.weight"));
    assert!(model.weights.has("joint.enc.weight"));
}

#[test]
fn the_windows_of_training_are_kept() {
    let place = Place::new();
    let windows = "chunked_limited_with_rc\n  att_chunk_context_size: [[70], [1, 13], [0, 13]]";
    TestNemo::new().with_yaml("chunked_limited", windows).write(&place.nemo());
    place.convert(WeightType::F16).unwrap();
    let path = place.out().join(CONFIG);
    let text = fs::read_to_string(&path).unwrap();
    let mut json: serde_json::Value = serde_json::from_str(&text).unwrap();
    let kept = serde_json::json!({"left": [70], "chunk": [1, 13], "right": [0, 13]});
    assert_eq!((&json["encoder"]["windows"], json["format"].as_u64()), (&kept, Some(1)));
    let windows = Model::load(&place.out()).unwrap().config.encoder.windows.unwrap();
    assert_eq!((windows.left, windows.chunk, windows.right), (vec![70], vec![1, 13], vec![0, 13]));
    // As earlier versions wrote it.
    json["encoder"].as_object_mut().unwrap().remove("windows").unwrap();
    fs::write(&path, json.to_string()).unwrap();
    assert_eq!(Model::load(&place.out()).unwrap().config.encoder.windows, None);
    json["encoder"]["windows"] = serde_json::json!({"left": [70], "chunk": [0], "right": [0]});
    fs::write(&path, json.to_string()).unwrap();
    assert!(load_error(&place.out()).contains("encoder.windows.chunk: expected 1 to 7500, found 0"));
}

#[test]
fn a_gzip_archive_is_read() {
    let place = Place::new();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&tar(&TestNemo::new().members())).unwrap();
    let packed = gzip.finish().unwrap();
    fs::write(place.nemo(), &packed).unwrap();
    assert_eq!(place.convert(WeightType::F16).unwrap().name, "tiny");
    Model::load(&place.out()).unwrap();
    let error = Place::new().refusal(&packed[..packed.len() / 2]);
    assert!(error.contains("damaged gzip archive"), "{error}");
}

#[test]
fn a_gzip_bomb_is_refused() {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    let zeros = vec![0; 1 << 20];
    (0..80).for_each(|_| gzip.write_all(&zeros).unwrap());
    let error = Place::new().refusal(&gzip.finish().unwrap());
    assert!(error.contains("unpacks to more than 20 times"), "{error}");
}

#[test]
fn other_element_types_views_and_compression_are_read() {
    let mut nemo = TestNemo::new();
    let expected = original(&nemo.tensors[QUERY]);
    let mut replace = |name: &str, element, encode: fn(f32) -> Vec<u8>| {
        let values = original(&nemo.tensors[name]);
        let bytes = values.iter().flat_map(|&value| encode(value)).collect();
        let tensor = TestTensor::with_bytes(&nemo.tensors[name].tensor.shape.clone(), element, bytes);
        nemo.tensors.insert(name.into(), tensor);
    };
    replace("joint.enc.weight", ElementType::F64, |v| f64::from(v).to_le_bytes().to_vec());
    replace("joint.pred.weight", ElementType::F16, |v| f16::from_f32(v).to_le_bytes().to_vec());
    replace("joint.enc.bias", ElementType::Bf16, |v| bf16::from_f32(v).to_le_bytes().to_vec());
    // A transposed view, three elements into its storage.
    let query = nemo.tensors.get_mut(QUERY).unwrap();
    let transposed: Vec<f32> = (0..64).map(|i| expected[i % 8 * 8 + i / 8]).collect();
    *query = TestTensor::new(&[8, 8], &[&[9.0; 3][..], &transposed, &[9.0; 2]].concat());
    query.tensor.offset = 3;
    query.tensor.strides = vec![1, 8];
    for method in [CompressionMethod::Stored, CompressionMethod::Deflated] {
        let place = Place::new();
        let mut members = nemo.members();
        members[2].1 = checkpoint(&nemo.tensors, method);
        fs::write(place.nemo(), tar(&members)).unwrap();
        place.convert(WeightType::F32).unwrap();
        let model = Model::load(&place.out()).unwrap();
        assert_eq!(values(&model, QUERY), expected);
        let sound = TestNemo::new();
        for name in ["joint.enc.weight", "joint.pred.weight", "joint.enc.bias"] {
            let rounded = original(&sound.tensors[name]).into_iter();
            let rounded =
                rounded.map(|v| if name == "joint.enc.bias" { bf16::from_f32(v).to_f32() } else { v });
            assert_eq!(values(&model, name), rounded.collect::<Vec<_>>(), "{name}");
        }
    }
}

#[test]
fn a_joint_without_dropout_gets_the_usual_name() {
    let mut nemo = TestNemo::new();
    for part in ["weight", "bias"] {
        let tensor = nemo.tensors.remove(&format!("joint.joint_net.2.{part}")).unwrap();
        nemo.tensors.insert(format!("joint.joint_net.1.{part}"), tensor);
    }
    let place = Place::new();
    nemo.write(&place.nemo());
    place.convert(WeightType::F16).unwrap();
    assert!(Model::load(&place.out()).unwrap().weights.has("joint.joint_net.2.weight"));
}

#[test]
fn wrong_tensors_are_named() {
    let mut nemo = TestNemo::new();
    nemo.tensors.remove(QUERY);
    assert!(refusal(&nemo).contains(&format!("tensor {QUERY} is missing")));

    let mut nemo = TestNemo::new();
    nemo.tensors.insert(QUERY.into(), TestTensor::new(&[4, 16], &[0.0; 64]));
    assert!(refusal(&nemo).contains(&format!("tensor {QUERY}: expected shape [8, 8], found [4, 16]")));

    let mut nemo = TestNemo::new();
    nemo.tensors.insert("prompt_kernel.0.weight".into(), TestTensor::new(&[1], &[0.0]));
    assert!(refusal(&nemo).contains("\"prompt_kernel.0.weight\", which this version can't use"));

    let mut nemo = TestNemo::new();
    nemo.tensors.insert(NORM.into(), TestTensor::with_bytes(&[8], ElementType::I64, vec![0; 64]));
    assert!(refusal(&nemo).contains(&format!("tensor {NORM}: holds integers")));

    let mut nemo = TestNemo::new();
    nemo.tensors.get_mut(QUERY).unwrap().bytes.truncate(100);
    assert!(refusal(&nemo).contains("expected 64 elements of 4 bytes, found 100 bytes"));
}

#[test]
fn values_that_half_precision_cannot_hold_are_named() {
    let mut nemo = TestNemo::new();
    nemo.tensors.insert(QUERY.into(), TestTensor::new(&[8, 8], &[70_000.0; 64]));
    assert!(refusal(&nemo).contains(&format!("tensor {QUERY}: 70000 is beyond 16-bit floats")));
    let place = Place::new();
    nemo.write(&place.nemo());
    place.convert(WeightType::F32).unwrap();
    for value in [f32::NAN, f32::NEG_INFINITY] {
        nemo.tensors.insert(NORM.into(), TestTensor::new(&[8], &[value; 8]));
        assert!(refusal(&nemo).contains(&format!("tensor {NORM}: holds {value}")));
    }
}

#[test]
fn members_that_point_elsewhere_are_refused() {
    let sound = TestNemo::new().members();
    for name in ["../model_config.yaml", "a/../../b", "/etc/passwd", "..\\x", "./..", "a/.."] {
        let members = [&sound[..], &[(name.into(), vec![])]].concat();
        let error = Place::new().refusal(&tar(&members));
        assert!(error.contains("points outside the archive"), "{name}: {error}");
    }
    for kind in [EntryType::Symlink, EntryType::Link, EntryType::Char, EntryType::Fifo, EntryType::GNUSparse]
    {
        let mut builder = Builder::new(Vec::new());
        let mut link = header("model_weights.ckpt", kind, 0);
        link.set_link_name("/etc/passwd").unwrap();
        link.as_gnu_mut().unwrap().set_real_size(0);
        link.set_cksum();
        builder.append(&link, &[][..]).unwrap();
        let error = Place::new().refusal(&builder.into_inner().unwrap());
        assert!(error.contains("member \"model_weights.ckpt\" is a"), "{kind:?}: {error}");
    }
}

#[test]
fn duplicate_and_missing_members_are_refused() {
    let sound = TestNemo::new().members();
    let again = ("model_config.yaml".to_owned(), b"target: x".to_vec());
    let error = Place::new().refusal(&tar(&[&sound[..], &[again]].concat()));
    assert!(error.contains("\"model_config.yaml\" appears twice"), "{error}");
    for left_out in 0..sound.len() {
        let mut members = sound.clone();
        let (name, _) = members.remove(left_out);
        let error = Place::new().refusal(&tar(&members));
        assert!(error.contains(&format!("{} is missing", &name[2..])), "{error}");
    }
}

#[test]
fn sizes_beyond_the_file_are_refused() {
    let mut bytes = header("model_weights.ckpt", EntryType::Regular, 10 << 30).as_bytes().to_vec();
    bytes.extend_from_slice(&[0; 1024]);
    let error = Place::new().refusal(&bytes);
    assert!(error.contains("claims 10737418240 bytes, but 1024 are left"), "{error}");
    let error = Place::new().refusal(&b"line\n\x1b[2J".repeat(200));
    assert!(error.contains("not a tar archive") && !error.contains(char::is_control), "{error}");
    let whole = tar(&TestNemo::new().members());
    for length in [1, 511, 513, whole.len() / 4, whole.len() / 2, whole.len() * 3 / 4] {
        Place::new().refusal(&whole[..length]);
    }
}

#[test]
fn random_damage_to_a_checkpoint_never_panics() {
    let whole = tar(&TestNemo::new().members());
    let place = Place::new();
    let mut refused = 0;
    for index in (0..whole.len()).step_by(whole.len() / 100) {
        let mut bytes = whole.clone();
        bytes[index] ^= 0x5a;
        fs::write(place.nemo(), &bytes).unwrap();
        refused += usize::from(place.convert(WeightType::F16).is_err());
    }
    assert!(refused > 60, "only {refused} of 100 were noticed");
}

#[test]
fn an_unsupported_configuration_is_named() {
    let error = refusal(&TestNemo::new().with_yaml("subsampling_factor: 8", "subsampling_factor: 4"));
    assert!(error.starts_with("unsupported model: ") && error.contains("tiny.nemo"), "{error}");
    assert!(error.contains("encoder.subsampling_factor: 4, expected 8"), "{error}");
    let place = Place::new();
    let missing = place.convert(WeightType::F16).unwrap_err().to_string();
    assert!(missing.contains("tiny.nemo") && !place.dir.path().join("deep").exists(), "{missing}");
}

#[test]
fn the_tokenizer_must_fit() {
    let mut nemo = TestNemo::new();
    nemo.pieces.pop();
    assert!(refusal(&nemo).contains("its tokenizer has 4 pieces, expected 5"));
    let mut nemo = TestNemo::new();
    nemo.pieces[3].piece = "<0xZZ>".into();
    assert!(refusal(&nemo).contains("\"<0xZZ>\" is said to be a byte"));
    let mut members = TestNemo::new().members();
    members[1].1 = vec![0xff; 40];
    assert!(Place::new().refusal(&tar(&members)).contains("not a SentencePiece model"));
}

#[test]
fn only_a_model_directory_is_overwritten() {
    let place = converted();
    let (out, card) = (place.out(), place.out().join("README.md"));
    fs::write(&card, "card").unwrap();
    let mut nemo = TestNemo::new();
    nemo.tensors.insert(NORM.into(), TestTensor::new(&[8], &[2.5; 8]));
    nemo.write(&place.nemo());
    place.convert(WeightType::F32).unwrap();
    assert_eq!(values(&Model::load(&out).unwrap(), NORM), [2.5; 8]);
    assert_eq!(fs::read_to_string(&card).unwrap(), "card");

    fs::remove_file(out.join(CONFIG)).unwrap();
    let error = place.convert(WeightType::F16).unwrap_err().to_string();
    assert!(error.contains("not a model directory"), "{error}");
    fs::remove_file(&card).unwrap();
    place.convert(WeightType::F16).unwrap();

    fs::write(out.join(CONFIG), r#"{"architectures": ["Other"]}"#).unwrap();
    assert!(place.convert(WeightType::F16).is_err());
    assert_eq!(fs::read_dir(out.parent().unwrap()).unwrap().count(), 1);
    let file = place.dir.path().join("file");
    fs::write(&file, "x").unwrap();
    assert!(convert(&place.nemo(), &file, &ConvertOptions::default(), &mut |_, _| {}).is_err());
    assert_eq!(fs::read_to_string(&file).unwrap(), "x");
}

#[test]
fn an_interrupted_conversion_leaves_nothing_behind() {
    let place = Place::new();
    TestNemo::new().write(&place.nemo());
    let options = ConvertOptions::default();
    let cancel = options.cancel.clone();
    let mut parts = Vec::new();
    let error = convert(&place.nemo(), &place.out(), &options, &mut |done, _| {
        parts.push(fs::read_dir(place.out().parent().unwrap()).unwrap().count());
        cancel.store(done > 300, Ordering::Relaxed);
    });
    assert!(error.unwrap_err().to_string().contains("interrupted, nothing is left"));
    assert!(parts.len() > 1 && parts.iter().all(|&count| count == 1), "one hidden directory: {parts:?}");
    assert_eq!(fs::read_dir(place.out().parent().unwrap()).unwrap().count(), 0);
}

#[test]
fn what_a_killed_conversion_left_is_cleaned_up_by_the_next() {
    let place = Place::new();
    TestNemo::new().write(&place.nemo());
    let part = place.out().with_file_name(".tiny.part");
    fs::create_dir_all(part.join("model/model.safetensors")).unwrap();
    fs::write(part.join("lock"), "").unwrap();
    let held = fs::File::open(part.join("lock")).unwrap();
    held.lock().unwrap();
    let error = place.convert(WeightType::F16).unwrap_err().to_string();
    assert!(error.contains("tiny: another conversion is writing it now"), "{error}");
    assert!(part.join("model/model.safetensors").exists());
    drop(held);
    place.convert(WeightType::F16).unwrap();
    Model::load(&place.out()).unwrap();
    assert!(!part.exists());
    fs::write(&part, "").unwrap();
    let error = place.convert(WeightType::F16).unwrap_err().to_string();
    assert!(error.contains(".tiny.part"), "a file is in the way: {error}");
}

#[test]
fn a_model_directory_is_not_a_checkpoint() {
    let place = converted();
    let error = convert(&place.out(), &place.dir.path().join("x"), &Default::default(), &mut |_, _| {});
    assert!(error.unwrap_err().to_string().contains("a model directory already"));
}

#[test]
fn loading_says_what_is_missing_and_how_to_get_it() {
    let place = converted();
    assert!(load_error(&place.dir.path().join("nowhere")).contains("parakeet convert"));
    let error = load_error(&place.nemo());
    assert!(
        error.contains("make it a model with `parakeet convert ") && error.contains("tiny.nemo "),
        "{error}"
    );
    for name in [CONFIG, WEIGHTS, TOKENS] {
        let place = converted();
        fs::remove_file(place.out().join(name)).unwrap();
        let error = load_error(&place.out());
        assert!(error.contains(&format!("{name}: missing")) && error.contains("parakeet convert"), "{error}");
    }
}

#[test]
fn loading_checks_the_parts_against_each_other() {
    let edit = |name: &str, change: &dyn Fn(String) -> String| {
        let place = converted();
        let path = place.out().join(name);
        fs::write(&path, change(fs::read_to_string(&path).unwrap())).unwrap();
        load_error(&place.out())
    };
    let replace = |from: &'static str, to: &'static str| move |text: String| text.replace(from, to);
    let error = edit(CONFIG, &replace("\"format\": 1", "\"format\": 7, \"new\": {}"));
    assert!(error.contains("format 7, but this version reads format 1"), "{error}");
    assert!(edit(CONFIG, &|_| "{".into()).contains("not the configuration of a model directory"));
    assert!(edit(CONFIG, &replace("\"width\"", "\"breadth\"")).contains("unknown field `breadth`"));
    assert!(edit(CONFIG, &replace("\"heads\": 2", "\"heads\": 3")).contains("heads"));
    let error = edit(CONFIG, &replace("\"layers\": 1,", "\"layers\": 2,"));
    assert!(error.contains("tensor encoder.layers.1.norm_feed_forward1.weight is missing"), "{error}");
    let error = edit(CONFIG, &replace("\"joint_width\": 7", "\"joint_width\": 8"));
    assert!(error.contains("tensor joint.enc.weight: expected shape [8, 8], found [7, 8]"), "{error}");
    assert!(edit(TOKENS, &|text| text + "more\n").contains("expected 5 pieces, one a line, found 6"));
    let place = converted();
    let weights = fs::OpenOptions::new().write(true).open(place.out().join(WEIGHTS)).unwrap();
    weights.set_len(weights.metadata().unwrap().len() - 1).unwrap();
    assert!(load_error(&place.out()).contains("model.safetensors: truncated"));
}
