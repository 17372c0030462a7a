//! Workers that could not reach each other lately, and so are not placed together.

use std::collections::VecDeque;

use super::times::APART_MAX;
use crate::protocol::WorkerId;

/// Pairs that are remembered.
const PAIRS_MAX: usize = 1000;

/// Pairs, and until when they are apart.
#[derive(Debug, Clone, Default)]
pub(crate) struct Apart {
    pairs: VecDeque<(WorkerId, WorkerId, u64)>,
}

impl Apart {
    pub(crate) fn add(&mut self, one: &str, other: &str, now: u64) {
        self.pairs.retain(|(_, _, until)| now < *until);
        if self.pairs.len() >= PAIRS_MAX {
            self.pairs.pop_front();
        }
        let pair = (one.to_owned(), other.to_owned(), now + APART_MAX);
        self.pairs.push_back(pair);
    }

    pub(crate) fn is(&self, one: &str, other: &str, now: u64) -> bool {
        self.pairs.iter().any(|(a, b, until)| {
            now < *until && ((a == one && b == other) || (a == other && b == one))
        })
    }
}
