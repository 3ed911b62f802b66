// SPDX-License-Identifier: MPL-2.0
//! Which files are transcribed, and where their results go.

use std::collections::{HashMap, HashSet};
use std::ffi::OsString;
use std::path::{Component, Path, PathBuf};
use std::str::FromStr;

use walkdir::{DirEntry, WalkDir};

use crate::failure::Failure;
use crate::manifest;

/// What files of sound and video are called: those that are taken of a directory.
const SOUND: [&str; 45] = [
    "3g2", "3gp", "aac", "ac3", "aif", "aifc", "aiff", "amr", "ape", "asf", "au", "avi", "caf", "flac",
    "flv", "m2ts", "m4a", "m4b", "m4v", "mka", "mkv", "mov", "mp2", "mp3", "mp4", "mpeg", "mpg", "mts",
    "mxf", "oga", "ogg", "ogv", "opus", "rf64", "snd", "spx", "ts", "vob", "w64", "wav", "wave", "webm",
    "wma", "wmv", "wv",
];
/// What manifests are called.
const MANIFESTS: [&str; 2] = ["tsv", "txt"];

/// A file to transcribe.
#[derive(Debug, PartialEq, Eq)]
pub struct Input {
    pub path: PathBuf,
    /// Its results, without the extension of their format.
    pub stem: PathBuf,
}

/// Where results go.
#[derive(Clone, Copy)]
pub struct Places<'a> {
    /// The directory; beside each file if there is none.
    pub out: Option<&'a Path>,
    /// Results keep the extension of their file before their own.
    pub keep_extension: bool,
    /// Extensions of the results.
    pub extensions: &'a [&'a str],
}

/// Every `of`-th file, beginning with number `index`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shard {
    index: usize,
    of: usize,
}

impl FromStr for Shard {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("expected I/N with I from 0 to N - 1, such as 0/8, found {text}");
        let (index, of) = text.split_once('/').ok_or_else(wrong)?;
        let (Ok(index), Ok(of)) = (index.parse(), of.parse()) else { return Err(wrong()) };
        if index < of { Ok(Self { index, of }) } else { Err(wrong()) }
    }
}

impl Shard {
    /// Its share of all inputs.
    pub fn of(self, inputs: Vec<Input>) -> Vec<Input> {
        inputs.into_iter().skip(self.index).step_by(self.of).collect()
    }
}

/// Whether more than one file may be meant.
pub fn is_list(argument: &Path) -> bool {
    argument.is_dir() || has_extension(argument, &MANIFESTS)
}

/// All files that the arguments name, in their order, a directory's by name. Fails if a directory or manifest can't be read or
/// has none, or if two results would have one name.
pub fn collect(arguments: &[PathBuf], places: Places) -> Result<Vec<Input>, Failure> {
    let mut inputs = Vec::new();
    for argument in arguments {
        if argument.as_os_str() == "-" {
            return Err(Failure::Usage("standard input (-) goes to standard output, alone".into()));
        } else if argument.is_dir() {
            inputs.extend(in_directory(argument, places)?);
        } else if has_extension(argument, &MANIFESTS) {
            inputs.extend(in_manifest(argument, places)?);
        } else {
            inputs.push(places.input(argument.clone(), Path::new(argument.file_name().unwrap_or_default())));
        }
    }
    let mut known = HashSet::new();
    inputs.retain(|input| known.insert(input.path.clone()));
    places.check(&inputs)?;
    Ok(inputs)
}

fn in_directory(dir: &Path, places: Places) -> Result<Vec<Input>, Failure> {
    let hidden =
        |entry: &DirEntry| entry.depth() > 0 && entry.file_name().as_encoded_bytes().starts_with(b".");
    let mut inputs = Vec::new();
    let walk = WalkDir::new(dir).follow_links(true).sort_by_file_name();
    for entry in walk.into_iter().filter_entry(|entry| !hidden(entry)) {
        let entry = entry.map_err(|e| Failure::file(e.path().unwrap_or(dir), e.to_string()))?;
        if entry.file_type().is_file() && has_extension(entry.path(), &SOUND) {
            let relative = entry.path().strip_prefix(dir).unwrap_or(entry.path());
            inputs.push(places.input(entry.path().to_owned(), relative));
        }
    }
    if inputs.is_empty() {
        return Err(Failure::file(dir, "no file of sound or video in it, by their names"));
    }
    Ok(inputs)
}

