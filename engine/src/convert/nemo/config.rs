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
mod tests {
    use super::*;
    use crate::convert::testing::YAML;

    fn edited(from: &str, to: &str) -> Result<ModelConfig, String> {
        assert!(YAML.contains(from), "{from}");
        read(&YAML.replace(from, to), "tiny").map(|config| config.model)
    }

    #[test]
    fn a_tdt_configuration_is_read() {
        let config = read(YAML, "tiny").unwrap();
        assert_eq!(config.tokenizer, "abc_tokenizer.model");
        let expected = ModelConfig {
            format: FORMAT,
            name: "tiny".into(),
            features: FeaturesConfig { sample_rate: 16_000, mel_bins: 16, normalize: Normalize::None },
            encoder: EncoderConfig {
                layers: 1,
                width: 8,
                heads: 2,
                ff_width: 32,
                subsampling_channels: 4,
                causal_subsampling: true,
                conv_kernel: 3,
                conv_context: [2, 0],
                conv_norm: ConvNorm::BatchNorm,
                attention: AttentionStyle::ChunkedLimited,
                contexts: vec![[4, 1], [4, 0]],
                windows: None,
                bias: false,
                xscaling: false,
            },
            decoder: DecoderConfig {
                vocabulary: 5,
                predictor_width: 6,
                predictor_layers: 1,
                joint_width: 7,
                kind: Transducer::Tdt { durations: vec![0, 1, 2] },
                max_symbols: 10,
            },
            prompt: None,
        };
        assert_eq!(config.model, expected);
    }

    #[test]
    fn values_have_nemos_forms_and_defaults() {
        let encoder = |from, to| edited(from, to).unwrap().encoder;
        assert_eq!(encoder("conv_context_size: causal", "conv_context_size: null").conv_context, [1, 1]);
        assert_eq!(encoder("conv_context_size: causal", "conv_context_size: [0, 2]").conv_context, [0, 2]);
        assert_eq!(encoder("  - [4, 1]\n  - [4, 0]", "  - 6\n  - 2").contexts, [[6, 2]]);
        let full = encoder(
            "  att_context_size:\n  - [4, 1]\n  - [4, 0]\n  att_context_style: chunked_limited\n",
            "",
        );
        assert_eq!((full.contexts, full.attention), (vec![[-1, -1]], AttentionStyle::Regular));
        assert!(encoder("  use_bias: false\n", "").bias);
        assert!(encoder("  xscaling: false\n", "").xscaling);
        assert_eq!(
            encoder("subsampling_conv_channels: 4", "subsampling_conv_channels: -1").subsampling_channels,
            8
        );
        let normalize = |to| edited("normalize: NA", to).unwrap().features.normalize;
        assert_eq!(normalize("normalize: per_feature"), Normalize::PerFeature);
        assert_eq!(normalize("pad_to: 0"), Normalize::PerFeature);
        assert_eq!(normalize("normalize: null"), Normalize::None);
        let symbols = |to| edited("max_symbols: null", to).unwrap().decoder.max_symbols;
        assert_eq!(
            (symbols("max_symbols: 3"), symbols("max_symbols_per_step: 4"), symbols("max_symbols: 0")),
            (3, 4, 10)
        );
    }

    #[test]
    fn a_classic_transducer_is_told_from_tdt() {
        let rnnt = YAML
            .replace("  num_extra_outputs: 3\n", "")
            .replace("model_type: tdt", "model_type: rnnt")
            .replace("loss_name: tdt", "loss_name: default");
        assert_eq!(read(&rnnt, "tiny").unwrap().model.decoder.kind, Transducer::Rnnt);
        let error = |from, to| edited(from, to).unwrap_err();
        assert!(error("num_extra_outputs: 3", "num_extra_outputs: 0").contains("called a TDT"));
        assert!(error("num_extra_outputs: 3", "num_extra_outputs: 5").contains("3 durations"));
        assert!(
            error("durations: [0, 1, 2], greedy", "durations: [0, 1, 3], greedy")
                .contains("but decoding.durations is")
        );
        assert!(error("loss_name: tdt", "loss_name: multiblank_rnnt").contains("multi-blank"));
    }

