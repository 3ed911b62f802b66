// SPDX-License-Identifier: MPL-2.0
//! Every kind of file that people have, and what becomes of it: the table of docs/files.md is this test.

use std::fs;
use std::io::{Cursor, Write};
use std::ops::ControlFlow;
use std::path::Path;

use super::{AudioFile, Decoder, Input, Standard, source};

/// Samples of the first 1.2 s of speech, which the fixtures hold.
const SAMPLES: usize = 19_200;
const BEGIN: &str = "<!-- by cli/src/audio/files.rs -->\n\n";
const END: &str = "\n<!-- end -->";

struct Case {
    /// What it is, for people.
    what: &'static str,
    extension: &'static str,
    bytes: Vec<u8>,
    expected: Expected,
}

enum Expected {
    /// So many samples, give or take some.
    Heard(usize),
    /// So many samples and an error with this in it.
    Warned(usize, &'static str),
    /// So many samples, by GStreamer.
    Elsewhere(usize),
    /// An error with this in it.
    Refused(&'static str),
}

use Expected::{Elsewhere, Heard, Refused, Warned};

mod made;

fn fixture(name: &str) -> Vec<u8> {
    fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)).unwrap()
}

fn speech() -> Vec<i16> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/data/speech.wav");
    let samples = hound::WavReader::open(path).unwrap().into_samples();
    samples.take(SAMPLES).map(Result::unwrap).collect()
}

fn pcm() -> Vec<u8> {
    speech().iter().flat_map(|sample| sample.to_le_bytes()).collect()
}

fn chunk(name: &[u8; 4], body: &[u8]) -> Vec<u8> {
    [name, &(body.len() as u32).to_le_bytes()[..], body].concat()
}

/// A `fmt ` chunk: tag, channels, rate, bytes a frame, bits, and more.
fn format(tag: u16, channels: u16, rate: u32, block: u16, bits: u16, more: &[u8]) -> Vec<u8> {
    let mut body = [tag.to_le_bytes(), channels.to_le_bytes()].concat();
    body.extend(rate.to_le_bytes());
    body.extend((rate * u32::from(block)).to_le_bytes());
    body.extend([block.to_le_bytes(), bits.to_le_bytes()].concat());
    body.extend(more);
    chunk(b"fmt ", &body)
}

fn plain() -> Vec<u8> {
    format(1, 1, 16_000, 2, 16, &[])
}

/// A WAV file of these chunks.
fn riff(chunks: &[&[u8]]) -> Vec<u8> {
    chunk(b"RIFF", &[b"WAVE", &chunks.concat()[..]].concat())
}

/// A WAV file with plain samples, four bytes of which are others.
fn changed(at: usize, value: u32) -> Vec<u8> {
    let mut bytes = riff(&[&plain(), &chunk(b"data", &pcm())]);
    bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
    bytes
}

/// Samples of another kind.
fn samples<const N: usize>(of: impl Fn(i16) -> [u8; N]) -> Vec<u8> {
    chunk(b"data", &speech().into_iter().flat_map(of).collect::<Vec<u8>>())
}

/// The `fmt ` chunk's extension: valid bits, places of the channels, kind of samples.
fn extension(bits: u16, mask: u32, tag: u16) -> Vec<u8> {
    let guid = b"\0\0\0\0\x10\0\x80\0\0\xaa\0\x38\x9b\x71";
    [&22_u16.to_le_bytes()[..], &bits.to_le_bytes(), &mask.to_le_bytes(), &tag.to_le_bytes(), guid].concat()
}

/// G.711: the sample that its decoder makes of each byte is nearest.
fn mu_law(sample: i16) -> [u8; 1] {
    let magnitude = (i32::from(sample).abs() + 132).min(32_767);
    let exponent = 23 - magnitude.leading_zeros() as i32;
    let mantissa = magnitude >> (exponent + 3) & 15;
    [!((if sample < 0 { 0x80 } else { 0 } | exponent << 4 | mantissa) as u8)]
}

