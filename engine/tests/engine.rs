// SPDX-License-Identifier: MPL-2.0
//! Streams of the embedded model through the public interface, against what NeMo decodes (`tests/data/expected.json`).

mod common;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use common::*;
use parakeet_engine::{
    BackendChoice, Engine, EngineOptions, Event, Overflow, PushError, Stream, StreamOptions, Window, Word,
};

/// More than the events that may wait, so a stream with so many is not stepped.
const MANY: usize = 300;

#[test]
fn real_speech_equals_nemo_in_every_context_and_piece_size() {
    let engine = engine();
    let mut compared = 0;
    for (name, file) in &expected().files {
        let pcm = wav(&Path::new(SPEECH).join(name));
        for (context, expected) in &file.contexts {
            let options = StreamOptions { look_ahead: Some(look_ahead(context)), ..as_nemo() };
            let stream = engine.stream(&options).expect("a stream");
            for piece in [pcm.len(), 1_601] {
                let words = transcribe(&stream, &pcm, piece);
                // The second utterance's tokens count from its own start.
                compared += assert_same(&format!("{name} {context} {piece}"), &words, expected);
            }
        }
    }
    println!("{compared} tokens compared");
    assert!(compared >= 800);
}

#[test]
fn a_millisecond_at_a_time() {
    let engine = engine();
    let expected = expected();
    let (name, file) = expected.files.first_key_value().expect("there are files");
    let pcm = wav(&Path::new(SPEECH).join(name));
    let (context, expected) = file.contexts.first_key_value().expect("there are contexts");
    let options = StreamOptions { look_ahead: Some(look_ahead(context)), ..as_nemo() };
    let words = transcribe(&engine.stream(&options).expect("a stream"), &pcm, 16);
    assert!(assert_same(name, &words, expected) > 10);
}

#[test]
fn many_streams_at_once_are_each_as_if_alone() {
    let engine = engine();
    let expected = Arc::new(expected());
    let threads: Vec<_> = (0..24)
        .map(|i| {
            let (engine, expected) = (engine.clone(), expected.clone());
            thread::spawn(move || {
                let (name, file) = expected.files.iter().nth(i % expected.files.len()).expect("a file");
                let (context, expected) =
                    file.contexts.iter().nth(i % file.contexts.len()).expect("a context");
                let pcm = wav(&Path::new(SPEECH).join(name));
                let options = StreamOptions { look_ahead: Some(look_ahead(context)), ..as_nemo() };
                let stream = engine.stream(&options).expect("a stream");
                assert_same(name, &transcribe(&stream, &pcm, 300 + 97 * i), expected)
            })
        })
        .collect();
    let compared: usize = threads.into_iter().map(|t| t.join().expect("the transcript is right")).sum();
    println!("{compared} tokens compared");
}

#[test]
fn utterances_follow_each_other_on_one_clock() {
    let engine = engine();
    let pcm = speech();
    let stream = engine.stream(&StreamOptions::default()).expect("a stream");
    let first = transcribe(&stream, &pcm, pcm.len());
    stream.finish();
    let (words, events) = utterance(&stream);
    assert!(words.is_empty(), "an utterance without audio has no words");
    let length = pcm.len() as u64;
    assert!(matches!(events[..], [.., Event::Finished { sample }] if sample == length), "{events:?}");
    let second = transcribe(&stream, &pcm, 999);
    assert!(first.len() > 5);
    for (first, second) in first.iter().zip(&second) {
        assert_eq!((&first.text, first.start + length), (&second.text, second.start));
    }
    assert_eq!(first.len(), second.len());
}

