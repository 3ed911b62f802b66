// SPDX-License-Identifier: MPL-2.0
//! `pipelines/srt/`.

use super::{common::Scratch, screen, tools::*};

#[test]
fn a_stream_goes_on_with_captions() {
    let scratch = Scratch::new("srt");
    let film = scratch.0.join("film.ts");
    run(&mut launch(&format!(
        "{} mpegtsmux name=mux alignment=7 ! filesink location={}",
        screen::film(10),
        film.display()
    )));
    let _alone = alone();
    let uri = |port: u16, mode: &str| format!("srt://127.0.0.1:{port}?mode={mode}&latency=1000");
    let (ingest, output) = (port(), port());
    let mut captioner = script("srt/captions.sh");
    let log = scratch.0.join("captions.log");
    let mut captioner =
        Running::start(captioner.args([uri(ingest, "listener"), uri(output, "listener")]), &log);
    let out = scratch.0.join("out.ts");
    let viewer = format!("srtsrc uri='{}' ! filesink location={}", uri(output, "caller"), out.display());
    let mut viewer = Running::start(&mut launch(&viewer), &scratch.0.join("viewer.log"));
    // Both listen before they are called; the one who calls tries again.
    let sender = format!(
        "filesrc location={} ! tsparse set-timestamps=true alignment=7 ! srtsink uri='{}'",
        film.display(),
        uri(ingest, "caller")
    );
    run(&mut launch(&sender));
    assert!(captioner.wait().success(), "{}", std::fs::read_to_string(&log).unwrap());
    viewer.interrupt();
    let heard = heard(&film);
    check(&screen::read(&out, &heard), &heard, 0);
}
