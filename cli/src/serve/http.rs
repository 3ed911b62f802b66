// SPDX-License-Identifier: MPL-2.0
//! Addresses of the server: the page, streams over WebSocket and HTTP, health and metrics.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade, close_code};
use axum::extract::{Query, State};
use axum::http::header::{CONTENT_TYPE, HOST, ORIGIN, RETRY_AFTER};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use tokio::sync::mpsc;
use tokio::time;
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt};

use super::house::{House, Refusal};
use super::metrics;
use super::session::{self, Lines, Unopened, Why, Wishes};

/// Bytes that a message may have: half a minute of audio.
const MESSAGE: usize = 1 << 20;
/// Pieces of audio that may wait to be handed over.
const PIECES: usize = 4;
/// How long a client may take to take a line.
const SLOW: Duration = Duration::from_secs(30);
/// How long it may take to close when it is told to.
const CLOSING: Duration = Duration::from_secs(5);

/// What is where.
pub fn router(house: Arc<House>) -> Router {
    Router::new()
        .route("/", get(async || Html(include_str!("page.html"))))
        .route("/stream", get(socket).post(body).put(body))
        .route("/live", get(async || "live\n"))
        .route("/ready", get(ready))
        .route("/metrics", get(scrape))
        .with_state(house)
}

async fn ready(State(house): State<Arc<House>>) -> Response {
    match house.ready() {
        Ok(_) => "ready\n".into_response(),
        Err(refusal) => refused(refusal),
    }
}

async fn scrape(State(house): State<Arc<House>>) -> Response {
    // Waits for the step under way.
    let text = tokio::task::spawn_blocking(move || metrics::text(&house.metrics, house.now())).await;
    match text {
        Ok(Ok(text)) => ([(CONTENT_TYPE, metrics::TYPE)], text).into_response(),
        _ => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

/// Audio in the body, as it comes; lines in the answer, as they come.
async fn body(
    State(house): State<Arc<House>>,
    headers: HeaderMap,
    Query(wishes): Query<Wishes>,
    body: Body,
) -> Response {
    // A body that breaks off has ended.
    let audio = body.into_data_stream().map_while(Result::ok);
    match open(&house, &headers, wishes, audio).await {
        Ok(lines) => {
            ([(CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(told(lines))).into_response()
        }
        Err(refusal) => refusal,
    }
}

/// Opens a stream, or says why not.
async fn open(
    house: &Arc<House>,
    headers: &HeaderMap,
    wishes: Wishes,
    audio: impl Stream<Item = Bytes> + Send + 'static,
) -> Result<Lines, Response> {
    match foreign(headers) {
        Some(refusal) => Err(refusal),
        None => session::open(house, wishes, audio).await.map_err(unopened),
    }
}

fn told(mut lines: Lines) -> impl Stream<Item = Result<String, Infallible>> {
    let (tell, told) = mpsc::channel(1);
    tokio::spawn(async move {
        while let Some(line) = lines.next().await {
            let sent = time::timeout(SLOW, tell.send(Ok(line + "\n"))).await;
            if !matches!(sent, Ok(Ok(()))) {
                return;
            }
        }
    });
    ReceiverStream::new(told)
}

/// Audio in binary messages, `end` as text; each line a message.
async fn socket(
    State(house): State<Arc<House>>,
    headers: HeaderMap,
    Query(wishes): Query<Wishes>,
    upgrade: WebSocketUpgrade,
) -> Response {
    // A stream first: who gets none is told in an answer that everybody can read.
    let (hand, audio) = mpsc::channel(PIECES);
    match open(&house, &headers, wishes, ReceiverStream::new(audio)).await {
        Ok(lines) => upgrade.max_message_size(MESSAGE).on_upgrade(move |socket| serve(socket, hand, lines)),
        Err(refusal) => refusal,
    }
}

async fn serve(mut socket: WebSocket, hand: mpsc::Sender<Bytes>, mut lines: Lines) {
    let mut hand = Some(hand);
    // Of the messages that are to be handed over, one is held here while there is no room for it: the client waits then.
    let mut held: Option<Bytes> = None;
    loop {
        let full = hand.clone().filter(|_| held.is_some());
        let room = async {
            match full {
                Some(hand) => hand.reserve_owned().await.ok(),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            permit = room => match (permit, held.take()) {
                (Some(permit), Some(bytes)) => drop(permit.send(bytes)),
                // The stream takes no more; its last lines come.
                _ => hand = None,
            },
            message = socket.recv(), if held.is_none() => match message {
                Some(Ok(Message::Binary(bytes))) => held = hand.is_some().then_some(bytes),
                Some(Ok(Message::Text(text))) if text.as_str() == "end" => hand = None,
                Some(Ok(Message::Text(_))) => {
                    let reason = "audio comes in binary messages, then the text end";
                    return close(socket, close_code::UNSUPPORTED, reason).await;
                }
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                Some(Ok(Message::Close(_)) | Err(_)) | None => return,
            },
            line = lines.next() => match line {
                Some(line) => {
                    let sent = time::timeout(SLOW, socket.send(Message::Text(line.into()))).await;
                    if !matches!(sent, Ok(Ok(()))) {
                        return;
                    }
                }
                None => {
                    let (code, reason) = match lines.why() {
                        Some(Why::Leaving) => (close_code::AWAY, "the server leaves"),
                        Some(Why::Idle) => (close_code::POLICY, "no audio came for long"),
                        Some(Why::Ended) => (close_code::NORMAL, ""),
                        None => (close_code::ERROR, "the stream failed"),
                    };
                    return close(socket, code, reason).await;
                }
            },
        }
    }
}

/// Closes the socket, with a code and a reason. What still comes is read: unread, it would have the connection reset before the
/// client has what was sent.
async fn close(mut socket: WebSocket, code: u16, reason: &'static str) {
    let sent = socket.send(Message::Close(Some(CloseFrame { code, reason: reason.into() }))).await;
    if sent.is_ok() {
        let _ = time::timeout(CLOSING, async { while let Some(Ok(_)) = socket.recv().await {} }).await;
    }
}

/// Refuses what a page of another server asks for: a browser lets any page connect to this machine.
fn foreign(headers: &HeaderMap) -> Option<Response> {
    let origin = headers.get(ORIGIN)?.to_str().unwrap_or_default();
    let host = headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let is_own = origin.split_once("://").is_some_and(|(_, own)| own == host);
    (!is_own).then(|| {
        (StatusCode::FORBIDDEN, format!("pages of {origin} have no business here\n")).into_response()
    })
}

fn unopened(error: Unopened) -> Response {
    match error {
        Unopened::Refused(refusal) => refused(refusal),
        Unopened::Engine(error) => {
            let status = match error {
                parakeet_engine::Error::Option { .. } => StatusCode::BAD_REQUEST,
                _ => StatusCode::SERVICE_UNAVAILABLE,
            };
            (status, format!("{error}\n")).into_response()
        }
    }
}

fn refused(refusal: Refusal) -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, [(RETRY_AFTER, "1")], format!("{refusal}\n")).into_response()
}
