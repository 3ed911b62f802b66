// SPDX-License-Identifier: MPL-2.0
//! `model_config.yaml` of a NeMo checkpoint to [`ModelConfig`]; what the engine can't run is refused by name.

use std::cell::RefCell;
use std::collections::HashSet;

use serde_json::Value;

use crate::convert::neutral::{self, NEMO};
use crate::model::config::*;

/// What a checkpoint's YAML says.
#[derive(Debug)]
pub struct NemoConfig {
    /// The configuration for the engine, checked.
    pub model: ModelConfig,
    /// Member of the archive that holds the SentencePiece model.
    pub tokenizer: String,
}

/// Reads the YAML. The error says which setting is missing or not supported.
pub fn read(yaml: &str, name: &str) -> Result<NemoConfig, String> {
    let root = serde_saphyr::from_str(yaml)
        .map_err(|e| format!("model_config.yaml: {}", first_line(&e.to_string())))?;
    let yaml = Yaml { root, read: RefCell::default() };
    let target = yaml.text("target")?.unwrap_or_default();
    let class = target.rsplit('.').next().unwrap_or_default();
    if !class.is_empty() && !class.contains("RNNT") {
        return Err(format!("target {class}: only transducers (RNNT and TDT) can be run"));
    }
    let model = ModelConfig {
        format: FORMAT,
        name: name.to_owned(),
        features: features(&yaml)?,
        encoder: encoder(&yaml)?,
        decoder: decoder(&yaml)?,
        emission_delay_ms: 0,
        languages: Vec::new(),
        prompt: if class.contains("Prompt") { prompt(&yaml)? } else { None },
    };
    model.validate()?;
    // Another prompt, for any class.
    yaml.flag("model_defaults.initialize_lang_id_prompt", false, false)?;
    yaml.only("tokenizer.type", "bpe", &["bpe"])?;
    let tokenizer = yaml.text("tokenizer.model_path")?.ok_or("tokenizer.model_path is missing")?;
    let tokenizer = tokenizer.rsplit(['/', ':']).next().unwrap_or_default().to_owned();
    yaml.finish()?;
    Ok(NemoConfig { model, tokenizer })
}

fn features(yaml: &Yaml) -> Result<FeaturesConfig, String> {
    let key = |name: &str| format!("preprocessor.{name}");
    yaml.class("preprocessor", "AudioToMelSpectrogramPreprocessor")?;
    yaml.number("sample_rate", 16_000.0, 16_000.0)?;
    yaml.number(&key("sample_rate"), 16_000.0, 16_000.0)?;
    yaml.number(&key("window_size"), 0.02, 0.025)?;
    yaml.number(&key("window_stride"), 0.01, 0.01)?;
    // The same in samples.
    yaml.number(&key("n_window_size"), 400.0, 400.0)?;
    yaml.number(&key("n_window_stride"), 160.0, 160.0)?;
    yaml.number(&key("n_fft"), 512.0, 512.0)?;
    yaml.number(&key("frame_splicing"), 1.0, 1.0)?;
    yaml.number(&key("preemph"), 0.97, 0.97)?;
    yaml.number(&key("mag_power"), 2.0, 2.0)?;
    yaml.number(&key("lowfreq"), 0.0, 0.0)?;
    yaml.number(&key("highfreq"), 8_000.0, 8_000.0)?;
    yaml.only(&key("window"), "hann", &["hann"])?;
    yaml.only(&key("log_zero_guard_type"), "add", &["add"])?;
    yaml.number(&key("log_zero_guard_value"), (-24_f64).exp2(), (-24_f64).exp2())?;
    yaml.only(&key("mel_norm"), "slaney", &["slaney"])?;
    yaml.flag(&key("log"), true, true)?;
    yaml.flag(&key("exact_pad"), false, false)?;
    yaml.flag(&key("stft_exact_pad"), false, false)?;
    let normalize = match yaml.at(&key("normalize")) {
        Some(Value::String(how)) if how == "per_feature" => Normalize::PerFeature,
        Some(Value::String(how)) if how == "all_features" => {
            return Err("preprocessor.normalize: all_features, expected per_feature or none".into());
        }
        Some(Value::Object(_)) => return Err("preprocessor.normalize: fixed statistics".into()),
        None if yaml.root.pointer("/preprocessor/normalize").is_none() => Normalize::PerFeature,
        _ => Normalize::None,
    };
    Ok(FeaturesConfig { sample_rate: 16_000, mel_bins: yaml.size_or(&key("features"), 64)?, normalize })
}

