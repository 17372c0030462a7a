//! When the records of a batch were committed, each of them counted, in bounded space.

use serde::{Deserialize, Serialize};

/// Times that are kept while a batch is read.
const TIMES_MAX: usize = 1_024;
/// Times that are kept of a batch that was read.
const TIMES_KEPT_MAX: usize = 128;

/// Times in milliseconds, and how many records have each. When there are too many, neighbours
/// become one, at the older time: ages are never told too low.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Commits(Vec<(i64, u64)>);

impl Commits {
    /// One more record.
    pub(crate) fn add(&mut self, at_ms: i64) {
        match self.0.last_mut() {
            Some((at, count)) if *at == at_ms => *count += 1,
            _ => self.0.push((at_ms, 1)),
        }
        if self.0.len() >= TIMES_MAX {
            self.shrink();
        }
    }

    /// Adds all of another batch.
    pub(crate) fn merge(&mut self, other: &Self) {
        self.0.extend(&other.0);
        if self.0.len() >= TIMES_MAX {
            self.shrink();
        }
    }

    /// What was added since the last call.
    pub(crate) fn take(&mut self) -> Self {
        if self.0.len() > TIMES_KEPT_MAX {
            self.shrink();
        }
        std::mem::take(self)
    }

    /// Each time with how many records have it.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (i64, u64)> + '_ {
        self.0.iter().copied()
    }

    /// The oldest time that is not before `from`.
    pub(crate) fn oldest_from(&self, from: i64) -> Option<i64> {
        self.iter().map(|(at, _)| at).filter(|at| *at >= from).min()
    }

    /// Makes neighbours one, in steps of a width that doubles until few enough are left.
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
