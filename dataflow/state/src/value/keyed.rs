//! The message of a keyed source: what a record says of its key's row, sent to the key's owner.

use tidemill_ir::row::Row;

use super::flat::{ByteSink, Flat, Malformed, Read, Reader};
use super::source_position::ChangeOrder;

/// The offset of a record that was restored from a checkpoint.
pub const RESTORED: i64 = -1;

/// What a record of a keyed source says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Keyed {
    /// The key's row is now this one, or it is deleted, or the key is in error.
    Row {
        /// The bytes of the record's key.
        key: Row,
        /// The partition of the record.
        partition: u32,
        /// The offset of the record.
        offset: i64,
        /// The order of the change among those of other partitions.
        rank: ChangeOrder,
        /// The row; `None` for a deletion or an error.
        row: Option<Row>,
        /// Whether the key is in error: its row could not be published or decoded. If there is a
        /// row all the same, it is a [`super::partial`] one.
        refused: bool,
    },
    /// All keys of a partition were deleted (TRUNCATE). Every worker receives this message.
    Truncated {
        /// The partition that was truncated.
        partition: u32,
        /// The offset of the record.
        offset: i64,
        /// The index of the worker that receives this message.
        worker: u64,
    },
}

impl Keyed {
    /// The index of the worker, below `peers`, that receives the message.
    pub fn route(&self, peers: usize) -> u64 {
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
