// SPDX-License-Identifier: MPL-2.0
//! What people do to a pipeline that plays: pause it, seek in it, play it again, for hours, a thousand times.

mod common;

use common::*;
use gst::prelude::*;
use std::{
    fs,
    sync::{Arc, Mutex},
};

const SECOND: gst::ClockTime = gst::ClockTime::SECOND;

/// A file that is recognised, and what was pushed.
struct Player {
    pipeline: gst::Pipeline,
    /// Text, running time, stream time.
    said: Arc<Mutex<Vec<(String, u64, u64)>>>,
}

impl Player {
    /// Plays a clip, in `sync` with the clock or as fast as it can; other caps may be asked of the audio on its way.
    fn new(clip: &str, sync: bool, caps: &str) -> Self {
        init();
        let scratch = Scratch::new(&format!("{clip}-{sync}-{}", caps.len()));
        let path = scratch.0.join("speech.wav");
        let pcm = speech(clip);
        fs::write(&path, wav(&pcm)).unwrap();
        let pipeline = gst::parse::launch(&format!(
            "filesrc location={} ! wavparse ! audioconvert ! audioresample ! {caps} ! audioconvert ! audioresample ! \
             parakeettdt model={} backend=cpu ! fakesink name=sink sync={sync}",
            path.display(),
            embedded().display()
        ));
        let pipeline = pipeline.unwrap().downcast::<gst::Pipeline>().unwrap();
        let said = Arc::new(Mutex::new(Vec::new()));
        let heard = said.clone();
        let pad = pipeline.by_name("sink").unwrap().static_pad("sink").unwrap();
        pad.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
            let buffer = info.buffer().unwrap();
            let text = String::from_utf8(buffer.map_readable().unwrap().to_vec()).unwrap();
            let meta = gst::meta::CustomMeta::from_buffer(buffer, "ParakeetWordsMeta").unwrap();
            let stream = meta.structure().get("stream-time").unwrap();
            heard.lock().unwrap().push((text, buffer.pts().unwrap().nseconds(), stream));
            gst::PadProbeReturn::Ok
        });
        // filesrc has it open from here on.
        pipeline.set_state(gst::State::Paused).unwrap();
        pipeline.state(60 * SECOND).0.unwrap();
        Player { pipeline, said }
    }

    fn play(&self) {
        self.pipeline.set_state(gst::State::Playing).unwrap();
    }

    /// Waits for the end; returns what was said since the last call.
    fn end(&self) -> Vec<(String, u64, u64)> {
        let kinds = [gst::MessageType::Eos, gst::MessageType::Error];
        let bus = self.pipeline.bus().unwrap();
        let message = bus.timed_pop_filtered(60 * SECOND, &kinds).expect("one of them comes");
        assert_eq!(message.type_(), gst::MessageType::Eos, "{message:?}");
        std::mem::take(&mut *self.said.lock().unwrap())
    }
}

impl Drop for Player {
    fn drop(&mut self) {
        self.pipeline.set_state(gst::State::Null).unwrap();
    }
}

/// A WAV file of S16LE samples at 16 kHz.
fn wav(pcm: &[i16]) -> Vec<u8> {
    let bytes = pcm.len() as u32 * 2;
    let mut file = Vec::new();
    file.extend(b"RIFF");
    file.extend((36 + bytes).to_le_bytes());
    file.extend(b"WAVEfmt \x10\0\0\0\x01\0\x01\0");
    file.extend(16_000_u32.to_le_bytes());
    file.extend(32_000_u32.to_le_bytes());
    file.extend(b"\x02\0\x10\0data");
    file.extend(bytes.to_le_bytes());
    file.extend(pcm.iter().flat_map(|sample| sample.to_le_bytes()));
    file
}

fn joined(said: &[(String, u64, u64)]) -> String {
    said.iter().map(|word| word.0.as_str()).collect::<Vec<_>>().join(" ")
}

const ANY: &str = "audio/x-raw";

#[test]
fn a_pause_loses_nothing() {
    let player = Player::new(SHORT, true, ANY);
    player.play();
    let mut pauses = 0;
    while player.pipeline.query_position::<gst::ClockTime>().is_none_or(|at| at < 2 * SECOND) && pauses < 20 {
        std::thread::sleep(std::time::Duration::from_millis(60));
        player.pipeline.set_state(gst::State::Paused).unwrap();
        std::thread::sleep(std::time::Duration::from_millis(60));
        player.play();
        pauses += 1;
    }
    assert!(pauses > 2);
    let said = player.end();
    assert_eq!(joined(&said), expected(SHORT, "70,13").text);
    assert!(said.iter().all(|word| word.1 == word.2), "a pause takes no running time");
}