fn in_manifest(path: &Path, places: Places) -> Result<Vec<Input>, Failure> {
    let fail = |reason: String| Failure::file(path, reason);
    let bytes = std::fs::read(path).map_err(|e| fail(e.to_string()))?;
    let dir = path.parent().unwrap_or(Path::new(""));
    let mut inputs = Vec::new();
    for line in manifest::lines(&bytes) {
        let (number, line) = line.map_err(|reason| fail(format!("{reason}, expected the path of a file")))?;
        let name = line.split('\t').next().unwrap_or_default().trim();
        let relative = inside(Path::new(name));
        if relative.file_name().is_none() {
            return Err(fail(format!(
                "line {number}: expected the path of a file, perhaps with a tab and more behind it"
            )));
        }
        inputs.push(places.input(dir.join(name), &relative));
    }
    if inputs.is_empty() {
        return Err(fail("no line with the path of a file in it".into()));
    }
    Ok(inputs)
}

/// `path` as it lies below a directory, whatever it is relative to.
fn inside(path: &Path) -> PathBuf {
    let mut inside = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => inside.push(name),
            Component::ParentDir => drop(inside.pop()),
            Component::Prefix(_) | Component::RootDir | Component::CurDir => {}
        }
    }
    inside
}

fn has_extension(path: &Path, extensions: &[&str]) -> bool {
    let extension = path.extension().and_then(|extension| extension.to_str());
    extension.is_some_and(|extension| extensions.iter().any(|known| extension.eq_ignore_ascii_case(known)))
}

impl Places<'_> {
    /// A file that lies below the output directory as `relative` says.
    fn input(self, path: PathBuf, relative: &Path) -> Input {
        let place = self.out.map_or_else(|| path.clone(), |out| out.join(relative));
        let stem = if self.keep_extension { place } else { place.with_extension("") };
        Input { path, stem }
    }

    /// Fails if a result would take the place of another, or of a file that is read.
    fn check(self, inputs: &[Input]) -> Result<(), Failure> {
        let mut taken: HashMap<PathBuf, &Path> =
            inputs.iter().map(|input| (input.path.clone(), &*input.path)).collect();
        for (input, extension) in
            inputs.iter().flat_map(|input| self.extensions.iter().map(move |e| (input, e)))
        {
            let result = result(&input.stem, extension);
            if let Some(other) = taken.insert(result.clone(), &input.path) {
                let (result, path, other) = (result.display(), input.path.display(), other.display());
                return Err(Failure::Usage(format!(
                    "the result of {path} would take the place of {other} or of its result: {result}; --keep-extension names \
                     results after the whole name of their file, and of directories and manifests --out DIR keeps the folders"
                )));
            }
        }
        Ok(())
    }
}

