//! A bounded histogram of the commit times of a batch's records.

use serde::{Deserialize, Serialize};

/// The number of distinct times at which a growing batch is shrunk.
const TIMES_MAX: usize = 1_024;
/// The number of distinct times that remain after shrinking.
const TIMES_KEPT_MAX: usize = 128;

/// Commit times (ms since 1970) with the number of records of each. If there are too many times,
/// neighbouring times are merged into the older one, so an age is never reported too low.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Commits(Vec<(i64, u64)>);

impl Commits {
    /// Adds one record that was committed at `at_ms`.
    pub(crate) fn add(&mut self, at_ms: i64) {
        match self.0.last_mut() {
            Some((at, count)) if *at == at_ms => *count += 1,
            _ => self.0.push((at_ms, 1)),
        }
        if self.0.len() >= TIMES_MAX {
            self.shrink();
        }
    }

    /// Adds all records of another batch.
    pub(crate) fn merge(&mut self, other: &Self) {
        self.0.extend(&other.0);
        if self.0.len() >= TIMES_MAX {
            self.shrink();
        }
    }

    /// Takes everything added since the last call, with at most [`TIMES_KEPT_MAX`] times.
    pub(crate) fn take(&mut self) -> Self {
        if self.0.len() > TIMES_KEPT_MAX {
            self.shrink();
        }
        std::mem::take(self)
    }

    /// Each time (ms) with its number of records.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (i64, u64)> + '_ {
        self.0.iter().copied()
    }

    /// The oldest time that is not before `from`.
    pub(crate) fn oldest_from(&self, from: i64) -> Option<i64> {
        self.iter().map(|(at, _)| at).filter(|at| *at >= from).min()
    }

    /// Merges neighbouring times into buckets, whose width doubles until few enough are left.
    fn shrink(&mut self) {
        self.0.sort_unstable();
        let mut width = 1;
        loop {
            self.0.dedup_by(|next, kept| {
                let same = next.0.div_euclid(width) == kept.0.div_euclid(width);
                kept.1 += if same { next.1 } else { 0 };
                same
            });
            if self.0.len() <= TIMES_KEPT_MAX {
                return;
            }
            width *= 2;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_record_counts_and_none_gets_younger() {
        let mut commits = Commits::default();
        (0..100_000).for_each(|n| commits.add(1_000 + n / 2));
        let taken = commits.take();
        assert_eq!(commits, Commits::default());
        let counts: u64 = taken.iter().map(|(_, count)| count).sum();
        assert_eq!(counts, 100_000);
        assert!(taken.0.len() <= TIMES_KEPT_MAX);
        assert_eq!(taken.oldest_from(0), Some(1_000));
        // Half of the records are of the first half of the time, about.
        let half: u64 = taken
            .iter()
            .filter(|(at, _)| *at < 26_000)
            .map(|(_, n)| n)
            .sum();
        assert!((49_000..=51_500).contains(&half), "{half}");
        let mut both = taken.clone();
        both.merge(&taken);
        assert_eq!(both.iter().map(|(_, count)| count).sum::<u64>(), 200_000);
    }
}
