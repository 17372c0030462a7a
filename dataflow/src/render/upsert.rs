//! Keyed sources: the current row of every key, so that a record replaces or deletes the row of
//! its key, and duplicates and replays upstream are harmless.
//!
//! Frontier contract: updates are stashed by epoch under a retained capability; when the input
//! frontier passes an epoch its net effect is applied to the state and sent at that epoch, in
//! epoch order. Within an epoch the record with the greatest offset of a key's partition wins.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use hashbrown::HashMap;
use timely::dataflow::StreamVec;
use timely::dataflow::operators::{Capability, Operator};

use super::Context;
use super::chunk::{Chunk, ChunkStream};
use super::site::{Site, Tap, restore};
use crate::checkpoint::{Entry, Latest};
use crate::exchange::{Flat, Malformed, Read, Reader, Sink};
use crate::operators::Size;
use crate::row::{Row, RowCodec};
use crate::{Epoch, Result};

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
        /// The row.
        row: Option<Row>,
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
    fn route(&self, peers: usize) -> u64 {
        match self {
            Keyed::Row { key, .. } => key.owner(peers),
            Keyed::Truncated { worker, .. } => *worker,
        }
    }
}

impl Flat for Keyed {
    const LEAST: usize = 4;

    fn lay(&self, to: &mut impl Sink) {
        match self {
            Keyed::Row {
                key,
                partition,
                offset,
                row,
            } => {
                to.put(&[0]);
                key.lay(to);
                partition.lay(to);
                offset.lay(to);
                row.lay(to);
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
                row: Flat::read(from)?,
            },
            1 => Keyed::Truncated {
                partition: Flat::read(from)?,
                offset: Flat::read(from)?,
                worker: Flat::read(from)?,
            },
            _ => return Err(Malformed("a record that says nothing known")),
        })
    }
}

/// One epoch's records so far.
#[derive(Default)]
struct Stash {
    rows: HashMap<Row, (u32, i64, Option<Row>)>,
    truncated: BTreeMap<u32, i64>,
}

impl Stash {
    fn add(&mut self, keyed: Keyed) {
        match keyed {
            Keyed::Row {
                key,
                partition,
                offset,
                row,
            } => match self.rows.get_mut(&key) {
                Some(known) if (known.0, known.1) > (partition, offset) => {}
                Some(known) => *known = (partition, offset, row),
                None => {
                    self.rows.insert(key, (partition, offset, row));
                }
            },
            Keyed::Truncated {
                partition, offset, ..
            } => {
                let last = self.truncated.entry(partition).or_insert(offset);
                *last = (*last).max(offset);
            }
        }
    }
}

/// The current rows, by key; each with the partition that it came from.
#[derive(Default)]
struct Current {
    rows: HashMap<Row, (u32, Row)>,
    /// Bytes of keys and rows.
    bytes: usize,
}

impl Current {
    fn size(&self) -> Size {
        let each = size_of::<(Row, (u32, Row))>();
        Size {
            rows: self.rows.len() as u64,
            bytes: (self.bytes + self.rows.capacity() * each) as u64,
        }
    }

    /// Applies an epoch's records and returns what changed, as retractions and additions.
    /// `changed` hears of each key that is not as it was.
    fn apply(
        &mut self,
        mut stash: Stash,
        mut changed: impl FnMut(&Row, &Latest),
    ) -> Vec<(Row, i64)> {
        let truncated = std::mem::take(&mut stash.truncated);
        if !truncated.is_empty() {
            // A truncate deletes every key of its partition that no later record sets again.
            stash.rows.retain(|_, (partition, offset, _)| {
                truncated.get(partition).is_none_or(|at| *offset > *at)
            });
            for (key, (partition, _)) in &self.rows {
                if truncated.contains_key(partition) && !stash.rows.contains_key(key) {
                    stash.rows.insert(key.clone(), (*partition, 0, None));
                }
            }
        }
        let mut changes = Vec::new();
        for (key, (partition, _, row)) in stash.rows {
            let new = Latest(row.map(|row| (partition, row)));
            if self.rows.get(&key) == new.0.as_ref() {
                continue;
            }
            changed(&key, &new);
            let bytes = |row: &Row| key.bytes().len() + row.bytes().len();
            let added = new.0.as_ref().map_or(0, |(_, row)| bytes(row));
            let removed = self.rows.get(&key).map_or(0, |(_, row)| bytes(row));
            self.bytes = (self.bytes + added).saturating_sub(removed);
            let old = match new.0.clone() {
                Some(held) => self.rows.insert(key, held),
                None => self.rows.remove(&key),
            };
            let rows = (old.map(|(_, row)| row), new.0.map(|(_, row)| row));
            if rows.0 != rows.1 {
                changes.extend(rows.0.map(|row| (row, -1)));
                changes.extend(rows.1.map(|row| (row, 1)));
            }
        }
        changes
    }
}