#[test]
fn progress_never_passes_a_word_that_is_still_to_come() {
    let engine = engine();
    let pcm = speech();
    let stream =
        engine.stream(&StreamOptions { look_ahead: Some(0), ..Default::default() }).expect("a stream");
    let mut horizon = 0;
    let mut words = 0;
    for piece in pcm.chunks(1_280) {
        stream.push(piece).expect("the stream takes audio");
        thread::sleep(Duration::from_millis(2));
    }
    stream.finish();
    loop {
        match stream.next().expect("the stream goes on") {
            Event::Word(word) => {
                assert!(word.start >= horizon, "{} starts before {horizon}", word.text);
                words += 1;
            }
            Event::Progress { sample } => {
                assert!(sample >= horizon && sample <= pcm.len() as u64);
                horizon = sample;
            }
            Event::Finished { sample } => {
                assert_eq!(sample, pcm.len() as u64);
                break;
            }
            event => panic!("{event:?}"),
        }
    }
    assert_eq!(horizon, pcm.len() as u64);
    assert!(words > 5);
}

/// A stream that is not stepped, since nobody takes its events.
fn paused(engine: &Arc<Engine>, overflow: Overflow) -> Stream {
    let options = StreamOptions { queue_samples: 32_000, overflow, ..Default::default() };
    let stream = engine.stream(&options).expect("a stream");
    for _ in 0..MANY {
        stream.finish();
    }
    stream
}

#[test]
fn a_stream_nobody_reads_holds_up_no_other_and_its_writer_waits() {
    let engine = engine();
    let pcm = speech();
    let stuck = Arc::new(paused(&engine, Overflow::Block));
    let full = Arc::new(AtomicBool::new(false));
    let writer = {
        let (stuck, full, pcm) = (stuck.clone(), full.clone(), pcm.clone());
        thread::spawn(move || {
            let result = stuck.push(&pcm);
            full.store(true, Ordering::SeqCst);
            result
        })
    };
    let other = engine.stream(&StreamOptions::default()).expect("a stream");
    assert!(transcribe(&other, &pcm, 8_000).len() > 5);
    assert!(!full.load(Ordering::SeqCst), "{} samples don't fit into 32,000", pcm.len());
    // Taking the events lets the stream go on and the writer finish: nothing is lost.
    for _ in 0..MANY {
        utterance(&stuck);
    }
    assert_eq!(writer.join().expect("no panic"), Ok(()));
    stuck.finish();
    assert_eq!(text(&utterance(&stuck).0), text(&transcribe(&other, &pcm, 100)));
}

#[test]
fn reset_wakes_a_waiting_writer_and_starts_anew() {
    let engine = engine();
    let pcm = speech();
    let stream = Arc::new(paused(&engine, Overflow::Block));
    let writer = {
        let (stream, pcm) = (stream.clone(), pcm.clone());
        thread::spawn(move || stream.push(&pcm))
    };
    thread::sleep(Duration::from_millis(100));
    stream.reset();
    assert_eq!(writer.join().expect("no panic"), Err(PushError::Reset));
    let words = transcribe(&stream, &pcm, pcm.len());
    let fresh = engine.stream(&StreamOptions::default()).expect("a stream");
    assert_eq!(words, transcribe(&fresh, &pcm, pcm.len()));
}

#[test]
fn a_full_queue_can_drop_its_oldest_and_says_so() {
    let engine = engine();
    let pcm = speech();
    let stream = paused(&engine, Overflow::DropOldest);
    let rounds = 3;
    for _ in 0..rounds {
        stream.push(&pcm).expect("dropping never waits");
    }
    for _ in 0..MANY {
        utterance(&stream);
    }
    stream.finish();
    let (words, events) = utterance(&stream);
    let total = rounds * pcm.len() as u64;
    let mut lost = 0;
    for event in &events {
        if let Event::Lost { start, samples } = event {
            assert_eq!(*start, lost, "one piece, from the oldest on");
            lost += samples;
        }
    }
    assert!(lost >= total - 32_000 && lost < total, "{lost} of {total} lost");
    assert!(matches!(events.last(), Some(Event::Finished { sample }) if *sample == total));
    assert!(words.iter().all(|word| word.start >= lost), "no word from what was dropped");
}

