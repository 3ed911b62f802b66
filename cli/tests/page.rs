// SPDX-License-Identifier: MPL-2.0
//! The server's page in Chromium, which hears the sentence through its microphone.

mod server;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde_json::{Value, json};
use server::{PATIENCE, Server, repository, transcript};
use tungstenite::{Message, WebSocket, client::IntoClientRequest};

/// A page of a browser, driven by Chrome's DevTools protocol.
struct Browser {
    child: Child,
    page: WebSocket<TcpStream>,
    calls: u64,
    _profile: tempfile::TempDir,
}

impl Browser {
    /// Opens the address in a browser whose microphone hears the file once. `None` without a Chromium.
    fn open(address: &str, microphone: &str) -> Option<Self> {
        let profile = tempfile::tempdir().unwrap();
        let mut child = Command::new("chromium")
            .args([
                "--headless=new",
                "--no-sandbox",
                "--disable-gpu",
                "--no-first-run",
                "--window-size=900,700",
            ])
            .args(["--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream"])
            .arg(format!("--use-file-for-fake-audio-capture={microphone}%noloop"))
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
    fn evaluate(&mut self, expression: &str) -> Value {
        let asked = json!({"expression": expression, "returnByValue": true, "awaitPromise": true, "userGesture": true});
        let answer = self.call("Runtime.evaluate", &asked);
        assert!(answer["exceptionDetails"].is_null(), "{answer}");
        answer["result"]["value"].clone()
    }

    fn text_of(&mut self, id: &str) -> String {
        self.evaluate(&format!("document.getElementById('{id}').textContent")).as_str().unwrap().into()
    }

    /// Waits until an expression of the page is true.
    fn wait(&mut self, expression: &str) {
        let until = Instant::now() + PATIENCE;
        while self.evaluate(expression) != true {
            assert!(
                Instant::now() < until,
                "{expression}: {}, {}",
                self.text_of("state"),
                self.text_of("words")
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// A picture of the page, PNG.
    fn picture(&mut self) -> Vec<u8> {
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

#[test]
fn words_appear_as_the_microphone_hears_them() {
    let server = Server::start(&[]);
    let speech = repository().join("tests/data/speech.wav").canonicalize().unwrap();
    let address = format!("http://{}/", server.address);
    let Some(mut browser) = Browser::open(&address, speech.to_str().unwrap()) else {
        println!("SKIPPED: words_appear_as_the_microphone_hears_them, there is no chromium");
        return;
    };
    browser.wait("document.readyState === 'complete' && !!document.getElementById('microphone')");
    browser.evaluate("document.getElementById('microphone').click()");
    browser.wait("document.querySelector('#words .partial') !== null");
    let spoken = transcript();
    browser.wait(&format!("Number(document.getElementById('count').textContent) >= {}", spoken.len() - 1));
    let picture = browser.picture();
    let out = Path::new(env!("CARGO_TARGET_TMPDIR")).join("page.png");
    std::fs::write(&out, picture).unwrap();
    browser.evaluate("document.getElementById('stop').click()");
    browser.wait("document.getElementById('state').textContent === 'done'");

    let said = browser.evaluate(
        "[...document.querySelectorAll('#words span')].map(word => [word.textContent, word.title])",
    );
    let said = said.as_array().unwrap();
    let texts: Vec<&str> = said.iter().map(|word| word[0].as_str().unwrap().trim()).collect();
    // The browser resamples what it hears, and begins somewhere: all but a word may be the same.
    let expected: Vec<&str> = spoken.iter().map(|word| word.0.as_str()).collect();
    let same = expected.iter().filter(|word| texts.contains(word)).count();
    println!("{same} of {} words, picture in {}", expected.len(), out.display());
    assert!(same + 2 >= expected.len() && texts.len() <= expected.len() + 2, "{texts:?}");
    // As long after each other as they were spoken.
    let start = |title: &Value| title.as_str().unwrap().split(' ').next().unwrap().parse::<f64>().unwrap();
    let length = start(&said.last().unwrap()[1]) - start(&said[0][1]);
    let expected = spoken.last().unwrap().1 - spoken[0].1;
    assert!((length - expected).abs() <= 0.3, "{length} s, {expected} s were spoken");
    assert!(browser.text_of("most").ends_with(" s"));
}