/// The MP3 fixture, whose Xing header counts so many frames.
fn xing(frames: u32) -> Vec<u8> {
    let mut bytes = fixture("speech.mp3");
    let at = bytes.windows(4).position(|four| matches!(four, b"Xing" | b"Info")).unwrap();
    bytes[at + 8..at + 12].copy_from_slice(&frames.to_be_bytes());
    bytes
}

/// The FLAC fixture, whose header counts no samples.
fn uncounted_flac() -> Vec<u8> {
    let mut bytes = fixture("speech.flac");
    bytes[21] &= 0xF0;
    bytes[22..26].fill(0);
    bytes
}

fn behind(file: &str, tag: &[u8]) -> Vec<u8> {
    [fixture(file), tag.to_vec()].concat()
}

fn wav_cases() -> Vec<Case> {
    let data = chunk(b"data", &pcm());
    let wav = |what, bytes| Case { what, extension: ".wav", bytes, expected: Heard(SAMPLES) };
    let odd = chunk(b"LIST", b"INFOISFT\x03\0\0\0abc");
    let padded = [&odd[..], b"\0"].concat();
    let wide = |tag, bits| format(tag, 1, 16_000, bits / 8, bits, &[]);
    let ds64 = |form: &[u8; 4]| {
        let sizes = [0, pcm().len() as u64, SAMPLES as u64].map(u64::to_le_bytes).concat();
        let chunks =
            [&chunk(b"ds64", &[&sizes[..], &[0; 4]].concat())[..], &plain(), b"data\xff\xff\xff\xff", &pcm()];
        [&form[..], b"\xff\xff\xff\xffWAVE", &chunks.concat()].concat()
    };
    let other = riff(&[&format(1, 1, 8_000, 2, 16, &[]), &data]);
    let six: Vec<u8> = speech().iter().flat_map(|x| [0, 0, *x, 0, 0, 0]).flat_map(i16::to_le_bytes).collect();
    let id3v1 = [b"TAG".as_slice(), &[b' '; 125]].concat();
    vec![
        wav("WAV, 16-bit PCM", riff(&[&plain(), &data])),
        wav("WAV, 8-bit PCM", riff(&[&wide(1, 8), &samples(|x| [(x >> 8) as u8 ^ 0x80])])),
        wav("WAV, 24-bit PCM", riff(&[&wide(1, 24), &samples(|x| [0, x as u8, (x >> 8) as u8])])),
        wav("WAV, 32-bit PCM", riff(&[&wide(1, 32), &samples(|x| (i32::from(x) << 16).to_le_bytes())])),
        wav("WAV, 12-bit PCM in two bytes", riff(&[&format(1, 1, 16_000, 2, 12, &[]), &data])),
        wav(
            "WAV, 32-bit float",
            riff(&[&wide(3, 32), &samples(|x| (f32::from(x) / 32_768.0).to_le_bytes())]),
        ),
        wav(
            "WAV, 64-bit float",
            riff(&[&wide(3, 64), &samples(|x| (f64::from(x) / 32_768.0).to_le_bytes())]),
        ),
        wav("WAV, mu-law", riff(&[&format(7, 1, 16_000, 1, 8, &[]), &samples(mu_law)])),
        wav(
            "WAV, MP3 in it",
            riff(&[&format(0x55, 2, 22_050, 1, 0, &[0; 14]), &chunk(b"data", &fixture("speech.mp3"))]),
        ),
        wav(
            "WAV, extensible format",
            riff(&[&format(0xFFFE, 1, 16_000, 2, 16, &extension(16, 4, 1)), &data]),
        ),
        wav(
            "WAV, 5.1",
            riff(&[&format(0xFFFE, 6, 16_000, 12, 16, &extension(16, 0x3F, 1)), &chunk(b"data", &six)]),
        ),
        wav("WAV, RIFF length 0", changed(4, 0)),
        wav("WAV, RIFF length unknown (0xFFFFFFFF)", changed(4, u32::MAX)),
        wav("WAV, RIFF length too small", changed(4, 1_000)),
        wav("WAV, RIFF length too large", changed(4, 1 << 30)),
        wav("WAV, length of the samples 0, as in a stream", changed(40, 0)),
        wav("WAV, length of the samples unknown (0xFFFFFFFF)", changed(40, u32::MAX)),
        wav("WAV, length of the samples unknown (0x7FFFFFFF)", changed(40, 0x7FFF_FFFF)),
        wav("WAV, length of the samples too small", changed(40, 10_000)),
        Case {
            what: "WAV, cut off, or length of the samples too large",
            extension: ".wav",
            bytes: changed(40, 1 << 20),
            expected: Warned(SAMPLES, "cut off after 1.20 s"),
        },
        wav("WAV, LIST chunk of odd length", riff(&[&plain(), &padded, &data])),
        wav("WAV, LIST chunk of odd length without padding", riff(&[&plain(), &odd, &data])),
        wav("WAV, chunks behind the samples", riff(&[&plain(), &data, &padded, &chunk(b"id3 ", &[7; 900])])),
        wav("WAV, ID3v1 tag behind", [riff(&[&plain(), &data]), id3v1].concat()),
        wav(
            "WAV, ID3v2 tag in front",
            [b"ID3\x04\0\0\0\0\0\x05aaaaa".to_vec(), riff(&[&plain(), &data])].concat(),
        ),
        wav("WAV, half a sample at the end", [changed(40, u32::MAX), vec![1]].concat()),
        wav("RF64 (WAV beyond 4 GB)", ds64(b"RF64")),
        wav("BW64", ds64(b"BW64")),
        Case {
            expected: Heard(2 * SAMPLES),
            ..wav("two WAV files of one format, one behind the other", riff(&[&plain(), &data]).repeat(2))
        },
        Case {
            expected: Warned(SAMPLES, "another WAV file of another format follows"),
            ..wav(
                "two WAV files of different formats, one behind the other",
                [riff(&[&plain(), &data]), other].concat(),
            )
        },
        Case {
            expected: Refused("big-endian WAV"),
            ..wav("RIFX (big-endian WAV)", [b"RIFX", &riff(&[&plain(), &data])[4..]].concat())
        },
        Case { expected: Refused("without samples"), ..wav("WAV without samples", riff(&[&plain()])) },
    ]
}

