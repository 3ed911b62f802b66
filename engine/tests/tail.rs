// SPDX-License-Identifier: MPL-2.0
//! The end of an utterance that nothing follows: the model hears silence there, and its last word is whole.

mod common;

use std::path::Path;
use std::sync::Arc;

use common::*;
use parakeet_engine::{Engine, Event, StreamOptions, Window, Word};

/// The sentences, cut behind their last loud sample.
fn cut_sentences() -> Vec<(String, Vec<f32>)> {
    let expected = expected();
    let sentences = expected.files.iter().map(|(name, file)| {
        let mut pcm = wav(&Path::new(SPEECH).join(name));
        let peak = pcm.iter().fold(0.0_f32, |peak, sample| peak.max(sample.abs()));
        let last = pcm.iter().rposition(|sample| sample.abs() > peak / 20.0).expect("it is loud somewhere");
        pcm.truncate(last + 1);
        (last_word(&file.contexts["70,13"].text), pcm)
    });
    sentences.collect()
}

fn last_word(text: &str) -> String {
    text.rsplit(' ').next().unwrap_or_default().trim_end_matches(['.', ',', '?', '!']).to_lowercase()
}

fn ways() -> Vec<StreamOptions> {
    let streamed = |look_ahead| StreamOptions { look_ahead: Some(look_ahead), ..Default::default() };
    let window = Some(Window { left: 70, chunk: 14, right: 14 });
    vec![
        streamed(13),
        streamed(0),
        StreamOptions { offline: true, ..Default::default() },
        StreamOptions { window, ..Default::default() },
    ]
}

/// What is said of an utterance that ends with these samples.
fn hear(engine: &Arc<Engine>, options: &StreamOptions, pcm: &[f32]) -> Vec<Word> {
    let stream = engine.stream(options).expect("a stream");
    pcm.chunks(8_000).for_each(|piece| stream.push(piece).expect("the stream takes audio"));
    stream.finish();
    let (words, events) = utterance(&stream);
    let end = pcm.len() as u64;
    assert!(matches!(events[..], [.., Event::Finished { sample }] if sample == end), "{events:?}");
    let within = |event: &Event| !matches!(event, Event::Progress { sample } if *sample > end);
    assert!(events.iter().all(within), "{events:?}");
    assert!(words.iter().all(|word| word.end <= end && word.heard <= end), "{words:?}");
    words
}

#[test]
fn the_last_word_is_heard_though_nothing_follows_it() {
    let engine = engine();
    let mut lost = 0;
    for (expected, pcm) in cut_sentences() {
        let heard = |options: &StreamOptions| last_word(&text(&hear(&engine, options, &pcm)));
        for options in [StreamOptions::default(), StreamOptions { offline: true, ..Default::default() }] {
            assert_eq!(heard(&options), expected, "{options:?}");
        }
        lost += usize::from(heard(&as_nemo()) != expected);
    }
    assert!(lost >= 2, "the sentences end too softly to show anything");
}

#[test]
fn silence_behind_an_utterance_is_as_if_it_were_in_the_audio() {
    let engine = engine();
    let (_, pcm) = cut_sentences().swap_remove(1);
    for options in ways() {
        let padded = [&pcm[..], &[0.0; 8_000]].concat();
        let tokens = |words: Vec<Word>| -> Vec<_> {
            words
                .iter()
                .flat_map(|word| &word.tokens)
                .map(|timed| (timed.token.id, timed.token.frame))
                .collect()
        };
        let without = StreamOptions { tail_samples: 0, ..options.clone() };
        let (tail, audio) = (tokens(hear(&engine, &options, &pcm)), tokens(hear(&engine, &without, &padded)));
        assert!(tail.len() > 5 && tail == audio, "{options:?}: {tail:?}, {audio:?}");
    }
}
