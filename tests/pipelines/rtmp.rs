// SPDX-License-Identifier: MPL-2.0
//! `pipelines/rtmp/`.

use super::{common::Scratch, tools::*};
use std::{
    fs,
    net::TcpStream,
    path::{Path, PathBuf},
};

/// Where `tools/nginx` unpacks it.
fn nginx() -> PathBuf {
    root().join("target/nginx")
}

/// The configuration that the page shows, with a port, paths and an environment of this test's own.
fn configure(scratch: &Path, port: u16) {
    let shown = fs::read_to_string(root().join("pipelines/rtmp/nginx.conf")).unwrap();
    let own = shown
        .replace("1935", &port.to_string())
        .replace("/usr/lib/nginx", nginx().join("usr/lib/nginx").to_str().unwrap())
        .replace("/usr/local/bin", root().join("pipelines/rtmp").to_str().unwrap())
        .replace("/var/lib/captions", scratch.to_str().unwrap());
    let environment = "env PATH; env GST_PLUGIN_PATH; env GST_PARAKEET_MODEL_DIR; env GST_REGISTRY;\n";
    fs::write(scratch.join("nginx.conf"), format!("{environment}{own}")).unwrap();
}

#[test]
fn nginx_has_the_words_of_who_sends_to_it_written() {
    let scratch = Scratch::new("rtmp");
    let _alone = alone();
    let port = port();
    configure(&scratch.0, port);
    // Silence before the speech: who is told of a stream comes a little late to it.
    let film = scratch.0.join("film.flv");
    let line = format!(
        "videotestsrc num-buffers=50 ! video/x-raw,format=I420,width=64,height=64,framerate=5/1 ! \
         x264enc tune=zerolatency ! h264parse ! queue ! mux.video \
         concat name=sound ! audioconvert ! audioresample ! \
         audio/x-raw,format=S16LE,rate=44100 ! queue ! mux.audio \
         audiotestsrc wave=silence samplesperbuffer=1600 num-buffers=30 ! audio/x-raw,rate=16000,channels=1 ! sound. \
         filesrc location={} ! wavparse ! sound. flvmux name=mux ! filesink location={}",
        speech().display(),
        film.display()
    );
    run(&mut launch(&line));
    let program = nginx().join("usr/sbin/nginx");
    assert!(program.is_file(), "run tools/nginx first");
    let mut nginx = limited(program.to_str().unwrap());
    nginx.args(["-e", "stderr", "-c", "nginx.conf", "-p"]).arg(&scratch.0);
    // Who isn't root has a warning for `user`.
    nginx.args(["-g", "daemon off; pid nginx.pid; error_log stderr info; user root;"]);
    let log = scratch.0.join("nginx.log");
    let _nginx = Running::start(&mut nginx, &log);
    wait("nginx", || TcpStream::connect(("127.0.0.1", port)).is_ok());
    let send = format!(
        "filesrc location={} ! flvdemux name=in in.audio ! queue ! mux.audio in.video ! queue ! h264parse ! mux.video \
         flvmux name=mux streamable=true ! identity sync=true ! rtmp2sink location=rtmp://127.0.0.1:{port}/live/talk",
        film.display()
    );
    run(&mut launch(&send));
    let json = scratch.0.join("talk.json");
    let heard = heard(&film);
    // One word a line; where it is in the stream is what counts for who came late.
    let read = |line: &str| {
        let line: serde_json::Value = serde_json::from_str(line).expect(line);
        let start = (line["stream_time"].as_f64().unwrap() * 1e3).round() as u64;
        Cue { start, text: line["text"].as_str().unwrap().to_owned() }
    };
    let lines = || fs::read_to_string(&json).unwrap_or_default();
    let last = heard.last().unwrap().start - TOLERANCE;
    wait("last word", || {
        lines().ends_with('\n') && lines().lines().last().is_some_and(|line| read(line).start >= last)
    });
    let words: Vec<Cue> = lines().lines().map(read).collect();
    // Who comes late hears the sound in other chunks, and some word may be another.
    let is_there = |said: &&Cue| {
        words.iter().any(|word| word.text == said.text && word.start.abs_diff(said.start) <= TOLERANCE)
    };
    let right = heard.iter().filter(is_there).count();
    assert!(
        right + 2 >= heard.len() && words.len() <= heard.len() + 2,
        "{right} of {}: {words:?}",
        heard.len()
    );
}
