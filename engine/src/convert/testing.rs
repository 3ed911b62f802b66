// SPDX-License-Identifier: MPL-2.0
//! Tiny checkpoints for tests, sound or damaged at will.

use std::collections::BTreeMap;
use std::io::{Cursor, Write};
use std::path::Path;

use prost::Message;
use tar::{Builder, EntryType, Header};
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

use super::nemo::{ElementType, ModelProto, SentencePiece, Storage, StoredTensor};
use crate::model::tensors::expected;

/// Configuration of a TDT model of one layer.
pub const YAML: &str = r#"
target: nemo.collections.asr.models.rnnt_bpe_models.EncDecRNNTBPEModel
sample_rate: 16000
model_defaults: {pred_hidden: 6, tdt_durations: [0, 1, 2]}
tokenizer: {dir: /elsewhere, type: bpe, model_path: "nemo:abc_tokenizer.model"}
preprocessor:
  _target_: nemo.collections.asr.modules.AudioToMelSpectrogramPreprocessor
  sample_rate: 16000
  normalize: NA
  window_size: 0.025
  window_stride: 0.01
  window: hann
  features: 16
  n_fft: 512
  dither: 1.0e-05
encoder:
  _target_: nemo.collections.asr.modules.ConformerEncoder
  feat_in: 16
  feat_out: -1
  n_layers: 1
  d_model: 8
  use_bias: false
  subsampling: dw_striding
  subsampling_factor: 8
  subsampling_conv_channels: 4
  causal_downsampling: true
  ff_expansion_factor: 4
  self_attention_model: rel_pos
  n_heads: 2
  att_context_size:
  - [4, 1]
  - [4, 0]
  att_context_style: chunked_limited
  xscaling: false
  untie_biases: true
  conv_kernel_size: 3
  conv_norm_type: batch_norm
  conv_context_size: causal
decoder:
  _target_: nemo.collections.asr.modules.RNNTDecoder
  normalization_mode: null
  blank_as_pad: true
  prednet: {pred_hidden: "${model_defaults.pred_hidden}", pred_rnn_layers: 1}
  vocab_size: 5
joint:
  _target_: nemo.collections.asr.modules.RNNTJoint
  jointnet: {joint_hidden: 7, activation: relu, dropout: 0.1, encoder_hidden: 8, pred_hidden: 6}
  num_extra_outputs: 3
  num_classes: 5
decoding: {strategy: greedy_batch, model_type: tdt, durations: [0, 1, 2], greedy: {max_symbols: null}}
loss: {loss_name: tdt, tdt_kwargs: {durations: [0, 1, 2]}}
"#;

/// A tensor and the bytes of the storage that it alone uses.
#[derive(Clone)]
pub struct TestTensor {
    pub tensor: StoredTensor,
    pub bytes: Vec<u8>,
}

impl TestTensor {
    /// Contiguous single-precision elements.
    pub fn new(shape: &[usize], values: &[f32]) -> Self {
        let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        Self::with_bytes(shape, ElementType::F32, bytes)
    }

    /// Contiguous elements of any type.
    pub fn with_bytes(shape: &[usize], element: ElementType, bytes: Vec<u8>) -> Self {
        let storage = Storage { element, key: "0".into(), elements: bytes.len() / element.size() };
        let mut strides = vec![1; shape.len()];
        for axis in (1..shape.len()).rev() {
            strides[axis - 1] = strides[axis] * shape[axis];
        }
        Self { tensor: StoredTensor { storage, offset: 0, shape: shape.to_vec(), strides }, bytes }
    }
}

/// Everything in a `.nemo` file, to be spoiled before it is written.
pub struct TestNemo {
    pub yaml: String,
    pub pieces: Vec<SentencePiece>,
    pub tensors: BTreeMap<String, TestTensor>,
}

impl TestNemo {
    /// A sound checkpoint of [`YAML`]; every value is exact in half precision.
    pub fn new() -> Self {
        let config = super::nemo::read_config(YAML, "tiny").unwrap().model;
        let mut tensors = BTreeMap::new();
        for (number, spec) in expected(&config).into_iter().enumerate() {
            let values: Vec<f32> =
                (0..spec.elements()).map(|i| ((i * 7 + number * 13) % 101) as f32 / 64.0 - 0.5).collect();
            tensors.insert(spec.name, TestTensor::new(&spec.shape, &values));
        }
        tensors.insert("preprocessor.featurizer.window".into(), TestTensor::new(&[1], &[1.0]));
        let counter = TestTensor::with_bytes(&[], ElementType::I64, vec![0; 8]);
        tensors.insert("encoder.layers.0.conv.batch_norm.num_batches_tracked".into(), counter);
        let piece = |piece: &str, kind| SentencePiece { piece: piece.into(), kind };
        let pieces = vec![
            piece("<unk>", Some(2)),
            piece("\u{2581}a", None),
            piece("b", Some(1)),
            piece("<0x41>", Some(6)),
            piece(".", None),
        ];
        Self { yaml: YAML.into(), pieces, tensors }
    }

