// SPDX-License-Identifier: MPL-2.0
//! Files that GStreamer decodes: its `gst-launch-1.0`, in a process of its own, so that the tool runs without GStreamer.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::ops::ControlFlow;
use std::process::Command;
use std::time::Duration;

use super::mix::Layout;
use super::mixer::Mixer;
use super::process::{Ended, Process};

/// What runs the pipelines.
pub const PROGRAM: &str = "gst-launch-1.0";
/// A pipeline that gives nothing for so long hangs: it reads a film without sound to its end in less.
const PATIENCE: Duration = Duration::from_secs(300);
/// Bytes that are read at a time.
const PIECE: usize = 1 << 16;
/// Bytes, counting up from 0, that mark the end of the sound. GStreamer 1.22 loses the end of a pipeline, and runs for ever, if
/// that comes while it begins to play, as with short files; as samples no sound has them.
const MARK: usize = 256;
/// How often a file is played that ends before it is known how it sounds.
const ATTEMPTS: usize = 3;
/// How long a pipeline has to say what went wrong once its output has ended.
const LEAVE: Duration = Duration::from_secs(2);

/// A file whose first sound GStreamer has decoded.
pub struct Pipeline {
    file: File,
    format: Format,
}

/// Why it isn't decoded by GStreamer.
pub enum Elsewhere {
    /// There is no GStreamer.
    NotThere,
    /// It doesn't know what that is; with its words.
    Unknown(String),
    /// It fails.
    Refused(String),
}

/// What comes out of the decoder.
#[derive(Debug, PartialEq, Eq)]
struct Format {
    rate: u32,
    channels: usize,
    /// GStreamer's channel mask; 0 if nobody says where the channels are heard.
    mask: u64,
}

impl Pipeline {
    /// Decodes the first sound of `file`, a regular file, to learn its rate and channels.
    pub fn open(file: File) -> Result<Self, Elsewhere> {
        // What it told last may be lost with the end of a short file, as may the end.
        let mut ended = Ok(None);
        for _ in 0..ATTEMPTS {
            ended = Self::listen(&file);
            if !matches!(ended, Ok(None)) {
                break;
            }
        }
        match ended? {
            Some(format) => Ok(Self { file, format }),
            None => Err(Elsewhere::Refused("no sound in it".into())),
        }
    }

    /// Plays the file until it is known how it sounds; nothing if it ends before that.
    fn listen(file: &File) -> Result<Option<Format>, Elsewhere> {
        // In the time that it takes to play it, so that what it tells of the beginning comes before the end.
        let tail = "audioconvert name=in ! audio/x-raw,format=F32LE,layout=interleaved ! fakesink sync=true";
        let refused = |e: io::Error| Elsewhere::Refused(format!("{PROGRAM}: {e}"));
        let mut process = launch(file, "-v", tail).map_err(|e| match e.kind() {
            io::ErrorKind::NotFound => Elsewhere::NotThere,
            _ => refused(e),
        })?;
        let mut told = String::new();
        let mut lines = BufReader::new(&mut process);
        while lines.read_line(&mut told).map_err(refused)? > 0 {
            if let Some(format) = Format::of(&told) {
                return Ok(Some(format));
            }
        }
        let ended = process.finish(LEAVE).map_err(refused)?;
        if ended.success { Ok(None) } else { Err(reason(&ended, &told)) }
    }

