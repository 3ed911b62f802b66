// SPDX-License-Identifier: MPL-2.0
//! Maps between the time stamps of a segment and the engine's sample clock, and decides where an utterance ends.

use super::stamps::{Shift, Stamps};
use std::collections::VecDeque;

/// Samples a second that the element and every model of the family work at.
pub const SAMPLE_RATE: u32 = 16_000;

/// Nanoseconds of one sample; exact.
pub const NS_PER_SAMPLE: u64 = 1_000_000_000 / SAMPLE_RATE as u64;

/// Time that so many samples take, in nanoseconds.
pub fn nanoseconds(samples: u64) -> u64 {
    samples.saturating_mul(NS_PER_SAMPLE)
}

/// Holes and gaps up to this length, in nanoseconds, are silence to the recogniser; longer ones end the utterance, as does
/// time that falls back by more.
const LONGEST_SILENCE: u64 = 1_000_000_000;

/// Cuts within a second that are worth a warning.
const MANY_CUTS: usize = 3;

/// Latest time stamp given out: `u64::MAX` means none in GStreamer.
const LAST: u64 = u64::MAX - 1;

/// What to do before samples are handed to the engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Join {
    /// They continue the utterance.
    Continues,
    /// As many samples of silence come first: a hole in the audio.
    Silence(usize),
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

/// Samples that cannot be placed: no time stamp, and nothing before them to continue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unplaced;

/// From `sample` on, time runs from `pts` nanoseconds.
#[derive(Clone, Copy, Debug)]
struct Anchor {
    sample: u64,
    pts: u64,
}

/// The timeline of one segment sequence since the last flush. Time stamps are in nanoseconds.
///
/// Audio is placed by counting samples. Time stamps that jitter change nothing, and neither does the flag for a
/// discontinuity: only [`Stamps`] that stay off say that audio is missing, that clocks drift or that time jumped.
#[derive(Debug, Default)]
pub struct Timeline {
    anchors: VecDeque<Anchor>,
    /// Samples handed to the engine so far.
    clock: u64,
    /// Clock at which the utterance began.
    utterance: u64,
    /// The last anchor may be continued.
    anchored: bool,
    stamps: Stamps,
    /// Where the audio was cut within the last second of it.
    cuts: VecDeque<u64>,
    /// Time over which stamps jumped ahead, in nanoseconds.
    missing: u64,
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
    pub fn audio(&mut self, pts: Option<u64>, samples: usize) -> Result<Join, Unplaced> {
        let mut join = Join::Continues;
        match pts {
            Some(pts) if !self.anchored => self.anchor(pts),
            Some(pts) => {
                let error = difference(pts, self.expected());
                if let Some(shift) = self.stamps.judge(self.clock, samples, error) {
                    join = self.shift(shift);
                }
            }
            None if !self.anchored => return Err(Unplaced),
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
        let join = self.audio(Some(pts), samples).unwrap_or(Join::Continues);
        Gap::Silence(join, samples)
    }

    /// Ends the utterance: what follows needs a time stamp.
    pub fn end(&mut self) -> Join {
        let join = if self.is_open() { Join::Restarts } else { Join::Continues };
        self.utterance = self.clock;
        self.anchored = false;
        join
    }

    /// Ends the utterance for want of audio: what follows continues the count.
    pub fn pause(&mut self) {
        self.utterance = self.clock;
    }

    /// Whether the audio is cut so often that hardly a word is left whole; true once for each such second.
    pub fn has_many_cuts(&mut self) -> bool {
        let is_many = self.cuts.len() >= MANY_CUTS;
        if is_many {
            self.cuts.clear();
        }
        is_many
    }

    /// Time over which stamps jumped ahead since this was asked, in nanoseconds: audio that never came.
    pub fn take_missing(&mut self) -> u64 {
        std::mem::take(&mut self.missing)
    }

    fn shift(&mut self, Shift { since, by, hole }: Shift) -> Join {
        let length = by.unsigned_abs();
        if by > 0 && (hole || length > LONGEST_SILENCE) {
            self.missing = self.missing.saturating_add(length);
        }
        if length > LONGEST_SILENCE {
            let pts = moved(self.expected(), by);
            let join = self.end();
            self.anchor(pts);
            if join == Join::Restarts {
                self.cuts.push_back(self.clock);
                while self.cuts.front().is_some_and(|cut| cut + u64::from(SAMPLE_RATE) < self.clock) {
                    self.cuts.pop_front();
                }
            }
            return join;
        }
        if hole {
            let samples = (length + NS_PER_SAMPLE / 2) / NS_PER_SAMPLE;
            self.clock += samples;
            return Join::Silence(samples as usize);
        }
        let pts = moved(self.line(since), by);
        while self.anchors.back().is_some_and(|last| last.sample >= since) {
            self.anchors.pop_back();
        }
        self.anchors.push_back(Anchor { sample: since, pts });
        Join::Continues
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
        self.line(self.clock)
    }

    /// Where the last anchor puts `sample`, also one before it.
    fn line(&self, sample: u64) -> u64 {
        self.anchors.back().map_or(0, |anchor| match anchor.sample.checked_sub(sample) {
            Some(before) => anchor.pts.saturating_sub(before.saturating_mul(NS_PER_SAMPLE)),
            None => at(anchor, sample),
        })
    }

    fn anchor(&mut self, pts: u64) {
        // One anchor a sample: the earlier one describes no audio.
        if self.anchors.back().is_some_and(|last| last.sample == self.clock) {
            self.anchors.pop_back();
        }
        self.anchors.push_back(Anchor { sample: self.clock, pts: pts.min(LAST) });
        self.anchored = true;
        self.stamps.anchored(self.clock);
    }
}

fn at(anchor: &Anchor, sample: u64) -> u64 {
    anchor.pts.saturating_add(sample.saturating_sub(anchor.sample).saturating_mul(NS_PER_SAMPLE)).min(LAST)
}

fn moved(time: u64, by: i64) -> u64 {
    time.saturating_add_signed(by).min(LAST)
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
        assert_eq!(timeline.audio(Some(5_000 * MS), 160), Ok(Join::Continues));
        assert_eq!(timeline.audio(Some(5_010 * MS), 160), Ok(Join::Continues));
        assert_eq!(timeline.start(0), Some(5_000 * MS));
        assert_eq!(timeline.start(320), Some(5_020 * MS));
        assert_eq!(timeline.clock(), 320);
    }

