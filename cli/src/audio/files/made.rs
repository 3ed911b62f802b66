// SPDX-License-Identifier: MPL-2.0
//! Files that GStreamer makes: 1.2 s of speech, some with a picture, one with sound that begins later.

use std::fs;
use std::ops::ControlFlow;
use std::process::Command;

use super::{AudioFile, SAMPLES, fixture, speech};

/// Runs the elements, whose sink is called `sink`, and gives what it wrote.
fn run(elements: &str) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    let sound = dir.path().join("speech.raw");
    fs::write(&sound, speech().into_iter().flat_map(i16::to_le_bytes).collect::<Vec<u8>>()).unwrap();
    let elements = elements.replace("SINK", &format!("filesink location={}", file.display()));
    let elements = elements.replace("FRAMES", if elements.contains("concat") { "110" } else { "30" });
    let elements = elements.replace("SPEECH", &format!("filesrc location={} ! {RAW}", sound.display()));
    let output = Command::new("gst-launch-1.0").arg("-q").args(elements.split_whitespace()).output().unwrap();
    assert!(output.status.success(), "{elements}: {}", String::from_utf8_lossy(&output.stderr));
    fs::read(file).unwrap()
}

const RAW: &str =
    "rawaudioparse sample-rate=16000 num-channels=1 pcm-format=s16le ! audioconvert ! audioresample";
const PICTURE: &str = "videotestsrc num-buffers=FRAMES ! video/x-raw,width=320,height=240,framerate=25/1";

/// Speech through these elements.
pub fn sound(elements: &str) -> Vec<u8> {
    run(&format!("SPEECH ! {elements} ! SINK"))
}

/// Speech with a picture.
pub fn video(picture: &str, sound: &str, container: &str) -> Vec<u8> {
    run(&format!(
        "{container} name=mux ! SINK {PICTURE} ! {picture} ! queue ! mux. \
         SPEECH ! audio/x-raw,rate=48000 ! {sound} ! queue ! mux."
    )
    .replace(",rate=48000", if container == "flvmux" { ",rate=44100" } else { ",rate=48000" }))
}

/// A picture alone.
pub fn silent_video() -> Vec<u8> {
    run(&format!("{PICTURE} ! openh264enc ! h264parse ! mp4mux ! SINK"))
}

/// A video whose sound begins after 3 s: silence before it, which is marked as such, is left out.
fn late(picture: &str, sound: &str, container: &str) -> Vec<u8> {
    let format = "audio/x-raw,format=S16LE,rate=48000,channels=1";
    run(&format!(
        "{container} name=mux ! SINK {PICTURE} ! {picture} ! queue ! mux. \
         audiotestsrc wave=silence num-buffers=150 samplesperbuffer=960 ! {format} ! c. SPEECH ! {format} ! c. \
         concat name=c ! identity single-segment=true ! identity drop-buffer-flags=gap ! {sound} ! queue ! mux."
    ))
}

fn heard(extension: &str, bytes: &[u8], channel: Option<usize>) -> Vec<f32> {
    let file = tempfile::Builder::new().prefix("it's \"a\" file ").suffix(extension).tempfile().unwrap();
    fs::write(file.path(), bytes).unwrap();
    let mut pcm = Vec::new();
    let result = AudioFile::open(file.path()).unwrap().only(channel).read(&mut |piece| {
        pcm.extend_from_slice(piece);
        ControlFlow::Continue(())
    });
    assert_eq!(result.unwrap(), None);
    pcm
}

/// Where `pcm` has the speech, in samples: where it is most like it.
fn place(pcm: &[f32]) -> usize {
    let speech: Vec<f32> = speech()[4_000..12_000].iter().map(|x| f32::from(*x) / 32_768.0).collect();
    let like = |at: &usize| -> f32 { pcm[*at..].iter().zip(&speech).map(|(a, b)| a * b).sum() };
    let coarse = (0..pcm.len() - speech.len()).max_by(|a, b| like(a).total_cmp(&like(b))).unwrap();
    coarse - 4_000
}

#[test]
fn a_track_that_begins_late_has_its_silence() {
    for (extension, bytes) in [
        (".mp4", late("openh264enc ! h264parse", "voaacenc ! aacparse", "mp4mux")),
        (".mkv", late("theoraenc", "opusenc", "matroskamux")),
        (".ts", late("openh264enc ! h264parse", "voaacenc ! aacparse", "mpegtsmux")),
    ] {
        let pcm = heard(extension, &bytes, None);
        assert!(pcm[..47_000].iter().all(|x| x.abs() < 0.02), "{extension}");
        let place = place(&pcm);
        // An encoder of AAC may not tell how much it puts before the sound: 1,600 samples at 48 kHz.
        assert!(place.abs_diff(48_000) < 640, "{extension}: {place}");
        assert!(pcm.len().abs_diff(48_000 + SAMPLES) < 1_700, "{extension}: {} samples", pcm.len());
    }
}

#[test]
fn channels_mean_what_they_mean_in_files_that_are_decoded_here() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["surround.flac", "surround.ogg"] {
        let path = dir.path().join(name);
        fs::write(&path, fixture(name)).unwrap();
        // The same samples, in a container that only GStreamer reads.
        let elements = format!("filesrc location={} ! decodebin ! audioconvert", path.display());
        let bytes = run(&format!("{elements} ! audio/x-raw,format=S16LE ! flacenc ! matroskamux ! SINK"));
        for channel in [None, Some(1), Some(3), Some(6)] {
            let [here, there] = [heard(".flac", &fixture(name), channel), heard(".mkv", &bytes, channel)];
            let error = here.iter().zip(&there).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(here.len().abs_diff(there.len()) < 200 && error < 0.002, "{name}, {channel:?}: {error}");
        }
    }
    let other = tempfile::Builder::new().suffix(".opus").tempfile().unwrap();
    fs::write(other.path(), fixture("opus.ogg")).unwrap();
    let refused =
        AudioFile::open(other.path()).unwrap().only(Some(4)).read(&mut |_| ControlFlow::Continue(()));
    assert!(refused.unwrap_err().to_string().contains("there is no channel 4"));
}
