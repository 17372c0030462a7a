//! Record batcher: decodes records into what a source sends.
//!
//! [`AppendBatcher`] makes Arrow batches of rows for the envelope `append`. [`KeyedBatcher`] makes
//! keyed rows for `upsert` and `debezium`, and drops duplicates by source position (`debezium`
//! only).

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::record_batch::RecordBatch;
use tidemill_decode::{Decoder, Effect, Refused, Rest, bare_key};
use tidemill_ir::row::{Row, RowCodec, batch, comparable};
use tidemill_ir::{Envelope, Format};
use tidemill_log::Result;
use tidemill_log::log::{OwnedRecord, RecordRef};
use tidemill_state::value::keyed::Keyed;
use tidemill_state::value::partial;
use tidemill_state::value::source_position::ChangeOrder;

use super::newest_positions::Newest;
use crate::context::Refusal;
use crate::epoch::commits::Commits;

/// What the records since the last [`RecordBatcher::finish`] became.
pub(crate) struct Batched<T> {
    /// The decoded rows.
    pub(crate) items: Vec<T>,
    /// Records that could not be used.
    pub(crate) refusals: Vec<Refusal>,
    /// The number of records.
    pub(crate) records: usize,
    /// Bytes of keys and values.
    pub(crate) bytes: usize,
    /// The number of records that were dropped as duplicates.
    pub(crate) duplicates: usize,
    /// The commit times of the records.
    pub(crate) commits: Commits,
}

/// Decodes records and collects the results.
pub(crate) trait RecordBatcher {
    /// What a source sends.
    type Item;
    /// Decodes one record. A record that cannot be decoded is collected as a refusal.
    fn push(&mut self, record: RecordRef<'_>);
    /// Takes everything since the last call.
    ///
    /// # Errors
    /// When the decoder or the row codec fails on the batch as a whole (`Bug`).
    fn finish(&mut self) -> Result<Batched<Self::Item>>;
    /// Schemas of the records; see [`Decoder::noted`].
    fn noted(&mut self) -> BTreeMap<u32, i64>;
    /// The duplicate filter; `None` if the records carry no source positions.
    fn newest(&mut self) -> Option<&mut Newest> {
        None
    }
}

/// Counts and refusals that every implementation keeps.
#[derive(Default)]
struct Tally {
    /// Records that could not be used.
    refusals: Vec<Refusal>,
    /// The number of records.
    records: usize,
    /// Bytes of keys and values.
    bytes: usize,
    /// The number of duplicates, which were dropped.
    duplicates: usize,
    /// The commit times of the records.
    commits: Commits,
}

impl Tally {
    /// Counts a record.
    fn count(&mut self, record: &RecordRef<'_>) {
        self.records += 1;
        self.bytes += record.key.map_or(0, <[u8]>::len) + record.value.map_or(0, <[u8]>::len);
        self.commits.add(record.timestamp_ms);
    }

    /// Remembers a record that cannot be used. The topic is filled in later.
    fn refuse(&mut self, record: &RecordRef<'_>, reason: String) {
        self.refusals.push(Refusal {
            topic: String::new(),
            partition: record.partition,
            offset: record.offset,
            key: record.key.map(<[u8]>::to_vec),
            value: record.value.map(<[u8]>::to_vec),
            reason,
        });
    }

    fn take<T>(&mut self, items: Vec<T>) -> Batched<T> {
        let Tally {
            refusals,
            records,
            bytes,
            duplicates,
            mut commits,
        } = std::mem::take(self);
        Batched {
            items,
            refusals,
            records,
            bytes,
            duplicates,
            commits: commits.take(),
        }
    }
}

/// The envelope `append`: every record is one more row.
pub(crate) struct AppendBatcher {
    /// Decodes records to rows.
    decoder: Box<dyn Decoder>,
    /// Counts and refusals of the batch.
    tally: Tally,
    /// Rows that lack values: their indexes in the decoder, and the columns.
    partial: Vec<(usize, Arc<[usize]>)>,
}

/// Rows of a batch, and the columns that they have no values for.
pub(crate) type Appended = (RecordBatch, Arc<[usize]>);

impl AppendBatcher {
    pub(crate) fn new(decoder: Box<dyn Decoder>) -> Self {
        Self {
            decoder,
            tally: Tally::default(),
            partial: Vec::new(),
        }
    }

    /// The rows of a batch in order, those that lack values apart from the others.
    fn parted(&mut self, rows: &RecordBatch) -> Vec<Appended> {
        let (mut parts, mut from) = (Vec::new(), 0);
        let none: Arc<[usize]> = Arc::default();
        for (at, lacking) in self.partial.drain(..) {
            parts.push((rows.slice(from, at - from), Arc::clone(&none)));
            parts.push((rows.slice(at, 1), lacking));
            from = at + 1;
        }
        parts.push((rows.slice(from, rows.num_rows() - from), none));
        parts.retain(|(rows, _)| rows.num_rows() > 0);
        parts
    }
}

impl RecordBatcher for AppendBatcher {
    type Item = Appended;

