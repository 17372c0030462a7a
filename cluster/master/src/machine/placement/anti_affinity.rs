//! Anti-affinity: pairs of workers that could not reach each other lately, and are therefore not
//! placed together.
//!
//! A pair is recorded when a generation fails because its processes could not connect, and expires
//! after [`ANTI_AFFINITY_MAX`] ms. Pairs are kept in memory only: a new master may repeat one
//! failed start.

use std::collections::VecDeque;

use tidemill_protocol::WorkerId;

use crate::machine::times::ANTI_AFFINITY_MAX;

/// Limit of recorded pairs; the oldest pair is dropped for a new one.
const PAIRS_MAX: usize = 1000;

/// The recorded pairs, each with the time in ms until which the pair is kept apart.
#[derive(Debug, Clone, Default)]
pub(crate) struct AntiAffinity {
    pairs: VecDeque<(WorkerId, WorkerId, u64)>,
}

impl AntiAffinity {
    /// Records that `one` and `other` could not reach each other, and drops expired pairs.
    pub(crate) fn add(&mut self, one: &str, other: &str, now: u64) {
        self.pairs.retain(|(_, _, until)| now < *until);
        if self.pairs.len() >= PAIRS_MAX {
            self.pairs.pop_front();
        }
        let pair = (one.to_owned(), other.to_owned(), now + ANTI_AFFINITY_MAX);
        self.pairs.push_back(pair);
    }

    /// Whether `one` and `other` must not be placed together at `now`. The order of the two does
    /// not matter.
    pub(crate) fn is(&self, one: &str, other: &str, now: u64) -> bool {
        self.pairs.iter().any(|(a, b, until)| {
            now < *until && ((a == one && b == other) || (a == other && b == one))
        })
    }
}