fn compressed_cases() -> Vec<Case> {
    let case = |what, extension, bytes| Case { what, extension, bytes, expected: Heard(SAMPLES) };
    let id3v1 = [b"TAG".as_slice(), &[b' '; 125]].concat();
    let ape = [&[b'x'; 100][..], b"APETAGEX\xD0\x07\0\0\x84\0\0\0\x01\0\0\0", &[0; 12]].concat();
    let id3v2 = |rest: Vec<u8>| [b"ID3\x04\0\0\0\0\x02\x00".to_vec(), vec![0; 256], rest].concat();
    let mp3 = || fixture("speech.mp3");
    let bare_mp3 = || mp3()[mpeg_frame(&mp3())..].to_vec();
    let cut = |name: &str| {
        let bytes = fixture(name);
        bytes[..bytes.len() * 3 / 5].to_vec()
    };
    vec![
        case("FLAC", ".flac", fixture("speech.flac")),
        Case { expected: Heard(8_000), ..case("FLAC, 5.1", ".flac", fixture("surround.flac")) },
        case("FLAC, ID3v1 tag behind", ".flac", behind("speech.flac", &id3v1)),
        case("FLAC, APE tag behind", ".flac", behind("speech.flac", &ape)),
        case("FLAC, ID3v2 tag in front", ".flac", id3v2(fixture("speech.flac"))),
        case("FLAC, number of samples unknown", ".flac", uncounted_flac()),
        Case {
            expected: Warned(8_192, "ends in the middle"),
            ..case("FLAC, cut off", ".flac", cut("speech.flac"))
        },
        case("MP3", ".mp3", mp3()),
        // No header says how much the encoder added in front and behind.
        Case { expected: Heard(SAMPLES + 1_000), ..case("MP3 without a Xing header", ".mp3", bare_mp3()) },
        case("MP3, ID3v2 tag in front", ".mp3", id3v2(mp3())),
        case("MP3, ID3v1 tag behind", ".mp3", behind("speech.mp3", &id3v1)),
        case("MP3, APE and ID3v1 tag behind", ".mp3", behind("speech.mp3", &[ape, id3v1.clone()].concat())),
        Case { expected: Heard(SAMPLES + 800), ..case("MP3, Xing header of no frames", ".mp3", xing(0)) },
        Case {
            expected: Heard(SAMPLES + 800),
            ..case("MP3, Xing header of too few frames", ".mp3", xing(10))
        },
        Case {
            expected: Warned(SAMPLES + 800, "cut off after"),
            ..case("MP3, cut off, or Xing header of too many frames", ".mp3", xing(1_000))
        },
        Case {
            expected: Heard(2 * SAMPLES + 1_600),
            ..case("two MP3 files, one behind the other", ".mp3", mp3().repeat(2))
        },
        Case {
            expected: Heard(SAMPLES + 9_600 + 2_400),
            ..case(
                "two MP3 files of different rates and channels, one behind the other",
                ".mp3",
                [mp3(), fixture("slow.mp3")].concat(),
            )
        },
        case("Ogg Vorbis", ".ogg", fixture("speech.ogg")),
        Case { expected: Heard(8_000), ..case("Ogg Vorbis, 5.1", ".ogg", fixture("surround.ogg")) },
        Case {
            expected: Heard(2 * SAMPLES),
            ..case("Ogg Vorbis, chained", ".ogg", fixture("speech.ogg").repeat(2))
        },
        case("Ogg Vorbis, ID3v1 tag behind", ".ogg", behind("speech.ogg", &id3v1)),
    ]
}

