// SPDX-License-Identifier: MPL-2.0
//! What NeMo's settings become, and which are refused.

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
        emission_delay_ms: 0,
        languages: Vec::new(),
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
    let full =
        encoder("  att_context_size:\n  - [4, 1]\n  - [4, 0]\n  att_context_style: chunked_limited\n", "");
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
        read(&prompted.replace("pred_hidden: 6, tdt", &settings), "tiny").map(|config| config.model.prompt)
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
        edited("chunked_limited", &format!("chunked_limited_with_rc\n  {windows}\n  conv_context_style: dcc"))
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
    let files: Vec<_> = files.filter(|path| path.extension().is_some_and(|kind| kind == "yaml")).collect();
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
        assert_eq!(error, "encoder.new_option: not a setting that this version knows", "{}", file.display());
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
        ("  n_layers: 1", "  n_layers: 1\n  dropout_pre_encoder: 0.1\n  use_pytorch_sdpa_backends: [MATH]"),
        ("loss: {", "init_from_nemo_model: {model0: {path: x}}\nloss: {new_option: 1, "),
        ("decoding: {", "decoding: {new_option: 1, "),
    ] {
        assert!(edited(from, to).is_ok(), "{to}: {:?}", edited(from, to));
    }
}

#[test]
fn hybrid_and_eou_models_are_transducers() {
    for class in ["EncDecHybridRNNTCTCBPEModel", "EncDecRNNTBPEEOUModel", "EncDecHybridRNNTCTCBPEEOUModel"] {
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
        ("n_fft: 512", "n_fft: 512\n  n_window_size: 320", "preprocessor.n_window_size: 320, expected 400"),
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
        ("pred_rnn_layers: 1", "pred_rnn_layers: 1, rnn_hidden_size: 9", "decoder.prednet.rnn_hidden_size"),
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
