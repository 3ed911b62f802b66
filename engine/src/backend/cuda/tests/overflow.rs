// SPDX-License-Identifier: MPL-2.0
//! Models whose numbers half precision doesn't hold.

use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};

use super::*;

/// The mini model with each tensor multiplied by what `factor` says of its name.
fn scaled(factor: impl Fn(&str) -> f32) -> (tempfile::TempDir, Arc<Model>) {
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/parakeet-tdt-mini");
    let dir = tempfile::tempdir().expect("a temporary directory");
    for name in ["config.json", "tokens.txt"] {
        std::fs::copy(from.join(name), dir.path().join(name)).expect("the model is in the tree");
    }
    let file = std::fs::read(from.join("model.safetensors")).expect("the model is in the tree");
    let tensors = SafeTensors::deserialize(&file).expect("it is sound");
    let tensors: Vec<(String, Vec<usize>, Vec<u8>)> = tensors
        .iter()
        .map(|(name, tensor)| {
            let (halves, singles) = (tensor.data().as_chunks().0, tensor.data().as_chunks().0);
            let values: Vec<f32> = match tensor.dtype() {
                Dtype::F16 => halves.iter().map(|&bytes| f16::from_le_bytes(bytes).to_f32()).collect(),
                _ => singles.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect(),
            };
            let bytes = values.iter().flat_map(|value| (value * factor(name)).to_le_bytes()).collect();
            (name.to_owned(), tensor.shape().to_vec(), bytes)
        })
        .collect();
    let views = tensors.iter().map(|(name, shape, bytes)| {
        (name, TensorView::new(Dtype::F32, shape.clone(), bytes).expect("as many bytes as the shape says"))
    });
    let bytes = safetensors::serialize(views, None).expect("it fits into memory");
    std::fs::write(dir.path().join("model.safetensors"), bytes).expect("the directory is ours");
    let model = Arc::new(Model::load(dir.path()).expect("the model is complete"));
    (dir, model)
}

/// What the residual stream is made of; norms take it as it comes, so that its scale changes nothing that is said.
fn writes_the_residual_stream(name: &str) -> bool {
    let parts = [
        ".feed_forward1.linear2.",
        ".feed_forward2.linear2.",
        ".linear_out.",
        ".pointwise_conv2.",
        ".norm_out.",
    ];
    name.starts_with("encoder.pre_encode.out.")
        || (parts.iter().any(|part| name.contains(part)) && !name.starts_with("encoder.layers.11.norm_out."))
}

/// A model whose numbers half precision doesn't hold says the same in the others, and its streams fail by name there.
fn overflows(model: &Arc<Model>) {
    let (plain, pcm) = (mini(), speech());
    let mut said = 0;
    for mode in [Mode::Cached { context: 0 }, Mode::Cached { context: 3 }, Mode::Offline { context: 0 }] {
        let expected = by_cpu(&plain, mode, &pcm);
        for precision in [Precision::F32, Precision::Bf16] {
            let mut cuda = backend(model, &options(precision));
            let (equal, of) = agreement(&tokens(&run(&mut cuda, 0, mode, &pcm).1), &expected);
            assert!(equal * 100 >= of * 90, "{precision} {mode:?}: {equal} of {of}");
            said += equal;
        }
        for precision in [Precision::Auto, Precision::F16] {
            let mut cuda = backend(model, &options(precision));
            let slot = cuda.open(mode, 0).expect("a slot");
            let steps = chunks(&model.config, mode, &pcm);
            let step = |(pcm, end)| cuda.step(&[Step { slot, pcm, end }]).remove(0);
            let failed = steps.into_iter().map(step).find_map(Result::err).expect("it overflows").to_string();
            assert_eq!(failed, "backend cuda: precision f16 overflowed in this model; use bf16");
        }
    }
    println!("{said} tokens as of the model that was not scaled");
}

#[test]
#[ignore = "needs an NVIDIA GPU"]
fn a_residual_stream_beyond_half_precision_is_told() {
    let (_dir, model) = scaled(|name| if writes_the_residual_stream(name) { 32_768.0 } else { 1.0 });
    overflows(&model);
}

#[test]
#[ignore = "needs an NVIDIA GPU"]
fn a_subsampling_beyond_half_precision_is_told() {
    const FACTOR: f32 = 65_536.0;
    let (_dir, model) = scaled(|name| match name {
        "encoder.pre_encode.conv.0.weight" => FACTOR,
        "encoder.pre_encode.out.weight" => 1.0 / FACTOR,
        _ if name.starts_with("encoder.pre_encode.conv.") && name.ends_with(".bias") => FACTOR,
        _ => 1.0,
    });
    overflows(&model);
}
