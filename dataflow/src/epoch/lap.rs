//! The settled epoch: the epoch up to which all partitions of all topics have been read.
//!
//! Partitions of a topic are read at different speeds. If epoch `s` is settled, then everything
//! that was written to any partition before `s` was bound is itself in a bound epoch. Therefore an
//! operator may forget what it remembered at or below `s` for records that arrive late in another
//! partition (see `operator/upsert.rs`).
//!
//! ```text
//! lap begins at bound epoch e ──► a look at the topics' ends that began after that is complete
//!                             ──► everything that the look saw is bound ──► e is settled
//! ```

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use tidemill_ir::Epoch;
use tidemill_log::lock;
use tidemill_log::log::PartitionRange;
use tidemill_state::journal::Binding;

use crate::stats::Stats;

/// The laps of one run, one after the other. Each lap settles one epoch.
#[derive(Debug, Default)]
pub(crate) struct Laps {
    /// The last settled epoch; 0 before the first lap ended.
    settled: Epoch,
    /// The lap that is going on.
    lap: Option<Lap>,
}

/// One lap.
#[derive(Debug)]
struct Lap {
    /// The last bound epoch when the lap began, which is settled when the lap ends.
    epoch: Epoch,
    /// The number of complete looks at the topics when the lap began.
    looks: u64,
    /// The topics' offsets in the first look that began after the lap did.
    seen: Option<BTreeMap<String, Vec<PartitionRange>>>,
}

impl Laps {
    /// The settled epoch, given that everything through `bound` is bound.
    pub(crate) fn step(&mut self, bound: &Binding, stats: &Stats) -> Epoch {
        let looks = stats.looks_complete.load(Ordering::Acquire);
        let lap = self.lap.get_or_insert(Lap {
            epoch: bound.epoch,
            looks,
            seen: None,
        });
        // The look that was under way when the lap began may have seen less, so the second one
        // counts.
        if lap.seen.is_none() && looks >= lap.looks + 2 {
            lap.seen = Some(lock(&stats.held).clone());
        }
        let end = |topic: &str, partition: u32| bound.ends.get(topic)?.get(&partition).copied();
        let is_bound = |topic: &str, held: &PartitionRange| {
            let is_empty = held.high <= held.low;
            is_empty || end(topic, held.partition).is_some_and(|end| end >= held.high)
        };
        let mut seen = lap.seen.iter().flatten();
        if lap.seen.is_some() && seen.all(|(topic, all)| all.iter().all(|it| is_bound(topic, it))) {
            self.settled = lap.epoch;
            self.lap = None;
        }
        self.settled
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bound(epoch: Epoch, ends: [i64; 2]) -> Binding {
        Binding {
            epoch,
            ends: [("t".to_owned(), [(0, ends[0]), (1, ends[1])].into())].into(),
            ..Binding::default()
        }
    }

    fn look(stats: &Stats, high: i64) {
        let held = [0, 1].map(|partition| PartitionRange {
            partition,
            low: 0,
            high,
        });
        lock(&stats.held).insert("t".to_owned(), held.to_vec());
        stats.looks_complete.fetch_add(1, Ordering::Release);
    }

    #[test]
    fn an_epoch_is_settled_when_all_is_bound_that_was_there_after_it() {
        let (laps, stats) = (&mut Laps::default(), &Stats::default());
        assert_eq!(laps.step(&bound(5, [9, 1]), stats), 0);
        look(stats, 1);
        assert_eq!(
            laps.step(&bound(6, [9, 1]), stats),
            0,
            "it may be of before"
        );
        look(stats, 10);
        assert_eq!(laps.step(&bound(7, [10, 9]), stats), 0, "partition 1 lags");
        look(stats, 20);
        assert_eq!(laps.step(&bound(8, [10, 10]), stats), 5);
        assert_eq!(laps.step(&bound(9, [20, 20]), stats), 5);
        look(stats, 20);
        look(stats, 20);
        assert_eq!(laps.step(&bound(10, [20, 20]), stats), 9);
    }
}
