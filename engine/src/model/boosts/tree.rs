// SPDX-License-Identifier: MPL-2.0
//! The automaton of the phrases: a trie of their pieces with the failure links of Aho and Corasick.
//!
//! A state is how much of some phrase the tokens so far end with. Arcs of a state's own come before those of its failure link,
//! and all of these before the root's, which are the same for every state.

use std::collections::{BTreeMap, VecDeque};

use super::{Arc, Tables, weight};

/// One way to write a phrase.
pub struct Way {
    pub pieces: Vec<u32>,
    pub boost: f32,
}

/// What an automaton may have at most.
#[derive(Clone, Copy)]
pub struct Most {
    pub arcs: usize,
    /// Added to a logit.
    pub added: f32,
}

/// A state; the first is the root.
#[derive(Default)]
struct Node {
    children: BTreeMap<u32, usize>,
    /// Of what its tokens end with, the longest that is a state too.
    fail: usize,
    /// What is added where it is entered: of the phrases that lead through it, the most.
    boost: f32,
    /// A phrase is over here.
    ends: bool,
}

/// The automaton of these ways for a vocabulary of `pieces` pieces; none if it has too many arcs. `starts_word` tells the pieces
/// before which a word is over.
pub fn compile(ways: &[Way], pieces: usize, starts_word: impl Fn(u32) -> bool, most: Most) -> Option<Tables> {
    let mut nodes = vec![Node::default()];
    for way in ways {
        let mut at = 0;
        for &piece in &way.pieces {
            let new = nodes.len();
            at = *nodes[at].children.entry(piece).or_insert(new);
            if at == new {
                nodes.push(Node::default());
            }
        }
        nodes[at].ends = true;
        if nodes.len() > most.arcs {
            return None;
        }
    }
    ways.iter().for_each(|way| score(&mut nodes, way, &starts_word, most.added));
    let mut tables = Tables { root: vec![(0.0, 0); pieces], first: Vec::new(), arcs: Vec::new() };
    // By their depth, so that failure links lead to what is done.
    let mut full: Vec<Vec<Arc>> = Vec::new();
    full.resize_with(nodes.len(), Vec::new);
    let (mut queue, mut count) = (VecDeque::from([0]), 0);
    while let Some(at) = queue.pop_front() {
        let fail = nodes[at].fail;
        for (piece, child) in nodes[at].children.clone() {
            if at > 0 {
                let next = full[fail].binary_search_by_key(&piece, |arc| arc.piece);
                let next = next.map_or(tables.root[piece as usize].1, |index| full[fail][index].next);
                nodes[child].fail = next as usize;
                // No less than what its end adds.
                nodes[child].boost = nodes[child].boost.max(nodes[next as usize].boost);
            } else {
                tables.root[piece as usize] = (nodes[child].boost, child as u32);
            }
            queue.push_back(child);
        }
        if at > 0 {
            let Node { children, .. } = &nodes[at];
            let own = children.iter().map(|(&piece, &next)| (piece, next as u32));
            let own = own.map(|(piece, next)| Arc { piece, boost: nodes[next as usize].boost, next });
            let others = full[fail].iter().filter(|arc| !children.contains_key(&arc.piece)).copied();
            let mut arcs: Vec<Arc> = own.chain(others).collect();
            arcs.sort_unstable_by_key(|arc| arc.piece);
            count += arcs.len();
            full[at] = arcs;
        }
        if count > most.arcs {
            return None;
        }
    }
    tables.first.push(0);
    for arcs in full {
        tables.arcs.extend(arcs);
        tables.first.push(tables.arcs.len() as u32);
    }
    Some(tables)
}

/// Adds a phrase's boost along its way. What is said for good, a phrase that is over before another word, can't be lost any more,
/// so what is added begins anew behind it.
fn score(nodes: &mut [Node], way: &Way, starts_word: impl Fn(u32) -> bool, most: f32) {
    let (mut at, mut said) = (0, 0);
    for &piece in &way.pieces {
        if nodes[at].ends && starts_word(piece) {
            said = 0;
        }
        let Some(&next) = nodes[at].children.get(&piece) else { return };
        (at, said) = (next, said + 1);
        let added = way.boost * weight(said, nodes[at].ends);
        nodes[at].boost = nodes[at].boost.max(added.min(most));
    }
}
