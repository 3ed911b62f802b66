// SPDX-License-Identifier: MPL-2.0
//! The greatest load that a machine bears, found with few trials.

/// Trials at most: each takes half a minute or more.
const TRIALS: usize = 12;

/// The greatest count that passes, to 2 %, if whatever is less than one that passes does too; 0 if not even 1 does.
/// Begins at `estimate`, goes up or down by a quarter until the limit lies between two counts, then halves.
pub fn greatest<E>(estimate: usize, mut passes: impl FnMut(usize) -> Result<bool, E>) -> Result<usize, E> {
    let (mut low, mut high) = (0, None);
    let mut count = estimate.max(1);
    for _ in 0..TRIALS {
        if passes(count)? {
            low = count;
        } else {
            high = Some(count);
        }
        count = match high {
            None => low + (low / 4).max(1),
            Some(high) if high - low <= (low / 50).max(1) => break,
            Some(high) if low == 0 => (high * 3 / 4).max(1),
            Some(high) => low.midpoint(high),
        };
    }
    Ok(low)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is found where `limit` is the most that passes, and the counts that were tried.
    fn found(estimate: usize, limit: usize) -> (usize, Vec<usize>) {
        let mut tried = Vec::new();
        let found = greatest(estimate, |count| {
            tried.push(count);
            Ok::<_, ()>(count <= limit)
        });
        (found.unwrap(), tried)
    }

    #[test]
    fn the_limit_is_found_to_two_percent_and_never_exceeded() {
        for limit in [1, 2, 3, 50, 999, 1_000, 4_821, 15_000] {
            for estimate in [limit / 2, limit * 9 / 10, limit, limit * 6 / 5, limit * 2] {
                let (count, tried) = found(estimate, limit);
                assert!(count <= limit && count + (limit / 49).max(1) > limit, "{limit}: {count}");
                assert!(tried.contains(&count) && tried.len() <= TRIALS, "{limit}: {tried:?}");
            }
        }
    }

    #[test]
    fn a_good_estimate_takes_few_trials() {
        let (count, tried) = found(5_000, 5_200);
        assert_eq!(tried, [5_000, 6_250, 5_625, 5_312, 5_156, 5_234]);
        assert_eq!(count, 5_156);
    }

    #[test]
    fn nothing_passes_and_everything_does() {
        assert_eq!(found(3, 0), (0, vec![3, 2, 1]));
        assert_eq!(found(0, 0), (0, vec![1]));
        let (count, tried) = found(100, usize::MAX);
        assert_eq!((count, tried.len()), (*tried.last().unwrap(), TRIALS), "{tried:?}");
        assert_eq!(greatest(5, |_| Err("the device is gone")), Err("the device is gone"));
    }
}
