// SPDX-License-Identifier: MPL-2.0
//! `parakeet info`: what a model is, how it streams and what it needs.

use std::io::Write;
use std::path::PathBuf;

use parakeet_engine::backend::cuda;
use parakeet_engine::convert::{Description, Origin, describe};
use parakeet_engine::model::ModelConfig;
use parakeet_engine::model::config::{ConvNorm, Normalize, Transducer};
use parakeet_engine::{CachePrecision, Engine, EngineOptions, FRAME_SAMPLES, StreamOptions};
use serde::Serialize;

use crate::engine_args::EngineArgs;
use crate::failure::Failure;
use crate::streaming::{seconds, windows};

/// Say what a model is, how it streams and what it needs
#[derive(clap::Args)]
pub struct Args {
    /// A model directory, a NeMo checkpoint (.nemo) or a directory of Hugging Face transformers
    model: PathBuf,
    #[command(flatten)]
    engine: EngineArgs,
    /// As JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report {
    name: String,
    /// `model`, `nemo` or `hugging-face`.
    format: &'static str,
    /// `tdt` or `rnnt`.
    kind: &'static str,
    durations: Vec<u32>,
    layers: usize,
    width: usize,
    heads: usize,
    parameters: usize,
    vocabulary: usize,
    /// What the model hears, or can be told that it hears; empty if that isn't known.
    languages: Vec<String>,
    mel_bins: usize,
    normalized_features: bool,
    convolution_norm: &'static str,
    /// `cache-aware` or `buffered`.
    streaming: &'static str,
    /// How long after a word begins the model emits it; 0 if that was not measured.
    emission_delay_ms: u32,
    contexts: Vec<Context>,
    windows: Vec<Window>,
    weight_bytes: u64,
    /// What a stream of any context or window holds on a GPU, by type of its keys and values; empty if `cuda` can't run the
    /// model.
    gpu: Vec<OnGpu>,
    /// What it runs on here; nothing until it is converted.
    devices: Vec<String>,
    /// Why it doesn't run on what `auto` would rather have taken.
    passed_over: Vec<String>,
}

#[derive(Serialize)]
struct OnGpu {
    /// As the options have it.
    precision: String,
    cache: String,
    stream_bytes: usize,
    /// Streams whose state fills 10^9 bytes; working memory comes on top.
    streams_per_gb: usize,
}

#[derive(Serialize)]
struct Context {
    left_frames: i32,
    right_frames: i32,
    latency_ms: usize,
    /// Unknown until the model is converted.
    #[serde(skip_serializing_if = "Option::is_none")]
    stream_bytes: Option<usize>,
}

#[derive(Serialize)]
struct Window {
    left_seconds: f64,
    chunk_seconds: f64,
    right_seconds: f64,
    latency_ms: usize,
    /// Unknown until the model is converted.
    #[serde(skip_serializing_if = "Option::is_none")]
    stream_bytes: Option<usize>,
}

/// Prints the report.
pub fn run(args: &Args) -> Result<(), Failure> {
    let description = describe(&args.model)?;
    let engine = match description.origin {
        Origin::Model => Some(Engine::open(&args.model, &args.engine.options()?)?),
        Origin::Nemo | Origin::HuggingFace => None,
    };
    let mut report = report(&description, |options| engine.as_ref()?.stream_bytes(options).ok())?;
    if let Some(engine) = engine {
        (report.devices, report.passed_over) = (engine.devices(), engine.passed_over().to_vec());
    }
    let mut out = std::io::stdout().lock();
    if args.json {
        serde_json::to_writer_pretty(&mut out, &report).map_err(std::io::Error::from)?;
        writeln!(out)?;
        return Ok(());
    }
    Ok(print(&report, &mut out)?)
}

fn report(
    description: &Description,
    stream_bytes: impl Fn(&StreamOptions) -> Option<usize>,
) -> Result<Report, Failure> {
    let Description { origin, config, parameters, weight_bytes } = description;
    let ModelConfig { name, features, encoder, decoder, .. } = config;
    let cached = |index: &usize| config.is_cache_aware(*index);
    let contexts: Vec<_> =
        (0..encoder.contexts.len()).filter(cached).map(|index| encoder.contexts[index]).collect();
    let context = |&[left_frames, right_frames]: &[i32; 2]| Context {
        left_frames,
        right_frames,
        latency_ms: (right_frames as usize + 1) * FRAME_SAMPLES as usize / 16,
        stream_bytes: stream_bytes(&StreamOptions {
            look_ahead: Some(right_frames as u32),
            ..StreamOptions::default()
        }),
    };
    let window = |window: parakeet_engine::Window| {
        let options = StreamOptions { window: Some(window), ..StreamOptions::default() };
        Ok(Window {
            left_seconds: seconds(window.left),
            chunk_seconds: seconds(window.chunk),
            right_seconds: seconds(window.right),
            latency_ms: (window.chunk + window.right) * FRAME_SAMPLES as usize / 16,
            stream_bytes: stream_bytes(&options),
        })
    };
    Ok(Report {
        name: name.clone(),
        format: match origin {
            Origin::Model => "model",
            Origin::Nemo => "nemo",
            Origin::HuggingFace => "hugging-face",
        },
        kind: if decoder.kind == Transducer::Rnnt { "rnnt" } else { "tdt" },
        durations: decoder.durations().to_vec(),
        layers: encoder.layers,
        width: encoder.width,
        heads: encoder.heads,
        parameters: *parameters,
        vocabulary: decoder.vocabulary,
        languages: match &config.prompt {
            Some(prompt) => prompt.languages.keys().cloned().collect(),
            None => config.languages.clone(),
        },
        mel_bins: features.mel_bins,
        normalized_features: features.normalize == Normalize::PerFeature,
        convolution_norm: match encoder.conv_norm {
            ConvNorm::BatchNorm => "batch",
            ConvNorm::LayerNorm => "layer",
        },
        streaming: if contexts.is_empty() { "buffered" } else { "cache-aware" },
        emission_delay_ms: config.emission_delay_ms,
        windows: if contexts.is_empty() {
            windows(config)?.into_iter().map(window).collect::<Result<_, Failure>>()?
        } else {
            Vec::new()
        },
        contexts: contexts.iter().map(context).collect(),
        weight_bytes: *weight_bytes,
        gpu: CachePrecision::ALL.iter().filter_map(|(_, cache)| on_gpu(config, *cache)).collect(),
        devices: Vec::new(),
        passed_over: Vec::new(),
    })
}