/// Renders the current rows of a keyed source.
pub(crate) fn upsert<'scope>(
    input: StreamVec<'scope, Epoch, (Epoch, Keyed)>,
    context: &Rc<Context>,
    schema: &SchemaRef,
    site: Site,
) -> Result<ChunkStream<'scope>> {
    let of = |update: &(Epoch, Keyed)| update.0;
    let input = restore(
        input,
        context,
        Some(&site),
        of,
        |epoch, entry: Entry<Latest>| {
            let (partition, row) = entry.change.0.map_or((0, None), |(p, row)| (p, Some(row)));
            let key = entry.key;
            // Nothing else has this epoch.
            let offset = -1;
            (
                epoch,
                Keyed::Row {
                    key,
                    partition,
                    offset,
                    row,
                },
            )
        },
    );
    let mut tap = Tap::new(context, site);
    let codec = RowCodec::new(Arc::clone(schema))?;
    let context = Rc::clone(context);
    let peers = input.scope().peers();
    let route = move |(_, keyed): &(Epoch, Keyed)| keyed.route(peers);
    let pact = Context::crossing(&context, route);
    Ok(input.unary_frontier(pact, "Upsert", move |_, info| {
        let size = context.meter.state(info.global_id);
        let mut current = Current::default();
        let mut stashes: BTreeMap<Epoch, (Capability<Epoch>, Stash)> = BTreeMap::new();
        move |(input, frontier), output| {
            input.for_each(|cap, updates| {
                for (epoch, keyed) in updates.drain(..) {
                    let stash = stashes
                        .entry(epoch)
                        .or_insert_with(|| (cap.delayed(&epoch, 0), Stash::default()));
                    stash.1.add(keyed);
                }
            });
            while let Some(entry) = stashes.first_entry()
                && !frontier.less_equal(entry.key())
            {
                let (epoch, (cap, stash)) = entry.remove_entry();
                let none = Row::default();
                let changes = current.apply(stash, |key, new| {
                    tap.add(epoch, key, &none, new);
                });
                size.set(current.size());
                if changes.is_empty() {
                    continue;
                }
                let rows = changes.iter().map(|(row, diff)| (row, *diff));
                match Chunk::decode(epoch, &codec, rows) {
                    Ok(chunk) => output.session(&cap).give(chunk),
                    Err(error) => context.fail(error),
                }
            }
            tap.seal(|epoch| !frontier.less_equal(&epoch));
        }
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(key: u8, partition: u32, offset: i64, value: Option<u8>) -> Keyed {
        let row = value.map(|v| Row::new(&[v]));
        Keyed::Row {
            key: Row::new(&[key]),
            partition,
            offset,
            row,
        }
    }

    fn apply(current: &mut Current, records: Vec<Keyed>) -> Vec<(u8, i64)> {
        let mut stash = Stash::default();
        records.into_iter().for_each(|record| stash.add(record));
        let mut changes: Vec<_> = current
            .apply(stash, |_, _| {})
            .into_iter()
            .map(|(row, diff)| (row.bytes()[0], diff))
            .collect();
        changes.sort_unstable();
        changes
    }

    #[test]
    fn the_last_offset_wins_whatever_order_records_arrive_in() {
        let mut current = Current::default();
        assert_eq!(
            apply(
                &mut current,
                vec![row(1, 0, 5, Some(50)), row(1, 0, 4, Some(40))]
            ),
            [(50, 1)]
        );
        assert_eq!(
            apply(&mut current, vec![row(1, 0, 6, Some(50))]),
            [],
            "a duplicate"
        );
        assert_eq!(
            apply(&mut current, vec![row(1, 0, 7, Some(70))]),
            [(50, -1), (70, 1)]
        );
        assert_eq!(
            apply(&mut current, vec![row(1, 0, 8, None), row(2, 0, 9, None)]),
            [(70, -1)]
        );
    }

    #[test]
    fn a_truncate_takes_its_partition_and_spares_what_came_after() {
        let mut current = Current::default();
        apply(
            &mut current,
            vec![row(1, 0, 1, Some(10)), row(2, 0, 2, Some(20))],
        );
        apply(&mut current, vec![row(3, 1, 1, Some(30))]);
        let truncated = Keyed::Truncated {
            partition: 0,
            offset: 5,
            worker: 0,
        };
        let records = vec![row(1, 0, 4, Some(11)), truncated, row(2, 0, 6, Some(22))];
        assert_eq!(apply(&mut current, records), [(10, -1), (20, -1), (22, 1)]);
        assert_eq!(current.rows.len(), 2);
        assert_eq!(current.bytes, 4);
    }
}
