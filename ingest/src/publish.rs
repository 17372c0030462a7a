//! Publish: captured changes to the log.
//!
//! [`Captured`] flows in; Debezium-style Avro records flow out, one topic a table, keyed by primary
//! key, so the changes of a row stay in order in one partition.
//!
//! Invariants:
//! 1. A batch is acknowledged to the capture only when all of it is durable in the log.
//! 2. A change is written once: positions grow within a partition, so what is at or before the
//!    last position of the partition that it would go to is there already and is skipped. The
//!    tails are read again at each start and after each failed append.
//! 3. A change that cannot be encoded, or is too large, goes to the topic [`DEAD_LETTERS`] and is
//!    counted; it stops nothing.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;
use tidemill_log::envelope::{Decoder, Encoder};
use tidemill_log::event::{Change, Op, Position, Value};
use tidemill_log::log::{Log, Producer, RECORD_BYTES_MAX, Record, partition_of};
use tidemill_log::registry::Registry;

use crate::capture::{self, Captured, Refused};
use crate::stats::Stats;
use crate::{Error, Kind, Result};

/// The topic of what could not be published.
pub const DEAD_LETTERS: &str = "tidemill_dead_letters";
/// How long one wait for changes lasts, and so how soon a stop is seen.
const WAIT: Duration = Duration::from_millis(100);
/// The first and the longest pause after something was away.
const PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));
/// How much of a row a dead letter keeps.
const ROW_TEXT_MAX: usize = 64 * 1024;

/// What to capture, and where to publish it.
#[derive(Debug, Clone)]
pub struct StreamOptions {
    /// The database: `postgres://…` or `sqlite://FILE`.
    pub database: String,
    /// The tables to capture.
    pub tables: Vec<String>,
    /// The name under which the database keeps the capture's progress.
    pub name: String,
    /// The log: `kafka://…` or `sqlite://FILE`.
    pub log: String,
    /// The registry: `http(s)://…` or `sqlite://FILE`.
    pub registry: String,
    /// Put before a table's name to make its topic's.
    pub topic_prefix: String,
    /// Partitions of topics that are created.
    pub partitions: u32,
    /// Forget the capture's progress and read the tables again from the beginning.
    pub resnapshot: bool,
}

/// Captures and publishes until `stop`. What is away is waited for; an error is for a person.
pub fn stream(options: StreamOptions, stats: Arc<Stats>, stop: Arc<AtomicBool>) -> Result<()> {
    let mut options = options;
    let mut pause = PAUSE.0;
    while !stop.load(Ordering::Relaxed) {
        match run(&mut options, &stats, &stop, &mut pause) {
            Err(error) if error.kind() == Kind::Retry => {
                tracing::warn!(%error, "publishing waits");
                sleep(&mut pause, &stop);
            }
            other => return other,
        }
    }
    Ok(())
}

/// One capture, from opening it to its end.
fn run(
    options: &mut StreamOptions,
    stats: &Stats,
    stop: &AtomicBool,
    pause: &mut Duration,
) -> Result<()> {
    let log = tidemill_log::log::open(&options.log)?;
    let registry = tidemill_log::registry::open(&options.registry)?;
    let mut capture = capture::open(
        &options.database,
        &options.tables,
        &options.name,
        options.resnapshot,
    )?;
    let mut publisher = Publisher::open(log, registry, options, capture.begins_anew())?;
    for table in capture.tables() {
        publisher.topic(&table.name)?;
    }
    // From here on the database itself remembers that a snapshot is not finished.
    options.resnapshot = false;
    while !stop.load(Ordering::Relaxed) {
        let batch = capture.next(WAIT)?;
        *pause = PAUSE.0;
        let Some(last) = batch.last().map(Captured::position) else {
            continue;
        };
        let truncates = batch
            .iter()
            .filter(|captured| is_truncate(captured))
            .count() as u64;
        Stats::add(&stats.captured, batch.len() as u64 - truncates);
        let done = loop {
            match publisher.publish(&batch) {
                Err(error) if error.kind() == Kind::Retry => {
                    tracing::warn!(%error, "publishing waits");
                    sleep(pause, stop);
                    if stop.load(Ordering::Relaxed) {
                        return Ok(());
                    }
                }
                other => break other?,
            }
        };
        capture.acknowledge(last)?;
        Stats::add(&stats.dead_letters, done.dead_letters);
        Stats::add(&stats.unpublishable, done.dead_letters);
        Stats::add(&stats.published, done.published.saturating_sub(truncates));
    }
    Ok(())
}

fn is_truncate(captured: &Captured) -> bool {
    matches!(captured, Captured::Change(change) if change.op == Op::Truncate)
}

