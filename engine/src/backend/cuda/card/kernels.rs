// SPDX-License-Identifier: MPL-2.0
//! The kernels of `engine/kernels`, compiled for a model's sizes and the card at hand, and kept on disk.

use std::path::PathBuf;
use std::sync::Arc;
use std::thread;

use sha2::{Digest, Sha256};

use super::device::{Device, Kernel, Module};
use super::library::Nvrtc;
use super::skinny::SkinnyKernels;
use super::target::Target;
use crate::backend::cuda::failed;
use crate::backend::cuda::sizes::{DECLARATIONS, Shape};
use crate::error::Result;

const COMMON: &str = include_str!("../../../../kernels/common.cuh");

/// Each is compiled by itself, side by side with the others.
const SOURCES: [(&str, &str); 6] = [
    ("features.cu", include_str!("../../../../kernels/features.cu")),
    ("subsampling.cu", include_str!("../../../../kernels/subsampling.cu")),
    ("layers.cu", include_str!("../../../../kernels/layers.cu")),
    (
        "attention.cu",
        concat!(
            include_str!("../../../../kernels/attention.cu"),
            include_str!("../../../../kernels/attention_ring.cu"),
            include_str!("../../../../kernels/attention_window.cu"),
        ),
    ),
    ("decode.cu", include_str!("../../../../kernels/decode.cu")),
    ("skinny.cu", include_str!("../../../../kernels/skinny.cu")),
];

/// Everything that is launched, named as in the sources.
pub struct Kernels {
    pub mel_frames: Kernel,
    pub mel_history: Kernel,
    pub mel_normalize: Kernel,
    pub subsample_first: Kernel,
    pub subsample_second: Kernel,
    pub layer_norm: Kernel,
    pub layer_norm_twice: Kernel,
    pub silu: Kernel,
    /// Where products are in 8 bits.
    pub quantise_rows: Option<Kernel>,
    pub convolution: Kernel,
    /// The same for few rows, in a row of kernels that start early.
    pub convolution_early: Kernel,
    pub prompt: Kernel,
    pub position_table: Kernel,
    pub attention_simple: Kernel,
    /// Where the model's sizes suit tensor cores.
    pub attention_ring: Option<Kernel>,
    /// As `attention_ring`.
    pub attention_window: Option<Kernel>,
    pub decode_begin: Kernel,
    pub rank: Kernel,
    pub decide: Kernel,
    pub lstm_cell: Kernel,
    pub look: Kernel,
    pub decode_end: Kernel,
    pub keep_start: Kernel,
    /// Where the model's sizes suit them.
    pub skinny: Option<SkinnyKernels>,
}

