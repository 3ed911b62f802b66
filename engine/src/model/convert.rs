// SPDX-License-Identifier: MPL-2.0
//! A `.nemo` checkpoint to a model directory, tensor by tensor.

use std::fs::{self, File};
use std::io::{BufWriter, Read, Seek, Write};
use std::path::{Path, PathBuf};

use half::f16;
use half::slice::HalfFloatSliceExt;
use safetensors::tensor::{Dtype, Metadata, TensorInfo};
use tempfile::TempDir;

use super::checkpoint::Checkpoint;
use super::config::ModelConfig;
use super::nemo::NemoFile;
use super::nemo_config::{self, NemoConfig};
use super::tensors::{JOINT_OUTPUT, TensorSpec, expected};
use super::{CONFIG, TOKENS, WEIGHTS};
use crate::{Error, Result};

/// Type that matrices and convolutions are written in. Norms and biases are always `F32`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WeightType {
    /// IEEE half precision.
    #[default]
    F16,
    /// IEEE single precision.
    F32,
}

/// How to convert.
#[derive(Clone, Debug, Default)]
pub struct ConvertOptions {
    /// Type of the weights.
    pub dtype: WeightType,
    /// Name of the model; the name of the `.nemo` file without extension if `None`.
    pub name: Option<String>,
}