fn encoder(yaml: &Yaml) -> Result<EncoderConfig, String> {
    let key = |name: &str| format!("encoder.{name}");
    yaml.class("encoder", "ConformerEncoder")?;
    yaml.only(&key("subsampling"), "striding", &["dw_striding"])?;
    yaml.number(&key("subsampling_factor"), 4.0, 8.0)?;
    yaml.only(&key("self_attention_model"), "rel_pos", &["rel_pos"])?;
    yaml.flag(&key("untie_biases"), true, true)?;
    yaml.flag(&key("conv_dual_mode"), false, false)?;
    yaml.number(&key("global_tokens"), 0.0, 0.0)?;
    yaml.absent(&key("reduction"))?;
    let features = yaml.size_or("preprocessor.features", 64)?;
    yaml.number(&key("feat_in"), features as f64, features as f64)?;
    let width = yaml.size(&key("d_model"))?;
    if let Some(out) = yaml.int(&key("feat_out"))?
        && out > 0
        && usize::try_from(out) != Ok(width)
    {
        return Err(format!("encoder.feat_out: {out}, expected -1 or d_model"));
    }
    let conv_kernel = yaml.size_or(&key("conv_kernel_size"), 31)?;
    let attention = match yaml.text(&key("att_context_style"))?.as_deref() {
        None | Some("regular") => AttentionStyle::Regular,
        Some("chunked_limited") => AttentionStyle::ChunkedLimited,
        Some("chunked_limited_with_rc") => AttentionStyle::ChunkedLimitedWithRc,
        Some(other) => {
            return Err(format!(
                "encoder.att_context_style: {other}, expected regular, chunked_limited or chunked_limited_with_rc"
            ));
        }
    };
    // What training did at the ends of chunks; NeMo computes both alike.
    yaml.only(&key("conv_context_style"), "regular", &["regular", "dcc"])?;
    let listed = yaml.at(&key("att_context_size"));
    let channels = yaml.int(&key("subsampling_conv_channels"))?.unwrap_or(-1);
    Ok(EncoderConfig {
        layers: yaml.size(&key("n_layers"))?,
        width,
        heads: yaml.size_or(&key("n_heads"), 4)?,
        ff_width: width.saturating_mul(yaml.size_or(&key("ff_expansion_factor"), 4)?),
        subsampling_channels: usize::try_from(channels).unwrap_or(width),
        causal_subsampling: yaml.bool_or(&key("causal_downsampling"), false)?,
        conv_kernel,
        conv_context: conv_context(yaml.at(&key("conv_context_size")), conv_kernel)?,
        conv_norm: match yaml
            .only(&key("conv_norm_type"), "batch_norm", &["batch_norm", "layer_norm"])?
            .as_str()
        {
            "layer_norm" => ConvNorm::LayerNorm,
            _ => ConvNorm::BatchNorm,
        },
        attention,
        // NeMo ignores the setting where the window is the context.
        contexts: match attention {
            AttentionStyle::ChunkedLimitedWithRc => vec![[-1, -1]],
            _ => contexts(listed)?,
        },
        windows: windows(yaml.at(&key("att_chunk_context_size")))?,
        bias: yaml.bool_or(&key("use_bias"), true)?,
        xscaling: yaml.bool_or(&key("xscaling"), true)?,
    })
}

/// The language prompt; a class that has one may be without.
fn prompt(yaml: &Yaml) -> Result<Option<PromptConfig>, String> {
    let key = |name: &str| format!("model_defaults.{name}");
    if !yaml.bool_or(&key("initialize_prompt_feature"), false)? {
        return Ok(None);
    }
    let width = yaml.size("encoder.d_model")?;
    yaml.number(&key("enc_hidden"), width as f64, width as f64)?;
    let languages =
        yaml.at(&key("prompt_dictionary")).ok_or_else(|| key("prompt_dictionary") + " is missing")?;
    let languages = serde_json::from_value(languages.clone())
        .map_err(|e| format!("{}: expected codes and places: {e}", key("prompt_dictionary")))?;
    let places = yaml.size_or(&key("num_prompts"), 128)?;
    // NeMo's layer between is always twice as wide as the encoder.
    Ok(Some(PromptConfig { places, hidden: 2 * width, languages }))
}