/// Sleeps for the pause, or until `stop`, and makes the next pause longer.
fn sleep(pause: &mut Duration, stop: &AtomicBool) {
    let until = Instant::now() + *pause;
    while !stop.load(Ordering::Relaxed) && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(20).min(*pause));
    }
    *pause = (*pause * 2).min(PAUSE.1);
}

/// What became of a batch.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Published {
    /// Changes that are durable in the log now, whether written just now or there already.
    pub published: u64,
    /// Changes put aside as dead letters.
    pub dead_letters: u64,
}

/// Writes captured changes to the log, each once.
pub struct Publisher {
    log: Arc<dyn Log>,
    registry: Arc<dyn Registry>,
    producer: Box<dyn Producer>,
    topics: HashMap<String, Topic>,
    prefix: String,
    partitions: u32,
    database: String,
    begins_anew: bool,
    /// An append failed: what the topics hold must be read again.
    stale: bool,
}

/// A table's topic.
struct Topic {
    name: String,
    encoder: Encoder,
    ends: Vec<End>,
    /// What the partitions ended with when a new snapshot began. It may be of another database,
    /// whose positions mean nothing here.
    old: Vec<Option<Position>>,
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
    /// Whether the change is there already; if not, it will be.
    fn takes(&mut self, change: &Change) -> bool {
        let takes = self.last < Some(change.position);
        if takes {
            self.last = Some(change.position);
        }
        takes
    }
}

impl Publisher {
    /// A publisher to `log`. Topics are created and their tails read when they are first needed;
    /// what they hold then is ignored when the capture
    /// [begins anew](capture::Capture::begins_anew).
    pub fn open(
        log: Arc<dyn Log>,
        registry: Arc<dyn Registry>,
        options: &StreamOptions,
        begins_anew: bool,
    ) -> Result<Self> {
        log.create_topic(DEAD_LETTERS, 1)?;
        let path = options.database.split('?').next().unwrap_or_default();
        let database = path.rsplit('/').next().unwrap_or_default();
        Ok(Self {
            producer: log.producer()?,
            log,
            registry,
            topics: HashMap::new(),
            prefix: options.topic_prefix.clone(),
            partitions: options.partitions.max(1),
            database: database.to_owned(),
            begins_anew,
            stale: false,
        })
    }

    /// The topic of a table.
    fn topic(&mut self, table: &str) -> Result<&mut Topic> {
        if !self.topics.contains_key(table) {
            let name = format!("{}{table}", self.prefix);
            self.log.create_topic(&name, self.partitions)?;
            let encoder = Encoder::new(&name, Arc::clone(&self.registry));
            let mut ends = ends(self.log.as_ref(), &self.registry, &name)?;
            let old: Vec<_> = ends
                .iter()
                .map(|end| end.last.filter(|_| self.begins_anew))
                .collect();
            forget_old(&mut ends, &old);
            let topic = Topic {
                ends,
                old,
                encoder: encoder.of_database(&self.database),
                name,
            };
            self.topics.insert(table.to_owned(), topic);
        }
        self.topics
            .get_mut(table)
            .ok_or_else(|| Error::new(Kind::Bug, format!("no topic for table `{table}`")))
    }

    /// Makes the batch durable. After an error of kind `Retry` the same batch must be given again;
    /// what of it is there already is not written twice.
    pub fn publish(&mut self, batch: &[Captured]) -> Result<Published> {
        if self.stale {
            for topic in self.topics.values_mut() {
                topic.ends = ends(self.log.as_ref(), &self.registry, &topic.name)?;
                forget_old(&mut topic.ends, &topic.old);
            }
            self.stale = false;
        }
        // Whatever fails below leaves ends that were moved for records that are not there.
        self.stale = true;
        let mut records = Vec::with_capacity(batch.len());
        let mut done = Published::default();
        for captured in batch {
            let refused = match captured {
                Captured::Refused(refused) => Some(("capture", refused.clone())),
                Captured::Change(change) => self
                    .records(change, &mut records)?
                    .map(|reason| ("publish", refusal(change, reason))),
            };
            match refused {
                Some((stage, refused)) => {
                    records.push(dead_letter(stage, &refused));
                    done.dead_letters += 1;
                }
                None => done.published += 1,
            }
        }
        match self.producer.append(&records) {
            Ok(()) => {}
            // One of them is refused: written one by one, the others go through.
            Err(error) if error.kind() == Kind::Data => {
                return self.publish_singly(batch, &error.to_string());
            }
            Err(error) => return Err(error),
        }
        self.stale = false;
        Ok(done)
    }

