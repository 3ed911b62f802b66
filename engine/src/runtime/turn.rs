// SPDX-License-Identifier: MPL-2.0
//! Who is heard where there are more live streams than a device can do: some without a break, rather than all in scraps that no
//! word can be heard in.

use std::time::{Duration, Instant};

use super::queue::OUTSIDE;
use crate::audio::FRAME_SAMPLES;

/// Encoder frames without a loss after which a stream comes as soon as any: 2 s.
const SETTLED: u64 = 25;

/// How long a stream is heard before others, as long as those lose audio.
const LONG: Duration = Duration::from_secs(20);

/// A stream's turn.
pub(super) struct Turn {
    /// Encoder frames that were heard without a loss, if it has lost any.
    whole: Option<u64>,
    since: Instant,
}

impl Default for Turn {
    fn default() -> Self {
        Self { whole: None, since: Instant::now() }
    }
}

impl Turn {
    /// Audio of the stream was lost: it is behind others. True if it was heard until then.
    pub(super) fn lost(&mut self) -> bool {
        self.whole.replace(0) != Some(0)
    }

    /// So many samples were heard; `others_lose` audio on the same device.
    pub(super) fn heard(&mut self, samples: u64, others_lose: bool) {
        match &mut self.whole {
            Some(whole) => {
                *whole += samples.div_ceil(FRAME_SAMPLES);
                if *whole >= SETTLED {
                    (self.whole, self.since) = (None, Instant::now());
                }
            }
            // The last of those that are heard, until it loses audio itself: what it said is still to be ended.
            None if others_lose && self.since.elapsed() > LONG => self.whole = Some(1),
            None => {}
        }
    }

    /// Its place in the order: before all streams of a greater one, however long those wait. 0 unless it lost audio.
    pub(super) fn rank(&self) -> u8 {
        match self.whole {
            None => 0,
            Some(0) => OUTSIDE,
            // Who heard a chunk without a loss goes on before who heard none.
            Some(whole) => (SETTLED - whole.min(SETTLED)) as u8,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_lost_audio_comes_later_until_it_is_heard_for_a_while() {
        let mut turn = Turn::default();
        turn.heard(100, true);
        assert_eq!(turn.rank(), 0);
        assert!(turn.lost());
        assert_eq!(turn.rank(), OUTSIDE);
        assert!(!turn.lost());
        turn.heard(2_560, true);
        assert_eq!(turn.rank(), 23, "who is heard comes before who is not");
        turn.heard(23 * 1_280, true);
        assert_eq!(turn.rank(), 0);
    }

    #[test]
    fn a_turn_ends_only_for_others() {
        let Some(since) = Instant::now().checked_sub(LONG + Duration::from_secs(1)) else { return };
        let mut turn = Turn { whole: None, since };
        turn.heard(100, false);
        assert_eq!(turn.rank(), 0);
        turn.heard(100, true);
        assert_eq!(turn.rank(), 24);
    }
}
