// SPDX-License-Identifier: MPL-2.0
//! What the element knows while it runs, and how events of the engine become things to push.

use super::{
    deadline::{Arrivals, Watch},
    input::Backlog,
    language::Tags,
    output::{Item, Output},
    places::{Moment, Places},
    settings::ToLoad,
    statistics::Statistics,
    text::{Format, Partial, Raw, RawToken, Text, TextWord},
    timeline::{SAMPLE_RATE, Timeline},
};
use parakeet_engine::{Engine, Error, Event, Mask, Stream, Unit, Units, Word, model::ModelConfig};
use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

/// Warnings about lost audio come at most this often.
const LOSS_INTERVAL: Duration = Duration::from_secs(1);

/// Nothing said for so long, in samples, is the end of what was said: what ends a sentence.
const LONG_PAUSE: u64 = SAMPLE_RATE as u64 * 3 / 2;

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

impl Model {
    /// The engine, once it is there.
    pub fn engine(&self) -> Option<&Arc<Engine>> {
        match self {
            Model::Ready(engine) => Some(engine),
            _ => None,
        }
    }
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
    Done(Opened),
}

/// A stream that was opened, and what becomes of its words.
pub struct Opened {
    pub stream: Arc<Stream>,
    /// Words that are not to be shown.
    pub mask: Option<Mask>,
}

/// Audio that was dropped and not yet reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Loss {
    /// Where the first dropped sample is.
    pub start: Moment,
    /// Number of dropped samples.
    pub samples: u64,
}

/// What waits for its turn behind recognised words.
enum Pending {
    /// Goes out once no word before this sample can come.
    Event { at: u64, event: gst::Event },
    /// The end of an utterance; goes when the engine has finished it.
    Finish { at: u64 },
    /// Nothing is heard between these running times in nanoseconds.
    Pause { from: u64, until: u64 },
}

/// Something to do for the task of the source pad, without the state locked. Times are running times in nanoseconds.
pub enum Action {
    /// Push an event that came from upstream.
    Event(gst::Event),
    /// Push a gap.
    Gap {
        /// Where it starts.
        start: u64,
        /// Where it ends.
        end: u64,
    },
    /// Push text.
    Text(Text),
    /// Tell about dropped audio.
    Lost(Loss),
    /// The model heard a speaker come to an end, here.
    EndOfUtterance { at: Option<Moment>, backchannel: bool },
    /// A hypothesis to tell the application.
    Partial(Partial),
    /// A word with its tokens to tell the application.
    Raw(Raw),
    /// The recogniser failed and went on, here, after so long; tell why.
    Recovered { at: Option<Moment>, gap: Duration, error: Error },
    /// The recogniser is dead; tell why.
    Fail(Error),
}

/// State of the element.
pub struct State {
    pub model: Model,
    /// Number of the last attempt to load; an older attempt that ends later is ignored.
    pub load: u64,
    /// Number of the last attempt to open a stream; the result of an older one is ignored.
    pub opening: u64,
    /// What was to be loaded in that attempt, and which engine was handed in for it.
    pub loaded_as: Option<(ToLoad, Option<usize>)>,
    /// What the model is; none if not known yet.
    pub config: Option<ModelConfig>,
    /// The clock runs.
    pub playing: bool,
    /// It ran since READY.
    pub played: bool,
    /// When the element's state changed last.
    pub changed: Option<Instant>,
    pub statistics: Statistics,
    /// The part that lasts while the pads are active.
    pub run: Run,
}

