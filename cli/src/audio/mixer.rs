// SPDX-License-Identifier: MPL-2.0
//! Any number of channels at any rate to 16 kHz mono.

use std::ops::ControlFlow;

use super::mix::{Downmix, Layout};
use crate::resample::To16k;

/// Channels to one, any rate to 16 kHz.
pub struct Mixer {
    rate: u32,
    converter: To16k,
    downmix: Option<Downmix>,
    /// Channel that was heard instead of a mix that cancels, and for how many seconds, before `downmix`.
    cancelled: Option<(usize, f64)>,
    /// What [`Mixer::mix`] takes.
    pub interleaved: Vec<f32>,
    mono: Vec<f32>,
    ready: Vec<f32>,
}

impl Mixer {
    /// The mixer for `rate`; if the one in `slot` is for another, that one is finished first.
    pub fn of_rate<'a>(
        slot: &'a mut Option<Mixer>,
        rate: u32,
        out: &mut dyn FnMut(&[f32]) -> ControlFlow<()>,
    ) -> Result<&'a mut Mixer, String> {
        let mut cancelled = None;
        if let Some(mixer) = slot.as_mut().filter(|mixer| mixer.rate != rate) {
            // Whether `out` breaks shows again with the next piece.
            let _ = mixer.finish(out)?;
            cancelled = mixer.cancelled();
            *slot = None;
        }
        match slot {
            Some(mixer) => Ok(mixer),
            None => {
                let (interleaved, mono, ready) = Default::default();
                let converter = To16k::new(rate)?;
                let mixer = Mixer { rate, converter, downmix: None, cancelled, interleaved, mono, ready };
                Ok(slot.insert(mixer))
            }
        }
    }

    /// Expects so many channels in these places, of which only `wanted` is to be heard if that is some.
    pub fn expect(&mut self, layout: &Layout, channels: usize, wanted: Option<usize>) -> Result<(), String> {
        if self.downmix.as_ref().is_none_or(|downmix| downmix.channels() != channels) {
            let downmix = Downmix::new(layout, channels, wanted)?;
            self.cancelled = self.cancelled();
            self.downmix = Some(downmix);
        }
        Ok(())
    }

    /// The first channel, counted from 1, that was heard instead of a mix that cancels, and for how many seconds one was.
    pub fn cancelled(&self) -> Option<(usize, f64)> {
        let now = self.downmix.as_ref().and_then(Downmix::cancelled);
        let now = now.map(|(channel, frames)| (channel, frames as f64 / f64::from(self.rate)));
        match (self.cancelled, now) {
            (Some((channel, before)), Some((_, now))) => Some((channel, before + now)),
            (before, now) => before.or(now),
        }
    }

    /// Gives on what is in `interleaved`.
    pub fn mix(&mut self, out: &mut dyn FnMut(&[f32]) -> ControlFlow<()>) -> Result<ControlFlow<()>, String> {
        self.mono.clear();
        if let Some(downmix) = &mut self.downmix {
            downmix.mix(&self.interleaved, &mut self.mono);
        }
        self.converter.push(&self.mono, &mut self.ready)?;
        Ok(self.give(out))
    }

    /// Gives on silence of so many frames.
    pub fn silence(
        &mut self,
        mut frames: u64,
        out: &mut dyn FnMut(&[f32]) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, String> {
        while frames > 0 {
            let piece = frames.min(16_384);
            frames -= piece;
            self.converter.push(&vec![0.0; piece as usize], &mut self.ready)?;
            if self.give(out).is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Gives on what is left.
    pub fn finish(
        &mut self,
        out: &mut dyn FnMut(&[f32]) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, String> {
        self.converter.finish(&mut self.ready)?;
        Ok(self.give(out))
    }

    fn give(&mut self, out: &mut dyn FnMut(&[f32]) -> ControlFlow<()>) -> ControlFlow<()> {
        let flow = if self.ready.is_empty() { ControlFlow::Continue(()) } else { out(&self.ready) };
        self.ready.clear();
        flow
    }
}
