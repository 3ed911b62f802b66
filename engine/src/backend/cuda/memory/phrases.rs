// SPDX-License-Identifier: MPL-2.0
//! Phrases that streams rather hear, on the card: once for all streams that have the same, for as long as one is open.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use crate::backend::cuda::card::{Buffer, Device};
use crate::backend::cuda::failed_as;
use crate::error::{Fault, Result};
use crate::model::Boosts;

/// Those of one or several streams.
pub struct Phrases {
    boosts: Arc<Boosts>,
    memory: Buffer,
}

impl Phrases {
    /// Where the kernels find them.
    pub fn address(&self) -> u64 {
        self.memory.address
    }
}

/// All that are in use.
#[derive(Default)]
pub struct PhraseStore(Mutex<Vec<Weak<Phrases>>>);

impl PhraseStore {
    /// These, brought to the card if they aren't there. Fails if `reserve` bytes wouldn't stay free beside them.
    pub fn take(&self, device: &Arc<Device>, boosts: &Arc<Boosts>, reserve: usize) -> Result<Arc<Phrases>> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|phrases| phrases.strong_count() > 0);
        let same = |known: &Arc<Phrases>| Arc::ptr_eq(&known.boosts, boosts) || known.boosts == *boosts;
        if let Some(known) = all.iter().filter_map(Weak::upgrade).find(same) {
            return Ok(known);
        }
        let needed = boosts.bytes() + reserve;
        if let Some(memory) = device.memory().filter(|memory| memory.free < needed) {
            let [needed, free] = [needed, memory.free].map(|bytes| bytes as f64 / 1e9);
            let reason = format!("no memory for a vocabulary: {needed:.1} GB are needed, {free:.1} GB free");
            return Err(failed_as(Fault::OutOfMemory, reason));
        }
        let memory = device.upload(&words(boosts))?;
        let phrases = Arc::new(Phrases { boosts: boosts.clone(), memory });
        all.push(Arc::downgrade(&phrases));
        Ok(phrases)
    }
}

#[cfg(test)]
impl PhraseStore {
    /// How many are on the card.
    pub fn held(&self) -> usize {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.iter().filter(|phrases| phrases.strong_count() > 0).count()
    }
}

/// The automaton as `decode.cu` reads it, in words of 32 bits: what the root adds for each piece, the state after it, where
/// the arcs of each state begin and the last ones end, and the arcs, three words each: piece, what it adds, the state after it.
fn words(boosts: &Boosts) -> Vec<u32> {
    let tables = boosts.tables();
    let base = (2 * tables.root.len() + tables.first.len()) as u32;
    let added = tables.root.iter().map(|(boost, _)| boost.to_bits());
    let next = tables.root.iter().map(|&(_, next)| next);
    let first = tables.first.iter().map(|arc| base + 3 * arc);
    let arcs = tables.arcs.iter().flat_map(|arc| [arc.piece, arc.boost.to_bits(), arc.next]);
    added.chain(next).chain(first).chain(arcs).collect()
}
