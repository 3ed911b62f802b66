// SPDX-License-Identifier: MPL-2.0
//! Opens the engine's stream, off the streaming thread, and fits it to the latency.

use super::{
    imp::{CAT, ParakeetTdt},
    state::{Action, Model, Opened, Opening},
    timeline::SAMPLE_RATE,
};
use gst::{prelude::*, subclass::prelude::*};
use parakeet_engine::{Engine, Overflow, Stream, StreamOptions};
use std::{
    sync::{Arc, PoisonError},
    thread,
};

/// Audio that a stream which blocks keeps waiting, in samples; then the source waits.
const QUEUE: usize = 10 * SAMPLE_RATE as usize;

/// Audio that a stream which never blocks keeps waiting at most, in samples; what is too late goes before.
const MOST: usize = 30 * SAMPLE_RATE as usize;

impl ParakeetTdt {
    /// Audio that the model hears beyond the start of a moment before that is decoded, in ms.
    pub(super) fn heard_ms(&self) -> u64 {
        if let Some(stream) = &self.state().run.stream {
            return stream.latency_samples().div_ceil(16);
        }
        let settings = self.settings().clone();
        match &self.state().config {
            // What doesn't suit the model is an error once it is loaded.
            Some(config) => super::latency::heard_ms(&settings.stream(config), config),
            None => 0,
        }
    }

    /// What is answered to a latency query, beyond what upstream answers.
    pub(super) fn latency(&self) -> gst::ClockTime {
        let heard = self.heard_ms();
        self.settings().latency(heard)
    }

    /// How much audio may wait, in samples, and what happens to what doesn't fit.
    pub(super) fn queue(&self) -> (usize, Overflow) {
        let live = self.state().run.live == Some(true);
        if self.settings().blocks(live) { (QUEUE, Overflow::Block) } else { (MOST, Overflow::DropOldest) }
    }

    /// Fits the queue to what was set or found out since.
    pub(super) fn fit_queue(&self) {
        let (samples, overflow) = self.queue();
        let stream = self.state().run.stream.clone();
        if let Some(stream) = stream {
            stream.set_queue(samples, overflow);
        }
    }

    /// The engine's stream; none while the model is loaded or the stream opened, unless this is to `wait`.
    pub(super) fn stream(&self, wait: bool) -> Result<Option<Arc<Stream>>, gst::FlowError> {
        let mut state = self.state();
        loop {
            state.check()?;
            if let Some(stream) = &state.run.stream {
                return Ok(Some(stream.clone()));
            }
            match (&state.model, &state.run.opening) {
                (Model::Unloaded | Model::Failed, _) => return Err(gst::FlowError::Error),
                (_, Opening::Done(_)) => break,
                (Model::Ready(engine), Opening::None) => {
                    let engine = engine.clone();
                    drop(state);
                    self.open(engine)?;
                    state = self.state();
                }
                _ if !wait => return Ok(None),
                _ => state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
            }
        }
        drop(state);
        self.begin().map(Some)
    }

    /// Opens a stream for audio that came before the model was there: no more may come.
    pub(super) fn open_for_waiting(&self) {
        let _feeding = self.feeding();
        let state = self.state();
        let Model::Ready(engine) = &state.model else { return };
        let (engine, run) = (engine.clone(), &state.run);
        let is_open = run.stream.is_some() || !matches!(run.opening, Opening::None);
        if run.stopping || is_open || run.backlog.is_empty() {
            return;
        }
        drop(state);
        if let Err(error) = self.open(engine) {
            gst::debug!(CAT, imp = self, "could not open a stream: {error}");
        }
    }

