//! What a record of a keyed source says of its key's row, on its way to the worker of the key.

use super::flat::{ByteSink, Flat, Malformed, Read, Reader};
use super::source_position::ChangeOrder;
use crate::row::Row;

/// Stands for the offset of what a checkpoint kept.
pub(crate) const RESTORED: i64 = -1;

/// What a record of a keyed source says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Keyed {
    /// The row of a key is now this, or gone.
    Row {
        /// The record key's bytes.
        key: Row,
        /// Where the record was read.
        partition: u32,
        /// Where the record was read.
        offset: i64,
        /// Where it stands among the records of other partitions.
        rank: ChangeOrder,
        /// The row.
        row: Option<Row>,
        /// Whether there is a row that could not be published or decoded.
        refused: bool,
    },
    /// All rows of the keys of a partition are gone; sent to every worker.
    Truncated {
        /// The partition.
        partition: u32,
        /// Where the record was read.
        offset: i64,
        /// The worker that this copy is for.
        worker: u64,
    },
}

impl Keyed {
    /// The worker of `peers` that its key belongs to.
    pub(crate) fn route(&self, peers: usize) -> u64 {
        match self {
            Keyed::Row { key, .. } => key.owner(peers),
            Keyed::Truncated { worker, .. } => *worker,
        }
    }
}

impl Flat for Keyed {
    const LEAST: usize = 4;

    fn lay(&self, to: &mut impl ByteSink) {
        match self {
            Keyed::Row {
                key,
                partition,
                offset,
                rank,
                row,
                refused,
            } => {
                to.put(&[0]);
                key.lay(to);
                partition.lay(to);
                offset.lay(to);
                rank.lay(to);
                row.lay(to);
                to.put(&[u8::from(*refused)]);
            }
            Keyed::Truncated {
                partition,
                offset,
                worker,
            } => {
                to.put(&[1]);
                partition.lay(to);
                offset.lay(to);
                worker.lay(to);
            }
        }
    }

    fn read(from: &mut Reader<'_>) -> Read<Self> {
        Ok(match from.byte()? {
            0 => Keyed::Row {
                key: Flat::read(from)?,
                partition: Flat::read(from)?,
                offset: Flat::read(from)?,
                rank: Flat::read(from)?,
                row: Flat::read(from)?,
                refused: from.byte()? != 0,
            },
            1 => Keyed::Truncated {
                partition: Flat::read(from)?,
                offset: Flat::read(from)?,
                worker: Flat::read(from)?,
            },
            _ => return Err(Malformed("an unknown record tag")),
        })
    }
}
