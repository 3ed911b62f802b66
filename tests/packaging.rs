// SPDX-License-Identifier: MPL-2.0
//! What packages are made of: versions agree, and `cargo cinstall` puts model and presets where they are looked for.

use parakeet_engine::model::{EMBEDDED, Model, find_model};
use serde::Deserialize;
use std::{
    fs,
    path::{Path, PathBuf},
};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// `Cargo.toml`, as far as cargo-c reads it.
#[derive(Deserialize)]
struct Manifest {
    features: toml::Table,
    lib: Lib,
    package: Package,
}

#[derive(Deserialize)]
struct Lib {
    name: String,
    #[serde(rename = "crate-type")]
    kinds: Vec<String>,
}

#[derive(Deserialize)]
struct Package {
    metadata: Metadata,
}

#[derive(Deserialize)]
struct Metadata {
    capi: Capi,
}

#[derive(Deserialize)]
struct Capi {
    header: Header,
    library: Library,
    install: Install,
}

#[derive(Deserialize)]
struct Header {
    enabled: bool,
}

#[derive(Deserialize)]
struct Library {
    install_subdir: String,
    versioning: bool,
}

#[derive(Deserialize)]
struct Install {
    data: Data,
}

#[derive(Deserialize)]
struct Data {
    asset: Vec<Asset>,
}

/// Files, and the directory under `share` that they go to.
#[derive(Deserialize)]
struct Asset {
    from: PathBuf,
    to: PathBuf,
}

impl Asset {
    /// The files with their places under `share`. cargo-c takes patterns; ours are one file, or all of a directory.
    fn files(&self) -> Vec<(PathBuf, PathBuf)> {
        let sources = match self.from.to_str().unwrap().strip_suffix("/**/*") {
            Some(directory) => {
                let entries = fs::read_dir(Path::new(ROOT).join(directory)).unwrap();
                entries.map(|entry| entry.unwrap().path()).collect()
            }
            None => vec![Path::new(ROOT).join(&self.from)],
        };
        let place = |source: PathBuf| {
            let place = self.to.join(source.file_name().unwrap());
            (source, place)
        };
        sources.into_iter().map(place).collect()
    }
}

fn read(name: &str) -> String {
    fs::read_to_string(Path::new(ROOT).join(name)).unwrap()
}

fn manifest() -> Manifest {
    toml::from_str(&read("Cargo.toml")).unwrap()
}

/// What stands in the first line that begins with `start`, up to `end`.
fn quoted(text: &str, start: &str, end: char) -> String {
    let found = text.lines().find_map(|line| line.trim_start().strip_prefix(start));
    let rest = found.unwrap_or_else(|| panic!("no line begins with {start}"));
    rest.split(end).next().unwrap().to_owned()
}

#[test]
fn versions_agree() {
    assert_eq!(quoted(&read("meson.build"), "version: '", '\''), VERSION, "meson.build");
    assert_eq!(quoted(&read("CHANGELOG.md"), "## [", ']'), VERSION, "CHANGELOG.md's first version");
    let engine: toml::Table = toml::from_str(&read("Cargo.toml")).unwrap();
    let engine = &engine["workspace"]["dependencies"]["parakeet-engine"]["version"];
    assert_eq!(engine.as_str(), Some(VERSION), "parakeet-engine among the dependencies of Cargo.toml");
}

#[test]
fn cinstall_puts_everything_where_it_is_looked_for() {
    let Manifest { features, lib, package } = manifest();
    assert!(features.contains_key("capi"), "cargo-c passes packages by that have no such feature");
    let Capi { header, library, install } = package.metadata.capi;
    assert!(lib.kinds.iter().any(|kind| kind == "cdylib") && !header.enabled && !library.versioning);
    let prefix = tempfile::tempdir().unwrap();
    for (from, to) in install.data.asset.iter().flat_map(Asset::files) {
        let to = prefix.path().join("share").join(to);
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::copy(from, to).unwrap();
    }
    for libraries in ["lib", "lib/x86_64-linux-gnu"] {
        let plugin = prefix.path().join(libraries).join(&library.install_subdir);
        assert_eq!(plugin, prefix.path().join(libraries).join("gstreamer-1.0"));
        let plugin = plugin.join(format!("lib{}.so", lib.name));
        let model = find_model(EMBEDDED, [], &plugin).expect("the model is found from the plugin");
        assert!(model.starts_with(prefix.path()));
        Model::load(&model).expect("it is complete");
    }
    // GStreamer looks for an element's presets by its type's name.
    assert!(prefix.path().join("share/gstreamer-1.0/presets/GstParakeetTdt.prs").is_file());
}
