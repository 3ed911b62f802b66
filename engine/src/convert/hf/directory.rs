// SPDX-License-Identifier: MPL-2.0
//! The files of the directory.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use half::{bf16, f16};
use safetensors::tensor::{Dtype, Metadata, TensorInfo};
use serde::Deserialize;
use serde_json::Value;

use super::{config as settings, tokenizer};
use crate::convert::nemo;
use crate::convert::source::{Listed, Source, TensorSource};
use crate::model::{CONFIG, ModelConfig, Vocabulary, WEIGHTS};
use crate::{Error, Result};

const INDEX: &str = "model.safetensors.index.json";
const TOKENIZER: &str = "tokenizer.json";
const SENTENCEPIECE: &str = "tokenizer.model";

/// Bytes of a JSON file or tokenizer that is read whole; real ones have up to 2 MB.
const SMALL_FILE: u64 = 64 << 20;
/// Bytes of a safetensors header; a model of 42 layers has 0.2 MB.
const HEADER: u64 = 16 << 20;

/// What the directory's model is. `name` is what it will be called.
pub fn config(dir: &Path, name: &str) -> Result<ModelConfig> {
    let path = dir.join(CONFIG);
    let config = json(&path)?;
    // The processor's file was called otherwise, and held the feature extractor alone, before transformers 5.
    let whole = optional(&dir.join("processor_config.json"))?;
    let alone = optional(&dir.join("preprocessor_config.json"))?;
    settings::read(config, whole, alone, name)
        .map_err(|reason| Error::Unsupported(format!("{}: {reason}", path.display())))
}

/// Opens the directory; its tensors get NeMo's names.
pub fn open(dir: &Path, name: &str) -> Result<Source> {
    let config = config(dir, name)?;
    let vocabulary = vocabulary(dir, config.decoder.vocabulary)?;
    let tensors = Box::new(Shards::open(dir)?);
    Ok(Source { path: dir.to_owned(), config, vocabulary, tensors })
}

fn vocabulary(dir: &Path, pieces: usize) -> Result<Vocabulary> {
    let path = dir.join(TOKENIZER);
    if path.exists() {
        let bytes = small(&path)?;
        return tokenizer::read(&bytes, pieces).map_err(|reason| Error::model(&path, reason));
    }
    let other = dir.join(SENTENCEPIECE);
    if !other.exists() {
        let reason = format!("neither {TOKENIZER} nor {SENTENCEPIECE} is there");
        return Err(Error::model(dir, reason));
    }
    nemo::sentencepiece(&small(&other)?).map_err(|reason| Error::model(&other, reason))
}

fn small(path: &Path) -> Result<Vec<u8>> {
    let io_error = |e| Error::io(path, e);
    let file = File::open(path).map_err(io_error)?;
    let mut bytes = Vec::new();
    file.take(SMALL_FILE + 1).read_to_end(&mut bytes).map_err(io_error)?;
    if bytes.len() as u64 > SMALL_FILE {
        return Err(Error::model(path, format!("more than {SMALL_FILE} bytes")));
    }
    Ok(bytes)
}

fn json(path: &Path) -> Result<Value> {
    serde_json::from_slice(&small(path)?).map_err(|e| Error::model(path, format!("not JSON: {e}")))
}

fn optional(path: &Path) -> Result<Option<Value>> {
    if path.exists() { json(path).map(Some) } else { Ok(None) }
}

/// The safetensors files of a directory.
struct Shards {
    files: Vec<Shard>,
    /// File and place of each tensor, by its own name.
    tensors: HashMap<String, (usize, TensorInfo)>,
}

struct Shard {
    path: PathBuf,
    file: File,
    /// Offset of the first tensor's data.
    data: u64,
}

/// `model.safetensors.index.json`.
#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

impl Shards {
    fn open(dir: &Path) -> Result<Self> {
        let single = dir.join(WEIGHTS);
        let mut shards = Self { files: Vec::new(), tensors: HashMap::new() };
        if single.exists() {
            shards.add(single, None)?;
            return Ok(shards);
        }
        let path = dir.join(INDEX);
        if !path.exists() {
            return Err(Error::model(dir, format!("neither {WEIGHTS} nor {INDEX} is there")));
        }
        let index: Index = serde_json::from_slice(&small(&path)?)
            .map_err(|e| Error::model(&path, format!("not a list of tensors and files: {e}")))?;
        let mut names: Vec<&String> = index.weight_map.values().collect();
        names.sort_unstable();
        names.dedup();
        for name in names {
            if name.is_empty() || name.contains(['/', '\\', '\0']) || name == ".." || name == "." {
                return Err(Error::model(&path, format!("file {name:?} points outside the directory")));
            }
            shards.add(dir.join(name), Some(&index.weight_map))?;
        }
        if let Some(name) = index.weight_map.keys().find(|name| !shards.tensors.contains_key(*name)) {
            return Err(Error::model(&path, format!("tensor {name:?} is not in the file it names")));
        }
        Ok(shards)
    }

    fn add(&mut self, path: PathBuf, index: Option<&BTreeMap<String, String>>) -> Result<()> {
        let (file, data, metadata) = open_safetensors(&path)?;
        let file_name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        for name in metadata.offset_keys() {
            let Some(info) = metadata.info(&name) else { continue };
            if index.is_some_and(|index| index.get(&name) != Some(&file_name)) {
                return Err(Error::model(&path, format!("tensor {name:?} is not in {INDEX}")));
            }
            self.tensors.insert(name, (self.files.len(), info.clone()));
        }
        self.files.push(Shard { path, file, data });
        Ok(())
    }
}