/// In the precision that is chosen by itself.
fn on_gpu(config: &ModelConfig, cache: CachePrecision) -> Option<OnGpu> {
    let options = EngineOptions { cache, ..EngineOptions::default() };
    let stream_bytes = cuda::stream_bytes(config, &options).ok()?;
    Some(OnGpu {
        precision: options.precision.of(config).to_string(),
        cache: cache.to_string(),
        stream_bytes,
        streams_per_gb: 1_000_000_000 / stream_bytes.max(1),
    })
}

fn print(report: &Report, out: &mut impl Write) -> std::io::Result<()> {
    let Report { layers, width, heads, convolution_norm, mel_bins, .. } = report;
    let made_of = match report.format {
        "nemo" => ", a NeMo checkpoint: convert it to run it",
        "hugging-face" => ", a checkpoint of Hugging Face transformers: convert it to run it",
        _ => "",
    };
    writeln!(out, "{}{made_of}", report.name)?;
    let kind = match report.kind {
        "rnnt" => "RNN-T".to_owned(),
        _ => format!("TDT, durations {:?}", report.durations),
    };
    writeln!(out, "  kind        {kind}")?;
    writeln!(out, "  encoder     {layers} layers x {width}, {heads} heads, {convolution_norm} norm")?;
    writeln!(out, "  parameters  {}", grouped(report.parameters))?;
    writeln!(out, "  vocabulary  {} pieces", report.vocabulary)?;
    if !report.languages.is_empty() {
        writeln!(out, "  languages   {}", report.languages.join(", "))?;
    }
    let normalized = if report.normalized_features { ", normalised over what is heard" } else { "" };
    writeln!(out, "  features    {mel_bins} mel bins{normalized}")?;
    let weights = megabytes(report.weight_bytes as usize);
    let future = if report.format == "model" { "" } else { " once converted, in half precision" };
    writeln!(out, "  weights     {weights}{future}")?;
    writeln!(out, "  streams     {}", report.streaming)?;
    for (index, Context { left_frames, right_frames, latency_ms, stream_bytes }) in
        report.contexts.iter().enumerate()
    {
        let bytes = stream_bytes.map(|bytes| format!(", {} a stream", megabytes(bytes))).unwrap_or_default();
        let default = if index == 0 { " (default)" } else { "" };
        writeln!(
            out,
            "              look-ahead {right_frames}: {latency_ms} ms, {left_frames} frames back{bytes}{default}"
        )?;
    }
    for (index, Window { left_seconds, chunk_seconds, right_seconds, latency_ms, stream_bytes }) in
        report.windows.iter().enumerate()
    {
        let bytes = stream_bytes.map(|bytes| format!(", {} a stream", megabytes(bytes))).unwrap_or_default();
        let default = if index == 0 { " (default)" } else { "" };
        writeln!(
            out,
            "              {left_seconds} s before, {chunk_seconds} s chunk, {right_seconds} s after: \
             {latency_ms} ms{bytes}{default}"
        )?;
    }
    let delay = match report.emission_delay_ms {
        0 => "not measured".into(),
        delay => format!("{delay} ms after a word begins"),
    };
    writeln!(out, "  emits       {delay}")?;
    // Of windows next to nothing is kept, whatever its type, and working memory is what bounds their number.
    let windowed = report.contexts.is_empty();
    if let Some(OnGpu { precision, stream_bytes, .. }) = report.gpu.first().filter(|_| windowed) {
        let bytes = megabytes(*stream_bytes);
        writeln!(out, "  on a GPU    {precision}: {bytes} a stream, beside the windows under way")?;
    }
    let cached = report.gpu.iter().filter(|_| !windowed);
    for (index, OnGpu { precision, cache, stream_bytes, streams_per_gb }) in cached.enumerate() {
        let title = if index == 0 { "on a GPU" } else { "" };
        let bytes = megabytes(*stream_bytes);
        writeln!(
            out,
            "  {title:12}{precision}, cache {cache}: {bytes} a stream, {streams_per_gb} streams a GB"
        )?;
    }
    for device in &report.devices {
        writeln!(out, "  runs on     {device}")?;
    }
    for reason in &report.passed_over {
        writeln!(out, "  passed over {reason}")?;
    }
    Ok(())
}

fn grouped(number: usize) -> String {
    let digits = number.to_string();
    let groups: Vec<_> = digits.as_bytes().rchunks(3).rev().map(String::from_utf8_lossy).collect();
    groups.join(",")
}

fn megabytes(bytes: usize) -> String {
    format!("{:.*} MB", if bytes < 100_000 { 3 } else { 1 }, bytes as f64 / 1e6)
}
