// SPDX-License-Identifier: MPL-2.0
//! The streaming thread on the sink pad: audio to the engine's stream, serialized events into the order of the words.

use super::{
    imp::{CAT, ParakeetTdt},
    input::{self, Input},
    state::{Action, Model, Opening},
    timeline::{Gap, Join, SAMPLE_RATE, Unplaced},
};
use gst::{prelude::*, subclass::prelude::*};
use gst_audio::AudioInfo;
use parakeet_engine::{Engine, Error, Overflow, PushError, Stream, StreamOptions};
use std::{
    sync::{Arc, PoisonError},
    thread,
};

/// Audio that a live stream may fall behind before the oldest is dropped, in samples.
const LIVE_QUEUE: usize = 30 * SAMPLE_RATE as usize;

/// Audio that a stream without a live source keeps waiting, in samples; then the source waits.
const QUEUE: usize = 10 * SAMPLE_RATE as usize;

/// Most samples handed over at once, so that a flush or a state change never waits for a long buffer.
const PIECE: usize = SAMPLE_RATE as usize;

impl ParakeetTdt {
    pub(super) fn sink_chain(&self, buffer: gst::Buffer) -> Result<gst::FlowSuccess, gst::FlowError> {
        let state = self.state();
        state.check()?;
        let (info, segment) = (state.run.info.clone(), state.run.segment.clone());
        drop(state);
        let info = info.ok_or(gst::FlowError::NotNegotiated)?;
        let Some(segment) = segment else {
            gst::element_imp_error!(
                self,
                gst::StreamError::Format,
                ("audio came before a segment in time format")
            );
            return Err(gst::FlowError::Error);
        };
        if !buffer.size().is_multiple_of(info.bpf() as usize) {
            gst::element_imp_error!(
                self,
                gst::StreamError::Format,
                ("a buffer of {} bytes does not hold whole samples of {} bytes", buffer.size(), info.bpf())
            );
            return Err(gst::FlowError::Error);
        }
        if buffer.size() == 0 {
            return Ok(gst::FlowSuccess::Ok);
        }
        let Some(buffer) =
            gst_audio::audio_buffer_clip(buffer, segment.upcast_ref(), info.rate(), info.bpf())
        else {
            gst::log!(CAT, imp = self, "dropping a buffer outside of the segment");
            return Ok(gst::FlowSuccess::Ok);
        };
        let pts = buffer.pts().map(gst::ClockTime::nseconds);
        if let (Some(pts), true) = (pts, buffer.flags().contains(gst::BufferFlags::GAP)) {
            let samples = (buffer.size() / info.bpf() as usize) as u64;
            return self.gap(pts, samples * gst::ClockTime::SECOND.nseconds() / u64::from(SAMPLE_RATE));
        }
        self.audio(&info, pts, &buffer)
    }

    /// Hands a buffer's samples over at their place on the timeline.
    fn audio(
        &self,
        info: &AudioInfo,
        pts: Option<u64>,
        buffer: &gst::Buffer,
    ) -> Result<gst::FlowSuccess, gst::FlowError> {
        let map = buffer.map_readable().map_err(|_| {
            gst::element_imp_error!(self, gst::ResourceError::Read, ("cannot map a buffer for reading"));
            gst::FlowError::Error
        })?;
        let (mut pcm, invalid) = input::decode(info.format(), &map);
        let discont = buffer.flags().contains(gst::BufferFlags::DISCONT);
        let mut state = self.state();
        let run = &mut state.run;
        let is_first_invalid = invalid > 0 && !std::mem::replace(&mut run.invalid, true);
        let at = run.timeline.clock();
        let placed = run.timeline.audio(pts, pcm.len(), discont);
        let was_unplaced = std::mem::replace(&mut run.unplaced, placed.is_err());
        let join = placed.unwrap_or_else(|Unplaced(join)| join);
        if join == Join::Restarts {
            run.expect_finish(at);
        }
        drop(state);
        if is_first_invalid {
            gst::element_imp_warning!(
                self,
                gst::StreamError::Decode,
                ("{invalid} samples of a buffer are not numbers; such samples are taken as silence")
            );
        }
        if placed.is_err() {
            pcm.clear();
            if !was_unplaced {
                gst::element_imp_warning!(
                    self,
                    gst::StreamError::Format,
                    ("dropping audio without a time stamp until a buffer has one: words could not be timed")
                );
            }
        }
        self.hand_over(join, pcm)
    }

