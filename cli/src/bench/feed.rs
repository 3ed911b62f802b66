// SPDX-License-Identifier: MPL-2.0
//! Many live sources on few threads: who hands over a piece of audio when.
//!
//! All pieces last equally long, so a thread goes round its sources in the order of their place within a piece, once for
//! each piece's time: that is the order of time, without a queue. It sleeps a millisecond at least, and hands over what
//! fell due in the meantime.

use std::thread;
use std::time::{Duration, Instant};

use parakeet_engine::Stream;

/// Shortest sleep: waking up costs as much as some dozen pieces.
const NAP: Duration = Duration::from_millis(1);

/// A live source.
pub struct Source {
    /// Where its audio goes.
    pub stream: Stream,
    /// When it hands over what.
    pub times: Times,
}

/// When a source hands over its pieces, counted from the beginning of all.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    /// Before the first piece.
    start: Duration,
    /// How many it hands over.
    pieces: u32,
}

impl Times {
    /// From `start` to `end`, in pieces that last `piece`.
    pub fn new(start: Duration, end: Duration, piece: Duration) -> Self {
        Self { start, pieces: (end.saturating_sub(start).as_nanos() / piece.as_nanos()) as u32 }
    }

    /// Samples that it hands over in all.
    pub fn samples(self, piece: Duration) -> usize {
        self.pieces as usize * samples(piece)
    }
}

/// How well the audio was handed over.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Punctuality {
    /// Pieces.
    pub pieces: u64,
    /// Those that came more than a piece's time after they were due.
    pub late: u64,
    /// The latest, in seconds.
    pub most: f64,
}

impl Punctuality {
    fn note(&mut self, lag: Duration, piece: Duration) {
        self.pieces += 1;
        self.late += u64::from(lag > piece);
        self.most = self.most.max(lag.as_secs_f64());
    }

    /// Both together.
    pub fn and(self, other: Self) -> Self {
        Self {
            pieces: self.pieces + other.pieces,
            late: self.late + other.late,
            most: self.most.max(other.most),
        }
    }
}

fn samples(piece: Duration) -> usize {
    (piece.as_nanos() as u64 * 16_000 / 1_000_000_000) as usize
}

/// Gives the pieces of all sources to `hand_over` in the order in which they fall due: when, source, number of the piece.
fn in_order(sources: &[Times], piece: Duration, mut hand_over: impl FnMut(Duration, usize, u32)) {
    let mut places: Vec<(Duration, u32, u32, usize)> = Vec::new();
    for (index, Times { start, pieces }) in sources.iter().enumerate() {
        let first = (start.as_nanos() / piece.as_nanos()) as u32;
        places.push((*start - piece * first, first, *pieces, index));
    }
    places.sort_unstable();
    let rounds = places.iter().map(|(_, first, pieces, _)| first + pieces).max().unwrap_or(0);
    for round in 0..rounds {
        for &(phase, first, pieces, index) in &places {
            if let Some(number) = round.checked_sub(first).filter(|number| *number < pieces) {
                hand_over(piece * (round + 1) + phase, index, number);
            }
        }
    }
}

/// Hands every source's part of `pcm` to its stream when it falls due, counted from `begin`.
pub fn feed(sources: &[&Source], begin: Instant, piece: Duration, pcm: &[f32]) -> Punctuality {
    let length = samples(piece);
    let times: Vec<Times> = sources.iter().map(|source| source.times).collect();
    let mut seen = Punctuality::default();
    in_order(&times, piece, |due, index, number| {
        let due = begin + due;
        let mut now = Instant::now();
        if due > now {
            thread::sleep((due - now).max(NAP));
            now = Instant::now();
        }
        seen.note(now.saturating_duration_since(due), piece);
        let from = number as usize * length;
        // A stream that failed tells its reader.
        let _ = sources[index].stream.push(&pcm[from..from + length]);
    });
    seen
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_of_all_sources_come_in_the_order_of_time() {
        let ms = Duration::from_millis;
        let piece = ms(20);
        let times = [35, 0, 7, 50, 20].map(|start| Times::new(ms(start), ms(100), piece));
        assert_eq!(times.map(|times| times.samples(piece)), [3, 5, 4, 2, 4].map(|pieces| pieces * 320));
        let mut seen = Vec::new();
        in_order(&times, piece, |due, index, number| seen.push((due, index, number)));
        assert!(seen.is_sorted_by_key(|(due, ..)| *due), "{seen:?}");
        let of =
            |wanted| seen.iter().filter(move |(_, index, _)| *index == wanted).map(|(due, _, n)| (*due, *n));
        assert_eq!(of(0).collect::<Vec<_>>(), [(ms(55), 0), (ms(75), 1), (ms(95), 2)]);
        assert_eq!(of(3).collect::<Vec<_>>(), [(ms(70), 0), (ms(90), 1)]);
        assert_eq!(seen.len(), 18);
    }

    #[test]
    fn a_piece_is_late_after_a_whole_one() {
        let mut seen = Punctuality::default();
        for lag in [0, 20, 21] {
            seen.note(Duration::from_millis(lag), Duration::from_millis(20));
        }
        assert_eq!(seen, Punctuality { pieces: 3, late: 1, most: 0.021 });
        let other = Punctuality { pieces: 2, late: 0, most: 0.5 };
        assert_eq!(seen.and(other), Punctuality { pieces: 5, late: 1, most: 0.5 });
    }
}
