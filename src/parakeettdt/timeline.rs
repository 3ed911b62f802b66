// SPDX-License-Identifier: MPL-2.0
//! Maps between the time stamps of a segment and the engine's sample clock, and decides where an utterance ends.

use std::collections::VecDeque;

/// Samples a second that the element and every model of the family work at.
pub const SAMPLE_RATE: u32 = 16_000;

/// Nanoseconds of one sample; exact.
const NS_PER_SAMPLE: u64 = 1_000_000_000 / SAMPLE_RATE as u64;

/// A time stamp may be this far from where the samples before it end, in nanoseconds (GstAudioStreamAlign's default).
const TOLERANCE: i64 = 40_000_000;

/// Of an error beyond [`TOLERANCE`], the step that may have come with the last buffer for it to be a drifting clock.
const DRIFT_STEP: i64 = TOLERANCE / 4;

/// Gaps up to this length, in nanoseconds, are silence to the recogniser; longer ones end the utterance.
const LONGEST_SILENCE: u64 = 1_000_000_000;

/// Latest time stamp given out: `u64::MAX` means none in GStreamer.
const LAST: u64 = u64::MAX - 1;

/// What to do before samples are handed to the engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Join {
    /// They continue the utterance.
    Continues,
    /// The utterance before them is over.
    Restarts,
}

/// What a gap in the audio means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gap {
    /// As many samples of silence, joined so.
    Silence(Join, usize),
    /// What was heard before is joined so; nothing is heard before this time stamp in nanoseconds.
    Pause(Join, u64),
}

/// Samples that cannot be placed: no time stamp, and nothing before them to continue. The join tells whether an
/// utterance is over nevertheless.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unplaced(pub Join);

/// From `sample` on, time runs from `pts` nanoseconds.
#[derive(Clone, Copy, Debug)]
struct Anchor {
    sample: u64,
    pts: u64,
}

/// The timeline of one segment sequence since the last flush. Time stamps are in nanoseconds.
///
/// GstAudioStreamAlign is not used because it calls a drifting capture clock a discontinuity, which would cut a word
/// every few minutes; here drift moves the time stamps and leaves the utterance alone.
#[derive(Debug, Default)]
pub struct Timeline {
    anchors: VecDeque<Anchor>,
    /// Samples handed to the engine so far.
    clock: u64,
    /// Clock at which the utterance began.
    utterance: u64,
    /// The last anchor may be continued.
    anchored: bool,
    /// Time stamp of the last buffer less where its samples were expected.
    error: i64,
}

impl Timeline {
    /// Samples handed to the engine so far.
    pub fn clock(&self) -> u64 {
        self.clock
    }

    /// Whether any sample was handed out since the last [`end`](Self::end).
    pub fn is_open(&self) -> bool {
        self.clock > self.utterance
    }

    /// Accounts for `samples` samples at `pts`.
    pub fn audio(&mut self, pts: Option<u64>, samples: usize, discont: bool) -> Result<Join, Unplaced> {
        let mut join = Join::Continues;
        if self.anchored && discont {
            join = self.end();
        }
        match pts {
            Some(pts) if !self.anchored => self.anchor(pts),
            Some(pts) => {
                let error = difference(pts, self.expected());
                if error.abs() <= TOLERANCE {
                    self.error = error;
                } else if error.abs_diff(self.error) <= DRIFT_STEP as u64 {
                    self.anchor(pts);
                } else {
                    join = self.end();
                    self.anchor(pts);
                }
            }
            None if !self.anchored => return Err(Unplaced(join)),
            None => {}
        }
        self.clock += samples as u64;
        Ok(join)
    }

    /// Accounts for a gap of `duration` nanoseconds at `pts`.
    pub fn gap(&mut self, pts: u64, duration: u64) -> Gap {
        if duration > LONGEST_SILENCE {
            return Gap::Pause(self.end(), pts.saturating_add(duration).min(LAST));
        }
        let samples = duration.div_ceil(NS_PER_SAMPLE) as usize;
        let join = self.audio(Some(pts), samples, false).unwrap_or(Join::Continues);
        Gap::Silence(join, samples)
    }

    /// Ends the utterance: what follows needs a time stamp.
    pub fn end(&mut self) -> Join {
        let join = if self.is_open() { Join::Restarts } else { Join::Continues };
        self.utterance = self.clock;
        self.anchored = false;
        join
    }

    /// Time stamp of what starts at `sample`.
    pub fn start(&self, sample: u64) -> Option<u64> {
        self.map(sample, |anchor| anchor.sample <= sample)
    }

    /// Time stamp of what ends at `sample`: across a discontinuity it belongs to the audio before.
    pub fn end_of(&self, sample: u64) -> Option<u64> {
        self.map(sample, |anchor| anchor.sample < sample)
    }

    /// Drops what is only needed to map samples before `sample`.
    pub fn forget_before(&mut self, sample: u64) {
        while self.anchors.get(1).is_some_and(|next| next.sample < sample) {
            self.anchors.pop_front();
        }
    }

    fn map(&self, sample: u64, covers: impl Fn(&Anchor) -> bool) -> Option<u64> {
        let anchor = self.anchors.iter().rev().find(|anchor| covers(anchor)).or(self.anchors.front())?;
        Some(at(anchor, sample))
    }

    fn expected(&self) -> u64 {
        self.anchors.back().map_or(0, |anchor| at(anchor, self.clock))
    }

    fn anchor(&mut self, pts: u64) {
        // One anchor a sample: the earlier one describes no audio.
        if self.anchors.back().is_some_and(|last| last.sample == self.clock) {
            self.anchors.pop_back();
        }
        self.anchors.push_back(Anchor { sample: self.clock, pts: pts.min(LAST) });
        self.anchored = true;
        self.error = 0;
    }
}

