// SPDX-License-Identifier: MPL-2.0
//! One stream, from the bytes that a client sends to the lines that it gets.

use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use axum::body::Bytes;
use parakeet_engine::{Event, Overflow, Stream, Word};
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};
use tokio::time;
use tokio_stream::StreamExt;

use super::audio::{Arrivals, Samples};
use super::house::{House, Place, Refusal};
use crate::formats::seconds;

/// Samples without a word that are a pause to leave in: 0.8 s.
const PAUSE: u64 = 12_800;
/// Lines that may wait for a client; then the engine waits for it.
const LINES: usize = 64;
/// How often it is looked whether a stream has come to a pause.
const LOOK: Duration = Duration::from_millis(100);

/// What a client may ask for in the query.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Wishes {
    /// Texts that are not final too.
    partials: bool,
    /// Gives up the oldest audio where recognition is too slow, instead of taking no more: for live sources.
    live: bool,
    /// Language that is spoken, for models that are told.
    language: Option<String>,
}

/// What comes out of a stream. Times are in seconds from its first sample.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Said<'a> {
    Word {
        text: &'a str,
        start: f64,
        end: f64,
        confidence: f32,
        /// No space is before it.
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        joined: bool,
        /// From when its end came in to when this goes out.
        delay: f64,
    },
    /// A word that is not complete.
    Partial {
        text: &'a str,
        start: f64,
        end: f64,
    },
    /// The model says that the speaker is done.
    EndOfUtterance {
        time: f64,
        backchannel: bool,
    },
    Language {
        time: f64,
        language: &'a str,
    },
    /// Audio that was given up.
    Lost {
        start: f64,
        seconds: f64,
    },
    /// A device failed, and it went on elsewhere.
    Recovered {
        time: f64,
        seconds: f64,
        error: String,
    },
    /// The last line.
    Finished {
        time: f64,
        reason: Why,
    },
    /// The last line.
    Failed {
        time: f64,
        error: String,
    },
}

/// Why a stream ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Why {
    /// Its audio has ended.
    Ended,
    /// No audio came for long.
    Idle,
    /// The server leaves; another may go on.
    Leaving,
}

/// What the two halves of a stream share.
struct Shared {
    stream: Stream,
    house: Arc<House>,
    arrivals: Mutex<Arrivals>,
    /// Where the last word ends.
    said: AtomicU64,
    /// No word before this sample will come any more.
    heard: AtomicU64,
    why: OnceLock<Why>,
}

/// The lines that a client gets, JSON without line ends; the stream ends with them, and when nobody takes them any more.
pub struct Lines {
    lines: mpsc::Receiver<String>,
    shared: Arc<Shared>,
    /// Tells that nobody does.
    _gone: oneshot::Sender<()>,
    /// Until the client has them all: a server that leaves waits for that.
    _place: Arc<Place>,
}

impl Lines {
    /// The next; none after the last.
    pub async fn next(&mut self) -> Option<String> {
        self.lines.recv().await
    }

    /// Why the stream has ended, if it has without failing.
    pub fn why(&self) -> Option<Why> {
        self.shared.why.get().copied()
    }
}

/// Why there is no stream.
#[derive(Debug, thiserror::Error)]
pub enum Unopened {
    /// Not at this time.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The engine's words.
    #[error(transparent)]
    Engine(#[from] parakeet_engine::Error),
}

/// Opens a stream that hears `audio`, 16 kHz mono S16LE in pieces of any size, until that ends.
pub async fn open(
    house: &Arc<House>,
    wishes: Wishes,
    audio: impl tokio_stream::Stream<Item = Bytes> + Send + 'static,
) -> Result<Lines, Unopened> {
    let place = Arc::new(house.enter().inspect_err(|refusal| house.metrics.refused(refusal.name()))?);
    let Some((engine, mut options)) = house.engine().cloned() else { return Err(Refusal::Loading.into()) };
    options.partials = wishes.partials;
    options.language = wishes.language.or(options.language);
    if wishes.live {
        options.overflow = Overflow::DropOldest;
    }
    // Waits for the step under way.
    let opened = tokio::task::spawn_blocking(move || engine.stream(&options)).await;
    let stream = opened.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))?;
    house.metrics.opened.inc();
    let shared = Arc::new(Shared {
        stream,
        house: house.clone(),
        arrivals: Mutex::default(),
        said: AtomicU64::default(),
        heard: AtomicU64::default(),
        why: OnceLock::new(),
    });
    let (tell, lines) = mpsc::channel(LINES);
    let (gone, nobody) = oneshot::channel();
    tokio::spawn(hear(shared.clone(), audio, nobody, wishes.live));
    let (telling, held) = (shared.clone(), place.clone());
    thread::Builder::new().name("parakeet-stream".into()).spawn(move || telling.tell(&tell, &held)).map_err(
        |error| parakeet_engine::Error::Unsupported(format!("no thread for another stream: {error}")),
    )?;
    Ok(Lines { lines, shared, _gone: gone, _place: place })
}

