// SPDX-License-Identifier: MPL-2.0
//! The audio that a stream holds until it is stepped: utterances on one clock, and when their samples came.

use std::collections::VecDeque;
use std::time::Instant;

/// Samples that share a time of arrival at most, 10 ms, if they come in smaller pieces: bounds what the times take.
const ARRIVAL_SAMPLES: u64 = 160;

/// Share of what was lost that is heard as silence before the loss, at most: under overload silence must not take the room
/// that the loss made.
const LOSS_SHARE: usize = 4;

/// Largest chunk that is copied out of the queue; of a longer one the memory is handed over if it is all there is.
const MOST_COPIED: usize = 1 << 16;

/// Audio in utterances; the first one is being decoded. Behind each comes a tail of silence that is on no clock.
#[derive(Default)]
pub(crate) struct Intake {
    /// Samples of silence behind an utterance.
    tail: usize,
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
    /// Set when no more samples will come.
    ended: Option<End>,
    /// Samples of silence that follow its last one.
    tail: usize,
    /// The user ended it, rather than a loss or a pause.
    finished: bool,
    /// It is silence that nobody decodes.
    silent: bool,
}

/// The end of an utterance.
#[derive(Clone, Copy)]
struct End {
    /// When it was known.
    at: Instant,
    /// Sample clock after its last sample.
    sample: u64,
}

impl Utterance {
    /// Ends it before the sample `sample`, with a tail of silence if it has samples.
    fn end(&mut self, sample: u64, tail: usize) {
        self.ended = Some(End { at: Instant::now(), sample });
        self.tail = if sample > self.base { tail } else { 0 };
    }

    /// Its sample after the last that is there.
    fn last(&self) -> u64 {
        self.first + self.pcm.len() as u64
    }

    /// Samples that a step can take, with those of the tail.
    fn waiting(&self) -> usize {
        (self.last() + self.tail as u64 - self.next) as usize
    }

    /// Samples that were never taken, without those of the tail.
    fn queued(&self) -> usize {
        self.last().saturating_sub(self.taken) as usize
    }

    /// Lets go of all taken samples but the last `keep`.
    fn trim(&mut self, keep: usize) {
        let gone = ((self.next - self.first) as usize).saturating_sub(keep).min(self.pcm.len());
        self.pcm.drain(..gone);
        self.first += gone as u64;
    }

    /// `sample`, or the end of its audio if that comes first.
    fn within(&self, sample: u64) -> u64 {
        self.ended.map_or(sample, |end| sample.min(end.sample))
    }
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
    /// No audio; each utterance will be followed by `tail` samples of silence.
    pub(crate) fn new(tail: usize) -> Self {
        Self { tail, ..Self::default() }
    }

    /// The same before any audio.
    pub(crate) fn fresh(&self) -> Self {
        Self::new(self.tail)
    }

    /// Samples that wait, without silence behind utterances.
    pub(crate) fn queued(&self) -> usize {
        self.queued
    }

    /// Sample clock of the first sample of the utterance that is being decoded.
    pub(crate) fn base(&self) -> u64 {
        self.utterances.front().map_or(0, |utterance| utterance.base)
    }

