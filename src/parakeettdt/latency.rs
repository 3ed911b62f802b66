// SPDX-License-Identifier: MPL-2.0
//! Which look-ahead or window fits a latency, and which latency is answered.

use super::TextUnit;
use parakeet_engine::{StreamOptions, Window, model::ModelConfig};

/// Value of `latency` that leaves it to the model and the text unit.
pub const LATENCY_OF_MODEL: u32 = u32::MAX;

/// What a word takes beyond what the model hears: to be said, to be known for whole, and to be computed, in ms. After this
/// it is pushed as far as it is known.
pub const WORD_MS: u64 = 1_000;

/// Fewest frames of a window's chunk and right context that are chosen for a latency: shorter ones cost too much and hear
/// too little.
const LEAST_WINDOW: usize = 8;

/// Longest that a unit of text is when nothing cuts it short, in ms.
pub fn unit_ms(unit: TextUnit) -> u64 {
    match unit {
        TextUnit::Word => 0,
        TextUnit::Phrase => 7_000,
        TextUnit::Sentence => 20_000,
    }
}

/// The answer in ms to a latency query, for a model that hears so many ms: never less than that takes.
pub fn answer_ms(latency_ms: u32, heard_ms: u64, unit: TextUnit) -> u64 {
    let least = heard_ms + WORD_MS;
    match latency_ms {
        LATENCY_OF_MODEL => least + unit_ms(unit),
        _ => least.max(latency_ms.into()),
    }
}

/// What a model hears beyond the start of a moment, in ms rounded up; 0 for options that don't suit it.
pub fn heard_ms(options: &StreamOptions, model: &ModelConfig) -> u64 {
    options.latency_samples(model).unwrap_or_default().div_ceil(16)
}

/// What is left to the element of how a model hears: `None` is left.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wanted {
    /// Frames of right context, with caches.
    pub look_ahead: Option<u32>,
    /// Frames before a window's chunk.
    pub left: Option<usize>,
    /// Frames of a window's chunk.
    pub chunk: Option<usize>,
    /// Frames after a window's chunk.
    pub right: Option<usize>,
}

impl Wanted {
    /// Chooses what is left so that it fits, and is the model's own where that fits.
    pub fn fit(self, latency_ms: u32, options: StreamOptions, model: &ModelConfig) -> StreamOptions {
        let is_free = latency_ms == LATENCY_OF_MODEL;
        let fits =
            |options: &StreamOptions| is_free || heard_ms(options, model) + WORD_MS <= u64::from(latency_ms);
        if model.is_cache_aware(0) {
            let with = |look_ahead| StreamOptions { look_ahead, ..options.clone() };
            let own = with(self.look_ahead);
            if self.look_ahead.is_some() || fits(&own) {
                return own;
            }
            let mut choices: Vec<u32> =
                model.encoder.contexts.iter().filter_map(|[_, right]| u32::try_from(*right).ok()).collect();
            choices.sort_unstable_by(|a, b| b.cmp(a));
            let fitting = choices.iter().map(|right| with(Some(*right))).find(fits);
            return fitting.or_else(|| choices.last().map(|least| with(Some(*least)))).unwrap_or(own);
        }
        let with =
            |window| StreamOptions { window: Some(window), look_ahead: self.look_ahead, ..options.clone() };
        let own = Window::of(model);
        let set = Window {
            left: self.left.unwrap_or(own.left),
            chunk: self.chunk.unwrap_or(own.chunk),
            right: self.right.unwrap_or(own.right),
        };
        if fits(&with(set)) {
            return with(set);
        }
        let choices = self.windows(set, model);
        let fitting = choices.iter().copied().map(with).find(fits);
        fitting.or_else(|| choices.last().copied().map(with)).unwrap_or_else(|| with(set))
    }