    /// Gives the audio to `out` through a mixer, which is put into `mixer`, until `out` breaks. What the file has no sound
    /// for, at its beginning too, is silence.
    pub fn decode(
        self,
        channel: Option<usize>,
        mixer: &mut Option<Mixer>,
        out: &mut dyn FnMut(&[f32]) -> ControlFlow<()>,
    ) -> Result<(), String> {
        let Format { rate, channels, mask } = self.format;
        let mixer = Mixer::of_rate(mixer, rate, out)?;
        mixer.expect(&Layout::of_gstreamer(mask), channels, channel)?;
        let places = if channels > 1 { format!(",channel-mask=(bitmask){mask:#x}") } else { String::new() };
        let tail = format!(
            "identity single-segment=true ! audiorate ! audioconvert ! audioresample ! \
             audio/x-raw,format=F32LE,layout=interleaved,rate={rate},channels={channels}{places} ! \
             concat name=all ! fdsink fd=1 \
             fakesrc format=time num-buffers=1 sizetype=fixed sizemax={MARK} filltype=pattern-span ! all."
        );
        let fail = |e: io::Error| format!("{PROGRAM}: {e}");
        let mut process = launch(&self.file, "-q", &tail).map_err(fail)?;
        let mark: Vec<u8> = (0..MARK).map(|byte| byte as u8).collect();
        let (mut piece, mut held) = (vec![0; PIECE], Vec::new());
        let mut frames = 0;
        loop {
            let count = match process.read(&mut piece) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                other => other.map_err(fail)?,
            };
            held.extend_from_slice(&piece[..count]);
            let marked = held.ends_with(&mark);
            let ready = held.len() - if count > 0 { held.len().min(MARK) } else { 0 };
            let whole = ready - ready % (channels * 4);
            frames += whole / (channels * 4);
            let samples = held[..whole].chunks_exact(4);
            mixer.interleaved.clear();
            mixer.interleaved.extend(samples.map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])));
            held.drain(..whole);
            if whole > 0 && mixer.mix(out)?.is_break() {
                return Ok(());
            }
            if marked || count == 0 {
                break;
            }
        }
        if mixer.finish(out)?.is_break() {
            return Ok(());
        }
        let ended = process.finish(LEAVE).map_err(fail)?;
        let marked = held.ends_with(&mark);
        if marked && (ended.success || ended.given_up) {
            return Ok(());
        }
        let at = frames as f64 / f64::from(rate);
        match reason(&ended, "") {
            Elsewhere::Unknown(reason) | Elsewhere::Refused(reason) => {
                Err(format!("can't be read further than {at:.2} s: {reason}"))
            }
            Elsewhere::NotThere => Err(format!("can't be read further than {at:.2} s")),
        }
    }
}

/// Runs the decoder with `tail` behind it. The file is the process's standard input, so that no name has to be quoted.
fn launch(file: &File, flag: &str, tail: &str) -> io::Result<Process> {
    let head = "filesrc location=/dev/stdin ! decodebin expose-all-streams=false caps=audio/x-raw !";
    let mut command = Command::new(PROGRAM);
    command.arg(flag).args(head.split(' ')).args(tail.split(' '));
    // Its messages are read.
    command.env("LC_ALL", "C").stdin(file.try_clone()?);
    Process::start(&mut command, PATIENCE)
}

impl Format {
    /// Of the last line of what `gst-launch-1.0 -v` tells, if that is of what the decoder gives.
    fn of(told: &str) -> Option<Self> {
        let line = told.lines().last()?;
        // All that is behind the decoder has the same.
        let behind = ["GstAudioConvert:in.", "GstCapsFilter:capsfilter0.", "GstFakeSink:fakesink0."];
        let (pad, caps) = line.strip_prefix("/GstPipeline:pipeline0/")?.split_once(": caps = ")?;
        if !behind.iter().any(|element| pad.starts_with(element)) {
            return None;
        }
        let mask = field(caps, "channel-mask").and_then(|mask| mask.strip_prefix("0x"));
        Some(Self {
            rate: field(caps, "rate")?.parse().ok().filter(|rate| *rate > 0)?,
            channels: field(caps, "channels")?.parse().ok().filter(|channels| (1..=64).contains(channels))?,
            mask: mask.and_then(|mask| u64::from_str_radix(mask, 16).ok()).unwrap_or(0),
        })
    }
}

/// What `gst-launch-1.0 -v` tells of the pad whose name ends like this.
fn caps<'a>(told: &'a str, pad: &str) -> Option<&'a str> {
    told.lines()
        .find_map(|line| line.split_once(": caps = ").filter(|(name, _)| name.ends_with(pad)))
        .map(|(_, caps)| caps)
}

/// The value of a field of caps, without its type.
fn field<'a>(caps: &'a str, name: &str) -> Option<&'a str> {
    let value = caps.split(", ").find_map(|field| field.strip_prefix(name)?.strip_prefix('='))?;
    Some(value.rsplit_once(')').map_or(value, |(_, value)| value))
}

/// What a line says is missing, and the caps that it would take: `Missing decoder: AMR (audio/AMR, rate=(int)8000)`.
fn missing(line: &str) -> Option<(&str, &str)> {
    let (_, line) = line.strip_prefix("Missing ")?.split_once(": ")?;
    line.match_indices(" (").find_map(|(at, bracket)| {
        let caps = line[at + bracket.len()..].split([',', ')']).next()?;
        caps.contains('/').then_some((&line[..at], caps))
    })
}

