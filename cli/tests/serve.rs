// SPDX-License-Identifier: MPL-2.0
//! The server, as programs and whoever watches it use it.

mod server;

use std::collections::BTreeSet;
use std::net::TcpStream;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;
use server::{Server, repository, silence, speech, transcript, words};
use tungstenite::{Message, WebSocket, protocol::frame::coding::CloseCode};

/// What a socket still says, and with which code it closes.
fn rest(socket: &mut WebSocket<TcpStream>) -> (Vec<Value>, Option<CloseCode>) {
    let mut said = Vec::new();
    loop {
        match socket.read().unwrap() {
            Message::Text(line) => said.push(serde_json::from_str(&line).unwrap()),
            Message::Close(frame) => return (said, frame.map(|frame| frame.code)),
            _ => {}
        }
    }
}

fn send(socket: &mut WebSocket<TcpStream>, bytes: &[u8]) {
    socket.send(Message::Binary(bytes.to_vec().into())).unwrap();
}

fn lines(body: &str) -> Vec<Value> {
    body.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn audio_over_http_and_websocket_gives_the_transcript() {
    let server = Server::start(&[]);
    let (expected, speech) = (transcript(), speech());
    assert!(expected.len() > 10);
    // Pieces that cut samples in halves.
    let pieces: Vec<_> = speech.chunks(3_333).collect();
    let (status, body) = server.ask("POST", "/stream", "", &pieces);
    let said = lines(&body);
    assert_eq!((status, words(&said)), (200, expected.clone()));
    let last = said.last().unwrap();
    assert_eq!((&last["type"], &last["reason"]), (&"finished".into(), &"ended".into()));
    assert_eq!(last["time"].as_f64().unwrap(), speech.len() as f64 / 32_000.0);

    let mut socket = server.socket("?partials=true");
    pieces.iter().for_each(|piece| send(&mut socket, piece));
    socket.send(Message::text("end")).unwrap();
    let (said, code) = rest(&mut socket);
    assert_eq!((words(&said), code), (expected.clone(), Some(CloseCode::Normal)));
    assert!(said.iter().any(|said| said["type"] == "partial"));
    assert!(
        said.iter().filter(|said| said["type"] == "word").all(|word| word["delay"].as_f64().unwrap() >= 0.0)
    );

    // What was counted.
    let count = 2.0 * expected.len() as f64;
    assert_eq!(server.metric("parakeet_words_total"), count);
    assert_eq!(server.metric("parakeet_word_delay_seconds_count"), count);
    assert_eq!(server.metric("parakeet_streams_opened_total"), 2.0);
    server.wait("the streams go", |server| server.metric("parakeet_streams") == 0.0);
    let (_, metrics) = server.get("/metrics");
    let step = |end: &str| {
        let line = metrics.lines().find(|line| {
            line.starts_with("parakeet_step_seconds_bucket{") && line.contains(&format!("le=\"{end}\""))
        });
        line.and_then(|line| line.rsplit(' ').next()).expect(&metrics).parse::<u64>().unwrap()
    };
    assert!(step("0.001") <= step("30.0") && step("30.0") <= step("+Inf") && step("+Inf") > 1);
    let seconds = server.metric("parakeet_audio_seconds_total");
    assert!((seconds - 2.0 * speech.len() as f64 / 32_000.0).abs() < 1e-3, "{seconds}");
}

#[test]
fn who_comes_when_all_places_are_taken_is_refused_until_one_goes() {
    let server = Server::start(&["--streams", "1"]);
    let socket = server.socket("");
    let refused = (503, "all places are taken\n".into());
    assert_eq!(server.ask("POST", "/stream", "", &[]), refused);
    assert_eq!(server.get("/ready"), refused);
    assert_eq!(server.get("/live").0, 200);
    assert_eq!(server.metric("parakeet_streams"), 1.0);
    assert_eq!(server.metric("parakeet_streams_limit"), 1.0);
    assert_eq!(server.metric("parakeet_streams_refused_total{reason=\"full\"}"), 1.0);
    // Without a word, as when a client is killed.
    drop(socket);
    server.wait("the place is free", |server| server.get("/ready").0 == 200);
    let (status, body) = server.ask("PUT", "/stream", "", &[&speech()]);
    assert_eq!((status, words(&lines(&body))), (200, transcript()));
}

#[test]
fn streams_end_in_a_pause_when_the_server_is_to_leave() {
    let mut server = Server::start(&[]);
    let mut socket = server.socket("?live=true");
    let speech = [speech(), silence(4_000)].concat();
    let begin = Instant::now();
    let mut told = false;
    // At its pace; the server is told in the middle of the sentence.
    for (piece, at) in speech.chunks(3_200).zip(1..) {
        std::thread::sleep(
            (begin + Duration::from_millis(100 * at)).saturating_duration_since(Instant::now()),
        );
        // It may have closed in the silence.
        if socket.send(Message::Binary(piece.to_vec().into())).is_err() {
            break;
        }
        if at == 20 {
            let status = Command::new("kill").arg(server.child.id().to_string()).status().unwrap();
            assert!(status.success());
            told = true;
            server.wait("no more streams", |server| {
                server.get("/ready") == (503, "the server is about to leave\n".into())
            });
            assert_eq!(server.metric("parakeet_streams"), 1.0);
        }
    }
    assert!(told);
    let (said, code) = rest(&mut socket);
    let texts = |words: Vec<(String, f64, f64)>| words.into_iter().map(|word| word.0).collect::<Vec<_>>();
    assert_eq!(texts(words(&said)), texts(transcript()));
    assert_eq!(said.last().unwrap()["reason"], "leaving");
    assert_eq!(code, Some(CloseCode::Away));
    assert!(server.child.wait().unwrap().success());
}

#[test]
fn who_sends_nothing_is_sent_away() {
    let server = Server::start(&["--idle", "1"]);
    let mut socket = server.socket("");
    let (said, code) = rest(&mut socket);
    assert_eq!(said, [serde_json::json!({"type": "finished", "time": 0.0, "reason": "idle"})]);
    assert_eq!(code, Some(CloseCode::Policy));
}

#[test]
fn a_live_stream_gives_up_what_is_too_much_and_says_so() {
    let server = Server::start(&[]);
    let mut socket = server.socket("?live=true");
    // In one message more than the queue of 30 s takes.
    send(&mut socket, &silence(32_000));
    socket.send(Message::text("end")).unwrap();
    let (said, _) = rest(&mut socket);
    let lost: f64 =
        said.iter().filter(|said| said["type"] == "lost").map(|lost| lost["seconds"].as_f64().unwrap()).sum();
    assert!((2.0..30.0).contains(&lost), "{said:?}");
    assert_eq!(said.last().unwrap()["time"], 32.0, "the clock goes on");
    assert!((server.metric("parakeet_dropped_audio_seconds_total") - lost).abs() < 1e-3);
}

#[test]
fn what_it_cannot_take_is_refused_with_a_reason() {
    let server = Server::start(&[]);
    let origin = |origin: &str| server.ask("POST", "/stream", &format!("Origin: {origin}\r\n"), &[]);
    assert_eq!(origin("http://else.where").0, 403);
    assert_eq!(origin("http://here").0, 200);
    let (status, reason) = server.ask("POST", "/stream?look=1", "", &[]);
    assert_eq!(status, 400);
    assert!(reason.contains("unknown field `look`") && reason.contains("partials"), "{reason}");
    let mut socket = server.socket("");
    socket.send(Message::text("stop")).unwrap();
    assert_eq!(rest(&mut socket).1, Some(CloseCode::Unsupported));
    let (status, page) = server.get("/");
    assert!(status == 200 && page.contains("/stream"));
    assert_eq!(server.get("/metric").0, 404);
}

#[test]
fn a_server_that_cannot_serve_says_why_and_ends() {
    let run = |arguments: &[&str]| {
        let output = assert_cmd::Command::cargo_bin("parakeet")
            .unwrap()
            .arg("serve")
            .args(arguments)
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(1));
        String::from_utf8(output.stderr).unwrap()
    };
    let error = run(&["--listen", "127.0.0.1:0", "--model", "/no/such"]);
    assert!(error.starts_with("error: /no/such"), "{error}");
    let server = Server::start_loading(&[]);
    let model = repository().join("models/parakeet-tdt-mini");
    let error = run(&["--listen", &server.address.to_string(), "--model", model.to_str().unwrap()]);
    assert!(error.contains(&server.address.to_string()) && error.contains("--listen"), "{error}");
}

