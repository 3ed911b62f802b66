// SPDX-License-Identifier: MPL-2.0
//! Audio files of any rate and channel count, and raw standard input, as 16 kHz mono.

use std::fs::File;
use std::io::{self, Read};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use symphonia::core::codecs::audio::{AudioDecoder, AudioDecoderOptions};
use symphonia::core::errors::Error as SymphoniaError;
use symphonia::core::formats::probe::Hint;
use symphonia::core::formats::{FormatReader, Track, TrackType};
use symphonia::core::io::MediaSourceStream;
use symphonia::core::packet::Packet;

use crate::failure::Failure;
use crate::resample::To16k;
use mix::{Downmix, Layout};
use mpeg::{Frame, Trimmed};
use source::{Input, Source, WavFacts};

mod mix;
mod mpeg;
mod source;
mod tags;
mod wav;

const FORMATS: &str = "expected WAV, FLAC, MP3 or Ogg Vorbis";

/// A sound file that is open and whose codec is known.
pub struct AudioFile {
    path: PathBuf,
    format: Box<dyn FormatReader>,
    decoder: Box<dyn AudioDecoder>,
    track: Track,
    wav: Option<WavFacts>,
    /// The channel to hear, counted from 1; all of them if none is named.
    channel: Option<usize>,
    /// Rate and number of channels of the last frame of MPEG audio.
    mpeg: Option<(u32, u16)>,
}

/// What comes from standard input.
pub enum Standard {
    /// A sound file.
    File(Box<AudioFile>),
    /// Raw 16 kHz mono S16LE samples.
    Raw(Box<dyn Read>),
}

impl AudioFile {
    /// Opens `path` and reads its headers.
    pub fn open(path: &Path) -> Result<Self, Failure> {
        let fail = |reason: String| Failure::file(path, reason);
        let file = File::open(path).map_err(|e| fail(e.to_string()))?;
        if file.metadata().is_ok_and(|m| m.is_dir()) {
            return Err(fail(format!("is a directory, {FORMATS}")));
        }
        let source = source::open(file).map_err(|e| fail(e.to_string()))?.map_err(fail)?;
        Self::of(path, source)
    }

    /// Waits for the first bytes of standard input.
    pub fn standard_input() -> Result<Standard, Failure> {
        let path = Path::new("standard input");
        let fail = |reason: String| Failure::file(path, reason);
        match source::standard_input(io::stdin()).map_err(|e| fail(e.to_string()))?.map_err(fail)? {
            Input::Sound(source) => Ok(Standard::File(Box::new(Self::of(path, source)?))),
            Input::Raw(samples) => Ok(Standard::Raw(Box::new(samples))),
        }
    }

    fn of(path: &Path, source: Source) -> Result<Self, Failure> {
        let fail = |reason: String| Failure::file(path, reason);
        let mut hint = Hint::new();
        if let Some(extension) = path.extension().and_then(|e| e.to_str()) {
            hint.with_extension(extension);
        }
        let stream = MediaSourceStream::new(source.media, Default::default());
        let format = symphonia::default::get_probe()
            .probe(&hint, stream, Default::default(), Default::default())
            .map_err(|e| fail(format!("not a sound file that can be read ({e}), {FORMATS}")))?;
        let (track, decoder) = start(&*format).map_err(fail)?;
        Ok(Self { path: path.to_owned(), format, decoder, track, wav: source.wav, channel: None, mpeg: None })
    }

    /// Hears only this channel, counted from 1. It is an error of [`AudioFile::read`] if there is no such.
    pub fn only(self, channel: Option<usize>) -> Self {
        Self { channel, ..self }
    }

    /// Length in seconds, where the file tells.
    pub fn seconds(&self) -> Option<f64> {
        if let Some(wav) = &self.wav {
            return wav.seconds;
        }
        let rate = self.track.codec_params.as_ref()?.audio()?.sample_rate?;
        Some(self.track.num_frames? as f64 / f64::from(rate))
    }

    /// Decodes the file and gives its audio, in pieces of any size, to `out`, until that breaks. The result may be a
    /// warning for people.
    ///
    /// Damaged packets become silence, so that the times after them stay right, and are the error at the end.
    pub fn read(mut self, out: &mut dyn FnMut(&[f32]) -> ControlFlow<()>) -> Result<Option<String>, Failure> {
        let path = self.path.clone();
        let mut mixer = None;
        self.decode(&mut mixer, out).map_err(|reason| Failure::file(&path, reason))?;
        let cancelled = mixer.and_then(|mixer: Mixer| mixer.cancelled());
        Ok(cancelled.map(|(channel, seconds)| {
            format!(
                "{}: its channels cancel each other for {seconds:.1} s, where channel {channel} was heard alone",
                path.display()
            )
        }))
    }