fn foreign_cases() -> Vec<Case> {
    let case = |what, extension, bytes| Case { what, extension, bytes, expected: Elsewhere(SAMPLES) };
    // What no plugin is for, or no file of, is told with its name.
    let fake = |what, extension, begin: &[u8], name| Case {
        expected: Refused(name),
        ..case(what, extension, [begin, &[0x55; 5_000]].concat())
    };
    let h264 = "openh264enc ! h264parse";
    let aac = "voaacenc ! aacparse";
    let au = [24_u32, u32::MAX, 3, 16_000, 1].iter().flat_map(|number| number.to_be_bytes());
    let au =
        b".snd".iter().copied().chain(au).chain(speech().into_iter().flat_map(i16::to_be_bytes)).collect();
    vec![
        Case { expected: Elsewhere(4_800), ..case("Ogg Opus", ".ogg", fixture("opus.ogg")) },
        case("Ogg Speex", ".spx", made::sound("speexenc ! oggmux")),
        case("M4A, AAC", ".m4a", made::sound("audio/x-raw,rate=48000 ! voaacenc ! aacparse ! mp4mux")),
        case("MP4 video, H.264 and AAC", ".mp4", made::video(h264, aac, "mp4mux")),
        case("QuickTime video, H.264 and AAC", ".mov", made::video(h264, aac, "qtmux")),
        case("Matroska video, Theora and Opus", ".mkv", made::video("theoraenc", "opusenc", "matroskamux")),
        case("WebM video, VP8 and Opus", ".webm", made::video("vp8enc deadline=1", "opusenc", "webmmux")),
        case("Ogg video, Theora and Vorbis", ".ogv", made::video("theoraenc", "vorbisenc", "oggmux")),
        case("AVI video, Motion JPEG and PCM", ".avi", made::video("jpegenc", "identity", "avimux")),
        case("MPEG transport stream, H.264 and AAC", ".ts", made::video(h264, aac, "mpegtsmux")),
        case("Flash video, H.264 and AAC", ".flv", made::video(h264, aac, "flvmux")),
        case("AIFF", ".aiff", made::sound("audioconvert ! aiffmux")),
        case("AU", ".au", au),
        case("WavPack", ".wv", made::sound("audioconvert ! wavpackenc")),
        Case {
            expected: Refused("no sound in it"),
            ..case("video without sound", ".mp4", made::silent_video())
        },
        fake("Core Audio", ".caf", b"caff\0\x01\0\0", "a Core Audio file: "),
        fake("Windows Media", ".wma", b"\x30\x26\xB2\x75\x8E\x66\xCF\x11", "a Windows Media file: "),
        fake("AMR", ".amr", b"#!AMR\n", "an AMR file: "),
        fake("MPEG program stream", ".mpg", b"\0\0\x01\xBA", "an MPEG program stream: "),
    ]
}

