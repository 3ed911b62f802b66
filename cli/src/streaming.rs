// SPDX-License-Identifier: MPL-2.0
//! The options that say how a model is streamed, the same for every command.

use parakeet_engine::backend::Mode;
use parakeet_engine::model::ModelConfig;
use parakeet_engine::{StreamOptions, Window};

use crate::failure::Failure;

/// Usual windows in seconds, left, chunk and right, from the default to the quickest and the most accurate.
const WINDOWS: [[f64; 3]; 4] = [[10.0, 2.0, 2.0], [10.0, 1.0, 1.0], [10.0, 0.5, 0.5], [10.0, 10.0, 5.0]];

/// The windows to offer for a model, its own first: all that it was trained for, or usual ones where it takes any.
pub fn windows(config: &ModelConfig) -> Result<Vec<Window>, Failure> {
    let trained = Window::trained(config);
    if !trained.is_empty() {
        return Ok(trained);
    }
    let usual = WINDOWS.map(|[left, chunk, right]| Window::from_seconds(left, chunk, right));
    Ok(usual.into_iter().collect::<Result<_, _>>()?)
}

/// Some of those windows: of each chunk that with the longest left context and the longest right context that is no longer
/// than the chunk, or else the shortest.
fn main_windows(config: &ModelConfig) -> Result<Vec<Window>, Failure> {
    if config.encoder.windows.is_none() {
        return windows(config);
    }
    let mut some: Vec<Window> = Vec::new();
    for window in windows(config)? {
        match some.iter_mut().find(|known| known.chunk == window.chunk) {
            None => some.push(window),
            // They come with the longest contexts first.
            Some(known) if known.left == window.left && known.right > known.chunk => *known = window,
            Some(_) => {}
        }
    }
    Ok(some)
}

/// Frames of 80 ms in seconds.
pub fn seconds(frames: usize) -> f64 {
    frames as f64 / 12.5
}

/// Frames of 80 ms of a number of them, or of a time with a unit.
fn frames(text: &str) -> Result<u32, String> {
    let (number, unit) = match text.strip_suffix("ms") {
        Some(number) => (number, Some(0.0125)),
        None => match text.strip_suffix('s') {
            Some(number) => (number, Some(12.5)),
            None => (text, None),
        },
    };
    let Some(frames_of_unit) = unit else { return number.parse().map_err(|error| format!("{error}")) };
    let time: f64 = number.parse().map_err(|error| format!("{error}"))?;
    let frames = time * frames_of_unit;
    let whole = frames.round();
    if !(0.0..=f64::from(u32::MAX)).contains(&whole) || (frames - whole).abs() > 1e-6 {
        return Err("not a whole number of frames of 80 ms".into());
    }
    Ok(whole as u32)
}

/// How the model is streamed.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct StreamArgs {
    /// What the model hears beyond a moment before it decides, in frames of 80 ms, or with a unit such as 480ms or 1.04s; a
    /// model has a few to choose from, its first is the default
    #[arg(long, value_name = "N", value_parser = frames)]
    pub look_ahead: Option<u32>,
    /// Language that is spoken, such as de-DE, or auto; for models that are told [default: auto where the model has it]
    #[arg(long, value_name = "CODE")]
    language: Option<String>,
    /// Seconds before a chunk that are heard again with it. With --left, --chunk or --right the model hears windows;
    /// models with full attention always do [default: the model's own, most often 10]
    #[arg(long, value_name = "SECONDS", conflicts_with = "offline")]
    left: Option<f64>,
    /// Seconds of a chunk, whose words come out together [default: the model's own, most often 2]
    #[arg(long, value_name = "SECONDS", conflicts_with = "offline")]
    chunk: Option<f64>,
    /// Seconds after a chunk that are heard before its words come out [default: the model's own, most often 2]
    #[arg(long, value_name = "SECONDS", conflicts_with = "offline")]
    right: Option<f64>,
    /// Decode what one pass over everything decodes: a model that streams with caches chunk by chunk, another at the end, in
    /// memory that grows with the length
    #[arg(long)]
    offline: bool,
    /// Leave silence out: each stretch of speech is recognised by itself
    #[arg(long)]
    skip_silence: bool,
}

impl StreamArgs {
    /// The options of a stream of the model.
    pub fn options(&self, config: &ModelConfig) -> Result<StreamOptions, Failure> {
        let Self { look_ahead, left, chunk, right, offline, skip_silence, .. } = *self;
        let language = self.language.clone();
        let window = match (left, chunk, right) {
            (None, None, None) => None,
            _ => {
                let own = Window::of(config);
                Some(Window::from_seconds(
                    left.unwrap_or(seconds(own.left)),
                    chunk.unwrap_or(seconds(own.chunk)),
                    right.unwrap_or(seconds(own.right)),
                )?)
            }
        };
        Ok(StreamOptions { look_ahead, language, window, offline, skip_silence, ..StreamOptions::default() })
    }

    /// The way that the options name, or those that the model has: its contexts if it streams with caches, else its main
    /// windows.
    pub fn ways(&self, config: &ModelConfig) -> Result<Vec<Way>, Failure> {
        let named = self.options(config)?;
        let mut all = Vec::new();
        if named != StreamOptions::default() {
            all.push(named);
        } else if config.is_cache_aware(0) {
            for [_, right] in &config.encoder.contexts {
                all.push(StreamOptions { look_ahead: u32::try_from(*right).ok(), ..named.clone() });
            }
        } else {
            for window in main_windows(config)? {
                all.push(StreamOptions { window: Some(window), ..named.clone() });
            }
        }
        all.into_iter().map(|options| Way::new(options, config)).collect()
    }
}

/// One way to stream a model.
pub struct Way {
    /// `look-ahead N`, the window's `LEFT-CHUNK-RIGHT` in seconds, or `offline`.
    pub name: String,
    /// Audio between two outputs; 0 for one pass.
    pub chunk_seconds: f64,
    /// Audio that a step sees at most: only after that has each step its full cost. 0 for one pass.
    pub context_seconds: f64,
    /// The options for it.
    pub options: StreamOptions,
}

impl Way {
    /// Fails if the options don't suit the model.
    pub fn new(options: StreamOptions, config: &ModelConfig) -> Result<Self, Failure> {
        let mode = options.mode(config)?;
        let (name, chunk, context) = match mode {
            Mode::Cached { context } => {
                let [left, right] = config.encoder.contexts[context].map(|frames| frames.max(0) as usize);
                (format!("look-ahead {right}"), right + 1, left + right + 1)
            }
            Mode::Buffered { window, .. } => {
                let Window { left, chunk, right } = window;
                let name = [left, chunk, right].map(|frames| format!("{:.2}", seconds(frames))).join("-");
                (name, chunk, window.frames())
            }
            Mode::Offline { .. } => ("offline".into(), 0, 0),
        };
        Ok(Self { name, chunk_seconds: seconds(chunk), context_seconds: seconds(context), options })
    }

    /// Audio between two outputs in milliseconds; 0 for one pass.
    pub fn chunk_ms(&self) -> u32 {
        (self.chunk_seconds * 1e3).round() as u32
    }
}
