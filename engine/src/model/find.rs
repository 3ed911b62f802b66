// SPDX-License-Identifier: MPL-2.0
//! Where an installed model lies, seen from the code that wants it.

use std::path::{Path, PathBuf};

use super::CONFIG;

/// Name of the model that comes with the plugin and the tool.
pub const EMBEDDED: &str = "parakeet-tdt-mini";

/// Directories above the code that are looked at.
const LEVELS: usize = 6;

/// Directories of models in an installation and in a source tree, seen from a directory beside or above the code.
const PLACES: [&str; 2] = ["share/gst-plugin-parakeet/models", "models"];

/// Finds the directory of the model `name`, or `None`. `code` is the file that the code was loaded from, a plugin or a
/// program.
///
/// Directories in `first` that are models come before any other. Then `name` is looked for in
/// `share/gst-plugin-parakeet/models` and `models` beside `code` and in each of the five directories above it, the nearest
/// first; if `code` is reached through links, then also from where it really lies.
pub fn find_model(name: &str, first: impl IntoIterator<Item = PathBuf>, code: &Path) -> Option<PathBuf> {
    // Debian's /lib is a link to /usr/lib, and GStreamer loads plugins from /lib.
    let real = code.canonicalize().unwrap_or_default();
    let above = [code, &real].into_iter().flat_map(|code| code.ancestors().skip(1).take(LEVELS));
    let installed = above.flat_map(|directory| PLACES.map(|place| directory.join(place).join(name)));
    first.into_iter().chain(installed).find(|directory| directory.join(CONFIG).is_file())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// A fresh tree with models at these places.
    fn tree(models: &[&str]) -> tempfile::TempDir {
        let root = tempfile::tempdir().expect("a directory");
        for model in models {
            fs::create_dir_all(root.path().join(model)).expect("a directory");
            fs::write(root.path().join(model).join(CONFIG), "{}").expect("a file");
        }
        root
    }

    #[test]
    fn an_installed_model_is_found_from_programs_and_plugins() {
        let tree = tree(&["usr/share/gst-plugin-parakeet/models/one"]);
        let installed = tree.path().join("usr/share/gst-plugin-parakeet/models/one");
        for code in ["bin/parakeet", "lib/gstreamer-1.0/p.so", "lib/x86_64-linux-gnu/gstreamer-1.0/p.so"] {
            let found = find_model("one", [], &tree.path().join("usr").join(code));
            assert_eq!(found.as_deref(), Some(installed.as_path()));
        }
        assert_eq!(find_model("another", [], &tree.path().join("usr/bin/parakeet")), None);
        assert_eq!(
            find_model("one", [], &tree.path().join("usr/a/b/c/d/e/f/parakeet")),
            None,
            "too far away"
        );
    }

    #[cfg(unix)]
    #[test]
    fn an_installed_model_is_found_through_a_link_to_a_directory() {
        let tree = tree(&["usr/share/gst-plugin-parakeet/models/one"]);
        let root = tree.path().canonicalize().expect("it exists");
        fs::create_dir_all(root.join("usr/lib/gstreamer-1.0")).expect("a directory");
        fs::write(root.join("usr/lib/gstreamer-1.0/p.so"), "").expect("a file");
        std::os::unix::fs::symlink("usr/lib", root.join("lib")).expect("a link");
        let found = find_model("one", [], &root.join("lib/gstreamer-1.0/p.so"));
        assert_eq!(found, Some(root.join("usr/share/gst-plugin-parakeet/models/one")));
    }

    #[test]
    fn a_source_tree_comes_after_what_is_nearer_and_after_what_is_named() {
        let tree = tree(&["models/one", "models/two", "usr/share/gst-plugin-parakeet/models/two", "mine"]);
        let (root, code) = (tree.path(), tree.path().join("usr/target/debug/deps/p.so"));
        assert_eq!(find_model("one", [], &code), Some(root.join("models/one")));
        assert_eq!(find_model("two", [], &code), Some(root.join("usr/share/gst-plugin-parakeet/models/two")));
        let named = [root.join("nothing"), root.join("mine")];
        assert_eq!(find_model("two", named, &code), Some(root.join("mine")));
    }
}
