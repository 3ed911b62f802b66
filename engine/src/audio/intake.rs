// SPDX-License-Identifier: MPL-2.0
//! The audio that a stream holds until it is stepped: utterances on one clock, and when their samples came.

use std::collections::VecDeque;
use std::time::Instant;

/// Samples that share a time of arrival at most, 10 ms, if they come in smaller pieces: bounds what the times take.
const ARRIVAL_SAMPLES: u64 = 160;

/// Largest chunk that is copied out of the queue; of a longer one the memory is handed over if it is all there is.
const MOST_COPIED: usize = 1 << 16;

/// Audio in utterances; the first one is being decoded.
#[derive(Default)]
pub(crate) struct Intake {
    utterances: VecDeque<Utterance>,
    /// Samples that wait and were never taken.
    queued: usize,
    /// Samples taken in, with those of silence.
    clock: u64,
    arrivals: VecDeque<Arrival>,
}

/// Audio without a break.
#[derive(Default)]
struct Utterance {
    /// Sample clock of its first sample.
    base: u64,
    /// Its samples from `first` on, counted from its beginning: those that are kept, then those that wait.
    pcm: VecDeque<f32>,
    first: u64,
    /// The next that a step takes, at least `first`.
    next: u64,
    /// Those before it were taken at least once.
    taken: u64,
    /// Since when those before `taken` are to be heard again.
    again: Option<Instant>,
    /// Samples dropped before it.
    lost: u64,
    /// Since when no more samples will come.
    ended: Option<Instant>,
    /// The user ended it, rather than a loss or a pause.
    finished: bool,
    /// It is silence that nobody decodes.
    silent: bool,
}

/// When samples came.
struct Arrival {
    start: u64,
    end: u64,
    at: Instant,
}

/// The next chunk, as it lies in the queue.
pub(crate) struct Next {
    pub(crate) samples: usize,
    /// When it was complete.
    pub(crate) complete: Instant,
}

impl Utterance {
    /// Samples that wait and were never taken.
    fn queued(&self) -> usize {
        self.pcm.len() - (self.taken - self.first) as usize
    }

    /// Place in `pcm` of the next that a step takes.
    fn place(&self) -> usize {
        (self.next - self.first) as usize
    }

    /// Lets go of all taken samples but the last `keep`.
    fn trim(&mut self, keep: usize) {
        let gone = self.place().saturating_sub(keep);
        self.pcm.drain(..gone);
        self.first += gone as u64;
    }
}

/// What there is to know of a chunk that was taken.
pub(crate) struct Taken {
    /// The utterance ends with it.
    pub(crate) end: bool,
    /// First sample and number of those that were dropped before it.
    pub(crate) lost: Option<(u64, u64)>,
}

/// What follows an utterance that is over.
pub(crate) struct Over {
    /// The user ended it.
    pub(crate) finished: bool,
    /// Silence follows up to this sample.
    pub(crate) silent_until: Option<u64>,
}

impl Intake {
    /// Samples that wait.
    pub(crate) fn queued(&self) -> usize {
        self.queued
    }

    /// Sample clock of the first sample of the utterance that is being decoded.
    pub(crate) fn base(&self) -> u64 {
        self.utterances.front().map_or(0, |utterance| utterance.base)
    }

    /// Takes in speech; samples that aren't finite count as 0.
    pub(crate) fn append(&mut self, pcm: &[f32]) {
        if self.utterances.back().is_none_or(|last| last.ended.is_some()) {
            self.utterances.push_back(Utterance { base: self.clock, ..Default::default() });
        }
        if let Some(last) = self.utterances.back_mut() {
            last.pcm.extend(pcm.iter().map(|&x| if x.is_finite() { x } else { 0.0 }));
        }
        self.queued += pcm.len();
        let start = self.clock;
        self.clock += pcm.len() as u64;
        let (end, at) = (self.clock, Instant::now());
        match self.arrivals.back_mut() {
            Some(last) if last.end == start && end - last.start <= ARRIVAL_SAMPLES => {
                (last.end, last.at) = (end, at);
            }
            _ => self.arrivals.push_back(Arrival { start, end, at }),
        }
    }

