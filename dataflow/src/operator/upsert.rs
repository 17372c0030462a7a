//! Upsert: the current row of every key of a source. A record replaces or deletes the row of its
//! key.
//!
//! Because the state is by key, duplicates and replays in the source change nothing.
//!
//! The records of a key may be in several partitions, because the key's schema or the partitioning
//! rule changed. Within a partition, the log's order decides. Between partitions, the order of the
//! changes in their database decides ([`ChangeOrder`]):
//!
//! ```text
//! partition 0:  k = 1 (commit 10) ─────────────────────── k = 2 (commit 12)
//! partition 1:            delete k (commit 11), read late ──► older than 12: dropped
//!                         k = 3 (no position)             ──► order unknown: the job ends
//! ```
//!
//! * A deletion is remembered until everything has been read that the topic held when the deletion
//!   was read ([`crate::epoch::lap`]). Otherwise an older row in another partition would appear
//!   again.
//! * If two records of a key are in different partitions and carry no order, and they differ, then
//!   the newer one is unknown, and the job ends with an error.
//! * A key whose newest record could not be published or decoded is a key in error: it is counted,
//!   and has no row, or only a [`partial`] one, until a later record of the key is right.
//!
//! Frontier contract: updates are stashed by epoch under a retained capability. When the input
//! frontier passes an epoch, the net effect of the epoch is applied to the state and sent at that
//! epoch, in epoch order. Within an epoch, the record with the greatest offset of a key's partition
//! wins.

use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use hashbrown::{HashMap, HashSet};
use tidemill_decode::bare_key;
use tidemill_ir::Epoch;
use tidemill_ir::row::{Row, RowCodec};
use tidemill_log::{Error, Kind, Result};
use tidemill_state::checkpoint::{Entry, Latest};
use tidemill_state::value::keyed::{Keyed, RESTORED};
use tidemill_state::value::partial;
use tidemill_state::value::source_position::ChangeOrder;
use timely::dataflow::StreamVec;
use timely::dataflow::operators::{Capability, Operator};

use super::arrange::restore::{Tap, restore};
use crate::chunk::{Chunk, SourceChunk, SourceStream};
use crate::context::Context;
use crate::context::site::Site;
use crate::stats::operators::Size;

/// What a record says of its key.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Said {
    /// The row; `None` for a deletion or an error.
    row: Option<Row>,
    /// The order of the change among those of other partitions.
    rank: ChangeOrder,
    /// The partition of the record.
    partition: u32,
    /// Whether the key is in error.
    refused: bool,
}

impl Said {
    /// Whether the order of this record and another one is unknown, and the two differ.
    fn is_unordered(
        &self,
        partition: u32,
        rank: ChangeOrder,
        row: Option<&Row>,
        refused: bool,
    ) -> bool {
        let known = self.rank.is_known() || rank.is_known();
        let alike = self.row.as_ref() == row && self.refused == refused;
        self.partition != partition && !known && !alike
    }

    /// The form in which checkpoints keep the record.
    fn latest(&self) -> Latest {
        match &self.row {
            Some(row) if self.refused => Latest::Partial(self.partition, self.rank, row.clone()),
            None if self.refused => Latest::Refused(self.partition, self.rank),
            Some(row) if !self.rank.is_known() => Latest::Row(self.partition, row.clone()),
            row => Latest::Ranked(self.partition, self.rank, row.clone()),
        }
    }

    /// The record that has the effect of what a checkpoint kept.
    fn restored(latest: Latest) -> Self {
        let (partition, rank, row, refused) = match latest {
            Latest::Nothing => (0, ChangeOrder::NONE, None, false),
            Latest::Row(partition, row) => (partition, ChangeOrder::NONE, Some(row), false),
            Latest::Ranked(partition, rank, row) => (partition, rank, row, false),
            Latest::Refused(partition, rank) => (partition, rank, None, true),
            Latest::Partial(partition, rank, row) => (partition, rank, Some(row), true),
        };
        Self {
            row,
            rank,
            partition,
            refused,
        }
    }
}

