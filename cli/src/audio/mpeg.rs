// SPDX-License-Identifier: MPL-2.0
//! MPEG audio streams: what a frame's header says, and counts of frames that the stream contradicts.

use std::collections::VecDeque;

use symphonia::core::packet::Packet;
use symphonia::core::units::Duration;

/// Samples of a channel that encoders append at most, with the rest of the frame they end in (LAME's tag has 12 bits).
const MOST_PADDING: u64 = 4_096 + 1_152;

/// The header of a frame of layer 1, 2 or 3.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Samples a second.
    pub rate: u32,
    /// 1 or 2.
    pub channels: u16,
    /// 1, 2 or 3.
    pub layer: u8,
    /// Bytes of the frame, with its header.
    pub bytes: usize,
}

impl Frame {
    /// Reads the header that `bytes` begin with (ISO 11172-3 and 13818-3, and the lower rates called MPEG 2.5).
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let &[0xFF, b, c, d, ..] = bytes else { return None };
        let (version, layer) = (b >> 3 & 3, 4 - (b >> 1 & 3));
        if b >> 5 != 7 || version == 1 || layer == 4 {
            return None;
        }
        let first = version == 3;
        let rates: [u32; 3] = match version {
            3 => [44_100, 48_000, 32_000],
            2 => [22_050, 24_000, 16_000],
            _ => [11_025, 12_000, 8_000],
        };
        let rate = *rates.get(usize::from(c >> 2 & 3))?;
        let kilobits: [u32; 14] = match (first, layer) {
            (true, 1) => [32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448],
            (true, 2) => [32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384],
            (true, _) => [32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320],
            (false, 1) => [32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256],
            (false, _) => [8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160],
        };
        let bits = 1_000 * kilobits.get(usize::from(c >> 4).checked_sub(1)?)?;
        let padding = u32::from(c >> 1 & 1);
        let bytes = match (layer, first) {
            (1, _) => (12 * bits / rate + padding) * 4,
            (3, false) => 72 * bits / rate + padding,
            _ => 144 * bits / rate + padding,
        };
        Some(Self { rate, channels: if d >> 6 == 3 { 1 } else { 2 }, layer, bytes: bytes as usize })
    }

    /// Whether `bytes` begin with three frames of one stream, which samples hardly do by chance. `None` if it takes more
    /// bytes to tell.
    pub fn begin(bytes: &[u8]) -> Option<bool> {
        let (mut at, mut first) = (0, None);
        for _ in 0..3 {
            let rest = bytes.get(at..at + 4)?;
            let Some(frame) = Self::read(rest) else { return Some(false) };
            let Self { rate, layer, .. } = *first.get_or_insert(frame);
            if (frame.rate, frame.layer) != (rate, layer) {
                return Some(false);
            }
            at += frame.bytes;
        }
        Some(true)
    }
}

/// Packets of which the demuxer cuts off what lies beyond the frames that a Xing or VBRI header counts. If it is more
/// than padding, the header is wrong, and they are heard whole.
pub struct Trimmed<E> {
    held: VecDeque<Packet>,
    /// Samples of a channel that are cut off.
    cut: u64,
    /// What came after the last packet.
    end: Option<Result<(), E>>,
}

impl<E> Default for Trimmed<E> {
    fn default() -> Self {
        Self { held: VecDeque::new(), cut: 0, end: None }
    }
}

impl<E> Trimmed<E> {
    /// The next packet to decode of those that `next` gives.
    pub fn next(&mut self, mut next: impl FnMut() -> Result<Option<Packet>, E>) -> Result<Option<Packet>, E> {
        while self.end.is_none() && (self.cut <= MOST_PADDING || self.held.is_empty()) {
            match next() {
                Ok(Some(packet)) if packet.trim_end == Duration::ZERO && self.held.is_empty() => {
                    return Ok(Some(packet));
                }
                Ok(Some(packet)) => {
                    self.cut += packet.trim_end.get();
                    self.held.push_back(packet);
                }
                Ok(None) => self.end = Some(Ok(())),
                Err(e) => self.end = Some(Err(e)),
            }
        }
        match self.held.pop_front() {
            Some(packet) if self.cut > MOST_PADDING => Ok(Some(whole(packet))),
            Some(packet) => Ok(Some(packet)),
            None => self.end.take().unwrap_or(Ok(())).map(|()| None),
        }
    }
}

/// The packet with what was cut off its end.
fn whole(mut packet: Packet) -> Packet {
    packet.dur = packet.dur.saturating_add(packet.trim_end);
    packet.trim_end = Duration::ZERO;
    packet
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_say_rate_channels_and_length() {
        let frame =
            |bytes: [u8; 4]| Frame::read(&bytes).map(|frame| (frame.rate, frame.channels, frame.bytes));
        // Lengths from ISO 11172-3 2.4.3.1: 144 * 128,000 / 44,100 = 417.9, 72 * 64,000 / 16,000 = 288.
        assert_eq!(frame([0xFF, 0xFB, 0x90, 0x64]), Some((44_100, 2, 417)));
        assert_eq!(frame([0xFF, 0xFB, 0x92, 0x64]), Some((44_100, 2, 418)));
        assert_eq!(frame([0xFF, 0xF3, 0x88, 0xC4]), Some((16_000, 1, 288)));
        for wrong in
            [[0xFF, 0xFB, 0xF0, 0], [0xFF, 0xFB, 0x9C, 0], [0xFF, 0xEB, 0x90, 0], [0xFF, 0x1B, 0x90, 0]]
        {
            assert_eq!(frame(wrong), None, "{wrong:x?}");
        }
    }
}