    #[test]
    fn jitter_is_ignored_and_drift_moves_time_without_a_cut() {
        let mut timeline = Timeline::default();
        for n in 0..1_000u64 {
            let jitter = if n % 2 == 0 { 0 } else { 9 * MS };
            assert_eq!(timeline.audio(Some(n * 10 * MS + jitter), 160), Ok(Join::Continues));
        }
        assert_eq!(timeline.start(159_840), Some(9_990 * MS));
        let mut timeline = Timeline::default();
        for n in 0..10_000u64 {
            assert_eq!(timeline.audio(Some(n * 10_010_000), 160), Ok(Join::Continues));
        }
        let drift = difference(timeline.start(1_599_840).unwrap(), 9_999 * 10_010_000);
        assert!(drift.abs() <= 40 * MS as i64, "{drift}");
    }

    /// Time stamps of 20 ms each, the first at 10 s, moved by `jitter`; how each was joined.
    fn joins(jitter: impl Fn(u64) -> i64, buffers: u64) -> (Timeline, Vec<Join>) {
        let mut timeline = Timeline::default();
        let stamp = |n: u64| (10_000 * MS + n * 20 * MS).saturating_add_signed(jitter(n) * MS as i64);
        let joins = (0..buffers).map(|n| timeline.audio(Some(stamp(n)), 320).unwrap()).collect();
        (timeline, joins)
    }

    #[test]
    fn bursts_are_learnt_and_change_nothing() {
        for (period, first) in [(5, 0), (10, 0), (10, 3), (20, 0)] {
            // Ten buffers at once are stamped alike.
            let (timeline, joins) = joins(|n| -20 * ((n + first) as i64 % period), 400);
            assert!(!joins.contains(&Join::Restarts), "{period}");
            let silence: usize =
                joins.iter().map(|join| if let Join::Silence(samples) = join { *samples } else { 0 }).sum();
            assert_eq!(silence, 0, "in bursts of {period}");
            let error =
                difference(timeline.start(399 * 320 + silence as u64).unwrap(), (10_000 + 399 * 20) * MS);
            assert!(error.abs() <= 20 * period * MS as i64, "{error}");
        }
    }

    #[test]
    fn what_is_lost_is_silence_where_it_was() {
        let mut timeline = Timeline::default();
        let mut silence = 0;
        for n in (0..500u64).filter(|n| *n < 20 || n % 20 != 7 && !(100..120).contains(n)) {
            match timeline.audio(Some(n * 20 * MS), 320).unwrap() {
                Join::Silence(samples) => silence += samples,
                join => assert_eq!(join, Join::Continues),
            }
            assert_eq!(timeline.start(timeline.clock() - 320), Some(n * 20 * MS));
        }
        assert_eq!(silence, 320 * (24 - 1 + 20));
    }

    #[test]
    fn a_hole_among_jittering_stamps_is_noticed_once_they_stay_off() {
        let jitter = |n: u64| (n as i64 * 37 % 200) - 100 + if n >= 200 { 700 } else { 0 };
        let (timeline, joins) = joins(jitter, 400);
        let silence: usize =
            joins[10..].iter().map(|join| if let Join::Silence(samples) = join { *samples } else { 0 }).sum();
        assert!((600 * 16..800 * 16).contains(&silence), "{silence}");
        assert!(joins[10..200].iter().all(|join| *join == Join::Continues));
        let clock = timeline.clock();
        let error = difference(timeline.start(clock).unwrap(), (10_000 + 400 * 20 + 700) * MS);
        assert!(error.abs() < 100 * MS as i64, "{error}");
    }

