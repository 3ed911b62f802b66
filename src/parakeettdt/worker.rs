// SPDX-License-Identifier: MPL-2.0
//! The task of the source pad: waits for words and pushes them, and everything that comes in order with them.

use super::{
    imp::{CAT, ParakeetTdt},
    meta,
    places::Moment,
    state::{Action, Loss, Model},
    text::{Format, Partial, Raw, RawToken, Text},
    timeline::nanoseconds,
};
use gst::{glib, prelude::*, subclass::prelude::*};
use parakeet_engine::{Error, Event, model::Vocabulary};
use std::{
    sync::PoisonError,
    time::{Duration, Instant},
};

impl ParakeetTdt {
    /// Starts the task.
    pub(super) fn start_task(&self) -> Result<(), glib::BoolError> {
        let (element, pad) = (self.obj().downgrade(), self.src_pad.downgrade());
        self.src_pad.start_task(move || {
            let (Some(element), Some(pad)) = (element.upgrade(), pad.upgrade()) else { return };
            // After a panic, which is posted as an error, there is no further turn.
            let pause = || drop(pad.pause_task());
            element.imp().catch_panic(pause, |imp| imp.step());
        })
    }

    /// One turn of the task.
    fn step(&self) {
        let mut state = self.state();
        let stream = loop {
            if state.run.stopping || state.run.refused.is_some() {
                drop(state);
                // It fails only if the pad has no task, and this is its task.
                let _ = self.src_pad.pause_task();
                return;
            }
            if let Some(action) = state.next_pending() {
                drop(state);
                self.act(vec![action]);
                return;
            }
            if let Some(stream) = state.run.stream.clone() {
                break stream;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        };
        drop(state);
        let event = match stream.try_next() {
            Some(event) => event,
            None if self.look_at_clock(&stream) => return,
            None => {
                let Some(event) = stream.next() else { return };
                event
            }
        };
        let is_raw_told = self.settings().tells_raw();
        let mut state = self.state();
        if state.run.stopping {
            return;
        }
        let is_loss = matches!(event, Event::Lost { .. });
        if let Event::Lost { samples, .. } = event {
            state.statistics.dropped += samples;
        }
        state.run.watch.last_activity = Some(Instant::now());
        let raw = match &event {
            Event::Word(word) if is_raw_told => Some(Action::Raw(state.run.raw(word))),
            _ => None,
        };
        let mut actions = state.run.receive(event);
        drop(state);
        actions.extend(raw);
        if is_loss {
            self.obj().notify("dropped-audio");
        }
        self.act(actions);
    }

    pub(super) fn act(&self, actions: Vec<Action>) {
        for action in actions {
            let flow = match action {
                Action::Event(event) => {
                    self.push_event(event);
                    Ok(gst::FlowSuccess::Ok)
                }
                Action::Gap { start, end } => {
                    let (start, duration) = (time(start), time(end - start));
                    self.src_pad.push_event(gst::event::Gap::builder(start).duration(duration).build());
                    Ok(gst::FlowSuccess::Ok)
                }
                Action::Text(text) => self.push_text(text),
                Action::Lost(loss) => {
                    self.tell_loss(loss);
                    Ok(gst::FlowSuccess::Ok)
                }
                Action::EndOfUtterance { at, backchannel } => {
                    let structure = gst::Structure::builder("parakeettdt/end-of-utterance");
                    self.post_element(timed(structure.field("backchannel", backchannel), at).build());
                    Ok(gst::FlowSuccess::Ok)
                }
                Action::Partial(partial) => self.push_partial(&partial),
                Action::Raw(raw) => {
                    self.tell_raw(&raw);
                    Ok(gst::FlowSuccess::Ok)
                }
                Action::Recovered { at, gap, error } => {
                    self.tell_recovery(at, gap, &error);
                    Ok(gst::FlowSuccess::Ok)
                }
                Action::Fail(error) => {
                    self.raise(gst::LibraryError::Failed, &format!("recognition failed: {error}"));
                    Ok(gst::FlowSuccess::Ok)
                }
            };
            if let Err(error) = flow {
                self.stop_flow(error);
                return;
            }
        }
    }

    fn push_event(&self, event: gst::Event) {
        let event = match event.type_() {
            gst::EventType::Caps => {
                let caps = self.agree().caps();
                gst::event::Caps::builder(&caps).seqnum(event.seqnum()).build()
            }
            _ => event,
        };
        gst::log!(CAT, imp = self, "pushing {event:?}");
        if !self.src_pad.push_event(event.clone()) && event.is_sticky() {
            let mut state = self.state();
            if state.run.stopping {
                state.run.put_back(event);
            }
        }
    }

    /// Agrees with downstream on what buffers hold: text, unless it takes JSON only.
    fn agree(&self) -> Format {
        self.src_pad.check_reconfigure();
        let all = self.src_pad.pad_template_caps();
        let format = Format::first_of(&self.src_pad.peer_query_caps(Some(&all))).unwrap_or_default();
        self.state().run.format = format;
        format
    }

    /// What buffers hold; agrees anew if downstream is another.
    fn format(&self) -> Format {
        let before = self.state().run.format;
        if !self.src_pad.check_reconfigure() {
            return before;
        }
        let format = self.agree();
        if format != before {
            self.push_event(gst::event::Caps::new(&format.caps()));
        }
        format
    }

    fn push_text(&self, text: Text) -> Result<gst::FlowSuccess, gst::FlowError> {
        gst::debug!(
            CAT,
            imp = self,
            "pushing {:?} from {} to {}",
            text.text,
            time(text.start),
            time(text.end)
        );
        let buffer = to_buffer(&text, self.format(), true);
        self.state().statistics.buffers += 1;
        if let Some(arrived) = text.arrived {
            self.observe_delay(arrived);
        }
        self.src_pad.push(buffer)
    }

    /// Posts a hypothesis for the application; it is no text of the stream, but downstream of JSON is told as well.
    fn push_partial(&self, partial: &Partial) -> Result<gst::FlowSuccess, gst::FlowError> {
        let Partial { text, stable } = partial;
        let start = Moment { running: text.start, stream: text.stream };
        let structure = gst::Structure::builder("parakeettdt/partial")
            .field("text", &text.text)
            .field("stable-text", &text.text[..*stable]);
        self.post_element(timed(structure, Some(start)).build());
        match self.format() {
            Format::Json => self.src_pad.push(to_buffer(text, Format::Json, false)),
            Format::Utf8 => Ok(gst::FlowSuccess::Ok),
        }
    }

    /// Posts a word with its tokens for the application.
    fn tell_raw(&self, raw: &Raw) {
        let engine = match &self.state().model {
            Model::Ready(engine) => engine.clone(),
            _ => return,
        };
        let tokens = raw.tokens.iter().map(|token| raw_token(token, engine.vocabulary()));
        let structure = gst::Structure::builder("parakeettdt/raw")
            .field("text", &raw.text)
            .field("tokens", gst::Array::new(tokens));
        self.post_element(timed(structure, raw.start).build());
    }

    /// Remembers the greatest time from when the start of a text came in to now.
    fn observe_delay(&self, arrived: u64) {
        let Some(now) = self.running_time() else { return };
        let delay = u32::try_from(now.saturating_sub(arrived) / 1_000_000).unwrap_or(u32::MAX);
        let mut state = self.state();
        if delay <= state.statistics.max_delay_ms {
            return;
        }
        state.statistics.max_delay_ms = delay;
        let live = state.run.live == Some(true);
        drop(state);
        self.obj().notify("max-observed-delay");
        let promised = self.latency() + self.settings().lateness();
        if live && u64::from(delay) > promised.mseconds() {
            gst::element_imp_warning!(
                self,
                gst::CoreError::Clock,
                ("text came {delay} ms after its audio, later than latency and lateness promise ({promised})"),
                details: gst::Structure::builder("parakeettdt/excessive-delay")
                    .field("new-observed-max-delay", gst::ClockTime::from_mseconds(delay.into()))
                    .build()
            );
        }
    }

    /// Tells the application how much audio was dropped, and where.
    pub(super) fn tell_loss(&self, loss: Loss) {
        let lost = time(nanoseconds(loss.samples));
        let structure = || {
            let structure = gst::Structure::builder("parakeettdt/audio-dropped").field("duration", lost);
            timed(structure, Some(loss.start)).build()
        };
        self.post_element(structure());
        gst::element_imp_warning!(
            self,
            gst::StreamError::Failed,
            (
                "recognition is slower than the source: {:.2} s of audio from running time {} on were dropped; use a smaller \
                 model or a greater look-ahead",
                lost.nseconds() as f64 / 1e9,
                time(loss.start.running)
            ),
            details: structure()
        );
    }

    /// Tells the application that the recogniser went on elsewhere.
    fn tell_recovery(&self, at: Option<Moment>, gap: Duration, error: &Error) {
        let gap = gst::ClockTime::try_from(gap).unwrap_or(gst::ClockTime::MAX);
        let structure = gst::Structure::builder("parakeettdt/recovered").field("duration", gap);
        gst::element_imp_warning!(
            self,
            gst::LibraryError::Failed,
            ("recognition went on after {:.2} s, nothing is lost: {error}", gap.nseconds() as f64 / 1e9),
            details: timed(structure, at).build()
        );
    }

    /// Remembers that downstream takes nothing more, for the streaming thread, and lets it go on.
    fn stop_flow(&self, error: gst::FlowError) {
        let mut state = self.state();
        state.run.refused = Some(error);
        let (stream, ending) = (state.run.stream.clone(), state.run.is_ending());
        drop(state);
        gst::debug!(CAT, imp = self, "source pad returned {error}");
        if let Some(stream) = stream {
            stream.reset();
        }
        // After the end of the stream no call of chain() is left to return the error.
        if ending && !matches!(error, gst::FlowError::Flushing | gst::FlowError::Eos) {
            self.raise(gst::StreamError::Failed, &format!("stream stopped, reason {error}"));
            self.src_pad.push_event(gst::event::Eos::new());
        }
    }
}

/// A buffer of a text; `is_final` says that no later word changes it.
fn to_buffer(text: &Text, format: Format, is_final: bool) -> gst::Buffer {
    let mut buffer = gst::Buffer::from_slice(text.bytes(format, is_final));
    let header = buffer.get_mut().expect("nobody else has seen this buffer");
    header.set_pts(time(text.start));
    header.set_duration(time(text.end - text.start));
    if text.discont {
        header.set_flags(gst::BufferFlags::DISCONT);
    }
    meta::add(header, text);
    buffer
}

/// A token for an application: what the model said, and how sure it was.
fn raw_token(token: &RawToken, vocabulary: &Vocabulary) -> gst::Structure {
    let RawToken { token, start, end } = *token;
    gst::Structure::builder("token")
        .field("id", token.id)
        .field("piece", vocabulary.piece(token.id).unwrap_or_default())
        .field("running-time", time(start))
        .field("duration", time(end.saturating_sub(start)))
        .field_if_some("frames", token.duration)
        .field("confidence", f64::from(token.confidence))
        .field("log-probability", f64::from(token.log_prob))
        .field("margin", f64::from(token.margin))
        .build()
}

/// Adds where something is in the stream (`timestamp`) and in running time (`running-time`).
fn timed(structure: gst::structure::Builder, at: Option<Moment>) -> gst::structure::Builder {
    structure
        .field_if_some("timestamp", at.and_then(|at| at.stream).map(time))
        .field_if_some("running-time", at.map(|at| time(at.running)))
}

/// A time in nanoseconds; the greatest stands for none in GStreamer and is never given out.
fn time(nanoseconds: u64) -> gst::ClockTime {
    gst::ClockTime::from_nseconds(nanoseconds.min(u64::MAX - 1))
}