fn at(anchor: &Anchor, sample: u64) -> u64 {
    anchor.pts.saturating_add(sample.saturating_sub(anchor.sample).saturating_mul(NS_PER_SAMPLE)).min(LAST)
}

fn difference(a: u64, b: u64) -> i64 {
    i64::try_from(i128::from(a) - i128::from(b)).unwrap_or(if a > b { i64::MAX } else { i64::MIN + 1 })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MS: u64 = 1_000_000;

    #[test]
    fn maps_samples_from_the_first_time_stamp() {
        let mut timeline = Timeline::default();
        assert_eq!(timeline.audio(Some(5_000 * MS), 160, true), Ok(Join::Continues));
        assert_eq!(timeline.audio(Some(5_010 * MS), 160, false), Ok(Join::Continues));
        assert_eq!(timeline.start(0), Some(5_000 * MS));
        assert_eq!(timeline.start(320), Some(5_020 * MS));
        assert_eq!(timeline.clock(), 320);
    }

    #[test]
    fn jitter_is_ignored_and_drift_moves_time_without_a_cut() {
        let mut timeline = Timeline::default();
        for n in 0..1_000u64 {
            let jitter = if n % 2 == 0 { 0 } else { 15 * MS };
            assert_eq!(timeline.audio(Some(n * 10 * MS + jitter), 160, false), Ok(Join::Continues));
        }
        assert_eq!(timeline.start(159_840), Some(9_990 * MS));
        let mut timeline = Timeline::default();
        for n in 0..10_000u64 {
            assert_eq!(timeline.audio(Some(n * 10_010_000), 160, false), Ok(Join::Continues));
        }
        let drift = difference(timeline.start(1_599_840).unwrap(), 9_999 * 10_010_000);
        assert!(drift.abs() <= TOLERANCE, "{drift}");
    }

    #[test]
    fn jumps_and_flags_restart() {
        let mut timeline = Timeline::default();
        timeline.audio(Some(0), 16_000, true).unwrap();
        assert_eq!(timeline.audio(Some(1_600 * MS), 1_600, false), Ok(Join::Restarts));
        assert_eq!(timeline.audio(Some(1_700 * MS), 1_600, true), Ok(Join::Restarts));
        assert_eq!(timeline.audio(Some(200 * MS), 1_600, false), Ok(Join::Restarts));
        assert_eq!(timeline.end_of(16_000), Some(1_000 * MS));
        assert_eq!(timeline.start(16_000), Some(1_600 * MS));
        assert_eq!(timeline.start(19_200), Some(200 * MS));
    }

    #[test]
    fn without_a_time_stamp_only_a_continuation_is_placed() {
        let mut timeline = Timeline::default();
        assert_eq!(timeline.audio(None, 160, false), Err(Unplaced(Join::Continues)));
        timeline.audio(Some(MS), 160, false).unwrap();
        assert_eq!(timeline.audio(None, 160, false), Ok(Join::Continues));
        assert_eq!(timeline.start(160), Some(11 * MS));
        assert_eq!(timeline.audio(None, 160, true), Err(Unplaced(Join::Restarts)));
        assert_eq!(timeline.audio(Some(MS), 160, false), Ok(Join::Continues));
    }

    #[test]
    fn short_gaps_are_silence_and_long_ones_pauses() {
        let mut timeline = Timeline::default();
        timeline.audio(Some(0), 16_000, false).unwrap();
        assert_eq!(timeline.gap(1_000 * MS, 500 * MS), Gap::Silence(Join::Continues, 8_000));
        assert_eq!(timeline.gap(1_500 * MS, 5_000 * MS), Gap::Pause(Join::Restarts, 6_500 * MS));
        assert!(!timeline.is_open());
        assert_eq!(timeline.audio(Some(6_500 * MS), 160, false), Ok(Join::Continues));
        assert_eq!(timeline.start(24_000), Some(6_500 * MS));
    }

    #[test]
    fn the_end_of_time_does_not_overflow() {
        let mut timeline = Timeline::default();
        timeline.audio(Some(u64::MAX), 160, false).unwrap();
        timeline.audio(Some(0), 160, false).unwrap();
        timeline.audio(Some(u64::MAX - 5), 160, false).unwrap();
        assert_eq!(timeline.start(u64::MAX), Some(LAST));
        assert_eq!(timeline.gap(u64::MAX - 1, u64::MAX - 1), Gap::Pause(Join::Restarts, LAST));
    }

    proptest! {
        /// Contiguous audio maps to the same times however it is cut, and never restarts.
        #[test]
        fn cutting_changes_nothing(start in 0..1u64 << 50, cuts in prop::collection::vec(1..5_000usize, 1..50)) {
            let mut timeline = Timeline::default();
            let mut sample = 0u64;
            for samples in &cuts {
                let pts = start + sample * NS_PER_SAMPLE;
                prop_assert_eq!(timeline.audio(Some(pts), *samples, false), Ok(Join::Continues));
                sample += *samples as u64;
                timeline.forget_before(sample / 2);
            }
            for probe in [0, sample / 2, sample] {
                prop_assert_eq!(timeline.start(probe), Some(start + probe * NS_PER_SAMPLE));
            }
        }

        /// Whatever the time stamps, each buffer's first sample maps to within the tolerance of its own.
        #[test]
        fn mapping_stays_within_tolerance(stamps in prop::collection::vec((0..1u64 << 62, 0..20_000usize, any::<bool>()), 1..40)) {
            let mut timeline = Timeline::default();
            for (pts, samples, discont) in stamps {
                let sample = timeline.clock();
                timeline.audio(Some(pts), samples, discont).unwrap();
                prop_assert!(difference(timeline.start(sample).unwrap(), pts).abs() <= TOLERANCE);
            }
        }
    }
}