impl Default for State {
    fn default() -> Self {
        State {
            model: Model::default(),
            load: 0,
            opening: 0,
            loaded_as: None,
            config: None,
            playing: false,
            played: false,
            changed: None,
            statistics: Statistics::default(),
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
                        return Some(gap_of(gap));
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
    /// Errors on their way to the bus.
    pub raising: u32,
    /// The engine's stream, once it is opened for the first audio.
    pub stream: Option<Arc<Stream>>,
    pub opening: Opening,
    /// Whether upstream is live, once asked since the stream's start.
    pub live: Option<bool>,
    /// The last answer to that.
    pub was_live: Option<bool>,
    /// Least latency of upstream, in nanoseconds.
    pub upstream: u64,
    pub info: Option<gst_audio::AudioInfo>,
    pub segment: Option<gst::FormattedSegment<gst::ClockTime>>,
    pub timeline: Timeline,
    pub places: Places,
    /// When audio came in.
    pub arrivals: Arrivals,
    pub watch: Watch,
    pub backlog: Backlog,
    /// Whether a buffer without time stamp was already complained about.
    pub unplaced: bool,
    /// Whether samples that are no numbers were already complained about.
    pub invalid: bool,
    /// When many cuts were complained about.
    pub cuts_told: Option<Instant>,
    /// Samples before the engine's stream began: its clock starts there.
    pub offset: u64,
    pending: VecDeque<Pending>,
    /// No word that starts before this sample will come any more.
    progress: u64,
    /// Words until they are a unit of text.
    pub units: Units,
    /// Words that are not to be shown.
    pub mask: Option<Mask>,
    /// What buffers hold, as was agreed with downstream.
    pub format: Format,
    /// Tags of the stream.
    pub tags: Tags,
    /// Sample at which the last text ends, until that is known to be the end of what was said.
    said: Option<u64>,
    output: Output,
    loss: Option<Loss>,
    loss_told: Option<Instant>,
    /// The engine's stream failed.
    dead: bool,
    /// When audio came first that nothing was to recognise any more.
    pub refused_since: Option<Instant>,
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
            raising: old.raising,
            stream: old.stream.filter(|_| !old.dead),
            opening: old.opening,
            live: old.live,
            was_live: old.was_live,
            upstream: old.upstream,
            info: old.info,
            pending: events.collect(),
            units: old.units.emptied(),
            mask: old.mask,
            format: old.format,
            tags: old.tags,
            cuts_told: old.cuts_told,
            ..Run::default()
        };
    }

    /// Goes on after downstream took nothing for a while, with an engine's stream that was reset: what was being said is
    /// lost.
    pub fn resume(&mut self) {
        self.refused = None;
        self.timeline.end();
        let clock = self.timeline.clock();
        (self.offset, self.progress) = (clock, clock);
        self.units = self.units.emptied();
        self.backlog = Backlog::default();
        self.pending.retain(|pending| matches!(pending, Pending::Event { .. }));
        self.output.interrupted();
    }

    /// The first sample whose text is still to come, if any came in.
    pub fn awaited(&self) -> Option<u64> {
        match self.units.pending_start() {
            Some(start) => Some(self.offset + start),
            None => (self.progress < self.timeline.clock()).then_some(self.progress),
        }
    }

    /// Whether an utterance was ended that the engine has not finished.
    pub fn is_finishing(&self) -> bool {
        self.pending.iter().any(|pending| matches!(pending, Pending::Finish { .. }))
    }

