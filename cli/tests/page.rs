// SPDX-License-Identifier: MPL-2.0
//! The server's page in Chromium, which hears the sentence through its microphone.

mod browser;
mod server;

use std::path::Path;

use browser::Browser;
use serde_json::Value;
use server::{Server, repository, transcript};

#[test]
fn words_appear_as_the_microphone_hears_them() {
    let server = Server::start(&[]);
    let speech = repository().join("tests/data/speech.wav").canonicalize().unwrap();
    let address = format!("http://{}/", server.address);
    let microphone = [
        "--use-fake-ui-for-media-stream".into(),
        "--use-fake-device-for-media-stream".into(),
        format!("--use-file-for-fake-audio-capture={}%noloop", speech.display()),
    ];
    let Some(mut browser) = Browser::open(&address, &microphone) else {
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
    assert!(
        browser.evaluate("document.getElementById('most').textContent").as_str().unwrap().ends_with(" s")
    );
}
