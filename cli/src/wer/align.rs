// SPDX-License-Identifier: MPL-2.0
//! How many edits make one sequence of another, by kind.

use std::ops::AddAssign;

use serde::Serialize;

/// The edits that make a reference of what was recognised, and how long the reference is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Edits {
    /// Something else in place of what is in the reference.
    pub substitutions: usize,
    /// In the reference only.
    pub deletions: usize,
    /// In what was recognised only.
    pub insertions: usize,
    /// Length of the reference.
    pub reference: usize,
}

impl Edits {
    /// All of them.
    pub fn errors(&self) -> usize {
        self.substitutions + self.deletions + self.insertions
    }

    /// Errors over the length of the reference, none if that is empty. More than 1 with many insertions.
    pub fn rate(&self) -> Option<f64> {
        (self.reference > 0).then(|| self.errors() as f64 / self.reference as f64)
    }
}

impl AddAssign for Edits {
    fn add_assign(&mut self, other: Self) {
        self.substitutions += other.substitutions;
        self.deletions += other.deletions;
        self.insertions += other.insertions;
        self.reference += other.reference;
    }
}

/// The fewest edits (Levenshtein's distance); of several ways to do with so few the one that leaves the most of the
/// reference right, so that the counts don't depend on the order of the search.
pub fn align<T: PartialEq>(reference: &[T], hypothesis: &[T]) -> Edits {
    // A cell of the table holds (edits, substitutions) for a beginning of either; the rest follows from the lengths.
    let mut row: Vec<(usize, usize)> = (0..=hypothesis.len()).map(|n| (n, 0)).collect();
    for (index, wanted) in reference.iter().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], (index + 1, 0));
        for (at, got) in hypothesis.iter().enumerate() {
            let (above, left) = (row[at + 1], row[at]);
            let other = usize::from(wanted != got);
            let kept = (diagonal.0 + other, diagonal.1 + other);
            row[at + 1] = kept.min((above.0 + 1, above.1)).min((left.0 + 1, left.1));
            diagonal = above;
        }
    }
    let (errors, substitutions) = row[hypothesis.len()];
    // Deletions and insertions are the other edits, and differ by what the lengths differ.
    let insertions = (errors - substitutions + hypothesis.len() - reference.len()) / 2;
    Edits {
        substitutions,
        deletions: errors - substitutions - insertions,
        insertions,
        reference: reference.len(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn words(reference: &str, hypothesis: &str) -> (usize, usize, usize) {
        let split = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        let edits = align(&split(reference), &split(hypothesis));
        (edits.substitutions, edits.deletions, edits.insertions)
    }

    #[test]
    fn kinds_of_edits() {
        assert_eq!(words("", ""), (0, 0, 0));
        assert_eq!(words("a b c", ""), (0, 3, 0));
        assert_eq!(words("", "a b"), (0, 0, 2));
        assert_eq!(words("a b c d", "a x c d"), (1, 0, 0));
        assert_eq!(words("a b c d", "b c d e"), (0, 1, 1));
        assert_eq!(words("a b", "b c"), (0, 1, 1), "two ways with two edits, this leaves a word right");
        assert_eq!(words("he was not an ill disposed man", "he was knot and disposed men too"), (3, 1, 1));
    }

    /// Every way to align, tried: (edits, substitutions).
    fn brute(reference: &[u8], hypothesis: &[u8]) -> (usize, usize) {
        match (reference.split_first(), hypothesis.split_first()) {
            (None, _) => (hypothesis.len(), 0),
            (_, None) => (reference.len(), 0),
            (Some((wanted, later)), Some((got, rest))) => {
                let (errors, substitutions) = brute(later, rest);
                let other = usize::from(wanted != got);
                let one_more = |(errors, substitutions)| (errors + 1, substitutions);
                let (deleted, inserted) =
                    (one_more(brute(later, hypothesis)), one_more(brute(reference, rest)));
                (errors + other, substitutions + other).min(deleted).min(inserted)
            }
        }
    }

    proptest! {
        #[test]
        fn equals_the_search_through_all_alignments(a in vec(0_u8..3, 0..7), b in vec(0_u8..3, 0..7)) {
            let edits = align(&a, &b);
            prop_assert_eq!((edits.errors(), edits.substitutions), brute(&a, &b));
        }

        #[test]
        fn counts_are_consistent(a in vec(0_u8..4, 0..40), b in vec(0_u8..4, 0..40)) {
            let edits = align(&a, &b);
            let back = align(&b, &a);
            prop_assert_eq!(edits.errors(), back.errors());
            prop_assert_eq!(edits.substitutions, back.substitutions);
            prop_assert_eq!((edits.deletions, edits.insertions), (back.insertions, back.deletions));
            prop_assert_eq!(a.len() + edits.insertions, b.len() + edits.deletions);
            prop_assert!(edits.substitutions + edits.deletions <= a.len());
            prop_assert!(edits.errors() >= a.len().abs_diff(b.len()) && edits.errors() <= a.len().max(b.len()));
            prop_assert_eq!(edits.errors() == 0, a == b);
            prop_assert_eq!(edits.reference, a.len());
        }

        #[test]
        fn a_detour_is_no_shortcut(a in vec(0_u8..3, 0..20), b in vec(0_u8..3, 0..20), c in vec(0_u8..3, 0..20)) {
            prop_assert!(align(&a, &c).errors() <= align(&a, &b).errors() + align(&b, &c).errors());
        }
    }
}