    /// Whether anything waits behind recognised words.
    pub fn has_pending(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Gives out what can't wait any longer of the unit that is being put together; none if there is none.
    pub fn cut_unit(&mut self) -> Option<Vec<Action>> {
        let unit = self.units.cut()?;
        let next = self.units.pending_start().unwrap_or(unit.end);
        let actions = self.unit(&unit);
        self.progress = self.progress.max(self.offset + next);
        Some(actions)
    }

    /// Where what starts at `sample` is.
    pub fn start(&self, sample: u64) -> Option<Moment> {
        self.timeline.start(sample).map(|pts| self.places.start(sample, pts))
    }

    /// Where what ends at `sample` is.
    fn end_of(&self, sample: u64) -> Option<Moment> {
        self.timeline.end_of(sample).map(|pts| self.places.end(sample, pts))
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
    pub fn receive(&mut self, mut event: Event) -> Vec<Action> {
        if let (Some(mask), Event::Word(word) | Event::Partial(word)) = (&self.mask, &mut event) {
            mask.apply(word);
        }
        if let (Some(start), false) = (self.start(self.progress), matches!(event, Event::Failed { .. })) {
            self.output.begin(start.running);
        }
        match event {
            Event::Word(word) => {
                let units = self.units.word(word);
                self.place(units)
            }
            Event::EndOfUtterance { sample, backchannel } => {
                let unit = self.units.finish();
                let mut actions = self.place(unit);
                if !backchannel {
                    actions.extend(self.end_of_what_was_said());
                }
                let at = self.start(self.offset + sample);
                actions.push(Action::EndOfUtterance { at, backchannel });
                actions
            }
            Event::Language { code, .. } => {
                let tags = self.tags.hear(&code);
                tags.map(|tags| Action::Event(gst::event::Tag::new(tags))).into_iter().collect()
            }
            Event::Partial(word) => self.partial(&word).map(Action::Partial).into_iter().collect(),
            Event::Progress { sample } => {
                let unit = self.units.progress(sample);
                let mut actions = self.place(unit);
                let sample = self.units.pending_start().map_or(sample, |start| start.min(sample));
                self.progress = self.progress.max(self.offset + sample);
                if self.said.is_some_and(|end| self.progress >= end + LONG_PAUSE) {
                    actions.extend(self.end_of_what_was_said());
                }
                actions.extend(self.advance(false));
                actions
            }
            Event::Finished { sample } => {
                let unit = self.units.finish();
                let mut actions = self.place(unit);
                actions.extend(self.end_of_what_was_said());
                actions.extend(self.finished(self.offset + sample));
                actions
            }
            Event::Lost { start, samples } => self.lost(self.offset + start, samples).into_iter().collect(),
            Event::Recovered { sample, gap, error } => {
                vec![Action::Recovered { at: self.start(self.offset + sample), gap, error }]
            }
            Event::Failed { error, .. } => {
                self.dead = true;
                self.stream = None;
                vec![Action::Fail(error)]
            }
            _ => Vec::new(),
        }
    }

    /// The event by which transcribers say that the text before it stands for itself, as a paragraph does: captions begin a
    /// line after it. Once for all that was said.
    fn end_of_what_was_said(&mut self) -> Option<Action> {
        self.said.take()?;
        let structure = gst::Structure::new_empty("rstranscribe/final-transcript");
        Some(Action::Event(gst::event::CustomDownstream::new(structure)))
    }

    /// Notes dropped audio; gives back what is to be told now.
    pub fn lost(&mut self, start: u64, samples: u64) -> Option<Action> {
        self.output.interrupted();
        let start = self.start(start).unwrap_or(Moment { running: 0, stream: None });
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

    /// Lets an event go; a new stream may start a new timeline.
    fn release(&mut self, event: gst::Event) -> Action {
        if event.type_() == gst::EventType::StreamStart {
            self.output.may_start_anew();
        }
        Action::Event(event)
    }

    /// The text that is not pushed yet, with the word that is being said.
    fn partial(&self, word: &Word) -> Option<Partial> {
        let pending = self.units.partial();
        let start = self.start(self.offset + pending.as_ref().map_or(word.start, |unit| unit.start))?;
        let (mut text, mut words) = match &pending {
            Some(unit) => (unit.text.clone(), self.words(&unit.words)),
            None => Default::default(),
        };
        let stable = text.len();
        if !(text.is_empty() || word.joined || word.text.is_empty()) {
            text.push(' ');
        }
        text.push_str(&word.text);
        words.extend(self.words(std::slice::from_ref(word)));
        let text = Text {
            text,
            start: start.running,
            end: words.last().map_or(start.running, |word| word.end),
            stream: start.stream,
            discont: false,
            arrived: None,
            words,
            language: self.tags.language(),
        };
        Some(Partial { text, stable })
    }

    /// A word with its tokens where the model emits them.
    pub fn raw(&self, word: &Word) -> Raw {
        let running = |sample| self.start(self.offset + sample).map_or(0, |at| at.running);
        let tokens = word.tokens.iter().map(|timed| RawToken {
            token: timed.token,
            start: running(timed.start),
            end: running(timed.end),
        });
        Raw { text: word.text.clone(), start: self.start(self.offset + word.start), tokens: tokens.collect() }
    }

    /// Words with their running times; those without text are none.
    fn words(&self, words: &[Word]) -> Vec<TextWord> {
        let with_text = words.iter().filter(|word| !word.text.is_empty());
        let placed = with_text.filter_map(|word| {
            let (start, end) = (self.start(self.offset + word.start)?, self.end_of(self.offset + word.end)?);
            Some(TextWord::new(word, start.running, end.running))
        });
        placed.collect()
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
        self.said = Some(end);
        let mut actions = Vec::new();
        while let Some(Pending::Event { at, .. }) = self.pending.front()
            && *at <= self.progress
            && let Some(Pending::Event { event, .. }) = self.pending.pop_front()
        {
            actions.push(self.release(event));
        }
        if let (Some(at), Some(until)) = (self.start(start), self.end_of(end)) {
            let (stream, arrived) = (at.stream, self.arrivals.of(start));
            let (words, language) = (self.words(&unit.words), self.tags.language());
            let items = self.output.word(&unit.text, at.running, until.running);
            actions.extend(items.map(|item| match item {
                Item::Word { text, start, end, discont } => {
                    let mut words = words.clone();
                    words.iter_mut().for_each(|word| word.keep_within(start, end));
                    let language = language.clone();
                    Action::Text(Text { text, start, end, stream, discont, arrived, words, language })
                }
                gap => gap_of(gap),
            }));
        }
        actions
    }

    fn advance(&mut self, last: bool) -> Vec<Action> {
        self.timeline.forget_before(self.progress);
        self.places.forget_before(self.progress);
        self.arrivals.forget_before(self.progress);
        let to = self.end_of(self.progress);
        to.and_then(|to| self.output.advance(to.running, last)).map(gap_of).into_iter().collect()
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

/// What to do with an item that is no word.
fn gap_of(item: Item) -> Action {
    let (Item::Gap { start, end } | Item::Word { start, end, .. }) = item;
    Action::Gap { start, end }
}
