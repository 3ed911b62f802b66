// SPDX-License-Identifier: MPL-2.0
//! What the element knows while it runs, and how events of the engine become things to push.

use super::{
    input::Backlog,
    output::{Item, Output},
    timeline::Timeline,
};
use parakeet_engine::{Engine, Error, Event, Stream, Unit, Units, Word, model::ModelConfig};
use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

/// Warnings about lost audio come at most this often.
const LOSS_INTERVAL: Duration = Duration::from_secs(1);

/// The model, from READY to NULL.
#[derive(Default)]
pub enum Model {
    /// Below READY.
    #[default]
    Unloaded,
    /// A thread is loading it.
    Loading,
    /// Ready to run.
    Ready(Arc<Engine>),
    /// Loading failed; the error was posted.
    Failed,
}

/// The engine's stream before it is in use: it is opened on a thread of its own, since that may wait for the device.
#[derive(Default)]
pub enum Opening {
    /// Not asked for, or in use.
    #[default]
    None,
    /// The attempt of this number is under way.
    UnderWay(u64),
    /// Ready to be taken into use.
    Done(Arc<Stream>),
}

/// Audio that was dropped and not yet reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Loss {
    /// Time stamp of the first dropped sample in nanoseconds.
    pub start: u64,
    /// Number of dropped samples.
    pub samples: u64,
}

/// What waits for its turn behind recognised words.
enum Pending {
    /// Goes out once no word before this sample can come.
    Event { at: u64, event: gst::Event },
    /// The end of an utterance; goes when the engine has finished it.
    Finish { at: u64 },
    /// Nothing is heard between these time stamps in nanoseconds.
    Pause { from: u64, until: u64 },
}

/// Something to do for the task of the source pad, without the state locked.
pub enum Action {
    /// Push an event that came from upstream.
    Event(gst::Event),
    /// Push a word or a gap.
    Item(Item),
    /// Tell about dropped audio.
    Lost(Loss),
    /// The model heard a speaker come to an end, here in nanoseconds.
    EndOfUtterance { at: Option<u64>, backchannel: bool },
    /// A hypothesis to tell the application.
    Partial(Partial),
    /// The recogniser is dead; tell why.
    Fail(Error),
}

/// Text that later words may change.
#[derive(Debug)]
pub struct Partial {
    /// Text since the last that was pushed.
    pub text: String,
    /// Where it starts, in nanoseconds on the source pad's timeline.
    pub start: Option<u64>,
}

/// State of the element.
pub struct State {
    pub model: Model,
    /// Number of the last attempt to load; an older attempt that ends later is ignored.
    pub load: u64,
    /// Number of the last attempt to open a stream; the result of an older one is ignored.
    pub opening: u64,
    /// What the model is; none if not known yet.
    pub config: Option<ModelConfig>,
    /// Greatest delay of a word in a live pipeline.
    pub max_delay_ms: u32,
    /// The part that lasts while the pads are active.
    pub run: Run,
}

impl Default for State {
    fn default() -> Self {
        State {
            model: Model::default(),
            load: 0,
            opening: 0,
            config: None,
            max_delay_ms: 0,
            run: Run::stopped(),
        }
    }
}

impl State {
    /// Whether audio may come in and text may go out.
    pub fn check(&self) -> Result<(), gst::FlowError> {
        match self.run.refused {
            _ if self.run.stopping => Err(gst::FlowError::Flushing),
            Some(error) => Err(error),
            None if self.is_dead() => Err(gst::FlowError::Error),
            None => Ok(()),
        }
    }

    /// Whether nothing will be recognised any more.
    pub fn is_dead(&self) -> bool {
        self.run.dead || matches!(self.model, Model::Failed)
    }

    /// Takes what may be pushed now.
    pub fn next_pending(&mut self) -> Option<Action> {
        loop {
            let dead = self.is_dead();
            let run = &mut self.run;
            match run.pending.front()? {
                Pending::Finish { .. } if !dead => return None,
                Pending::Event { at, .. } if *at > run.progress && !dead => return None,
                _ => {}
            }
            match run.pending.pop_front()? {
                Pending::Finish { .. } => {}
                Pending::Event { event, .. } => return Some(run.release(event)),
                Pending::Pause { from, until } => {
                    run.output.begin(from);
                    run.output.interrupted();
                    if let Some(gap) = run.output.advance(until, true) {
                        return Some(Action::Item(gap));
                    }
                }
            }
        }
    }
}

