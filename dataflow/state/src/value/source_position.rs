//! Source positions: the newest change of a partition, and the order of changes across partitions.

use serde::{Deserialize, Serialize};
use tidemill_log::envelope::event::Position;

use super::flat::{ByteSink, Flat, Read, Reader};

/// The position of the newest change that was taken from a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Kept", into = "Kept")]
pub struct SourcePosition {
    /// The commit and the index within it.
    pub position: Position,
    /// When the snapshot was taken with which the table last began again, in µs since 1970; `None`
    /// if no snapshot was seen in the partition.
    pub begun_us: Option<i64>,
}

/// The order of changes of one key in different partitions. A key's records are in several
/// partitions when its schema or the partitioning rule changed. Within a partition the log's order
/// holds.
///
/// Positions of different databases cannot be compared, and a snapshot may come from another
/// database. Therefore each change belongs to an era: that of the snapshot with which its partition
/// last began again. If the partition has none, it may be younger than the snapshots of other
/// partitions, and the record's timestamp says whether the change is older than those. The type is
/// compact, because every row in the state has one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangeOrder {
    /// The era: twice the time in µs since 1970, of the record; or of the snapshot, and then one
    /// more.
    era: i64,
    /// The commit's position.
    commit: u64,
    /// The change's index within its commit.
    index: u32,
}

impl ChangeOrder {
    /// The order of a record without a source position; it compares with nothing.
    pub const NONE: Self = Self {
        era: i64::MIN,
        commit: 0,
        index: 0,
    };

    /// The order of a record with this timestamp, after which `place` is its partition's newest
    /// position.
    pub fn new(place: SourcePosition, timestamp_ms: i64) -> Self {
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

    /// Whether the record has an order.
    pub fn is_known(self) -> bool {
        self != Self::NONE
    }

    /// Whether the change is older than `other`; false if this is unknown.
    pub fn is_before(self, other: Self) -> bool {
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

/// The stored form: a tuple, because each binding has one per partition.
type Kept = (u64, u64, Option<i64>);

impl From<Kept> for SourcePosition {
    fn from((commit, index, begun_us): Kept) -> Self {
        let position = Position { commit, index };
        Self { position, begun_us }
    }
}

impl From<SourcePosition> for Kept {
    fn from(place: SourcePosition) -> Self {
        let Position { commit, index } = place.position;
        (commit, index, place.begun_us)
    }
}

impl Flat for ChangeOrder {
    const LEAST: usize = i64::LEAST + u64::LEAST + u32::LEAST;

    fn lay(&self, to: &mut impl ByteSink) {
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

    fn rank(begun_us: Option<i64>, commit: u64, timestamp_ms: i64) -> ChangeOrder {
        let position = Position { commit, index: 0 };
        ChangeOrder::new(SourcePosition { position, begun_us }, timestamp_ms)
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
            assert!(!ChangeOrder::NONE.is_before(other) && !other.is_before(ChangeOrder::NONE));
        }
    }

    #[test]
    fn a_place_is_kept_as_three_numbers() {
        for begun_us in [None, Some(-1)] {
            let position = Position {
                commit: u64::MAX,
                index: 3,
            };
            let place = SourcePosition { position, begun_us };
            let kept = serde_json::to_string(&place).unwrap();
            assert!(kept.starts_with("[18446744073709551615,3,"), "{kept}");
            assert_eq!(
                serde_json::from_str::<SourcePosition>(&kept).unwrap(),
                place
            );
        }
    }
}