    /// A stretch of time without audio, in nanoseconds.
    fn gap(&self, pts: u64, duration: u64) -> Result<gst::FlowSuccess, gst::FlowError> {
        let mut state = self.state();
        let run = &mut state.run;
        let at = run.timeline.clock();
        let gap = run.timeline.gap(pts, duration);
        let (Gap::Silence(join, _) | Gap::Pause(join, _)) = gap;
        if join == Join::Restarts {
            run.expect_finish(at);
        }
        let samples = match gap {
            Gap::Silence(_, samples) => samples,
            Gap::Pause(_, until) => {
                run.pause(pts, until);
                0
            }
        };
        drop(state);
        self.hand_over(join, vec![0.0; samples])?;
        self.wake();
        Ok(gst::FlowSuccess::Ok)
    }

    fn hand_over(&self, join: Join, pcm: Vec<f32>) -> Result<gst::FlowSuccess, gst::FlowError> {
        if join == Join::Restarts {
            self.feed(Some(Input::Finish), false)?;
        }
        if !pcm.is_empty() {
            self.feed(Some(Input::Audio(pcm)), false)?;
        }
        Ok(gst::FlowSuccess::Ok)
    }

    /// Ends the utterance; with `drain` all that waits for the model is handed over before this returns.
    fn end_utterance(&self, drain: bool) -> Result<(), gst::FlowError> {
        let mut state = self.state();
        let at = state.run.timeline.clock();
        let join = state.run.timeline.end();
        if join == Join::Restarts {
            state.run.expect_finish(at);
        }
        let is_waiting = !state.run.backlog.is_empty();
        drop(state);
        match join {
            Join::Restarts => self.feed(Some(Input::Finish), drain),
            Join::Continues if drain && is_waiting => self.feed(None, true),
            Join::Continues => Ok(()),
        }
    }

    /// Gives `input` to the engine, after what waited for it. A live source never waits for the model unless it is to
    /// `drain`. Only the streaming thread comes here.
    fn feed(&self, input: Option<Input>, drain: bool) -> Result<(), gst::FlowError> {
        let live = self.is_live();
        let _feeding = self.feeding();
        let Some(stream) = self.stream(live, !live || drain)? else {
            if let Some(input) = input {
                self.state().run.backlog.push(input, LIVE_QUEUE);
            }
            return Ok(());
        };
        self.give_waiting(&stream)?;
        input.map_or(Ok(()), |input| self.give(&stream, &input))
    }

    /// Gives what waited for the stream.
    fn give_waiting(&self, stream: &Stream) -> Result<(), gst::FlowError> {
        loop {
            let waiting = self.state().run.backlog.pop();
            let Some(waiting) = waiting else { return Ok(()) };
            self.give(stream, &waiting)?;
        }
    }

    fn give(&self, stream: &Stream, input: &Input) -> Result<(), gst::FlowError> {
        let Input::Audio(pcm) = input else {
            stream.finish();
            return Ok(());
        };
        for piece in pcm.chunks(PIECE) {
            self.state().check()?;
            match stream.push(piece) {
                Ok(()) => {}
                Err(PushError::Reset) => {
                    return Err(self.state().check().err().unwrap_or(gst::FlowError::Flushing));
                }
                Err(_) => return Err(self.state().check().err().unwrap_or(gst::FlowError::Error)),
            }
        }
        Ok(())
    }

