// SPDX-License-Identifier: MPL-2.0
//! `pipelines/broadcast/`, run as it stands: captions that it writes into H.264 are read back.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use gst::ClockTime;
use transcriberbin_test::{Captions, buffers, heard, init, speech};

/// How far a word may be from where it is spoken.
const TOLERANCE: ClockTime = ClockTime::from_mseconds(300);

fn tree() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// A folder with the plugins that cargo built, under the names that GStreamer finds them by.
fn plugins() -> tempfile::TempDir {
    let executable = std::env::current_exe().expect("a test has an executable");
    let built = executable.parent().expect("it lies in a folder");
    let folder = tempfile::tempdir().expect("temporary files can be written");
    for name in ["libgstrsclosedcaption", "libgsttextwrap", "libgstparakeet"] {
        let files = fs::read_dir(built).expect("it is a folder").map(|file| file.expect("it can be read"));
        let versions = files.filter(|file| {
            let file = file.file_name().to_string_lossy().into_owned();
            file.starts_with(name) && file.ends_with(".so")
        });
        let newest = versions.max_by_key(|file| file.metadata().and_then(|file| file.modified()).ok());
        let newest = newest.unwrap_or_else(|| panic!("no {name} in {}", built.display())).path();
        symlink(newest, folder.path().join(format!("{name}.so"))).expect("links can be made");
    }
    folder
}

/// Runs a command to its end, which is a good one, within limits.
fn run(program: &Path, arguments: &[&str], plugins: &Path) {
    let mut command = Command::new("timeout");
    command.args(["--kill-after=2", "90"]).arg(program).args(arguments);
    command.env("GST_PLUGIN_PATH", plugins).env("GST_REGISTRY", plugins.join("registry"));
    let output = command.env("GST_PARAKEET_MODEL_DIR", tree().join("models")).output().expect("it runs");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Ten seconds of grey picture in H.264, with speech and silence behind it in AAC.
fn film(path: &Path, plugins: &Path) {
    let line = format!(
        "exec gst-launch-1.0 -q mpegtsmux name=mux ! filesink location={} \
         videotestsrc num-buffers=250 pattern=gradient ! video/x-raw,format=I420,width=320,height=180,framerate=25/1 ! \
         x264enc tune=zerolatency key-int-max=25 ! h264parse ! queue ! mux. \
         concat name=sound ! audioconvert ! voaacenc bitrate=64000 ! aacparse ! queue ! mux. \
         filesrc location={} ! wavparse ! sound. \
         audiotestsrc wave=silence samplesperbuffer=1600 num-buffers=40 ! audio/x-raw,rate=16000,channels=1 ! sound.",
        path.display(),
        speech().display()
    );
    run(Path::new("sh"), &["-c", &line], plugins);
}

/// The captions of a file's frames, since the first.
fn captions(file: &Path) -> Vec<(ClockTime, Vec<u8>)> {
    let frames = buffers(&format!(
        "filesrc location={} ! tsdemux ! h264parse ! ccextractor name=frames frames.src ! fakesink async=false \
         frames.caption ! queue ! closedcaption/x-cea-708,format=cc_data ! fakesink name=out sync=false async=false",
        file.display()
    ));
    let begin = frames.first().expect("frames have captions").0;
    frames.into_iter().map(|(at, data)| (at - begin, data)).collect()
}

/// CEA-608 of the first field in the triples of a frame: letters, and a space for whatever moves the cursor.
fn cea608(data: &[u8]) -> String {
    let mut text = String::new();
    for triple in data.chunks(3).filter(|triple| triple[0] & 7 == 4) {
        // The highest bit is for parity.
        let pair = [triple[1] & 0x7f, triple[2] & 0x7f];
        match pair[0] {
            0x10..0x20 => text.push(' '),
            _ => text.extend(pair.into_iter().filter(|letter| *letter != 0).map(char::from)),
        }
    }
    text
}

/// Each word with the frame that has its first letter.
fn words(frames: &[(ClockTime, Vec<u8>)], mut read: impl FnMut(&[u8]) -> String) -> Vec<(ClockTime, String)> {
    let mut words = vec![(ClockTime::ZERO, String::new())];
    for (at, data) in frames {
        for letter in read(data).chars() {
            let (since, word) = words.last_mut().expect("it is never empty");
            match (letter, word.is_empty()) {
                (' ', true) => {}
                (' ', false) => words.push((*at, String::new())),
                (letter, first) => {
                    if first {
                        *since = *at;
                    }
                    word.push(letter);
                }
            }
        }
    }
    words.retain(|(_, word)| !word.is_empty());
    words
}

/// Fails unless the words are those that are heard, when they are spoken.
fn check(words: &[(ClockTime, String)], heard: &[(ClockTime, String)]) {
    let said = |words: &[(ClockTime, String)]| {
        words.iter().map(|(_, word)| word.clone()).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(said(words), said(heard));
    for ((shown, word), (spoken, _)) in words.iter().zip(heard) {
        assert!(
            shown.absdiff(*spoken) <= TOLERANCE,
            "{word} is shown at {shown}, spoken at {spoken}: {words:?}"
        );
    }
}

#[test]
fn captions_in_the_picture_say_the_words_when_they_are_spoken() {
    init();
    let (scratch, plugins) = (tempfile::tempdir().expect("temporary files can be written"), plugins());
    let (source, captioned) = (scratch.path().join("film.ts"), scratch.path().join("captioned.ts"));
    film(&source, plugins.path());
    let script = tree().join("pipelines/broadcast/captions.sh");
    let uri = format!("file://{}", source.display());
    run(&script, &[&uri, captioned.to_str().expect("UTF-8")], plugins.path());

    // Of the file itself, whose sound has lost a little.
    let heard = heard(&source);
    assert!(heard.len() > 15, "{heard:?}");
    let (frames, mut reader) = (captions(&captioned), Captions::default());
    let cea708 = |data: &[u8]| {
        reader.read(data);
        std::mem::take(&mut reader.text)
    };
    check(&words(&frames, cea708), &heard);
    check(&words(&frames, cea608), &heard);
}
