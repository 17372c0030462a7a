//! Duplicate detection by source position within a partition.
//!
//! Input: the source position in a record, and the newest one of its partition. Output: whether the
//! record is new, or a duplicate of one that was taken before.
//!
//! 1. Whether a record is a duplicate follows only from the records before it in its partition.
//!    Therefore a replay drops the same records.
//! 2. A publisher writes the changes of a partition with growing positions, each change any number
//!    of times. Therefore the first record of a change is taken, and every later one is dropped.
//!
//! ```text
//! positions in a partition:   1  2  3  2  3  4      (2 and 3 were published again)
//! taken:                      1  2  3  -  -  4
//! ```

use tidemill_log::envelope::event::Position;
use tidemill_state::value::source_position::SourcePosition;

/// The source position that a record carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Said {
    /// Commit and index of the change.
    pub(super) position: Position,
    /// When the snapshot was taken that the record begins (µs since 1970); `None` for all other
    /// records.
    pub(super) begins_us: Option<i64>,
    /// Whether another publisher wrote the record. It may write a change twice, and the order of
    /// its positions is not guaranteed, so none of its records is a duplicate.
    pub(super) is_foreign: bool,
}

/// The value of `source.connector` in records of Debezium's PostgreSQL connector.
const DEBEZIUM_POSTGRES: &[u8] = b"postgresql";

impl Said {
    /// The position in a record of Debezium's PostgreSQL connector: the change's own LSN, which
    /// grows with each change of a row. `None` for other connectors, whose positions belong to one
    /// of several servers.
    pub(super) fn of_lsn(connector: &[u8], lsn: i64) -> Option<Self> {
        let (commit, index) = (lsn.cast_unsigned(), 0);
        (connector == DEBEZIUM_POSTGRES).then_some(Self {
            position: Position { commit, index },
            begins_us: None,
            is_foreign: true,
        })
    }

    /// The partition's position after this record; `None` if the record is a duplicate. A snapshot
    /// may come from another database with lower positions. It counts, unless it is not newer than
    /// the last one.
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
