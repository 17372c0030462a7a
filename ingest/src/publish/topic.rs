//! The topic of a table: its identity, the ends of its partitions, and the partition of a change.
//!
//! Invariants:
//! 1. A key stays in its partition as long as the topic lives: the values of the key choose the
//!    partition, and partitions that are added later are not used. (Earlier versions also hashed
//!    the schema id of the key. Readers order the changes of a key in two partitions by their
//!    positions. A change that was published by the old rule just before an upgrade may be
//!    published once more by the new rule, which is harmless.)
//! 2. The ends of the partitions are read from the tail of the topic. Records that others put
//!    there, replayed dead letters among them, are skipped.
//! 3. A topic that was deleted or recreated is an error: its records would be missing silently.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tidemill_log::envelope::event::{Change, Op, Position};
use tidemill_log::envelope::{Decoder, Encoder, Evolution, Followed, partition_of_change};
use tidemill_log::log::{Described, Log, OwnedRecord, Record};
use tidemill_log::registry::Registry;
use tidemill_log::schema::TableSchema;

use crate::{Error, Kind, Result};

/// Number of records of each partition's tail that are read: first the small one; the large one
/// when it contains no record of ours.
const TAIL: [u32; 2] = [100, 10_000];
/// How long a topic may be missing before it counts as deleted: brokers that are starting learn of
/// topics late.
const GONE_PATIENCE: Duration = Duration::from_secs(15);

/// The topic of a table.
pub(super) struct Topic {
    /// Its name.
    name: String,
    /// Its id, and the number of partitions in use.
    described: Described,
    /// Encodes the changes of the table.
    encoder: Encoder,
    /// The end of each partition.
    ends: Vec<End>,
    /// The last positions when a new snapshot began. They may be those of another database, and do
    /// not count here.
    old: Vec<Option<Position>>,
    /// Since when the topic is missing.
    gone_since: Option<Instant>,
    /// Since when the registry lacks the schemas in use.
    unregistered_since: Option<Instant>,
}

/// The end of a partition.
#[derive(Debug, Default, Clone, Copy)]
struct End {
    /// Whether nothing was ever written to the partition.
    fresh: bool,
    /// The position of the last change in it.
    last: Option<Position>,
}

impl End {
    /// Whether the partition does not hold the change yet.
    fn lacks(&self, change: &Change) -> bool {
        self.last < Some(change.position)
    }

    /// Whether the partition never held anything, including what was taken by [`Topic::take`].
    fn is_fresh(&self) -> bool {
        self.fresh && self.last.is_none()
    }
}

impl Topic {
    /// Opens the existing topic `name` and reads its ends. With `begins_anew` its current content
    /// does not count.
    ///
    /// # Errors
    /// `Data` when the registry lacks the schemas of the topic's records, or assigns their ids to
    /// other schemas; `Retry` when a service cannot be reached.
    pub(super) fn open(
        name: String,
        log: &dyn Log,
        registry: &Arc<dyn Registry>,
        database: &str,
        begins_anew: bool,
    ) -> Result<Self> {
        let described = log.describe(&name)?.ok_or_else(|| {
            let what = format!("topic `{name}` is not there yet, although it was just created");
            Error::new(Kind::Retry, what)
        })?;
        // A process may have ended while it replaced a schema.
        for part in ["key", "value"] {
            registry.settle(&format!("{name}-{part}"))?;
        }
        let encoder = Encoder::new(&name, Arc::clone(registry)).of_database(database);
        let mut topic = Self {
            name,
            described,
            encoder,
            ends: Vec::new(),
            old: Vec::new(),
            gone_since: None,
            unregistered_since: None,
        };
        topic.ends = topic.read_tails(log, registry, begins_anew)?;
        if begins_anew {
            topic.old = topic.ends.iter().map(|end| end.last).collect();
        }
        topic.forget_old();
        Ok(topic)
    }

    /// Its name.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// The position of the newest change in the topic.
    pub(super) fn last(&self) -> Option<Position> {
        self.ends.iter().filter_map(|end| end.last).max()
    }

    /// Its id, and the number of partitions in use.
    pub(super) fn described(&self) -> Described {
        self.described
    }

