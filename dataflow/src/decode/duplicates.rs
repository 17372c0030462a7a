//! Where in their source a partition's records come from, as far as they were taken.
//!
//! In: what a record of the own ingest says of itself. Out: whether it is new, or a copy of one
//! that was taken before.
//!
//! 1. What is a copy follows from the records before it in its partition alone, so a replay drops
//!    the same ones.
//! 2. A publisher writes a partition's changes with growing positions, each as often as it likes.
//!    So of a change's records the first is taken and every later one is dropped.

use tidemill_log::event::Position;

use crate::value::source_position::SourcePosition;

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
    pub(super) fn after(self, newest: Option<SourcePosition>) -> Option<SourcePosition> {
        if self.is_foreign {
            let position = newest.map_or(self.position, |it| it.position.max(self.position));
            let begun_us = newest.and_then(|it| it.begun_us);
            return Some(SourcePosition { position, begun_us });
        }
        let begun_us = newest.and_then(|newest| newest.begun_us);
        let is_new = newest.is_none_or(|newest| self.position > newest.position);
        let begins = self.begins_us.is_some_and(|_| self.begins_us > begun_us);
        (is_new || begins).then_some(SourcePosition {
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
}