/// What is wrong, for people, by GStreamer's messages and what it told of its pads.
fn reason(ended: &Ended, told: &str) -> Elsewhere {
    if ended.given_up {
        let minutes = PATIENCE.as_secs() / 60;
        return Elsewhere::Refused(format!("GStreamer gave nothing for {minutes} minutes and was ended"));
    }
    let container =
        caps(told, "GstTypeFindElement:typefind.GstPad:src").and_then(|caps| caps.split(',').next());
    let missing = ended.errors.lines().filter_map(missing);
    let missing: Vec<(&str, &str)> = missing.collect();
    let heard = |caps: &str| caps.starts_with("audio/") || container == Some(caps);
    if let Some((what, _)) = missing.iter().find(|(_, caps)| heard(caps)) {
        return Elsewhere::Refused(format!(
            "GStreamer has no plugin here for {what}; Debian has more of them in gstreamer1.0-plugins-bad, \
             gstreamer1.0-plugins-ugly and gstreamer1.0-libav"
        ));
    }
    if !missing.is_empty() {
        return Elsewhere::Refused("no sound in it".into());
    }
    let first =
        ended.errors.lines().find_map(|line| line.strip_prefix("ERROR: from element ")?.split_once(": "));
    match first {
        Some((element, message)) if element.ends_with("typefind") => Elsewhere::Unknown(message.into()),
        Some((_, message)) if message.starts_with("This appears to be") => Elsewhere::Unknown(message.into()),
        Some((_, message)) => Elsewhere::Refused(format!("GStreamer can't decode it: {message}")),
        None => {
            let line = ended.errors.lines().find(|line| !line.trim().is_empty()).unwrap_or("no reason given");
            Elsewhere::Refused(format!("{PROGRAM} failed: {line}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(errors: &str, told: &str) -> (bool, String) {
        match reason(&Ended { success: false, given_up: false, errors: errors.into() }, told) {
            Elsewhere::Unknown(reason) => (true, reason),
            Elsewhere::Refused(reason) => (false, reason),
            Elsewhere::NotThere => panic!("it is there"),
        }
    }

    #[test]
    fn rate_channels_and_places_are_read() {
        let told = "Setting pipeline to PAUSED ...\n\
             /GstPipeline:pipeline0/GstAudioConvert:in.GstPad:sink: caps = audio/x-raw, rate=(int)48000, \
             format=(string)F32LE, channels=(int)6, layout=(string)interleaved, channel-mask=(bitmask)0x000000000000003f\n";
        assert_eq!(Format::of(told), Some(Format { rate: 48_000, channels: 6, mask: 0x3f }));
        let mono = told.replace("(int)6", "(int)1").replace(", channel-mask=(bitmask)0x000000000000003f", "");
        assert_eq!(Format::of(&mono), Some(Format { rate: 48_000, channels: 1, mask: 0 }));
        assert_eq!(Format::of(&told.replace("(int)48000", "(int)0")), None);
        assert_eq!(Format::of("Prerolled"), None);
    }

    #[test]
    fn messages_become_reasons_with_a_remedy() {
        let missing = |what: &str| {
            format!(
                "ERROR: from element /GstPipeline:pipeline0/GstDecodeBin:decodebin0: Your GStreamer installation is \
                 missing a plug-in.\nAdditional debug info:\n../gst/x.c(4704): x ():\nno suitable plugins found:\n{what}\n"
            )
        };
        let told = "/GstPipeline:pipeline0/GstDecodeBin:decodebin0/GstTypeFindElement:typefind.GstPad:src: caps = \
                    video/x-ms-asf\n";
        let video = missing("Missing decoder: H.264 (Main Profile) (video/x-h264, width=(int)320)");
        assert_eq!(refusal(&video, told), (false, "no sound in it".into()));
        for (line, what) in [
            ("Missing decoder: ASF (video/x-ms-asf)", "for ASF;"),
            ("Missing decoder: AMR (audio/AMR, rate=(int)8000)", "for AMR;"),
        ] {
            let (unknown, reason) = refusal(&missing(line), told);
            assert!(!unknown && reason.contains(what) && reason.contains("gstreamer1.0-libav"), "{reason}");
        }
        let error = "ERROR: from element /GstPipeline:pipeline0/GstDecodeBin:decodebin0/GstTypeFindElement:typefind: \
                     Could not determine type of stream.\n";
        assert_eq!(refusal(error, ""), (true, "Could not determine type of stream.".into()));
        let error = "ERROR: from element /GstPipeline:pipeline0/GstFaad:faad0: Could not decode stream.\n";
        assert_eq!(refusal(error, ""), (false, "GStreamer can't decode it: Could not decode stream.".into()));
        assert_eq!(refusal("\nsh: no\n", ""), (false, "gst-launch-1.0 failed: sh: no".into()));
    }
}
