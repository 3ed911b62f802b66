// SPDX-License-Identifier: MPL-2.0
//! Hands the plugin its version, commit, release date and origin.

fn main() {
    gst_plugin_version_helper::info();
    // GStreamer refuses a plugin without one; this is what it calls its own where nobody says.
    let repository = std::env::var("CARGO_PKG_REPOSITORY").ok().filter(|address| !address.is_empty());
    let origin = repository.unwrap_or_else(|| "Unknown package origin".into());
    println!("cargo::rustc-env=PACKAGE_ORIGIN={origin}");
}
