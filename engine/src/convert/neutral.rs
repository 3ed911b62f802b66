// SPDX-License-Identifier: MPL-2.0
//! One rule for settings of checkpoints that nobody reads: those that change nothing in recognition are listed here with the
//! reason, any other is refused by name.

use serde_json::{Map, Value};

/// Settings of NeMo's `model_config.yaml` that change nothing: dotted paths, each with all that is below it. One that ends in
/// `*` stands for all that begin so.
pub const NEMO: &[&str] = &[
    // Training: data, its augmentation, the optimiser, losses and what is logged.
    "train_ds",
    "validation_ds",
    "test_ds",
    "optim",
    "loss",
    "spec_augment",
    "variational_noise",
    "interctc",
    "rnnt_reduction",
    "compute_eval_loss",
    "log_prediction",
    "skip_nan_grad",
    "use_cer",
    "init_from_*",
    "nemo_version",
    "batch_size",
    // Another head, which is left aside.
    "aux_ctc",
    "ctc_reduction",
    // Values for other sections to refer to; the prompt's are read from here, others repeat them.
    "model_defaults",
    "num_prompts",
    "prompt_dictionary",
    // How NeMo searches and what it tells of it: this version decodes greedily.
    "decoding",
    "joint.log_softmax",
    "joint.temperature",
    // Copies of what the tokenizer holds, and where it lay.
    "labels",
    "joint.vocabulary",
    "tokenizer.dir",
    "tokenizer.vocab_path",
    "tokenizer.spe_tokenizer_vocab",
    "tokenizer.update_tokenizer",
    // Sizes that follow from other sections, against which tensors are checked.
    "joint.jointnet.encoder_hidden",
    "joint.jointnet.pred_hidden",
    // Noise, drop-out and first values of training.
    "preprocessor.dither",
    "preprocessor.nb_augmentation_prob",
    "preprocessor.nb_max_freq",
    "preprocessor.rng",
    "encoder.dropout*",
    "encoder.stochastic_depth_*",
    "encoder.att_context_probs",
    "decoder.random_state_sampling",
    "decoder.prednet.dropout",
    "decoder.prednet.t_max",
    "decoder.prednet.forget_gate_bias",
    "decoder.prednet.weights_init_scale",
    "decoder.prednet.hidden_hidden_bias_scale",
    "joint.jointnet.dropout",
    "joint.masking_prob",
    // Padding behind a signal, which nothing sees.
    "preprocessor.pad_to",
    "preprocessor.pad_value",
    // Details of what is not used, which is checked itself.
    "encoder.reduction_position",
    "encoder.reduction_factor",
    "encoder.global_tokens_spacing",
    "encoder.global_attn_separate",
    // Other ways to compute the same.
    "preprocessor.use_torchaudio",
    "preprocessor.stft_conv",
    "encoder.pos_emb_max_len",
    "encoder.subsampling_conv_chunking_factor",
    "encoder.sync_max_audio_length",
    "encoder.use_pytorch_sdpa*",
    "joint.preserve_memory",
    "joint.fuse_loss_wer",
    "joint.experimental_fuse_loss_wer",
    "joint.fused_batch_size",
];

/// Settings in the files of Hugging Face transformers that change nothing, in whatever section they are.
pub const HUGGING_FACE: &[&str] = &[
    // What the library keeps about files, versions and types.
    "_name_or_path",
    "architectures",
    "dtype",
    "torch_dtype",
    "transformers_version",
    "tokenizer_class",
    "processor_class",
    "decoder_type",
    "is_encoder_decoder",
    // Training: drop-out and first values.
    "activation_dropout",
    "attention_dropout",
    "dropout",
    "dropout_positions",
    "layerdrop",
    "initializer_range",
    // Pieces that a transducer never feeds itself; blank is read.
    "blank_token",
    "bos_token_id",
    "decoder_start_token_id",
    "eos_token_id",
    "pad_token_id",
    // For classifiers.
    "id2label",
    "label2id",
    "problem_type",
    // Other ways to compute the same, and what is given back beside it.
    "_attn_implementation",
    "chunk_size_feed_forward",
    "max_position_embeddings",
    "output_attentions",
    "output_hidden_states",
    "return_dict",
    "tie_word_embeddings",
    "use_cache",
    // Padding behind a signal, which nothing sees.
    "padding_side",
    "return_attention_mask",
];

/// Refuses the first setting that is neither read nor neutral. `prefix` is how the section is called, `read` says what was read
/// of it. What is null or empty says nothing.
pub fn check(
    prefix: &str,
    section: &Map<String, Value>,
    neutral: &[&str],
    read: &dyn Fn(&str) -> bool,
) -> Result<(), String> {
    below(prefix, "", section, neutral, read)
}

fn below(
    prefix: &str,
    parent: &str,
    map: &Map<String, Value>,
    neutral: &[&str],
    read: &dyn Fn(&str) -> bool,
) -> Result<(), String> {
    for (key, value) in map {
        let path = format!("{parent}{key}");
        if value.is_null() || read(&path) || neutral.iter().any(|pattern| matches(pattern, &path)) {
            continue;
        }
        match value {
            Value::Object(map) => below(prefix, &format!("{path}."), map, neutral, read)?,
            _ => return Err(format!("{prefix}{path}: not a setting that this version knows")),
        }
    }
    Ok(())
}

fn matches(pattern: &str, path: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(start) => path.starts_with(start),
        None => path == pattern,
    }
}
