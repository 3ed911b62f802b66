// SPDX-License-Identifier: MPL-2.0
//! The kernels of `engine/kernels`, compiled for a model's sizes and the card at hand, and kept on disk.

use std::path::PathBuf;
use std::sync::Arc;
use std::thread;

use sha2::{Digest, Sha256};

use super::device::{Device, Kernel};
use super::library::Nvrtc;
use super::skinny::SkinnyKernels;
use crate::backend::cuda::failed;
use crate::backend::cuda::sizes::{
    DECLARATIONS, DECODE_THREADS, HISTORY_THREADS, MEL_THREADS, NORM_ROWS, NORMALIZE_THREADS,
    POSITION_THREADS, PROMPT_THREADS, QUANTISE_THREADS, SILU_THREADS, SIMPLE_THREADS, Shape, WINDOW_THREADS,
};
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
    pub fn load(device: &Arc<Device>, shape: &Shape) -> Result<Self> {
        let (major, minor) = device.capability;
        let mut options = vec![format!("--gpu-architecture=sm_{major}{minor}"), "--std=c++17".to_owned()];
        options.extend(shape.macros());
        let code: Vec<Result<Vec<u8>>> = thread::scope(|scope| {
            let options = &options;
            let compile = |(name, source)| scope.spawn(move || code(name, source, options, false));
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
                .module(&code?)
                .or_else(|_| device.module(&self::code(name, source, &options, true)?))?;
            modules.push(Arc::new(module));
        }
        let [features, subsampling, layers, attention, decode, skinny] =
            <[_; 6]>::try_from(modules).map_err(|_| failed("a kernel is missing".into()))?;
        Ok(Self {
            mel_frames: features.kernel("mel_frames", MEL_THREADS, 0)?,
            mel_history: features.kernel("mel_history", HISTORY_THREADS, 0)?,
            mel_normalize: features.kernel("mel_normalize", NORMALIZE_THREADS, 0)?,
            subsample_first: subsampling.kernel("subsample_first", shape.subsample_first_threads(), 0)?,
            subsample_second: subsampling.kernel("subsample_second", shape.subsample_second_threads(), 0)?,
            layer_norm: layers.kernel("layer_norm", 32 * NORM_ROWS, 0)?,
            layer_norm_twice: layers.kernel("layer_norm_twice", 32 * NORM_ROWS, 0)?,
            silu: layers.kernel("silu", SILU_THREADS, 0)?,
            quantise_rows: shape
                .product8
                .then(|| layers.kernel("quantise_rows", QUANTISE_THREADS, 0))
                .transpose()?,
            convolution: layers.kernel("convolution", shape.convolution_threads(), 0)?,
            convolution_early: layers.early_kernel("convolution_early", shape.convolution_threads(), 0)?,
            prompt: layers.kernel("prompt", PROMPT_THREADS, 0)?,
            position_table: layers.kernel("position_table", POSITION_THREADS, 0)?,
            attention_simple: attention.kernel(
                "attention_simple",
                SIMPLE_THREADS,
                shape.simple_attention_memory(),
            )?,
            attention_ring: shape
                .ring_warps(device.shared_memory)
                .map(|warps| {
                    attention.kernel("attention_ring", 32 * warps, shape.ring_attention_memory(warps))
                })
                .transpose()?,
            attention_window: shape
                .tensor_cores()
                .then(|| {
                    attention.kernel("attention_window", WINDOW_THREADS, shape.window_attention_memory())
                })
                .transpose()?,
            decode_begin: decode.kernel("decode_begin", DECODE_THREADS, 0)?,
            rank: decode.kernel("rank", DECODE_THREADS, 0)?,
            decide: decode.kernel("decide", DECODE_THREADS, 0)?,
            lstm_cell: decode.kernel("lstm_cell", DECODE_THREADS, 0)?,
            look: decode.kernel("look", DECODE_THREADS, 0)?,
            decode_end: decode.kernel("decode_end", DECODE_THREADS, 0)?,
            keep_start: decode.kernel("keep_start", DECODE_THREADS, 0)?,
            skinny: shape
                .skinny_on(device.shared_memory)
                .then(|| SkinnyKernels::new(&skinny, shape))
                .transpose()?,
        })
    }
}

/// A file's source with what stands ahead of it.
fn whole(name: &str, source: &str) -> String {
    format!("{DECLARATIONS}#line 1 \"common.cuh\"\n{COMMON}\n#line 1 \"{name}\"\n{source}")
}

/// Machine code of one file, from disk if it was compiled before and isn't wanted `anew`.
fn code(name: &str, source: &str, options: &[String], anew: bool) -> Result<Vec<u8>> {
    let compiler = Nvrtc::get()?;
    let source = whole(name, source);
    let place = place(name, &source, options, compiler.version());
    if let Some(place) = place.as_ref().filter(|_| !anew)
        && let Ok(code) = std::fs::read(place)
    {
        return Ok(code);
    }
    let code = compiler.compile(&source, name, options)?;
    if let Some(place) = place {
        // A cache that can't be written costs a second at the next start, no more.
        let _ = keep(&place, &code);
    }
    Ok(code)
}

/// Where the code is kept, named by all that it depends on.
fn place(name: &str, source: &str, options: &[String], version: (i32, i32)) -> Option<PathBuf> {
    let mut hash = Sha256::new();
    for part in [source, &format!("{version:?}")].into_iter().chain(options.iter().map(String::as_str)) {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    let digest: String = hash.finalize().iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    Some(
        dirs::cache_dir()?.join("gst-plugin-parakeet").join("kernels").join(format!("{name}-{digest}.cubin")),
    )
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
mod tests {
    use super::*;
    use crate::backend::{CachePrecision, EngineOptions, Precision};
    use crate::convert::{Like, SynthOptions, synthetic_config};

    #[test]
    #[ignore = "needs NVRTC"]
    fn every_published_shape_compiles() {
        let mut compiled = 0;
        for like in Like::ALL {
            let model = SynthOptions { like, vocabulary: None, layers: None, seed: 0 };
            let config = synthetic_config(&model).expect("a configuration");
            for (precision, cache) in [
                (Precision::F16, CachePrecision::Full),
                (Precision::F16, CachePrecision::Int8),
                (Precision::Bf16, CachePrecision::Full),
                (Precision::F32, CachePrecision::Full),
                (Precision::F8, CachePrecision::Full),
                (Precision::F8, CachePrecision::Int8),
            ] {
                let options = EngineOptions { precision, cache, ..Default::default() };
                let shape = Shape::new(&config, &options).expect("a shape");
                // 8-bit floating point came with sm_89.
                let cards: &[&str] = if shape.product8 { &["sm_90"] } else { &["sm_80", "sm_90"] };
                for card in cards {
                    let mut options = vec![format!("--gpu-architecture={card}"), "--std=c++17".to_owned()];
                    options.extend(shape.macros());
                    for (name, source) in SOURCES {
                        let source = whole(name, source);
                        let code = Nvrtc::get().and_then(|nvrtc| nvrtc.compile(&source, name, &options));
                        if let Err(e) = code {
                            panic!("{like} {precision} {cache} {card}: {e}");
                        }
                        compiled += 1;
                    }
                }
            }
        }
        println!("{compiled} compiled");
    }
}