    /// Starts to open a stream, on a thread of its own: the engine answers after the step under way.
    fn open(&self, engine: Arc<Engine>) -> Result<(), gst::FlowError> {
        let (queue_samples, overflow) = self.queue();
        let settings = self.settings().clone();
        let options = settings.stream(engine.config());
        if let Some(lacking) = settings.language(engine.config()).lacking {
            self.warn(gst::LibraryError::Settings, &lacking);
        }
        let options = StreamOptions { queue_samples, overflow, ..options };
        let mut state = self.state();
        state.opening += 1;
        let opening = state.opening;
        state.run.opening = Opening::UnderWay(opening);
        drop(state);
        let element = self.obj().downgrade();
        let spawned = thread::Builder::new().name("parakeet-open".into()).spawn(move || {
            // Lists of words are read here, off the streaming thread.
            let opened = settings.mask().and_then(|mask| {
                let vocabulary = settings.vocabulary(engine.vocabulary())?;
                let options = StreamOptions { vocabulary, ..options };
                let stream = engine.stream(&options).map_err(|error| error.to_string())?;
                Ok(Opened { stream: Arc::new(stream), mask })
            });
            if let Some(element) = element.upgrade() {
                element.imp().opened(opening, opened, overflow);
            }
        });
        spawned.map(drop).map_err(|error| {
            let text = format!("cannot start a thread to open a stream: {error}");
            self.raise_first(gst::CoreError::Thread, &text)
        })
    }

    /// Takes the result of attempt `opening`, unless nobody wants it any more.
    fn opened(&self, opening: u64, opened: Result<Opened, String>, overflow: Overflow) {
        let is_wanted = |state: &super::state::State| matches!(state.run.opening, Opening::UnderWay(wanted) if wanted == opening);
        if !is_wanted(&self.state()) {
            return;
        }
        let opened = match opened {
            Ok(opened) => Some(opened),
            Err(error) => {
                // Before audio is refused, so that the reason comes before what a source makes of that.
                let text = format!("cannot recognise speech: {error}");
                self.post_settled(self.error(gst::LibraryError::Settings, &text), is_wanted);
                None
            }
        };
        let is_open = opened.is_some();
        let mut state = self.state();
        if !is_wanted(&state) {
            drop(state);
            return;
        }
        match opened {
            Some(opened) => state.run.opening = Opening::Done(opened),
            None => {
                state.run.opening = Opening::None;
                state.run.fail();
            }
        }
        drop(state);
        self.wake();
        if is_open && overflow == Overflow::DropOldest {
            // The source may have nothing more to say for a while, and what it said must not wait for that.
            let _feeding = self.feeding();
            if let Err(error) = self.begin().and_then(|stream| self.give_waiting(&stream)) {
                gst::debug!(CAT, imp = self, "somebody else has the stream, or nobody wants it: {error}");
            }
        }
    }

    /// Takes the stream that was opened into use, with `feeding` held.
    fn begin(&self) -> Result<Arc<Stream>, gst::FlowError> {
        let assumed = self.latency();
        let units = self.settings().units();
        let mut state = self.state();
        if state.run.stopping {
            return Err(gst::FlowError::Flushing);
        }
        let Opening::Done(Opened { stream, mask }) = std::mem::take(&mut state.run.opening) else {
            return Err(gst::FlowError::Flushing);
        };
        state.run.stream = Some(stream.clone());
        (state.run.units, state.run.mask) = (units, mask);
        let dropped = state.run.backlog.dropped();
        let first = state.run.offset;
        state.run.offset += dropped;
        let lost = if dropped > 0 { state.run.lost(first, dropped) } else { None };
        state.statistics.dropped += dropped;
        drop(state);
        self.changed.notify_all();
        if dropped > 0 {
            self.obj().notify("dropped-audio");
        }
        if let Some(Action::Lost(loss)) = lost {
            self.tell_loss(loss);
        }
        self.fit_queue();
        if self.latency() != assumed {
            self.post_latency();
        }
        self.tell_latency();
        Ok(stream)
    }

    /// Says so if the model needs more than the latency that was asked for.
    pub(super) fn tell_latency(&self) {
        let heard = self.heard_ms();
        let settings = self.settings().clone();
        if let Some(asked) = settings.raised(heard) {
            let latency = settings.latency(heard);
            gst::warning!(
                CAT,
                imp = self,
                "the model needs a latency of {latency}, not {asked}; that is what counts"
            );
            self.post_latency();
        }
    }
}
