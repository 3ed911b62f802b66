// SPDX-License-Identifier: MPL-2.0
//! Long whole signals: beside other streams, and what they take.

use std::sync::atomic::AtomicBool;
use std::thread;

use super::*;
use crate::Fault;

const WHOLE: Mode = Mode::Offline { context: 0 };
const CACHED: Mode = Mode::Cached { context: 0 };

/// Real speech over and over, of so many minutes.
fn minutes(count: usize) -> Vec<f32> {
    speech().into_iter().cycle().take(count * 60 * 16_000).collect()
}

/// Streams with caches and whole signals, each on its own stream of work of the card, say what they say alone.
#[test]
#[ignore = "needs an NVIDIA GPU"]
fn whole_signals_run_beside_streams() {
    let (model, pcm, file) = (mini(), speech(), minutes(10));
    for precision in [Precision::F32, Precision::F16] {
        let mut cuda = backend(&model, &options(precision));
        let [stream_alone, file_alone] =
            [(CACHED, &pcm), (WHOLE, &file)].map(|(mode, pcm)| tokens(&run(&mut cuda, 0, mode, pcm).1));
        let mut second = cuda.second().expect("there is memory");
        let done = AtomicBool::new(false);
        let (streams, files) = thread::scope(|scope| {
            let files = scope.spawn(|| {
                let files: Vec<_> = (0..5).map(|_| tokens(&run(&mut second, 0, WHOLE, &file).1)).collect();
                done.store(true, Ordering::Relaxed);
                files
            });
            let mut streams = Vec::new();
            while streams.is_empty() || !done.load(Ordering::Relaxed) {
                streams.push(tokens(&run(&mut cuda, 0, CACHED, &pcm).1));
            }
            (streams, files.join().expect("no panic"))
        });
        let (mut same, mut all) = (0, 0);
        for (got, alone) in
            streams.iter().map(|got| (got, &stream_alone)).chain(files.iter().map(|got| (got, &file_alone)))
        {
            if precision == Precision::F32 {
                assert_eq!(got, alone);
            }
            let (equal, of) = agreement(got, alone);
            (same, all) = (same + equal, all + of);
        }
        println!(
            "{precision}: {} streams beside {} files, {same} of {all} tokens as alone",
            streams.len(),
            files.len()
        );
        assert!(same * 100 >= all * 99 && file_alone.len() > 500);
    }
}

/// A model with full attention and random weights.
fn hears_everything(dir: &Path) -> Arc<Model> {
    let synthetic = SynthOptions { like: Like::TdtCtc110m, vocabulary: Some(300), layers: Some(4), seed: 1 };
    let path = dir.join("model");
    synthesize(&synthetic, &path, &ConvertOptions::default(), &mut |_, _| {}).expect("a model");
    Arc::new(Model::load(&path).expect("it is whole"))
}

/// A long signal takes what was estimated, positions of one layer at a time among it, gives it back, and is refused where
/// there is no room.
#[test]
#[ignore = "needs an NVIDIA GPU"]
fn long_signals_take_what_is_estimated_and_give_it_back() {
    let dir = tempfile::tempdir().expect("a directory");
    let model = hears_everything(dir.path());
    let mut cuda = backend(&model, &options(Precision::F16));
    let short = minutes(1);
    let (held, _) = run(&mut cuda, 0, WHOLE, &short);
    cuda.most_held = 0;
    let (made, _) = run(&mut cuda, 0, WHOLE, &short);
    assert!(cuda.long_positions.is_some() && !held.is_empty() && held == made);
    cuda.most_held = MOST_HELD;
    cuda.shrink();

    let file = minutes(60);
    let free = |cuda: &CudaBackend| cuda.memory().expect("it is known").free;
    let before = free(&cuda);
    let estimate = cuda.signal_bytes(WHOLE, file.len()).expect("it is known");
    run(&mut cuda, 0, WHOLE, &file);
    let taken = before.saturating_sub(free(&cuda));
    println!("{taken} of {estimate} bytes");
    assert!(cuda.long_positions.is_some() && taken <= estimate + (64 << 20), "{taken} of {estimate}");
    cuda.rest();
    let kept = before.saturating_sub(free(&cuda));
    println!("{kept} bytes are kept");
    assert!(kept < 64 << 20 && 4 * kept < taken, "{kept} of {taken}");

    let slot = cuda.open(WHOLE, 0).expect("a slot");
    cuda.others_reserve.store(usize::MAX / 2, Ordering::Relaxed);
    let refused = cuda.step(&[Step { slot, pcm: &file, end: true }]).remove(0).expect_err("no room");
    println!("{refused}");
    assert_eq!(refused.fault(), Some(Fault::OutOfMemory));
    assert!(refused.to_string().contains("--left 10 --chunk 2 --right 2"));
}
