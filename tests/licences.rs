// SPDX-License-Identifier: MPL-2.0
//! What the plugin and the tool are built of has a licence that `deny.toml` allows, and comes from the registry. `cargo deny
//! check` looks at more, where it is installed; this runs everywhere.

use cargo_metadata::{Metadata, MetadataCommand, Package};
use serde::Deserialize;
use spdx::{Expression, ParseMode};
use std::{fs, path::Path, process::Command};

#[derive(Deserialize)]
struct Deny {
    licenses: Licenses,
}

#[derive(Deserialize)]
struct Licenses {
    allow: Vec<String>,
    exceptions: Vec<Exception>,
}

#[derive(Deserialize)]
struct Exception {
    #[serde(rename = "crate")]
    name: String,
    allow: Vec<String>,
}

impl Licenses {
    fn read() -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("deny.toml");
        let deny: Deny = toml::from_str(&fs::read_to_string(path).unwrap()).unwrap();
        deny.licenses
    }

    /// What is wrong with the licence of a crate.
    fn refusal(&self, name: &str, license: Option<&str>) -> Option<String> {
        let Some(license) = license else { return Some(format!("{name} names no licence")) };
        let expression = match Expression::parse_mode(license, ParseMode::LAX) {
            Ok(expression) => expression,
            Err(error) => return Some(format!("{name}: {license} is no SPDX expression: {}", error.reason)),
        };
        let own = self.exceptions.iter().filter(|exception| exception.name == name);
        let allowed: Vec<&String> =
            self.allow.iter().chain(own.flat_map(|exception| &exception.allow)).collect();
        let allows = |term: &spdx::LicenseReq| allowed.iter().any(|one| **one == term.to_string());
        (!expression.evaluate(allows)).then(|| format!("{name}: {license} is not allowed in deny.toml"))
    }
}

/// All that is built for this machine, tests included.
fn metadata() -> Metadata {
    let version = Command::new("rustc").arg("-vV").output().unwrap();
    let version = String::from_utf8(version.stdout).unwrap();
    let host = version.lines().find_map(|line| line.strip_prefix("host: ")).expect("rustc names its host");
    let options = ["--locked", "--filter-platform", host].map(str::to_owned).to_vec();
    MetadataCommand::new().current_dir(env!("CARGO_MANIFEST_DIR")).other_options(options).exec().unwrap()
}

#[test]
fn every_licence_is_allowed() {
    let (licenses, metadata) = (Licenses::read(), metadata());
    assert!(metadata.packages.len() > 100, "{} crates", metadata.packages.len());
    let refusals = metadata.packages.iter();
    let refusals: Vec<String> =
        refusals.filter_map(|package| licenses.refusal(&package.name, package.license.as_deref())).collect();
    assert!(refusals.is_empty(), "{}", refusals.join("\n"));
}

#[test]
fn every_crate_comes_from_the_registry_or_is_ours() {
    let metadata = metadata();
    let ours =
        |package: &Package| package.source.is_none() && metadata.workspace_members.contains(&package.id);
    let of_registry = |package: &Package| package.source.as_ref().is_some_and(|source| source.is_crates_io());
    for package in &metadata.packages {
        assert!(ours(package) || of_registry(package), "{}: {:?}", package.name, package.source);
    }
}

#[test]
fn what_is_not_allowed_is_named() {
    let licenses = Licenses::read();
    assert_eq!(licenses.refusal("good", Some("MIT OR GPL-3.0-only")), None);
    assert_eq!(licenses.refusal("old", Some("MIT/Apache-2.0")), None);
    assert_eq!(licenses.refusal("older", Some("Apache-2.0 / MIT")), None);
    assert_eq!(licenses.refusal("libloading", Some("ISC")), None);
    for bad in [Some("GPL-3.0-only"), Some("MIT AND GPL-3.0-only"), Some("ISC"), Some("no licence"), None] {
        let refusal = licenses.refusal("bad", bad).expect("it is refused");
        assert!(refusal.contains("bad") && refusal.contains(bad.unwrap_or("names no licence")), "{refusal}");
    }
}