/// The records of one epoch so far, net by key.
#[derive(Default)]
struct Stash {
    /// The newest record of each key with its offset.
    rows: HashMap<Row, (i64, Said)>,
    /// The offset of the last truncate by partition.
    truncated: BTreeMap<u32, i64>,
    /// Pairs of records whose order is unknown.
    unordered: Vec<Unordered>,
}

/// A key with records in two partitions without an order: the key and the (partition, offset)
/// pairs.
struct Unordered {
    /// The key.
    key: Row,
    /// Partition and offset of the two records.
    at: [(u32, i64); 2],
}

impl Unordered {
    /// The `Data` error that ends the job.
    fn error(&self, table: &str) -> Error {
        let [(one, _), (other, _)] = self.at;
        let key = String::from_utf8_lossy(self.key.bytes());
        let what = format!(
            "table `{table}`: partitions {one} and {other} of its topic hold records of one key \
             ({:?}), and nothing in them says which is newer: the key was written otherwise \
             meanwhile (by another schema, or `schemas.enable`), or partitions were added to the \
             topic. Have its writer fill a new topic",
            key.chars().take(80).collect::<String>()
        );
        Error::new(Kind::Data, what)
    }
}

impl Stash {
    /// Takes in a record: keeps it if it is newer than the known record of its key.
    fn add(&mut self, keyed: Keyed) {
        match keyed {
            Keyed::Row {
                key,
                partition,
                offset,
                rank,
                row,
                refused,
            } => {
                let said = Said {
                    row,
                    rank,
                    partition,
                    refused,
                };
                match self.rows.get_mut(&key) {
                    Some((at, known)) => {
                        let other = known.partition != partition;
                        let older = match other {
                            true if rank.is_before(known.rank) => true,
                            true if known.rank.is_before(rank) => false,
                            _ => (known.partition, *at) > (partition, offset),
                        };
                        let (row, refused) = (known.row.as_ref(), known.refused);
                        if said.is_unordered(known.partition, known.rank, row, refused) {
                            let at = [(known.partition, *at), (partition, offset)];
                            self.unordered.push(Unordered { key, at });
                        }
                        if !older {
                            (*at, *known) = (offset, said);
                        }
                    }
                    None => {
                        self.rows.insert(key, (offset, said));
                    }
                }
            }
            Keyed::Truncated {
                partition, offset, ..
            } => {
                let last = self.truncated.entry(partition).or_insert(offset);
                *last = (*last).max(offset);
            }
        }
    }
}

/// The state of a key: a row, or no row while its deletion is remembered or the key is in error.
#[derive(Debug)]
struct Held {
    /// The current row; `None` after a deletion. That of a key in error is partial, or `None`.
    row: Option<Row>,
    /// The order of the change that set it.
    rank: ChangeOrder,
    /// The partition of the record that set it.
    partition: u32,
}

/// The changes of an epoch to the rows of a source: rows with their differences.
#[derive(Default)]
struct Changes {
    /// Rows with all columns.
    whole: Vec<(Row, i64)>,
    /// Partial rows.
    partial: Vec<(Row, i64)>,
}

impl Changes {
    /// Adds a change of a row, if there is one.
    fn add(&mut self, row: Option<Row>, partial: bool, diff: i64) {
        let to = match partial {
            true => &mut self.partial,
            false => &mut self.whole,
        };
        to.extend(row.map(|row| (row, diff)));
    }

