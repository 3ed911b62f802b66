// SPDX-License-Identifier: MPL-2.0
//! Memory of the streams on the card: slots in blocks of [`SLOTS`], taken when they are needed and given back when empty.

use std::sync::Arc;

use crate::backend::cuda::card::{Buffer, Device};
use crate::backend::cuda::sizes::{MOST_BLOCKS, SLOTS};
use crate::backend::cuda::{failed, failed_as};
use crate::error::{Fault, Result};

/// A block and how many of its slots are taken.
struct Block {
    _memory: Buffer,
    taken: u32,
}

/// All slots of a backend.
pub struct Pool {
    device: Arc<Device>,
    blocks: Vec<Option<Block>>,
    block_bytes: usize,
    /// Addresses of the blocks.
    table: Buffer,
}

impl Pool {
    /// Without a block yet.
    pub fn new(device: &Arc<Device>, block_bytes: usize) -> Result<Self> {
        let table = device.zeros(MOST_BLOCKS * size_of::<u64>())?;
        Ok(Self { device: device.clone(), blocks: Vec::new(), block_bytes, table })
    }

    /// Where the kernels find the blocks.
    pub fn table(&self) -> u64 {
        self.table.address
    }

    /// Takes a slot. Fails if there is none left and `reserve` bytes wouldn't stay free beside another block.
    pub fn take(&mut self, reserve: usize) -> Result<u32> {
        let open = |block: &Block| block.taken != u32::MAX;
        let found = self.blocks.iter().position(|block| block.as_ref().is_some_and(open));
        let index = match found {
            Some(index) => index,
            None => self.grow(reserve)?,
        };
        let block = self.blocks[index].as_mut().ok_or_else(|| failed("a block vanished".into()))?;
        let place = block.taken.trailing_ones();
        block.taken |= 1 << place;
        Ok((index * SLOTS) as u32 + place)
    }

    /// Gives a slot back, and its block if that is empty and another has room.
    pub fn give(&mut self, slot: u32) {
        let index = slot as usize / SLOTS;
        let Some(Some(block)) = self.blocks.get_mut(index) else { return };
        block.taken &= !(1 << (slot as usize % SLOTS));
        if block.taken == 0 {
            let room = |(other, block): (usize, &Option<Block>)| {
                other != index && block.as_ref().is_some_and(|block| block.taken != u32::MAX)
            };
            if self.blocks.iter().enumerate().any(room) {
                self.blocks[index] = None;
            }
        }
    }

    fn grow(&mut self, reserve: usize) -> Result<usize> {
        let taken = self.blocks.iter().flatten().count() * SLOTS;
        if let Some(memory) = self.device.memory()
            && memory.free < self.block_bytes + reserve
        {
            return Err(failed_as(
                Fault::OutOfMemory,
                format!(
                    "no memory for another stream: {taken} are open, {:.1} GB of {:.1} GB are free on the card, and {SLOTS} \
                 more need {:.1} GB; close streams, or keep them in 8 bits (cache int8)",
                    memory.free as f64 / 1e9,
                    memory.total as f64 / 1e9,
                    (self.block_bytes + reserve) as f64 / 1e9,
                ),
            ));
        }
        let index = self.blocks.iter().position(Option::is_none).unwrap_or(self.blocks.len());
        if index >= MOST_BLOCKS {
            let reason = format!("no place for another stream: {taken} are open, which is the most");
            return Err(failed_as(Fault::OutOfMemory, reason));
        }
        // Zeros, so that a product over rows that hold nothing can't meet what isn't a number.
        let memory = self.device.zeros(self.block_bytes)?;
        let place = self.table.part(index * size_of::<u64>(), size_of::<u64>())?;
        self.device.write(place, &[memory.address])?;
        let block = Some(Block { _memory: memory, taken: 0 });
        if index == self.blocks.len() {
            self.blocks.push(block);
        } else {
            self.blocks[index] = block;
        }
        Ok(index)
    }
}
