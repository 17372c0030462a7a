//! Through which epoch all is read that the topics held when it was.
//!
//! In: looks at what the topics hold, and how far is bound. Out: an epoch. What was written before
//! a record of that epoch, in whatever partition, is in an epoch that is bound: so what was
//! remembered for the sake of records that lag behind in other partitions may be forgotten.
//!
//! A lap begins at the last bound epoch, waits for a look that begins after it, and ends when all
//! that the look saw is bound.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use tidemill_log::log::PartitionRange;

use crate::Epoch;
use crate::journal::Binding;
use crate::stats::Stats;
use crate::sync::lock;

/// The laps of one run.
#[derive(Debug, Default)]
pub(crate) struct Laps {
    settled: Epoch,
    lap: Option<Lap>,
}

#[derive(Debug)]
struct Lap {
    epoch: Epoch,
    /// Complete looks there were when it began.
    looks: u64,
    /// What the first look saw that began after it.
    seen: Option<BTreeMap<String, Vec<PartitionRange>>>,
}

impl Laps {
    /// The epoch, now that all through `bound` is bound.
    pub(crate) fn step(&mut self, bound: &Binding, stats: &Stats) -> Epoch {
        let looks = stats.looks_complete.load(Ordering::Acquire);
        let lap = self.lap.get_or_insert(Lap {
            epoch: bound.epoch,
            looks,
            seen: None,
        });
        // The one that was going on when it began may have seen less.
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
