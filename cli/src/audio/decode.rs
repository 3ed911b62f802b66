// SPDX-License-Identifier: MPL-2.0
//! The files that are decoded here.

use std::io;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::atomic::Ordering;

use symphonia::core::codecs::audio::{AudioDecoder, AudioDecoderOptions};
use symphonia::core::errors::Error as SymphoniaError;
use symphonia::core::formats::probe::Hint;
use symphonia::core::formats::{FormatReader, Track, TrackType};
use symphonia::core::io::MediaSourceStream;
use symphonia::core::packet::Packet;

use super::FORMATS;
use super::mix::Layout;
use super::mixer::Mixer;
use super::mpeg::{Frame, Trimmed};
use super::source::{Refusal, Source, WavFacts};

/// A container whose codec is known.
pub struct Decoding {
    format: Box<dyn FormatReader>,
    decoder: Box<dyn AudioDecoder>,
    track: Track,
    wav: Option<WavFacts>,
    /// Rate and number of channels of the last frame of MPEG audio.
    mpeg: Option<(u32, u16)>,
}

impl Decoding {
    /// Reads the headers of `source`; `path` may have an extension that says what it is.
    pub fn new(path: &Path, source: Source) -> Result<Self, Refusal> {
        let mut hint = Hint::new();
        if let Some(extension) = path.extension().and_then(|e| e.to_str()) {
            hint.with_extension(extension);
        }
        let stream = MediaSourceStream::new(source.media, Default::default());
        let format = symphonia::default::get_probe()
            .probe(&hint, stream, Default::default(), Default::default())
            .map_err(|e| Refusal::Unknown(format!("not a sound file that can be read ({e}), {FORMATS}")))?;
        let (track, decoder) = start(&*format).map_err(Refusal::Unknown)?;
        Ok(Self { format, decoder, track, wav: source.wav, mpeg: None })
    }

    /// Length in seconds, where the file tells.
    pub fn seconds(&self) -> Option<f64> {
        if let Some(wav) = &self.wav {
            return wav.seconds;
        }
        let rate = self.track.codec_params.as_ref()?.audio()?.sample_rate?;
        Some(self.track.num_frames? as f64 / f64::from(rate))
    }

    /// Gives the audio to `out` through a mixer, which is put into `mixer`, until `out` breaks.
    pub fn decode(
        &mut self,
        channel: Option<usize>,
        mixer: &mut Option<Mixer>,
        out: &mut dyn FnMut(&[f32]) -> ControlFlow<()>,
    ) -> Result<(), String> {
        let mut damage = Damage::default();
        let mut trimmed = Trimmed::default();
        let mut next = None;
        let mut frames = 0;
        let end = loop {
            let packet = match trimmed.next(|| self.format.next_packet()) {
                Ok(Some(packet)) => packet,
                Ok(None) => break Ok(()),
                // A chained Ogg file: the next stream may differ in everything, and its clock starts anew.
                Err(SymphoniaError::ResetRequired) => {
                    (self.track, self.decoder) = start(&*self.format)?;
                    (next, frames, trimmed) = (None, 0, Trimmed::default());
                    continue;
                }
                Err(e) => break Err(e),
            };
            if packet.track_id != self.track.id {
                continue;
            }
            self.follow(&packet)?;
            let (lost, reason) = match self.decoder.decode(&packet) {
                Ok(decoded) => {
                    let (channels, rate) = (decoded.num_planes(), decoded.spec().rate());
                    let layout = match &self.wav {
                        Some(wav) => wav.mask.map_or(Layout::Unknown, Layout::of_mask),
                        None => Layout::of(decoded.spec().channels()),
                    };
                    let mixer = Mixer::of_rate(mixer, rate, out)?;
                    mixer.expect(&layout, channels, channel)?;
                    let gap = next
                        .map_or(0, |next| plausible(packet.pts.get() - next, self.track.num_frames, frames));
                    next = Some(packet.pts.get() + packet.trim_start.get() as i64 + decoded.frames() as i64);
                    if gap > 0 {
                        damage.note(frames, rate, "part of the file is missing");
                    }
                    decoded.copy_to_vec_interleaved(&mut mixer.interleaved);
                    frames += gap + decoded.frames() as u64;
                    if mixer.silence(gap, out)?.is_break() || mixer.mix(out)?.is_break() {
                        return Ok(());
                    }
                    continue;
                }
                Err(SymphoniaError::DecodeError(reason)) => (playable(&packet), reason),
                Err(SymphoniaError::ResetRequired) => {
                    self.decoder.reset();
                    (playable(&packet), "the codec's parameters change")
                }
                Err(e) => break Err(e),
            };
            let rate = self.rate();
            damage.note(frames, rate, reason);
            next = Some(packet.pts.get() + packet.trim_start.get() as i64 + lost as i64);
            frames += lost;
            if Mixer::of_rate(mixer, rate, out)?.silence(lost, out)?.is_break() {
                return Ok(());
            }
        };
        if let Some(mixer) = mixer
            && mixer.finish(out)?.is_break()
        {
            return Ok(());
        }
        self.verdict(end, damage, frames)
    }