    /// Notes silence, which ends the utterance before it. If none is left to decode, the silence is over at once: up to
    /// this sample.
    pub(crate) fn silence(&mut self, samples: u64) -> Option<u64> {
        let base = self.clock;
        self.clock += samples;
        let Some(last) = self.utterances.back_mut() else { return Some(self.clock) };
        if !last.silent {
            let ended = Some(Instant::now());
            last.ended = last.ended.or(ended);
            self.utterances.push_back(Utterance { base, ended, silent: true, ..Default::default() });
        }
        None
    }

    /// Ends the last utterance for the user, or an empty one if that has ended.
    pub(crate) fn finish(&mut self) {
        let ended = Some(Instant::now());
        match self.utterances.back_mut() {
            Some(last) if last.ended.is_none() => (last.ended, last.finished) = (ended, true),
            _ => self.utterances.push_back(Utterance {
                base: self.clock,
                ended,
                finished: true,
                ..Default::default()
            }),
        }
    }

    /// The next chunk if it is complete: `wanted` samples of the utterance, or what is left of it.
    pub(crate) fn next(&self, wanted: usize) -> Option<Next> {
        let utterance = self.utterances.front()?;
        let samples = wanted.min(utterance.pcm.len() - utterance.place());
        let end = utterance.next + samples as u64;
        let complete = match (utterance.ended, utterance.again) {
            (Some(ended), _) if samples < wanted => ended,
            (None, _) if samples < wanted => return None,
            (_, Some(again)) if end <= utterance.taken => again,
            (ended, _) => self.arrival(utterance.base + end).or(ended)?,
        };
        Some(Next { samples, complete })
    }

    /// When all samples before this one had come.
    fn arrival(&self, end: u64) -> Option<Instant> {
        let index = self.arrivals.partition_point(|arrival| arrival.end < end);
        self.arrivals.get(index).map(|arrival| arrival.at)
    }

    /// Takes the next `samples` samples of the utterance into `pcm`, which is empty, and keeps the last `keep` of all that
    /// were taken; of a long signal that is all there is the memory is handed over, with [`Intake::give_back`] to return it.
    pub(crate) fn take(&mut self, samples: usize, keep: usize, pcm: &mut Vec<f32>) -> Option<Taken> {
        let utterance = self.utterances.front_mut()?;
        let place = utterance.place();
        let end = utterance.next + samples as u64;
        self.queued -= end.saturating_sub(utterance.taken) as usize;
        utterance.next = end;
        utterance.taken = utterance.taken.max(end);
        if place == 0 && samples > MOST_COPIED && samples == utterance.pcm.len() {
            *pcm = std::mem::take(&mut utterance.pcm).into();
            utterance.first = end;
        } else {
            let (front, back) = utterance.pcm.as_slices();
            let (from, to) = (place.min(front.len()), (place + samples).min(front.len()));
            pcm.extend_from_slice(&front[from..to]);
            let (from, to) = (place.max(front.len()), (place + samples).max(front.len()));
            pcm.extend_from_slice(&back[from - front.len()..to - front.len()]);
            utterance.trim(keep);
        }
        let end = utterance.ended.is_some() && utterance.next == utterance.first + utterance.pcm.len() as u64;
        let lost = std::mem::take(&mut utterance.lost);
        let lost = (lost > 0).then_some((utterance.base - lost, lost));
        let taken = utterance.base + utterance.taken;
        self.forget(taken);
        Some(Taken { end, lost })
    }

    /// Returns what [`Intake::take`] handed over of the utterance.
    pub(crate) fn give_back(&mut self, pcm: Vec<f32>) {
        if let Some(utterance) = self.utterances.front_mut().filter(|utterance| utterance.pcm.is_empty()) {
            utterance.first = utterance.next - pcm.len() as u64;
            utterance.pcm = pcm.into();
        }
    }

    /// The sample of the utterance that the next step begins with.
    pub(crate) fn position(&self) -> u64 {
        self.utterances.front().map_or(0, |utterance| utterance.next)
    }

    /// The first sample of the utterance that is kept.
    pub(crate) fn kept(&self) -> u64 {
        self.utterances.front().map_or(0, |utterance| utterance.first)
    }

    /// Has the utterance heard again from its sample `from` on, which is kept.
    pub(crate) fn rewind(&mut self, from: u64) {
        if let Some(utterance) = self.utterances.front_mut() {
            utterance.next = from.clamp(utterance.first, utterance.next);
            utterance.again = Some(Instant::now());
        }
    }

