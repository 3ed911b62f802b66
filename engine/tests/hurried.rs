// SPDX-License-Identifier: MPL-2.0
//! What a caller who is short of time may do with a stream.

mod common;

use std::thread;
use std::time::Duration;

use common::*;
use parakeet_engine::{Event, Overflow, StreamOptions, Word};

/// The words' text, with spaces where they belong.
fn text(words: &[Word]) -> String {
    let spaced = words.iter().filter(|word| !word.text.is_empty()).map(|word| {
        let space = if word.joined { "" } else { " " };
        format!("{space}{}", word.text)
    });
    spaced.collect::<String>().trim().to_owned()
}

#[test]
fn a_hurried_word_comes_in_pieces_that_are_the_same_text() {
    let engine = engine();
    let pcm = speech();
    let options = StreamOptions { look_ahead: Some(0), ..Default::default() };
    let unhurried = transcribe(&engine.stream(&options).expect("a stream"), &pcm, 1_280);
    let stream = engine.stream(&options).expect("a stream");
    for piece in pcm.chunks(1_280) {
        stream.push(piece).expect("the stream takes audio");
        thread::sleep(Duration::from_millis(4));
        stream.hurry();
    }
    stream.finish();
    let (mut words, mut horizon) = (Vec::new(), 0);
    loop {
        match stream.next().expect("the stream goes on") {
            Event::Word(word) => {
                assert!(word.start >= horizon, "{} starts before {horizon}", word.text);
                words.push(word);
            }
            Event::Progress { sample } => horizon = sample,
            Event::Finished { .. } => break,
            _ => {}
        }
    }
    // A mark that comes when its word is out goes.
    let marks = [',', '.'];
    assert_eq!(text(&words).replace(marks, ""), text(&unhurried).replace(marks, ""));
    let is_word = |id: &u32| engine.vocabulary().piece(*id).is_some_and(|piece| !piece.ends_with(marks));
    let tokens = |words: &[Word]| {
        let ids = words.iter().flat_map(|word| word.tokens.clone()).map(|t| t.token.id);
        ids.filter(is_word).collect()
    };
    let (hurried, expected): (Vec<u32>, Vec<u32>) = (tokens(&words), tokens(&unhurried));
    assert_eq!(hurried, expected);
    assert!(words.len() > unhurried.len(), "some word was hurried");
}

#[test]
fn what_waits_can_be_asked_for_and_given_up() {
    let stream = engine().stream(&StreamOptions::default()).expect("a stream");
    assert_eq!(stream.waiting(), None);
    // Less than a chunk, so that nothing is decoded, nor waits for its turn.
    stream.push(&speech()[..10_000]).expect("the stream takes audio");
    assert_eq!(stream.waiting(), None);
    stream.drop_oldest(4_000);
    let told = stream.try_next();
    assert!(matches!(told, Some(Event::Lost { start: 0, samples: 4_000 })), "{told:?}");
    stream.finish();
    let (_, events) = utterance(&stream);
    assert!(!events.iter().any(|event| matches!(event, Event::Lost { .. })), "{events:?}");
    assert!(matches!(events.last(), Some(Event::Finished { sample: 10_000 })), "{events:?}");
    assert_eq!(stream.waiting(), None);
    stream.drop_oldest(1);
}

#[test]
fn a_writer_that_waits_for_room_goes_on_when_there_is_to_be_none() {
    let options = StreamOptions { queue_samples: 16_000, ..Default::default() };
    let stream = engine().stream(&options).expect("a stream");
    // Events that nobody takes hold the stream up, and with it the writer.
    let hour = vec![0.0; 3_600 * 16_000];
    thread::scope(|scope| {
        let writer = scope.spawn(|| stream.push(&hour));
        for _ in 0..300 {
            stream.finish();
        }
        thread::sleep(Duration::from_millis(100));
        stream.set_queue(16_000, Overflow::DropOldest);
        assert_eq!(writer.join().expect("no panic"), Ok(()));
    });
}
