// SPDX-License-Identifier: MPL-2.0
//! Lays words out on the source pad's timeline: in order, without overlap, every hole filled by a gap.

/// Shortest stretch without words, in nanoseconds, that is announced before the next word or the end.
const GAP_STEP: u64 = 100_000_000;

/// Words that fall back behind what was pushed by more than this, in nanoseconds, start the timeline anew.
const BACK: u64 = 500_000_000;

/// Least length, in nanoseconds, of a word that begins in what was pushed already.
const SHORTEST: u64 = 80_000_000;

/// Length, in nanoseconds, of a word that has none.
const BLINK: u64 = 20_000_000;

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
    /// No time before this belongs to the same timeline: where the last word started, or the last gap ended.
    floor: u64,
    discont: bool,
    /// Time may fall back by less than [`BACK`], since a new stream has begun.
    anew: bool,
}

impl Default for Output {
    fn default() -> Self {
        Output { position: None, floor: 0, discont: true, anew: false }
    }
}

impl Output {
    /// A new stream has begun: if its time is not after what was pushed, it has a timeline of its own.
    pub fn may_start_anew(&mut self) {
        self.anew = true;
    }

    /// Starts anew if time has fallen back to `to`.
    fn look_back(&mut self, to: u64) {
        let Some(position) = self.position else {
            self.anew = false;
            return;
        };
        let tolerance = if self.anew { 0 } else { BACK };
        if to < self.floor && to.saturating_add(tolerance) < position {
            (self.position, self.discont, self.anew) = (None, true, false);
        } else if to > position {
            self.anew = false;
        }
    }

    /// Sets where the output starts, unless it has started.
    pub fn begin(&mut self, start: u64) {
        self.look_back(start);
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
        let position = self.position.unwrap_or(start);
        // Words that fell back a little keep a length that can be shown.
        let least = match end.saturating_sub(start) {
            0 => BLINK,
            length if position > start => SHORTEST.min(length),
            _ => 1,
        };
        let start = position.max(start);
        let end = end.max(start.saturating_add(least));
        (self.position, self.floor) = (Some(end), start);
        let discont = std::mem::take(&mut self.discont);
        [gap, Some(Item::Word { text: text.to_owned(), start, end, discont })].into_iter().flatten()
    }

    /// Moves on to `to`, before which no further word starts. Short steps wait for more unless this is the `last` one.
    pub fn advance(&mut self, to: u64, last: bool) -> Option<Item> {
        self.look_back(to);
        let start = *self.position.get_or_insert(to);
        let step = to.checked_sub(start)?;
        if step == 0 || (step < GAP_STEP && !last) {
            return None;
        }
        (self.position, self.floor) = (Some(to), to);
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
    fn time_that_falls_back_starts_anew_beyond_a_tolerance() {
        let mut output = Output::default();
        let place =
            |output: &mut Output, start: u64| match output.word("w", start * MS, (start + 300) * MS).last() {
                Some(Item::Word { start, end, discont, .. }) => (start / MS, end / MS, discont),
                other => panic!("{other:?}"),
            };
        assert_eq!(place(&mut output, 3_600_000), (3_600_000, 3_600_300, true));
        assert_eq!(place(&mut output, 0), (0, 300, true));
        assert_eq!(place(&mut output, 250), (300, 550, false), "a little only moves a word");
        assert_eq!(place(&mut output, 260), (550, 630, false), "and leaves it a length");
        assert_eq!(output.advance(0, true), None, "silence may fall back as well");
        assert_eq!(place(&mut output, 100), (100, 400, true));
        assert_eq!(output.word("long", 400 * MS, 2_400 * MS).count(), 1);
        output.begin(400 * MS);
        assert_eq!(output.advance(400 * MS, true), None, "what is known at the start of a word is not back");
        assert_eq!(place(&mut output, 2_400), (2_400, 2_700, false));
        output.may_start_anew();
        assert_eq!(place(&mut output, 99), (99, 399, true), "a new stream needs no tolerance");
        output.may_start_anew();
        assert_eq!(place(&mut output, 399), (399, 699, false), "and may go on");
    }

    #[test]
    fn blank_text_is_dropped() {
        let mut output = Output::default();
        assert_eq!(output.word(" \n", 0, MS).count(), 0);
        assert_eq!(output.word("", 0, MS).count(), 0);
    }

    proptest! {
        /// Items follow each other without hole or overlap, have a length, and every word comes out; time may fall back a
        /// little.
        #[test]
        fn items_are_contiguous(steps in prop::collection::vec((any::<bool>(), 0..800u64, 0..400u64), 1..60)) {
            let mut output = Output::default();
            output.begin(0);
            let (mut position, mut words) = (0, 0);
            for (is_word, ahead, length) in &steps {
                let at = (position / MS + ahead).saturating_sub(400);
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