    #[test]
    fn time_that_jumps_starts_anew() {
        let mut timeline = Timeline::default();
        timeline.audio(Some(3_600_000 * MS), 16_000).unwrap();
        assert_eq!(timeline.audio(Some(0), 1_600), Ok(Join::Restarts), "an hour back");
        assert_eq!(timeline.audio(Some(100 * MS), 1_600), Ok(Join::Continues));
        assert_eq!(timeline.audio(Some(60_000 * MS), 1_600), Ok(Join::Restarts), "a minute on");
        assert_eq!(timeline.end_of(16_000), Some(3_601_000 * MS));
        assert_eq!(timeline.start(16_000), Some(0));
        assert_eq!(timeline.start(19_200), Some(60_000 * MS));
    }

    #[test]
    fn many_cuts_in_a_second_are_noticed() {
        let mut timeline = Timeline::default();
        let mut noticed = 0;
        for n in 0..10u64 {
            timeline.audio(Some(n * 5_000 * MS), 1_600).unwrap();
            noticed += u64::from(timeline.has_many_cuts());
        }
        assert_eq!(noticed, 3);
        for n in 0..10u64 {
            timeline.audio(Some(100_000 * MS + n * 5_000 * MS), 16_000).unwrap();
            assert!(!timeline.has_many_cuts());
        }
    }

    #[test]
    fn without_a_time_stamp_only_a_continuation_is_placed() {
        let mut timeline = Timeline::default();
        assert_eq!(timeline.audio(None, 160), Err(Unplaced));
        timeline.audio(Some(MS), 160).unwrap();
        assert_eq!(timeline.audio(None, 160), Ok(Join::Continues));
        assert_eq!(timeline.start(160), Some(11 * MS));
        assert_eq!(timeline.end(), Join::Restarts);
        assert_eq!(timeline.audio(None, 160), Err(Unplaced));
        assert_eq!(timeline.audio(Some(MS), 160), Ok(Join::Continues));
        timeline.pause();
        assert_eq!(timeline.audio(None, 160), Ok(Join::Continues));
    }

    #[test]
    fn short_gaps_are_silence_and_long_ones_pauses() {
        let mut timeline = Timeline::default();
        timeline.audio(Some(0), 16_000).unwrap();
        assert_eq!(timeline.gap(1_000 * MS, 500 * MS), Gap::Silence(Join::Continues, 8_000));
        assert_eq!(timeline.gap(1_500 * MS, 5_000 * MS), Gap::Pause(Join::Restarts, 6_500 * MS));
        assert!(!timeline.is_open());
        assert_eq!(timeline.audio(Some(6_500 * MS), 160), Ok(Join::Continues));
        assert_eq!(timeline.start(24_000), Some(6_500 * MS));
    }

    #[test]
    fn the_end_of_time_does_not_overflow() {
        let mut timeline = Timeline::default();
        timeline.audio(Some(u64::MAX), 160).unwrap();
        timeline.audio(Some(0), 160).unwrap();
        timeline.audio(Some(u64::MAX - 5), 160).unwrap();
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
                prop_assert_eq!(timeline.audio(Some(pts), *samples), Ok(Join::Continues));
                sample += *samples as u64;
                timeline.forget_before(sample / 2);
            }
            for probe in [0, sample / 2, sample] {
                prop_assert_eq!(timeline.start(probe), Some(start + probe * NS_PER_SAMPLE));
            }
        }

        /// Whatever jitters by up to 100 ms is never cut, gets little silence and keeps its place.
        #[test]
        fn jitter_cuts_nothing(jitter in prop::collection::vec(-100i64..100, 500)) {
            let (timeline, joins) = joins(|n| jitter[n as usize], 500);
            prop_assert!(!joins.contains(&Join::Restarts));
            let silent = joins.iter().map(|join| if let Join::Silence(samples) = join { *samples } else { 0 });
            let silence: usize = silent.sum();
            prop_assert_eq!(silence, 0);
            let error = difference(timeline.start(timeline.clock()).unwrap(), (10_000 + 500 * 20) * MS);
            prop_assert!(error.abs() <= 100 * MS as i64, "{}", error);
        }

        /// Whatever the time stamps, the count of samples and what is handed over agree, and nothing overflows.
        #[test]
        fn any_time_stamp_is_placed(stamps in prop::collection::vec((0..1u64 << 62, 0..20_000usize), 1..40)) {
            let mut timeline = Timeline::default();
            let mut given = 0;
            for (pts, samples) in stamps {
                if let Join::Silence(silence) = timeline.audio(Some(pts), samples).unwrap() {
                    given += silence;
                }
                given += samples;
                prop_assert_eq!(timeline.clock(), given as u64);
                prop_assert!(timeline.start(timeline.clock()).is_some());
            }
        }
    }
}
