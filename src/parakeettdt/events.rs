// SPDX-License-Identifier: MPL-2.0
//! Events: what comes from upstream takes its place among the words, what comes from downstream is heard.

use super::{
    imp::{CAT, ParakeetTdt},
    text::Format,
};
use gst::{prelude::*, subclass::prelude::*};
use gst_audio::AudioInfo;

impl ParakeetTdt {
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
                // Another source may be live where this one wasn't.
                self.state().run.live = None;
                let id = format!("{}/text", start.stream_id());
                let builder = gst::event::StreamStart::builder(&id)
                    .seqnum(event.seqnum())
                    .flags(gst::StreamFlags::SPARSE);
                let event = match start.group_id() {
                    Some(group) => builder.group_id(group).build(),
                    None => builder.build(),
                };
                let settings = self.settings().clone();
                let mut state = self.state();
                let language = state.config.as_ref().and_then(|model| settings.language(model).text);
                state.run.tags.begin(language);
                drop(state);
                self.enqueue(event)
            }
            EventView::Caps(caps) => match AudioInfo::from_caps(caps.caps()) {
                Ok(info) => {
                    self.state().run.info = Some(info);
                    // What downstream takes is asked when its turn comes.
                    let caps = Format::default().caps();
                    self.enqueue(gst::event::Caps::builder(&caps).seqnum(event.seqnum()).build())
                }
                Err(_) => {
                    gst::error!(CAT, obj = pad, "cannot read {caps:?}");
                    false
                }
            },
            EventView::Segment(segment) => self.segment(segment),
            EventView::Gap(gap) => self.gap_event(gap),
            EventView::Tag(tag) => match without_coding(tag.tag()) {
                Some(tags) => {
                    let tags = self.state().run.tags.of_audio(tags);
                    self.enqueue(gst::event::Tag::builder(tags).seqnum(event.seqnum()).build())
                }
                None => true,
            },
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

    /// Text has its running time for time stamp, in a segment of its own: what only reads time stamps puts it right too.
    fn segment(&self, event: &gst::event::Segment) -> bool {
        let Some(segment) = event.segment().downcast_ref::<gst::ClockTime>().cloned() else {
            let text =
                format!("segment in {:?} format: only time can be mapped to words", event.segment().format());
            self.raise(gst::StreamError::Format, &text);
            return false;
        };
        if segment.rate() < 0.0 {
            let text = format!(
                "cannot recognise speech that is played backwards (rate {}): seek with a positive rate",
                segment.rate()
            );
            self.raise(gst::StreamError::Format, &text);
            return false;
        }
        let old = self.state().run.segment.clone();
        let is_same = old.is_some_and(|mut old| {
            old.set_position(segment.position());
            old == segment
        });
        if !is_same && let Err(error) = self.end_utterance(false) {
            gst::debug!(CAT, imp = self, "could not end the utterance: {error}");
        }
        let mut text = gst::FormattedSegment::<gst::ClockTime>::new();
        text.set_base(self.settings().lateness());
        let mut state = self.state();
        let at = state.run.timeline.clock();
        state.run.places.change(at, segment.clone());
        state.run.segment = Some(segment);
        let tags = state.run.tags.due();
        drop(state);
        let is_queued = self.enqueue(gst::event::Segment::builder(&text).seqnum(event.seqnum()).build());
        if let Some(tags) = tags {
            self.enqueue(gst::event::Tag::builder(tags).seqnum(event.seqnum()).build());
        }
        is_queued
    }

    /// Nothing is heard for a while: until now if the event doesn't say how long.
    fn gap_event(&self, gap: &gst::event::Gap) -> bool {
        let (pts, duration) = gap.get();
        let Some(segment) = self.state().run.segment.clone() else { return true };
        let end = match duration {
            Some(duration) => Some(pts.saturating_add(duration)),
            None => {
                let upstream = self.state().run.upstream;
                let now = self.running_time().map(|now| now.saturating_sub(upstream));
                now.and_then(|now| segment.position_from_running_time(gst::ClockTime::from_nseconds(now)))
            }
        };
        match end.and_then(|end| segment.clip(pts, end)) {
            Some((Some(start), Some(end))) if end > start => {
                self.gap(start.nseconds(), (end - start).nseconds()).is_ok()
            }
            _ => true,
        }
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

    pub(super) fn src_event(&self, pad: &gst::Pad, event: gst::Event) -> bool {
        match event.view() {
            gst::EventView::Reconfigure(_) => self.relinked(),
            gst::EventView::Seek(seek) if seek.get().0 < 0.0 => {
                gst::warning!(
                    CAT,
                    obj = pad,
                    "refusing to seek backwards: speech is recognised forwards only"
                );
                return false;
            }
            _ => {}
        }
        gst::Pad::event_default(pad, Some(&*self.obj()), event)
    }

    /// Begins to push again if that was given up for want of a peer, as `queue` does.
    fn relinked(&self) {
        if self.state().run.refused != Some(gst::FlowError::NotLinked) {
            return;
        }
        let _feeding = self.feeding();
        let mut state = self.state();
        if state.run.stopping || state.run.refused != Some(gst::FlowError::NotLinked) {
            return;
        }
        state.run.resume();
        let stream = state.run.stream.clone();
        drop(state);
        if let Some(stream) = stream {
            stream.reset();
        }
        gst::info!(CAT, imp = self, "linked again, going on");
        if let Err(error) = self.start_task() {
            gst::warning!(CAT, imp = self, "cannot go on: {error}");
        }
    }
}

/// The tags that are true of the text as well: those that don't describe how the audio was coded.
fn without_coding(tags: &gst::TagListRef) -> Option<gst::TagList> {
    let mut kept = tags.to_owned();
    for (name, _) in tags.iter_generic() {
        if gst::tags::tag_get_flag(name) == gst::TagFlag::Encoded {
            kept.make_mut().remove_generic(name);
        }
    }
    (kept.n_tags() > 0).then_some(kept)
}
