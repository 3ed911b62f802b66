// SPDX-License-Identifier: MPL-2.0
//! Phrases as people write them down.

use super::{Boosts, refused};
use crate::error::Result;
use crate::model::Vocabulary;

impl Boosts {
    /// Phrases of a text: one a line, perhaps with a tab and its boost behind it, `boost` if not. Lines that are empty or begin with
    /// `#` are left out.
    ///
    /// Fails as [`Boosts::new`] does, and if what follows a tab is no number, saying in which line, or if there is no phrase.
    pub fn parse(vocabulary: &Vocabulary, text: &str, boost: f32) -> Result<Self> {
        let lines = text.trim_start_matches('\u{feff}').lines().map(str::trim_end).enumerate();
        let is_left_out = |line: &str| line.is_empty() || line.trim_start().starts_with('#');
        let phrases = lines.filter(|(_, line)| !is_left_out(line)).map(|(index, line)| {
            let Some((phrase, own)) = line.rsplit_once('\t') else { return Ok((line, boost)) };
            let own = own.trim().parse();
            own.map(|own| (phrase.trim(), own)).map_err(|_| {
                refused(format!("line {}: expected a phrase, a tab and a number, found {line:?}", index + 1))
            })
        });
        let phrases: Vec<(&str, f32)> = phrases.collect::<Result<_>>()?;
        if phrases.is_empty() {
            return Err(refused("there is no phrase in it".into()));
        }
        Self::new(vocabulary, phrases)
    }
}
