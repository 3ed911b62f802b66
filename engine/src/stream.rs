// SPDX-License-Identifier: MPL-2.0
//! One live stream: PCM into a bounded queue, words out. The batcher's thread does the work in between.

use std::any::Any;
use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::backend::{Decoded, Slot, StepSizes};
use crate::error::Error;
use crate::features::FRAME_SAMPLES;
use crate::gate::{Gate, Part};
use crate::model::Vocabulary;
use crate::model::vocabulary::Signal;
use crate::options::{Overflow, StreamOptions};
use crate::queue::Queue;
use crate::words::{FrameWord, TimedToken, WordBuilder};

/// Events that may wait to be taken; with more the stream is not stepped until some are.
const MOST_EVENTS: usize = 256;

/// What a stream has to say, in the order of its audio.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event {
    /// A word that won't change any more.
    Word(Word),
    /// A word that is not complete: what it would be if the utterance ended here. With
    /// [`StreamOptions::partials`], after each chunk that leaves one.
    Partial(Word),
    /// No word that starts before this sample will come any more.
    Progress {
        /// On the stream's sample clock.
        sample: u64,
    },
    /// The model says that the speaker is done, in a word of its own (`<EOU>`). Words before it came before.
    EndOfUtterance {
        /// Where, on the stream's sample clock.
        sample: u64,
        /// Only a short answer is done, the other speaker goes on (`<EOB>`).
        backchannel: bool,
    },
    /// The model says which language it hears from here on.
    Language {
        /// Where, on the stream's sample clock.
        sample: u64,
        /// Such as `en-US`.
        code: String,
    },
    /// Audio was dropped because the queue was full.
    Lost {
        /// First sample that was dropped.
        start: u64,
        /// How many.
        samples: u64,
    },
    /// An utterance that [`Stream::finish`] ended is complete; one for each call.
    Finished {
        /// The sample after its last.
        sample: u64,
    },
    /// The stream is dead.
    Failed(Error),
}

/// A word with its place on the stream's sample clock: samples at 16 kHz pushed since creation or reset.
#[derive(Clone, Debug, PartialEq)]
pub struct Word {
    /// The word with the punctuation that follows it; may be empty if its pieces have no text.
    pub text: String,
    /// Sample at which it starts, to an encoder frame.
    pub start: u64,
    /// Sample at which it ends: no later than the next word starts, after an encoder frame at least unless that or the
    /// end of the audio comes first.
    pub end: u64,
    /// Least confidence of its tokens.
    pub confidence: f32,
    /// How far the stream had heard when the word was given out: the sample after the last of that chunk.
    pub heard: u64,
    /// It goes on, without a space, a word that a pause had ended: a late piece or mark of punctuation.
    pub joined: bool,
    /// Its tokens; they start and end on the stream's sample clock, their frames count from the start of the utterance.
    pub tokens: Vec<TimedToken>,
}

/// Why audio was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PushError {
    /// [`Stream::reset`] came while the call waited; what it had not queued yet is gone too.
    #[error("the stream was reset")]
    Reset,
    /// The stream has failed.
    #[error("the stream has failed")]
    Closed,
}

/// A live stream; dropping it frees its place in the backend.
pub struct Stream {
    shared: Arc<Shared>,
    queue: Arc<Queue<Arc<Shared>>>,
    /// Keeps the engine and with it the batcher's thread alive.
    _engine: Arc<dyn Any + Send + Sync>,
}

/// What a stream and the batcher share.
pub(crate) struct Shared {
    pub(crate) slot: Slot,
    vocabulary: Arc<Vocabulary>,
    sizes: StepSizes,
    capacity: usize,
    overflow: Overflow,
    partials: bool,
    inner: Mutex<Inner>,
    /// Signalled when room appears in the queue.
    room: Condvar,
    /// Signalled when an event appears.
    news: Condvar,
}