    /// Windows that may be chosen instead of `set`, the longest wait first.
    fn windows(self, set: Window, model: &ModelConfig) -> Vec<Window> {
        let allowed = |window: &Window| {
            self.left.is_none_or(|left| left == window.left)
                && self.chunk.is_none_or(|chunk| chunk == window.chunk)
                && self.right.is_none_or(|right| right == window.right)
        };
        let mut trained: Vec<Window> = Window::trained(model);
        if trained.is_empty() {
            let longest = set.chunk.max(set.right).max(LEAST_WINDOW);
            trained = (LEAST_WINDOW..=longest)
                .rev()
                .map(|frames| Window {
                    left: set.left,
                    chunk: self.chunk.unwrap_or(frames.min(set.chunk)),
                    right: self.right.unwrap_or(frames.min(set.right)),
                })
                .collect();
        } else {
            trained.retain(|window| allowed(window) && window.left == set.left);
            // Of two that take as long, the one whose chunk is heard with more after it.
            trained.sort_by_key(|window| (std::cmp::Reverse(window.chunk + window.right), window.chunk));
            trained.retain(|window| self.chunk.is_some() || window.chunk > 1);
        }
        trained
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use parakeet_engine::convert::{Like, SynthOptions, synthetic_config};

    fn model(like: Like) -> ModelConfig {
        let options = SynthOptions { like, vocabulary: None, layers: None, seed: 0 };
        synthetic_config(&options).expect("a configuration")
    }

    fn look_ahead(latency_ms: u32, wanted: Option<u32>) -> Option<u32> {
        let wanted = Wanted { look_ahead: wanted, ..Wanted::default() };
        wanted.fit(latency_ms, StreamOptions::default(), &model(Like::NemotronStreaming06b)).look_ahead
    }

    fn window(latency_ms: u32, wanted: Wanted) -> [usize; 3] {
        let options = wanted.fit(latency_ms, StreamOptions::default(), &model(Like::Tdt06bV3));
        let window = options.window.expect("full attention");
        [window.left, window.chunk, window.right]
    }

    #[test]
    fn the_look_ahead_is_the_longest_that_fits() {
        let model = model(Like::NemotronStreaming06b);
        let mut rights: Vec<u32> =
            model.encoder.contexts.iter().map(|[_, right]| u32::try_from(*right).unwrap()).collect();
        assert_eq!(look_ahead(LATENCY_OF_MODEL, None), None, "the model's own");
        assert_eq!(look_ahead(10_000, None), None);
        assert_eq!(look_ahead(0, Some(rights[0])), Some(rights[0]), "what is set is kept");
        rights.sort_unstable();
        assert_eq!(look_ahead(0, None), Some(rights[0]), "the least is what there is");
        for pair in rights.windows(2) {
            let options = StreamOptions { look_ahead: Some(pair[1]), ..StreamOptions::default() };
            let needed = (heard_ms(&options, &model) + WORD_MS) as u32;
            let own = u32::try_from(model.encoder.contexts[0][1]).unwrap();
            let fitting = if pair[1] == own { None } else { Some(pair[1]) };
            assert_eq!(look_ahead(needed, None), fitting);
            assert_eq!(look_ahead(needed - 1, None), Some(pair[0]));
        }
    }

    #[test]
    fn windows_are_shortened_to_what_fits() {
        let left = Wanted::default();
        assert_eq!(window(LATENCY_OF_MODEL, left), [125, 25, 25]);
        assert_eq!(window(5_000, left), [125, 25, 25], "2 s, 2 s and a word");
        assert_eq!(window(4_000, left), [125, 18, 18]);
        assert_eq!(window(0, left), [125, LEAST_WINDOW, LEAST_WINDOW]);
        let chunk = Wanted { chunk: Some(20), ..left };
        assert_eq!(window(4_000, chunk), [125, 20, 17]);
        let all = Wanted { left: Some(100), chunk: Some(20), right: Some(20), ..left };
        assert_eq!(window(100, all), [100, 20, 20]);
    }

    #[test]
    fn the_answer_is_never_less_than_it_takes() {
        assert_eq!(answer_ms(0, 1_053, TextUnit::Word), 2_053);
        assert_eq!(answer_ms(4_000, 1_053, TextUnit::Sentence), 4_000);
        assert_eq!(answer_ms(LATENCY_OF_MODEL, 1_053, TextUnit::Word), 2_053);
        assert_eq!(answer_ms(LATENCY_OF_MODEL, 1_053, TextUnit::Phrase), 9_053);
    }
}