    /// The chunks of the changes: the whole rows, and the partial ones by what they lack.
    ///
    /// # Errors
    /// `Bug` when the bytes are not those of a row.
    fn chunks(&self, epoch: Epoch, codec: &RowCodec) -> Result<Vec<SourceChunk>> {
        let mut parts = BTreeMap::new();
        for (row, diff) in &self.whole {
            let part: &mut Vec<_> = parts.entry(Arc::default()).or_default();
            part.push((row.bytes(), *diff));
        }
        for (row, diff) in &self.partial {
            let (lacking, row) = partial::parts(row)
                .ok_or_else(|| Error::new(Kind::Bug, "a partial row does not say what it lacks"))?;
            parts.entry(lacking).or_default().push((row, *diff));
        }
        let chunks = parts.into_iter().map(|(lacking, rows)| {
            let (rows, diffs): (Vec<&[u8]>, Vec<i64>) = rows.into_iter().unzip();
            let batch = codec.decode_bytes(rows.into_iter())?;
            let diffs = diffs.into();
            let rows = Chunk {
                epoch,
                batch,
                diffs,
            };
            Ok(SourceChunk { rows, lacking })
        });
        chunks.collect()
    }
}

/// The current rows by key, each with the partition that it came from.
#[derive(Default)]
struct Current {
    /// The keys with a row, a remembered deletion or an error.
    rows: HashMap<Row, Held>,
    /// The keys of `rows` that are in error.
    refused: HashSet<Row>,
    /// Remembered deletions, each with the epoch in which it was read; oldest epoch first.
    deleted: VecDeque<(Epoch, Row, ChangeOrder)>,
    /// Bytes of the keys and rows.
    bytes: usize,
    /// A key whose newest record is unknown; ends the job.
    unordered: Option<Unordered>,
}

impl Current {
    /// The memory size of the state.
    fn size(&self) -> Size {
        let each = size_of::<(Row, Held)>();
        Size {
            rows: (self.rows.len() - self.refused.len()) as u64,
            bytes: (self.bytes + self.rows.capacity() * each) as u64,
        }
    }

    /// Applies the records of an epoch. Returns the changes of the source's rows, as retractions
    /// and additions. `changed` is called for each key whose state changes.
    fn apply(
        &mut self,
        epoch: Epoch,
        mut stash: Stash,
        mut changed: impl FnMut(&Row, &Latest),
    ) -> Changes {
        let mut changes = Changes::default();
        self.truncate(&mut stash, |key, row, partial| {
            changed(key, &Latest::Nothing);
            changes.add(row, partial, -1);
        });
        self.unordered = stash.unordered.pop();
        for (key, (offset, said)) in stash.rows {
            let known = self.rows.get(&key);
            if let Some(known) = known {
                let other = known.partition != said.partition;
                let (row, refused) = (known.row.as_ref(), self.refused.contains(&key));
                if said.is_unordered(known.partition, known.rank, row, refused) {
                    let at = [(known.partition, 0), (said.partition, offset)];
                    let key = key.clone();
                    self.unordered = Some(Unordered { key, at });
                }
                let is_same = known.row == said.row
                    && known.rank == said.rank
                    && !other
                    && self.refused.contains(&key) == said.refused;
                if is_same || (other && said.rank.is_before(known.rank)) {
                    continue;
                }
            }
            let latest = said.latest();
            changed(&key, &latest);
            let partial = self.refused.contains(&key);
            let old = self.set(epoch, key, said.clone(), &latest);
            if (&old, partial) != (&said.row, said.refused) {
                changes.add(old, partial, -1);
                changes.add(said.row, said.refused, 1);
            }
        }
        changes
    }

    /// Applies truncates: each deletes every key of its partition that no later record sets again.
    fn truncate(&mut self, stash: &mut Stash, mut gone: impl FnMut(&Row, Option<Row>, bool)) {
        let truncated = std::mem::take(&mut stash.truncated);
        if truncated.is_empty() {
            return;
        }
        let is_left = |(partition, offset): &(u32, i64)| {
            let at = truncated.get(partition);
            at.is_none_or(|at| *offset > *at)
        };
        stash.rows.retain(|_, it| is_left(&(it.1.partition, it.0)));
        stash.unordered.retain(|it| it.at.iter().all(is_left));
        let of = |_: &Row, held: &mut Held| truncated.contains_key(&held.partition);
        let all: Vec<(Row, Held)> = self.rows.extract_if(of).collect();
        for (key, held) in all {
            self.bytes -= weight(&key, held.row.as_ref());
            let partial = self.refused.remove(&key);
            gone(&key, held.row, partial);
        }
    }

