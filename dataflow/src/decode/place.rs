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

use crate::exchange::{Flat, Read, Reader, Sink};

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

/// The order of one key's changes that stand in different partitions, as a key comes to do when its
/// schema or the rule of its partition changed. Within a partition the log's order holds.
///
/// Positions of different databases do not compare, and a snapshot may be of another one. So a
/// change stands in an era: that of the snapshot its partition was last begun anew with. Where none
/// was seen, the partition may be younger than the snapshots of others: then the record's time
/// tells whether it was before them. Packed, since each row that is kept has one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Rank {
    /// Twice the microseconds since 1970, of the snapshot and then one more, or of the record.
    era: i64,
    commit: u64,
    index: u32,
}

impl Rank {
    /// Of a record that says nothing of its place.
    pub(crate) const NONE: Self = Self {
        era: i64::MIN,
        commit: 0,
        index: 0,
    };

    /// Of a record of this time behind which `place` is its partition's newest.
    pub(crate) fn new(place: Place, timestamp_ms: i64) -> Self {
        let twice = |us: i64| us.saturating_mul(2);
        Self {
            era: match place.begun_us {
                Some(us) => twice(us).saturating_add(1),
                None => twice(timestamp_ms.saturating_mul(1000)),
            },
            commit: place.position.commit,
            index: u32::try_from(place.position.index).unwrap_or(u32::MAX),
        }
    }

    pub(crate) fn is_known(self) -> bool {
        self != Self::NONE
    }

    /// Whether it is of an earlier change than `other`; false where that is not known.
    pub(crate) fn is_before(self, other: Self) -> bool {
        if !self.is_known() || !other.is_known() {
            return false;
        }
        let begun = |rank: Self| rank.era.rem_euclid(2) == 1;
        match (begun(self), begun(other)) {
            (true, true) if self.era != other.era => return self.era < other.era,
            (false, true) if self.era < other.era => return true,
            (true, false) if other.era < self.era => return false,
            _ => {}
        }
        (self.commit, self.index) < (other.commit, other.index)
    }
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
    /// Whether it is of another publisher, which may write a change twice and the order of whose
    /// positions is not sure: nothing of it is a copy.
    pub(super) is_foreign: bool,
}

/// `source.connector` of Debezium's connector for PostgreSQL.
const DEBEZIUM_POSTGRES: &[u8] = b"postgresql";

impl Said {
    /// What a record of Debezium's connector for PostgreSQL says: there the LSN of the change
    /// itself grows with each change of a row. None of other connectors, whose positions are those
    /// of one server among several.
    pub(super) fn of_lsn(connector: &[u8], lsn: i64) -> Option<Self> {
        let (commit, index) = (lsn.cast_unsigned(), 0);
        (connector == DEBEZIUM_POSTGRES).then_some(Self {
            position: Position { commit, index },
            begins_us: None,
            is_foreign: true,
        })
    }

    /// The place after this record; none when it is a copy. A snapshot may be of another database,
    /// whose positions are lower, and counts unless it is no newer than the last one either.
    pub(super) fn after(self, newest: Option<Place>) -> Option<Place> {
        if self.is_foreign {
            let position = newest.map_or(self.position, |it| it.position.max(self.position));
            let begun_us = newest.and_then(|it| it.begun_us);
            return Some(Place { position, begun_us });
        }
        let begun_us = newest.and_then(|newest| newest.begun_us);
        let is_new = newest.is_none_or(|newest| self.position > newest.position);
        let begins = self.begins_us.is_some_and(|_| self.begins_us > begun_us);
        (is_new || begins).then_some(Place {
            position: self.position,
            begun_us: self.begins_us.max(begun_us),
        })
    }
}

impl Flat for Rank {
    const LEAST: usize = i64::LEAST + u64::LEAST + u32::LEAST;

    fn lay(&self, to: &mut impl Sink) {
        self.era.lay(to);
        self.commit.lay(to);
        self.index.lay(to);
    }

    fn read(from: &mut Reader<'_>) -> Read<Self> {
        Ok(Self {
            era: Flat::read(from)?,
            commit: Flat::read(from)?,
            index: Flat::read(from)?,
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
            is_foreign: false,
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

    fn rank(begun_us: Option<i64>, commit: u64, timestamp_ms: i64) -> Rank {
        let position = Position { commit, index: 0 };
        Rank::new(Place { position, begun_us }, timestamp_ms)
    }

    #[test]
    fn positions_decide_between_partitions_within_an_era_and_snapshots_between_eras() {
        let old = rank(None, 900, 1_000);
        let begun = rank(Some(2_000_000), 12, 2_100);
        let younger = rank(None, 20, 2_200);
        assert!(rank(None, 5, 1).is_before(rank(None, 6, 0)));
        assert!(
            old.is_before(begun) && !begun.is_before(old),
            "another database"
        );
        assert!(begun.is_before(younger) && !younger.is_before(begun));
        assert!(begun.is_before(rank(Some(3_000_000), 1, 3_000)));
        assert!(!begun.is_before(begun));
        for other in [old, begun, younger] {
            assert!(!Rank::NONE.is_before(other) && !other.is_before(Rank::NONE));
        }
    }

    #[test]
    fn another_publishers_records_are_no_copies() {
        let said = |commit| Said {
            is_foreign: true,
            ..change(commit, 0)
        };
        let first = said(9).after(None);
        let again = said(7).after(first);
        assert_eq!(again.map(|place| place.position.commit), Some(9));
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
