// SPDX-License-Identifier: MPL-2.0
//! What was measured, as a table for people and as data for machines.

use std::fmt::{self, Display, Formatter};

use console::{Alignment, measure_text_width, pad_str};
use serde::Serialize;

use super::align::{Edits, align};
use super::listen::Heard;
use super::manifest::Utterance;
use super::normalise::{self, normalise};
use super::times::Times;
use crate::bench::{Percentiles, percentiles};
use crate::failure::Failure;
use crate::formats::seconds;

/// Widest column of names in the table.
const WIDEST: usize = 48;

/// What a file showed.
#[derive(Serialize)]
pub struct Scored {
    /// As the manifest names it.
    pub audio: String,
    reference: String,
    hypothesis: String,
    /// Why there is no text, if there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// Errors in words.
    pub words: Rated,
    characters: Rated,
    /// None if the file couldn't be run.
    pub audio_seconds: Option<f64>,
    compute_seconds: f64,
    #[serde(skip)]
    latencies: Vec<f64>,
    #[serde(skip)]
    at_end: usize,
}

/// Edits with their rate.
#[derive(Clone, Copy, Serialize)]
pub struct Rated {
    /// The counts.
    #[serde(flatten)]
    pub edits: Edits,
    rate: Option<f64>,
}

impl From<Edits> for Rated {
    fn from(edits: Edits) -> Self {
        Self { edits, rate: edits.rate() }
    }
}

impl Scored {
    /// Compares what was `heard` in so many samples with what should have been.
    pub fn new(utterance: &Utterance, heard: Result<(usize, Heard), Failure>) -> Self {
        let reference = normalise(&utterance.reference);
        let (samples, heard, problem) = match heard {
            Ok((samples, heard)) => (Some(samples), heard, None),
            Err(failure) => (None, Heard::default(), Some(failure.to_string())),
        };
        let hypothesis = normalise(&heard.text);
        let silent = samples.is_some() && hypothesis.is_empty() && !reference.is_empty();
        let problem =
            problem.or_else(|| silent.then(|| format!("{}: no words recognised", utterance.path.display())));
        let split = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        let letters = |text: &str| text.chars().collect::<Vec<_>>();
        Self {
            audio: utterance.name.clone(),
            problem,
            words: align(&split(&reference), &split(&hypothesis)).into(),
            characters: align(&letters(&reference), &letters(&hypothesis)).into(),
            audio_seconds: samples.map(|samples| seconds(samples as u64)),
            compute_seconds: heard.time.as_secs_f64(),
            latencies: heard.latencies.iter().map(|&samples| seconds(samples)).collect(),
            at_end: heard.at_end,
            reference,
            hypothesis,
        }
    }
}

/// Everything.
#[derive(Serialize)]
pub struct Report {
    /// Name of the model.
    pub model: String,
    /// How it was streamed, such as `look-ahead 13`.
    pub way: String,
    threads: usize,
    /// Signal to noise ratio in decibels.
    pub noise_db: Option<f64>,
    normaliser: &'static str,
    /// In the manifest's order.
    pub files: Vec<Scored>,
    /// All files together.
    pub total: Total,
    /// Of the words, in seconds of the stream.
    pub latency: Latency,
    /// Where words start, if that was measured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub times: Option<Times>,
}

/// All files together.
#[derive(Serialize)]
pub struct Total {
    /// Errors in words.
    pub words: Rated,
    characters: Rated,
    files: usize,
    /// Files that couldn't be run.
    failed: usize,
    audio_seconds: f64,
    compute_seconds: f64,
    /// Time to compute over time of the audio.
    real_time_factor: f64,
}

/// How late words come.
#[derive(Serialize)]
pub struct Latency {
    /// Words that have a latency.
    words: usize,
    /// Words that only the end of a file brought out.
    at_end: usize,
    /// None without words.
    #[serde(flatten)]
    pub percentiles: Option<Percentiles>,
    /// Each one, in order of the files.
    #[serde(skip)]
    pub seconds: Vec<f64>,
}

