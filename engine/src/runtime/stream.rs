// SPDX-License-Identifier: MPL-2.0
//! One live stream: PCM into a bounded queue, words out. The thread of its lane does the work in between.

mod steps;

use std::any::Any;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

use super::decoding::Decoding;
use super::event::{Event, PushError};
use super::fleet::Fleet;
use super::lane::{Lane, Wanted};
use super::options::{Overflow, StreamOptions};
use super::recovery::{History, Suspicion};
use super::turn::Turn;
use crate::audio::{FRAME_SAMPLES, Gate, Intake, Next, Part, SAMPLE_RATE};
use crate::backend::{Mode, Slot, StepSizes};
use crate::error::Error;
use crate::model::{ModelConfig, Vocabulary};
use crate::text::Clock;

/// Events that may wait to be taken; with more the stream is not stepped until some are.
const MOST_EVENTS: usize = 256;

/// A live stream; dropping it frees its place in the backend.
pub struct Stream {
    shared: Arc<Shared>,
    /// Keeps the engine and with it the threads of its lanes alive.
    _engine: Arc<dyn Any + Send + Sync>,
}

/// The lane of a stream.
pub(crate) type StreamLane = Lane<Arc<Shared>>;

/// What a stream and the thread of its lane share.
pub(crate) struct Shared {
    /// All lanes that it may be on.
    pub(super) fleet: Arc<Fleet>,
    vocabulary: Arc<Vocabulary>,
    /// What it has a backend do, wherever it is.
    pub(super) wanted: Wanted,
    sizes: StepSizes,
    /// What it keeps of the audio that was stepped.
    history: History,
    /// Frames that the encoder hears again in each step.
    again: usize,
    /// Its steps are signals by themselves.
    whole: bool,
    /// How long after a word begins the model emits it, in samples.
    delay: u64,
    /// What the stream adds to the load of its lane.
    pub(super) load: u64,
    capacity: AtomicUsize,
    blocks: AtomicBool,
    partials: bool,
    inner: Mutex<Inner>,
    /// Signalled when room appears in the queue.
    room: Condvar,
    /// Signalled when an event appears.
    news: Condvar,
}

/// A stream's place: while it has none it is on its way to one.
#[derive(Clone)]
pub(super) struct Place {
    pub(super) lane: Arc<StreamLane>,
    pub(super) slot: Slot,
}

#[derive(Default)]
pub(super) struct Inner {
    place: Option<Place>,
    /// After a step that failed, until it has succeeded.
    suspicion: Option<Suspicion>,
    /// How often it was tried again since it came further than it was.
    tries: u32,
    /// Where silence is skipped.
    gate: Option<Gate>,
    intake: Intake,
    decoding: Decoding,
    events: VecDeque<Event>,
    /// Since when the chunk that is queued waits, for the order among streams.
    due: Option<Instant>,
    turn: Turn,
    /// Before this no chunk is due, as long as the stream is ahead of it.
    pace: Option<Instant>,
    interrupted: bool,
    /// The first thread that used the stream, and whether another one did.
    user: Option<ThreadId>,
    shared: bool,
    /// Threads that wait for an event.
    readers: usize,
    /// Threads that wait for room.
    writers: usize,
    /// Counts resets, so that a step under way can't report into what comes after.
    generation: u64,
    slot_is_stale: bool,
    standing: Standing,
    failed: bool,
    dropped: bool,
}

/// Where a stream is to the lane.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Standing {
    /// Nowhere.
    #[default]
    Idle,
    /// In its queue.
    Queued,
    /// In a step.
    Stepping,
}

/// A chunk that was taken out of its stream, but for its samples.
pub(crate) struct Chunk {
    pub(crate) slot: Slot,
    pub(crate) end: bool,
    pub(crate) reset_first: bool,
    /// Most streams in a step with it.
    pub(crate) party: usize,
    generation: u64,
    /// The sample of its utterance that follows it.
    next: u64,
    /// Samples of the utterance that were stepped before it came.
    before: u64,
    /// When the chunk was complete.
    complete: Instant,
    /// How long the chunk lasts.
    lasts: Duration,
}