    fn decode(
        &mut self,
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
                    mixer.expect(&layout, channels, self.channel)?;
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

/// Channels to one, any rate to 16 kHz.
struct Mixer {
    rate: u32,
    converter: To16k,
    downmix: Option<Downmix>,
    /// Channel that was heard instead of a mix that cancels, and for how many seconds, before `downmix`.
    cancelled: Option<(usize, f64)>,
    interleaved: Vec<f32>,
    mono: Vec<f32>,
    ready: Vec<f32>,
}

impl Mixer {
    /// The mixer for `rate`; if the one in `slot` is for another, that one is finished first.
    fn of_rate<'a>(
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
    fn expect(&mut self, layout: &Layout, channels: usize, wanted: Option<usize>) -> Result<(), String> {
        if self.downmix.as_ref().is_none_or(|downmix| downmix.channels() != channels) {
            let downmix = Downmix::new(layout, channels, wanted)?;
            self.cancelled = self.cancelled();
            self.downmix = Some(downmix);
        }
        Ok(())
    }

    /// The first channel, counted from 1, that was heard instead of a mix that cancels, and for how many seconds one was.
    fn cancelled(&self) -> Option<(usize, f64)> {
        let now = self.downmix.as_ref().and_then(Downmix::cancelled);
        let now = now.map(|(channel, frames)| (channel, frames as f64 / f64::from(self.rate)));
        match (self.cancelled, now) {
            (Some((channel, before)), Some((_, now))) => Some((channel, before + now)),
            (before, now) => before.or(now),
        }
    }

    /// Gives on what is in `interleaved`.
    fn mix(&mut self, out: &mut dyn FnMut(&[f32]) -> ControlFlow<()>) -> Result<ControlFlow<()>, String> {
        self.mono.clear();
        if let Some(downmix) = &mut self.downmix {
            downmix.mix(&self.interleaved, &mut self.mono);
        }
        self.converter.push(&self.mono, &mut self.ready)?;
        Ok(self.give(out))
    }

    fn silence(
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

    fn finish(&mut self, out: &mut dyn FnMut(&[f32]) -> ControlFlow<()>) -> Result<ControlFlow<()>, String> {
        self.converter.finish(&mut self.ready)?;
        Ok(self.give(out))
    }

    fn give(&mut self, out: &mut dyn FnMut(&[f32]) -> ControlFlow<()>) -> ControlFlow<()> {
        let flow = if self.ready.is_empty() { ControlFlow::Continue(()) } else { out(&self.ready) };
        self.ready.clear();
        flow
    }
}

/// All audio of the file `path`; it is an error if there is none.
pub fn read_whole(path: &Path) -> Result<Vec<f32>, Failure> {
    let mut pcm = Vec::new();
    AudioFile::open(path)?.read(&mut |piece| {
        pcm.extend_from_slice(piece);
        ControlFlow::Continue(())
    })?;
    if pcm.is_empty() {
        return Err(Failure::file(path, "holds no audio"));
    }
    Ok(pcm)
}

/// Gives raw 16 kHz mono S16LE audio from `input` to `out` as it arrives. The result says whether the last byte was
/// half a sample.
pub fn read_raw(mut input: impl Read, out: &mut dyn FnMut(&[f32]) -> ControlFlow<()>) -> io::Result<bool> {
    let mut bytes = [0; 8_192];
    let mut held = 0;
    loop {
        let got = match input.read(&mut bytes[held..]) {
            Ok(0) => return Ok(held == 1),
            Ok(got) => held + got,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(e),
        };
        let samples: Vec<f32> = bytes[..got]
            .chunks_exact(2)
            .map(|b| f32::from(i16::from_le_bytes([b[0], b[1]])) / 32_768.0)
            .collect();
        held = got % 2;
        bytes[0] = bytes[got - 1];
        if !samples.is_empty() && out(&samples).is_break() {
            return Ok(false);
        }
    }
}

#[cfg(test)]
mod files;
#[cfg(test)]
mod tests;
