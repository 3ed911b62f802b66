// SPDX-License-Identifier: MPL-2.0
//! `pipelines/hls/`.

use super::{common::Scratch, screen, tools::*};
use std::{fs, path::Path};

const SCRIPT: &str = "hls/captions.py";

/// What a media playlist says: the length of each segment in seconds, and its name.
fn segments(playlist: &str) -> Vec<(f64, String)> {
    let mut lines = playlist.lines();
    let mut segments = Vec::new();
    while let Some(line) = lines.next() {
        if let Some(length) = line.strip_prefix("#EXTINF:") {
            segments.push((length.trim_end_matches(',').parse().unwrap(), lines.next().unwrap().to_owned()));
        }
    }
    segments
}

/// The first time stamp of a picture in a segment of MPEG-TS, in units of 90 kHz.
fn first_stamp(segment: &[u8]) -> u64 {
    let stamp = |packet: &[u8]| {
        let (starts, adapted) = (packet[1] & 0x40 != 0, packet[3] & 0x20 != 0);
        let payload = &packet[if adapted { 5 + usize::from(packet[4]) } else { 4 }..];
        // A PES packet of a picture with a time stamp.
        if !starts
            || payload.len() < 14
            || payload[..3] != [0, 0, 1]
            || payload[3] & 0xf0 != 0xe0
            || payload[7] & 0x80 == 0
        {
            return None;
        }
        let bits = |at: usize| u64::from(payload[at]);
        Some((bits(9) >> 1 & 7) << 30 | bits(10) << 22 | bits(11) >> 1 << 15 | bits(12) << 7 | bits(13) >> 1)
    };
    segment.chunks(188).find_map(stamp).expect("a picture")
}

/// What a segment of captions says the clock is at a time of it: units of 90 kHz, and the time in ms.
fn map(captions: &str) -> (u64, u64) {
    let line = captions.lines().find_map(|line| line.strip_prefix("X-TIMESTAMP-MAP=MPEGTS:")).unwrap();
    let (clock, local) = line.split_once(",LOCAL:").unwrap();
    let at = cues(&format!("{local} --> {local}\n"));
    (clock.parse().unwrap(), at[0].start)
}

fn read(directory: &Path, name: &str) -> String {
    fs::read_to_string(directory.join(name)).expect(name)
}

#[test]
fn captions_have_the_clock_of_the_segments_that_they_are_in() {
    let scratch = Scratch::new("hls");
    let (film, out) = (scratch.0.join("film.ts"), scratch.0.join("out"));
    run(&mut launch(&format!(
        "{} mpegtsmux name=mux ! filesink location={}",
        screen::film(10),
        film.display()
    )));
    run(script(SCRIPT).args([&film, &out]).args(["--seconds", "2"]));

    let main = read(&out, "main.m3u8");
    assert!(main.contains("URI=\"captions.m3u8\"") && main.lines().last() == Some("film.m3u8"), "{main}");
    assert!(main.contains("LANGUAGE=\"en\"") && main.contains("SUBTITLES=\"captions\""), "{main}");
    let (picture, captions) = (segments(&read(&out, "film.m3u8")), segments(&read(&out, "captions.m3u8")));
    assert_eq!((picture.len(), captions.len()), (5, 5));
    assert!(read(&out, "captions.m3u8").ends_with("#EXT-X-ENDLIST\n"));

    // Where the film begins, on the clock of the segments.
    let begin = first_stamp(&fs::read(out.join(&picture[0].1)).unwrap());
    let mut all = Vec::<Cue>::new();
    let mut pieces = Vec::new();
    for ((length, film), (same, text)) in picture.iter().zip(&captions) {
        assert!((length - same).abs() < 0.002, "{film} lasts {length} s, {text} {same} s");
        let stamp = first_stamp(&fs::read(out.join(film)).unwrap());
        let text = read(&out, text);
        assert!(text.starts_with("WEBVTT\n"), "{text}");
        let (clock, local) = map(&text);
        assert!(clock.abs_diff(stamp) <= 90 * 40, "a frame at most: {clock} for {stamp}");
        let on_clock = |ms: u64| (clock + 90 * ms - 90 * local - begin) / 90;
        let shown: Vec<Cue> =
            cues(&text).into_iter().map(|cue| Cue { start: on_clock(cue.start), ..cue }).collect();
        for cue in &shown {
            assert!(cue.start < on_clock(local) + (1e3 * length) as u64, "{cue:?} is later than its segment");
            if all.iter().all(|known| known.start != cue.start) {
                all.push(cue.clone());
            }
        }
        pieces.push(shown.len());
    }
    check(&all, &heard(&film), 0);
    // A caption is in each segment where it is seen, and in none beyond.
    assert!(pieces.iter().sum::<usize>() > all.len() && pieces.last() == Some(&0), "{pieces:?}");
}

#[test]
fn of_a_live_source_some_segments_stay() {
    let scratch = Scratch::new("kept");
    let (film, out) = (scratch.0.join("film.ts"), scratch.0.join("out"));
    run(&mut launch(&format!(
        "{} mpegtsmux name=mux ! filesink location={}",
        screen::film(10),
        film.display()
    )));
    run(script(SCRIPT).args([&film, &out]).args(["--seconds", "2", "--keep", "3"]));
    for playlist in ["film.m3u8", "captions.m3u8"] {
        let text = read(&out, playlist);
        assert!(text.contains("#EXT-X-MEDIA-SEQUENCE:2"), "{text}");
        assert_eq!(segments(&text).len(), 3);
        assert!(segments(&text).iter().all(|(_, name)| out.join(name).is_file()), "{text}");
    }
    assert_eq!(fs::read_dir(&out).unwrap().count(), 3 + 2 * 3);
}