/// How long a chunk waited.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wait {
    /// From when it was complete to when its results were handed out.
    pub(crate) time: Duration,
    /// That is longer than it lasts.
    pub(crate) late: bool,
}

impl Stream {
    pub(crate) fn new(
        engine: Arc<dyn Any + Send + Sync>,
        (lane, slot): (Arc<StreamLane>, Slot),
        shared: Shared,
    ) -> Self {
        let shared = Arc::new(shared);
        shared.settle(lane, slot, None);
        Self { shared, _engine: engine }
    }

    /// Queues `pcm`, 16 kHz mono in [-1, 1]; samples that aren't finite count as 0. With [`Overflow::Block`] this waits
    /// while the queue is full, unless that would be for ever ([`PushError::Unread`]).
    pub fn push(&self, pcm: &[f32]) -> Result<(), PushError> {
        let mut rest = pcm;
        let mut inner = self.shared.used();
        let generation = inner.generation;
        while !rest.is_empty() {
            if inner.failed {
                return Err(PushError::Closed);
            }
            if inner.generation != generation {
                return Err(PushError::Reset);
            }
            let capacity = self.shared.capacity.load(Ordering::Relaxed);
            let mut room = capacity.saturating_sub(inner.intake.queued());
            if room == 0 {
                match self.shared.overflow() {
                    Overflow::Block if inner.is_unread() => {
                        return Err(PushError::Unread { taken: pcm.len() - rest.len() });
                    }
                    Overflow::Block => {
                        inner.writers += 1;
                        inner = self.shared.room.wait(inner).unwrap_or_else(PoisonError::into_inner);
                        inner.writers -= 1;
                        continue;
                    }
                    Overflow::DropOldest => {
                        room = inner.intake.drop_oldest(capacity / 4);
                        self.shared.count_dropped(&inner, room);
                    }
                }
            }
            let (now, later) = rest.split_at(room.min(rest.len()));
            self.shared.take(&mut inner, now);
            rest = later;
            self.shared.schedule(&mut inner);
        }
        Ok(())
    }

    /// Ends an utterance: what is queued is decoded to its last frame, then [`Event::Finished`] comes. Audio pushed
    /// after this begins a new utterance.
    pub fn finish(&self) {
        let mut inner = self.shared.used();
        if let Some(mut gate) = inner.gate.take() {
            gate.finish(|part| self.shared.append(&mut inner, part));
            inner.gate = Some(gate);
        }
        inner.intake.finish();
        self.shared.schedule(&mut inner);
    }

    /// Forgets everything queued, and everything recognised but not taken; the sample clock starts at 0 again.
    pub fn reset(&self) {
        let mut inner = self.shared.used();
        *inner = Inner {
            place: inner.place.take(),
            gate: inner.gate.as_ref().map(|_| Gate::default()),
            intake: inner.intake.fresh(),
            generation: inner.generation + 1,
            slot_is_stale: true,
            standing: inner.standing,
            failed: inner.failed,
            user: inner.user,
            shared: inner.shared,
            readers: inner.readers,
            writers: inner.writers,
            ..Inner::default()
        };
        self.shared.room.notify_all();
    }

    /// The next event; waits for one. `None` if [`Stream::interrupt`] came, or after [`Event::Failed`].
    pub fn next(&self) -> Option<Event> {
        let mut inner = self.shared.used();
        loop {
            if std::mem::take(&mut inner.interrupted) {
                return None;
            }
            if let Some(event) = inner.events.pop_front() {
                self.shared.schedule(&mut inner);
                return Some(event);
            }
            if inner.failed {
                return None;
            }
            inner.readers += 1;
            inner = self.shared.news.wait(inner).unwrap_or_else(PoisonError::into_inner);
            inner.readers -= 1;
        }
    }

    /// The next event if there is one; never waits, for those who read many streams on one thread. `None` says that
    /// there is none yet, and nothing more comes after [`Event::Failed`]. [`Stream::interrupt`] is not for this.
    pub fn try_next(&self) -> Option<Event> {
        let mut inner = self.shared.used();
        let event = inner.events.pop_front()?;
        self.shared.schedule(&mut inner);
        Some(event)
    }

