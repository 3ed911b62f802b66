// SPDX-License-Identifier: MPL-2.0
//! Which sound files to recognise, and what is said in them.

use std::path::{Path, PathBuf};

use crate::failure::Failure;
use crate::manifest;

/// A line of a manifest.
#[derive(Debug, PartialEq, Eq)]
pub struct Utterance {
    /// The sound file as the manifest names it.
    pub name: String,
    /// Where it is.
    pub path: PathBuf,
    /// What is said in it; empty if nothing is.
    pub reference: String,
}

/// Reads the manifest `path`: a line per utterance, `audio<TAB>reference`, the audio's path relative to the manifest's
/// directory. Lines that are empty or begin with # are left out.
pub fn read(path: &Path) -> Result<Vec<Utterance>, Failure> {
    let bytes = std::fs::read(path).map_err(|e| Failure::file(path, e.to_string()))?;
    parse(&bytes, path.parent().unwrap_or(Path::new(""))).map_err(|reason| Failure::file(path, reason))
}

fn parse(bytes: &[u8], dir: &Path) -> Result<Vec<Utterance>, String> {
    let mut utterances = Vec::new();
    for line in manifest::lines(bytes) {
        let (number, line) = line.map_err(|reason| format!("{reason}, expected audio<TAB>reference"))?;
        let fail = |reason: &str| format!("line {number}: {reason}, expected audio<TAB>reference");
        let (name, reference) = line.split_once('\t').ok_or_else(|| fail("no tab"))?;
        if name.trim().is_empty() {
            return Err(fail("no audio file before the tab"));
        }
        if reference.contains('\t') {
            return Err(fail("more than one tab"));
        }
        utterances.push(Utterance {
            name: name.into(),
            path: dir.join(name),
            reference: reference.trim().into(),
        });
    }
    if utterances.is_empty() {
        return Err("no utterance in it, expected lines of audio<TAB>reference".into());
    }
    Ok(utterances)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_become_utterances() {
        let text = "\u{FEFF}# a set\n\na.wav\tIt's a well.\r\n \t \n../b c.flac\t\n/d.wav\tDas Öl.";
        let read = parse(text.as_bytes(), Path::new("set")).unwrap();
        let expected = [
            ("a.wav", "set/a.wav", "It's a well."),
            ("../b c.flac", "set/../b c.flac", ""),
            ("/d.wav", "/d.wav", "Das Öl."),
        ];
        let expected: Vec<Utterance> = expected
            .into_iter()
            .map(|(name, path, reference)| Utterance {
                name: name.into(),
                path: path.into(),
                reference: reference.into(),
            })
            .collect();
        assert_eq!(read, expected);
    }

    #[test]
    fn errors_name_the_line() {
        let cases: [(&[u8], &str); 5] = [
            (b"#\na.wav it's a well\n", "line 2: no tab"),
            (b"a.wav\tone\ttwo\n", "line 1: more than one tab"),
            (b"a.wav\tone\n\n\ttwo\n", "line 3: no audio file"),
            (b"a.wav\tone\nb.wav\t\xFF\n", "line 2: not UTF-8"),
            (b"# nothing\n", "no utterance"),
        ];
        for (bytes, expected) in cases {
            let error = parse(bytes, Path::new("")).unwrap_err();
            assert!(error.starts_with(expected) && error.contains("audio<TAB>reference"), "{error}");
        }
    }
}
