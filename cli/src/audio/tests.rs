// SPDX-License-Identifier: MPL-2.0
//! Every format and every kind of damage, against the same speech as plain samples.

use std::fs;
use std::io::{Cursor, Write};

use hound::{SampleFormat, WavSpec, WavWriter};

use super::*;

/// Samples of the first 1.2 s of speech, which the fixtures hold.
const FIXTURE: usize = 19_200;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)
}

fn speech() -> Vec<i16> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/data/speech.wav");
    hound::WavReader::open(path).unwrap().into_samples().map(Result::unwrap).collect()
}

fn as_f32(samples: &[i16]) -> Vec<f32> {
    samples.iter().map(|&s| f32::from(s) / 32_768.0).collect()
}

/// The samples of a file, and what was wrong with it.
fn read(path: &Path) -> (Vec<f32>, Result<(), String>) {
    let mut samples = Vec::new();
    let file = AudioFile::open(path).unwrap();
    let result = file.read(&mut |pcm| {
        samples.extend_from_slice(pcm);
        ControlFlow::Continue(())
    });
    (samples, result.map(drop).map_err(|e| e.to_string()))
}

fn read_bytes(extension: &str, bytes: &[u8]) -> (Vec<f32>, Result<(), String>) {
    let mut file = tempfile::Builder::new().suffix(extension).tempfile().unwrap();
    file.write_all(bytes).unwrap();
    read(file.path())
}

fn wav(rate: u32, channels: u16, samples: &[i16]) -> Vec<u8> {
    let spec = WavSpec { channels, sample_rate: rate, bits_per_sample: 16, sample_format: SampleFormat::Int };
    let mut bytes = Cursor::new(Vec::new());
    let mut writer = WavWriter::new(&mut bytes, spec).unwrap();
    samples.iter().for_each(|&s| writer.write_sample(s).unwrap());
    writer.finalize().unwrap();
    bytes.into_inner()
}

/// By how many samples `a` has to move to fit `b` best, within 100 either way, and how well it fits then (0 to 1).
fn shift(a: &[f32], b: &[f32]) -> (i64, f64) {
    let product = |shift: i64| -> f64 {
        (200..a.len().min(b.len()) - 200)
            .map(|i| f64::from(a[(i as i64 - shift) as usize]) * f64::from(b[i]))
            .sum()
    };
    let norm = |x: &[f32]| x.iter().map(|&s| f64::from(s).powi(2)).sum::<f64>().sqrt();
    let best = (-100..=100).max_by(|&x, &y| product(x).total_cmp(&product(y))).unwrap();
    (best, product(best) / norm(a) / norm(b))
}

#[test]
fn s16_wav_is_exact() {
    let samples = speech();
    assert_eq!(read_bytes(".wav", &wav(16_000, 1, &samples)), (as_f32(&samples), Ok(())));
    let extremes = [i16::MIN, -1, 0, 1, i16::MAX];
    assert_eq!(read_bytes(".wav", &wav(16_000, 1, &extremes)), (as_f32(&extremes), Ok(())));
}

#[test]
fn channels_are_averaged() {
    let stereo = [100, 300, -4_000, 2_000, 32_767, 32_767];
    let expected = as_f32(&[200, -1_000, 32_767]);
    assert_eq!(read_bytes(".wav", &wav(16_000, 2, &stereo)), (expected, Ok(())));
}

#[test]
fn empty_wav_is_no_audio() {
    assert_eq!(read_bytes(".wav", &wav(44_100, 2, &[])), (Vec::new(), Ok(())));
}

#[test]
fn other_rates_keep_length_and_place() {
    let speech = as_f32(&speech());
    for rate in [8_000u32, 44_100, 48_000] {
        let mut up = Vec::new();
        // Linear interpolation is good enough to see that nothing moved.
        for i in 0..speech.len() as u64 * u64::from(rate) / 16_000 {
            let at = i as f64 * 16_000.0 / f64::from(rate);
            let (index, part) = (at as usize, at.fract() as f32);
            let next = speech.get(index + 1).copied().unwrap_or(0.0);
            up.push(((speech[index] * (1.0 - part) + next * part) * 32_767.0) as i16);
        }
        let (samples, result) = read_bytes(".wav", &wav(rate, 1, &up));
        assert_eq!((samples.len(), result), (speech.len(), Ok(())), "{rate} Hz");
        let (moved, fit) = shift(&samples, &speech);
        assert!(moved == 0 && fit > 0.9, "{rate} Hz moved by {moved}, fits {fit}");
    }
}