/// The result that lies at `stem` in a format.
pub fn result(stem: &Path, extension: &str) -> PathBuf {
    let mut name = OsString::from(stem);
    name.push(".");
    name.push(extension);
    name.into()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const BESIDE: Places = Places { out: None, keep_extension: false, extensions: &["txt", "srt"] };

    fn stems(inputs: &[Input]) -> Vec<&str> {
        inputs.iter().map(|input| input.stem.to_str().unwrap()).collect()
    }

    #[test]
    fn directories_are_searched_and_keep_their_folders() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["b/two.MP4", "b/notes.txt", "a.v1.wav", ".hidden.wav", ".git/x.wav", "c/three.opus"] {
            fs::create_dir_all(dir.path().join(name).parent().unwrap()).unwrap();
            fs::write(dir.path().join(name), "").unwrap();
        }
        let arguments = [dir.path().to_owned()];
        let under = collect(&arguments, Places { out: Some(Path::new("out")), ..BESIDE }).unwrap();
        assert_eq!(stems(&under), ["out/a.v1", "out/b/two", "out/c/three"]);
        assert_eq!(under[1].path, dir.path().join("b/two.MP4"));
        let beside = collect(&arguments, BESIDE).unwrap();
        assert_eq!(beside[2].stem, dir.path().join("c/three"));
        let kept = collect(&arguments, Places { keep_extension: true, ..BESIDE }).unwrap();
        assert_eq!(kept[1].stem, dir.path().join("b/two.MP4"));
        let empty = collect(&[dir.path().join(".git")], BESIDE);
        assert!(empty.is_ok(), "a hidden directory that is named is meant");
        fs::remove_file(dir.path().join(".git/x.wav")).unwrap();
        assert!(
            collect(&[dir.path().join(".git")], BESIDE).unwrap_err().to_string().contains("no file of sound")
        );
    }

    #[test]
    fn manifests_name_files_relative_to_themselves() {
        let dir = tempfile::tempdir().unwrap();
        let list = dir.path().join("list.TSV");
        fs::write(&list, "# all\na/one.wav\twhat is said\n../two.wav\n\n/three/x.wav\na/one.wav\n").unwrap();
        let inputs =
            collect(std::slice::from_ref(&list), Places { out: Some(Path::new("out")), ..BESIDE }).unwrap();
        assert_eq!(stems(&inputs), ["out/a/one", "out/two", "out/three/x"]);
        assert_eq!(
            (&inputs[0].path, &inputs[2].path),
            (&dir.path().join("a/one.wav"), &"/three/x.wav".into())
        );
        for (text, expected) in
            [("\tx\n", "line 1: expected the path"), ("# none\n", "no line with the path")]
        {
            fs::write(&list, text).unwrap();
            assert!(collect(std::slice::from_ref(&list), BESIDE).unwrap_err().to_string().contains(expected));
        }
    }

    #[test]
    fn results_of_one_name_are_refused() {
        let collect = |names: &[&str], places| {
            collect(&names.iter().map(PathBuf::from).collect::<Vec<_>>(), places).map_err(|e| e.to_string())
        };
        let error = collect(&["x/a.wav", "x/a.mp3"], BESIDE).unwrap_err();
        assert!(
            error.contains("x/a.mp3") && error.contains("x/a.wav") && error.contains("x/a.txt"),
            "{error}"
        );
        assert!(error.contains("--keep-extension"), "{error}");
        assert!(collect(&["x/a.wav", "x/a.mp3"], Places { keep_extension: true, ..BESIDE }).is_ok());
        assert!(collect(&["x/a.wav", "y/a.wav"], BESIDE).is_ok());
        assert!(collect(&["x/a.wav", "y/a.wav"], Places { out: Some(Path::new("o")), ..BESIDE }).is_err());
        assert!(collect(&["x/a.wav", "x/a.srt"], BESIDE).is_err(), "a result over a file that is read");
        assert_eq!(collect(&["x/a.wav", "x/a.wav"], BESIDE).unwrap().len(), 1);
        assert!(collect(&["x/a.wav", "-"], BESIDE).is_err());
    }

    #[test]
    fn shards_are_everything_once() {
        let inputs =
            |count: usize| (0..count).map(|i| Input { path: i.to_string().into(), stem: PathBuf::new() });
        for (count, of) in [(10, 3), (2, 5), (7, 1)] {
            let shards = (0..of).flat_map(|index| Shard { index, of }.of(inputs(count).collect()));
            let mut all: Vec<usize> =
                shards.map(|input| input.path.to_str().unwrap().parse().unwrap()).collect();
            all.sort();
            assert_eq!(all, (0..count).collect::<Vec<_>>());
        }
        assert_eq!("2/8".parse(), Ok(Shard { index: 2, of: 8 }));
        for wrong in ["8/8", "1", "-1/2", "0/0", "a/b", "1/2/3"] {
            assert!(wrong.parse::<Shard>().is_err(), "{wrong}");
        }
    }
}