#[derive(Default)]
struct Inner {
    /// Where silence is skipped.
    gate: Option<Gate>,
    /// The first one is being decoded.
    utterances: VecDeque<Utterance>,
    queued: usize,
    /// Samples pushed since creation or reset, but for those that the gate holds.
    clock: u64,
    /// When the next chunk was complete.
    due_since: Option<Instant>,
    decoding: Decoding,
    events: VecDeque<Event>,
    interrupted: bool,
    /// Counts resets, so that a step under way can't report into what comes after.
    generation: u64,
    slot_is_stale: bool,
    /// In the batcher's queue or in a step.
    scheduled: bool,
    failed: bool,
    dropped: bool,
}

/// Audio without a break.
#[derive(Default)]
struct Utterance {
    /// Sample clock of its first sample.
    base: u64,
    pcm: VecDeque<f32>,
    /// Samples dropped before it.
    lost: u64,
    /// No more samples will come.
    ended: bool,
    /// [`Stream::finish`] ended it, rather than a loss or a pause.
    finished: bool,
    /// It is silence that nobody decodes.
    silent: bool,
}

/// Where the first utterance stands.
#[derive(Default)]
struct Decoding {
    chunks: u64,
    frames: u64,
    samples: u64,
    words: WordBuilder,
}

/// The next step of a stream, taken out of it.
pub(crate) struct Work {
    pub(crate) pcm: Vec<f32>,
    pub(crate) end: bool,
    pub(crate) reset_first: bool,
    generation: u64,
}

/// What the batcher finds when it visits a stream.
pub(crate) enum Visit {
    /// A chunk to run.
    Work(Work),
    /// Nothing to do now.
    Idle,
    /// The stream is gone: its slot can be closed.
    Gone,
}

impl Stream {
    pub(crate) fn new(
        engine: Arc<dyn Any + Send + Sync>,
        shared: Arc<Shared>,
        queue: Arc<Queue<Arc<Shared>>>,
    ) -> Self {
        Self { shared, queue, _engine: engine }
    }

    /// Queues `pcm`, 16 kHz mono in [-1, 1]; samples that aren't finite count as 0. With [`Overflow::Block`] this waits
    /// while the queue is full.
    pub fn push(&self, pcm: &[f32]) -> Result<(), PushError> {
        let mut rest = pcm;
        let mut inner = self.shared.lock();
        let generation = inner.generation;
        while !rest.is_empty() {
            if inner.failed {
                return Err(PushError::Closed);
            }
            if inner.generation != generation {
                return Err(PushError::Reset);
            }
            let mut room = self.shared.capacity - inner.queued.min(self.shared.capacity);
            if room == 0 {
                match self.shared.overflow {
                    Overflow::Block => {
                        inner = self.shared.room.wait(inner).unwrap_or_else(PoisonError::into_inner);
                        continue;
                    }
                    Overflow::DropOldest => room = inner.drop_oldest(self.shared.capacity / 4),
                }
            }
            let (now, later) = rest.split_at(room.min(rest.len()));
            self.shared.take(&mut inner, now);
            rest = later;
            self.shared.schedule(&mut inner, &self.queue);
        }
        Ok(())
    }

    /// Ends an utterance: what is queued is decoded to its last frame, then [`Event::Finished`] comes. Audio pushed
    /// after this begins a new utterance.
    pub fn finish(&self) {
        let mut inner = self.shared.lock();
        if let Some(mut gate) = inner.gate.take() {
            gate.finish(|part| self.shared.append(&mut inner, part));
            inner.gate = Some(gate);
        }
        let base = inner.clock;
        match inner.utterances.back_mut() {
            Some(last) if !last.ended => (last.ended, last.finished) = (true, true),
            _ => inner.utterances.push_back(Utterance {
                base,
                ended: true,
                finished: true,
                ..Default::default()
            }),
        }
        self.shared.schedule(&mut inner, &self.queue);
    }

