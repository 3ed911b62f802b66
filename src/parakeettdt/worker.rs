// SPDX-License-Identifier: MPL-2.0
//! The task of the source pad: waits for words and pushes them, and everything that comes in order with them.

use super::{
    imp::{CAT, ParakeetTdt},
    output::Item,
    state::{Action, Loss, Partial},
    timeline::SAMPLE_RATE,
};
use gst::{glib, prelude::*, subclass::prelude::*};
use std::sync::PoisonError;

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
        let Some(event) = stream.next() else { return };
        let mut state = self.state();
        if state.run.stopping {
            return;
        }
        let actions = state.run.receive(event);
        drop(state);
        self.act(actions);
    }

    fn act(&self, actions: Vec<Action>) {
        for action in actions {
            let flow = match action {
                Action::Event(event) => {
                    self.push_event(event);
                    Ok(gst::FlowSuccess::Ok)
                }
                Action::Item(Item::Gap { start, end }) => {
                    let (start, duration) = (time(start), time(end - start));
                    self.src_pad.push_event(gst::event::Gap::builder(start).duration(duration).build());
                    Ok(gst::FlowSuccess::Ok)
                }
                Action::Item(Item::Word { text, start, end, discont }) => {
                    self.push_word(text, start, end, discont)
                }
                Action::Lost(loss) => {
                    self.warn_of_loss(loss);
                    Ok(gst::FlowSuccess::Ok)
                }
                Action::EndOfUtterance { at, backchannel } => {
                    let structure = gst::Structure::builder("parakeettdt/end-of-utterance")
                        .field("backchannel", backchannel)
                        .field_if_some("timestamp", at.map(time));
                    self.post(gst::message::Element::builder(structure.build()).src(&*self.obj()).build());
                    Ok(gst::FlowSuccess::Ok)
                }
                Action::Partial(partial) => {
                    self.tell_partial(&partial);
                    Ok(gst::FlowSuccess::Ok)
                }
                Action::Fail(error) => {
                    gst::element_imp_error!(self, gst::LibraryError::Failed, ("recognition failed: {error}"));
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
        gst::log!(CAT, imp = self, "pushing {event:?}");
        if !self.src_pad.push_event(event.clone()) && event.is_sticky() {
            let mut state = self.state();
            if state.run.stopping {
                state.run.put_back(event);
            }
        }
    }

    fn push_word(
        &self,
        text: String,
        start: u64,
        end: u64,
        discont: bool,
    ) -> Result<gst::FlowSuccess, gst::FlowError> {
        gst::debug!(CAT, imp = self, "pushing {text:?} from {} to {}", time(start), time(end));
        let mut buffer = gst::Buffer::from_slice(text.into_bytes());
        let header = buffer.get_mut().expect("nobody else has seen this buffer");
        header.set_pts(time(start));
        header.set_duration(time(end - start));
        if discont {
            header.set_flags(gst::BufferFlags::DISCONT);
        }
        self.observe_delay(time(start));
        self.src_pad.push(buffer)
    }

    /// Posts a hypothesis for the application; it is no text of the stream.
    fn tell_partial(&self, partial: &Partial) {
        let structure = gst::Structure::builder("parakeettdt/partial")
            .field("text", &partial.text)
            .field_if_some("timestamp", partial.start.map(time));
        self.post(gst::message::Element::builder(structure.build()).src(&*self.obj()).build());
    }

    /// Remembers the greatest time from when a word was said to now.
    fn observe_delay(&self, start: gst::ClockTime) {
        let Some(now) = self.obj().current_running_time() else { return };
        let lateness = self.settings().lateness();
        let mut state = self.state();
        let due = state.run.src_segment.as_ref().and_then(|segment| segment.to_running_time(start));
        let Some(due) = due else { return };
        let delay = u32::try_from((now + lateness).saturating_sub(due).mseconds()).unwrap_or(u32::MAX);
        if state.run.live != Some(true) || delay <= state.max_delay_ms {
            return;
        }
        state.max_delay_ms = delay;
        drop(state);
        self.obj().notify("max-observed-delay");
    }

    /// Tells the application how much audio was dropped, and where.
    pub(super) fn warn_of_loss(&self, loss: Loss) {
        let seconds = loss.samples as f64 / f64::from(SAMPLE_RATE);
        gst::element_imp_warning!(
            self,
            gst::StreamError::Failed,
            (
                "recognition is slower than the source: {seconds:.2} s of audio from {} on were dropped; use a smaller model \
                 or a greater look-ahead",
                time(loss.start)
            ),
            details: gst::Structure::builder("parakeettdt/audio-dropped")
                .field("timestamp", time(loss.start))
                .field("duration", gst::ClockTime::from_nseconds(loss.samples * 1_000_000_000 / u64::from(SAMPLE_RATE)))
                .build()
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
            gst::element_imp_error!(self, gst::StreamError::Failed, ("stream stopped, reason {error}"));
            self.src_pad.push_event(gst::event::Eos::new());
        }
    }
}

/// A time in nanoseconds; the greatest stands for none in GStreamer and is never given out.
fn time(nanoseconds: u64) -> gst::ClockTime {
    gst::ClockTime::from_nseconds(nanoseconds.min(u64::MAX - 1))
}
