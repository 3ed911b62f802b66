// SPDX-License-Identifier: MPL-2.0
//! `pipelines/hls/player.html` in Chromium.

use super::{chromium::Browser, common::Scratch, screen, tools::*};
use serde_json::Value;
use std::{fs, path::Path};

#[test]
fn a_browser_shows_captions_when_they_are_spoken() {
    let scratch = Scratch::new("player");
    let (film, out) = (scratch.0.join("film.ts"), scratch.0.join("out"));
    run(&mut launch(&format!(
        "{} mpegtsmux name=mux ! filesink location={}",
        screen::film(10),
        film.display()
    )));
    run(script("hls/captions.py").args([&film, &out]).args(["--seconds", "2"]));
    fs::copy(root().join("pipelines/hls/player.html"), out.join("player.html")).unwrap();
    let port = port();
    let server =
        ["-m", "http.server", &port.to_string(), "--bind", "127.0.0.1", "--directory"].map(String::from);
    let _server = Running::start(limited("python3").args(server).arg(&out), &scratch.0.join("log"));
    wait("server", || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok());

    let Some(mut browser) = Browser::open(&format!("http://127.0.0.1:{port}/player.html"), &[]) else {
        println!("SKIPPED: a_browser_shows_captions_when_they_are_spoken, there is no chromium");
        return;
    };
    let said = heard(&film);
    // All captions are there and the film can be played: from its start, with a note of what is shown when.
    browser.wait("window.film !== undefined && film.readyState >= 3 && film.textTracks.length === 1");
    browser.wait("film.textTracks[0].cues.length >= 2");
    browser.evaluate(
        "(async () => {
           film.pause();
           window.shown = [];
           const track = film.textTracks[0];
           track.oncuechange = () => shown.push(...[...track.activeCues].map((cue) => [film.currentTime, cue.text]));
           film.currentTime = 0;
           await new Promise((resolve) => film.addEventListener('seeked', resolve, { once: true }));
           shown.length = 0;
           await film.play();
         })()",
    );
    browser.wait("film.currentTime > 1.5");
    let picture = Path::new(env!("CARGO_TARGET_TMPDIR")).join("player.png");
    fs::write(&picture, browser.picture()).unwrap();
    browser.wait("film.ended");
    let shown = browser.evaluate("shown");
    let mut cues = Vec::<Cue>::new();
    for cue in shown.as_array().unwrap() {
        let (at, text) = (cue[0].as_f64().unwrap(), cue[1].as_str().unwrap().replace('\n', " "));
        // One that goes on while another comes or goes is told again.
        if cues.last().is_none_or(|last| last.text != text) {
            cues.push(Cue { start: (at * 1e3) as u64, text });
        }
    }
    println!("{} captions shown, one in {}", cues.len(), picture.display());
    check(&cues, &said, 0);
    assert!(cues.len() > 1);
    assert_eq!(browser.evaluate("film.textTracks[0].language"), Value::from("en"));
    assert!(browser.evaluate("film.videoWidth").as_u64() > Some(0), "a picture is played");
}