    /// Sets the state of a key, and returns the row that it had.
    fn set(&mut self, epoch: Epoch, key: Row, said: Said, latest: &Latest) -> Option<Row> {
        if said.refused {
            self.refused.insert(key.clone());
        } else {
            self.refused.remove(&key);
        }
        let old = self.rows.remove(&key);
        let removed = old.as_ref().map_or(0, |old| weight(&key, old.row.as_ref()));
        self.bytes -= removed;
        if *latest != Latest::Nothing {
            if matches!(latest, Latest::Ranked(_, _, None)) {
                self.deleted.push_back((epoch, key.clone(), said.rank));
            }
            self.bytes += weight(&key, said.row.as_ref());
            let Said {
                row,
                rank,
                partition,
                ..
            } = said;
            let held = Held {
                row,
                rank,
                partition,
            };
            self.rows.insert(key, held);
        }
        old.and_then(|old| old.row)
    }

    /// Forgets deletions that were read at or below the settled epoch, because no older record can
    /// arrive any more.
    fn forget(&mut self, settled: Epoch, mut changed: impl FnMut(&Row, &Latest)) {
        while let Some((_, key, rank)) = self.deleted.pop_front_if(|it| it.0 <= settled) {
            let is_it = |held: &Held| held.row.is_none() && held.rank == rank;
            if self.rows.get(&key).is_some_and(is_it) && !self.refused.contains(&key) {
                self.rows.remove(&key);
                self.bytes -= weight(&key, None);
                changed(&key, &Latest::Nothing);
            }
        }
    }
}

/// Bytes of a key and its row.
fn weight(key: &Row, row: Option<&Row>) -> usize {
    key.bytes().len() + row.map_or(0, |row| row.bytes().len())
}

/// The record that restores a key's state from a checkpoint, at the checkpoint's epoch.
fn restored(epoch: Epoch, entry: Entry<Latest>) -> (Epoch, Keyed) {
    let Said {
        row,
        rank,
        partition,
        refused,
    } = Said::restored(entry.change);
    let keyed = Keyed::Row {
        key: entry.key,
        partition,
        // No other record has the checkpoint's epoch.
        offset: RESTORED,
        rank,
        row,
        refused,
    };
    (epoch, keyed)
}

/// Whether a record was restored with a key in the encoding of an earlier version.
fn is_outdated(keyed: &Keyed) -> bool {
    match keyed {
        Keyed::Row { key, offset, .. } => {
            *offset == RESTORED && bare_key(key.bytes()).len() != key.bytes().len()
        }
        Keyed::Truncated { .. } => false,
    }
}

/// The `Data` error of such a key.
fn outdated(table: &str) -> Error {
    let what = format!(
        "table `{table}`: the checkpoint holds keys with Connect's schema in them, as an earlier \
         version took them. Run `tidemill reset PIPELINE` to read the topics from their beginning"
    );
    Error::new(Kind::Data, what)
}

