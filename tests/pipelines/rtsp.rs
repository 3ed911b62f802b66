// SPDX-License-Identifier: MPL-2.0
//! `pipelines/rtsp/`.

use super::{common::Scratch, tools::*};
use std::{fs, net::TcpStream};

#[test]
fn words_of_a_camera_are_json_lines() {
    let scratch = Scratch::new("rtsp");
    let _alone = alone();
    let port = port();
    // Debian's Python, which has GStreamer's bindings.
    let mut server = limited("/usr/bin/python3");
    server.args(["tests/pipelines/rtsp_server.py", &port.to_string()]).arg(speech());
    let _server = Running::start(server.current_dir(root()), &scratch.0.join("server.log"));
    wait("RTSP server", || TcpStream::connect(("127.0.0.1", port)).is_ok());
    let uri = format!("rtsp://127.0.0.1:{port}/live");
    check(&words(&run(script("rtsp/captions.sh").arg(&uri))), &said(), 0);
}

#[test]
fn mediamtx_is_told_a_script_that_is_there() {
    let configuration = fs::read_to_string(root().join("pipelines/rtsp/mediamtx.yml")).unwrap();
    let line = configuration.lines().find(|line| line.trim_start().starts_with("runOnReady:")).unwrap();
    assert!(line.contains("/captions.sh rtsp://localhost:$RTSP_PORT/$MTX_PATH "), "{line}");
}