    /// Replaces a part of the configuration that must be there.
    pub fn with_yaml(mut self, from: &str, to: &str) -> Self {
        assert!(self.yaml.contains(from), "{from}");
        self.yaml = self.yaml.replace(from, to);
        self
    }

    pub fn checkpoint(&self) -> Vec<u8> {
        checkpoint(&self.tensors, CompressionMethod::Stored)
    }

    pub fn members(&self) -> Vec<(String, Vec<u8>)> {
        vec![
            ("./model_config.yaml".into(), self.yaml.clone().into_bytes()),
            ("./abc_tokenizer.model".into(), ModelProto { pieces: self.pieces.clone() }.encode_to_vec()),
            ("./model_weights.ckpt".into(), self.checkpoint()),
        ]
    }

    pub fn write(&self, path: &Path) {
        std::fs::write(path, tar(&self.members())).unwrap();
    }
}

/// A tar archive of regular files.
pub fn tar(members: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut builder = Builder::new(Vec::new());
    for (name, data) in members {
        builder.append(&header(name, EntryType::Regular, data.len() as u64), &**data).unwrap();
    }
    builder.into_inner().unwrap()
}

/// A header with this name as it is, however unsafe.
pub fn header(name: &str, kind: EntryType, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
    header.set_entry_type(kind);
    header.set_size(size);
    header.set_mode(0o644);
    header.set_cksum();
    header
}

/// What `torch.save` writes.
pub fn checkpoint(tensors: &BTreeMap<String, TestTensor>, method: CompressionMethod) -> Vec<u8> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    let options = SimpleFileOptions::default().compression_method(method);
    let mut entry = |name: String, data: &[u8]| {
        zip.start_file(name, options).unwrap();
        zip.write_all(data).unwrap();
    };
    entry("model_weights/data.pkl".into(), &pickle(tensors));
    entry("model_weights/byteorder".into(), b"little");
    for (key, tensor) in tensors.values().enumerate() {
        entry(format!("model_weights/data/{key}"), &tensor.bytes);
    }
    zip.finish().unwrap().into_inner()
}

/// A pickled ordered dictionary of tensors, storages numbered in order.
pub fn pickle(tensors: &BTreeMap<String, TestTensor>) -> Vec<u8> {
    let mut out = b"\x80\x02ccollections\nOrderedDict\nq\x00)Rq\x01(".to_vec();
    for (key, (name, TestTensor { tensor, .. })) in tensors.iter().enumerate() {
        let class = match tensor.storage.element {
            ElementType::F64 => "DoubleStorage",
            ElementType::F32 => "FloatStorage",
            ElementType::F16 => "HalfStorage",
            ElementType::Bf16 => "BFloat16Storage",
            ElementType::I64 => "LongStorage",
        };
        text(&mut out, name);
        out.extend_from_slice(b"ctorch._utils\n_rebuild_tensor_v2\n((");
        text(&mut out, "storage");
        out.extend_from_slice(format!("ctorch\n{class}\n").as_bytes());
        text(&mut out, &key.to_string());
        text(&mut out, "cpu");
        int(&mut out, tensor.storage.elements);
        out.extend_from_slice(b"tQ");
        int(&mut out, tensor.offset);
        for sizes in [&tensor.shape, &tensor.strides] {
            out.push(b'(');
            sizes.iter().for_each(|&size| int(&mut out, size));
            out.push(b't');
        }
        out.extend_from_slice(b"\x89h\x00)RtR");
    }
    out.extend_from_slice(b"u}");
    text(&mut out, "_metadata");
    out.extend_from_slice(b"h\x00)Rsb.");
    out
}

/// BINUNICODE.
pub fn text(out: &mut Vec<u8>, text: &str) {
    out.push(b'X');
    out.extend_from_slice(&(text.len() as u32).to_le_bytes());
    out.extend_from_slice(text.as_bytes());
}

/// LONG1 of eight bytes.
pub fn int(out: &mut Vec<u8>, value: usize) {
    out.extend_from_slice(b"\x8a\x08");
    out.extend_from_slice(&(value as u64).to_le_bytes());
}
