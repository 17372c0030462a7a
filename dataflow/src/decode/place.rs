//! Where in their source a partition's records come from, as far as they were taken.
//!
//! In: what a record of the own ingest says of itself. Out: whether it is new, or a copy of one
//! that was taken before.
//!
//! 1. What is a copy follows from the records before it in its partition alone, so a replay drops
//!    the same ones.
//! 2. A publisher writes a partition's changes with growing positions, each as often as it likes.
//!    So of a change's records the first is taken and every later one is dropped.

use serde::{Deserialize, Serialize};
use tidemill_log::event::Position;

/// The newest change of a partition that was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Kept", into = "Kept")]
pub struct Place {
    /// Its position.
    pub position: Position,
    /// When the snapshot was taken that the table was last begun anew with, in microseconds since
    /// 1970, where one was seen.
    pub begun_us: Option<i64>,
}

/// Short, since each binding holds one for each partition.
type Kept = (u64, u64, Option<i64>);

impl From<Kept> for Place {
    fn from((commit, index, begun_us): Kept) -> Self {
        let position = Position { commit, index };
        Self { position, begun_us }
    }
}

impl From<Place> for Kept {
    fn from(place: Place) -> Self {
        let Position { commit, index } = place.position;
        (commit, index, place.begun_us)
    }
}

/// What a record of the own ingest says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Said {
    pub(super) position: Position,
    /// When the snapshot was taken that the record begins; none for all others.
    pub(super) begins_us: Option<i64>,
}

impl Said {
    /// The place after this record; none when it is a copy. A snapshot may be of another database,
    /// whose positions are lower, and counts unless it is no newer than the last one either.
    pub(super) fn after(self, newest: Option<Place>) -> Option<Place> {
        let begun_us = newest.and_then(|newest| newest.begun_us);
        let is_new = newest.is_none_or(|newest| self.position > newest.position);
        let begins = self.begins_us.is_some_and(|_| self.begins_us > begun_us);
        (is_new || begins).then_some(Place {
            position: self.position,
            begun_us: self.begins_us.max(begun_us),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(commit: u64, index: u64) -> Said {
        let position = Position { commit, index };
        Said {
            position,
            begins_us: None,
        }
    }

    fn snapshot(commit: u64, begins_us: i64) -> Said {
        Said {
            begins_us: Some(begins_us),
            ..change(commit, 0)
        }
    }

    /// Which of the records are taken.
    fn taken(records: &[Said]) -> Vec<bool> {
        let mut newest = None;
        let taken = records.iter().map(|said| {
            let after = said.after(newest);
            newest = after.or(newest);
            after.is_some()
        });
        taken.collect()
    }

    #[test]
    fn what_is_at_or_before_the_newest_is_a_copy() {
        let records = [(5, 0), (5, 1), (5, 1), (4, 9), (5, 0), (5, 2), (6, 0)];
        let records = records.map(|(commit, index)| change(commit, index));
        let expected = [true, true, false, false, false, true, true];
        assert_eq!(taken(&records), expected);
    }

    #[test]
    fn a_newer_snapshot_begins_lower_and_an_older_one_is_a_copy() {
        let records = [
            (change(900, 0), true),
            // Of another database.
            (snapshot(10, 2_000), true),
            (change(10, 1), true),
            (change(12, 0), true),
            // The same once more, and one of a process that stood still before it.
            (snapshot(10, 2_000), false),
            (change(10, 1), false),
            (snapshot(8, 1_000), false),
            (change(8, 1), false),
            // Its clock stands behind, and its positions tell.
            (snapshot(20, 1_500), true),
            (snapshot(10, 2_000), false),
            (change(19, 0), false),
            (change(21, 0), true),
        ];
        let (said, expected): (Vec<_>, Vec<_>) = records.into_iter().unzip();
        assert_eq!(taken(&said), expected);
    }

    #[test]
    fn a_place_is_kept_as_three_numbers() {
        for begun_us in [None, Some(-1)] {
            let position = Position {
                commit: u64::MAX,
                index: 3,
            };
            let place = Place { position, begun_us };
            let kept = serde_json::to_string(&place).unwrap();
            assert!(kept.starts_with("[18446744073709551615,3,"), "{kept}");
            assert_eq!(serde_json::from_str::<Place>(&kept).unwrap(), place);
        }
    }
}