#[test]
fn losses_in_mid_stream_keep_the_clock() {
    let engine = engine();
    let pcm = speech();
    let options = StreamOptions {
        queue_samples: 24_000,
        overflow: Overflow::DropOldest,
        look_ahead: Some(13),
        ..Default::default()
    };
    let stream = engine.stream(&options).expect("a stream");
    // Faster than any processor computes, so that some of it must go while the stream is in the middle of it.
    let rounds = 40;
    for _ in 0..rounds {
        stream.push(&pcm).expect("dropping never waits");
    }
    stream.finish();
    let (words, events) = utterance(&stream);
    let total = rounds * pcm.len() as u64;
    let lost: u64 =
        events.iter().map(|e| if let Event::Lost { samples, .. } = e { *samples } else { 0 }).sum();
    assert!(lost > 0 && lost < total, "{lost} of {total} lost");
    assert!(words.windows(2).all(|pair| pair[0].end <= pair[1].start), "words keep their order");
    assert!(matches!(events.last(), Some(Event::Finished { sample }) if *sample == total));
}

#[test]
fn broken_samples_count_as_silence() {
    let engine = engine();
    let mut pcm = speech();
    let mut clean = pcm.clone();
    for i in (20_000..20_050).chain(40_000..40_003) {
        pcm[i] = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY][i % 3];
        clean[i] = 0.0;
    }
    let stream = engine.stream(&StreamOptions::default()).expect("a stream");
    assert_eq!(text(&transcribe(&stream, &pcm, 777)), text(&transcribe(&stream, &clean, 777)));
}

#[test]
fn interrupt_wakes_the_reader_once() {
    let engine = engine();
    let stream = Arc::new(engine.stream(&StreamOptions::default()).expect("a stream"));
    let reader = {
        let stream = stream.clone();
        thread::spawn(move || stream.next().is_none())
    };
    thread::sleep(Duration::from_millis(50));
    stream.interrupt();
    assert!(reader.join().expect("no panic"));
    stream.finish();
    assert!(utterance(&stream).0.is_empty(), "and the stream goes on");
}

#[test]
fn streams_come_and_go_in_any_state() {
    let engine = engine();
    let pcm = speech();
    for round in 0..120 {
        let stream =
            engine.stream(&StreamOptions { look_ahead: Some(0), ..Default::default() }).expect("a stream");
        stream.push(&pcm[..round * 200]).expect("the stream takes audio");
        match round % 3 {
            0 => stream.finish(),
            1 => stream.reset(),
            _ => {}
        }
    }
    let stream = engine.stream(&StreamOptions::default()).expect("a stream");
    assert!(transcribe(&stream, &pcm, pcm.len()).len() > 5);
}

#[test]
fn one_engine_for_all_who_ask_for_the_same() {
    let dir = root().join("models/parakeet-tdt-mini");
    let options = EngineOptions { backend: BackendChoice::Cpu, threads: 1, ..Default::default() };
    let first = Engine::open(&dir, &options).expect("the embedded model loads");
    let again = Engine::open(&dir.join("../parakeet-tdt-mini"), &options).expect("the embedded model loads");
    assert!(Arc::ptr_eq(&first, &again));
    let other =
        Engine::open(&dir, &EngineOptions { threads: 2, ..options }).expect("the embedded model loads");
    assert!(!Arc::ptr_eq(&first, &other));
}

#[test]
fn auto_takes_what_works_and_keeps_why_the_rest_does_not() {
    let dir = root().join("models/parakeet-tdt-mini");
    let open = |backend| Engine::open(&dir, &EngineOptions { backend, threads: 1, ..Default::default() });
    let auto = open(BackendChoice::Auto).expect("the embedded model loads");
    match open(BackendChoice::Cuda) {
        Ok(cuda) => assert_eq!((auto.devices(), auto.passed_over()), (cuda.devices(), cuda.passed_over())),
        Err(missing) => {
            assert_eq!(auto.devices(), ["cpu, 1 threads"]);
            assert_eq!(auto.passed_over()[0], missing.to_string());
            if let Err(reason) = parakeet_engine::backend::cuda::count() {
                assert_eq!(auto.passed_over(), [reason.to_string()]);
            }
        }
    }
    let cpu = open(BackendChoice::Cpu).expect("the embedded model loads");
    assert_eq!((cpu.devices(), cpu.passed_over().len()), (vec!["cpu, 1 threads".to_owned()], 0));
}

