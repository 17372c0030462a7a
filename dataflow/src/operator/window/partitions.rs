//! Partitions: the rows of several partitions one after the other, and their groups of peers.
//!
//! Invariants:
//! 1. The rows of a partition are in its order, and a row with multiplicity `n` is there `n` times.
//! 2. A group of peers is never empty, and lies within one partition.

use std::ops::Range;

use arrow::array::ArrayRef;
use tidemill_ir::Epoch;
use tidemill_ir::row::{Row, RowCodec};
use tidemill_log::Result;

use super::unnamed;

/// Partitions at different epochs as encoded rows, and the changes from one to another.
#[derive(Default)]
pub(super) struct Listed<'a> {
    /// The values of all partitions, one partition after the other.
    pub(super) rows: Vec<&'a Row>,
    /// The key and the rows of each partition.
    pub(super) bounds: Vec<Range<usize>>,
    /// The key of each partition.
    pub(super) partition_keys: Vec<&'a Row>,
    /// The changes.
    pub(super) changes: Vec<Change>,
}

/// A change of a partition at an epoch.
pub(super) struct Change {
    /// The epoch.
    pub(super) epoch: Epoch,
    /// The rows before.
    pub(super) before: Range<usize>,
    /// The rows from this epoch on.
    pub(super) now: Range<usize>,
}

impl Listed<'_> {
    /// The encoded key of each row.
    pub(super) fn keys(&self) -> impl Iterator<Item = &[u8]> {
        let keys = self.partition_keys.iter().zip(&self.bounds);
        keys.flat_map(|(key, rows)| rows.clone().map(|_| key.bytes()))
    }

    /// The encoded value of each row.
    pub(super) fn values(&self) -> impl Iterator<Item = &[u8]> {
        self.rows.iter().map(|row| row.bytes())
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self) {
        self.rows.clear();
        self.bounds.clear();
        self.partition_keys.clear();
        self.changes.clear();
    }
}

/// A partition, as positions in the list of all rows.
pub(super) struct Partition {
    /// Its rows.
    pub(super) rows: Range<usize>,
    /// Its groups of peers.
    pub(super) groups: Range<usize>,
}

/// Where the partitions and the groups of peers in a list of rows are.
pub(super) struct Partitions {
    /// The partitions, which cover all rows.
    pub(super) all: Vec<Partition>,
    /// The rows of each group of peers.
    pub(super) groups: Vec<Range<usize>>,
    /// The group of each row.
    pub(super) group_of: Vec<usize>,
}

impl Partitions {
    /// Finds the groups of peers: the rows of a partition with equal `order` columns.
    ///
    /// # Errors
    /// `Bug` when a column cannot be encoded.
    pub(super) fn new(bounds: &[Range<usize>], order: &[ArrayRef], count: usize) -> Result<Self> {
        let codec = RowCodec::new(unnamed(order))?;
        let encoded = codec.encode(order, count)?;
        let (mut all, mut groups) = (Vec::new(), Vec::new());
        let mut group_of = Vec::with_capacity(count);
        for rows in bounds.iter().filter(|rows| !rows.is_empty()) {
            let first = groups.len();
            let mut start = rows.start;
            for row in rows.clone() {
                if row > start && encoded.bytes(row) != encoded.bytes(start) {
                    groups.push(start..row);
                    start = row;
                }
                group_of.push(groups.len());
            }
            groups.push(start..rows.end);
            all.push(Partition {
                rows: rows.clone(),
                groups: first..groups.len(),
            });
        }
        Ok(Self {
            all,
            groups,
            group_of,
        })
    }

    /// The peers of a row, with the row.
    pub(super) fn peers(&self, row: usize) -> Range<usize> {
        self.groups[self.group_of[row]].clone()
    }

    /// The number of rows.
    pub(super) fn len(&self) -> usize {
        self.group_of.len()
    }
}