#[test]
fn flac_is_exact() {
    assert_eq!(read(&fixture("speech.flac")), (as_f32(&speech()[..FIXTURE]), Ok(())));
}

#[test]
fn lossy_formats_keep_length_and_place() {
    let speech = as_f32(&speech()[..FIXTURE]);
    for name in ["speech.mp3", "speech.ogg"] {
        let (samples, result) = read(&fixture(name));
        assert_eq!((samples.len(), result), (FIXTURE, Ok(())), "{name}");
        let (moved, fit) = shift(&samples, &speech);
        assert!(moved.abs() <= 1 && fit > 0.9, "{name} moved by {moved}, fits {fit}");
    }
}

#[test]
fn wav_recorded_to_a_pipe_is_read_to_its_end() {
    let samples = &speech()[..5_001];
    for placeholder in [u32::MAX, 0x7FFF_FFFF, 0] {
        let mut bytes = wav(16_000, 1, samples);
        bytes[40..44].copy_from_slice(&placeholder.to_le_bytes());
        assert_eq!(read_bytes(".wav", &bytes), (as_f32(samples), Ok(())), "{placeholder:#x}");
    }
}

#[test]
fn cut_files_give_what_they_have_and_say_so() {
    let samples = speech();
    let (read, result) = read_bytes(".wav", &wav(16_000, 1, &samples)[..44 + 10_000]);
    assert_eq!(read, as_f32(&samples[..5_000]));
    assert!(result.unwrap_err().contains("cut off after 0.31 s"));

    for name in ["speech.flac", "speech.mp3", "speech.ogg"] {
        let bytes = fs::read(fixture(name)).unwrap();
        let (read, result) = read_bytes(name, &bytes[..bytes.len() * 3 / 5]);
        assert!(read.len() > FIXTURE / 4 && read.len() < FIXTURE, "{name}: {} samples", read.len());
        if name != "speech.ogg" {
            assert!(result.is_err(), "{name}");
        }
    }
}

#[test]
fn damage_becomes_silence_and_an_error() {
    let expected = as_f32(&speech()[..FIXTURE]);
    let mut bytes = fs::read(fixture("speech.flac")).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle..middle + 40].fill(0x55);
    let (samples, result) = read_bytes(".flac", &bytes);
    assert!(result.unwrap_err().contains("damaged"));
    assert_eq!(samples.len(), FIXTURE);
    assert_eq!(samples[..4_096], expected[..4_096]);
    assert_eq!(
        samples[FIXTURE - 4_096..],
        expected[FIXTURE - 4_096..],
        "what follows the damage keeps its time"
    );
}

#[test]
fn raw_input_comes_in_any_pieces() {
    struct Trickle<'a>(&'a [u8], usize);
    impl Read for Trickle<'_> {
        fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
            let n = self.1.min(self.0.len()).min(out.len());
            out[..n].copy_from_slice(&self.0[..n]);
            self.0 = &self.0[n..];
            Ok(n)
        }
    }
    let samples = &speech()[..10_000];
    let mut bytes: Vec<u8> = samples.iter().flat_map(|s| s.to_le_bytes()).collect();
    for odd in [false, true] {
        for piece in [1, 2, 3, 8_191, 8_192, 100_000] {
            let mut read = Vec::new();
            let half = read_raw(Trickle(&bytes, piece), &mut |pcm| {
                read.extend_from_slice(pcm);
                ControlFlow::Continue(())
            });
            assert_eq!((read, half.unwrap()), (as_f32(samples), odd), "pieces of {piece}");
        }
        bytes.push(1);
    }
}

#[test]
fn what_is_no_sound_file_is_refused_by_name() {
    let refused = |path: &Path| AudioFile::open(path).err().map(|e| e.to_string()).unwrap();
    let readme = refused(&fixture("README.md"));
    assert!(readme.contains("README.md: not a sound file") && readme.contains("FLAC"), "{readme}");
    let empty = tempfile::NamedTempFile::new().unwrap();
    assert!(refused(empty.path()).contains("is empty, expected WAV"));
    assert!(refused(Path::new("/no/such.wav")).starts_with("/no/such.wav: "));
    assert!(refused(Path::new("/")).contains("is a directory"));
}

#[test]
fn reading_stops_when_told() {
    let mut calls = 0;
    let result = AudioFile::open(&fixture("speech.flac")).unwrap().read(&mut |_| {
        calls += 1;
        ControlFlow::Break(())
    });
    assert!(result.is_ok());
    assert_eq!(calls, 1);
}
