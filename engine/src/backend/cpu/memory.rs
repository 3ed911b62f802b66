// SPDX-License-Identifier: MPL-2.0
//! How much memory a step over a whole signal takes, and how much there is.

use sysinfo::{MemoryRefreshKind, RefreshKind, System};

use crate::audio::features::HOP;
use crate::backend::visibility::Visibility;
use crate::backend::{Mode, Token};
use crate::model::{Geometry, ModelConfig};

use super::attention::KeyValues;
use super::{subsampling, whole};

/// Steps that need less are not asked about.
const LITTLE: usize = 64 << 20;

/// Share of the memory that is available that is left to others.
const LEFT_TO_OTHERS: usize = 10;

/// Bytes that a step over a signal of so many samples works in at most, on so many threads, beside the samples.
pub fn signal_bytes(config: &ModelConfig, mode: Mode, samples: usize, threads: usize) -> usize {
    let (encoder, mels) = (&config.encoder, samples / HOP);
    let frames = Geometry::new(config).frames(mels);
    let visibility = Visibility::new(encoder, mode);
    let positions = visibility.distances(frames).count();
    let seen = positions + whole::block(threads);
    let layers = whole::values(encoder, frames, seen.min(frames), positions, threads);
    let prompt = config.prompt.as_ref();
    let prompted = prompt.map_or(0, |prompt| frames * (2 * encoder.width + prompt.places + prompt.hidden));
    let decoded = frames * config.decoder.joint_width;
    let outputs = layers.max(prompted + decoded);
    let inputs = subsampling::values(Geometry::new(config), frames, threads);
    let values = mels * config.features.mel_bins + frames * encoder.width + outputs.max(inputs);
    // A token a frame, in a list that grows by doubling, and what doesn't grow with the signal.
    let rest = frames * (size_of::<i64>() + 2 * size_of::<Token>()) + (1 << 20);
    values * size_of::<f32>() + KeyValues::bytes(frames, encoder.width) + rest
}

/// What of steps that need so many bytes each is begun next, in their order.
#[derive(Debug, PartialEq)]
pub enum Next {
    /// So many of the first.
    Run(usize),
    /// Not the first: only so many bytes are free.
    Refuse(usize),
}

/// What is begun where `free` bytes are, if that is known.
pub fn next(needs: impl IntoIterator<Item = usize>, free: impl Fn() -> Option<usize>) -> Next {
    let sums = needs.into_iter().scan(0_usize, |sum, need| {
        *sum = sum.saturating_add(need);
        Some(*sum)
    });
    let sums: Vec<usize> = sums.collect();
    let all = sums.len();
    if sums.last().is_none_or(|&sum| sum <= LITTLE) {
        return Next::Run(all);
    }
    match free() {
        None => Next::Run(all),
        Some(free) => match sums.partition_point(|&sum| sum <= free.max(LITTLE) && can_allocate(sum)) {
            0 => Next::Refuse(free),
            count => Next::Run(count),
        },
    }
}

/// Whether so many bytes can be allocated: a limit of the process may be less than what is free.
fn can_allocate(bytes: usize) -> bool {
    bytes <= LITTLE || Vec::<u8>::new().try_reserve_exact(bytes).is_ok()
}

/// Bytes of memory that this process may still take.
pub fn available() -> Option<usize> {
    let memory = MemoryRefreshKind::nothing().with_ram();
    let system = System::new_with_specifics(RefreshKind::nothing().with_memory(memory));
    let machine = system.available_memory();
    // What of its group's memory are files can be taken.
    let group = system.cgroup_limits().map_or(u64::MAX, |group| group.total_memory.saturating_sub(group.rss));
    let free = usize::try_from(machine.min(group)).ok()?;
    // A system that doesn't tell says 0.
    (free > 0).then(|| free - free / LEFT_TO_OTHERS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fits_together_is_begun_together() {
        const MUCH: usize = 100 << 20;
        let next = |needs: &[usize], free: Option<usize>| next(needs.iter().copied(), || free);
        assert_eq!(next(&[MUCH; 3], Some(2 * MUCH)), Next::Run(2));
        assert_eq!(next(&[MUCH; 3], Some(MUCH - 1)), Next::Refuse(MUCH - 1));
        assert_eq!(next(&[0, 3 * MUCH, 0], Some(2 * MUCH)), Next::Run(1));
        assert_eq!(next(&[usize::MAX, usize::MAX], Some(MUCH)), Next::Refuse(MUCH));
        assert_eq!(next(&[MUCH; 3], None), Next::Run(3), "nobody knows");
        assert_eq!(next(&[LITTLE / 2; 2], Some(0)), Next::Run(2), "what takes little is not asked about");
        assert_eq!(next(&[LITTLE / 2; 4], Some(0)), Next::Run(2));
        assert_eq!(next(&[], Some(0)), Next::Run(0));
    }

    #[test]
    fn this_machine_says_what_is_free() {
        let free = available().expect("it does");
        assert!(free > LITTLE, "{free}");
        assert!(can_allocate(free / 2) && !can_allocate(usize::MAX));
    }
}