    /// Makes the current or the next call of [`Stream::next`] return `None`, once.
    pub fn interrupt(&self) {
        self.shared.lock().interrupted = true;
        self.shared.news.notify_all();
    }

    /// Changes how much audio may be queued, and what happens to what doesn't fit.
    pub fn set_queue(&self, samples: usize, overflow: Overflow) {
        self.shared.capacity.store(capacity(samples, self.shared.sizes), Ordering::Relaxed);
        self.shared.blocks.store(overflow == Overflow::Block, Ordering::Relaxed);
        // Under the lock nobody is between looking and waiting.
        let _inner = self.shared.lock();
        self.shared.room.notify_all();
    }

    /// How long the next chunk has been waiting for its turn since it was complete, if it is.
    pub fn waiting(&self) -> Option<Duration> {
        let inner = self.shared.used();
        let next = inner.intake.next(self.shared.sizes.of(inner.decoding.chunks))?;
        Some(next.complete.elapsed())
    }

    /// Gives up the oldest `samples` samples that wait, as a full queue does: [`Event::Lost`] says what that was.
    pub fn drop_oldest(&self, samples: usize) {
        let mut inner = self.shared.used();
        let dropped = inner.intake.drop_oldest(samples);
        self.shared.count_dropped(&inner, dropped);
        if dropped > 0 {
            self.shared.lose_turn(&mut inner);
            if inner.standing == Standing::Queued && inner.intake.is_ending() {
                self.shared.queue(&mut inner);
            }
        }
        if let Some((start, samples)) = inner.intake.lost() {
            self.shared.report(&mut inner, Event::Lost { start, samples });
        }
        self.shared.schedule(&mut inner);
        if inner.writers > 0 {
            self.shared.room.notify_all();
        }
    }

    /// Gives out the word that is being said as far as it is decoded, for those who can't wait for its end: pieces that
    /// still come make another, [joined](crate::Word::joined) word.
    pub fn hurry(&self) {
        let mut inner = self.shared.used();
        let clock = self.shared.clock(&inner, inner.decoding.samples);
        let said = inner.decoding.hurry(&self.shared.vocabulary, clock);
        for event in said.into_iter().flatten() {
            self.shared.report(&mut inner, event);
        }
    }

    /// Samples from where a word is spoken to the end of the chunk that decodes it, at most, if the model's delay is right.
    pub fn latency_samples(&self) -> u64 {
        self.shared.sizes.first as u64 + self.shared.delay
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let mut inner = self.shared.lock();
        inner.dropped = true;
        // A visit that is still to come holds the rest for a while.
        inner.intake.clear();
        let events = std::mem::take(&mut inner.events);
        let place = inner.place.take();
        drop(inner);
        drop(events);
        if let Some(Place { lane, slot }) = place {
            lane.close(slot, self.shared.load);
        }
    }
}

impl Shared {
    pub(crate) fn new(
        fleet: Arc<Fleet>,
        vocabulary: Arc<Vocabulary>,
        (wanted, config): (Wanted, &ModelConfig),
        options: &StreamOptions,
    ) -> Self {
        let mode = wanted.mode;
        let sizes = mode.step_sizes(&config.encoder);
        Self {
            fleet,
            vocabulary,
            wanted,
            sizes,
            history: History::new(mode, &config.encoder),
            again: match mode {
                Mode::Buffered { window, .. } => window.left + window.right,
                Mode::Cached { .. } | Mode::Offline { .. } => 0,
            },
            whole: !matches!(mode, Mode::Cached { .. }),
            delay: config.emission_delay(),
            load: load(mode),
            capacity: AtomicUsize::new(capacity(options.queue_samples, sizes)),
            blocks: AtomicBool::new(options.overflow == Overflow::Block),
            partials: options.partials,
            inner: Mutex::new(Inner {
                gate: options.skip_silence.then(Gate::default),
                intake: Intake::new(options.tail_samples),
                ..Inner::default()
            }),
            room: Condvar::new(),
            news: Condvar::new(),
        }
    }

