// SPDX-License-Identifier: MPL-2.0
//! A server as its users start it, and what they ask it.

#![allow(dead_code, reason = "each test needs a part of it")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tungstenite::{WebSocket, client::IntoClientRequest};

/// Longer than anything here takes on a slow machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The sentence, 16 kHz mono S16LE.
pub fn speech() -> Vec<u8> {
    let mut file = hound::WavReader::open(repository().join("tests/data/speech.wav")).unwrap();
    file.samples::<i16>().flat_map(|sample| sample.unwrap().to_le_bytes()).collect()
}

/// Silence of so many milliseconds.
pub fn silence(ms: usize) -> Vec<u8> {
    vec![0; ms * 32]
}

/// A server of the small model on the CPU, which is killed in the end.
pub struct Server {
    pub child: Child,
    pub address: SocketAddr,
    _stdout: BufReader<ChildStdout>,
}

impl Server {
    /// Waits until it takes streams.
    pub fn start(arguments: &[&str]) -> Self {
        let server = Self::start_loading(arguments);
        let until = Instant::now() + PATIENCE;
        while server.get("/ready") != (200, "ready\n".into()) {
            assert!(Instant::now() < until, "{:?}", server.get("/ready"));
            std::thread::sleep(Duration::from_millis(20));
        }
        server
    }

    pub fn start_loading(arguments: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_parakeet"))
            .args(["serve", "--listen", "127.0.0.1:0", "--backend", "cpu", "--model"])
            .arg(repository().join("models/parakeet-tdt-mini"))
            .args(arguments)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        let address = line.trim().strip_prefix("listening on http://").expect(&line).parse().unwrap();
        Self { child, address, _stdout: stdout }
    }

    pub fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// Sends a request with these header lines and pieces of a body; status and body of the answer.
    pub fn ask(&self, method: &str, path: &str, headers: &str, body: &[&[u8]]) -> (u16, String) {
        let mut stream = self.connect();
        let coding = if body.is_empty() { "" } else { "Transfer-Encoding: chunked\r\n" };
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nHost: here\r\nConnection: close\r\n{headers}{coding}\r\n"
        )
        .unwrap();
        if !body.is_empty() {
            for piece in body {
                write!(stream, "{:x}\r\n", piece.len()).unwrap();
                stream.write_all(piece).unwrap();
                stream.write_all(b"\r\n").unwrap();
            }
            stream.write_all(b"0\r\n\r\n").unwrap();
        }
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        let answer = String::from_utf8(answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, if head.contains("chunked") { unchunked(body) } else { body.into() })
    }

    pub fn get(&self, path: &str) -> (u16, String) {
        self.ask("GET", path, "", &[])
    }

    /// A value of the metrics.
    pub fn metric(&self, name: &str) -> f64 {
        let (status, text) = self.get("/metrics");
        assert_eq!(status, 200);
        assert!(text.ends_with("# EOF\n"), "{text}");
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no {name} in\n{text}")).parse().unwrap()
    }

    pub fn socket(&self, query: &str) -> WebSocket<TcpStream> {
        let url = format!("ws://{}/stream{query}", self.address);
        tungstenite::client(url.into_client_request().unwrap(), self.connect()).unwrap().0
    }

    /// Waits until it is so.
    pub fn wait(&self, what: &str, is_so: impl Fn(&Self) -> bool) {
        let until = Instant::now() + PATIENCE;
        while !is_so(self) {
            assert!(Instant::now() < until, "{what}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn unchunked(mut body: &str) -> String {
    let mut whole = String::new();
    while let Some((length, rest)) = body.split_once("\r\n") {
        let length = usize::from_str_radix(length, 16).unwrap();
        whole += &rest[..length];
        body = rest[length..].trim_start_matches("\r\n");
    }
    whole
}

/// Texts and times of the words.
pub fn words(said: &[Value]) -> Vec<(String, f64, f64)> {
    let words = said.iter().filter(|said| said["type"] == "word");
    words
        .map(|word| {
            (
                word["text"].as_str().unwrap().into(),
                word["start"].as_f64().unwrap(),
                word["end"].as_f64().unwrap(),
            )
        })
        .collect()
}

/// What `parakeet transcribe` makes of the sentence.
pub fn transcript() -> Vec<(String, f64, f64)> {
    let output = assert_cmd::Command::cargo_bin("parakeet")
        .unwrap()
        .arg("transcribe")
        .arg(repository().join("tests/data/speech.wav"))
        .args(["--backend", "cpu", "--format", "json", "--model"])
        .arg(repository().join("models/parakeet-tdt-mini"))
        .output()
        .unwrap();
    let json: Value = serde_json::from_slice(&output.stdout).unwrap();
    let mut words = json["words"].as_array().unwrap().clone();
    words.iter_mut().for_each(|word| word["type"] = "word".into());
    self::words(&words)
}
