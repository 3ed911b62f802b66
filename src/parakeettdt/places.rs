// SPDX-License-Identifier: MPL-2.0
//! Which segment each sample lies in, and so its running and stream time.

use std::collections::VecDeque;

type Segment = gst::FormattedSegment<gst::ClockTime>;

/// A moment of the audio, in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// What text is stamped with.
    pub running: u64,
    /// Where it is in the file or programme, if that is known.
    pub stream: Option<u64>,
}

/// The segments that samples lie in, the oldest first.
#[derive(Debug, Default)]
pub struct Places {
    segments: VecDeque<(u64, Segment)>,
}

impl Places {
    /// From this sample on the segment is another.
    pub fn change(&mut self, sample: u64, segment: Segment) {
        if self.segments.back().is_some_and(|last| last.0 == sample) {
            self.segments.pop_back();
        }
        self.segments.push_back((sample, segment));
    }

    /// Where a time stamp of what starts at `sample` is.
    pub fn start(&self, sample: u64, pts: u64) -> Moment {
        self.moment(pts, |first| first <= sample)
    }

    /// Where a time stamp of what ends at `sample` is: across a change it belongs to the segment before.
    pub fn end(&self, sample: u64, pts: u64) -> Moment {
        self.moment(pts, |first| first < sample)
    }

    /// Drops what is only needed for samples before `sample`.
    pub fn forget_before(&mut self, sample: u64) {
        while self.segments.get(1).is_some_and(|next| next.0 < sample) {
            self.segments.pop_front();
        }
    }

    fn moment(&self, pts: u64, covers: impl Fn(u64) -> bool) -> Moment {
        let segment = self.segments.iter().rev().find(|(first, _)| covers(*first)).or(self.segments.front());
        let Some((_, segment)) = segment else { return Moment { running: pts, stream: Some(pts) } };
        let pts = gst::ClockTime::from_nseconds(pts.min(u64::MAX - 1));
        Moment {
            running: segment.to_running_time_full(pts).map_or(0, after_zero),
            stream: segment.to_stream_time_full(pts).map(after_zero),
        }
    }
}

/// Running time of a time stamp in a segment; what lies before its start counts as its start.
pub fn running_time(segment: &Segment, pts: gst::ClockTime) -> u64 {
    segment.to_running_time_full(pts).map_or(0, after_zero)
}

fn after_zero(time: gst::Signed<gst::ClockTime>) -> u64 {
    time.positive().map_or(0, gst::ClockTime::nseconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: gst::ClockTime = gst::ClockTime::SECOND;

    fn segment(start: u64, base: u64, time: u64) -> Segment {
        gst::init().unwrap();
        let mut segment = Segment::new();
        segment.set_start(start * SECOND);
        segment.set_base(base * SECOND);
        segment.set_time(time * SECOND);
        segment
    }

    #[test]
    fn each_sample_has_the_times_of_its_segment() {
        let second = SECOND.nseconds();
        let mut places = Places::default();
        assert_eq!(places.start(5, 7), Moment { running: 7, stream: Some(7) });
        places.change(0, segment(10, 3, 10));
        places.change(16_000, segment(0, 4, 50));
        let moment =
            |running: u64, stream: u64| Moment { running: running * second, stream: Some(stream * second) };
        assert_eq!(places.start(0, 10 * second), moment(3, 10));
        assert_eq!(places.end(16_000, 11 * second), moment(4, 11));
        assert_eq!(places.start(16_000, 0), moment(4, 50));
        places.forget_before(16_001);
        assert_eq!(places.start(20_000, second), moment(5, 51));
        assert_eq!(places.start(0, 9 * second), moment(13, 59), "the rest is forgotten");
    }

    #[test]
    fn what_lies_before_a_segment_is_at_its_start() {
        let mut places = Places::default();
        places.change(0, segment(10, 0, 0));
        assert_eq!(places.start(0, 9 * SECOND.nseconds()).running, 0);
    }
}
