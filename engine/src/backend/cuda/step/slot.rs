// SPDX-License-Identifier: MPL-2.0
//! What the host knows of a stream: where it stands, and the samples that its later steps still see. Its tensors are on the
//! card.

use std::sync::Arc;

use crate::audio::Held;
use crate::backend::cuda::memory::Phrases;
use crate::backend::timeline::{Portion, Timeline};
use crate::backend::visibility::Visibility;
use crate::backend::{Mode, Step};
use crate::model::ModelConfig;

/// One stream.
pub struct SlotState {
    pub mode: Mode,
    /// Place of its language in the model's prompt.
    pub language: usize,
    pub visibility: Visibility,
    /// Those that are rather heard.
    pub phrases: Option<Arc<Phrases>>,
    timeline: Timeline,
    /// The samples of a window; with caches, those that later mel frames still see.
    pcm: Held,
}

impl SlotState {
    /// At the start of an utterance.
    pub fn new(config: &ModelConfig, mode: Mode, language: usize) -> Self {
        Self {
            mode,
            language,
            visibility: Visibility::new(&config.encoder, mode),
            phrases: None,
            timeline: Timeline::new(config, mode),
            pcm: Held::default(),
        }
    }

    /// The samples of a step that was prepared, with what is kept of those before; `step` are its own.
    pub fn pcm<'a>(&'a self, step: &'a [f32]) -> &'a [f32] {
        match self.mode {
            // Long, and nothing was before it: not copied.
            Mode::Offline { .. } => step,
            Mode::Cached { .. } | Mode::Buffered { .. } => self.pcm.samples(),
        }
    }

    /// Takes the step's audio in and says what is to do; nothing if it completes no frame.
    pub fn prepare(&mut self, step: &Step<'_>) -> Result<Option<Portion>, String> {
        let portion = self.timeline.next(step)?;
        match self.mode {
            Mode::Cached { .. } => self.pcm.push(step.pcm),
            Mode::Buffered { .. } => {
                self.pcm.push(step.pcm);
                self.pcm.drop_before(portion.origin);
            }
            Mode::Offline { .. } => {}
        }
        Ok((!portion.frames.is_empty()).then_some(portion))
    }

    /// Forgets the samples that no later mel frame sees.
    pub fn advance(&mut self) {
        if matches!(self.mode, Mode::Cached { .. }) {
            self.pcm.drop_before(self.timeline.pcm_first());
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::backend::{Slot, Window};
    use crate::convert::{Like, SynthOptions, synthetic_config};

    proptest! {
        /// Whatever the way to stream, what is sent to the card are the samples that the step computes with.
        #[test]
        fn a_step_has_the_samples_that_it_sees(way in 0_usize..9, total in 0_usize..200_000) {
            let like = if way < 8 { Like::NemotronStreaming06b } else { Like::Tdt06bV3 };
            let options = SynthOptions { like, vocabulary: None, layers: None, seed: 0 };
            let config = synthetic_config(&options).expect("a configuration");
            let window = Window { left: 20 * (way % 4), chunk: 1 + way % 4, right: way % 3 };
            let mode = match way {
                0..4 => Mode::Cached { context: way },
                4..8 => Mode::Buffered { context: 0, window },
                _ => Mode::Offline { context: 0 },
            };
            let signal: Vec<f32> = (0..total).map(|sample| sample as f32).collect();
            let sizes = mode.step_sizes(&config.encoder);
            let mut state = SlotState::new(&config, mode, 0);
            let (mut at, mut index) = (0_usize, 0);
            while at < total || index == 0 {
                let next = at.saturating_add(sizes.of(index)).min(total);
                let pcm = &signal[at..next];
                let step = Step { slot: Slot(0), pcm, end: next == total };
                if let Some(portion) = state.prepare(&step).expect("a step of the right size") {
                    let seen = portion.origin + portion.pcm.start..portion.origin + portion.pcm.end;
                    prop_assert_eq!(state.pcm(pcm), &signal[seen]);
                }
                state.advance();
                (at, index) = (next, index + 1);
            }
        }
    }
}