/// Pushes the audio until that ends, it is time to leave, or nobody takes the lines.
async fn hear(
    shared: Arc<Shared>,
    audio: impl tokio_stream::Stream<Item = Bytes>,
    mut nobody: oneshot::Receiver<()>,
    live: bool,
) {
    let (mut audio, mut samples, limits) = (pin!(audio), Samples::default(), shared.house.limits);
    let mut paused = pin!(shared.paused());
    let why = loop {
        let piece = tokio::select! {
            piece = time::timeout(limits.idle, audio.next()) => piece,
            () = &mut paused => break Some(Why::Leaving),
            _ = &mut nobody => break None,
        };
        match piece {
            Ok(Some(bytes)) => {
                let pcm = samples.of(&bytes);
                if !shared.push(pcm, live, &mut nobody).await {
                    break None;
                }
            }
            Ok(None) => break Some(Why::Ended),
            Err(_) => break Some(Why::Idle),
        }
    };
    if let Some(why) = why {
        let _ = shared.why.set(why);
        shared.stream.finish();
        let _ = (&mut nobody).await;
    }
    // Wakes whoever waits for events, or for room.
    shared.stream.reset();
    shared.stream.interrupt();
}

impl Shared {
    fn arrivals(&self) -> MutexGuard<'_, Arrivals> {
        self.arrivals.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands samples over; whether the stream takes more.
    async fn push(self: &Arc<Self>, pcm: Vec<f32>, live: bool, nobody: &mut oneshot::Receiver<()>) -> bool {
        self.arrivals().come(pcm.len(), Instant::now());
        self.house.metrics.audio.inc_by(seconds(pcm.len() as u64));
        if live {
            // Never waits.
            return self.stream.push(&pcm).is_ok();
        }
        let pushing = self.clone();
        let pushed = tokio::task::spawn_blocking(move || pushing.stream.push(&pcm).is_ok());
        tokio::select! {
            pushed = pushed => pushed.unwrap_or(false),
            _ = nobody => false,
        }
    }

    /// Waits until it is time to leave, and then for a pause in speech, but not for long.
    async fn paused(self: &Arc<Self>) {
        self.house.left().await;
        let late = time::Instant::now() + self.house.limits.drain;
        while time::Instant::now() < late {
            let (said, heard) = (self.said.load(Ordering::Relaxed), self.heard.load(Ordering::Relaxed));
            if heard.saturating_sub(said) >= PAUSE {
                return;
            }
            time::sleep(LOOK).await;
        }
    }

    /// Gives out lines until the last one.
    fn tell(&self, lines: &mpsc::Sender<String>, _place: &Place) {
        while let Some(event) = self.stream.next() {
            let is_last = matches!(event, Event::Finished { .. } | Event::Failed { .. });
            let Some(line) = self.line(&event) else { continue };
            if lines.blocking_send(line).is_err() || is_last {
                return;
            }
        }
    }

    /// What an event is to the client; `None` for one that is only counted.
    fn line(&self, event: &Event) -> Option<String> {
        let said = match event {
            Event::Word(word) => self.word(word)?,
            Event::Partial(Word { text, start, end, .. }) => {
                Said::Partial { text, start: seconds(*start), end: seconds(*end) }
            }
            Event::EndOfUtterance { sample, backchannel } => {
                Said::EndOfUtterance { time: seconds(*sample), backchannel: *backchannel }
            }
            Event::Language { sample, code } => Said::Language { time: seconds(*sample), language: code },
            Event::Lost { start, samples } => {
                self.house.metrics.dropped.inc_by(seconds(*samples));
                Said::Lost { start: seconds(*start), seconds: seconds(*samples) }
            }
            Event::Recovered { sample, gap, error } => Said::Recovered {
                time: seconds(*sample),
                seconds: gap.as_secs_f64(),
                error: error.to_string(),
            },
            Event::Finished { sample } => Said::Finished {
                time: seconds(*sample),
                reason: self.why.get().copied().unwrap_or(Why::Ended),
            },
            Event::Failed { error, sample } => {
                self.house.metrics.failed.inc();
                Said::Failed { time: seconds(*sample), error: error.to_string() }
            }
            Event::Progress { sample } => {
                self.heard.store(*sample, Ordering::Relaxed);
                self.arrivals().forget_before(*sample);
                return None;
            }
            // What there may be one day is nothing that clients know.
            _ => return None,
        };
        // Strings and finite numbers always serialise.
        serde_json::to_string(&said).ok()
    }

    fn word<'a>(&self, word: &'a Word) -> Option<Said<'a>> {
        let Word { text, start, end, confidence, joined, .. } = word;
        // Tokens without a text of their own are no word to read.
        if text.is_empty() {
            return None;
        }
        let delay = self.arrivals().since(*end, Instant::now()).as_secs_f64();
        self.said.store(*end, Ordering::Relaxed);
        self.house.metrics.words.inc();
        self.house.metrics.delay.observe(delay);
        Some(Said::Word {
            text,
            start: seconds(*start),
            end: seconds(*end),
            confidence: *confidence,
            joined: *joined,
            delay: (delay * 1e3).round() / 1e3,
        })
    }
}