    /// The engine's stream; none while the model is loaded or the stream opened, unless this is to `wait`.
    fn stream(&self, live: bool, wait: bool) -> Result<Option<Arc<Stream>>, gst::FlowError> {
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
                    self.open(engine, live)?;
                    state = self.state();
                }
                _ if !wait => return Ok(None),
                _ => state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
            }
        }
        drop(state);
        self.begin().map(Some)
    }

    /// Starts to open a stream, on a thread of its own: the engine answers after the step under way.
    fn open(&self, engine: Arc<Engine>, live: bool) -> Result<(), gst::FlowError> {
        let (queue_samples, overflow) =
            if live { (LIVE_QUEUE, Overflow::DropOldest) } else { (QUEUE, Overflow::Block) };
        let options = self.settings().stream(engine.config());
        let options = StreamOptions { queue_samples, overflow, ..options };
        let mut state = self.state();
        state.opening += 1;
        let opening = state.opening;
        state.run.opening = Opening::UnderWay(opening);
        drop(state);
        let element = self.obj().downgrade();
        let spawned = thread::Builder::new().name("parakeet-open".into()).spawn(move || {
            let opened = engine.stream(&options);
            if let Some(element) = element.upgrade() {
                element.imp().opened(opening, opened, live);
            }
        });
        spawned.map(drop).map_err(|error| {
            gst::element_imp_error!(
                self,
                gst::CoreError::Thread,
                ("cannot start a thread to open a stream: {error}")
            );
            gst::FlowError::Error
        })
    }

    /// Takes the result of attempt `opening`, unless nobody wants it any more.
    fn opened(&self, opening: u64, opened: Result<Stream, Error>, live: bool) {
        let mut state = self.state();
        if !matches!(state.run.opening, Opening::UnderWay(wanted) if wanted == opening) {
            drop(state);
            return;
        }
        let failure = match opened {
            Ok(stream) => {
                state.run.opening = Opening::Done(Arc::new(stream));
                None
            }
            Err(error) => {
                state.run.opening = Opening::None;
                state.run.fail();
                Some(error)
            }
        };
        drop(state);
        self.changed.notify_all();
        if let Some(error) = failure {
            gst::element_imp_error!(self, gst::LibraryError::Settings, ("cannot recognise speech: {error}"));
        } else if live {
            // A live source may have nothing more to say for a while, and what it said must not wait for that.
            let _feeding = self.feeding();
            if let Err(error) = self.begin().and_then(|stream| self.give_waiting(&stream)) {
                gst::debug!(CAT, imp = self, "somebody else has the stream, or nobody wants it: {error}");
            }
        }
    }

    /// Takes the stream that was opened into use, with `feeding` held.
    fn begin(&self) -> Result<Arc<Stream>, gst::FlowError> {
        let assumed = self.model_latency();
        let units = self.settings().units();
        let mut state = self.state();
        if state.run.stopping {
            return Err(gst::FlowError::Flushing);
        }
        let Opening::Done(stream) = std::mem::take(&mut state.run.opening) else {
            return Err(gst::FlowError::Flushing);
        };
        state.run.stream = Some(stream.clone());
        state.run.units = units;
        let dropped = state.run.backlog.dropped();
        state.run.offset = dropped;
        let lost = if dropped > 0 { state.run.lost(0, dropped) } else { None };
        drop(state);
        self.changed.notify_all();
        if let Some(Action::Lost(loss)) = lost {
            self.warn_of_loss(loss);
        }
        if self.model_latency() != assumed {
            self.post(gst::message::Latency::builder().src(&*self.obj()).build());
        }
        Ok(stream)
    }

    /// Asks upstream, once, whether it is live.
    fn is_live(&self) -> bool {
        if let Some(live) = self.state().run.live {
            return live;
        }
        let mut query = gst::query::Latency::new();
        let live = self.sink_pad.peer_query(&mut query) && query.result().0;
        gst::debug!(CAT, imp = self, "upstream is {}live", if live { "" } else { "not " });
        self.state().run.live = Some(live);
        live
    }

    pub(super) fn sink_event(&self, pad: &gst::Pad, event: gst::Event) -> bool {
        use gst::EventView;
        gst::log!(CAT, obj = pad, "handling {event:?}");
        match event.view() {
            EventView::FlushStart(_) => {
                self.halt();
                self.src_pad.push_event(event)
            }
            EventView::FlushStop(_) => {
                self.halt();
                // The task ends as nothing blocks it: downstream is flushing and so is the stream.
                let stopped = self.src_pad.stop_task();
                self.restart();
                let pushed = self.src_pad.push_event(event);
                stopped.and_then(|()| self.start_task()).is_ok() && pushed
            }
            EventView::StreamStart(start) => {
                if let Err(error) = self.end_utterance(false) {
                    gst::debug!(CAT, obj = pad, "could not end the utterance: {error}");
                }
                let id = format!("{}/text", start.stream_id());
                let builder = gst::event::StreamStart::builder(&id)
                    .seqnum(event.seqnum())
                    .flags(gst::StreamFlags::empty());
                let event = match start.group_id() {
                    Some(group) => builder.group_id(group).build(),
                    None => builder.build(),
                };
                self.enqueue(event)
            }
            EventView::Caps(caps) => match AudioInfo::from_caps(caps.caps()) {
                Ok(info) => {
                    self.state().run.info = Some(info);
                    let caps = gst::Caps::builder("text/x-raw").field("format", "utf8").build();
                    self.enqueue(gst::event::Caps::builder(&caps).seqnum(event.seqnum()).build())
                }
                Err(_) => {
                    gst::error!(CAT, obj = pad, "cannot read {caps:?}");
                    false
                }
            },
            EventView::Segment(segment) => self.segment(segment),
            EventView::Gap(gap) => {
                let (pts, duration) = gap.get();
                let segment = self.state().run.segment.clone();
                let end = duration.map(|duration| pts.saturating_add(duration));
                let clipped = segment.zip(end).and_then(|(segment, end)| segment.clip(pts, end));
                match clipped {
                    Some((Some(start), Some(end))) if end > start => {
                        self.gap(start.nseconds(), (end - start).nseconds()).is_ok()
                    }
                    _ => true,
                }
            }
            EventView::Eos(_) | EventView::SegmentDone(_) => {
                // An error was posted or is downstream's; the end goes out all the same.
                if let Err(error) = self.end_utterance(true) {
                    gst::debug!(CAT, obj = pad, "could not drain: {error}");
                }
                self.enqueue(event)
            }
            _ if event.is_serialized() => self.enqueue(event),
            _ => gst::Pad::event_default(pad, Some(&*self.obj()), event),
        }
    }

    fn segment(&self, event: &gst::event::Segment) -> bool {
        let Some(segment) = event.segment().downcast_ref::<gst::ClockTime>().cloned() else {
            gst::element_imp_error!(
                self,
                gst::StreamError::Format,
                ("segment in {:?} format: only time can be mapped to words", event.segment().format())
            );
            return false;
        };
        let old = self.state().run.segment.clone();
        let is_same = old.is_some_and(|mut old| {
            old.set_position(segment.position());
            old == segment
        });
        if !is_same && let Err(error) = self.end_utterance(false) {
            gst::debug!(CAT, imp = self, "could not end the utterance: {error}");
        }
        let mut text = segment.clone();
        let base = segment.base().unwrap_or_default();
        text.set_base(base.saturating_add(self.settings().lateness()));
        self.state().run.segment = Some(segment);
        self.enqueue(gst::event::Segment::builder(&text).seqnum(event.seqnum()).build())
    }

    /// Puts a serialized event behind what is recognised from the audio so far.
    fn enqueue(&self, event: gst::Event) -> bool {
        let mut state = self.state();
        if state.run.stopping {
            return false;
        }
        state.run.enqueue(event);
        drop(state);
        self.wake();
        true
    }
}
