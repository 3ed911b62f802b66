// SPDX-License-Identifier: MPL-2.0
//! Every published shape with few layers and random weights: each of its ways to stream, against one pass.

use super::*;
use crate::StreamOptions;
use crate::backend::conformance::Golden;
use crate::convert::{ConvertOptions, Like, SynthOptions, synthesize};
use crate::model::{Model, WEIGHTS};

/// Rows are up to 1,024 wide: their sums are rounded more often than those of the small models.
const TOLERANCE: f32 = 1e-3;

/// Of the vocabulary; blank comes after them.
const PIECES: usize = 300;

fn made(like: Like) -> Fixture {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let out = dir.path().join("model");
    let options = SynthOptions { like, vocabulary: Some(PIECES), layers: Some(2), seed: 1 };
    synthesize(&options, &out, &ConvertOptions::default(), &mut |_, _| {}).expect("the model is written");
    lower_blank(&out.join(WEIGHTS));
    Fixture {
        model: Arc::new(Model::load(&out).expect("what was written loads")),
        golden: Golden { contexts: Default::default(), lengths: Vec::new(), windows: Default::default() },
        tensors: Vec::new(),
        _dir: dir,
    }
}

/// Makes the model say more: blank's lead over the pieces is that of all its layers, with two it might say nothing.
fn lower_blank(path: &std::path::Path) {
    let mut bytes = std::fs::read(path).expect("it was written");
    let (start, metadata) = safetensors::SafeTensors::read_metadata(&bytes).expect("a sound file");
    let bias = metadata.info("joint.joint_net.2.bias").expect("the joint has a bias").data_offsets.0;
    let blank = &mut bytes[8 + start + bias + 4 * PIECES..][..4];
    let value = f32::from_le_bytes((&*blank).try_into().expect("four bytes"));
    blank.copy_from_slice(&(value - 2.0).to_le_bytes());
    std::fs::write(path, bytes).expect("it can be written again");
}

/// Token, frame and duration of all steps.
fn heard(decoded: &[Decoded]) -> Vec<(u32, u64, Option<u32>)> {
    tokens(decoded).iter().map(|token| (token.id, token.frame, token.duration)).collect()
}

fn check(like: Like) {
    // 3 s, and not a whole number of frames.
    let pcm = &audio()[..48_123];
    let fixture = made(like);
    let config = &fixture.model.config;
    let mut backend = fixture.backend();
    let place = StreamOptions::default().language_place(config).expect("the model's own");
    let frames = Geometry::new(config).frames(pcm.len() / HOP);
    let mut said = 0;
    let mut open = |mode| backend.open(mode, place).map(|slot| backend.close(slot));
    for context in 0..config.encoder.contexts.len() {
        let offline = Mode::Offline { context };
        open(offline).expect("one pass");
        let (whole, decoded) = fixture.run_in(place, offline, pcm);
        let all = heard(&decoded);
        assert_eq!(whole.len(), frames * config.encoder.width, "{like}");
        said += all.len();
        let cached = Mode::Cached { context };
        assert_eq!(open(cached).is_ok(), config.is_cache_aware(context), "{like}");
        if config.is_cache_aware(context) {
            let (streamed, decoded) = fixture.run_in(place, cached, pcm);
            assert_close(&format!("{like} {context}"), &streamed, &whole, TOLERANCE);
            assert_eq!(heard(&decoded), all, "{like} {context}");
        } else {
            for window in windows(config) {
                let mode = Mode::Buffered { context, window };
                open(mode).expect("a window of the model's");
                let (_, decoded) = fixture.run_in(place, mode, pcm);
                assert_eq!(
                    decoded.iter().map(|step| step.frames).sum::<usize>(),
                    frames,
                    "{like} {window:?}"
                );
                assert!(heard(&decoded).iter().is_sorted_by_key(|token| token.1), "{like} {window:?}");
                // A window that holds everything is one pass.
                if window.chunk >= frames {
                    assert_eq!(heard(&decoded), all, "{like} {window:?}");
                }
            }
        }
    }
    assert!(said > 0, "{like} says nothing");
    let other = Window { left: 70, chunk: 13, right: 12 };
    let refused = open(Mode::Buffered { context: 0, window: other }).is_err();
    assert_eq!(refused, config.encoder.windows.is_some(), "{like}");
}

/// Some of the windows that the model runs in.
fn windows(config: &ModelConfig) -> Vec<Window> {
    match Window::trained(config)[..] {
        [] => vec![
            Window { left: 25, chunk: 12, right: 6 },
            Window { left: 0, chunk: 100, right: 0 },
            Window::default(),
        ],
        [first, ..] => vec![first, Window { chunk: 7, ..first }, Window { chunk: 2, right: 0, ..first }],
    }
}

#[test]
fn every_published_shape_streams_in_all_its_ways() {
    Like::ALL.into_iter().for_each(check);
}
