//! A table's topic: which one it is, where its partitions end, and which of them a change goes to.
//!
//! Invariants:
//! 1. A key stays in its partition as long as the topic lives: its values alone say which, and
//!    partitions that are added later are left alone. Earlier versions also hashed the id of the
//!    key's schema; whoever reads orders changes of two partitions by their positions. A change
//!    that was published by that rule just before may come once more by this one, and is harmless.
//! 2. What the topic holds is read from its tail; records that others put there (replayed dead
//!    letters among them) are passed over.
//! 3. A topic that was deleted, or made anew, is an error: what it held would be missing silently.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tidemill_log::envelope::{Decoder, Encoder, Evolution, Followed, partition_of_change};
use tidemill_log::event::{Change, Op, Position};
use tidemill_log::log::{Described, Log, OwnedRecord, Record};
use tidemill_log::registry::Registry;
use tidemill_log::schema::TableSchema;

use crate::{Error, Kind, Result};

/// How many records of each partition's tail are read; more when none of them is ours.
const TAIL: [u32; 2] = [100, 10_000];
/// How long a topic may not be there before it counts as deleted: brokers that begin know it late.
const GONE_PATIENCE: Duration = Duration::from_secs(15);

/// A table's topic.
pub(super) struct Topic {
    name: String,
    described: Described,
    encoder: Encoder,
    ends: Vec<End>,
    /// What the partitions ended with when a new snapshot began. It may be of another database,
    /// whose positions mean nothing here.
    old: Vec<Option<Position>>,
    gone_since: Option<Instant>,
    /// Since when the registry does not have the schemas that are written.
    unnamed_since: Option<Instant>,
}

/// The end of a partition.
#[derive(Debug, Default, Clone, Copy)]
struct End {
    /// Nothing was ever written to it.
    fresh: bool,
    /// The position of its last change.
    last: Option<Position>,
}

impl End {
    /// Whether the change is not there yet.
    fn wants(&self, change: &Change) -> bool {
        self.last < Some(change.position)
    }

    fn is_fresh(&self) -> bool {
        self.fresh && self.last.is_none()
    }
}

impl Topic {
    /// The topic called `name`, which is there. With `begins_anew` what it holds now is ignored.
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
            unnamed_since: None,
        };
        topic.ends = topic.found(log, registry, begins_anew)?;
        if begins_anew {
            topic.old = topic.ends.iter().map(|end| end.last).collect();
        }
        topic.forget_old();
        Ok(topic)
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// The position of the newest change that it holds.
    pub(super) fn last(&self) -> Option<Position> {
        self.ends.iter().filter_map(|end| end.last).max()
    }

    pub(super) fn described(&self) -> Described {
        self.described
    }

    /// Goes on with the topic as it was noted when it was first published to.
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

    fn check(&self, other: Described) -> Result<()> {
        let (is, was) = (self.described.id, other.id);
        if is == was || !is.is_known() || !was.is_known() {
            return Ok(());
        }
        Err(self.lost("was deleted and made anew since rows were published to it"))
    }

    fn lost(&self, how: &str) -> Error {
        let what = format!(
            "topic `{}` {how}: what it held is gone; run `tidemill ingest --resnapshot` to publish \
             the tables again",
            self.name
        );
        Error::new(Kind::Data, what)
    }

    /// Whether the registry still names the schema of what is written; an error when it does not
    /// for a while, since one that begins may know it late. One that is away is asked again.
    pub(super) fn is_named(&mut self) -> Result<bool> {
        let is_named = self.encoder.is_registered().unwrap_or_else(|error| {
            tracing::debug!(%error, topic = %self.name, "cannot ask for its schema");
            true
        });
        if is_named {
            self.unnamed_since = None;
            return Ok(true);
        }
        let since = *self.unnamed_since.get_or_insert_with(Instant::now);
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

    /// Whether it is still the same topic.
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
            // The brokers are away: nothing is known, and the next append says so.
            Err(error) if error.kind() == Kind::Retry => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Reads again what the topic holds.
    pub(super) fn read_ends(&mut self, log: &dyn Log, registry: &Arc<dyn Registry>) -> Result<()> {
        self.ends = self.found(log, registry, !self.old.is_empty())?;
        self.forget_old();
        Ok(())
    }

    /// Forgets ends that are still as they were when a new snapshot began.
    fn forget_old(&mut self) {
        for (end, old) in self.ends.iter_mut().zip(&self.old) {
            end.last = end.last.filter(|_| end.last != *old);
        }
    }

    /// What the partitions hold already.
    fn found(
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

    /// Registers the schemas of a table that begins anew. They need not read what was there before,
    /// if `replaces` says so or the registry takes them.
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

    /// Registers the schemas of a table whose changes to come have them.
    pub(super) fn register(&mut self, table: &Arc<TableSchema>) -> Result<Followed> {
        self.encoder.follow(table, Evolution::Next)
    }

    /// Registers the schemas of a change.
    pub(super) fn prepare(&mut self, change: &Change, replaces: bool) -> Result<Followed> {
        if change.op == Op::Truncate && change.snapshot {
            self.begin(&change.table, replaces)?;
            return Ok(Followed::Registered);
        }
        let evolution = match self.places(change).next() {
            Some(_) => Evolution::Next,
            None => Evolution::Written,
        };
        self.encoder.follow(&change.table, evolution)
    }

    /// The change as a record, without a partition.
    pub(super) fn encode(&mut self, change: &Change) -> Result<Record> {
        self.encoder.encode(change)
    }

    /// Takes the change, and returns the partitions that it goes to and was not in yet.
    pub(super) fn take(&mut self, change: &Change) -> Vec<u32> {
        let places: Vec<u32> = self.places(change).collect();
        for partition in &places {
            if let Some(end) = self.ends.get_mut(*partition as usize) {
                end.last = Some(change.position);
            }
        }
        places
    }

    /// The partitions that the change goes to and is not in yet.
    fn places(&self, change: &Change) -> impl Iterator<Item = u32> {
        let count = u32::try_from(self.ends.len()).unwrap_or(u32::MAX);
        let chosen = partition_of_change(change, count);
        // What begins the table anew also says so where nothing was written yet, unless that is
        // everywhere: whoever reads knows by it what is older in other partitions.
        let anew = change.snapshot && !self.ends.iter().all(End::is_fresh);
        let places = (0..count).zip(&self.ends);
        places.filter_map(move |(partition, end)| {
            // A truncate goes everywhere, except where nothing was ever written.
            let goes = match chosen {
                Some(chosen) => chosen == partition,
                None => anew || !end.is_fresh(),
            };
            (goes && end.wants(change)).then_some(partition)
        })
    }
}

/// Takes a record of the tail into account, in offset order. Records that others put there are
/// passed over, and so are copies of earlier changes; what begins the table anew does not stand
/// behind positions of another source.
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
