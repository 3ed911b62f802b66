// SPDX-License-Identifier: MPL-2.0
//! Checkpoints that somebody spoiled on purpose or by accident: refused or converted, without a panic and within bounds
//! of memory that don't depend on what a file claims.

use std::fs;
use std::io::{Cursor, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use flate2::read::GzDecoder;
use parakeet_engine::convert::{ConvertOptions, convert, describe};
use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::FileFailurePersistence;
use zip::write::SimpleFileOptions;
use zip::{ZipArchive, ZipWriter};

/// Address space that a test process may ever have had, most of it thread stacks and the allocator's reserves.
const ADDRESS_SPACE: u64 = 4 << 30;

fn data(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(path)
}

/// A change to some bytes.
#[derive(Clone, Debug)]
enum Damage {
    Flip(Index, u8),
    Truncate(Index),
    /// A little endian number, such as a length, over what was there.
    Number(Index, u64, usize),
    /// The text of a number, such as a length in JSON, over the digits there.
    Digits(Index, u64),
    Insert(Index, Vec<u8>),
    /// A part of the file over another.
    Copy(Index, Index, usize),
    Remove(Index, usize),
}

fn damage() -> impl Strategy<Value = Damage> {
    let numbers = prop_oneof![
        any::<u64>(),
        Just(u64::MAX),
        Just(i64::MAX as u64),
        Just(10 << 30),
        Just(u64::from(u32::MAX)),
        Just(1 << 20),
        Just(0),
    ];
    let at = any::<Index>;
    prop_oneof![
        4 => (at(), 1..=255_u8).prop_map(|(at, mask)| Damage::Flip(at, mask)),
        1 => at().prop_map(Damage::Truncate),
        4 => (at(), numbers.clone(), prop_oneof![Just(2_usize), Just(4), Just(8)])
            .prop_map(|(at, number, width)| Damage::Number(at, number, width)),
        2 => (at(), numbers).prop_map(|(at, number)| Damage::Digits(at, number)),
        1 => (at(), prop::collection::vec(any::<u8>(), 1..40)).prop_map(|(at, bytes)| Damage::Insert(at, bytes)),
        2 => (at(), at(), 1..300_usize).prop_map(|(from, to, length)| Damage::Copy(from, to, length)),
        1 => (at(), 1..300_usize).prop_map(|(at, length)| Damage::Remove(at, length)),
    ]
}

fn damages() -> impl Strategy<Value = Vec<Damage>> {
    prop::collection::vec(damage(), 1..4)
}

fn spoil(bytes: &mut Vec<u8>, damages: &[Damage]) {
    for damage in damages {
        if bytes.is_empty() {
            return;
        }
        let length = bytes.len();
        match damage {
            Damage::Flip(at, mask) => bytes[at.index(length)] ^= mask,
            Damage::Truncate(at) => bytes.truncate(at.index(length)),
            Damage::Number(at, number, width) => {
                let at = at.index(length);
                let width = (*width).min(length - at);
                bytes[at..at + width].copy_from_slice(&number.to_le_bytes()[..width]);
            }
            Damage::Digits(at, number) => {
                let at = at.index(length);
                let digits = |range: &[u8]| range.iter().take_while(|b| b.is_ascii_digit()).count();
                if let Some(start) = (at..length).find(|&i| bytes[i].is_ascii_digit()) {
                    let end = start + digits(&bytes[start..]);
                    bytes.splice(start..end, number.to_string().into_bytes());
                }
            }
            Damage::Insert(at, more) => {
                let at = at.index(length);
                bytes.splice(at..at, more.iter().copied());
            }
            Damage::Copy(from, to, count) => {
                let (from, to) = (from.index(length), to.index(length));
                let count = (*count).min(length - from.max(to));
                bytes.copy_within(from..from + count, to);
            }
            Damage::Remove(at, count) => {
                let at = at.index(length);
                bytes.drain(at..(at + count).min(length));
            }
        }
    }
}

/// A NeMo checkpoint taken apart.
struct Parts {
    yaml: Vec<u8>,
    tokenizer: (String, Vec<u8>),
    /// Entries of the zip archive; the first is the pickle.
    entries: Vec<(String, Vec<u8>)>,
}

static PARTS: LazyLock<Parts> = LazyLock::new(|| {
    let packed = fs::File::open(data("oracle/rnnt/model.nemo")).expect("the fixture is in the tree");
    let mut archive = tar::Archive::new(GzDecoder::new(packed));
    let (mut yaml, mut tokenizer, mut weights) = (Vec::new(), None, Vec::new());
    for entry in archive.entries().expect("a sound archive") {
        let mut entry = entry.expect("a sound archive");
        let name = entry.path().expect("a plain name").to_string_lossy().into_owned();
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).expect("a whole file");
        match name.as_str() {
            _ if name.ends_with("model_config.yaml") => yaml = bytes,
            _ if name.ends_with("model_weights.ckpt") => weights = bytes,
            _ if name.ends_with("_tokenizer.model") => tokenizer = Some((name, bytes)),
            _ => {}
        }
    }
    let mut zip = ZipArchive::new(Cursor::new(weights)).expect("a sound checkpoint");
    let mut entries = Vec::new();
    for index in 0..zip.len() {
        let mut entry = zip.by_index(index).expect("a sound checkpoint");
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).expect("a whole entry");
        entries.push((entry.name().expect("a plain name").to_string(), bytes));
    }
    let pickle = entries.iter().position(|(name, _)| name.ends_with("data.pkl")).expect("a pickle");
    entries.swap(0, pickle);
    Parts { yaml, tokenizer: tokenizer.expect("a tokenizer"), entries }
});