/// Renders the current rows of a keyed source. `name` is the source's name in errors.
///
/// # Errors
/// `Bug` when a column has a type that cannot be encoded.
pub(crate) fn upsert<'scope>(
    input: StreamVec<'scope, Epoch, (Epoch, Keyed)>,
    context: &Rc<Context>,
    schema: &SchemaRef,
    site: Site,
    name: &str,
) -> Result<SourceStream<'scope>> {
    let name = name.to_owned();
    let of = |update: &(Epoch, Keyed)| update.0;
    let input = restore(input, context, Some(&site), of, restored);
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
                    if is_outdated(&keyed) {
                        context.fail(outdated(&name));
                    }
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
                let before = current.refused.len();
                let mut keep = |key: &Row, new: &Latest| tap.add(epoch, key, &none, new);
                let changes = current.apply(epoch, stash, &mut keep);
                if let Some(unordered) = current.unordered.take() {
                    context.fail(unordered.error(&name));
                }
                current.forget(context.settled.get().min(epoch), keep);
                size.set(current.size());
                let after = current.refused.len();
                context.stats.refuses(&name, after as i64 - before as i64);
                match changes.chunks(epoch, &codec) {
                    Ok(chunks) => output.session(&cap).give_iterator(chunks.into_iter()),
                    Err(error) => context.fail(error),
                }
            }
            tap.seal(|epoch| !frontier.less_equal(&epoch));
        }
    }))
}

#[cfg(test)]
mod tests {
    use tidemill_log::envelope::event::Position;

    use super::*;
    use tidemill_state::value::source_position::SourcePosition;

    fn row(key: u8, partition: u32, offset: i64, value: Option<u8>) -> Keyed {
        ranked(key, partition, offset, ChangeOrder::NONE, value)
    }

    fn ranked(key: u8, partition: u32, offset: i64, rank: ChangeOrder, value: Option<u8>) -> Keyed {
        let row = value.map(|v| Row::new(&[v]));
        Keyed::Row {
            key: Row::new(&[key]),
            partition,
            offset,
            rank,
            row,
            refused: false,
        }
    }

    /// A change of this position.
    fn at(key: u8, partition: u32, commit: u64, value: Option<u8>) -> Keyed {
        let position = Position { commit, index: 0 };
        let begun_us = None;
        let rank = ChangeOrder::new(SourcePosition { position, begun_us }, 1);
        ranked(key, partition, commit as i64, rank, value)
    }

    fn apply(current: &mut Current, records: Vec<Keyed>) -> Vec<(u8, i64)> {
        let mut stash = Stash::default();
        records.into_iter().for_each(|record| stash.add(record));
        let mut changes: Vec<_> = current
            .apply(1, stash, |_, _| {})
            .whole
            .into_iter()
            .map(|(row, diff)| (row.bytes()[0], diff))
            .collect();
        changes.sort_unstable();
        changes
    }

    #[test]
    fn of_two_partitions_the_newest_change_wins_whenever_it_is_read() {
        let current = &mut Current::default();
        let both = vec![at(1, 3, 5, Some(50)), at(1, 0, 9, Some(90))];
        assert_eq!(apply(current, both), [(90, 1)]);
        assert_eq!(apply(current, vec![at(1, 3, 7, Some(70))]), []);
        assert_eq!(
            apply(current, vec![at(1, 3, 10, Some(100))]),
            [(90, -1), (100, 1)]
        );
    }

    #[test]
    fn a_deletion_is_remembered_until_nothing_older_can_come() {
        let current = &mut Current::default();
        assert_eq!(apply(current, vec![at(1, 0, 9, None)]), []);
        assert_eq!(
            apply(current, vec![at(1, 3, 7, Some(70))]),
            [],
            "it is older"
        );
        current.forget(0, |_, _| panic!("too early"));
        let mut forgotten = Vec::new();
        current.forget(1, |key, latest| {
            forgotten.push((key.clone(), latest.clone()))
        });
        assert_eq!(forgotten, [(Row::new(&[1]), Latest::Nothing)]);
        assert!(current.rows.is_empty() && current.bytes == 0 && current.deleted.is_empty());
        let deleted = vec![at(2, 0, 10, None)];
        apply(current, deleted);
        assert_eq!(apply(current, vec![at(2, 1, 11, Some(110))]), [(110, 1)]);
        current.forget(1, |_, _| panic!("there is a row again"));
        assert_eq!(current.rows.len(), 1);
    }

