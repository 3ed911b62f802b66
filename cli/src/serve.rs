// SPDX-License-Identifier: MPL-2.0
//! `parakeet serve`: live streams over the network, with a page for people and figures for who watches it.

mod audio;
mod house;
mod http;
mod metrics;
mod session;

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use parakeet_engine::Engine;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;

use crate::engine_args::EngineArgs;
use crate::failure::Failure;
use crate::streaming::StreamArgs;
use crate::transcribe::default_model;
use crate::vocabulary::VocabularyArgs;
use house::{House, Limits};

/// Transcribe live streams over HTTP and WebSocket: GET / is a page to try it
#[derive(clap::Args)]
pub struct Args {
    /// Where to listen; with port 0 at any that is free. Whoever can connect can have streams: leave it at this machine, or put
    /// it behind a proxy that knows who may
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:7780")]
    listen: SocketAddr,
    /// Model directory [default: as for transcribe]
    #[arg(long, value_name = "DIR")]
    model: Option<PathBuf>,
    /// Streams at once, at most: further ones are refused [default: as many as there is memory for; parakeet bench --live says how
    /// many keep up]
    #[arg(long, value_name = "N")]
    streams: Option<NonZeroUsize>,
    /// Seconds without audio after which a stream is ended
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    idle: u32,
    /// Seconds that streams have, after SIGTERM or SIGINT, to come to a pause in speech
    #[arg(long, value_name = "SECONDS", default_value_t = 20)]
    drain: u32,
    #[command(flatten)]
    engine: EngineArgs,
    #[command(flatten)]
    streaming: StreamArgs,
    #[command(flatten)]
    vocabulary: VocabularyArgs,
}

/// Serves until it is told to leave. Fails if the model can't be loaded or the address is taken.
pub fn run(args: &Args) -> Result<(), Failure> {
    let model = args.model.clone().map_or_else(default_model, Ok)?;
    let options = args.engine.options()?;
    let house = Arc::new(House::new(Limits {
        streams: args.streams.map(NonZeroUsize::get),
        idle: Duration::from_secs(args.idle.into()),
        drain: Duration::from_secs(args.drain.into()),
    }));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let result = runtime.block_on(async {
        let listener = TcpListener::bind(args.listen).await;
        let listener = listener.map_err(|error| Failure::Listen(args.listen, error))?;
        println!("listening on http://{}", listener.local_addr()?);

        // Who asks meanwhile is told that the model is being loaded.
        let (tell, loaded) = oneshot::channel();
        let (streaming, vocabulary, loading) = (args.streaming.clone(), args.vocabulary.clone(), house.clone());
        thread::spawn(move || {
            let opened = Engine::open(&model, &options).map_err(Failure::from).and_then(|engine| {
                let options = vocabulary.options(&streaming, &engine)?;
                options.mode(engine.config())?;
                loading.open(engine, options);
                Ok(())
            });
            let _ = tell.send(opened);
        });
        let loaded = async {
            match loaded.await {
                Ok(Err(failure)) => failure,
                // It stays: only a failure is waited for.
                _ => std::future::pending().await,
            }
        };

        let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let mut told = async || tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} };
        let leave = async {
            told().await;
            let streams = house.leave();
            if streams > 0 {
                eprintln!("leaving when {streams} streams have come to a pause; told again, at once");
            }
            told().await;
        };
        let left = house.clone();
        let empty = async move {
            left.left().await;
            left.empty().await;
        };
        tokio::select! {
            served = axum::serve(listener, http::router(house.clone())).with_graceful_shutdown(empty) => Ok(served?),
            () = leave => Ok(()),
            failure = loaded => Err(failure),
        }
    });
    // What still waits for audio or the engine has nobody left to wait for.
    runtime.shutdown_background();
    result
}