/// The file, where its data begins, and what its header says, which fits the file's size.
fn open_safetensors(path: &Path) -> Result<(File, u64, Metadata)> {
    let io_error = |e| Error::io(path, e);
    let fail = |reason: String| Error::model(path, format!("truncated or not a safetensors file: {reason}"));
    let mut file = File::open(path).map_err(io_error)?;
    let total = file.metadata().map_err(io_error)?.len();
    let mut length = [0; 8];
    file.read_exact(&mut length).map_err(|e| fail(e.to_string()))?;
    let length = u64::from_le_bytes(length);
    if length > HEADER || length > total.saturating_sub(8) {
        return Err(fail(format!("its header claims {length} bytes")));
    }
    let mut header = Vec::new();
    (&file).take(length).read_to_end(&mut header).map_err(io_error)?;
    let metadata: Metadata = serde_json::from_slice(&header).map_err(|e| fail(e.to_string()))?;
    let (data, found) = (8 + length, total - 8 - length);
    if metadata.data_len() as u64 != found {
        return Err(fail(format!("its tensors have {} bytes, found {found}", metadata.data_len())));
    }
    Ok((file, data, metadata))
}

impl TensorSource for Shards {
    fn list(&self) -> BTreeMap<String, Listed> {
        let listed = |(name, (_, info)): (&String, &(usize, TensorInfo))| {
            (nemo_name(name), Listed { name: name.clone(), shape: info.shape.clone() })
        };
        self.tensors.iter().map(listed).collect()
    }

    fn read(&mut self, name: &str) -> Result<Vec<f32>> {
        let (shard, info) = match self.tensors.get(name) {
            Some((shard, info)) => (&mut self.files[*shard], info),
            None => return Err(Error::Unsupported(format!("tensor {name} is missing"))),
        };
        let io_error = |e| Error::io(&shard.path, e);
        let (start, end) = info.data_offsets;
        shard.file.seek(SeekFrom::Start(shard.data + start as u64)).map_err(io_error)?;
        // The header was checked against the file's size, so this much is there.
        let mut bytes = vec![0; end - start];
        shard.file.read_exact(&mut bytes).map_err(io_error)?;
        decode(&bytes, info.dtype).ok_or_else(|| {
            let reason =
                format!("tensor {name} is of type {:?}, expected floats of 16 to 64 bits", info.dtype);
            Error::model(&shard.path, reason)
        })
    }
}

/// Numbers in single precision; `None` for types that hold no weights.
fn decode(bytes: &[u8], dtype: Dtype) -> Option<Vec<f32>> {
    fn each<const N: usize>(bytes: &[u8], convert: fn([u8; N]) -> f32) -> Vec<f32> {
        bytes.as_chunks().0.iter().map(|&chunk| convert(chunk)).collect()
    }
    match dtype {
        Dtype::F64 => Some(each(bytes, |b| f64::from_le_bytes(b) as f32)),
        Dtype::F32 => Some(each(bytes, f32::from_le_bytes)),
        Dtype::F16 => Some(each(bytes, |b| f16::from_le_bytes(b).to_f32())),
        Dtype::BF16 => Some(each(bytes, |b| bf16::from_le_bytes(b).to_f32())),
        _ => None,
    }
}

/// NeMo's name of a tensor; the name itself where there is none.
fn nemo_name(name: &str) -> String {
    let prefixes = [
        // The Nemotron encoder names its convolutions, the Parakeet encoder numbers them as NeMo does.
        ("encoder.subsampling.conv_in.", "encoder.pre_encode.conv.0."),
        ("encoder.subsampling.layers.0.depthwise_conv.", "encoder.pre_encode.conv.2."),
        ("encoder.subsampling.layers.0.pointwise_conv.", "encoder.pre_encode.conv.3."),
        ("encoder.subsampling.layers.1.depthwise_conv.", "encoder.pre_encode.conv.5."),
        ("encoder.subsampling.layers.1.pointwise_conv.", "encoder.pre_encode.conv.6."),
        ("encoder.subsampling.layers.", "encoder.pre_encode.conv."),
        ("encoder.subsampling.linear.", "encoder.pre_encode.out."),
        ("encoder_projector.", "joint.enc."),
        ("decoder.embedding.", "decoder.prediction.embed."),
        ("decoder.lstm.", "decoder.prediction.dec_rnn.lstm."),
        ("decoder.decoder_projector.", "joint.pred."),
        ("joint.head.", "joint.joint_net.2."),
        ("prompt_projector.linear_1.", "prompt_kernel.0."),
        ("prompt_projector.linear_2.", "prompt_kernel.2."),
    ];
    if let Some((rest, new)) = prefixes.iter().find_map(|(old, new)| Some((name.strip_prefix(old)?, new))) {
        return format!("{new}{rest}");
    }
    if !name.starts_with("encoder.layers.") {
        return name.to_owned();
    }
    let parts = [
        (".conv.norm.", ".conv.batch_norm."),
        (".self_attn.q_proj.", ".self_attn.linear_q."),
        (".self_attn.k_proj.", ".self_attn.linear_k."),
        (".self_attn.v_proj.", ".self_attn.linear_v."),
        (".self_attn.o_proj.", ".self_attn.linear_out."),
        (".self_attn.relative_k_proj.", ".self_attn.linear_pos."),
        (".self_attn.bias_", ".self_attn.pos_bias_"),
    ];
    let part = parts.iter().find(|(old, _)| name.contains(old));
    part.map_or_else(|| name.to_owned(), |(old, new)| name.replace(old, new))
}