    /// Takes a fresh decoder where rate or channels of MPEG audio change, as where files were put one behind the other.
    fn follow(&mut self, packet: &Packet) -> Result<(), String> {
        if !self.format.format_info().short_name.starts_with("mp") {
            return Ok(());
        }
        let Some(frame) = Frame::read(&packet.data) else { return Ok(()) };
        let now = (frame.rate, frame.channels);
        if self.mpeg.replace(now).is_some_and(|before| before != now) {
            (_, self.decoder) = start(&*self.format)?;
        }
        Ok(())
    }

    /// What was wrong, once everything that could be read was given out.
    fn verdict(
        &mut self,
        end: Result<(), SymphoniaError>,
        damage: Damage,
        frames: u64,
    ) -> Result<(), String> {
        let rate = self.rate();
        let at = |frames: u64| format!("{:.2} s", frames as f64 / f64::from(rate));
        match end {
            // Samples of unknown length just end.
            Err(SymphoniaError::IoError(e))
                if e.kind() == io::ErrorKind::UnexpectedEof && self.wav.is_some() => {}
            Err(SymphoniaError::IoError(e)) if e.kind() == io::ErrorKind::UnexpectedEof => {
                return Err(format!("the file ends in the middle of a packet, after {}", at(frames)));
            }
            Err(e) => return Err(format!("can't be read further than {}: {e}", at(frames))),
            Ok(()) => {}
        }
        if let Some((position, rate, reason)) = damage.first {
            let position = position as f64 / f64::from(rate);
            let more =
                if damage.count > 1 { format!(" and {} more", damage.count - 1) } else { String::new() };
            return Err(format!("damaged at {position:.2} s{more} (silence in its place): {reason}"));
        }
        let missing = self.wav.as_ref().map_or(0, |wav| wav.missing.load(Ordering::Relaxed));
        if missing > 0 {
            return Err(format!("the file is cut off after {}: {missing} bytes are missing", at(frames)));
        }
        // Without an encoder's tag the length of an MP3 file is only an estimate.
        let exact = self.format.format_info().short_name != "mp3" || self.track.delay.is_some();
        if let Some(promised) = self.track.num_frames.filter(|_| exact)
            && frames + u64::from(rate / 10) < promised
        {
            return Err(format!("the file is cut off after {} of {}", at(frames), at(promised)));
        }
        if self.decoder.finalize().verify_ok == Some(false) {
            return Err("damaged: the checksum of the audio is wrong".into());
        }
        Ok(())
    }

    fn rate(&self) -> u32 {
        if let Some((rate, _)) = self.mpeg {
            return rate;
        }
        let audio = self.track.codec_params.as_ref().and_then(|p| p.audio());
        audio.and_then(|p| p.sample_rate).unwrap_or(crate::resample::RATE)
    }
}

/// The first audio track and its decoder.
fn start(format: &dyn FormatReader) -> Result<(Track, Box<dyn AudioDecoder>), String> {
    let track = format.default_track(TrackType::Audio).ok_or_else(|| format!("no audio in it, {FORMATS}"))?;
    let params = track.codec_params.as_ref().and_then(|p| p.audio());
    let params = params.ok_or_else(|| format!("an audio codec that isn't supported, {FORMATS}"))?;
    let options = AudioDecoderOptions::default().verify(true);
    let decoder = symphonia::default::get_codecs()
        .make_audio_decoder(params, &options)
        .map_err(|_| format!("an audio codec that isn't supported, {FORMATS}"))?;
    Ok((track.clone(), decoder))
}

/// Frames of a packet that would have been heard.
fn playable(packet: &Packet) -> u64 {
    packet.dur.get()
}

/// A jump of the packets' clock by `gap` frames, if a file of `total` frames has room for it after `frames`; else 0.
fn plausible(gap: i64, total: Option<u64>, frames: u64) -> u64 {
    let room = total.map_or(0, |total| total.saturating_sub(frames));
    u64::try_from(gap).ok().filter(|&gap| gap <= room).unwrap_or(0)
}

/// Damaged places of a file: how many, and the first with its position in frames, rate and reason.
#[derive(Default)]
struct Damage {
    count: usize,
    first: Option<(u64, u32, &'static str)>,
}

impl Damage {
    fn note(&mut self, position: u64, rate: u32, reason: &'static str) {
        self.count += 1;
        self.first.get_or_insert((position, rate, reason));
    }
}
