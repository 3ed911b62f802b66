// SPDX-License-Identifier: MPL-2.0
//! A browser for tests of pages.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde_json::{Value, json};
use tungstenite::{Message, WebSocket, client::IntoClientRequest};

/// Longer than anything here takes on a slow machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A page of a browser, driven by Chrome's DevTools protocol.
pub struct Browser {
    child: Child,
    page: WebSocket<TcpStream>,
    calls: u64,
    _profile: tempfile::TempDir,
}

impl Browser {
    /// Opens the address, in a browser with these further arguments. `None` without a Chromium.
    pub fn open(address: &str, arguments: &[String]) -> Option<Self> {
        let profile = tempfile::tempdir().unwrap();
        let mut child = Command::new("chromium")
            .args([
                "--headless=new",
                "--no-sandbox",
                "--disable-gpu",
                "--no-first-run",
                "--window-size=900,700",
            ])
            .args(arguments)
            .args(["--autoplay-policy=no-user-gesture-required", "--remote-debugging-port=0"])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .ok()?;
        let mut stderr = BufReader::new(child.stderr.take().unwrap()).lines();
        let port = stderr.by_ref().map_while(Result::ok).find_map(|line| {
            let rest = line.strip_prefix("DevTools listening on ws://127.0.0.1:")?;
            rest.split('/').next()?.parse::<u16>().ok()
        });
        // What it still says must go somewhere.
        std::thread::spawn(move || stderr.for_each(drop));
        let mut stream = TcpStream::connect(("127.0.0.1", port.expect("Chromium starts"))).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        write!(stream, "PUT /json/new?{address} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
            .unwrap();
        // Chromium leaves the connection open.
        let mut answer = BufReader::new(&stream);
        let mut length = 0;
        for line in answer.by_ref().lines().map(Result::unwrap).take_while(|line| !line.is_empty()) {
            if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().unwrap();
            }
        }
        let mut target = vec![0; length];
        answer.read_exact(&mut target).unwrap();
        let target: Value = serde_json::from_slice(&target).unwrap();
        let url = target["webSocketDebuggerUrl"].as_str().unwrap();
        let stream = TcpStream::connect(stream.peer_addr().unwrap()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let page = tungstenite::client(url.into_client_request().unwrap(), stream).unwrap().0;
        Some(Self { child, page, calls: 0, _profile: profile })
    }

    fn call(&mut self, method: &str, parameters: &Value) -> Value {
        self.calls += 1;
        let call = json!({"id": self.calls, "method": method, "params": parameters}).to_string();
        self.page.send(Message::text(call)).unwrap();
        loop {
            let Message::Text(text) = self.page.read().unwrap() else { continue };
            let answer: Value = serde_json::from_str(&text).unwrap();
            if answer["id"] == self.calls {
                return answer["result"].clone();
            }
        }
    }

    /// What an expression of the page is.
    pub fn evaluate(&mut self, expression: &str) -> Value {
        let asked = json!({"expression": expression, "returnByValue": true, "awaitPromise": true, "userGesture": true});
        let answer = self.call("Runtime.evaluate", &asked);
        assert!(answer["exceptionDetails"].is_null(), "{answer}");
        answer["result"]["value"].clone()
    }

    /// Waits until an expression of the page is true.
    pub fn wait(&mut self, expression: &str) {
        let until = Instant::now() + PATIENCE;
        while self.evaluate(expression) != true {
            assert!(Instant::now() < until, "{expression}: {}", self.evaluate("document.body.innerText"));
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// A picture of the page, PNG.
    pub fn picture(&mut self) -> Vec<u8> {
        let picture = self.call("Page.captureScreenshot", &json!({}));
        BASE64_STANDARD.decode(picture["data"].as_str().unwrap()).unwrap()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
