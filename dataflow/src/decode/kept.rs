//! What the journal keeps of one topic's records from run to run: numbers, by numbers.
//!
//! In: what earlier runs kept, and what this one finds. Out: whether both are the same, and what
//! is to be kept beside.

use std::collections::BTreeMap;

/// Facts about one topic. The first one that is found of a number is kept.
#[derive(Default)]
pub(super) struct Kept {
    /// As the journal has them, and as it shall.
    facts: BTreeMap<u32, i64>,
    /// Those of them that were not asked for so far.
    new: BTreeMap<u32, i64>,
}

impl Kept {
    /// Takes what earlier runs kept.
    pub(super) fn remember(&mut self, facts: BTreeMap<u32, i64>) {
        self.facts = facts;
    }

    /// What is to be kept and was not asked for so far.
    pub(super) fn noted(&mut self) -> BTreeMap<u32, i64> {
        std::mem::take(&mut self.new)
    }

    /// Whether a fact is as it was before; the first one is.
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