    /// Continues with the topic as recorded when it was first published to. Partitions that were
    /// added since are not used.
    ///
    /// # Errors
    /// `Data` when it is another topic now.
    pub(super) fn follow(&mut self, noted: Described) -> Result<()> {
        self.check(noted)?;
        if noted.partitions < self.described.partitions {
            tracing::warn!(
                topic = %self.name,
                used = noted.partitions,
                there = self.described.partitions,
                "partitions were added to the topic; keys stay in those that it had"
            );
            self.described.partitions = noted.partitions;
            self.ends.truncate(noted.partitions as usize);
        }
        Ok(())
    }

    /// Compares the ids of two descriptions.
    fn check(&self, other: Described) -> Result<()> {
        let (is, was) = (self.described.id, other.id);
        if is == was || !is.is_known() || !was.is_known() {
            return Ok(());
        }
        Err(self.lost("was deleted and made anew since rows were published to it"))
    }

    /// The error of a lost topic, with the remedy.
    fn lost(&self, how: &str) -> Error {
        let what = format!(
            "topic `{}` {how}: what it held is gone; run `tidemill ingest --resnapshot` to publish \
             the tables again",
            self.name
        );
        Error::new(Kind::Data, what)
    }

    /// Whether the registry still holds the schema in use. False when it does not for a moment,
    /// since a registry that is starting may learn of schemas late. True when the registry cannot
    /// be reached.
    ///
    /// # Errors
    /// `Data` when the schema is missing for [`GONE_PATIENCE`].
    pub(super) fn is_schema_registered(&mut self) -> Result<bool> {
        let registered = self.encoder.is_registered().unwrap_or_else(|error| {
            tracing::debug!(%error, topic = %self.name, "cannot ask for its schema");
            true
        });
        if registered {
            self.unregistered_since = None;
            return Ok(true);
        }
        let since = *self.unregistered_since.get_or_insert_with(Instant::now);
        if since.elapsed() < GONE_PATIENCE {
            return Ok(false);
        }
        let what = format!(
            "topic `{}` is written with a schema that the registry does not have any more, or has \
             under another id: it was made anew. Restore it, or delete the topic and run `tidemill \
             ingest --resnapshot`",
            self.name
        );
        Err(Error::new(Kind::Data, what))
    }