    fn publish_singly(&mut self, batch: &[Captured], reason: &str) -> Result<Published> {
        let mut done = Published::default();
        match batch {
            [Captured::Change(change)] => {
                let letter = dead_letter("publish", &refusal(change, reason.to_owned()));
                self.producer.append(&[letter])?;
                done.dead_letters = 1;
            }
            [_] => {
                return Err(Error::new(
                    Kind::Data,
                    format!("dead letter refused: {reason}"),
                ));
            }
            _ => {
                for one in batch {
                    let part = self.publish(std::slice::from_ref(one))?;
                    done.published += part.published;
                    done.dead_letters += part.dead_letters;
                }
            }
        }
        Ok(done)
    }

    /// Appends the records of a change that the log does not hold yet; returns why there are none,
    /// if the change cannot be published.
    fn records(&mut self, change: &Change, records: &mut Vec<Record>) -> Result<Option<String>> {
        let topic = self.topic(&change.table.name)?;
        let record = match topic.encoder.encode(change) {
            Ok(record) => record,
            Err(error) if error.kind() == Kind::Data => {
                // When not even a change without a row goes through, it is the table's schema that
                // is refused, not this row: every change to come would be put aside.
                let rowless = Change {
                    op: Op::Truncate,
                    before: None,
                    after: None,
                    ..change.clone()
                };
                topic.encoder.encode(&rowless)?;
                return Ok(Some(error.to_string()));
            }
            Err(error) => return Err(error),
        };
        let size =
            record.key.as_ref().map_or(0, Vec::len) + record.value.as_ref().map_or(0, Vec::len);
        if size > RECORD_BYTES_MAX {
            return Ok(Some(format!(
                "the record has {size} bytes, more than the log takes ({RECORD_BYTES_MAX})"
            )));
        }
        let count = u32::try_from(topic.ends.len()).unwrap_or(u32::MAX);
        let chosen = record.key.as_ref().map(|key| partition_of(key, count));
        for (partition, end) in (0..count).zip(&mut topic.ends) {
            // A truncate goes everywhere, except where nothing was ever written.
            let goes = match chosen {
                Some(chosen) => chosen == partition,
                None => !(end.fresh && end.last.is_none()),
            };
            if goes && end.takes(change) {
                records.push(Record {
                    partition: Some(partition),
                    ..record.clone()
                });
            }
        }
        Ok(None)
    }
}

/// What the partitions of a topic hold already.
fn ends(log: &dyn Log, registry: &Arc<dyn Registry>, topic: &str) -> Result<Vec<End>> {
    let mut decoder = Decoder::new(topic, Arc::clone(registry));
    let ranges = log.ranges(topic)?;
    let mut ends = vec![End::default(); ranges.len()];
    for (end, range) in ends.iter_mut().zip(&ranges) {
        end.fresh = range.high == 0;
    }
    for record in log.tail(topic, 1)? {
        let place = usize::try_from(record.partition).ok();
        if let Some(end) = place.and_then(|place| ends.get_mut(place)) {
            end.last = decoder.position_of(&record)?;
        }
    }
    Ok(ends)
}

/// Forgets ends that are still as they were when a new snapshot began.
fn forget_old(ends: &mut [End], old: &[Option<Position>]) {
    for (end, old) in ends.iter_mut().zip(old) {
        end.last = end.last.filter(|_| end.last != *old);
    }
}

fn refusal(change: &Change, reason: String) -> Refused {
    let row = change.after.as_ref().or(change.before.as_ref());
    let text = |index: &usize| match row.and_then(|row| row.get(*index)) {
        Some(Value::Text(text)) => text.clone(),
        Some(other) => format!("{other:?}"),
        None => "NULL".to_owned(),
    };
    let key: Vec<String> = change.table.key.iter().map(text).collect();
    Refused {
        table: change.table.name.clone(),
        key: key.join(", "),
        position: change.position,
        reason,
        row: row.map_or_else(String::new, |row| format!("{row:?}")),
    }
}

fn dead_letter(stage: &str, refused: &Refused) -> Record {
    let end = refused.row.floor_char_boundary(ROW_TEXT_MAX);
    let letter = json!({
        "stage": stage,
        "table": refused.table,
        "key": refused.key,
        "position": format!("{}/{}", refused.position.commit, refused.position.index),
        "reason": refused.reason,
        "row": refused.row.get(..end),
    });
    Record {
        topic: DEAD_LETTERS.to_owned(),
        partition: Some(0),
        key: None,
        value: Some(letter.to_string().into_bytes()),
        timestamp_ms: jiff::Timestamp::now().as_millisecond(),
    }
}