impl Kernels {
    /// Compiles what isn't on disk yet. Fails without NVRTC or where the card refuses the code.
    pub fn load(device: &Arc<Device>, shape: &Shape, target: Target) -> Result<Self> {
        let options = options(shape);
        let code: Vec<Result<Vec<u8>>> = thread::scope(|scope| {
            let options = &options;
            let compile = |(name, source)| scope.spawn(move || code(name, source, target, options, false));
            let compiling: Vec<_> = SOURCES.into_iter().map(compile).collect();
            let end = |work: thread::ScopedJoinHandle<'_, Result<Vec<u8>>>| {
                work.join().unwrap_or_else(|_| Err(failed("the compiler's thread panicked".into())))
            };
            compiling.into_iter().map(end).collect()
        });
        let mut modules = Vec::new();
        for ((name, source), code) in SOURCES.into_iter().zip(code) {
            // What is on disk may be damaged.
            let module = device
                .module(&code?, target)
                .or_else(|_| device.module(&self::code(name, source, target, &options, true)?, target))?;
            modules.push(Arc::new(module));
        }
        let [features, subsampling, layers, attention, decode, skinny] =
            <[_; 6]>::try_from(modules).map_err(|_| failed("a kernel is missing".into()))?;
        let some = |module: &Arc<Module>, name: &str| {
            shape.block(name).map(|block| module.kernel(name, block)).transpose()
        };
        let kernel = |module: &Arc<Module>, name: &str| {
            some(module, name)?.ok_or_else(|| failed(format!("{name} has no block to run in")))
        };
        Ok(Self {
            mel_frames: kernel(&features, "mel_frames")?,
            mel_history: kernel(&features, "mel_history")?,
            mel_normalize: kernel(&features, "mel_normalize")?,
            subsample_first: kernel(&subsampling, "subsample_first")?,
            subsample_second: kernel(&subsampling, "subsample_second")?,
            layer_norm: kernel(&layers, "layer_norm")?,
            layer_norm_twice: kernel(&layers, "layer_norm_twice")?,
            silu: kernel(&layers, "silu")?,
            quantise_rows: some(&layers, "quantise_rows")?,
            convolution: kernel(&layers, "convolution")?,
            convolution_early: kernel(&layers, "convolution_early")?.early()?,
            prompt: kernel(&layers, "prompt")?,
            position_table: kernel(&layers, "position_table")?,
            attention_simple: kernel(&attention, "attention_simple")?,
            attention_ring: some(&attention, "attention_ring")?,
            attention_window: some(&attention, "attention_window")?,
            decode_begin: kernel(&decode, "decode_begin")?,
            rank: kernel(&decode, "rank")?,
            decide: kernel(&decode, "decide")?,
            lstm_cell: kernel(&decode, "lstm_cell")?,
            look: kernel(&decode, "look")?,
            decode_end: kernel(&decode, "decode_end")?,
            keep_start: kernel(&decode, "keep_start")?,
            skinny: shape.skinny_rows().map(|rows| SkinnyKernels::new(&skinny, shape, rows)).transpose()?,
        })
    }
}

/// What the compiler is told beside the card.
fn options(shape: &Shape) -> Vec<String> {
    let mut options = vec!["--std=c++17".to_owned()];
    options.extend(shape.macros());
    options
}

/// A file's source with what stands ahead of it.
fn whole(name: &str, source: &str) -> String {
    format!("{DECLARATIONS}#line 1 \"common.cuh\"\n{COMMON}\n#line 1 \"{name}\"\n{source}")
}

/// What is made of one file, from disk if it was compiled before and isn't wanted `anew`.
fn code(name: &str, source: &str, target: Target, options: &[String], anew: bool) -> Result<Vec<u8>> {
    let compiler = Nvrtc::get()?;
    let source = whole(name, source);
    let place = place(name, &source, target, options, compiler.version());
    if let Some(place) = place.as_ref().filter(|_| !anew)
        && let Ok(code) = std::fs::read(place)
        // The driver reads PTX up to its zero byte.
        && (matches!(target, Target::Code(_)) || code.ends_with(&[0]))
    {
        return Ok(code);
    }
    let code = compiler.compile(&source, name, target, options)?;
    if let Some(place) = place {
        // A cache that can't be written costs a second at the next start, no more.
        let _ = keep(&place, &code);
    }
    Ok(code)
}

/// Where the code is kept, named by all that it depends on.
fn place(
    name: &str,
    source: &str,
    target: Target,
    options: &[String],
    version: (i32, i32),
) -> Option<PathBuf> {
    let mut hash = Sha256::new();
    let own = [source, &format!("{version:?}"), &target.option()];
    for part in own.into_iter().chain(options.iter().map(String::as_str)) {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    let digest: String = hash.finalize().iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    let file = format!("{name}-{digest}.{}", target.ending());
    Some(dirs::cache_dir()?.join("gst-plugin-parakeet").join("kernels").join(file))
}

/// Writes beside the place and renames, so that nobody reads half a file.
fn keep(place: &std::path::Path, code: &[u8]) -> std::io::Result<()> {
    let dir = place.parent().unwrap_or(place);
    std::fs::create_dir_all(dir)?;
    let mut file = tempfile::NamedTempFile::new_in(dir)?;
    std::io::Write::write_all(&mut file, code)?;
    file.persist(place).map(|_| ()).map_err(|e| e.error)
}

#[cfg(test)]
mod tests;
