// SPDX-License-Identifier: MPL-2.0
//! Finds a model directory and tells, before the model is loaded, what its latency will be.

use parakeet_engine::model::{EMBEDDED, ModelConfig, find_model};
use std::{
    env,
    path::{Path, PathBuf},
};

/// Directory that holds model directories, or is one. Looked at before the places of an installation.
const VARIABLE: &str = "GST_PARAKEET_MODEL_DIR";

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
    // The variable may name a model itself.
    let itself = variable.clone().filter(|_| model.is_none());
    let of_variable = variable.map(|directory| directory.join(name)).into_iter().chain(itself);
    find_model(name, of_variable, plugin).ok_or_else(|| {
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
        let plugin = Path::new("/no/such/libgstparakeet.so");
        assert!(find_in(Some("/my/big"), None, plugin).unwrap_err().contains("/my/big"));
        let error = find_in(Some("bigger"), None, plugin).unwrap_err();
        for named in ["bigger", VARIABLE, "/no/such/libgstparakeet.so"] {
            assert!(error.contains(named), "{error}");
        }
    }
}