    #[test]
    fn a_language_prompt_is_read() {
        let prompted = YAML.replace("EncDecRNNTBPEModel", "EncDecRNNTBPEModelWithPrompt");
        assert_eq!(read(&prompted, "tiny").unwrap().model.prompt, None, "the class may be without");
        let with = |settings: &str| {
            let settings = format!("initialize_prompt_feature: true, {settings}pred_hidden: 6, tdt");
            read(&prompted.replace("pred_hidden: 6, tdt", &settings), "tiny")
                .map(|config| config.model.prompt)
        };
        let languages = [("auto".to_owned(), 2), ("de".to_owned(), 0)].into();
        let expected = PromptConfig { places: 3, hidden: 16, languages };
        assert_eq!(with("num_prompts: 3, prompt_dictionary: {auto: 2, de: 0}, ").unwrap(), Some(expected));
        let missing = with("").unwrap_err();
        assert!(missing.contains("model_defaults.prompt_dictionary is missing"), "{missing}");
        let outside = with("num_prompts: 2, prompt_dictionary: {auto: 2}, ").unwrap_err();
        assert!(outside.contains("auto has place 2"), "{outside}");
    }

    #[test]
    fn unified_models_hear_everything_or_windows() {
        let config = edited("chunked_limited", "chunked_limited_with_rc").unwrap();
        assert_eq!(config.encoder.attention, AttentionStyle::ChunkedLimitedWithRc);
        assert_eq!((config.encoder.contexts.as_slice(), &config.encoder.windows), (&[[-1, -1]][..], &None));
        assert!(!config.is_cache_aware(0));
        // As parakeet-unified-en-0.6b has it.
        let windows = "att_chunk_context_size: [[70], [1, 2, 7, 13], [0, 1, 2, 3, 4, 7, 13]]";
        let trained = |windows: &str| {
            edited(
                "chunked_limited",
                &format!("chunked_limited_with_rc\n  {windows}\n  conv_context_style: dcc"),
            )
        };
        let expected =
            WindowsConfig { left: vec![70], chunk: vec![1, 2, 7, 13], right: vec![0, 1, 2, 3, 4, 7, 13] };
        assert_eq!(trained(windows).unwrap().encoder.windows, Some(expected));
        for (windows, expected) in [
            ("[70, 13, 13]", "encoder.att_chunk_context_size: [70,13,13], expected lists of left contexts"),
            ("[[70], [13]]", "encoder.att_chunk_context_size: [[70],[13]], expected lists"),
            ("[[-1], [13], [13]]", "encoder.att_chunk_context_size: [[-1],[13],[13]], expected lists"),
            ("[[70], [], [13]]", "number of encoder.windows.chunk: expected 1 to 16, found 0"),
            ("[[70], [0], [13]]", "encoder.windows.chunk: expected 1 to 7500, found 0"),
            ("[[7000], [13], [500]]", "the longest of encoder.windows: expected 1 to 7500, found 7513"),
        ] {
            let error = trained(&format!("att_chunk_context_size: {windows}")).unwrap_err();
            assert!(error.contains(expected), "{windows}: {error}");
        }
        let regular = edited("chunked_limited", &format!("chunked_limited\n  {windows}")).unwrap_err();
        assert!(regular.contains("encoder.windows: only for attention chunked_limited_with_rc"), "{regular}");
    }

    /// One that the model table promises, by the name of its repository.
    fn published(name: &str) -> ModelConfig {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/published");
        let text = std::fs::read_to_string(path.join(format!("{name}.yaml")));
        read(&text.expect("the file is in the tree"), name).unwrap_or_else(|e| panic!("{name}: {e}")).model
    }

