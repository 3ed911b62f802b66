// SPDX-License-Identifier: MPL-2.0
//! How much memory long signals take, by an allocator that counts.

mod common;

use std::sync::Arc;

use common::*;
use parakeet_engine::backend::{Mode, Step, open};
use parakeet_engine::convert::{ConvertOptions, Like, SynthOptions, synthesize};
use parakeet_engine::model::Model;
use parakeet_engine::{BackendChoice, EngineOptions, StreamOptions};
use peak_alloc::PeakAlloc;

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

const MINUTE: usize = 60 * 16_000;

/// Most bytes that `work` had beyond those that there were.
fn peak<T>(work: impl FnOnce() -> T) -> (usize, T) {
    let before = ALLOCATOR.current_usage();
    ALLOCATOR.reset_peak_usage();
    let result = work();
    (ALLOCATOR.peak_usage() - before, result)
}

/// In one test, since all of a process are counted.
#[test]
fn memory_is_what_was_estimated() {
    a_model_with_caches_takes_no_more_for_longer_audio();
    a_whole_signal_takes_no_more_than_is_estimated();
}

fn a_model_with_caches_takes_no_more_for_longer_audio() {
    let engine = engine();
    let options = StreamOptions { offline: true, ..Default::default() };
    let heard = |minutes: usize| {
        let pcm: Vec<f32> = speech().into_iter().cycle().take(minutes * MINUTE).collect();
        let stream = engine.stream(&options).expect("a stream");
        let text = || {
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    pcm.chunks(8_000).for_each(|piece| stream.push(piece).expect("it is taken"));
                    stream.finish();
                });
                utterance(&stream).0.len()
            })
        };
        peak(text)
    };
    heard(1);
    let ((short, few), (long, many)) = (heard(1), heard(4));
    println!("1 minute: {short} bytes, {few} words; 4 minutes: {long} bytes, {many} words");
    assert!(many > 3 * few && few > 50);
    // The words themselves, which are gathered here.
    assert!(long < short + 1_000 * many, "{short} {long}");
}

fn a_whole_signal_takes_no_more_than_is_estimated() {
    let dir = tempfile::tempdir().expect("a directory");
    let synthetic = SynthOptions { like: Like::TdtCtc110m, vocabulary: Some(300), layers: Some(2), seed: 1 };
    let path = dir.path().join("model");
    synthesize(&synthetic, &path, &ConvertOptions::default(), &mut |_, _| {}).expect("a model");
    let model = Arc::new(Model::load(&path).expect("it is whole"));
    let options = EngineOptions { backend: BackendChoice::Cpu, threads: 2, ..Default::default() };
    let mut backend = open(&model, &options).expect("it runs").backends.remove(0);
    let mode = Mode::Offline { context: 0 };
    let slot = backend.open(mode, 0).expect("a slot");
    for minutes in [1, 4] {
        let pcm: Vec<f32> = speech().into_iter().cycle().take(minutes * MINUTE).collect();
        let estimate = backend.signal_bytes(mode, pcm.len()).expect("it is known");
        assert!(estimate < 64 << 20, "of more it is tried first whether it can be had, which counts too");
        let (taken, results) = peak(|| backend.step(&[Step { slot, pcm: &pcm, end: true }]));
        let decoded = results.into_iter().next().expect("a result").expect("the step succeeds");
        println!("{minutes} minutes, {} frames: {taken} of {estimate} bytes", decoded.frames);
        assert!(taken <= estimate && 2 * taken > estimate, "{minutes} minutes: {taken} of {estimate}");
        let (kept, ()) = peak(|| backend.reset(slot));
        assert!(kept < 1 << 20, "{kept}");
    }
    let after = ALLOCATOR.current_usage();
    backend.close(slot);
    // What a pass took is given back at its end, not with its stream.
    assert!(after - ALLOCATOR.current_usage() < 1 << 20);
}