fn zip_of(entries: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, bytes) in entries {
        let options = SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
        zip.start_file(name.as_str(), options).expect("memory");
        zip.write_all(bytes).expect("memory");
    }
    zip.finish().expect("memory").into_inner()
}

fn tar_of(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, bytes) in members {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, name, *bytes).expect("memory");
    }
    builder.into_inner().expect("memory")
}

fn nemo_of(yaml: &[u8], tokenizer: &[u8], weights: &[u8]) -> Vec<u8> {
    let name = PARTS.tokenizer.0.trim_start_matches("./");
    tar_of(&[("model_config.yaml", yaml), (name, tokenizer), ("model_weights.ckpt", weights)])
}

/// Converts and describes what is at `path`, and says whether that worked; nothing may be left of a failure.
fn attempt(path: &Path, dir: &Path) -> bool {
    let out = dir.join("out");
    let before = fs::read_dir(dir).expect("a directory").count();
    let described = describe(path).is_ok();
    match convert(path, &out, &ConvertOptions::default(), &mut |_, _| {}) {
        Ok(_) => {
            fs::remove_dir_all(out).expect("a directory");
            assert!(described, "converted, but not described");
            true
        }
        Err(_) => {
            assert_eq!(fs::read_dir(dir).expect("a directory").count(), before, "something is left behind");
            false
        }
    }
}

fn attempt_nemo(bytes: &[u8]) -> bool {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("model.nemo");
    fs::write(&path, bytes).expect("room");
    attempt(&path, dir.path())
}

/// The most address space this process has had, where the system tells.
fn assert_bounded() {
    let Ok(status) = fs::read_to_string("/proc/self/status") else { return };
    let peak = status.lines().find_map(|line| line.strip_prefix("VmPeak:")?.trim().strip_suffix(" kB"));
    let peak: u64 = peak.and_then(|peak| peak.trim().parse().ok()).expect("a size in kB");
    assert!(peak * 1024 < ADDRESS_SPACE, "{peak} kB");
}

fn config(cases: u32) -> ProptestConfig {
    let failure_persistence = Some(Box::new(FileFailurePersistence::Off) as _);
    ProptestConfig { cases, failure_persistence, max_shrink_iters: 200, ..ProptestConfig::default() }
}

#[test]
fn the_sound_checkpoint_converts() {
    let Parts { yaml, tokenizer, entries } = &*PARTS;
    assert!(attempt_nemo(&nemo_of(yaml, &tokenizer.1, &zip_of(entries))));
}

proptest! {
    #![proptest_config(config(100))]

    #[test]
    fn spoiled_pickles(damages in damages()) {
        let mut entries = PARTS.entries.clone();
        spoil(&mut entries[0].1, &damages);
        attempt_nemo(&nemo_of(&PARTS.yaml, &PARTS.tokenizer.1, &zip_of(&entries)));
        assert_bounded();
    }

    #[test]
    fn spoiled_configurations_and_tokenizers(yaml in damages(), tokenizer in damages(), both in any::<bool>()) {
        let (mut text, mut model) = (PARTS.yaml.clone(), PARTS.tokenizer.1.clone());
        spoil(&mut text, &yaml);
        if both {
            spoil(&mut model, &tokenizer);
        }
        attempt_nemo(&nemo_of(&text, &model, &zip_of(&PARTS.entries[..4])));
        assert_bounded();
    }
}

