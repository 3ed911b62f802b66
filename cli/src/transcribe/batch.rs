// SPDX-License-Identifier: MPL-2.0
//! Many files at once, their results in files.

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use indicatif::ProgressBar;
use parakeet_engine::backend::Mode;

use super::hear::{Heard, Hearing, Source};
use super::inputs::{Input, result};
use super::results::Results;
use crate::audio::AudioFile;
use crate::failure::Failure;
use crate::formats::{Format, Writer, seconds};
use crate::terminal;

/// Files at once for each GPU: enough for steps of a size that it is fast with, few enough for the cores that decode.
const FILES_A_GPU: usize = 32;
/// Files at once on the CPU, whose products are faster for a few streams together.
const FILES_A_CPU: usize = 4;

/// What is done with each file.
pub struct Batch<'a> {
    pub hearing: &'a Hearing,
    pub formats: &'a [Format],
    /// Makes what writes a format.
    pub writer: &'a (dyn Fn(Format) -> Writer + Sync),
    /// What is there is done again.
    pub force: bool,
    /// Files at once.
    pub jobs: Option<NonZeroUsize>,
}

/// Results with their extensions.
type Texts = Vec<(&'static str, String)>;

/// What became of the files.
#[derive(Default)]
struct Counts {
    done: AtomicUsize,
    there: AtomicUsize,
    failed: AtomicUsize,
}

impl Batch<'_> {
    /// Transcribes what has no result yet. A file that fails is told on standard error and keeps nothing else from being done.
    pub fn run(&self, inputs: &[Input]) -> Result<(), Failure> {
        let bar = terminal::files_bar();
        if let Some(bar) = &bar {
            bar.set_length(inputs.iter().map(bytes).sum());
        }
        let (next, counts, results) = (AtomicUsize::new(0), Counts::default(), Results::default());
        let work = || {
            while let Some(input) = inputs.get(next.fetch_add(1, Ordering::Relaxed)) {
                self.take(input, &results, &counts, bar.as_ref());
                if let Some(bar) = &bar {
                    bar.set_message(format!("{} of {} files", counts.all(), inputs.len()));
                }
                // Nothing computes any more: each of the rest would fail with the same words.
                if !self.hearing.engine.works() {
                    next.store(inputs.len(), Ordering::Relaxed);
                }
            }
        };
        let jobs = self.jobs.map_or_else(|| self.usual_jobs(), |jobs| Ok(jobs.get()))?;
        thread::scope(|scope| (0..jobs.min(inputs.len())).for_each(|_| drop(scope.spawn(work))));
        if let Some(bar) = bar {
            bar.finish_and_clear();
        }
        let [done, there, failed] = [counts.done, counts.there, counts.failed].map(AtomicUsize::into_inner);
        eprintln!("{done} transcribed, {there} there already, {failed} failed");
        match inputs.len() - done - there {
            0 => Ok(()),
            missing => Err(Failure::Files { missing, all: inputs.len() }),
        }
    }

    fn usual_jobs(&self) -> Result<usize, Failure> {
        let engine = &self.hearing.engine;
        let gpus = engine.devices().iter().filter(|device| !device.starts_with("cpu")).count();
        let whole = matches!(self.hearing.options.mode(engine.config())?, Mode::Offline { .. });
        Ok(match gpus {
            // A whole signal takes memory by its length, and cores by itself.
            0 if whole => 1,
            0 => FILES_A_CPU,
            gpus => gpus * FILES_A_GPU,
        })
    }

    /// Does what is missing of a file, and counts it.
    fn take(&self, input: &Input, results: &Results, counts: &Counts, bar: Option<&ProgressBar>) {
        let missing = |format: &Format| self.force || !result(&input.stem, format.extension()).exists();
        let formats: Vec<Format> = self.formats.iter().copied().filter(missing).collect();
        let mut share = Share::new(input, bar);
        if formats.is_empty() {
            counts.there.fetch_add(1, Ordering::Relaxed);
            return share.finish();
        }
        let told = self.transcribe(input, &formats, &mut share).and_then(|(texts, warning)| {
            results.write(&input.stem, &texts)?;
            Ok(warning)
        });
        share.finish();
        let (count, line) = match told {
            Ok(None) => (&counts.done, None),
            Ok(Some(warning)) => (&counts.done, Some(format!("warning: {warning}"))),
            Err(failure) => (&counts.failed, Some(failure.of_file(&input.path))),
        };
        count.fetch_add(1, Ordering::Relaxed);
        if let Some(line) = line {
            let print = || eprintln!("{line}");
            bar.map_or_else(print, |bar| bar.suspend(print));
        }
    }

    /// The results of one file, and a warning.
    fn transcribe(
        &self,
        input: &Input,
        formats: &[Format],
        share: &mut Share,
    ) -> Result<(Texts, Option<String>), Failure> {
        let file = AudioFile::open(&input.path)?.only(self.hearing.channel);
        let length = file.seconds();
        let mut parts: Vec<(Format, Writer, String)> = Vec::new();
        for format in formats {
            let writer = (self.writer)(*format);
            let begin = writer.begin().to_owned();
            parts.push((*format, writer, begin));
        }
        let fed = self.hearing.hear(Source::File(Box::new(file)), &mut |heard| {
            match heard {
                Heard::Word(word) => {
                    for (_, writer, text) in &mut parts {
                        *text += &writer.word(word, |id| self.hearing.piece(id));
                    }
                }
                Heard::Progress(sample) => share.reach(length.map_or(0.0, |length| seconds(sample) / length)),
            }
            Ok(())
        })?;
        let summary = self.hearing.summary(&fed);
        let warning = fed.result?;
        let texts = parts
            .into_iter()
            .map(|(format, mut writer, text)| (format.extension(), text + &writer.end(&summary)));
        Ok((texts.collect(), warning))
    }
}

impl Counts {
    fn all(&self) -> usize {
        [&self.done, &self.there, &self.failed].iter().map(|count| count.load(Ordering::Relaxed)).sum()
    }
}

/// What a file moves the bar by: its bytes.
struct Share<'a> {
    bar: Option<&'a ProgressBar>,
    bytes: u64,
    moved: u64,
}

impl<'a> Share<'a> {
    fn new(input: &Input, bar: Option<&'a ProgressBar>) -> Self {
        Self { bar, bytes: bar.map_or(0, |_| bytes(input)), moved: 0 }
    }

    /// This part of the file is done.
    fn reach(&mut self, part: f64) {
        let target = (self.bytes as f64 * part.clamp(0.0, 1.0)) as u64;
        if let Some(bar) = self.bar {
            bar.inc(target.saturating_sub(self.moved));
        }
        self.moved = self.moved.max(target);
    }

    fn finish(&mut self) {
        self.reach(1.0);
    }
}

/// Its size, 0 if it isn't there, which is told when it is opened.
fn bytes(input: &Input) -> u64 {
    std::fs::metadata(&input.path).map_or(0, |metadata| metadata.len())
}
