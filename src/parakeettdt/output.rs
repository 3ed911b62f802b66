// SPDX-License-Identifier: MPL-2.0
//! Lays words out on the source pad's timeline: in order, without overlap, every hole filled by a gap.

/// Shortest stretch without words, in nanoseconds, that is announced before the next word or the end.
const GAP_STEP: u64 = 100_000_000;

/// Shortest word, in nanoseconds.
const SHORTEST: u64 = 20_000_000;

/// One thing to push. Time stamps are in nanoseconds; `start < end`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    /// No words in this stretch.
    Gap {
        /// Where it starts.
        start: u64,
        /// Where it ends.
        end: u64,
    },
    /// One word.
    Word {
        /// The word, never blank.
        text: String,
        /// Where it starts.
        start: u64,
        /// Where it ends.
        end: u64,
        /// Something before it was interrupted or lost.
        discont: bool,
    },
}

/// Position on the source pad's timeline.
#[derive(Debug)]
pub struct Output {
    /// Everything before is pushed; none at the start of a segment.
    position: Option<u64>,
    discont: bool,
}

impl Default for Output {
    fn default() -> Self {
        Output { position: None, discont: true }
    }
}

impl Output {
    /// Sets where a segment's output starts, unless it has started.
    pub fn begin(&mut self, start: u64) {
        self.position.get_or_insert(start);
    }

    /// Marks the next word as following an interruption.
    pub fn interrupted(&mut self) {
        self.discont = true;
    }

    /// Places a word, after the gap before it if there is one. Blank text gives nothing.
    pub fn word(&mut self, text: &str, start: u64, end: u64) -> impl Iterator<Item = Item> {
        let text = text.trim();
        if text.is_empty() {
            return [None, None].into_iter().flatten();
        }
        let gap = self.advance(start, true);
        let start = self.position.map_or(start, |position| position.max(start));
        let end = if end > start { end } else { start.saturating_add(SHORTEST) };
        self.position = Some(end);
        let discont = std::mem::take(&mut self.discont);
        [gap, Some(Item::Word { text: text.to_owned(), start, end, discont })].into_iter().flatten()
    }

    /// Moves on to `to`, before which no further word starts. Short steps wait for more unless this is the `last` one.
    pub fn advance(&mut self, to: u64, last: bool) -> Option<Item> {
        let start = *self.position.get_or_insert(to);
        let step = to.checked_sub(start)?;
        if step == 0 || (step < GAP_STEP && !last) {
            return None;
        }
        self.position = Some(to);
        Some(Item::Gap { start, end: to })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MS: u64 = 1_000_000;

    #[test]
    fn holes_are_filled() {
        let mut output = Output::default();
        output.begin(1_000 * MS);
        assert_eq!(output.advance(1_050 * MS, false), None);
        let items: Vec<_> = output.word("word", 1_200 * MS, 1_500 * MS).collect();
        assert_eq!(items[0], Item::Gap { start: 1_000 * MS, end: 1_200 * MS });
        let word = Item::Word { text: "word".into(), start: 1_200 * MS, end: 1_500 * MS, discont: true };
        assert_eq!(items[1], word);
        assert_eq!(output.advance(1_400 * MS, true), None);
        assert_eq!(output.advance(1_510 * MS, true), Some(Item::Gap { start: 1_500 * MS, end: 1_510 * MS }));
    }

    #[test]
    fn blank_text_is_dropped() {
        let mut output = Output::default();
        assert_eq!(output.word(" \n", 0, MS).count(), 0);
        assert_eq!(output.word("", 0, MS).count(), 0);
    }

    proptest! {
        /// Items follow each other without hole or overlap, have a length, and every word comes out.
        #[test]
        fn items_are_contiguous(steps in prop::collection::vec((any::<bool>(), 0..10_000u64, 0..3_000u64), 1..60)) {
            let mut output = Output::default();
            output.begin(0);
            let (mut position, mut words) = (0, 0);
            for (is_word, at, length) in &steps {
                let (start, end) = (at * MS, (at + length) * MS);
                let items: Vec<_> =
                    if *is_word { output.word("w", start, end).collect() } else { output.advance(end, false).into_iter().collect() };
                for item in items {
                    let (start, end) = match item {
                        Item::Gap { start, end } => (start, end),
                        Item::Word { start, end, .. } => { words += 1; (start, end) }
                    };
                    prop_assert_eq!(start, position);
                    prop_assert!(end > start);
                    position = end;
                }
            }
            prop_assert_eq!(words, steps.iter().filter(|step| step.0).count());
        }
    }
}