/// Bytes of the first frame, which holds the Xing header.
fn mpeg_frame(bytes: &[u8]) -> usize {
    let start = bytes.iter().position(|byte| *byte == 0xFF).unwrap();
    start + super::mpeg::Frame::read(&bytes[start..]).unwrap().bytes
}

/// What comes of it: samples and whether there was an error, or only that.
fn hear(file: AudioFile) -> (usize, Result<(), String>) {
    let mut heard = 0;
    let result = file.read(&mut |pcm| {
        heard += pcm.len();
        ControlFlow::Continue(())
    });
    (heard, result.map(|warning| assert_eq!(warning, None)).map_err(|e| e.to_string()))
}

fn outcome(case: &Case, opened: Result<AudioFile, String>) -> Result<String, String> {
    let elsewhere = matches!(&opened, Ok(AudioFile { decoder: Decoder::GStreamer(_), .. }));
    match (&case.expected, opened.map(hear)) {
        (Elsewhere(count), Ok((heard, Ok(())))) if elsewhere && near(heard, *count) => {
            Ok("read, through GStreamer".into())
        }
        (Heard(count), Ok((heard, Ok(())))) if !elsewhere && near(heard, *count) => Ok("read".into()),
        (Warned(count, part), Ok((heard, Err(error)))) if near(heard, *count) && error.contains(part) => {
            Ok("read as far as it goes, then an error".into())
        }
        (Refused(part), Err(error)) if error.contains(part) => Ok("refused by name".into()),
        (_, other) => Err(format!("{}: {other:?}", case.what)),
    }
}

/// Encoders and headers that are wrong leave some samples more or less.
fn near(heard: usize, count: usize) -> bool {
    heard.abs_diff(count) <= 1_700 && heard > 0
}

#[test]
fn the_table_of_what_is_read_is_true() {
    let (mut rows, mut wrong) = (Vec::new(), Vec::new());
    for case in [wav_cases(), compressed_cases(), foreign_cases()].into_iter().flatten() {
        let mut file = tempfile::Builder::new().suffix(case.extension).tempfile().unwrap();
        file.write_all(&case.bytes).unwrap();
        let from_file = outcome(&case, AudioFile::open(file.path()).map_err(|e| e.to_string()));
        let from_pipe = match AudioFile::from_pipe(Cursor::new(case.bytes.clone())) {
            Ok(Standard::File(file)) => outcome(&case, Ok(*file)),
            Ok(Standard::Raw(_)) => Err(format!("{}: taken for raw samples", case.what)),
            Err(error) => outcome(&case, Err(error.to_string())),
        };
        match (from_file, from_pipe) {
            (Ok(file), Ok(pipe)) if file == pipe => rows.push(format!("| {} | {file} |\n", case.what)),
            (file, pipe) => wrong.push(format!("file {file:?}; pipe {pipe:?}")),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let table = format!("| file | from a file, a pipe or standard input |\n|---|---|\n{}", rows.concat());
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/files.md");
    let page = fs::read_to_string(page).unwrap();
    let (_, rest) = page.split_once(BEGIN).unwrap();
    let (shown, _) = rest.split_once(END).unwrap();
    assert!(shown == table, "docs/files.md shows another table than this:\n\n{table}");
}

#[test]
fn raw_samples_on_standard_input_stay_raw() {
    let begins: [&[u8]; 5] =
        [b"", b"\x01", &[0xFF, 0xF1, 0x50, 0x80], &[0xFF, 0xFB, 0x90, 0x64], b"RIFFs of a guitar"];
    for begin in begins {
        let bytes = [begin, &[0x12; 9_000]].concat();
        let Ok(Input::Raw(mut raw)) = source::standard_input(Cursor::new(bytes.clone())).unwrap() else {
            panic!("{begin:x?} is taken for a file");
        };
        let mut read = Vec::new();
        std::io::Read::read_to_end(&mut raw, &mut read).unwrap();
        assert!(read == bytes, "{begin:x?}");
    }
}
