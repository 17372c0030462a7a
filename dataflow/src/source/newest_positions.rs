//! Per-partition duplicate filter: the newest source position that one source has read on one
//! worker.
//!
//! A record whose source position is at or below the newest one of its partition is a duplicate and
//! is dropped. Input: the positions at which reading begins, and the epochs that are replayed.
//! Output: the position that a record is compared with, and the positions that a report carries.
//!
//! 1. At the end of an epoch, the positions in memory are those that are bound with the epoch. This
//!    also holds for an epoch that an earlier version bound without positions: that version dropped
//!    no duplicates, so the replay of such an epoch drops none either, and the next epoch begins
//!    without positions.

use std::collections::{BTreeMap, BTreeSet};

use tidemill_state::journal::Binding;
use tidemill_state::value::source_position::SourcePosition;

/// The newest source position of each partition.
#[derive(Debug, Default)]
pub(crate) struct Newest {
    /// By partition; `None` when no record with a source position was read yet.
    positions: BTreeMap<u32, Option<SourcePosition>>,
    /// Partitions of the epoch being replayed whose records all count, whatever their positions
    /// are.
    all: BTreeSet<u32>,
}

impl Newest {
    /// Sets the positions with which reading begins: those at the end of a checkpoint.
    pub(crate) fn begin(&mut self, positions: BTreeMap<u32, SourcePosition>) {
        self.positions = positions
            .into_iter()
            .map(|(partition, place)| (partition, Some(place)))
            .collect();
    }

    /// The position that the next record of a partition is compared with and moves; `None` when the
    /// partition's records all count.
    pub(crate) fn of(&mut self, partition: u32) -> Option<&mut Option<SourcePosition>> {
        if !self.all.is_empty() && self.all.contains(&partition) {
            return None;
        }
        Some(self.positions.entry(partition).or_default())
    }

    /// The positions of these partitions, as far as they have one.
    pub(crate) fn at<'a>(
        &self,
        partitions: impl Iterator<Item = &'a u32>,
    ) -> BTreeMap<u32, SourcePosition> {
        let place = |partition: &u32| Some((*partition, (*self.positions.get(partition)?)?));
        partitions.filter_map(place).collect()
    }

    /// Begins the replay of an epoch, whose records of `topic` lie below `ends`.
    pub(crate) fn replay(&mut self, binding: &Binding, topic: &str, ends: &BTreeMap<u32, i64>) {
        let bound = binding.positions.get(topic);
        let unbound = |partition: &&u32| bound.is_none_or(|bound| !bound.contains_key(*partition));
        self.all = ends.keys().filter(unbound).copied().collect();
    }

    /// Ends the replay of an epoch: the bound positions are now those in memory.
    pub(crate) fn replayed(&mut self, binding: &Binding, topic: &str, ends: &BTreeMap<u32, i64>) {
        self.all.clear();
        let bound = binding.positions.get(topic);
        for partition in ends.keys() {
            let place = bound.and_then(|bound| bound.get(partition)).copied();
            self.positions.insert(*partition, place);
        }
    }
}

#[cfg(test)]
mod tests {
    use tidemill_log::envelope::event::Position;

    use super::*;

    fn place(commit: u64) -> SourcePosition {
        let position = Position { commit, index: 0 };
        let begun_us = None;
        SourcePosition { position, begun_us }
    }

    #[test]
    fn an_epoch_is_replayed_as_its_version_took_it_and_ends_with_what_is_bound() {
        let mut newest = Newest::default();
        newest.begin([(0, place(5)), (1, place(6)), (2, place(7))].into());
        let ends = BTreeMap::from([(0, 10), (1, 10), (3, 10)]);
        let binding = Binding {
            epoch: 1,
            ends: [("t".to_owned(), ends.clone())].into(),
            positions: [("t".to_owned(), [(0, place(8))].into())].into(),
            ..Binding::default()
        };
        newest.replay(&binding, "t", &ends);
        assert_eq!(newest.of(0), Some(&mut Some(place(5))));
        assert_eq!(newest.of(1), None);
        assert_eq!(newest.of(3), None);
        assert_eq!(newest.of(2), Some(&mut Some(place(7))));
        newest.replayed(&binding, "t", &ends);
        let all = [0, 1, 2, 3];
        let bound = BTreeMap::from([(0, place(8)), (2, place(7))]);
        assert_eq!(newest.at(all.iter()), bound);
        assert_eq!(newest.of(1), Some(&mut None));
        // What the binder knows is the same.
        let before = [(0, place(5)), (1, place(6)), (2, place(7))].into();
        let mut positions = [("t".to_owned(), before)].into();
        binding.move_positions(&mut positions);
        assert_eq!(positions["t"], bound);
    }
}