    /// Forgets everything queued, and everything recognised but not taken; the sample clock starts at 0 again.
    pub fn reset(&self) {
        let mut inner = self.shared.lock();
        *inner = Inner {
            gate: inner.gate.as_ref().map(|_| Gate::default()),
            generation: inner.generation + 1,
            slot_is_stale: true,
            scheduled: inner.scheduled,
            failed: inner.failed,
            ..Inner::default()
        };
        self.shared.room.notify_all();
    }

    /// The next event; waits for one. `None` if [`Stream::interrupt`] came, or after [`Event::Failed`].
    pub fn next(&self) -> Option<Event> {
        let mut inner = self.shared.lock();
        loop {
            if std::mem::take(&mut inner.interrupted) {
                return None;
            }
            if let Some(event) = inner.events.pop_front() {
                self.shared.schedule(&mut inner, &self.queue);
                return Some(event);
            }
            if inner.failed {
                return None;
            }
            inner = self.shared.news.wait(inner).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Makes the current or the next call of [`Stream::next`] return `None`, once.
    pub fn interrupt(&self) {
        self.shared.lock().interrupted = true;
        self.shared.news.notify_all();
    }

    /// Samples from the start of an encoder frame to the end of the chunk that decodes it, at most.
    pub fn latency_samples(&self) -> u64 {
        self.shared.sizes.first as u64
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let mut inner = self.shared.lock();
        inner.dropped = true;
        if !inner.scheduled {
            inner.scheduled = true;
            self.queue.add(Instant::now(), self.shared.clone());
        }
    }
}

impl Shared {
    pub(crate) fn new(
        slot: Slot,
        vocabulary: Arc<Vocabulary>,
        sizes: StepSizes,
        options: &StreamOptions,
    ) -> Self {
        Self {
            slot,
            vocabulary,
            sizes,
            capacity: options.queue_samples.max(sizes.first).max(sizes.later),
            overflow: options.overflow,
            partials: options.partials,
            inner: Mutex::new(Inner { gate: options.skip_silence.then(Gate::default), ..Inner::default() }),
            room: Condvar::new(),
            news: Condvar::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes samples in, through the gate if there is one.
    fn take(&self, inner: &mut Inner, pcm: &[f32]) {
        match inner.gate.take() {
            Some(mut gate) => {
                gate.push(pcm, |part| self.append(inner, part));
                inner.gate = Some(gate);
            }
            None => self.append(inner, Part::Speech { start: inner.clock, pcm }),
        }
    }

    /// Queues speech and notes silence, which ends the utterance before it.
    fn append(&self, inner: &mut Inner, part: Part<'_>) {
        match part {
            Part::Speech { pcm, .. } => inner.append(pcm),
            Part::Silence { samples, .. } => {
                let base = inner.clock;
                inner.clock += samples;
                let sample = inner.clock;
                match inner.utterances.back_mut() {
                    None => inner.report(Event::Progress { sample }, &self.news),
                    Some(last) if last.silent => {}
                    Some(last) => {
                        last.ended = true;
                        inner.utterances.push_back(Utterance {
                            base,
                            ended: true,
                            silent: true,
                            ..Default::default()
                        });
                    }
                }
            }
        }
    }

    /// Puts the stream into the batcher's queue if it can be stepped and isn't there.
    fn schedule(self: &Arc<Self>, inner: &mut Inner, queue: &Queue<Arc<Self>>) {
        if !inner.scheduled && inner.ready(self.sizes) {
            inner.scheduled = true;
            let due_since = *inner.due_since.get_or_insert_with(Instant::now);
            queue.add(due_since, self.clone());
        }
    }

    /// Takes the next chunk out of the queue.
    pub(crate) fn visit(&self) -> Visit {
        let mut inner = self.lock();
        if inner.dropped {
            return Visit::Gone;
        }
        if !inner.ready(self.sizes) {
            inner.scheduled = false;
            return Visit::Idle;
        }
        let generation = inner.generation;
        let wanted = self.sizes.of(inner.decoding.chunks);
        let reset_first = std::mem::take(&mut inner.slot_is_stale);
        inner.due_since = None;
        let Some(utterance) = inner.utterances.front_mut() else {
            inner.scheduled = false;
            return Visit::Idle;
        };
        let pcm: Vec<f32> = utterance.pcm.drain(..wanted.min(utterance.pcm.len())).collect();
        let end = utterance.ended && utterance.pcm.is_empty();
        let lost = std::mem::take(&mut utterance.lost);
        let start = utterance.base - lost;
        if lost > 0 {
            inner.report(Event::Lost { start, samples: lost }, &self.news);
        }
        inner.queued -= pcm.len();
        inner.decoding.chunks += 1;
        inner.decoding.samples += pcm.len() as u64;
        self.room.notify_all();
        Visit::Work(Work { pcm, end, reset_first, generation })
    }

    /// Turns the result of a step into events and queues the stream again if another chunk is complete.
    pub(crate) fn complete(
        self: &Arc<Self>,
        work: &Work,
        result: Result<Decoded, Error>,
        queue: &Queue<Arc<Self>>,
    ) {
        let mut inner = self.lock();
        inner.scheduled = false;
        if inner.dropped {
            inner.scheduled = true;
            return queue.add(Instant::now(), self.clone());
        }
        if inner.generation == work.generation {
            match result {
                Ok(decoded) => self.hand_out(&mut inner, work.end, decoded),
                Err(error) => {
                    inner.failed = true;
                    inner.utterances.clear();
                    inner.report(Event::Failed(error), &self.news);
                    self.room.notify_all();
                }
            }
        }
        self.schedule(&mut inner, queue);
    }

    fn hand_out(&self, inner: &mut Inner, end: bool, decoded: Decoded) {
        let Inner { decoding, utterances, .. } = &mut *inner;
        let base = utterances.front().map_or(0, |utterance| utterance.base);
        let done = base + decoding.samples;
        let word = |word: FrameWord| Event::Word(word_at(word, base, done));
        let mut said = Vec::new();
        for token in decoded.tokens {
            match self.vocabulary.signal(token.id) {
                None => said.extend(decoding.words.push(&self.vocabulary, token).map(word)),
                Some(signal) => {
                    let sample = (base + token.frame * FRAME_SAMPLES).min(done);
                    said.extend(decoding.words.finish(&self.vocabulary).map(word));
                    said.push(match signal {
                        Signal::EndOfUtterance => Event::EndOfUtterance { sample, backchannel: false },
                        Signal::EndOfBackchannel => Event::EndOfUtterance { sample, backchannel: true },
                        Signal::Language(code) => Event::Language { sample, code: code.clone() },
                    });
                }
            }
        }
        decoding.frames += decoded.frames as u64;
        said.extend(decoding.words.advance(&self.vocabulary, decoding.frames).map(word));
        if end {
            said.extend(decoding.words.finish(&self.vocabulary).map(word));
        }
        let horizon = decoding.words.horizon(decoding.frames) * FRAME_SAMPLES;
        let partial = if self.partials { decoding.words.partial(&self.vocabulary) } else { None };
        for event in said {
            inner.report(event, &self.news);
        }
        if end {
            inner.report(Event::Progress { sample: done }, &self.news);
            inner.decoding = Decoding::default();
            inner.slot_is_stale = true;
            if inner.utterances.pop_front().is_some_and(|utterance| utterance.finished) {
                inner.report(Event::Finished { sample: done }, &self.news);
            }
            if inner.utterances.front().is_some_and(|next| next.silent) {
                inner.utterances.pop_front();
                let sample = inner.utterances.front().map_or(inner.clock, |next| next.base - next.lost);
                inner.report(Event::Progress { sample }, &self.news);
            }
        } else {
            inner.report(Event::Progress { sample: done.min(base + horizon) }, &self.news);
            if let Some(word) = partial {
                inner.report(Event::Partial(word_at(word, base, done)), &self.news);
            }
        }
    }
}

/// `word` on the sample clock of an utterance that starts at `base` and whose audio so far ends at `done`.
fn word_at(word: FrameWord, base: u64, done: u64) -> Word {
    let FrameWord { text, start, end, confidence, joined, tokens } = word;
    let at = |frame: u64| (base + frame * FRAME_SAMPLES).min(done);
    let tokens =
        tokens.into_iter().map(|timed| TimedToken { start: at(timed.start), end: at(timed.end), ..timed });
    Word { text, start: at(start), end: at(end), confidence, heard: done, joined, tokens: tokens.collect() }
}

impl Inner {
    /// Whether a chunk is complete and there is room for what it brings.
    fn ready(&self, sizes: StepSizes) -> bool {
        let wanted = sizes.of(self.decoding.chunks);
        let complete = |utterance: &Utterance| utterance.ended || utterance.pcm.len() >= wanted;
        !self.failed && self.events.len() < MOST_EVENTS && self.utterances.front().is_some_and(complete)
    }

    fn append(&mut self, pcm: &[f32]) {
        if self.utterances.back().is_none_or(|last| last.ended) {
            self.utterances.push_back(Utterance { base: self.clock, ..Default::default() });
        }
        if let Some(last) = self.utterances.back_mut() {
            last.pcm.extend(pcm.iter().map(|&x| if x.is_finite() { x } else { 0.0 }));
        }
        self.queued += pcm.len();
        self.clock += pcm.len() as u64;
    }

    /// Gives up the oldest `samples` samples that are queued; returns how many that were. The utterance that is being
    /// decoded ends where the loss begins, and another begins after it.
    fn drop_oldest(&mut self, samples: usize) -> usize {
        let wanted = samples.clamp(1, self.queued.max(1));
        let mut left = wanted;
        let mut index = 0;
        while left > 0 && index < self.utterances.len() {
            let utterance = &mut self.utterances[index];
            let count = left.min(utterance.pcm.len());
            left -= count;
            self.queued -= count;
            utterance.pcm.drain(..count);
            let started = index == 0 && self.decoding.chunks > 0;
            if count > 0 && started {
                let after = Utterance {
                    base: utterance.base + self.decoding.samples + count as u64,
                    pcm: std::mem::take(&mut utterance.pcm),
                    lost: count as u64,
                    ended: utterance.ended,
                    finished: utterance.finished,
                    silent: false,
                };
                (utterance.ended, utterance.finished) = (true, false);
                self.utterances.insert(1, after);
            } else {
                utterance.base += count as u64;
                utterance.lost += count as u64;
            }
            index += 1;
        }
        wanted - left
    }

    fn report(&mut self, event: Event, news: &Condvar) {
        if let (Event::Progress { .. }, Some(Event::Progress { .. })) = (&event, self.events.back()) {
            self.events.pop_back();
        }
        self.events.push_back(event);
        news.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::Token;

    #[test]
    fn words_end_with_the_audio_and_overlap_nowhere() {
        let token = Token {
            id: 0,
            frame: 3,
            duration: Some(4),
            log_prob: 0.0,
            confidence: 1.0,
            margin: 1.0,
            duration_margin: 1.0,
        };
        let tokens = vec![TimedToken { token, start: 3, end: 7 }];
        let place = |start, end| {
            let text = String::new();
            let word = FrameWord { text, start, end, confidence: 1.0, joined: false, tokens: tokens.clone() };
            let word = word_at(word, 1_000, 7_000);
            (word.start, word.end, word.tokens[0].start, word.tokens[0].end)
        };
        assert_eq!(place(1, 4), (2_280, 6_120, 4_840, 7_000));
        assert_eq!(place(4, 9), (6_120, 7_000, 4_840, 7_000));
        assert_eq!(place(9, 12), (7_000, 7_000, 4_840, 7_000), "a frame of padding");
    }
}