#[test]
fn a_clip_may_be_played_again_and_from_anywhere() {
    let expected = expected("0870", "70,13");
    let player = Player::new("0870", false, ANY);
    player.play();
    assert_eq!(joined(&player.end()), expected.text);
    let flags = gst::SeekFlags::FLUSH | gst::SeekFlags::ACCURATE;
    player.pipeline.seek_simple(flags, gst::ClockTime::ZERO).unwrap();
    assert_eq!(joined(&player.end()), expected.text, "after its end");
    // From well before a word that follows a pause in the middle on.
    let gap = |at: &usize| expected.words[*at].1 - expected.words[at - 1].1;
    let (middle, rest) = (expected.words.len() / 3, 2 * expected.words.len() / 3);
    let at = (middle..rest).max_by_key(gap).unwrap();
    let from = gst::ClockTime::from_nseconds((expected.words[at].1 - 4_800) * 62_500);
    player.pipeline.seek_simple(flags, from).unwrap();
    let said = player.end();
    let there = expected.words.len() - at;
    assert!(said.len().abs_diff(there) <= 2, "{} of {there} words", said.len());
    assert!(said.iter().all(|word| word.1 + from.nseconds() == word.2), "running time begins anew");
    let last = expected.words.last().unwrap();
    let end = said.last().unwrap();
    assert_eq!(end.0, last.0);
    assert!(end.2.abs_diff(last.1 * 62_500) <= 80_000_000, "{} instead of {}", end.2, last.1 * 62_500);
    // A seek in the middle of a word, while it plays.
    player.pipeline.seek_simple(flags, gst::ClockTime::ZERO).unwrap();
    player.pipeline.seek_simple(flags, gst::ClockTime::ZERO).unwrap();
    assert_eq!(joined(&player.end()), expected.text);
}

#[test]
fn other_formats_are_converted_before_the_element() {
    for caps in ["audio/x-raw,rate=48000,channels=2", "audio/x-raw,rate=44100,format=S24BE"] {
        let player = Player::new(SHORT, false, caps);
        player.play();
        let (said, expected) = (joined(&player.end()), expected(SHORT, "70,13").text);
        let same = said.split(' ').filter(|word| expected.split(' ').any(|known| known == *word)).count();
        assert!(same * 10 >= expected.split(' ').count() * 8, "{caps}: {said}");
    }
}

#[test]
fn what_is_no_16_khz_mono_is_refused_at_once() {
    init();
    for caps in ["audio/x-raw,rate=48000,channels=1", "audio/x-raw,rate=16000,channels=2"] {
        let line = format!("audiotestsrc num-buffers=1 ! {caps} ! parakeettdt ! fakesink");
        let error = gst::parse::launch(&line).expect_err("it can't be linked").to_string();
        assert!(error.contains("parakeettdt"), "{error}");
    }
}

fn files() -> usize {
    fs::read_dir("/proc/self/fd").unwrap().count()
}

/// What is heard of a clip every ten minutes of an hour, with each sample stamped so.
fn an_hour(stamp: impl Fn(usize) -> gst::ClockTime) -> Vec<Out> {
    let pcm = speech(SHORT);
    let mut bench = Bench::new();
    let mut sample = 0;
    while sample < 3_600 * 16_000 {
        for piece in pcm.chunks(16_000).chain(std::iter::repeat_n(&[0; 16_000][..], 590)) {
            bench.harness.push(buffer(piece, Some(stamp(sample)))).unwrap();
            sample += piece.len();
        }
    }
    bench.drain()
}

#[test]
fn an_hour_of_a_clock_that_is_off_moves_no_word() {
    let right = an_hour(time);
    assert!(words(&right).len() > 40, "{right:?}");
    // The source's clock is fast by 100 ppm: its samples are stamped with a little less than they count.
    let drifted = an_hour(|sample| time(sample) / 10_000 * 9_999);
    assert_eq!(words(&drifted), words(&right));
    for (word, at) in starts(&drifted).iter().zip(starts(&right)) {
        let at = at / 10_000 * 9_999;
        assert!(word.nseconds().abs_diff(at.nseconds()) <= 40_000_000, "{word} instead of {at}");
    }
    assert_contiguous(&drifted);
}

#[test]
fn a_thousand_rounds_of_states_leave_nothing_behind() {
    init();
    let line = format!(
        "audiotestsrc num-buffers=2 wave=silence ! parakeettdt name=p backend=cpu model={} ! fakesink sync=false",
        embedded().display()
    );
    let pipeline = gst::parse::launch(&line).unwrap().downcast::<gst::Pipeline>().unwrap();
    // The model stays, as in a process that has another element.
    let other = Bench::with(element(), false);
    other.wait_for_model();
    let bus = pipeline.bus().unwrap();
    let mut after = Vec::new();
    for round in 1..=1_000 {
        pipeline.set_state(gst::State::Playing).unwrap();
        // Some are stopped while they begin, of which the next would see an error.
        if round % 3 > 0 {
            let kinds = [gst::MessageType::Eos, gst::MessageType::Error];
            let message = bus.timed_pop_filtered(60 * SECOND, &kinds).expect("one of them comes");
            assert_eq!(message.type_(), gst::MessageType::Eos, "{message:?}");
        }
        pipeline.set_state(if round % 2 == 0 { gst::State::Null } else { gst::State::Ready }).unwrap();
        if round % 250 == 0 {
            after.push((status("VmRSS"), status("Threads"), files()));
        }
    }
    pipeline.set_state(gst::State::Null).unwrap();
    let (first, last) = (after[0], after[3]);
    // In kB: a stream takes 2 MB, a thread's stack some more. Other tests of this program come and go.
    assert!(last.0 < first.0 + 20_000, "{after:?}");
    assert!(last.1 < first.1 + 50 && last.2 < first.2 + 50, "{after:?}");
}