impl Report {
    /// Sums up `files`.
    pub fn new(model: &str, way: &str, threads: usize, noise_db: Option<f64>, files: Vec<Scored>) -> Self {
        let (mut words, mut characters) = (Edits::default(), Edits::default());
        for file in &files {
            words += file.words.edits;
            characters += file.characters.edits;
        }
        let audio_seconds: f64 = files.iter().filter_map(|file| file.audio_seconds).sum();
        let compute_seconds: f64 = files.iter().map(|file| file.compute_seconds).sum();
        let total = Total {
            words: words.into(),
            characters: characters.into(),
            files: files.len(),
            failed: files.iter().filter(|file| file.audio_seconds.is_none()).count(),
            audio_seconds,
            compute_seconds,
            real_time_factor: if audio_seconds > 0.0 { compute_seconds / audio_seconds } else { 0.0 },
        };
        let seconds: Vec<f64> = files.iter().flat_map(|file| file.latencies.iter().copied()).collect();
        let latency = Latency {
            words: seconds.len(),
            at_end: files.iter().map(|file| file.at_end).sum(),
            percentiles: (!seconds.is_empty()).then(|| percentiles(seconds.clone())),
            seconds,
        };
        let normaliser = normalise::RULE;
        let (model, way) = (model.into(), way.into());
        Self { model, way, threads, noise_db, normaliser, files, total, latency, times: None }
    }

    /// Model, look-ahead and noise in a line.
    pub fn heading(&self) -> String {
        let noise = self.noise_db.map_or("clean".into(), |decibels| format!("pink noise at {decibels} dB"));
        format!("{}, {}, {noise}", self.model, self.way)
    }
}

/// A share as a percentage.
pub fn percent(share: Option<f64>) -> String {
    share.map_or("-".into(), |share| format!("{:.1}", share * 100.0))
}

impl Display for Report {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let names = self.files.iter().map(|file| measure_text_width(&file.audio));
        let width = names.max().unwrap_or(0).clamp(5, WIDEST);
        writeln!(f, "{}\n", self.heading())?;
        writeln!(
            f,
            "{}   words  subst  del  ins  WER %  CER %  audio s",
            pad_str("file", width, Alignment::Left, None)
        )?;
        for file in &self.files {
            let seconds = file.audio_seconds.map_or("-".into(), |seconds| format!("{seconds:.1}"));
            row(f, &shortened(&file.audio, width), width, &file.words, &file.characters, &seconds)?;
        }
        let Total { words, characters, audio_seconds, .. } = &self.total;
        row(f, "total", width, words, characters, &format!("{audio_seconds:.1}"))?;
        writeln!(f)?;
        if let Some(Percentiles { p50, p95, p99, most }) = &self.latency.percentiles {
            let ms = |seconds: &f64| (seconds * 1e3).round();
            writeln!(
                f,
                "latency of words in ms: p50 {}, p95 {}, p99 {}, most {} ({} words; {} more came with the end of \
                 their file)",
                ms(p50),
                ms(p95),
                ms(p99),
                ms(most),
                self.latency.words,
                self.latency.at_end
            )?;
        }
        if let Some(Times { sounds, emitted, told, emission_delay_ms }) = &self.times {
            writeln!(f, "words after their sounds in ms, {sounds} sounds: emitted {emitted}; told {told}")?;
            writeln!(f, "emission_delay_ms: {emission_delay_ms}")?;
        }
        let Total { compute_seconds, real_time_factor, files, failed, .. } = &self.total;
        let threads = if self.threads == 0 { "all".into() } else { self.threads.to_string() };
        writeln!(f, "real-time factor: {real_time_factor:.4} ({compute_seconds:.2} s; threads: {threads})")?;
        if *failed > 0 {
            writeln!(f, "{failed} of {files} files could not be run")?;
        }
        Ok(())
    }
}