    /// Counts samples that the full queue gave up; of a stream on its way somewhere for any of the devices.
    fn count_dropped(&self, inner: &Inner, samples: usize) {
        match &inner.place {
            Some(place) => place.lane.count_dropped(samples),
            None => self.fleet.count_dropped(samples),
        }
    }

    /// Notes that audio was lost.
    fn lose_turn(&self, inner: &mut Inner) {
        if inner.turn.lost()
            && let Some(place) = &inner.place
        {
            place.lane.note_congestion();
        }
    }

    fn overflow(&self) -> Overflow {
        if self.blocks.load(Ordering::Relaxed) { Overflow::Block } else { Overflow::DropOldest }
    }

    /// Whether its steps are signals by themselves.
    pub(crate) fn is_whole(&self) -> bool {
        self.whole
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Locked for a caller of the stream.
    fn used(&self) -> MutexGuard<'_, Inner> {
        let mut inner = self.lock();
        let here = thread::current().id();
        inner.shared |= *inner.user.get_or_insert(here) != here;
        inner
    }

    /// Takes samples in, through the gate if there is one.
    fn take(&self, inner: &mut Inner, pcm: &[f32]) {
        match inner.gate.take() {
            Some(mut gate) => {
                gate.push(pcm, |part| self.append(inner, part));
                inner.gate = Some(gate);
            }
            None => inner.intake.append(pcm),
        }
    }

    /// Queues speech and notes silence.
    fn append(&self, inner: &mut Inner, part: Part<'_>) {
        match part {
            Part::Speech { pcm, .. } => inner.intake.append(pcm),
            Part::Silence { samples, .. } => {
                if let Some(sample) = inner.intake.silence(samples) {
                    self.report(inner, Event::Progress { sample });
                }
            }
        }
    }

    /// The clock of the utterance with its first `samples` samples heard.
    fn clock(&self, inner: &Inner, samples: u64) -> Clock {
        Clock { base: inner.intake.base(), done: inner.intake.heard(samples), delay: self.delay }
    }

    fn report(&self, inner: &mut Inner, event: Event) {
        if let (Event::Progress { .. }, Some(Event::Progress { .. })) = (&event, inner.events.back()) {
            inner.events.pop_back();
        }
        inner.events.push_back(event);
        if inner.readers > 0 {
            self.news.notify_all();
        }
        if inner.writers > 0 && inner.events.len() >= MOST_EVENTS {
            // Whoever waits for room has to see whether there will be any.
            self.room.notify_all();
        }
    }
}

/// Samples that may be queued: a chunk at least.
fn capacity(samples: usize, sizes: StepSizes) -> usize {
    samples.max(sizes.first).max(sizes.later)
}

/// What a stream of this kind adds to the load of a device: encoder frames in 1,000 s of audio, those of windows as often
/// as they are heard.
pub(crate) fn load(mode: Mode) -> u64 {
    let frames = 1_000 * u64::from(SAMPLE_RATE) / FRAME_SAMPLES;
    match mode {
        Mode::Buffered { window, .. } => frames * window.frames() as u64 / window.chunk.max(1) as u64,
        Mode::Cached { .. } | Mode::Offline { .. } => frames,
    }
}

impl Inner {
    /// The next chunk, if it is complete and there is room for what it brings.
    fn next(&self, sizes: StepSizes) -> Option<Next> {
        if self.failed || self.events.len() >= MOST_EVENTS {
            return None;
        }
        self.intake.next(sizes.of(self.decoding.chunks))
    }

    /// What is held against the stream after a step of `party` streams that failed.
    fn suspect(&self, error: &Error, party: usize, end: u64) -> Option<Suspicion> {
        Suspicion::of(error, party, end, (self.suspicion.as_ref(), self.tries))
    }

    /// Whether events keep the stream from being stepped, and there is no other thread to take them.
    fn is_unread(&self) -> bool {
        self.events.len() >= MOST_EVENTS && !self.shared
    }
}