fn conv_context(value: Option<&Value>, kernel: usize) -> Result<[usize; 2], String> {
    let last = kernel.saturating_sub(1);
    let pair = |value: &Value| serde_json::from_value(value.clone()).ok();
    match value {
        None if last.is_multiple_of(2) => Some([last / 2, last / 2]),
        Some(Value::String(word)) if word == "causal" => Some([last, 0]),
        Some(value) => pair(value),
        None => None,
    }
    .ok_or_else(|| {
        format!("encoder.conv_context_size: expected null, causal or [left, right] for {kernel} taps")
    })
}

fn contexts(value: Option<&Value>) -> Result<Vec<[i32; 2]>, String> {
    let Some(value) = value else {
        return Ok(vec![[-1, -1]]);
    };
    let one = serde_json::from_value(value.clone()).map(|pair| vec![pair]);
    one.or_else(|_| serde_json::from_value(value.clone()))
        .map_err(|_| "encoder.att_context_size: expected [left, right] or a list of them".into())
}

/// Left contexts, chunks and right contexts that the model was trained for, each with each.
fn windows(value: Option<&Value>) -> Result<Option<WindowsConfig>, String> {
    let Some(value) = value else { return Ok(None) };
    let [left, chunk, right] = serde_json::from_value(value.clone()).map_err(|_| {
        format!(
            "encoder.att_chunk_context_size: {}, expected lists of left contexts, chunks and right contexts",
            brief(value)
        )
    })?;
    Ok(Some(WindowsConfig { left, chunk, right }))
}

fn decoder(yaml: &Yaml) -> Result<DecoderConfig, String> {
    yaml.class("decoder", "RNNTDecoder")?;
    yaml.class("joint", "RNNTJoint")?;
    yaml.absent("decoder.normalization_mode")?;
    yaml.flag("decoder.blank_as_pad", true, true)?;
    yaml.only("joint.jointnet.activation", "relu", &["relu"])?;
    let predictor_width = yaml.size("decoder.prednet.pred_hidden")?;
    let hidden = yaml.int("decoder.prednet.rnn_hidden_size")?.filter(|&hidden| hidden > 0);
    if hidden.is_some_and(|hidden| usize::try_from(hidden) != Ok(predictor_width)) {
        return Err("decoder.prednet.rnn_hidden_size: an LSTM with projection".into());
    }
    let vocabulary = yaml.size("decoder.vocab_size")?;
    let classes = yaml.size_or("joint.num_classes", vocabulary)?;
    if classes != vocabulary {
        return Err(format!("joint.num_classes: {classes}, but decoder.vocab_size is {vocabulary}"));
    }
    let greedy = ["decoding.greedy.max_symbols", "decoding.greedy.max_symbols_per_step"];
    let mut limits = Vec::new();
    for key in greedy {
        limits.extend(yaml.int(key)?.filter(|&limit| limit > 0));
    }
    Ok(DecoderConfig {
        vocabulary,
        predictor_width,
        predictor_layers: yaml.size_or("decoder.prednet.pred_rnn_layers", 1)?,
        joint_width: yaml.size("joint.jointnet.joint_hidden")?,
        kind: transducer(yaml)?,
        max_symbols: limits
            .first()
            .map_or(Ok(10), |&limit| usize::try_from(limit))
            .map_err(|e| e.to_string())?,
    })
}

fn transducer(yaml: &Yaml) -> Result<Transducer, String> {
    let outputs = yaml.size_or("joint.num_extra_outputs", 0)?;
    let loss = yaml.text("loss.loss_name")?.unwrap_or_default();
    let model_type = yaml.text("decoding.model_type")?.unwrap_or_default();
    if loss.contains("multiblank") || model_type.contains("multiblank") {
        return Err("loss.loss_name: a multi-blank transducer".into());
    }
    if outputs == 0 {
        if loss.starts_with("tdt") || model_type == "tdt" {
            return Err("joint.num_extra_outputs: 0, but the model is called a TDT".into());
        }
        return Ok(Transducer::Rnnt);
    }
    let mut known: Option<(&str, Vec<u32>)> = None;
    for key in ["decoding.durations", "loss.tdt_kwargs.durations", "model_defaults.tdt_durations"] {
        let Some(value) = yaml.at(key) else { continue };
        let durations: Vec<u32> = serde_json::from_value(value.clone())
            .map_err(|_| format!("{key}: expected a list of whole numbers"))?;
        match &known {
            _ if durations.is_empty() => {}
            Some((first, other)) if *other != durations => {
                return Err(format!("{key}: {durations:?}, but {first} is {other:?}"));
            }
            Some(_) => {}
            None => known = Some((key, durations)),
        }
    }
    let (key, durations) = known.ok_or("decoding.durations is missing from a TDT model")?;
    if durations.len() != outputs {
        return Err(format!(
            "{key}: {} durations, but joint.num_extra_outputs is {outputs}",
            durations.len()
        ));
    }
    Ok(Transducer::Tdt { durations })
}