    /// Forgets when samples before this one came.
    fn forget(&mut self, end: u64) {
        while self.arrivals.front().is_some_and(|arrival| arrival.end <= end) {
            self.arrivals.pop_front();
        }
    }

    /// Puts away the utterance that was decoded, and silence behind it.
    pub(crate) fn over(&mut self) -> Over {
        let finished = self.utterances.pop_front().is_some_and(|utterance| utterance.finished);
        let silent_until = if self.utterances.front().is_some_and(|next| next.silent) {
            self.utterances.pop_front();
            Some(self.utterances.front().map_or(self.clock, |next| next.base - next.lost))
        } else {
            None
        };
        Over { finished, silent_until }
    }

    /// Forgets all audio; the clock stays.
    pub(crate) fn clear(&mut self) {
        *self = Self { clock: self.clock, ..Self::default() };
    }

    /// Gives up the oldest `samples` samples that were never taken; returns how many that were. An utterance of which some
    /// were taken ends where the loss begins, and another begins after it.
    pub(crate) fn drop_oldest(&mut self, samples: usize) -> usize {
        let wanted = samples.clamp(1, self.queued.max(1));
        let mut left = wanted;
        let mut index = 0;
        while left > 0 && index < self.utterances.len() {
            let utterance = &mut self.utterances[index];
            let count = left.min(utterance.queued());
            left -= count;
            self.queued -= count;
            if count > 0 && utterance.taken > 0 {
                let mut pcm = utterance.pcm.split_off((utterance.taken - utterance.first) as usize);
                pcm.drain(..count);
                let after = Utterance {
                    base: utterance.base + utterance.taken + count as u64,
                    pcm,
                    lost: count as u64,
                    ended: utterance.ended,
                    finished: utterance.finished,
                    ..Utterance::default()
                };
                (utterance.ended, utterance.finished) = (Some(Instant::now()), false);
                let kept = after.base;
                self.utterances.insert(1, after);
                self.forget(kept);
            } else {
                utterance.pcm.drain(..count);
                utterance.base += count as u64;
                utterance.lost += count as u64;
                let kept = utterance.base;
                if count > 0 {
                    self.forget(kept);
                }
            }
            index += 1;
        }
        wanted - left
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Queues so many samples and takes them in two chunks, the first of `first`.
    fn assert_taken_as_queued(queued: usize, first: usize) {
        let audio: Vec<f32> = (0..queued).map(|i| i as f32).collect();
        let mut intake = Intake::default();
        audio.chunks(999).for_each(|piece| intake.append(piece));
        intake.finish();
        let mut all = Vec::new();
        for (samples, end) in [(first, first == queued), (queued - first, true)] {
            let mut pcm = Vec::new();
            if let Some(next) = intake.next(samples)
                && next.samples > 0
            {
                let taken = intake.take(next.samples, 0, &mut pcm).expect("an utterance");
                assert_eq!((pcm.len(), taken.end), (samples, end), "{first} of {queued}");
            }
            all.append(&mut pcm);
        }
        assert!(intake.queued() == 0 && all == audio, "{first} of {queued}");
    }

    #[test]
    fn chunks_of_any_length_are_what_was_queued() {
        for queued in [1, 1_000, MOST_COPIED, MOST_COPIED + 1, 3 * MOST_COPIED] {
            for first in [0, 1, queued / 2, queued] {
                assert_taken_as_queued(queued, first);
            }
        }
    }

    #[test]
    fn a_long_signal_is_handed_over_with_what_was_lost_before_it() {
        let mut intake = Intake::default();
        intake.append(&vec![0.5; 3 * MOST_COPIED]);
        let place = intake.utterances[0].pcm.as_slices().0.as_ptr();
        assert_eq!(intake.drop_oldest(10), 10);
        intake.finish();
        let mut pcm = Vec::new();
        let samples = 3 * MOST_COPIED - 10;
        let next = intake.next(usize::MAX).expect("it has ended");
        let taken = intake.take(next.samples, 0, &mut pcm).expect("an utterance");
        assert_eq!((pcm.len(), taken.end, taken.lost), (samples, true, Some((0, 10))));
        assert!(pcm.as_ptr() == place && pcm.iter().all(|&x| x == 0.5));
    }
}