    /// Sample clock after the first `decoded` samples of that utterance: no later than its audio ends.
    pub(crate) fn heard(&self, decoded: u64) -> u64 {
        let Some(utterance) = self.utterances.front() else { return decoded };
        utterance.within(utterance.base + decoded)
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
            if last.ended.is_none() {
                last.end(base, self.tail);
            }
            let mut silence = Utterance { base, silent: true, ..Default::default() };
            silence.end(base, 0);
            self.utterances.push_back(silence);
        }
        None
    }

    /// Ends the last utterance for the user, or an empty one if that has ended.
    pub(crate) fn finish(&mut self) {
        if self.utterances.back().is_none_or(|last| last.ended.is_some()) {
            self.utterances.push_back(Utterance { base: self.clock, ..Default::default() });
        }
        if let Some(last) = self.utterances.back_mut() {
            last.end(self.clock, self.tail);
            last.finished = true;
        }
    }

    /// The next chunk if it is complete: `wanted` samples of the utterance, or what is left of it.
    pub(crate) fn next(&self, wanted: usize) -> Option<Next> {
        let utterance = self.utterances.front()?;
        let samples = wanted.min(utterance.waiting());
        let next = utterance.next + samples as u64;
        let last = utterance.base + next;
        let complete = match (utterance.ended, utterance.again) {
            (Some(end), _) if samples < wanted || last > end.sample => end.at,
            (None, _) if samples < wanted => return None,
            (_, Some(again)) if next <= utterance.taken => again,
            (end, _) => self.arrival(last).or(end.map(|end| end.at))?,
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
        let (queued, place) = (utterance.queued(), (utterance.next - utterance.first) as usize);
        let audio = samples.min(utterance.pcm.len().saturating_sub(place));
        utterance.next += samples as u64;
        utterance.taken = utterance.taken.max(utterance.next);
        self.queued -= queued - utterance.queued();
        if place == 0 && audio > MOST_COPIED && audio == utterance.pcm.len() {
            utterance.first = utterance.last();
            *pcm = std::mem::take(&mut utterance.pcm).into();
        } else {
            let (front, back) = utterance.pcm.as_slices();
            let part = |half: &[f32], before: usize| {
                let within = |place: usize| place.clamp(before, before + half.len()) - before;
                within(place)..within(place + audio)
            };
            pcm.extend_from_slice(&front[part(front, 0)]);
            pcm.extend_from_slice(&back[part(back, front.len())]);
            utterance.trim(keep);
        }
        pcm.reserve_exact(samples - audio);
        pcm.resize(samples, 0.0);
        let end = utterance.ended.is_some() && utterance.waiting() == 0;
        let lost = std::mem::take(&mut utterance.lost);
        let lost = (lost > 0).then_some((utterance.base - lost, lost));
        let taken = utterance.within(utterance.base + utterance.taken);
        self.forget(taken);
        Some(Taken { end, lost })
    }

    /// Whether what is left of the utterance ends what was partly heard.
    pub(crate) fn is_ending(&self) -> bool {
        self.utterances.front().is_some_and(|utterance| utterance.ended.is_some() && utterance.taken > 0)
    }

    /// First sample and number of those that were dropped before all that is left, if nobody was told of them yet.
    pub(crate) fn lost(&mut self) -> Option<(u64, u64)> {
        let utterance = self.utterances.front_mut().filter(|utterance| utterance.taken == 0)?;
        let lost = std::mem::take(&mut utterance.lost);
        (lost > 0).then_some((utterance.base - lost, lost))
    }

    /// Returns what [`Intake::take`] handed over of the utterance.
    pub(crate) fn give_back(&mut self, mut pcm: Vec<f32>) {
        if let Some(utterance) = self.utterances.front_mut().filter(|utterance| utterance.pcm.is_empty()) {
            let first = utterance.next - pcm.len() as u64;
            pcm.truncate((utterance.first - first) as usize);
            (utterance.first, utterance.pcm) = (first, pcm.into());
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
        *self = Self { clock: self.clock, ..self.fresh() };
    }

    /// Gives up the oldest `samples` samples that were never taken; returns how many that were. An utterance of which some
    /// were taken ends where the loss begins, and another begins after it.
    pub(crate) fn drop_oldest(&mut self, samples: usize) -> usize {
        let wanted = samples.clamp(1, self.queued.max(1));
        let tail = self.tail;
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
                    tail: if pcm.is_empty() { 0 } else { utterance.tail },
                    pcm,
                    lost: count as u64,
                    ended: utterance.ended,
                    finished: utterance.finished,
                    ..Utterance::default()
                };
                utterance.end(utterance.base + utterance.taken, tail.min(count / LOSS_SHARE));
                utterance.finished = false;
                let kept = after.base;
                self.utterances.insert(1, after);
                self.forget(kept);
            } else if count > 0 {
                utterance.pcm.drain(..count);
                utterance.base += count as u64;
                utterance.lost += count as u64;
                if utterance.pcm.is_empty() {
                    utterance.tail = 0;
                }
                let kept = utterance.base;
                self.forget(kept);
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

    /// Takes everything, in chunks of 1,000 samples; for each utterance its first sample, where its audio ends and what
    /// is heard of it.
    fn take_all(intake: &mut Intake) -> Vec<(u64, u64, Vec<f32>)> {
        let (mut all, mut heard) = (Vec::new(), Vec::new());
        while let Some(next) = intake.next(1_000) {
            let mut pcm = Vec::new();
            let taken = intake.take(next.samples, 0, &mut pcm).expect("an utterance");
            heard.append(&mut pcm);
            let (base, end) = (intake.base(), intake.heard(heard.len() as u64));
            if taken.end {
                intake.over();
                all.push((base, end, std::mem::take(&mut heard)));
            }
        }
        all
    }

    #[test]
    fn silence_follows_each_utterance_and_takes_no_time() {
        let heard = |samples: usize, tail: usize| [vec![1.0; samples], vec![0.0; tail]].concat();
        let mut intake = Intake::new(2_500);
        intake.append(&[1.0; 1_700]);
        intake.silence(5_000);
        intake.append(&[1.0; 3_000]);
        intake.finish();
        // Nothing was said between these.
        intake.finish();
        intake.append(&[1.0; 10]);
        assert_eq!(intake.queued(), 4_710, "silence takes no room");
        let said = take_all(&mut intake);
        let expected = [
            (0, 1_700, heard(1_700, 2_500)),
            (6_700, 9_700, heard(3_000, 2_500)),
            (9_700, 9_700, Vec::new()),
        ];
        assert!(said == expected, "{said:?}");
        intake.finish();
        assert!(take_all(&mut intake) == [(9_700, 9_710, heard(10, 2_500))]);
    }

    #[test]
    fn silence_before_a_loss_is_short() {
        for (lost, tail) in [(400, 100), (40_000, 2_500)] {
            let mut intake = Intake::new(2_500);
            intake.append(&vec![1.0; 50_000]);
            intake.take(1_000, 0, &mut Vec::new()).expect("an utterance");
            assert_eq!(intake.drop_oldest(lost), lost);
            let next = intake.next(10_000).expect("it has ended");
            assert_eq!((next.samples, intake.heard(1_000 + tail as u64)), (tail, 1_000));
        }
        // Nothing is left of this one, so nothing is heard.
        let mut intake = Intake::new(2_500);
        intake.append(&[1.0; 500]);
        intake.finish();
        assert_eq!(intake.drop_oldest(500), 500);
        assert_eq!(intake.next(10_000).map(|next| next.samples), Some(0));
    }

    #[test]
    fn what_is_kept_is_heard_again_with_the_silence_behind_it() {
        let audio: Vec<f32> = (0..10_000).map(|i| i as f32 + 1.0).collect();
        let all = [&audio[..], &[0.0; 2_500]].concat();
        // In chunks, of which the last 3,000 samples are kept, and in one, which is given back.
        for (chunk, keep, from) in [(1_000, 3_000, 9_500_u64), (1_000, 3_000, 8_000), (usize::MAX, 0, 0)] {
            let mut intake = Intake::new(2_500);
            intake.append(&audio);
            intake.finish();
            let take = |intake: &mut Intake, heard: &mut Vec<f32>, until: u64| {
                while let Some(next) = intake.next(chunk).filter(|_| intake.position() < until) {
                    let mut pcm = Vec::new();
                    intake.take(next.samples, keep, &mut pcm).expect("an utterance");
                    heard.extend_from_slice(&pcm);
                    if chunk == usize::MAX {
                        intake.give_back(pcm);
                    }
                }
            };
            let mut heard = Vec::new();
            take(&mut intake, &mut heard, 11_000);
            assert_eq!(heard, all[..heard.len()]);
            assert_eq!(intake.queued(), 0);
            assert!(intake.kept() <= from, "{} samples are gone", intake.kept());
            intake.rewind(from);
            let mut again = Vec::new();
            take(&mut intake, &mut again, 12_500);
            assert_eq!(again, all[from as usize..], "from {from}");
        }
        let mut long = Intake::new(2_500);
        let audio = vec![1.0; 3 * MOST_COPIED];
        long.append(&audio);
        long.finish();
        let mut pcm = Vec::new();
        let next = long.next(usize::MAX).expect("it has ended");
        long.take(next.samples, 0, &mut pcm).expect("an utterance");
        long.give_back(pcm);
        long.rewind(0);
        let mut again = Vec::new();
        long.take(next.samples, 0, &mut again).expect("an utterance");
        assert_eq!(again, [&audio[..], &[0.0; 2_500]].concat());
    }
}
