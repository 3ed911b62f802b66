// SPDX-License-Identifier: MPL-2.0
//! A card that a kernel has broken for the process. A program of its own, since nothing else can use the card after it:
//! `cargo test -p parakeet-engine --test sticky -- --ignored --nocapture`.

mod common;

use std::ffi::CString;
use std::time::Duration;

use common::*;
use cudarc::driver::{CudaContext, result};
use parakeet_engine::{BackendChoice, Engine, EngineOptions, Event, Fault, Stream, StreamOptions};

/// Writes to an address that nobody has.
const CRASH: &str = "
.version 7.0
.target sm_70
.address_size 64
.visible .entry crash()
{
    .reg .b32 %r<2>;
    .reg .b64 %rd<2>;
    mov.u64 %rd1, 64;
    mov.u32 %r1, 1;
    st.global.u32 [%rd1], %r1;
    ret;
}
";

/// Runs the kernel on the first card.
#[allow(unsafe_code)]
fn break_the_first_card() {
    let context = CudaContext::new(0).expect("there is a card");
    context.bind_to_thread().expect("it can be used");
    let (code, name) = (CString::new(CRASH).expect("a text"), CString::new("crash").expect("a text"));
    // SAFETY: the code is a text that ends with a zero, the kernel has no arguments, and the handles are those just made. It
    // breaks the context, which is what it is for; no memory of this program is touched.
    unsafe {
        let module = result::module::load_data(code.as_ptr().cast()).expect("the kernel loads");
        let kernel = result::module::get_function(module, name).expect("it is there");
        let one = (1, 1, 1);
        result::launch_kernel(kernel, one, one, 0, std::ptr::null_mut(), &mut []).expect("it starts");
    }
    assert!(context.synchronize().is_err(), "the card is broken");
}

/// Words up to the end of the utterance, and how often the stream went elsewhere.
fn heard(stream: &Stream) -> (Vec<String>, usize) {
    let (words, events) = utterance(stream);
    let recovered = events.iter().filter_map(|event| match event {
        Event::Recovered { error, gap, .. } => Some((error.fault(), *gap)),
        _ => None,
    });
    let recovered: Vec<_> = recovered.collect();
    assert!(recovered.iter().all(|(fault, _)| *fault == Some(Fault::DeviceLost)), "{recovered:?}");
    if let Some((_, gap)) = recovered.first() {
        println!("{:.3} s without a word", gap.as_secs_f64());
    }
    (words.into_iter().map(|word| word.text).collect(), recovered.len())
}

#[test]
#[ignore = "needs a GPU, and breaks it for the process"]
fn streams_of_a_card_that_broke_go_on() {
    // With one card on the processor, with several on the others.
    let options = EngineOptions { backend: BackendChoice::Auto, ..Default::default() };
    let dir = root().join("models/parakeet-tdt-mini");
    let engine = Engine::open(&dir, &options).expect("the embedded model loads");
    println!("{:?}", engine.devices());
    assert!(engine.devices()[0].starts_with("cuda"), "{:?}", engine.passed_over());
    let pcm = speech();
    let half = pcm.len() / 2;
    let stream = || engine.stream(&StreamOptions::default()).expect("a stream");
    let (undisturbed, none) = {
        let stream = stream();
        stream.push(&pcm).expect("the stream takes audio");
        stream.finish();
        heard(&stream)
    };
    assert_eq!(none, 0);
    let streams: Vec<_> = (0..8).map(|_| stream()).collect();
    for stream in &streams {
        stream.push(&pcm[..half]).expect("the stream takes audio");
    }
    std::thread::sleep(Duration::from_millis(500));
    break_the_first_card();
    for stream in &streams {
        stream.push(&pcm[half..]).expect("the stream takes audio");
        stream.finish();
    }
    let all: Vec<_> = streams.iter().map(heard).collect();
    let moved = all.iter().filter(|(_, recovered)| *recovered > 0).count();
    let same =
        all.iter().flat_map(|(words, _)| words.iter().zip(&undisturbed)).filter(|(a, b)| a == b).count();
    println!("{moved} of 8 streams moved, {same} of {} words are as undisturbed", 8 * undisturbed.len());
    assert!(moved >= 4 && same * 100 >= 8 * undisturbed.len() * 95);
    // Whoever opens the model now gets what works.
    let again = Engine::open(&dir, &options).expect("there is a device");
    let stream = again.stream(&StreamOptions::default()).expect("a stream");
    stream.push(&pcm).expect("the stream takes audio");
    stream.finish();
    assert_eq!(heard(&stream).0, undisturbed);
    println!("{:?}", again.devices());
}
