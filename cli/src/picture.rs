// SPDX-License-Identifier: MPL-2.0
//! What the pictures of all reports have in common.

use std::error::Error;
use std::path::{Path, PathBuf};

use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::failure::Failure;

/// Of text, axes and marks.
pub const INK: RGBColor = RGBColor(40, 40, 40);
/// Of the mesh.
pub const FAINT: RGBColor = RGBColor(222, 222, 222);
/// Of data: some that people who see few colours tell apart.
pub const COLORS: [RGBColor; 4] =
    [RGBColor(68, 119, 170), RGBColor(204, 102, 119), RGBColor(221, 204, 119), RGBColor(17, 119, 51)];

/// Part of a picture.
pub type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
/// Drawing fails only where plotters does.
pub type Drawn = Result<(), Box<dyn Error>>;

/// The usual text of this height in pixels.
pub fn font(size: u32) -> TextStyle<'static> {
    ("sans-serif", size).into_font().color(&INK)
}

/// Text that is placed by that point of it.
pub fn anchored(size: u32, horizontal: HPos, vertical: VPos) -> TextStyle<'static> {
    font(size).pos(Pos::new(horizontal, vertical))
}

/// Writes an SVG picture to `path`.
pub fn write(picture: Result<String, Box<dyn Error>>, path: &Path) -> Result<(), Failure> {
    let fail = |reason: String| Failure::file(path, reason);
    std::fs::write(path, picture.map_err(|e| fail(e.to_string()))?).map_err(|e| fail(e.to_string()))
}

/// The path of a picture, from the command line.
pub fn path(text: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    match path.extension() {
        Some(extension) if extension.eq_ignore_ascii_case("svg") => Ok(path),
        _ => Err("expected a name that ends in .svg".into()),
    }
}