/// Every name of a metric in a text.
fn metrics_in(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    let names = words.filter(|word| word.starts_with("parakeet_"));
    // A histogram's parts are named with it.
    let whole = |name: &str| {
        ["_bucket", "_sum", "_count"].iter().find_map(|part| name.strip_suffix(part).map(String::from))
    };
    names.map(|name| whole(name).unwrap_or_else(|| name.into())).collect()
}

#[test]
fn the_metrics_are_those_of_the_page_and_of_the_dashboard() {
    let server = Server::start(&["--streams", "1"]);
    let _socket = server.socket("");
    assert_eq!(server.ask("POST", "/stream", "", &[]).0, 503);
    let (_, text) = server.get("/metrics");
    let samples =
        text.lines().filter(|line| !line.starts_with('#')).map(|line| line.split(['{', ' ']).next().unwrap());
    let mut known = metrics_in(&samples.collect::<Vec<_>>().join("\n"));
    // A CPU has no memory of its own.
    known.extend(["parakeet_memory_bytes", "parakeet_memory_free_bytes"].map(String::from));
    let read = |path: &str| std::fs::read_to_string(repository().join(path)).unwrap();
    assert_eq!(metrics_in(&read("docs/serve.md")), known);
    let dashboard = read("examples/grafana.json");
    let unknown: Vec<_> = metrics_in(&dashboard).difference(&known).cloned().collect();
    assert_eq!(unknown, [""; 0]);
    let dashboard: Value = serde_json::from_str(&dashboard).unwrap();
    assert!(dashboard["panels"].as_array().unwrap().len() >= 6);
}

#[test]
fn examples_for_clusters_start_the_server_as_it_is_started() {
    for file in ["examples/kubernetes/serve.yaml", "examples/compose.yaml"] {
        let text = std::fs::read_to_string(repository().join(file)).unwrap();
        let line = text.lines().find_map(|line| line.split_once("[serve, ")).expect(file).1;
        let arguments: Vec<&str> =
            line.trim_end_matches(']').split(", ").map(|word| word.trim_matches('"')).collect();
        // Only the model isn't there.
        let refused = assert_cmd::Command::cargo_bin("parakeet")
            .unwrap()
            .arg("serve")
            .args(&arguments)
            .output()
            .unwrap();
        let error = String::from_utf8(refused.stderr).unwrap();
        assert!(error.starts_with("error: /models/mine"), "{file}: {error}");
    }
}
