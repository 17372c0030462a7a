//! Grouping the rows of one batch: each row's group, and each group's key, once.

use arrow::array::ArrayRef;
use hashbrown::HashTable;

use crate::Result;
use crate::row::{Row, RowCodec, shard};

/// The groups of one batch.
pub(crate) struct Groups {
    /// Group of each row.
    pub(crate) of_row: Vec<u32>,
    /// Key of each group.
    pub(crate) keys: Vec<Row>,
}

/// Groups rows by their key columns.
pub(crate) fn group(codec: &RowCodec, keys: &[ArrayRef], count: usize) -> Result<Groups> {
    let encoded = codec.encode(keys, count)?;
    let mut table: HashTable<(u64, u32)> = HashTable::new();
    let mut groups = Groups {
        of_row: Vec::with_capacity(count),
        keys: Vec::new(),
    };
    for row in 0..encoded.len() {
        let bytes = encoded.bytes(row);
        let hash = shard(bytes);
        let found = table.entry(
            hash,
            |&(h, group)| h == hash && groups.keys[group as usize].bytes() == bytes,
            |&(h, _)| h,
        );
        let group = match found {
            hashbrown::hash_table::Entry::Occupied(entry) => entry.get().1,
            hashbrown::hash_table::Entry::Vacant(entry) => {
                // A batch has far fewer than 2³² rows: sources cut it by a named limit.
                let group = groups.keys.len() as u32;
                groups.keys.push(Row::new(bytes));
                entry.insert((hash, group));
                group
            }
        };
        groups.of_row.push(group);
    }
    Ok(groups)
}
