// SPDX-License-Identifier: MPL-2.0
//! Files of results, each there as a whole or not at all.

use std::collections::HashSet;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tempfile::NamedTempFile;

use super::inputs::result;
use crate::failure::Failure;

/// What files that aren't whole are called: hidden, so that nobody takes them for results.
const PREFIX: &str = ".parakeet-";
const SUFFIX: &str = ".part";
/// Such a file is older only if its process was killed while it wrote it.
const STALE: Duration = Duration::from_secs(3_600);
/// Held while files are written; what ends the process waits for it.
static WRITING: Mutex<()> = Mutex::new(());

/// Directories that results were written to.
#[derive(Default)]
pub struct Results {
    swept: Mutex<HashSet<PathBuf>>,
}

impl Results {
    /// Writes all results of a file, pairs of extension and text, in the place of what is there.
    pub fn write(&self, stem: &Path, texts: &[(&str, String)]) -> Result<(), Failure> {
        let dir = stem.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let fail = |path: &Path, e: io::Error| Failure::file(path, e.to_string());
        fs::create_dir_all(dir).map_err(|e| fail(dir, e))?;
        if lock(&self.swept).insert(dir.to_owned()) {
            sweep(dir, STALE);
        }
        let _writing = lock(&WRITING);
        let mut whole = Vec::new();
        for (extension, text) in texts {
            let path = result(stem, extension);
            whole.push((aside(dir, text).map_err(|e| fail(&path, e))?, path));
        }
        for (file, path) in whole {
            file.persist(&path).map_err(|e| fail(&path, e.error))?;
        }
        Ok(())
    }
}

/// Ends the process on an interrupt or when it is asked to terminate, but not while it writes.
pub fn end_between_files_on_interrupt() {
    // Without a handler a file that isn't whole may be left, which a later run removes.
    let _ = ctrlc::set_handler(|| {
        let _writing = lock(&WRITING);
        eprintln!("interrupted: the results so far are there, the same command does the rest");
        std::process::exit(130);
    });
}

/// A file beside its place, on the disk.
fn aside(dir: &Path, text: &str) -> io::Result<NamedTempFile> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(PREFIX).suffix(SUFFIX);
    // As any new file, for those that the user lets read it.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    let mut file = builder.tempfile_in(dir)?;
    file.write_all(text.as_bytes())?;
    file.as_file().sync_all()?;
    Ok(file)
}

/// Removes what was left over of files that never became whole.
fn sweep(dir: &Path, age: Duration) {
    let Ok(entries) = fs::read_dir(dir) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let name = name.as_encoded_bytes();
        if !(name.starts_with(PREFIX.as_bytes()) && name.ends_with(SUFFIX.as_bytes())) {
            continue;
        }
        let modified = entry.metadata().and_then(|metadata| metadata.modified());
        if modified.is_ok_and(|modified| modified.elapsed().is_ok_and(|old| old > age)) {
            // Another process may have done it.
            let _ = fs::remove_file(entry.path());
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(dir)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn results_are_written_with_their_folders_and_leftovers_go() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("a/b");
        fs::create_dir_all(&folder).unwrap();
        let old = fs::File::create(folder.join(".parakeet-old.part")).unwrap();
        old.set_modified(SystemTime::now() - 2 * STALE).unwrap();
        fs::write(folder.join(".parakeet-new.part"), "").unwrap();
        let results = Results::default();
        for text in ["one", "two"] {
            results.write(&folder.join("x.y"), &[("txt", text.into()), ("srt", "three".into())]).unwrap();
            assert_eq!(fs::read_to_string(folder.join("x.y.txt")).unwrap(), text);
        }
        assert_eq!(names(&folder), [".parakeet-new.part", "x.y.srt", "x.y.txt"]);
    }

    #[cfg(unix)]
    #[test]
    fn a_result_is_readable_as_any_file() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        Results::default().write(&dir.path().join("x"), &[("txt", String::new())]).unwrap();
        let mode = |name: &str| fs::metadata(dir.path().join(name)).unwrap().permissions().mode();
        fs::write(dir.path().join("any"), "").unwrap();
        assert_eq!(mode("x.txt"), mode("any"));
    }

    #[test]
    fn what_cannot_be_written_is_named_and_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("x.srt")).unwrap();
        fs::write(dir.path().join("x.srt/full"), "").unwrap();
        let error = Results::default().write(&dir.path().join("x"), &[("srt", "text".into())]).unwrap_err();
        assert!(error.to_string().contains("x.srt: "), "{error}");
        assert_eq!(names(dir.path()), ["x.srt"]);
    }
}