    /// Checks that the topic still exists and is the same one.
    ///
    /// # Errors
    /// `Data` when it was recreated, or is missing for [`GONE_PATIENCE`]; `Retry` while it is
    /// missing.
    pub(super) fn look(&mut self, log: &dyn Log) -> Result<()> {
        match log.describe(&self.name) {
            Ok(Some(now)) => {
                self.gone_since = None;
                self.check(now)
            }
            Ok(None) => {
                let since = *self.gone_since.get_or_insert_with(Instant::now);
                if since.elapsed() >= GONE_PATIENCE {
                    return Err(self.lost("was deleted"));
                }
                let what = format!("topic `{}` is not there", self.name);
                Err(Error::new(Kind::Retry, what))
            }
            // The brokers cannot be reached: nothing is known, and the next append reports it.
            Err(error) if error.kind() == Kind::Retry => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Reads the ends of the partitions again.
    pub(super) fn read_ends(&mut self, log: &dyn Log, registry: &Arc<dyn Registry>) -> Result<()> {
        self.ends = self.read_tails(log, registry, !self.old.is_empty())?;
        self.forget_old();
        Ok(())
    }

    /// Removes ends that are unchanged since a new snapshot began.
    fn forget_old(&mut self) {
        for (end, old) in self.ends.iter_mut().zip(&self.old) {
            end.last = end.last.filter(|_| end.last != *old);
        }
    }

    /// Reads the ends of the partitions from their tails.
    fn read_tails(
        &self,
        log: &dyn Log,
        registry: &Arc<dyn Registry>,
        begins_anew: bool,
    ) -> Result<Vec<End>> {
        let mut decoder = Decoder::new(&self.name, Arc::clone(registry));
        let ranges = log.ranges(&self.name)?;
        let mut ends: Vec<End> = ranges
            .iter()
            .map(|range| End {
                fresh: range.high == 0,
                last: None,
            })
            .collect();
        for count in TAIL {
            let tail = log.tail(&self.name, count)?;
            for record in &tail {
                merge(&mut ends, &mut decoder, record)?;
            }
            let unknown = |end: &End, held: bool| held && end.last.is_none();
            let mut all = ends
                .iter()
                .zip(ranges.iter().map(|range| range.low < range.high));
            if !all.any(|(end, held)| unknown(end, held)) {
                break;
            }
        }
        if let Some(id) = decoder.misnamed().filter(|_| !begins_anew) {
            let what = format!(
                "topic `{}` was written with schema {id}, which is another one in the registry: \
                 the registry was made anew. Restore it, or delete the topic and run `tidemill \
                 ingest --resnapshot`",
                self.name
            );
            return Err(Error::new(Kind::Data, what));
        }
        let unknown = ends.iter().all(|end| end.last.is_none());
        if let Some(id) = decoder.missing().filter(|_| unknown && !begins_anew) {
            let what = format!(
                "topic `{}` was written with schema {id}, which the registry does not have: the \
                 registry lost its schemas. Restore them, or delete the topic and run `tidemill \
                 ingest --resnapshot`",
                self.name
            );
            return Err(Error::new(Kind::Data, what));
        }
        ends.truncate(self.described.partitions as usize);
        Ok(ends)
    }

    /// Registers the schemas of a table that begins with a snapshot. They need not read earlier
    /// records if the registry accepts them, or with `replaces`.
    pub(super) fn begin(&mut self, table: &Arc<TableSchema>, replaces: bool) -> Result<()> {
        let evolution = match replaces {
            true => Evolution::Replacing,
            false => Evolution::Anew,
        };
        match self.encoder.follow(table, evolution)? {
            Followed::Registered => Ok(()),
            Followed::Unreadable(why) => Err(Error::new(Kind::Bug, why)),
        }
    }

    /// Registers the schemas of a table for its next changes.
    pub(super) fn register(&mut self, table: &Arc<TableSchema>) -> Result<Followed> {
        self.encoder.follow(table, Evolution::Next)
    }

    /// Registers the schemas of a change.
    pub(super) fn prepare(&mut self, change: &Change, replaces: bool) -> Result<Followed> {
        if change.op == Op::Truncate && change.snapshot {
            self.begin(&change.table, replaces)?;
            return Ok(Followed::Registered);
        }
        let evolution = match self.missing_partitions(change).next() {
            Some(_) => Evolution::Next,
            None => Evolution::Written,
        };
        self.encoder.follow(&change.table, evolution)
    }

    /// The change as a record without a partition.
    pub(super) fn encode(&mut self, change: &Change) -> Result<Record> {
        self.encoder.encode(change)
    }

    /// Advances the ends over the change, and returns the partitions that do not hold it yet.
    pub(super) fn take(&mut self, change: &Change) -> Vec<u32> {
        let places: Vec<u32> = self.missing_partitions(change).collect();
        for partition in &places {
            if let Some(end) = self.ends.get_mut(*partition as usize) {
                end.last = Some(change.position);
            }
        }
        places
    }

    /// The partitions to which the change belongs and that do not hold it yet.
    fn missing_partitions(&self, change: &Change) -> impl Iterator<Item = u32> {
        let count = u32::try_from(self.ends.len()).unwrap_or(u32::MAX);
        let chosen = partition_of_change(change, count);
        // The truncate of a snapshot also goes to partitions that are empty, unless all are: it
        // tells readers which records in other partitions are older.
        let anew = change.snapshot && !self.ends.iter().all(End::is_fresh);
        let places = (0..count).zip(&self.ends);
        places.filter_map(move |(partition, end)| {
            // A truncate goes to all partitions but those to which nothing was ever written.
            let goes = match chosen {
                Some(chosen) => chosen == partition,
                None => anew || !end.is_fresh(),
            };
            (goes && end.lacks(change)).then_some(partition)
        })
    }
}

/// Takes a record of the tail into account, in the order of offsets. Records of others and
/// duplicates of earlier changes are skipped. The truncate of a snapshot replaces the end, since
/// positions before it may be those of another database.
fn merge(ends: &mut [End], decoder: &mut Decoder, record: &OwnedRecord) -> Result<()> {
    let place = decoder.place_of(record)?;
    let end = usize::try_from(record.partition).ok();
    if let (Some(place), Some(end)) = (place, end.and_then(|end| ends.get_mut(end))) {
        end.last = match place.begins {
            true => Some(place.position),
            false => end.last.max(Some(place.position)),
        };
    }
    Ok(())
}