    #[test]
    fn records_of_two_partitions_without_an_order_are_told() {
        let told = |epochs: Vec<Vec<Keyed>>| {
            let current = &mut Current::default();
            let mut told = false;
            for records in epochs {
                apply(current, records);
                told |= current.unordered.take().is_some();
            }
            told
        };
        let (one, other) = (row(1, 0, 1, Some(10)), row(1, 3, 1, Some(30)));
        assert!(told(vec![vec![one.clone(), other.clone()]]));
        assert!(told(vec![vec![one.clone()], vec![other.clone()]]));
        let gone = row(1, 3, 2, None);
        assert!(
            told(vec![vec![gone.clone()], vec![one.clone()]]),
            "the deletion may be newer"
        );
        for fine in [
            vec![one.clone(), row(1, 3, 1, Some(10))],
            vec![one.clone(), at(1, 3, 5, Some(50))],
            vec![one.clone(), row(2, 3, 1, Some(30))],
            vec![one.clone(), row(1, 0, 2, None)],
        ] {
            assert!(!told(vec![fine.clone()]));
            assert!(!told(fine.into_iter().map(|it| vec![it]).collect()));
        }
        let truncated = Keyed::Truncated {
            partition: 0,
            offset: 5,
            worker: 0,
        };
        assert!(!told(vec![vec![one.clone(), truncated.clone(), other]]));
        let current = &mut Current::default();
        apply(current, vec![gone]);
        current.forget(1, |_, _| {});
        apply(current, vec![one]);
        assert!(current.unordered.is_none(), "nothing older can come");
    }

    #[test]
    fn a_refused_record_takes_the_row_away_until_a_right_one_comes() {
        let current = &mut Current::default();
        apply(current, vec![row(1, 0, 1, Some(10))]);
        let refused = |offset| match row(1, 0, offset, None) {
            Keyed::Row {
                key,
                partition,
                rank,
                ..
            } => Keyed::Row {
                key,
                partition,
                offset,
                rank,
                row: None,
                refused: true,
            },
            other => other,
        };
        assert_eq!(apply(current, vec![refused(2)]), [(10, -1)]);
        assert_eq!((current.refused.len(), current.size().rows), (1, 0));
        assert_eq!(apply(current, vec![row(1, 0, 3, Some(30))]), [(30, 1)]);
        assert_eq!((current.refused.len(), current.size().rows), (0, 1));
        apply(current, vec![refused(4)]);
        apply(current, vec![row(1, 0, 5, None)]);
        current.forget(1, |_, _| {});
        assert!(current.refused.is_empty() && current.rows.is_empty());
        assert_eq!(current.bytes, 0);
    }

    #[test]
    fn what_is_kept_comes_back_as_it_was_and_reads_what_earlier_versions_wrote() {
        let said = |keyed: Keyed| match keyed {
            Keyed::Row {
                rank,
                row,
                partition,
                ..
            } => Said {
                row,
                rank,
                partition,
                refused: false,
            },
            Keyed::Truncated { .. } => panic!("no row"),
        };
        for keyed in [
            at(1, 3, 5, Some(50)),
            at(1, 3, 5, None),
            row(1, 3, 5, Some(50)),
        ] {
            let said = said(keyed);
            let bytes = postcard::to_allocvec(&said.latest()).unwrap();
            assert_eq!(Said::restored(postcard::from_bytes(&bytes).unwrap()), said);
        }
        let earlier = postcard::to_allocvec(&Some((7_u32, Row::new(&[9])))).unwrap();
        let latest: Latest = postcard::from_bytes(&earlier).unwrap();
        assert_eq!(latest, Latest::Row(7, Row::new(&[9])));
        let earlier = postcard::to_allocvec(&None::<(u32, Row)>).unwrap();
        assert_eq!(
            postcard::from_bytes::<Latest>(&earlier).unwrap(),
            Latest::Nothing
        );
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