fn row(
    f: &mut Formatter<'_>,
    name: &str,
    width: usize,
    words: &Rated,
    characters: &Rated,
    seconds: &str,
) -> fmt::Result {
    let Edits { substitutions, deletions, insertions, reference } = words.edits;
    writeln!(
        f,
        "{}  {reference:6}  {substitutions:5}  {deletions:3}  {insertions:3}  {:>5}  {:>5}  {seconds:>7}",
        pad_str(name, width, Alignment::Left, None),
        percent(words.rate),
        percent(characters.rate),
    )
}

/// The end of a name, where files of a set differ.
pub fn shortened(name: &str, width: usize) -> String {
    if measure_text_width(name) <= width {
        return name.into();
    }
    let characters: Vec<char> = name.chars().collect();
    let fits = |from: &usize| measure_text_width(&characters[*from..].iter().collect::<String>()) < width;
    let from = (0..characters.len()).find(fits).unwrap_or(characters.len());
    format!("…{}", characters[from..].iter().collect::<String>())
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::Duration;

    use super::*;

    fn utterance(reference: &str) -> Utterance {
        Utterance { name: "a.wav".into(), path: "set/a.wav".into(), reference: reference.into() }
    }

    fn heard(text: &str, latencies: &[u64]) -> Result<(usize, Heard), Failure> {
        let time = Duration::from_millis(500);
        let (text, latencies) = (text.into(), latencies.to_vec());
        Ok((32_000, Heard { text, latencies, at_end: 1, time, ..Heard::default() }))
    }

    fn report() -> Report {
        let files = vec![
            Scored::new(&utterance("It's a well."), heard("its a well", &[1_600, 3_200])),
            Scored::new(&utterance("Two words"), Err(Failure::file(Path::new("set/a.wav"), "gone"))),
            Scored::new(&utterance("one"), heard("", &[])),
            Scored::new(&utterance(""), heard("noise", &[])),
        ];
        Report::new("m", "look-ahead 6", 2, Some(10.0), files)
    }

    #[test]
    fn missing_output_counts_as_deletions() {
        let report = report();
        let problems: Vec<Option<&str>> = report.files.iter().map(|file| file.problem.as_deref()).collect();
        assert_eq!(problems, [None, Some("set/a.wav: gone"), Some("set/a.wav: no words recognised"), None]);
        let total = report.total.words.edits;
        assert_eq!(total, Edits { substitutions: 1, deletions: 3, insertions: 1, reference: 6 });
        assert_eq!(report.total.characters.edits.deletions, 1 + 9 + 3);
        assert_eq!((report.total.files, report.total.failed), (4, 1));
        assert_eq!((report.total.audio_seconds, report.total.real_time_factor), (6.0, 0.25));
        assert_eq!((report.latency.words, report.latency.at_end), (2, 3));
    }

    #[test]
    fn machines_get_every_figure() {
        let json = serde_json::json!(report());
        assert_eq!(json["files"][0]["words"]["rate"], 1.0 / 3.0);
        assert_eq!(json["files"][0]["hypothesis"], "its a well");
        assert!(json["files"][3]["words"]["rate"].is_null());
        assert!(json["files"][1]["audio_seconds"].is_null());
        assert_eq!(json["latency"]["most"], 0.2);
        assert_eq!((&json["way"], &json["noise_db"]), (&"look-ahead 6".into(), &10.0.into()));
    }

    #[test]
    fn people_get_a_table() {
        let table = report().to_string();
        assert!(table.contains("\na.wav       3      1    0    0   33.3    9.1      2.0\n"), "{table}");
        assert!(table.contains("\na.wav       2      0    2    0  100.0  100.0        -\n"), "{table}");
        assert!(table.contains("\na.wav       0      0    0    1      -      -      2.0\n"), "{table}");
        assert!(table.contains("\ntotal       6      1    3    1   83.3"), "{table}");
        assert!(table.contains("1 of 4 files"), "{table}");
    }

    #[test]
    fn long_names_lose_their_beginning() {
        assert_eq!(shortened("set/speech.wav", 20), "set/speech.wav");
        assert_eq!(shortened("set/speech.wav", 10), "…peech.wav");
        assert_eq!(shortened("日本語.wav", 8), "…語.wav");
    }
}