/// State of the streams through the pads, gone with a flush but for what [`flush`](Self::flush) keeps.
#[derive(Default)]
pub struct Run {
    /// A flush or a state change is on its way: nothing may block.
    pub stopping: bool,
    /// Why downstream takes nothing more.
    pub refused: Option<gst::FlowError>,
    /// The engine's stream, once it is opened for the first audio.
    pub stream: Option<Arc<Stream>>,
    pub opening: Opening,
    /// Whether upstream is live, once asked.
    pub live: Option<bool>,
    pub info: Option<gst_audio::AudioInfo>,
    pub segment: Option<gst::FormattedSegment<gst::ClockTime>>,
    /// The segment that words are pushed in.
    pub src_segment: Option<gst::FormattedSegment<gst::ClockTime>>,
    pub timeline: Timeline,
    pub backlog: Backlog,
    /// Whether a buffer without time stamp was already complained about.
    pub unplaced: bool,
    /// Whether samples that are no numbers were already complained about.
    pub invalid: bool,
    /// Samples dropped before the engine's stream began: its clock starts there.
    pub offset: u64,
    pending: VecDeque<Pending>,
    /// No word that starts before this sample will come any more.
    progress: u64,
    /// Words until they are a unit of text.
    pub units: Units,
    output: Output,
    loss: Option<Loss>,
    loss_told: Option<Instant>,
    /// The engine's stream failed.
    dead: bool,
}

impl Run {
    /// State while the pads are not active.
    pub fn stopped() -> Self {
        Run { stopping: true, ..Run::default() }
    }

    /// Forgets the streams. Keeps what a flush does not change, and sticky events that were not pushed yet.
    pub fn flush(&mut self) {
        let old = std::mem::take(self);
        let is_kept = |event: &gst::Event| {
            event.is_sticky() && !matches!(event.type_(), gst::EventType::Segment | gst::EventType::Eos)
        };
        let events = old.pending.into_iter().filter_map(|pending| match pending {
            Pending::Event { event, .. } if is_kept(&event) => Some(Pending::Event { at: 0, event }),
            _ => None,
        });
        *self = Run {
            stopping: old.stopping,
            stream: old.stream.filter(|_| !old.dead),
            opening: old.opening,
            live: old.live,
            info: old.info,
            pending: events.collect(),
            units: old.units.emptied(),
            ..Run::default()
        };
    }

    /// Queues an event behind all that is recognised from the audio so far.
    pub fn enqueue(&mut self, event: gst::Event) {
        self.pending.push_back(Pending::Event { at: self.timeline.clock(), event });
    }

    /// Queues an event that could not be pushed again.
    pub fn put_back(&mut self, event: gst::Event) {
        self.pending.push_front(Pending::Event { at: 0, event });
    }

    /// Notes that the engine is about to be told to finish an utterance, at this sample.
    pub fn expect_finish(&mut self, at: u64) {
        self.pending.push_back(Pending::Finish { at });
    }

    /// Notes a stretch without audio.
    pub fn pause(&mut self, from: u64, until: u64) {
        self.pending.push_back(Pending::Pause { from, until });
    }

    /// Whether the end of the stream waits for its turn.
    pub fn is_ending(&self) -> bool {
        let is_eos = |event: &gst::Event| event.type_() == gst::EventType::Eos;
        self.pending.iter().any(|pending| matches!(pending, Pending::Event { event, .. } if is_eos(event)))
    }

    /// Turns an event of the engine into what is to be pushed and told.
    pub fn receive(&mut self, event: Event) -> Vec<Action> {
        if let (Some(start), false) =
            (self.timeline.start(self.progress), matches!(event, Event::Failed { .. }))
        {
            self.output.begin(start);
        }
        match event {
            Event::Word(word) => {
                let units = self.units.word(word);
                self.place(units)
            }
            Event::EndOfUtterance { sample, backchannel } => {
                let unit = self.units.finish();
                let mut actions = self.place(unit);
                let at = self.timeline.start(self.offset + sample);
                actions.push(Action::EndOfUtterance { at, backchannel });
                actions
            }
            Event::Partial(word) => vec![Action::Partial(self.partial(word))],
            Event::Progress { sample } => {
                let unit = self.units.progress(sample);
                let mut actions = self.place(unit);
                let sample = self.units.pending_start().map_or(sample, |start| start.min(sample));
                self.progress = self.progress.max(self.offset + sample);
                actions.extend(self.advance(false));
                actions
            }
            Event::Finished { sample } => {
                let unit = self.units.finish();
                let mut actions = self.place(unit);
                actions.extend(self.finished(self.offset + sample));
                actions
            }
            Event::Lost { start, samples } => self.lost(self.offset + start, samples).into_iter().collect(),
            Event::Failed { error, .. } => {
                self.dead = true;
                self.stream = None;
                vec![Action::Fail(error)]
            }
            _ => Vec::new(),
        }
    }

