//! Facts about one topic's records that the journal keeps from run to run: numbers by number.
//!
//! Input: what earlier runs kept, and what this run finds. Output: whether the two agree, and what
//! must be kept in addition.

use std::collections::BTreeMap;

/// Facts about one topic. The first value found for a number is kept.
#[derive(Default)]
pub(super) struct Kept {
    /// The facts in the journal, with those that will be added.
    facts: BTreeMap<u32, i64>,
    /// The facts that were not handed to the journal yet.
    new: BTreeMap<u32, i64>,
}

impl Kept {
    /// Takes in what earlier runs kept.
    pub(super) fn remember(&mut self, facts: BTreeMap<u32, i64>) {
        self.facts = facts;
    }

    /// Takes the facts that must be kept and were not handed over yet.
    pub(super) fn noted(&mut self) -> BTreeMap<u32, i64> {
        std::mem::take(&mut self.new)
    }

    /// Whether a fact agrees with the earlier one. A new fact is kept and agrees.
    pub(super) fn takes(&mut self, number: u32, is: i64) -> bool {
        match self.facts.get(&number) {
            Some(was) => *was == is,
            None => {
                self.facts.insert(number, is);
                self.new.insert(number, is);
                true
            }
        }
    }
}
