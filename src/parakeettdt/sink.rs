// SPDX-License-Identifier: MPL-2.0
//! The streaming thread on the sink pad: audio to the engine's stream.

use super::{
    imp::{CAT, ParakeetTdt},
    input::{self, Input},
    places,
    timeline::{Gap, Join, SAMPLE_RATE, nanoseconds},
};
use gst::{prelude::*, subclass::prelude::*};
use gst_audio::AudioInfo;
use parakeet_engine::{PushError, Stream};
use std::{
    sync::MutexGuard,
    time::{Duration, Instant},
};

/// Most samples handed over at once, so that a flush or a state change never waits for a long buffer.
const PIECE: usize = SAMPLE_RATE as usize;

/// Warnings about cuts come at most this often.
const CUTS_INTERVAL: Duration = Duration::from_secs(10);

/// How long audio is taken, and goes, after an error that was posted. A bin that goes on without the element, such as
/// transcriberbin, takes it out when it is told of the error; a source that is refused meanwhile posts an error of its own.
const GRACE: Duration = Duration::from_secs(1);

impl ParakeetTdt {
    pub(super) fn sink_chain(&self, buffer: gst::Buffer) -> Result<gst::FlowSuccess, gst::FlowError> {
        match self.take(buffer) {
            Err(gst::FlowError::Error) if self.has_just_died() => Ok(gst::FlowSuccess::Ok),
            taken => taken,
        }
    }

    /// Whether recognition has come to an end since a moment ago, as far as its audio was told.
    fn has_just_died(&self) -> bool {
        let mut state = self.state();
        state.is_dead() && state.run.refused_since.get_or_insert_with(Instant::now).elapsed() < GRACE
    }

