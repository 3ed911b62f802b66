// SPDX-License-Identifier: MPL-2.0
//! Films with the speech of the tests, and reading captions off a picture.

use super::{common, tools::*};
use gst::prelude::*;
use std::path::Path;

const WIDTH: usize = 640;
const HEIGHT: usize = 360;
/// Frames in a second.
const RATE: usize = 25;
/// How all pipelines draw captions.
const STYLE: &str = "font-desc=\"Sans 24\" shaded-background=true";

/// The picture of all films: grey from black to white, without motion.
fn picture(frames: usize) -> String {
    format!(
        "videotestsrc num-buffers={frames} pattern=gradient ! \
         video/x-raw,format=I420,width={WIDTH},height={HEIGHT},framerate={RATE}/1"
    )
}

/// A part of a pipeline: so many seconds of picture in H.264 and the speech in AAC, silence behind it, linked to `mux`.
pub fn film(seconds: usize) -> String {
    let frames = seconds * RATE;
    format!(
        "{} ! x264enc tune=zerolatency key-int-max=25 ! h264parse ! queue ! mux. \
         concat name=sound ! audioconvert ! voaacenc bitrate=64000 ! aacparse ! queue ! mux. \
         filesrc location={} ! wavparse ! sound. \
         audiotestsrc wave=silence samplesperbuffer=1600 num-buffers={} ! audio/x-raw,rate=16000,channels=1 ! sound.",
        picture(frames),
        speech().display(),
        (seconds - 6) * 10
    )
}

/// Each frame of a pipeline that decodes a picture: its time stamp in ms, and its grey.
fn frames(line: &str) -> Vec<(u64, Vec<u8>)> {
    common::init();
    let line = format!("{line} ! videoconvert ! video/x-raw,format=GRAY8 ! appsink name=out sync=false");
    let pipeline = gst::parse::launch(&line).unwrap().downcast::<gst::Pipeline>().unwrap();
    let out = pipeline.by_name("out").unwrap().downcast::<gst_app::AppSink>().unwrap();
    pipeline.set_state(gst::State::Playing).unwrap();
    let mut frames = Vec::new();
    while let Ok(sample) = out.pull_sample() {
        let buffer = sample.buffer().unwrap();
        let map = buffer.map_readable().unwrap();
        assert_eq!(map.len(), WIDTH * HEIGHT);
        frames.push((buffer.pts().unwrap().mseconds(), map.to_vec()));
    }
    pipeline.set_state(gst::State::Null).unwrap();
    frames
}

fn distance(one: &[u8], other: &[u8]) -> u64 {
    one.iter().zip(other).map(|(a, b)| u64::from(a.abs_diff(*b))).sum()
}

/// The captions on the picture of a [`film`] of these words, read by drawing whatever words that follow each other there could
/// be. Times are those since the first frame.
pub fn read(file: &Path, said: &[Cue]) -> Vec<Cue> {
    let runs = (0..said.len()).flat_map(|from| (from + 1..=said.len()).map(move |to| &said[from..to]));
    let texts: Vec<String> =
        runs.map(|run| run.iter().map(|word| word.text.as_str()).collect::<Vec<_>>().join(" ")).collect();
    let scratch = common::Scratch::new("texts");
    let list = scratch.0.join("texts.srt");
    let stamp = |frame: usize| format!("00:00:{:02},{:03}", frame / RATE, frame % RATE * 1_000 / RATE);
    let cue = |(at, text): (usize, &String)| format!("{at}\n{} --> {}\n{text}\n\n", stamp(at), stamp(at + 1));
    std::fs::write(&list, texts.iter().enumerate().map(cue).collect::<String>()).unwrap();
    let drawn = frames(&format!(
        "filesrc location={} ! subparse ! captions.text_sink {} ! textoverlay name=captions {STYLE}",
        list.display(),
        picture(texts.len())
    ));
    let plain = &frames(&picture(1))[0].1;
    assert_eq!(drawn.len(), texts.len());

    let (mut cues, mut before, mut shown) = (Vec::<Cue>::new(), plain.clone(), None);
    let frames = frames(&format!(
        "filesrc location={} ! decodebin caps=video/x-raw expose-all-streams=false",
        file.display()
    ));
    let first = frames.first().expect("a picture").0;
    for (at, frame) in &frames {
        // What a frame is coded anew for, without a change of its text, is little.
        if distance(frame, &before) < (WIDTH * HEIGHT / 20) as u64 {
            continue;
        }
        before.clone_from(frame);
        let (nearest, text) =
            drawn.iter().zip(&texts).map(|((_, drawn), text)| (distance(frame, drawn), text)).min().unwrap();
        let text = (nearest < distance(frame, plain)).then_some(text);
        assert!(
            nearest.min(distance(frame, plain)) < (WIDTH * HEIGHT * 4) as u64,
            "{at} ms: no such text: {cues:?}"
        );
        if text != shown {
            cues.extend(text.map(|text| Cue { start: at - first, text: text.clone() }));
            shown = text;
        }
    }
    cues
}