    /// Notes dropped audio; gives back what is to be told now.
    pub fn lost(&mut self, start: u64, samples: u64) -> Option<Action> {
        self.output.interrupted();
        let start = self.timeline.start(start).unwrap_or(0);
        self.loss.get_or_insert(Loss { start, samples: 0 }).samples += samples;
        if self.loss_told.is_some_and(|told| told.elapsed() < LOSS_INTERVAL) {
            return None;
        }
        self.loss_told = Some(Instant::now());
        self.loss.take().map(Action::Lost)
    }

    /// Nothing will be recognised any more.
    pub fn fail(&mut self) {
        self.dead = true;
    }

    /// Lets an event go; a new stream and a segment with other parameters start a new timeline.
    fn release(&mut self, event: gst::Event) -> Action {
        match event.view() {
            gst::EventView::StreamStart(_) => self.src_segment = None,
            gst::EventView::Segment(segment) => {
                let segment = segment.segment().clone().downcast().ok();
                if self.src_segment != segment {
                    self.output = Output::default();
                }
                self.src_segment = segment;
            }
            _ => {}
        }
        Action::Event(event)
    }

    /// The text that is not pushed yet, with the word that is being said.
    fn partial(&self, word: Word) -> Partial {
        let start = self.units.pending_start().unwrap_or(word.start);
        let mut units = self.units.clone();
        // What a new word completes is pushed only with the whole word.
        let complete = units.word(word);
        let mut text = String::new();
        for unit in complete.into_iter().chain(units.finish()) {
            let joined = unit.words.first().is_some_and(|first| first.joined);
            if !(text.is_empty() || joined || unit.text.is_empty()) {
                text.push(' ');
            }
            text.push_str(&unit.text);
        }
        Partial { text, start: self.timeline.start(self.offset + start) }
    }

    fn place(&mut self, units: impl IntoIterator<Item = Unit>) -> Vec<Action> {
        units.into_iter().flat_map(|unit| self.unit(&unit)).collect()
    }

    fn unit(&mut self, unit: &Unit) -> Vec<Action> {
        // A duration may reach beyond the utterance's last sample, where time may jump.
        let limit = self.pending.iter().find_map(|pending| match pending {
            Pending::Finish { at } => Some(*at),
            _ => None,
        });
        let limit = limit.unwrap_or(u64::MAX);
        let start = (self.offset + unit.start).min(limit.saturating_sub(1));
        let end = (self.offset + unit.end).min(limit);
        // Words come in order: nothing before this one will come any more.
        self.progress = self.progress.max(start);
        let mut actions = Vec::new();
        while let Some(Pending::Event { at, .. }) = self.pending.front()
            && *at <= self.progress
            && let Some(Pending::Event { event, .. }) = self.pending.pop_front()
        {
            actions.push(self.release(event));
        }
        if let (Some(start), Some(end)) = (self.timeline.start(start), self.timeline.end_of(end)) {
            actions.extend(self.output.word(&unit.text, start, end).map(Action::Item));
        }
        actions
    }

    fn advance(&mut self, last: bool) -> Vec<Action> {
        self.timeline.forget_before(self.progress);
        let to = self.timeline.end_of(self.progress);
        to.and_then(|to| self.output.advance(to, last)).map(Action::Item).into_iter().collect()
    }

    fn finished(&mut self, sample: u64) -> Vec<Action> {
        self.progress = self.progress.max(sample);
        let mut actions = self.advance(true);
        actions.extend(self.loss.take().map(Action::Lost));
        self.output.interrupted();
        while let Some(pending) = self.pending.pop_front() {
            match pending {
                Pending::Event { event, .. } => actions.push(self.release(event)),
                Pending::Finish { at } => {
                    self.progress = self.progress.max(at);
                    break;
                }
                Pending::Pause { .. } => {}
            }
        }
        actions
    }
}
