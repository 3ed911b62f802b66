// SPDX-License-Identifier: MPL-2.0
//! Text files with a line per sound file.

/// The lines of a manifest with their numbers, without those that are empty or begin with #. The error names the line.
pub fn lines(bytes: &[u8]) -> impl Iterator<Item = Result<(usize, &str), String>> {
    let bytes = bytes.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(bytes);
    bytes.split(|&byte| byte == b'\n').zip(1..).filter_map(|(line, number)| {
        let Ok(line) = str::from_utf8(line) else { return Some(Err(format!("line {number}: not UTF-8"))) };
        let line = line.strip_suffix('\r').unwrap_or(line);
        (!(line.trim().is_empty() || line.starts_with('#'))).then_some(Ok((number, line)))
    })
}
