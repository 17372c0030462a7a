//! The newest change of each partition that one source reads on one worker.
//!
//! In: the places where the reading begins, and the epochs that are replayed. Out: the place that a
//! record is held against, and those that are reported with what was read.
//!
//! 1. What is in memory at the end of an epoch is what is bound with it, also where an earlier
//!    version bound no places: it dropped nothing, so nothing of that epoch is dropped, and the
//!    next one begins without.

use std::collections::{BTreeMap, BTreeSet};

use crate::journal::Binding;
use crate::value::source_position::SourcePosition;

/// The newest change of each partition.
#[derive(Debug, Default)]
pub(crate) struct Newest {
    places: BTreeMap<u32, Option<SourcePosition>>,
    /// Partitions whose records count whatever their places are, in the epoch being replayed.
    all: BTreeSet<u32>,
}

impl Newest {
    /// Begins where a checkpoint ends.
    pub(crate) fn begin(&mut self, places: BTreeMap<u32, SourcePosition>) {
        self.places = places
            .into_iter()
            .map(|(partition, place)| (partition, Some(place)))
            .collect();
    }

    /// What the next record of a partition is held against; none when it counts whatever it is.
    pub(crate) fn of(&mut self, partition: u32) -> Option<&mut Option<SourcePosition>> {
        if !self.all.is_empty() && self.all.contains(&partition) {
            return None;
        }
        Some(self.places.entry(partition).or_default())
    }

    /// The places of these partitions, where they have one.
    pub(crate) fn at<'a>(
        &self,
        partitions: impl Iterator<Item = &'a u32>,
    ) -> BTreeMap<u32, SourcePosition> {
        let place = |partition: &u32| Some((*partition, (*self.places.get(partition)?)?));
        partitions.filter_map(place).collect()
    }

    /// The records that come next are of this epoch, and of these partitions of `topic`.
    pub(crate) fn replay(&mut self, binding: &Binding, topic: &str, ends: &BTreeMap<u32, i64>) {
        let bound = binding.places.get(topic);
        let unbound = |partition: &&u32| bound.is_none_or(|bound| !bound.contains_key(*partition));
        self.all = ends.keys().filter(unbound).copied().collect();
    }

    /// All of them came.
    pub(crate) fn replayed(&mut self, binding: &Binding, topic: &str, ends: &BTreeMap<u32, i64>) {
        self.all.clear();
        let bound = binding.places.get(topic);
        for partition in ends.keys() {
            let place = bound.and_then(|bound| bound.get(partition)).copied();
            self.places.insert(*partition, place);
        }
    }
}

#[cfg(test)]
mod tests {
    use tidemill_log::event::Position;

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
            places: [("t".to_owned(), [(0, place(8))].into())].into(),
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
        let mut places = [("t".to_owned(), before)].into();
        binding.move_places(&mut places);
        assert_eq!(places["t"], bound);
    }
}
