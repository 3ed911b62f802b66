// SPDX-License-Identifier: MPL-2.0
//! Tells holes and jumps in time from time stamps that only jitter.

use std::collections::VecDeque;

/// Audio over which the jitter of time stamps is known, in samples: 2 s.
const MEMORY: u64 = 32_000;

/// Samples from one time stamp that is remembered to the next, at least: 10 ms. Bounds what they take.
const APART: u64 = 160;

/// How long time stamps must stay off to be believed where they jitter, in samples: 300 ms.
const HOLD: u64 = 4_800;

/// Time stamps that lie this close together, in nanoseconds, are exact: containers round to 1 ms.
const EXACT: i64 = 10_000_000;

/// Time stamps that are off by less, in nanoseconds, are where they were.
const STEP: i64 = 10_000_000;

/// Time stamps that are off but lie farther apart, in nanoseconds, are a late burst that catches up.
const WIDEST: i64 = 400_000_000;

/// No burst is so late at once, in nanoseconds, where time stamps were exact.
const LATE: i64 = 1_000_000_000;

/// Off by more than this, in nanoseconds, no time stamp jitters.
const FAR: i64 = 10_000_000_000;

/// Clocks that drift apart move the time stamps once they are off by this, in nanoseconds.
const DRIFT: i64 = 30_000_000;

/// One time stamp: how far, in nanoseconds, it is from where counted samples are.
#[derive(Clone, Copy, Debug)]
struct Stamp {
    sample: u64,
    error: i64,
}

/// Time has moved against the samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shift {
    /// From this sample on.
    pub since: u64,
    /// By so many nanoseconds.
    pub by: i64,
    /// Because audio is missing, rather than because clocks drift or time stamps were off.
    pub hole: bool,
}

/// What is known of the time stamps of a feed.
#[derive(Debug, Default)]
pub struct Stamps {
    /// Those of the last [`MEMORY`] samples that were where they were expected.
    usual: VecDeque<Stamp>,
    /// Those after them that are off.
    off: VecDeque<Stamp>,
}

impl Stamps {
    /// Judges the time stamp of `samples` samples from `sample` on, which is off by `error` nanoseconds.
    pub fn judge(&mut self, sample: u64, samples: usize, error: i64) -> Option<Shift> {
        let (least, most) = range(&self.usual).unwrap_or_default();
        let spread = most.saturating_sub(least);
        let margin = STEP.max(spread / 2);
        let stamp = Stamp { sample, error };
        if error >= least.saturating_sub(margin) && error <= most.saturating_add(margin) {
            self.usual.append(&mut self.off);
            if self.usual.back().is_none_or(|last| last.sample + APART <= sample) {
                self.usual.push_back(stamp);
            }
            while self.usual.front().is_some_and(|first| first.sample + MEMORY < sample) {
                self.usual.pop_front();
            }
            let by = median(&self.usual);
            return (by.abs() > DRIFT && self.known(sample) >= HOLD).then(|| {
                move_by(&mut self.usual, by);
                Shift { since: sample, by, hole: false }
            });
        }
        // Only a loss makes exact time stamps jump ahead; what comes late is behind afterwards.
        let is_exact = spread <= EXACT && self.known(sample) >= HOLD && self.off.is_empty();
        let is_sure = is_exact && error > 0 || spread <= EXACT && error.saturating_abs() > LATE;
        let is_sure = is_sure || error.saturating_abs() > FAR;
        if is_sure {
            self.off.clear();
            self.off.push_back(Stamp { sample, error: 0 });
            self.believe();
            return Some(Shift { since: sample, by: error, hole: error > 0 });
        }
        self.off.push_back(stamp);
        while range(&self.off).is_some_and(|(least, most)| most.saturating_sub(least) > WIDEST) {
            self.off.pop_front();
        }
        let since = self.off.front().map_or(sample, |first| first.sample);
        if sample + samples as u64 - since < HOLD {
            return None;
        }
        let by = median(&self.off).saturating_sub(median(&self.usual));
        // A few stamps alone don't say what is usual: the first may have been early.
        let is_known = self.usual.back().is_some_and(|last| self.known(last.sample) >= HOLD);
        let hole = range(&self.off).is_some_and(|(least, most)| by > most.saturating_sub(least).max(STEP));
        let hole = hole && is_known;
        move_by(&mut self.off, by);
        self.believe();
        Some(Shift { since, by, hole })
    }

    /// Audio, in samples, over which time stamps are known before this sample.
    fn known(&self, sample: u64) -> u64 {
        self.usual.front().map_or(0, |first| sample - first.sample)
    }

    fn believe(&mut self) {
        self.usual.append(&mut self.off);
    }

    /// Notes that counting goes on from a time stamp that is right by definition.
    pub fn anchored(&mut self, sample: u64) {
        self.off.clear();
        self.usual.push_back(Stamp { sample, error: 0 });
    }
}

fn range(stamps: &VecDeque<Stamp>) -> Option<(i64, i64)> {
    let errors = || stamps.iter().map(|stamp| stamp.error);
    errors().min().zip(errors().max())
}

fn median(stamps: &VecDeque<Stamp>) -> i64 {
    let mut errors: Vec<i64> = stamps.iter().map(|stamp| stamp.error).collect();
    let middle = errors.len() / 2;
    if errors.is_empty() { 0 } else { *errors.select_nth_unstable(middle).1 }
}

fn move_by(stamps: &mut VecDeque<Stamp>, by: i64) {
    for stamp in stamps {
        stamp.error = stamp.error.saturating_sub(by);
    }
}
