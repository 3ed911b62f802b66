// SPDX-License-Identifier: MPL-2.0
//! Text on standard output and a progress bar on standard error, which may be the same terminal.

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use console::Term;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use unicode_width::UnicodeWidthStr;

/// A bar that counts bytes, if standard error is a terminal.
pub fn bytes_bar() -> Option<ProgressBar> {
    bar("{wide_bar} {bytes} of {total_bytes}")
}

/// A bar with a message and the time that is left, if standard error is a terminal.
pub fn files_bar() -> Option<ProgressBar> {
    let bar = bar("{wide_bar} {percent:>3} % {msg}, {eta} left")?;
    bar.enable_steady_tick(Duration::from_millis(100));
    Some(bar)
}

fn bar(template: &str) -> Option<ProgressBar> {
    if !io::stderr().is_terminal() {
        return None;
    }
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    Some(ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr()).with_style(style))
}

/// Where a transcript goes as it comes.
///
/// On a terminal that also shows the bar, the bar keeps below the text: whole lines go to standard output, the line
/// in progress is the bar's message until it is complete or as wide as the terminal.
pub struct Output {
    stdout: io::Stdout,
    bar: Option<ProgressBar>,
    /// The line in progress, where bar and text share a terminal.
    line: Option<String>,
}

impl Output {
    /// With `seconds` of audio to come the bar, if it is wanted and standard error is a terminal, shows the way to go.
    pub fn new(with_bar: bool, seconds: Option<f64>) -> Self {
        let shares_terminal = io::stdout().is_terminal();
        let line = if shares_terminal { "{msg}\n" } else { "" };
        let rest = if seconds.is_some() { "{wide_bar} {percent:>3} %" } else { "{spinner} {elapsed}" };
        let bar = with_bar.then(|| bar(&format!("{line}{rest}"))).flatten();
        if let Some(bar) = &bar {
            bar.set_length(seconds.map_or(0, milliseconds));
            bar.enable_steady_tick(Duration::from_millis(100));
        }
        let line = (bar.is_some() && shares_terminal).then(String::new);
        Self { stdout: io::stdout(), bar, line }
    }

    /// Moves the bar to `seconds` of audio.
    pub fn progress(&self, seconds: f64) {
        if let Some(bar) = &self.bar {
            bar.set_position(milliseconds(seconds));
        }
    }

    /// Writes `text` and makes it visible at once.
    pub fn write(&mut self, text: &str) -> io::Result<()> {
        let (Some(line), Some(bar)) = (&mut self.line, &self.bar) else {
            return write_flush(&self.stdout, text);
        };
        let ended = wrap(line, text, usize::from(Term::stderr().size().1));
        let result =
            if ended.is_empty() { Ok(()) } else { bar.suspend(|| write_flush(&self.stdout, &ended)) };
        bar.set_message(line.clone());
        result
    }

    /// Takes the bar away and leaves the text.
    pub fn finish(&mut self) -> io::Result<()> {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
        match self.line.take() {
            Some(line) => write_flush(&self.stdout, &line),
            None => Ok(()),
        }
    }
}

impl Drop for Output {
    /// Leaves a clean terminal, and on it what was recognised, when an error ends the work.
    fn drop(&mut self) {
        let _ = self.finish();
    }
}

/// Adds `text` to `line` and takes away what is whole lines narrower than `width`: they end at a line feed, at a space, or,
/// where there is none, before `text`.
fn wrap(line: &mut String, text: &str, width: usize) -> String {
    let added = line.len();
    line.push_str(text);
    let mut whole = line.rfind('\n').map_or(0, |end| end + 1);
    let mut ended = String::from(&line[..whole]);
    while line[whole..].width() >= width {
        let (end, next) = match line[whole..].rfind(' ').filter(|&space| space > 0) {
            Some(space) => (whole + space, whole + space + 1),
            None if added > whole => (added, added),
            None => break,
        };
        ended.push_str(&line[whole..end]);
        ended.push('\n');
        whole = next;
    }
    line.drain(..whole);
    ended
}

fn milliseconds(seconds: f64) -> u64 {
    (seconds * 1_000.0).max(0.0) as u64
}

fn write_flush(mut stdout: &io::Stdout, text: &str) -> io::Result<()> {
    stdout.write_all(text.as_bytes())?;
    stdout.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_end_at_spaces_or_before_the_word_that_is_too_much() {
        let mut line = String::new();
        let ended: Vec<String> =
            ["one", " two", " three", "。\n四", "五", "六", "七"].map(|text| wrap(&mut line, text, 8)).into();
        assert_eq!(ended, ["", "", "one two\n", "three。\n", "", "", "四五六\n"]);
        assert_eq!(line, "七");
    }
}
