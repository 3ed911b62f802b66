// SPDX-License-Identifier: MPL-2.0
//! The scripts in `pipelines/`, run as they stand, and what comes out of them against what was said and when.

mod browser;
#[path = "../../cli/tests/browser/mod.rs"]
mod chromium;
#[path = "../common/mod.rs"]
mod common;
mod files;
mod hls;
mod many;
mod pages;
mod picture;
mod rtmp;
mod rtsp;
mod screen;
mod srt;
mod tools;