proptest! {
    #![proptest_config(config(60))]

    #[test]
    fn spoiled_zip_archives(damages in damages(), at_end in any::<bool>()) {
        let mut weights = zip_of(&PARTS.entries);
        // The directory of the archive is at its end.
        let split = if at_end { weights.len() - weights.len().min(20_000) } else { 0 };
        let mut end = weights.split_off(split);
        spoil(&mut end, &damages);
        weights.append(&mut end);
        attempt_nemo(&nemo_of(&PARTS.yaml, &PARTS.tokenizer.1, &weights));
        assert_bounded();
    }

    #[test]
    fn spoiled_tar_archives(damages in damages(), member in 0..3_usize) {
        let weights = zip_of(&PARTS.entries);
        let mut whole = nemo_of(&PARTS.yaml, &PARTS.tokenizer.1, &weights);
        let padded = |length: usize| 512 + length.next_multiple_of(512);
        let start = [0, padded(PARTS.yaml.len()), padded(PARTS.yaml.len()) + padded(PARTS.tokenizer.1.len())][member];
        let mut rest = whole.split_off(start);
        let mut header: Vec<u8> = rest.drain(..512).collect();
        spoil(&mut header, &damages);
        header.resize(512, 0);
        // With a sum that fits, the header is believed.
        let mut fixed = tar::Header::new_old();
        fixed.as_mut_bytes().copy_from_slice(&header);
        fixed.set_cksum();
        whole.extend_from_slice(fixed.as_bytes());
        whole.append(&mut rest);
        attempt_nemo(&whole);
        assert_bounded();
    }

}

proptest! {
    // Each has to be unpacked twice.
    #![proptest_config(config(10))]

    #[test]
    fn spoiled_gzip_archives(damages in damages()) {
        let mut packed = fs::read(data("oracle/rnnt/model.nemo")).expect("the fixture is in the tree");
        spoil(&mut packed, &damages);
        attempt_nemo(&packed);
        assert_bounded();
    }

}

proptest! {
    #![proptest_config(config(150))]

    #[test]
    fn spoiled_directories(damages in damages(), which in any::<Index>(), shards in any::<bool>()) {
        let from = data(if shards { "hf/rnnt" } else { "hf/nemotron" });
        let dir = tempfile::tempdir().expect("a temporary directory");
        let to = dir.path().join("hf");
        fs::create_dir(&to).expect("room");
        let mut names: Vec<_> = fs::read_dir(&from).expect("a fixture")
            .map(|entry| entry.expect("an entry").file_name())
            .filter(|name| !name.to_string_lossy().starts_with("golden"))
            .collect();
        names.sort();
        for name in &names {
            fs::copy(from.join(name), to.join(name)).expect("room");
        }
        let path = to.join(&names[which.index(names.len())]);
        let mut bytes = fs::read(&path).expect("a file");
        // Of a file of weights the header is of interest.
        let rest = bytes.split_off(bytes.len().min(6_000));
        spoil(&mut bytes, &damages);
        bytes.extend(rest);
        fs::write(&path, bytes).expect("room");
        attempt(&to, dir.path());
        assert_bounded();
    }
}

#[test]
fn a_hole_in_a_file_costs_no_memory() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("model.nemo");
    // A name of 10 GB before a member, nearly all of it a hole in the file.
    for kind in [tar::EntryType::GNULongName, tar::EntryType::GNULongLink, tar::EntryType::XHeader] {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(10 << 30);
        header.set_cksum();
        fs::write(&path, header.as_bytes()).expect("room");
        let file = fs::File::options().write(true).open(&path).expect("a file");
        file.set_len((10 << 30) + 1024).expect("a file system with holes");
        let error = convert(&path, &dir.path().join("out"), &ConvertOptions::default(), &mut |_, _| {});
        let error = error.expect_err("refused").to_string();
        assert!(error.contains("a header of 10737418240 bytes"), "{error}");
    }
    assert_bounded();
}

#[test]
fn a_configuration_that_multiplies_itself_is_refused() {
    let mut yaml = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for level in 1..12 {
        let uses = vec![format!("*a{}", level - 1); 10].join(", ");
        yaml.push_str(&format!("a{level}: &a{level} [{uses}]\n"));
    }
    assert!(!attempt_nemo(&nemo_of(yaml.as_bytes(), &PARTS.tokenizer.1, b"")));
    let deep = format!("a: {}{}\n", "[".repeat(200_000), "]".repeat(200_000));
    assert!(!attempt_nemo(&nemo_of(deep.as_bytes(), &PARTS.tokenizer.1, b"")));
    assert_bounded();
}

#[test]
fn a_tensor_that_unpacks_to_far_more_is_refused() {
    let zeros = vec![0; 20 << 20];
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, bytes) in &PARTS.entries {
        let big = name.ends_with("data/5");
        let method = if big { zip::CompressionMethod::Deflated } else { zip::CompressionMethod::Stored };
        zip.start_file(name.as_str(), SimpleFileOptions::default().compression_method(method))
            .expect("memory");
        zip.write_all(if big { &zeros } else { bytes }).expect("memory");
    }
    let weights = zip.finish().expect("memory").into_inner();
    assert!(weights.len() < 10 << 20);
    assert!(!attempt_nemo(&nemo_of(&PARTS.yaml, &PARTS.tokenizer.1, &weights)));
}