/// Converts the checkpoint `nemo` to the model directory `out` and returns its configuration.
///
/// `progress` gets bytes written and bytes in all. `out` may be absent, empty or a model directory, whose three files
/// are then replaced; they are written in full in a directory beside it first. One tensor is in memory at a time.
pub fn convert(
    nemo: &Path,
    out: &Path,
    options: &ConvertOptions,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<ModelConfig> {
    fs::metadata(nemo).map_err(|e| Error::io(nemo, e))?;
    let staging = Staging::new(out)?;
    let archive = NemoFile::open(nemo, &staging.dir())?;
    let name = match &options.name {
        Some(name) => name.clone(),
        None => nemo.file_stem().unwrap_or_default().to_string_lossy().into_owned(),
    };
    let unsupported = |reason| Error::Unsupported(format!("{}: {reason}", nemo.display()));
    let NemoConfig { model: config, tokenizer } =
        nemo_config::read(&archive.config()?, &name).map_err(unsupported)?;
    let vocabulary = archive.vocabulary(&tokenizer)?;
    if vocabulary.len() != config.decoder.vocabulary {
        let reason =
            format!("{tokenizer} has {} pieces, expected {}", vocabulary.len(), config.decoder.vocabulary);
        return Err(Error::model(nemo, reason));
    }
    let mut checkpoint = Checkpoint::open(archive.weights()?, nemo)?;
    let plan = plan(&checkpoint, &config, options.dtype, nemo)?;
    write_weights(&mut checkpoint, &plan, &staging.dir().join(WEIGHTS), progress)?;
    vocabulary.write(&staging.dir().join(TOKENS))?;
    config.write(&staging.dir().join(CONFIG))?;
    staging.publish()?;
    Ok(config)
}

/// A tensor to write: what the engine calls it, what the checkpoint calls it, and its type.
struct Planned {
    spec: TensorSpec,
    source: String,
    dtype: Dtype,
}

/// Checks that the checkpoint has exactly the tensors that `config` implies, and puts them in the order of the file.
fn plan<R: Read + Seek>(
    checkpoint: &Checkpoint<R>,
    config: &ModelConfig,
    dtype: WeightType,
    nemo: &Path,
) -> Result<Vec<Planned>> {
    let tensors = checkpoint.tensors();
    let mut unused: Vec<&str> =
        tensors.keys().map(String::as_str).filter(|name| !is_left_out(name)).collect();
    let mut plan = Vec::new();
    for spec in expected(config) {
        let source = source_name(&spec.name, |name| tensors.contains_key(name));
        let found =
            tensors.get(&source).ok_or_else(|| Error::model(nemo, format!("tensor {source} is missing")))?;
        if found.shape != spec.shape {
            let reason = format!("tensor {source}: expected shape {:?}, found {:?}", spec.shape, found.shape);
            return Err(Error::model(nemo, reason));
        }
        unused.retain(|name| *name != source);
        let half = dtype == WeightType::F16 && !spec.full_precision;
        plan.push(Planned { spec, source, dtype: if half { Dtype::F16 } else { Dtype::F32 } });
    }
    if let Some(name) = unused.first() {
        let reason = format!("{}: has a tensor {name:?}, which this version can't use", nemo.display());
        return Err(Error::Unsupported(reason));
    }
    // The wider type first keeps every tensor aligned.
    plan.sort_by_key(|planned| planned.dtype == Dtype::F16);
    Ok(plan)
}

/// Tensors of a checkpoint that recognition doesn't use: front-end tables, counters of training, CTC heads.
fn is_left_out(name: &str) -> bool {
    let modules =
        ["preprocessor.", "spec_augmentation.", "ctc_decoder.", "ctc_loss.", "loss.", "wer.", "ctc_wer."];
    modules.iter().any(|module| name.starts_with(module))
        || name.ends_with(".num_batches_tracked")
        || name == "encoder.pos_enc.pe"
}

/// The checkpoint's name of a tensor: the joint's output layer is a place earlier where the joint has no dropout.
fn source_name(name: &str, has: impl Fn(&str) -> bool) -> String {
    match name.strip_prefix(JOINT_OUTPUT) {
        Some(rest) if !has(name) => format!("joint.joint_net.1{rest}"),
        _ => name.to_owned(),
    }
}

fn write_weights<R: Read + Seek>(
    checkpoint: &mut Checkpoint<R>,
    plan: &[Planned],
    path: &Path,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<()> {
    let mut end = 0;
    let infos = plan.iter().map(|Planned { spec, dtype, .. }| {
        let start = end;
        end += spec.elements() * dtype.bitsize() / 8;
        let info = TensorInfo { dtype: *dtype, shape: spec.shape.clone(), data_offsets: (start, end) };
        (spec.name.clone(), info)
    });
    let infos = infos.collect();
    let metadata = Metadata::new(None, infos).map_err(|e| Error::model(path, e.to_string()))?;
    let mut header = serde_json::to_vec(&metadata).map_err(|e| Error::model(path, e.to_string()))?;
    header.resize(header.len().next_multiple_of(8), b' ');

    let io_error = |e| Error::io(path, e);
    let mut file = BufWriter::with_capacity(1 << 20, File::create_new(path).map_err(io_error)?);
    file.write_all(&(header.len() as u64).to_le_bytes()).map_err(io_error)?;
    file.write_all(&header).map_err(io_error)?;
    let total = end as u64;
    let mut done = 0;
    progress(done, total);
    for planned in plan {
        let values = checkpoint.read(&planned.source)?;
        let bytes = encode(&values, planned.dtype)
            .map_err(|reason| Error::Unsupported(format!("tensor {}: {reason}", planned.spec.name)))?;
        file.write_all(&bytes).map_err(io_error)?;
        done += bytes.len() as u64;
        progress(done, total);
    }
    let file = file.into_inner().map_err(|e| io_error(e.into_error()))?;
    file.sync_all().map_err(io_error)
}

/// The little endian bytes of finite values.
fn encode(values: &[f32], dtype: Dtype) -> Result<Vec<u8>, String> {
    if let Some(value) = values.iter().find(|value| !value.is_finite()) {
        return Err(format!("holds {value}"));
    }
    if dtype != Dtype::F16 {
        return Ok(values.iter().flat_map(|value| value.to_le_bytes()).collect());
    }
    let mut halves = vec![f16::ZERO; values.len()];
    halves.convert_from_f32_slice(values);
    if let Some(index) = halves.iter().position(|half| half.is_infinite()) {
        return Err(format!("{} is beyond 16-bit floats: convert with 32-bit weights", values[index]));
    }
    Ok(halves.iter().flat_map(|half| half.to_le_bytes()).collect())
}

/// A directory beside the one that is being made, gone again if conversion fails.
struct Staging {
    out: PathBuf,
    temporary: TempDir,
}

impl Staging {
    fn new(out: &Path) -> Result<Self> {
        if out.exists() && !is_replaceable(out)? {
            let reason = "already exists and is not a model directory: choose another or remove it";
            return Err(Error::model(out, reason));
        }
        let parent = match out.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            Some(_) => Path::new("."),
            None => return Err(Error::model(out, "not a place for a model directory")),
        };
        fs::create_dir_all(parent).map_err(|e| Error::io(parent, e))?;
        let temporary = tempfile::Builder::new()
            .prefix(".parakeet-")
            .suffix(".part")
            .tempdir_in(parent)
            .map_err(|e| Error::io(parent, e))?;
        // The model's files go into a directory of their own, with the permissions that directories have here.
        let staging = Self { out: out.to_owned(), temporary };
        fs::create_dir(staging.dir()).map_err(|e| Error::io(&staging.dir(), e))?;
        Ok(staging)
    }

    fn dir(&self) -> PathBuf {
        self.temporary.path().join("model")
    }

    fn publish(self) -> Result<()> {
        let out = &self.out;
        if !out.exists() {
            return fs::rename(self.dir(), out).map_err(|e| Error::io(out, e));
        }
        // Other files, such as a model's card, stay. Without a config.json the directory doesn't load, so no moment of
        // the exchange can be taken for a model.
        let config = out.join(CONFIG);
        if config.exists() {
            fs::remove_file(&config).map_err(|e| Error::io(&config, e))?;
        }
        for name in [WEIGHTS, TOKENS, CONFIG] {
            let target = out.join(name);
            fs::rename(self.dir().join(name), &target).map_err(|e| Error::io(&target, e))?;
        }
        Ok(())
    }
}

/// Whether a directory is a model's, or holds nothing but files that a conversion writes.
fn is_replaceable(out: &Path) -> Result<bool> {
    if !out.is_dir() {
        return Ok(false);
    }
    let of_this_format = |text: Vec<u8>| {
        let config: Option<serde_json::Value> = serde_json::from_slice(&text).ok();
        let has = |key: &str| config.as_ref().is_some_and(|config| config.get(key).is_some());
        ["format", "features", "encoder", "decoder"].into_iter().all(has)
    };
    if fs::read(out.join(CONFIG)).is_ok_and(of_this_format)
        && out.join(WEIGHTS).exists()
        && out.join(TOKENS).exists()
    {
        return Ok(true);
    }
    for entry in fs::read_dir(out).map_err(|e| Error::io(out, e))? {
        let name = entry.map_err(|e| Error::io(out, e))?.file_name();
        if ![CONFIG, WEIGHTS, TOKENS].iter().any(|ours| name == *ours) || out.join(CONFIG).exists() {
            return Ok(false);
        }
    }
    Ok(true)
}