/// The document, read by dotted paths. A null is an absent value.
struct Yaml {
    root: Value,
    /// The paths that were asked for.
    read: RefCell<HashSet<String>>,
}

impl Yaml {
    fn at(&self, path: &str) -> Option<&Value> {
        let mut path = path.to_owned();
        // A value may refer to another, `${model_defaults.pred_hidden}`, which may refer to another, but not for ever.
        for _ in 0..8 {
            self.read.borrow_mut().insert(path.clone());
            let value = self
                .root
                .pointer(&format!("/{}", path.replace('.', "/")))
                .filter(|value| !value.is_null())?;
            match value.as_str().and_then(|text| text.strip_prefix("${")?.strip_suffix('}')) {
                Some(other) => path = other.to_owned(),
                None => return Some(value),
            }
        }
        None
    }

    fn typed<T>(
        &self,
        path: &str,
        kind: &str,
        read: impl Fn(&Value) -> Option<T>,
    ) -> Result<Option<T>, String> {
        let Some(value) = self.at(path) else {
            return Ok(None);
        };
        read(value).map(Some).ok_or_else(|| format!("{path}: expected {kind}, found {}", brief(value)))
    }

    fn text(&self, path: &str) -> Result<Option<String>, String> {
        self.typed(path, "text", |value| value.as_str().map(str::to_owned))
    }

    fn int(&self, path: &str) -> Result<Option<i64>, String> {
        self.typed(path, "a whole number", Value::as_i64)
    }

    fn size(&self, path: &str) -> Result<usize, String> {
        let size = |value: &Value| value.as_u64().and_then(|size| usize::try_from(size).ok());
        self.typed(path, "a size", size)?.ok_or_else(|| format!("{path} is missing"))
    }

    fn size_or(&self, path: &str, default: usize) -> Result<usize, String> {
        if self.at(path).is_none() { Ok(default) } else { self.size(path) }
    }

    fn bool_or(&self, path: &str, default: bool) -> Result<bool, String> {
        Ok(self.typed(path, "true or false", Value::as_bool)?.unwrap_or(default))
    }

    /// A number that must be `expected`; `default` is NeMo's where it is absent.
    fn number(&self, path: &str, default: f64, expected: f64) -> Result<(), String> {
        let found = self.typed(path, "a number", Value::as_f64)?.unwrap_or(default);
        if (found - expected).abs() <= 1e-9 * expected.abs() {
            return Ok(());
        }
        Err(format!("{path}: {found}, expected {expected}"))
    }

    fn flag(&self, path: &str, default: bool, expected: bool) -> Result<(), String> {
        let found = self.bool_or(path, default)?;
        if found == expected { Ok(()) } else { Err(format!("{path}: {found}, expected {expected}")) }
    }

    fn only(&self, path: &str, default: &str, known: &[&str]) -> Result<String, String> {
        let found = self.text(path)?.unwrap_or_else(|| default.to_owned());
        if known.contains(&found.as_str()) {
            return Ok(found);
        }
        Err(format!("{path}: {found}, expected {}", known.join(" or ")))
    }

    fn absent(&self, path: &str) -> Result<(), String> {
        self.at(path).map_or(Ok(()), |value| Err(format!("{path}: {}, expected null", brief(value))))
    }

    /// Refuses what was not read and is unknown.
    fn finish(&self) -> Result<(), String> {
        let read = self.read.borrow();
        let root = self.root.as_object().ok_or("model_config.yaml: expected settings and their values")?;
        neutral::check("", root, NEMO, &|path| read.contains(path))
    }

    fn class(&self, section: &str, expected: &str) -> Result<(), String> {
        if self.root.get(section).is_none_or(Value::is_null) {
            return Err(format!("{section} is missing"));
        }
        let path = format!("{section}._target_");
        let found = self.text(&path)?.unwrap_or_else(|| expected.to_owned());
        if found.rsplit('.').next() == Some(expected) {
            return Ok(());
        }
        Err(format!("{path}: {found}, expected {expected}"))
    }
}

/// A value short enough for an error.
fn brief(value: &Value) -> String {
    let text: String = value.to_string().chars().take(60).collect();
    text
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

#[cfg(test)]
mod tests;
