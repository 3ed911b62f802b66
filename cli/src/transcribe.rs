// SPDX-License-Identifier: MPL-2.0
//! `parakeet transcribe`: files of sound and video, or standard input, to text.

mod batch;
mod hear;
mod inputs;
mod print;
mod results;

use std::num::{NonZeroU32, NonZeroUsize};
use std::path::{Path, PathBuf};

use parakeet_engine::model::{EMBEDDED, find_model};
use parakeet_engine::{Engine, Lines, Mask};

use crate::audio::AudioFile;
use crate::engine_args::EngineArgs;
use crate::failure::Failure;
use crate::formats::{Format, Writer};
use crate::streaming::StreamArgs;
use crate::vocabulary::VocabularyArgs;
use batch::Batch;
use hear::{Hearing, Source};
use inputs::{Places, Shard};

/// Transcribe files of sound and video
#[derive(clap::Args)]
#[command(after_long_help = HELP)]
pub struct Args {
    /// WAV, FLAC, MP3 or Ogg Vorbis file, or with GStreamer's gst-launch-1.0 any file of sound or video that it decodes; a
    /// directory, whose files of sound and video are taken, hidden ones aside; a manifest (.txt or .tsv) with the path of a file
    /// in the first column of each line, relative to its own directory; or - for standard input: such a file, or raw 16 kHz
    /// mono S16LE samples
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Write results to this directory, those of directories and manifests in the folders that they name [default: beside
    /// each file; a single file goes to standard output]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Model directory [default: parakeet-tdt-mini in share/gst-plugin-parakeet/models or in models, beside the
    /// executable or in one of the directories above it]
    #[arg(long, value_name = "DIR")]
    model: Option<PathBuf>,
    /// Form of the transcript; several, with commas between them, are several results
    #[arg(long, value_enum, value_delimiter = ',', default_value = "txt")]
    format: Vec<Format>,
    /// Name results after the whole name of their file: talk.mp4.srt, not talk.srt
    #[arg(long)]
    keep_extension: bool,
    /// Transcribe again what has results already
    #[arg(long)]
    force: bool,
    /// Do a share of the files, every N-th beginning with number I, counted from 0 as SLURM_ARRAY_TASK_ID of
    /// --array=0-7 and JOB_COMPLETION_INDEX are
    #[arg(long, value_name = "I/N")]
    shard: Option<Shard>,
    /// Files at once [default: 32 for each GPU, 4 on the CPU, 1 there for whole signals of --offline]
    #[arg(long, value_name = "N")]
    jobs: Option<NonZeroUsize>,
    #[command(flatten)]
    engine: EngineArgs,
    #[command(flatten)]
    streaming: StreamArgs,
    #[command(flatten)]
    vocabulary: VocabularyArgs,
    /// Hear only this channel, counted from 1 [default: all, of 5.1 and 7.1 above all the centre]
    #[arg(long, value_name = "N")]
    channel: Option<NonZeroUsize>,
    /// Show *** in place of the words in this file, one a line, whatever their case
    #[arg(long, value_name = "FILE")]
    mask: Option<PathBuf>,
    /// Columns of a line of captions; a wide character, as of Chinese, takes two
    #[arg(long, value_name = "N", default_value_t = columns(Lines::default().columns))]
    max_line: NonZeroUsize,
    /// Lines of captions
    #[arg(long, value_name = "N", default_value_t = columns(Lines::default().count))]
    max_lines: NonZeroUsize,
    /// Feed the audio in pieces of this many milliseconds; the transcript doesn't depend on it
    #[arg(long, value_name = "N")]
    chunk_ms: Option<NonZeroU32>,
}

const HELP: &str = "\
Results are files as soon as there are several inputs, a directory, a manifest, several formats, --out or --shard. Each appears
as a whole or not at all; what is there is not done again, so the same command goes on after an interruption. A file that can't
be read, or not to its end, is told on standard error, has no result, and stops no other.

Captions (srt, vtt) hold the phrases of a sentence, as far as they fit: two lines of 42 columns, 7 s. Each stays on screen until
its last word has ended and it could be read, 20 columns in a second and 5/6 s at least, as far as nothing else is said; 80 ms
are free before the next, where the words leave them.

Exit status: 0 if all results are there, 1 if some are not, 2 if the command is wrong, 130 after an interruption.";

fn columns(count: usize) -> NonZeroUsize {
    NonZeroUsize::new(count).unwrap_or(NonZeroUsize::MIN)
}

/// Transcribes to standard output or into files.
pub fn run(args: &Args) -> Result<(), Failure> {
    let mut formats = args.format.clone();
    formats.sort();
    formats.dedup();
    match (&args.files[..], &formats[..]) {
        ([file], [format]) if args.out.is_none() && args.shard.is_none() && !inputs::is_list(file) => {
            let source = match file.to_str() {
                Some("-") => Source::Stdin,
                _ => Source::File(Box::new(AudioFile::open(file)?.only(args.channel()))),
            };
            print::print(&args.hearing()?, source, args.writer(*format))
        }
        _ => args.batch(&formats),
    }
}

impl Args {
    fn batch(&self, formats: &[Format]) -> Result<(), Failure> {
        let extensions: Vec<&str> = formats.iter().map(|format| format.extension()).collect();
        let (out, keep_extension) = (self.out.as_deref(), self.keep_extension);
        let mut inputs =
            inputs::collect(&self.files, Places { out, keep_extension, extensions: &extensions })?;
        if let Some(shard) = self.shard {
            inputs = shard.of(inputs);
        }
        let hearing = self.hearing()?;
        results::end_between_files_on_interrupt();
        let (force, jobs) = (self.force, self.jobs);
        Batch { hearing: &hearing, formats, writer: &|format| self.writer(format), force, jobs }.run(&inputs)
    }

    fn hearing(&self) -> Result<Hearing, Failure> {
        let mask = self.mask.as_deref().map(read_mask).transpose()?;
        let model = self.model.clone().map_or_else(default_model, Ok)?;
        let engine = Engine::open(&model, &self.engine.options()?)?;
        let options = self.vocabulary.options(&self.streaming, &engine)?;
        // What the model lacks for it is wrong for every file.
        options.mode(engine.config())?;
        Ok(Hearing { engine, options, mask, channel: self.channel(), chunk: self.chunk_ms })
    }

    fn channel(&self) -> Option<usize> {
        self.channel.map(NonZeroUsize::get)
    }

    fn writer(&self, format: Format) -> Writer {
        Writer::new(format, Lines { columns: self.max_line.get(), count: self.max_lines.get() })
    }
}

fn read_mask(path: &Path) -> Result<Mask, Failure> {
    let list = std::fs::read_to_string(path).map_err(|error| Failure::file(path, error.to_string()))?;
    Mask::new(&list).map_err(|error| Failure::file(path, error.to_string()))
}

/// The model directory when none is named.
pub fn default_model() -> Result<PathBuf, Failure> {
    let executable = std::env::current_exe()?;
    find_model(EMBEDDED, [], &executable).ok_or(Failure::NoModel(executable))
}