    fn push(&mut self, record: RecordRef<'_>) {
        self.tally.count(&record);
        let Some(value) = record.value else {
            return self
                .tally
                .refuse(&record, "the value is null; a row was expected".to_owned());
        };
        match self.decoder.push(value) {
            Ok(Effect::Row) => {}
            Ok(_) => self
                .tally
                .refuse(&record, "a deletion in an append-only topic".to_owned()),
            Err(Refused(reason)) => {
                self.tally.refuse(&record, reason);
                let at = self.decoder.rows();
                if let Rest::Row(lacking) = self.decoder.push_rest(value, &mut None) {
                    self.partial.push((at, lacking));
                }
            }
        }
    }

    fn noted(&mut self) -> BTreeMap<u32, i64> {
        self.decoder.noted()
    }

    fn finish(&mut self) -> Result<Batched<Appended>> {
        let rows = self.decoder.finish()?;
        let items = match rows.num_rows() {
            0 => Vec::new(),
            count => {
                let columns = rows.columns().iter().map(comparable).collect();
                self.parted(&batch(&rows.schema(), columns, count)?)
            }
        };
        Ok(self.tally.take(items))
    }
}

/// The envelopes `upsert` and `debezium`: every record sets or deletes the row of its key.
pub(crate) struct KeyedBatcher {
    /// Decodes records to rows.
    decoder: Box<dyn Decoder>,
    /// The codec of rows.
    codec: RowCodec,
    /// Whether records are upserts or Debezium changes.
    envelope: Envelope,
    /// Whether keys have Confluent's wire format. The schema id in it is not part of the key.
    framed_keys: bool,
    /// The number of workers of the job.
    workers: u64,
    /// Counts and refusals of the batch.
    tally: Tally,
    /// The origin of each row in the decoder, in order; `None` when the record had no key, so that
    /// its row is dropped.
    pending: Vec<Option<Origin>>,
    /// Deletions, truncations and keys in error.
    gone: Vec<Keyed>,
    /// The duplicate filter.
    newest: Newest,
}

/// The record that a row came from.
struct Origin {
    /// The record's key.
    key: Row,
    /// The record's partition.
    partition: u32,
    /// The record's offset.
    offset: i64,
    /// The order of the record's change among those of other partitions.
    rank: ChangeOrder,
    /// The columns that the row has no values for.
    lacking: Arc<[usize]>,
}

impl Origin {
    /// What the record says of its key: a row, a deletion, or an error.
    fn says(self, row: Option<Row>, refused: bool) -> Keyed {
        Keyed::Row {
            key: self.key,
            partition: self.partition,
            offset: self.offset,
            rank: self.rank,
            row,
            refused,
        }
    }
}

/// Bytes before an Avro key in Confluent's wire format: a zero byte and the schema id (u32).
const WIRE_PREFIX: usize = 5;

impl KeyedBatcher {
    /// A batcher of keyed rows for a job of `workers` workers.
    pub(crate) fn new(
        decoder: Box<dyn Decoder>,
        codec: RowCodec,
        envelope: Envelope,
        format: &Format,
        workers: usize,
    ) -> Self {
        Self {
            decoder,
            codec,
            envelope,
            framed_keys: matches!(format, Format::Avro { .. }),
            workers: workers as u64,
            tally: Tally::default(),
            pending: Vec::new(),
            gone: Vec::new(),
            newest: Newest::default(),
        }
    }

    /// See [`Decoder::remember`].
    pub(crate) fn remember(&mut self, schemas: BTreeMap<u32, i64>) {
        self.decoder.remember(schemas);
    }

    /// The record's key without schema ids or schemas, so that a key compares equal across schemas.
    fn key(&self, record: &RecordRef<'_>) -> Option<Row> {
        let key = record.key?;
        Some(Row::new(match key.strip_prefix(&[0]) {
            Some(rest) if self.framed_keys && key.len() > WIRE_PREFIX => {
                rest.get(WIRE_PREFIX - 1..).unwrap_or(rest)
            }
            _ if self.framed_keys => key,
            _ => bare_key(key),
        }))
    }

    /// Decodes a change and drops it if its source position is not newer than the partition's
    /// newest.
    fn change(
        &mut self,
        record: &RecordRef<'_>,
        value: &[u8],
    ) -> std::result::Result<Effect, Refused> {
        let Some(newest) = self.newest.of(record.partition) else {
            return self.decoder.push(value);
        };
        let before = *newest;
        let effect = self.decoder.push_after(value, newest);
        if record.key.is_none() && effect != Ok(Effect::Truncated) {
            // A record without a key is refused, so it does not move the partition's position.
            *newest = before;
        }
        effect
    }