#[test]
fn errors_name_the_thing_and_the_remedy() {
    let missing =
        Engine::open(Path::new("no/such/model"), &EngineOptions::default()).err().expect("no model");
    assert!(
        missing.to_string().contains("no/such/model") && missing.to_string().contains("parakeet convert")
    );
    let options = StreamOptions { look_ahead: Some(5), ..Default::default() };
    let wrong = engine().stream(&options).err().expect("no such context");
    assert_eq!(
        wrong.to_string(),
        "look-ahead: the model has none of 400 ms (frames of 80 ms: 5); it has 1040, 480, 80, 0 ms (frames: 13, 6, 1, 0)"
    );
    let backend = "gpu".parse::<BackendChoice>().expect_err("no such backend");
    assert!(backend.to_string().contains("there are auto, cpu, cuda"));
}

#[test]
fn one_pass_windows_and_skipped_silence_give_the_same_words() {
    let engine = engine();
    // The model is causal, and a window that holds everything shows it all that it sees: the chunk and right context are
    // whole chunks of its own.
    let window = Window::from_seconds(20.0, 1.12, 1.12).expect("a window");
    let ways = [
        StreamOptions { offline: true, ..as_nemo() },
        StreamOptions { window: Some(window), ..as_nemo() },
        StreamOptions { skip_silence: true, ..as_nemo() },
    ];
    let mut compared = 0;
    for (name, file) in &expected().files {
        let pcm = wav(&Path::new(SPEECH).join(name));
        for (context, expected) in &file.contexts {
            for way in &ways {
                let options = StreamOptions { look_ahead: Some(look_ahead(context)), ..way.clone() };
                let stream = engine.stream(&options).expect("a stream");
                let words = transcribe(&stream, &pcm, 4_000);
                compared += assert_same(&format!("{name} {context} {way:?}"), &words, expected);
            }
        }
    }
    println!("{compared} tokens compared");
    assert!(compared >= 1_200);
}

#[test]
fn partial_words_grow_into_words() {
    let engine = engine();
    let options = StreamOptions { look_ahead: Some(0), partials: true, ..Default::default() };
    let stream = engine.stream(&options).expect("a stream");
    for piece in speech().chunks(1_280) {
        stream.push(piece).expect("the stream takes audio");
    }
    stream.finish();
    let (mut partials, mut grown, mut words) = (Vec::<Word>::new(), 0, 0);
    loop {
        match stream.next().expect("the stream goes on") {
            Event::Partial(word) => partials.push(word),
            Event::Word(word) => {
                assert!(partials.iter().all(|partial| partial.start == word.start), "{partials:?} {word:?}");
                grown += usize::from(partials.iter().any(|partial| partial.text == word.text));
                (words, partials) = (words + 1, Vec::new());
            }
            Event::Finished { .. } => break,
            event => assert!(matches!(event, Event::Progress { .. }), "{event:?}"),
        }
    }
    assert!(words > 5 && grown + 2 >= words, "{grown} of {words} words were announced");
}

