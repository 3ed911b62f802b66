// SPDX-License-Identifier: MPL-2.0
//! What all streams share: the model, how many may come, and whether it is time to leave.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parakeet_engine::{Engine, StreamOptions};
use tokio::sync::watch;

use super::metrics::{Metrics, Now};

/// What a server allows.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Streams at once; `None` for as many as there is memory for.
    pub streams: Option<usize>,
    /// Time without audio after which a stream is ended.
    pub idle: Duration,
    /// Time that streams have to come to a pause when it is time to leave.
    pub drain: Duration,
}

/// The server's state.
pub struct House {
    /// The model, once it is loaded, and how its streams are run.
    engine: OnceLock<(Arc<Engine>, StreamOptions)>,
    /// What is allowed.
    pub limits: Limits,
    /// Streams there are.
    streams: watch::Sender<usize>,
    leaving: watch::Sender<bool>,
    /// What is counted.
    pub metrics: Metrics,
}

/// Why there is no place for a stream now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It can't recognise anything yet.
    #[error("the model is being loaded")]
    Loading,
    /// Others have all the places.
    #[error("all places are taken")]
    Full,
    /// It takes no more streams.
    #[error("the server is about to leave")]
    Leaving,
    /// All its devices are lost.
    #[error("no device is left to run the model, the server has to be started anew")]
    Lost,
}

impl Refusal {
    /// In one word, for metrics.
    pub fn name(self) -> &'static str {
        match self {
            Refusal::Loading => "loading",
            Refusal::Full => "full",
            Refusal::Leaving => "leaving",
            Refusal::Lost => "lost",
        }
    }
}

/// A stream's place, free again when this is dropped.
pub struct Place(Arc<House>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.streams.send_modify(|streams| *streams -= 1);
    }
}

impl House {
    /// Without a model yet.
    pub fn new(limits: Limits) -> Self {
        Self {
            engine: OnceLock::new(),
            limits,
            streams: watch::Sender::new(0),
            leaving: watch::Sender::new(false),
            metrics: Metrics::default(),
        }
    }

    /// The model is there, its streams are run like this.
    pub fn open(&self, engine: Arc<Engine>, options: StreamOptions) {
        let _ = self.engine.set((engine, options));
    }

    /// The model and how its streams are run, once it is loaded.
    pub fn engine(&self) -> Option<&(Arc<Engine>, StreamOptions)> {
        self.engine.get()
    }

    /// What is to be told now beside what is counted. Waits for the step under way.
    pub fn now(&self) -> Now {
        Now {
            streams: self.streams(),
            limit: self.limits.streams,
            is_ready: self.ready().is_ok(),
            statistics: self.engine().map(|(engine, _)| engine.statistics()),
        }
    }

    /// How many streams there are.
    pub fn streams(&self) -> usize {
        *self.streams.borrow()
    }

    /// Fails where another stream would be refused.
    pub fn ready(&self) -> Result<&(Arc<Engine>, StreamOptions), Refusal> {
        let engine = self.engine.get().ok_or(Refusal::Loading)?;
        if *self.leaving.borrow() {
            return Err(Refusal::Leaving);
        }
        if !engine.0.works() {
            return Err(Refusal::Lost);
        }
        match self.limits.streams {
            Some(most) if self.streams() >= most => Err(Refusal::Full),
            _ => Ok(engine),
        }
    }

    /// Takes a place.
    pub fn enter(self: &Arc<Self>) -> Result<Place, Refusal> {
        self.ready()?;
        let most = self.limits.streams.unwrap_or(usize::MAX);
        let entered = self.streams.send_if_modified(|streams| {
            let is_free = *streams < most;
            *streams += usize::from(is_free);
            is_free
        });
        if entered { Ok(Place(self.clone())) } else { Err(Refusal::Full) }
    }

    /// Takes no more streams, and has those that there are end soon; how many these are.
    pub fn leave(&self) -> usize {
        self.leaving.send_replace(true);
        self.streams()
    }

    /// Waits until it is time to leave.
    pub async fn left(&self) {
        // The sender is in this house.
        let _ = self.leaving.subscribe().wait_for(|leaving| *leaving).await;
    }

    /// Waits until there is no stream.
    pub async fn empty(&self) {
        let _ = self.streams.subscribe().wait_for(|streams| *streams == 0).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_enters_before_there_is_a_model() {
        let second = Duration::from_secs(1);
        let house = Arc::new(House::new(Limits { streams: Some(1), idle: second, drain: second }));
        assert_eq!(house.enter().err(), Some(Refusal::Loading));
        assert_eq!((house.streams(), house.leave()), (0, 0));
    }
}
