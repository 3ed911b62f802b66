// SPDX-License-Identifier: MPL-2.0
//! Finds a model directory and tells, before the model is loaded, what its latency will be.

use parakeet_engine::model::ModelConfig;
use std::{
    env,
    path::{Path, PathBuf},
};

/// Name of the model that comes with the plugin.
const EMBEDDED: &str = "parakeet-tdt-mini";

/// Directory that holds model directories, or is one. Looked at before the places of an installation.
const VARIABLE: &str = "GST_PARAKEET_MODEL_DIR";

/// How many directories up from the plugin an installation or a build tree may begin.
const LEVELS: usize = 6;

/// Finds the directory of `model`, the value of the property. `plugin` is the plugin's file, the program's if the
/// plugin is linked into it.
///
/// A path that exists is taken as it is. A name, and the embedded model if there is no value, is looked for in
/// `GST_PARAKEET_MODEL_DIR`, then in `share/gst-plugin-parakeet/models` and `models` beside and above the plugin: the
/// first is an installation, the second a build tree.
pub fn find(model: Option<&str>, plugin: &Path) -> Result<PathBuf, String> {
    find_in(model, env::var_os(VARIABLE).filter(|value| !value.is_empty()).map(PathBuf::from), plugin)
}

fn find_in(model: Option<&str>, variable: Option<PathBuf>, plugin: &Path) -> Result<PathBuf, String> {
    if let Some(path) = model.map(Path::new) {
        if path.exists() {
            return Ok(path.to_owned());
        }
        if path.components().count() != 1 {
            return Err(format!("there is no directory {}", path.display()));
        }
    }
    let name = model.unwrap_or(EMBEDDED);
    let mut candidates = Vec::new();
    if let Some(directory) = variable {
        candidates.push(directory.join(name));
        if model.is_none() {
            candidates.push(directory);
        }
    }
    for directory in plugin.ancestors().skip(1).take(LEVELS) {
        candidates.push(directory.join("share/gst-plugin-parakeet/models").join(name));
        candidates.push(directory.join("models").join(name));
    }
    let found = candidates.iter().position(|candidate| candidate.join("config.json").is_file());
    found.map(|index| candidates.swap_remove(index)).ok_or_else(|| {
        format!(
            "model {name} is neither in {VARIABLE} nor in share/gst-plugin-parakeet/models or models up from {}",
            plugin.display()
        )
    })
}

/// What the model in `directory` is, from its `config.json` alone.
pub fn config(directory: &Path) -> Option<ModelConfig> {
    ModelConfig::read(&directory.join("config.json")).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    /// A fresh directory with models at `models`, removed on drop.
    struct Tree(PathBuf);

    impl Tree {
        fn new(name: &str, models: &[&str]) -> Self {
            let root = env::temp_dir().join(format!("gstparakeet-{}-{name}", std::process::id()));
            for model in models {
                fs::create_dir_all(root.join(model)).unwrap();
                fs::write(root.join(model).join("config.json"), "{}").unwrap();
            }
            Tree(root)
        }
    }

    impl Drop for Tree {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn the_embedded_model_is_found_where_it_is_installed() {
        let tree = Tree::new("installed", &["usr/share/gst-plugin-parakeet/models/parakeet-tdt-mini"]);
        for plugin in
            ["usr/lib/gstreamer-1.0/libgstparakeet.so", "usr/lib/x86_64-linux-gnu/gstreamer-1.0/p.so"]
        {
            let found = find_in(None, None, &tree.0.join(plugin)).unwrap();
            assert_eq!(found, tree.0.join("usr/share/gst-plugin-parakeet/models/parakeet-tdt-mini"));
        }
    }

    #[test]
    fn the_build_tree_and_the_variable_are_looked_at() {
        let tree =
            Tree::new("build", &["src/models/parakeet-tdt-mini", "mine/parakeet-tdt-mini", "mine/big"]);
        let plugin = tree.0.join("src/target/debug/deps/libgstparakeet.so");
        assert_eq!(find_in(None, None, &plugin).unwrap(), tree.0.join("src/models/parakeet-tdt-mini"));
        let mine = tree.0.join("mine");
        assert_eq!(find_in(None, Some(mine.clone()), &plugin).unwrap(), mine.join("parakeet-tdt-mini"));
        assert_eq!(find_in(None, Some(mine.join("big")), &plugin).unwrap(), mine.join("big"));
        assert_eq!(find_in(Some("big"), Some(mine.clone()), &plugin).unwrap(), mine.join("big"));
        assert_eq!(find_in(mine.to_str(), None, &plugin).unwrap(), mine);
    }

    #[test]
    fn what_is_missing_is_named() {
        let tree = Tree::new("missing", &[]);
        let plugin = tree.0.join("a/b/c/d/e/f/g/libgstparakeet.so");
        assert!(find_in(None, None, &plugin).unwrap_err().contains("GST_PARAKEET_MODEL_DIR"));
        assert!(find_in(Some("/no/such"), None, &plugin).unwrap_err().contains("/no/such"));
        assert!(find_in(Some("bigger"), None, &plugin).unwrap_err().contains("bigger"));
    }
}