    fn take(&self, buffer: gst::Buffer) -> Result<gst::FlowSuccess, gst::FlowError> {
        let state = self.state();
        state.check()?;
        let (info, segment) = (state.run.info.clone(), state.run.segment.clone());
        drop(state);
        let info = info.ok_or(gst::FlowError::NotNegotiated)?;
        let Some(segment) = segment else {
            return Err(
                self.raise_first(gst::StreamError::Format, "audio came before a segment in time format")
            );
        };
        if !buffer.size().is_multiple_of(info.bpf() as usize) {
            let text = format!(
                "a buffer of {} bytes does not hold whole samples of {} bytes",
                buffer.size(),
                info.bpf()
            );
            return Err(self.raise_first(gst::StreamError::Format, &text));
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
            return self.gap(pts, nanoseconds((buffer.size() / info.bpf() as usize) as u64));
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
        let Ok(map) = buffer.map_readable() else {
            return Err(self.raise_first(gst::ResourceError::Read, "cannot map a buffer for reading"));
        };
        let (mut pcm, invalid) = input::decode(info.format(), &map);
        let now = self.running_time();
        let feeding = self.feeding();
        let mut state = self.state();
        let run = &mut state.run;
        let is_first_invalid = invalid > 0 && !std::mem::replace(&mut run.invalid, true);
        let at = run.timeline.clock();
        let placed = run.timeline.audio(pts, pcm.len());
        let was_unplaced = std::mem::replace(&mut run.unplaced, placed.is_err());
        let join = placed.unwrap_or(Join::Continues);
        if join == Join::Restarts {
            run.expect_finish(at);
        }
        if let Some(now) = now {
            run.watch.last_input = Some(now);
            run.arrivals.note(at, now);
        }
        let has_many_cuts =
            run.timeline.has_many_cuts() && run.cuts_told.is_none_or(|told| told.elapsed() > CUTS_INTERVAL);
        if has_many_cuts {
            run.cuts_told = Some(Instant::now());
        }
        let missing = run.timeline.take_missing();
        if missing > 0 {
            gst::info!(CAT, imp = self, "{:.3} s of audio are missing here", missing as f64 / 1e9);
        }
        state.statistics.missing += missing;
        state.statistics.samples += pcm.len() as u64;
        state.statistics.cuts += u64::from(join == Join::Restarts);
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
        if has_many_cuts {
            self.warn_of_cuts();
        }
        self.hand_over(&feeding, join, pcm)
    }

    /// Tells the application that time jumps all the time.
    fn warn_of_cuts(&self) {
        gst::element_imp_warning!(
            self,
            gst::StreamError::Format,
            (
                "time stamps jump by more than a second several times a second: words are cut apart there; mend the time stamps, \
                 with audiorate or at the source"
            ),
            details: gst::Structure::builder("parakeettdt/cut-audio").build()
        );
    }

    /// A stretch of time without audio, in nanoseconds.
    pub(super) fn gap(&self, pts: u64, duration: u64) -> Result<gst::FlowSuccess, gst::FlowError> {
        let now = self.running_time();
        let feeding = self.feeding();
        let mut state = self.state();
        let run = &mut state.run;
        let at = run.timeline.clock();
        let gap = run.timeline.gap(pts, duration);
        let (Gap::Silence(join, _) | Gap::Pause(join, _)) = gap;
        if join == Join::Restarts {
            run.expect_finish(at);
        }
        if let Some(now) = now {
            run.watch.last_input = Some(now);
            run.arrivals.note(at, now);
        }
        let samples = match gap {
            Gap::Silence(_, samples) => samples,
            Gap::Pause(_, until) => {
                if let Some(segment) = &run.segment {
                    let running = |time| places::running_time(segment, gst::ClockTime::from_nseconds(time));
                    let (from, until) = (running(pts), running(until));
                    run.pause(from, until);
                }
                0
            }
        };
        drop(state);
        self.hand_over(&feeding, join, vec![0.0; samples])?;
        drop(feeding);
        self.wake();
        Ok(gst::FlowSuccess::Ok)
    }

    fn hand_over(
        &self,
        feeding: &MutexGuard<'_, ()>,
        join: Join,
        pcm: Vec<f32>,
    ) -> Result<gst::FlowSuccess, gst::FlowError> {
        match join {
            Join::Continues => {}
            Join::Silence(samples) => self.feed(feeding, Some(Input::Audio(vec![0.0; samples])), false)?,
            Join::Restarts => self.feed(feeding, Some(Input::Finish), false)?,
        }
        if !pcm.is_empty() {
            self.feed(feeding, Some(Input::Audio(pcm)), false)?;
        }
        Ok(gst::FlowSuccess::Ok)
    }

    /// Ends the utterance; with `drain` all that waits for the model is handed over before this returns.
    pub(super) fn end_utterance(&self, drain: bool) -> Result<(), gst::FlowError> {
        let feeding = self.feeding();
        let mut state = self.state();
        let at = state.run.timeline.clock();
        let join = state.run.timeline.end();
        if join == Join::Restarts {
            state.run.expect_finish(at);
        }
        let is_waiting = !state.run.backlog.is_empty();
        drop(state);
        match join {
            Join::Restarts => self.feed(&feeding, Some(Input::Finish), drain),
            _ if drain && is_waiting => self.feed(&feeding, None, true),
            _ => Ok(()),
        }
    }

    /// Gives `input` to the engine, after what waited for it. What doesn't block never waits for the model unless it is to
    /// `drain`. Only the streaming thread comes here.
    fn feed(&self, _: &MutexGuard<'_, ()>, input: Option<Input>, drain: bool) -> Result<(), gst::FlowError> {
        let live = self.is_live();
        let blocks = self.settings().blocks(live);
        let Some(stream) = self.stream(blocks || drain)? else {
            if let Some(input) = input {
                let (limit, _) = self.queue();
                self.state().run.backlog.push(input, limit);
                self.drop_late_backlog();
            }
            return Ok(());
        };
        self.drop_late(&stream);
        self.note_activity(true);
        let given = self
            .give_waiting(&stream)
            .and_then(|()| input.map_or(Ok(()), |input| self.give(&stream, &input)));
        self.note_activity(false);
        if self.state().is_unwatched() {
            self.wake();
        }
        given
    }

    /// Remembers that something is going on.
    pub(super) fn note_activity(&self, is_feeding: bool) {
        let watch = &mut self.state().run.watch;
        watch.is_feeding = is_feeding;
        watch.last_activity = Some(Instant::now());
    }

    /// Gives what waited for the stream.
    pub(super) fn give_waiting(&self, stream: &Stream) -> Result<(), gst::FlowError> {
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

    /// Asks upstream, once a stream, whether it is live and how late it is.
    pub(super) fn is_live(&self) -> bool {
        if let Some(live) = self.state().run.live {
            return live;
        }
        let mut query = gst::query::Latency::new();
        let (live, least) = match self.sink_pad.peer_query(&mut query) {
            true => (query.result().0, query.result().1),
            false => (false, gst::ClockTime::ZERO),
        };
        gst::debug!(CAT, imp = self, "upstream is {}live", if live { "" } else { "not " });
        let mut state = self.state();
        state.run.live = Some(live);
        state.run.upstream = least.nseconds();
        let was_live = state.run.was_live.replace(live);
        drop(state);
        if was_live.is_some_and(|was| was != live) {
            // It was set on another clock.
            self.stop_timer();
            self.fit_queue();
            self.post_latency();
        }
        live
    }
}