    #[test]
    fn published_checkpoints_are_read() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/published");
        let files = std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path());
        let files: Vec<_> =
            files.filter(|path| path.extension().is_some_and(|kind| kind == "yaml")).collect();
        assert_eq!(files.len(), 8);
        for file in files {
            // What goes with training is in all of them.
            let training =
                "\ntrain_ds: {use_lhotse: true}\nvalidation_ds: {}\noptim: {name: adamw}\nlabels: [a]\n";
            let text = std::fs::read_to_string(&file).unwrap();
            let read = read(&(text.clone() + training), "published");
            assert!(read.is_ok(), "{}: {}", file.display(), read.unwrap_err());
            let spoiled = text.replace("  d_model:", "  new_option: 1\n  d_model:");
            let error = super::read(&spoiled, "published").unwrap_err();
            assert_eq!(
                error,
                "encoder.new_option: not a setting that this version knows",
                "{}",
                file.display()
            );
        }
    }

    #[test]
    fn published_checkpoints_have_their_contexts() {
        let contexts = |name| published(name).encoder.contexts;
        assert_eq!(contexts("parakeet_realtime_eou_120m-v1"), [[70, 1]]);
        assert_eq!(contexts("nemotron-speech-streaming-en-0.6b"), [[70, 13], [70, 6], [70, 1], [70, 0]]);
        assert_eq!(contexts("nemotron-3.5-asr-streaming-0.6b"), [[56, 3], [56, 0], [56, 6], [56, 13]]);
        assert_eq!(contexts("fastconformer_hybrid_streaming"), [[70, 13]]);
        let unified = published("parakeet-unified-en-0.6b");
        assert_eq!(crate::Window::of(&unified), crate::Window { left: 70, chunk: 13, right: 13 });
        let prompt = published("nemotron-3.5-asr-streaming-0.6b").prompt.unwrap();
        assert_eq!((prompt.places, prompt.languages["auto"], prompt.languages["mt-MT"]), (128, 101, 102));
    }

    #[test]
    fn what_nobody_reads_is_refused_by_name() {
        for (from, to, unknown) in [
            ("sample_rate: 16000\nmodel", "sample_rate: 16000\nnew_option: 1\nmodel", "new_option"),
            ("  n_fft: 512", "  n_fft: 512\n  new_option: [1]", "preprocessor.new_option"),
            ("  n_layers: 1", "  n_layers: 1\n  new_option: {deep: 1}", "encoder.new_option.deep"),
            ("pred_rnn_layers: 1", "pred_rnn_layers: 1, new_option: x", "decoder.prednet.new_option"),
            ("dropout: 0.1", "dropout: 0.1, new_option: true", "joint.jointnet.new_option"),
            ("type: bpe", "type: bpe, new_option: 0.5", "tokenizer.new_option"),
            ("loss: {", "adapters: {a: {dim: 4}}\nloss: {", "adapters.a.dim"),
        ] {
            let error = edited(from, to).unwrap_err();
            assert_eq!(error, format!("{unknown}: not a setting that this version knows"));
        }
        for (from, to) in [
            ("  n_layers: 1", "  n_layers: 1\n  new_option: null\n  empty: {}"),
            (
                "  n_layers: 1",
                "  n_layers: 1\n  dropout_pre_encoder: 0.1\n  use_pytorch_sdpa_backends: [MATH]",
            ),
            ("loss: {", "init_from_nemo_model: {model0: {path: x}}\nloss: {new_option: 1, "),
            ("decoding: {", "decoding: {new_option: 1, "),
        ] {
            assert!(edited(from, to).is_ok(), "{to}: {:?}", edited(from, to));
        }
    }

    #[test]
    fn hybrid_and_eou_models_are_transducers() {
        for class in
            ["EncDecHybridRNNTCTCBPEModel", "EncDecRNNTBPEEOUModel", "EncDecHybridRNNTCTCBPEEOUModel"]
        {
            assert!(edited("EncDecRNNTBPEModel", class).is_ok(), "{class}");
        }
    }

    #[test]
    fn what_cannot_run_is_refused_by_name() {
        let cases = [
            ("EncDecRNNTBPEModel", "EncDecCTCModelBPE", "target EncDecCTCModelBPE"),
            ("type: bpe", "type: agg", "tokenizer.type: agg"),
            (
                "pred_hidden: 6, tdt",
                "pred_hidden: 6, initialize_lang_id_prompt: true, tdt",
                "model_defaults.initialize_lang_id_prompt: true, expected false",
            ),
            ("window_size: 0.025", "window_size: 0.02", "preprocessor.window_size: 0.02, expected 0.025"),
            ("  window_size: 0.025\n", "", "preprocessor.window_size"),
            ("window_stride: 0.01", "window_stride: 0.02", "preprocessor.window_stride"),
            ("n_fft: 512", "n_fft: 1024", "preprocessor.n_fft"),
            (
                "n_fft: 512",
                "n_fft: 512\n  n_window_size: 320",
                "preprocessor.n_window_size: 320, expected 400",
            ),
            ("sample_rate: 16000\nmodel", "sample_rate: 8000\nmodel", "sample_rate: 8000, expected 16000"),
            ("n_layers: 1\n", "n_layers: 1\n  conv_context_style: x\n", "encoder.conv_context_style: x"),
            ("window: hann", "window: hamming", "preprocessor.window: hamming"),
            ("normalize: NA\n", "normalize: NA\n  preemph: 0.9\n", "preprocessor.preemph"),
            ("normalize: NA", "normalize: all_features", "preprocessor.normalize"),
            ("normalize: NA", "normalize: {fixed_mean: [1.0]}", "preprocessor.normalize"),
            ("subsampling: dw_striding", "subsampling: stacking", "encoder.subsampling: stacking"),
            ("subsampling_factor: 8", "subsampling_factor: 4", "encoder.subsampling_factor: 4, expected 8"),
            ("rel_pos", "rel_pos_local_attn", "encoder.self_attention_model: rel_pos_local_attn"),
            ("untie_biases: true", "untie_biases: false", "encoder.untie_biases"),
            ("batch_norm", "instance_norm", "encoder.conv_norm_type: instance_norm"),
            ("chunked_limited", "chunked", "encoder.att_context_style: chunked, expected"),
            ("feat_out: -1", "feat_out: 9", "encoder.feat_out: 9"),
            ("feat_in: 16", "feat_in: 80", "encoder.feat_in: 80, expected 16"),
            ("n_layers: 1\n", "n_layers: 1\n  reduction: pooling\n", "encoder.reduction"),
            ("n_layers: 1", "n_layers: 0", "encoder.layers: expected 1 to 256, found 0"),
            ("n_layers: 1", "n_layers: one", "encoder.n_layers: expected a size, found \"one\""),
            ("n_layers: 1", "n_layers: -1", "encoder.n_layers"),
            ("  n_layers: 1\n", "", "encoder.n_layers is missing"),
            ("d_model: 8", "d_model: 99999999", "encoder.width"),
            ("[4, 1]", "[5, 1]", "not a multiple of right + 1"),
            ("conv_context_size: causal", "conv_context_size: [1, 4]", "encoder.conv_context"),
            ("RNNTDecoder", "StatelessTransducerDecoder", "decoder._target_"),
            ("normalization_mode: null", "normalization_mode: layer", "decoder.normalization_mode"),
            ("blank_as_pad: true", "blank_as_pad: false", "decoder.blank_as_pad"),
            ("activation: relu", "activation: tanh", "joint.jointnet.activation: tanh"),
            (
                "pred_rnn_layers: 1",
                "pred_rnn_layers: 1, rnn_hidden_size: 9",
                "decoder.prednet.rnn_hidden_size",
            ),
            ("num_classes: 5", "num_classes: 6", "joint.num_classes: 6"),
            (
                "pred_hidden: 6, tdt",
                "pred_hidden: \"${decoder.prednet.pred_hidden}\", tdt",
                "decoder.prednet.pred_hidden is missing",
            ),
            ("encoder:", "encoder: [", "model_config.yaml"),
        ];
        for (from, to, expected) in cases {
            let error = edited(from, to).unwrap_err();
            assert!(error.contains(expected), "{to}: {error}");
        }
    }
}