    /// Takes a refused record once more, without the values that their columns refuse.
    fn rest(&mut self, record: &RecordRef<'_>) -> Rest {
        let (Some(key), Some(value)) = (record.key, record.value) else {
            return Rest::Nothing;
        };
        self.decoder.key(key);
        let debezium = self.envelope == Envelope::Debezium;
        let newest = debezium.then(|| self.newest.of(record.partition)).flatten();
        self.decoder.push_rest(value, newest.unwrap_or(&mut None))
    }

    /// The order of a record among those of other partitions. A record without a source position
    /// has the one of the newest record before it in its partition.
    fn origin(&mut self, record: &RecordRef<'_>) -> Option<Origin> {
        let key = self.key(record)?;
        let places = (self.envelope == Envelope::Debezium).then_some(&mut self.newest);
        let newest = places.and_then(|newest| *newest.of(record.partition)?);
        Some(Origin {
            key,
            partition: record.partition,
            offset: record.offset,
            rank: newest.map_or(ChangeOrder::NONE, |place| {
                ChangeOrder::new(place, record.timestamp_ms)
            }),
            lacking: Arc::default(),
        })
    }

    /// A truncate concerns the keys of all workers, so each worker gets the message once.
    fn truncated(&mut self, record: &RecordRef<'_>) {
        let (partition, offset) = (record.partition, record.offset);
        let duplicates = 0..self.workers;
        self.gone.extend(duplicates.map(|worker| Keyed::Truncated {
            partition,
            offset,
            worker,
        }));
    }
}

impl RecordBatcher for KeyedBatcher {
    type Item = Keyed;

    fn push(&mut self, record: RecordRef<'_>) {
        self.tally.count(&record);
        if let Some(key) = record.key {
            self.decoder.key(key);
        }
        let effect = match record.value {
            // A tombstone: in a compacted topic it follows the deletion of its key.
            None => Ok(Effect::Gone),
            Some(value) if self.envelope == Envelope::Debezium => self.change(&record, value),
            Some(value) => self.decoder.push(value),
        };
        match effect {
            Ok(Effect::Nothing) => return,
            Ok(Effect::Duplicate) => return self.tally.duplicates += 1,
            Ok(Effect::Truncated) if self.envelope == Envelope::Debezium => {
                return self.truncated(&record);
            }
            _ => {}
        }
        let rest = match effect {
            Err(_) => self.rest(&record),
            Ok(_) => Rest::Nothing,
        };
        if rest == Rest::Duplicate {
            return self.tally.duplicates += 1;
        }
        let origin = self.origin(&record);
        match (effect, origin) {
            (Err(Refused(reason)), origin) => {
                self.tally.refuse(&record, reason);
                // The key's earlier row is not current any more, so the key is in error.
                match (rest, origin) {
                    (Rest::Row(lacking), Some(origin)) => {
                        self.pending.push(Some(Origin { lacking, ..origin }));
                    }
                    (_, origin) => self.gone.extend(origin.map(|it| it.says(None, true))),
                }
            }
            (Ok(Effect::Row), Some(origin)) => self.pending.push(Some(origin)),
            (Ok(Effect::Withheld), Some(origin)) => self.gone.push(origin.says(None, true)),
            (Ok(_), Some(origin)) => self.gone.push(origin.says(None, false)),
            (Ok(effect), None) => {
                if effect == Effect::Row {
                    self.pending.push(None);
                }
                self.tally.refuse(
                    &record,
                    "the key is null; the row's key was expected".into(),
                );
            }
        }
    }

    fn noted(&mut self) -> BTreeMap<u32, i64> {
        self.decoder.noted()
    }

    fn finish(&mut self) -> Result<Batched<Keyed>> {
        let batch = self.decoder.finish()?;
        let rows = self.codec.encode(batch.columns(), batch.num_rows())?;
        let mut items = std::mem::take(&mut self.gone);
        for (index, origin) in self.pending.drain(..).enumerate() {
            items.extend(origin.map(|origin| {
                let row = rows.row(index);
                match origin.lacking.is_empty() {
                    true => origin.says(Some(row), false),
                    false => {
                        let row = partial::row(&origin.lacking, &row);
                        origin.says(Some(row), true)
                    }
                }
            }));
        }
        Ok(self.tally.take(items))
    }

    fn newest(&mut self) -> Option<&mut Newest> {
        (self.envelope == Envelope::Debezium).then_some(&mut self.newest)
    }
}

/// A reference to an owned record.
pub(crate) fn borrowed(record: &OwnedRecord) -> RecordRef<'_> {
    RecordRef {
        partition: record.partition,
        offset: record.offset,
        timestamp_ms: record.timestamp_ms,
        key: record.key.as_deref(),
        value: record.value.as_deref(),
    }
}

/// An owned copy of a record.
pub(crate) fn owned(record: &RecordRef<'_>) -> OwnedRecord {
    OwnedRecord {
        partition: record.partition,
        offset: record.offset,
        timestamp_ms: record.timestamp_ms,
        key: record.key.map(<[u8]>::to_vec),
        value: record.value.map(<[u8]>::to_vec),
    }
}
