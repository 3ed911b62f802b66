// SPDX-License-Identifier: MPL-2.0
//! Writes the model directory of an open checkpoint, tensor by tensor.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use half::f16;
use half::slice::HalfFloatSliceExt;
use safetensors::tensor::{Dtype, Metadata, TensorInfo};

use super::source::{Source, TensorSource};
use super::staging::Staging;
use crate::model::config::MOST_DELAY_MS;
use crate::model::tensors::{JOINT_OUTPUT, TensorSpec, expected};
use crate::model::{CONFIG, ModelConfig, TOKENS, WEIGHTS};
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
    /// Name of the model; that of the checkpoint, without `.nemo`, if `None`.
    pub name: Option<String>,
    /// How long after a word begins the model emits it, in milliseconds, which no checkpoint says; 0 if `None`.
    pub emission_delay_ms: Option<u32>,
    /// Languages that it hears, as ISO 639 codes, which no checkpoint says but for those that are told which.
    pub languages: Vec<String>,
    /// Set by another thread to make conversion fail at the next tensor and leave nothing behind.
    pub cancel: Arc<AtomicBool>,
}

/// Writes the model directory `out` of what `open`, given a place to unpack things, finds.
pub fn write(
    out: &Path,
    options: &ConvertOptions,
    progress: &mut dyn FnMut(u64, u64),
    open: &dyn Fn(&Path) -> Result<Source>,
) -> Result<ModelConfig> {
    let staging = Staging::new(out)?;
    let Source { path, mut config, vocabulary, mut tensors } = open(&staging.dir())?;
    config.emission_delay_ms = options.emission_delay_ms.unwrap_or(0);
    if config.emission_delay_ms > MOST_DELAY_MS {
        let reason = format!("{} ms is more than {MOST_DELAY_MS} ms", config.emission_delay_ms);
        return Err(Error::Option { option: "emission-delay", reason });
    }
    config.languages.clone_from(&options.languages);
    config.validate().map_err(|reason| Error::Option { option: "language", reason })?;
    let plan = plan(&*tensors, &config, options.dtype, &path)?;
    write_weights(&mut *tensors, &plan, &staging.dir().join(WEIGHTS), &mut |done, total| {
        progress(done, total);
        if options.cancel.load(Ordering::Relaxed) {
            return Err(Error::model(out, "interrupted, nothing is left of it"));
        }
        Ok(())
    })?;
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
fn plan(
    tensors: &dyn TensorSource,
    config: &ModelConfig,
    dtype: WeightType,
    checkpoint: &Path,
) -> Result<Vec<Planned>> {
    let mut left = tensors.list();
    left.retain(|name, _| !is_left_out(name));
    let mut plan = Vec::new();
    for spec in expected(config) {
        let nemo = nemo_name(&spec.name, |name| left.contains_key(name));
        let Some(found) = left.remove(&nemo) else {
            return Err(Error::model(checkpoint, format!("tensor {nemo} is missing")));
        };
        let source = found.name;
        if found.shape != spec.shape {
            let reason = format!("tensor {source}: expected shape {:?}, found {:?}", spec.shape, found.shape);
            return Err(Error::model(checkpoint, reason));
        }
        let half = dtype == WeightType::F16 && !spec.full_precision;
        plan.push(Planned { spec, source, dtype: if half { Dtype::F16 } else { Dtype::F32 } });
    }
    if let Some(unused) = left.values().next() {
        let reason =
            format!("{}: has a tensor {:?}, which this version can't use", checkpoint.display(), unused.name);
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

/// NeMo's name of a tensor: the joint's output layer is a place earlier where the joint has no dropout.
fn nemo_name(name: &str, has: impl Fn(&str) -> bool) -> String {
    match name.strip_prefix(JOINT_OUTPUT) {
        Some(rest) if !has(name) => format!("joint.joint_net.1{rest}"),
        _ => name.to_owned(),
    }
}

fn write_weights(
    tensors: &mut dyn TensorSource,
    plan: &[Planned],
    path: &Path,
    progress: &mut dyn FnMut(u64, u64) -> Result<()>,
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
    progress(done, total)?;
    for planned in plan {
        let values = tensors.read(&planned.source)?;
        let bytes = encode(&values, planned.dtype)
            .map_err(|reason| Error::Unsupported(format!("tensor {}: {reason}", planned.source)))?;
        file.write_all(&bytes).map_err(io_error)?;
        done += bytes.len() as u64;
        progress(done, total)?;
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