/// The embedded model with other pieces in place of some of its own.
fn renamed(pieces: &[(&str, &str)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let model = root().join("models/parakeet-tdt-mini");
    for name in ["config.json", "model.safetensors"] {
        std::fs::copy(model.join(name), dir.path().join(name)).expect("the model is in the tree");
    }
    let tokens = std::fs::read_to_string(model.join("tokens.txt")).expect("the model is in the tree");
    let other =
        |line: &str| pieces.iter().find(|pair| pair.0 == line).map_or(line.to_owned(), |pair| pair.1.into());
    let tokens: String = tokens.lines().map(|line| format!("{}\n", other(line))).collect();
    std::fs::write(dir.path().join("tokens.txt"), tokens).expect("a temporary directory");
    dir
}

#[test]
fn words_without_spaces_bytes_and_tags_come_through_a_stream() {
    // What is heard as "He was not an ill sposed young man".
    let dir = renamed(&[
        ("▁He", "<en>"),
        ("▁was", "▁我"),
        ("▁not", "用"),
        ("▁an", "<|nopnc|>\tuser"),
        ("▁", "<pad>\tcontrol"),
        ("ill", "Py"),
        ("▁sp", "thon"),
        ("os", "<0xE5>\tbyte"),
        ("ed", "<0x86>\tbyte"),
        ("▁young", "<0x99>\tbyte"),
        ("▁man", "。"),
    ]);
    let options = EngineOptions { backend: BackendChoice::Cpu, threads: 2, ..Default::default() };
    let engine = Engine::open(dir.path(), &options).expect("the model loads");
    let partials = StreamOptions { look_ahead: Some(0), partials: true, ..Default::default() };
    let (name, mut texts) = ("sense_and_sensibility_01_austen_64kb-0880.wav", Vec::new());
    let pcm = wav(&Path::new(SPEECH).join(name));
    for options in [StreamOptions::default(), partials] {
        let stream = engine.stream(&options).expect("a stream");
        stream.push(&pcm).expect("the stream takes audio");
        stream.finish();
        let (words, events) = utterance(&stream);
        if !options.partials {
            let spoken: Vec<_> = words.iter().map(|word| (word.text.as_str(), word.joined)).collect();
            assert_eq!(spoken, [("我", false), ("用", true), ("Python", true), ("写。", true)]);
            let starts: Vec<u64> = words.iter().map(|word| word.tokens[0].start / 1_280).collect();
            assert_eq!(starts, [11, 14, 23, 29]);
            assert!(words.windows(2).all(|pair| pair[0].end <= pair[1].start));
        }
        let is_english = |event: &&Event| matches!(event, Event::Language { code, .. } if code == "en");
        assert_eq!(events.iter().filter(is_english).count(), 1);
        texts.extend(events.into_iter().filter_map(|event| match event {
            Event::Partial(word) => Some(word.text),
            _ => None,
        }));
    }
    assert!(texts.len() > 3);
    assert!(texts.iter().all(|text| !text.contains(['<', char::REPLACEMENT_CHARACTER])), "{texts:?}");
}

#[test]
fn the_end_of_an_utterance_is_an_event_and_no_text() {
    let dir = renamed(&[(",", "<EOU>")]);
    let plain = engine().stream(&StreamOptions::default()).expect("a stream");
    let heard = transcribe(&plain, &speech(), 4_000);
    let engine = Engine::open(dir.path(), &EngineOptions::default()).expect("the model loads");
    let stream = engine.stream(&StreamOptions::default()).expect("a stream");
    stream.push(&speech()).expect("the stream takes audio");
    stream.finish();
    let (words, events) = utterance(&stream);
    let ends: Vec<_> =
        events.iter().filter(|e| matches!(e, Event::EndOfUtterance { backchannel: false, .. })).collect();
    let expected = heard.iter().filter(|word| word.text.ends_with(',')).count();
    assert!(expected > 0 && ends.len() == expected, "{events:?}");
    assert_eq!(text(&words), text(&heard).replace(',', ""));
}

#[test]
fn many_streams_are_read_on_one_thread_without_waiting() {
    let engine = engine();
    let pcm = speech();
    let streams: Vec<_> =
        (0..3).map(|_| engine.stream(&StreamOptions::default()).expect("a stream")).collect();
    assert!(streams.iter().all(|stream| stream.try_next().is_none()), "nothing was said");
    let expected = transcribe(&streams[0], &pcm, 4_000);
    for stream in &streams[1..] {
        stream.push(&pcm).expect("the stream takes audio");
        stream.finish();
    }
    let mut words = [Vec::new(), Vec::new()];
    let mut finished = 0;
    while finished < words.len() {
        for (stream, words) in streams[1..].iter().zip(&mut words) {
            match stream.try_next() {
                Some(Event::Word(word)) => words.push(word),
                Some(Event::Finished { .. }) => finished += 1,
                Some(_) => {}
                None => thread::yield_now(),
            }
        }
    }
    assert!(words.iter().all(|words| text(words) == text(&expected) && words.len() > 5));
    assert!(streams.iter().all(|stream| stream.try_next().is_none()), "and nothing comes after the end");
}
