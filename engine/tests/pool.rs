// SPDX-License-Identifier: MPL-2.0
//! A program that uses rayon's global pool as it likes.

mod common;

use std::sync::mpsc::channel;
use std::time::Duration;

use common::*;
use parakeet_engine::{StreamOptions, Window};

/// Two threads are all that the pool has, and both wait for long windows, which are stepped together.
#[test]
fn all_threads_of_the_global_pool_may_wait_for_streams() {
    rayon::ThreadPoolBuilder::new().num_threads(2).build_global().expect("nobody used it before");
    let engine = engine();
    let pcm = speech();
    // Longer than all of the audio, so that each file is one step.
    let window = Some(Window { left: 0, chunk: 1_000, right: 0 });
    let whole = StreamOptions { window, queue_samples: 9 * pcm.len(), ..Default::default() };
    // Opened first, since that waits for the step under way. While the long one is stepped the others come, so that they are
    // stepped together.
    let [long, first, second] = [(); 3].map(|()| engine.stream(&whole).expect("a stream"));
    (0..8).for_each(|_| long.push(&pcm).expect("the stream takes audio"));
    long.finish();
    let (done, texts) = channel();
    for stream in [first, second] {
        let (done, pcm) = (done.clone(), pcm.clone());
        rayon::spawn(move || done.send(text(&transcribe(&stream, &pcm, 8_000))).expect("the test listens"));
    }
    let text = || texts.recv_timeout(Duration::from_secs(60)).expect("neither waits for ever");
    let (first, second) = (text(), text());
    assert!(first.split(' ').count() > 5, "{first}");
    assert_eq!(first, second);
}
