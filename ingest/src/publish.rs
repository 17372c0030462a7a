//! Publisher: appends captured changes to the log, without duplicates.
//!
//! In: [`Captured`]. Out: Debezium-style Avro records, one topic per table, keyed by the primary
//! key, so that the changes of a row stay in order in one partition.
//!
//! At a start and after a failed append the publisher reads the tail of each topic and skips the
//! changes that the topic holds already:
//!
//! ```text
//! partition 0    … (100,2) (100,6)                 tail: last position (100,6)
//! captured       (100,2) (100,4) (100,6) (180,0)   keys of partition 0: (100,2) (100,6) (180,0)
//! appended                               (180,0)   positions ≤ (100,6) are skipped
//!
//! next() ─► check lease ─► encode, register schemas ─► append ─► durable ─► acknowledge ─► next()
//! ```
//!
//! Invariants:
//! 1. A batch is acknowledged to the capture only when all of it is durable in the log.
//! 2. A change is written once: positions grow within a partition, so a change at or before the
//!    last position of its partition is there already. (A capture that was frozen in the middle of
//!    an append is the exception: readers drop its duplicates.)
//! 3. A change whose row cannot be represented or encoded, or is too large, becomes a dead letter,
//!    and publishing continues. In its place its key is withheld ([`Op::Withheld`]), so that no
//!    view keeps the previous row. Of an old row only the key is necessary: the rest is dropped if
//!    it does not fit.
//! 4. A topic that was deleted or recreated is an error, since its records are lost (`topic`).

mod topic;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tidemill_log::backoff::Backoff;
use tidemill_log::envelope::Followed;
use tidemill_log::envelope::event::{Change, Op, Value};
use tidemill_log::health::{Role, engines};
use tidemill_log::log::dead_letter::{DeadLetter, Source, Stage, topic_of};
use tidemill_log::log::{Log, Producer, RECORD_BYTES_MAX, Record};
use tidemill_log::registry::Registry;
use tidemill_log::schema::TableSchema;
use tidemill_log::{backoff, failpoint};
use topic::Topic;

use crate::capture::{Capture, Captured, Refused};
use crate::config::{Compatibility, SCHEMA_IN_TOPICS, TopicNaming};
use crate::stats::Stats;
use crate::{Error, Kind, Result, capture};

/// Longest single wait for changes, and so the delay of a stop.
const WAIT: Duration = Duration::from_millis(100);
/// The first and the longest backoff while a service cannot be reached.
const PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));
/// Interval at which a standby process tries to take over the capture.
const STANDBY: Duration = Duration::from_secs(1);
/// Interval at which the topics are checked.
const TOPICS_LOOK: Duration = Duration::from_secs(5);
/// Name of this reporter of the database's health.
const CAPTURE: &str = "capture";
/// Largest number of bytes of a row that a dead letter keeps.
const ROW_TEXT_MAX: usize = 4 * 1024 * 1024;

/// What to capture and where to publish it.
#[derive(Debug, Clone)]
pub struct StreamOptions {
    /// URL of the database: `postgres://…` or `sqlite://FILE`.
    pub database: String,
    /// Names of the tables to capture.
    pub tables: Vec<String>,
    /// Name of the capture, under which the database keeps its progress.
    pub name: String,
    /// URL of the log: `kafka://…` or `sqlite://FILE`.
    pub log: String,
    /// URL of the registry: `http(s)://…` or `sqlite://FILE`.
    pub registry: String,
    /// How topics are named.
    pub naming: TopicNaming,
    /// Partitions of topics that are created.
    pub partitions: u32,
    /// Whether the registry may refuse a new schema of a table.
    pub compatibility: Compatibility,
    /// Discard the progress and read all tables again. Then no schema is refused, since no reader
    /// needs the earlier records.
    pub resnapshot: bool,
}

/// Captures and publishes until `stop` is set. Waits for services that cannot be reached, and while
/// another process captures.
///
/// # Errors
/// Errors that a person must correct: tables or servers that cannot be captured, lost changes, lost
/// topics, refused schemas.
pub fn stream(options: StreamOptions, stats: Arc<Stats>, stop: Arc<AtomicBool>) -> Result<()> {
    let mut resnapshot = options.resnapshot;
    let mut backoff = Backoff::new(PAUSE.0, PAUSE.1);
    let mut said = String::new();
    while !stop.load(Ordering::Relaxed) {
        match run(&options, &mut resnapshot, &stats, &stop, &mut backoff) {
            Err(error) if is_retried(&error, &stats) => {
                let flowed = backoff.is_fresh();
                let text = error.to_string();
                if flowed || text != said {
                    tracing::warn!(%error, "publishing waits");
                    said = text;
                }
                stats.mark_waiting(&error);
                // The pause counts also for a standby, so that its reason is logged once.
                let pause = backoff.pause();
                let pause = match error.kind() {
                    Kind::Fence => STANDBY,
                    _ => pause,
                };
                backoff::sleep(pause, &stop);
            }
            other => return other,
        }
    }
    Ok(())
}

/// Whether the error passes. A refusal passes too, if this process has captured before.
fn is_retried(error: &Error, stats: &Stats) -> bool {
    let passes = matches!(error.kind(), Kind::Retry | Kind::Fence);
    passes || error.is_refused() && stats.is_capturing()
}

/// Opens the capture and reports the health of the database.
fn opened(options: &StreamOptions, resnapshot: bool, stats: &Stats) -> Result<Box<dyn Capture>> {
    let opened = capture::open(
        &options.database,
        &options.tables,
        &options.name,
        resnapshot,
    );
    stats.health.note(Role::Database, CAPTURE, &opened);
    opened
}

/// The life of one capture, from its opening to its end.
fn run(
    options: &StreamOptions,
    resnapshot: &mut bool,
    stats: &Stats,
    stop: &AtomicBool,
    backoff: &mut Backoff,
) -> Result<()> {
    let health = &stats.health;
    let log = engines::log(tidemill_log::log::open(&options.log)?, health);
    let registry = tidemill_log::registry::open(&options.registry)?;
    let registry = engines::registry(registry, health);
    let mut capture = opened(options, *resnapshot, stats)?;
    stats.add_noticed(capture.noticed());
    let mut publisher = Publisher::open(log, registry, options, capture.begins_anew())?;
    publisher.prepare(capture.as_mut())?;
    let mut looked = Instant::now();
    // From now on the database knows that the snapshot is not finished.
    *resnapshot = false;
    while !stop.load(Ordering::Relaxed) {
        let batch = capture.next(WAIT);
        // While the server cannot be reached `next` returns no error. Reporting "up" here would
        // move the begin of the outage.
        let away = capture.away().filter(|_| batch.is_ok());
        if away.is_none() {
            health.note(Role::Database, CAPTURE, &batch);
        }
        stats.add_noticed(capture.noticed());
        let batch = batch?;
        stats.passed(capture.passed());
        if let Some(why) = away {
            health.down(Role::Database, CAPTURE, &why);
            stats.mark_waiting(&why);
            continue;
        }
        backoff.reset();
        stats.mark_publishing();
        if looked.elapsed() >= TOPICS_LOOK {
            looked = Instant::now();
            publisher.look()?;
            publisher.check_schemas()?;
        }
        let tables = capture.altered();
        publisher.follow(capture.as_mut(), &tables)?;
        if capture.is_settled() {
            stats.mark_settled();
        }
        let Some(last) = batch.last().map(Captured::position) else {
            stats.note_snapshot(changes_of(&batch), batch.is_empty());
            continue;
        };
        let truncates = truncates_of(&batch);
        Stats::add(&stats.captured, batch.len() as u64 - truncates);
        let done = loop {
            capture.check()?;
            match publisher.publish(&batch) {
                Err(error) if publisher.outdated.is_some() => {
                    return publisher.read_anew(capture.as_mut(), Err(error));
                }
                Err(error) if error.may_pass() => {
                    tracing::warn!(%error, "publishing waits");
                    stats.mark_waiting(&error);
                    backoff.sleep(stop);
                    if stop.load(Ordering::Relaxed) {
                        return Ok(());
                    }
                }
                other => break other?,
            }
        };
        failpoint::hit(failpoint::PUBLISH_AFTER_APPEND);
        capture.acknowledge(last)?;
        stats.passed(capture.passed());
        failpoint::hit(failpoint::PUBLISH_AFTER_ACKNOWLEDGE);
        Stats::add(&stats.dead_letters, done.dead_letters);
        Stats::add(&stats.unpublishable, done.dead_letters);
        Stats::add(&stats.published, done.published.saturating_sub(truncates));
        stats.note_snapshot(changes_of(&batch), batch.is_empty());
    }
    Ok(())
}

/// The changes of a batch.
fn changes_of(batch: &[Captured]) -> impl Iterator<Item = &Change> {
    batch.iter().filter_map(|captured| match captured {
        Captured::Change(change) => Some(change),
        Captured::Refused(_) => None,
    })
}

/// The number of truncates in a batch.
fn truncates_of(batch: &[Captured]) -> u64 {
    batch.iter().filter(|it| is_truncate(it)).count() as u64
}

/// Whether it is a truncate.
fn is_truncate(captured: &Captured) -> bool {
    matches!(captured, Captured::Change(change) if change.op == Op::Truncate)
}

/// The outcome of publishing a batch.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Published {
    /// Changes that are durable in the log, written now or earlier.
    pub published: u64,
    /// Changes that became dead letters.
    pub dead_letters: u64,
}

/// Appends captured changes to the log. A publisher belongs to one capture and one thread.
pub struct Publisher {
    /// The log.
    log: Arc<dyn Log>,
    /// Where schemas are registered.
    registry: Arc<dyn Registry>,
    /// Appends to it.
    producer: Box<dyn Producer>,
    /// The open topics by name.
    topics: HashMap<String, Topic>,
    /// How topics are named.
    naming: TopicNaming,
    /// Partitions of topics that are created.
    partitions: u32,
    /// Name of the database, for `source.db`.
    database: String,
    /// The topic of the dead letters.
    dead_letters: String,
    /// Whether all tables begin with a snapshot.
    begins_anew: bool,
    /// Topics of the tables that begin with a snapshot alone.
    topics_anew: HashSet<String>,
    /// Whether a table that begins with a snapshot may have a schema that the registry refuses.
    replaces: bool,
    /// A table whose changes cannot follow the records of its topic, so that it needs a snapshot.
    outdated: Option<Arc<TableSchema>>,
    /// Whether an append failed, so that the tails of the topics must be read again.
    stale: bool,
    /// Index of the topic about whose schema the registry is asked next.
    next_schema_check: usize,
}

impl Publisher {
    /// A publisher to `log`. Topics are created, and their tails read, when they are first needed.
    /// When the capture [begins anew](capture::Capture::begins_anew), what the topics hold at that
    /// time does not count.
    ///
    /// # Errors
    /// Those of creating the topic of the dead letters.
    pub fn open(
        log: Arc<dyn Log>,
        registry: Arc<dyn Registry>,
        options: &StreamOptions,
        begins_anew: bool,
    ) -> Result<Self> {
        let dead_letters = topic_of(&options.name);
        log.create_topic(&dead_letters, 1)?;
        let path = options.database.split('?').next().unwrap_or_default();
        let database = path.rsplit('/').next().unwrap_or_default();
        Ok(Self {
            producer: log.producer()?,
            log,
            registry,
            topics: HashMap::new(),
            naming: options.naming.clone(),
            partitions: options.partitions.max(1),
            database: database.to_owned(),
            dead_letters,
            begins_anew,
            topics_anew: HashSet::new(),
            replaces: options.compatibility == Compatibility::None
                || options.resnapshot && begins_anew,
            outdated: None,
            stale: false,
            next_schema_check: 0,
        })
    }

    /// Opens the topics of all captured tables, and compares them with the records of the capture
    /// about them.
    ///
    /// # Errors
    /// `Data` when a topic was deleted or recreated, or holds changes that the database does not
    /// have.
    fn prepare(&mut self, capture: &mut dyn Capture) -> Result<()> {
        let tables = capture.tables();
        self.check_distinct_topics(&tables)?;
        for table in tables {
            let begins = capture.table_begins_anew(&table);
            if begins {
                self.topics_anew.insert(self.naming.topic(&table));
            }
            let replaces = self.replaces;
            let topic = self.topic(&table)?;
            failpoint::hit(failpoint::PUBLISH_BEFORE_NOTE);
            let noted = capture.note(&table, topic.name(), topic.described())?;
            failpoint::hit(failpoint::PUBLISH_AFTER_NOTE);
            topic.follow(noted)?;
            if begins {
                topic.begin(&table, replaces)?;
            } else if let Some(last) = topic.last() {
                capture.has(topic.name(), last)?;
            }
        }
        capture.goes_on()
    }

    /// Checks that the topics still exist and are the same ones.
    fn look(&mut self) -> Result<()> {
        let log = Arc::clone(&self.log);
        self.topics
            .values_mut()
            .try_for_each(|topic| topic.look(log.as_ref()))
    }

    /// Checks that the registry still holds the schema in use of one topic, another one with each
    /// call. (A registry that was recreated lost all of them.)
    fn check_schemas(&mut self) -> Result<()> {
        let count = self.topics.len().max(1);
        let topic = self.topics.values_mut().nth(self.next_schema_check % count);
        if topic.map_or(Ok(true), Topic::is_schema_registered)? {
            self.next_schema_check = (self.next_schema_check + 1) % count;
        }
        Ok(())
    }

    /// Registers the new columns of altered tables before their next changes.
    fn follow(&mut self, capture: &mut dyn Capture, tables: &[Arc<TableSchema>]) -> Result<()> {
        for table in tables {
            let followed = self.topic(table)?.register(table)?;
            let followed = self.followed(table, followed);
            self.read_anew(capture, followed)?;
        }
        Ok(())
    }

    /// Turns a schema that cannot read earlier records into an error of kind `Retry`: the table is
    /// read again as a snapshot.
    fn followed(&mut self, table: &Arc<TableSchema>, followed: Followed) -> Result<()> {
        let Followed::Unreadable(why) = followed else {
            return Ok(());
        };
        let what = format!(
            "table `{}` is read anew: what was published of it cannot be read with its new schema \
             ({why})",
            table.name
        );
        self.outdated = Some(Arc::clone(table));
        Err(Error::new(Kind::Retry, what))
    }

    /// Makes the next capture read the outdated table as a snapshot, if the result is an error
    /// about one.
    fn read_anew(&mut self, capture: &mut dyn Capture, result: Result<()>) -> Result<()> {
        if let (Err(_), Some(table)) = (&result, self.outdated.take()) {
            capture.read_anew(&table)?;
        }
        result
    }

    /// Refuses two tables with the same topic.
    fn check_distinct_topics(&self, tables: &[Arc<TableSchema>]) -> Result<()> {
        let mut taken: HashMap<String, &TableSchema> = HashMap::new();
        for table in tables {
            let topic = self.naming.topic(table);
            if let Some(other) = taken.get(&topic) {
                let what = format!(
                    "tables `{}.{}` and `{}.{}` would both be published to topic `{topic}`; \
                     {SCHEMA_IN_TOPICS}",
                    other.namespace, other.name, table.namespace, table.name
                );
                return Err(Error::new(Kind::Data, what));
            }
            taken.insert(topic, table);
        }
        Ok(())
    }

    /// The topic of a table; created and opened if necessary.
    fn topic(&mut self, table: &TableSchema) -> Result<&mut Topic> {
        let name = self.naming.topic(table);
        if !self.topics.contains_key(&name) {
            self.log.create_topic(&name, self.partitions)?;
            let topic = Topic::open(
                name.clone(),
                self.log.as_ref(),
                &self.registry,
                &self.database,
                self.begins_anew || self.topics_anew.contains(&name),
            )?;
            self.topics.insert(name.clone(), topic);
        }
        self.topics
            .get_mut(&name)
            .ok_or_else(|| Error::new(Kind::Bug, format!("no topic `{name}`")))
    }

    /// Makes a batch durable.
    ///
    /// # Errors
    /// After an error of kind `Retry` publish the same batch again; what is in the log already is
    /// not written twice. `Data` when a topic was lost or a schema is refused.
    pub fn publish(&mut self, batch: &[Captured]) -> Result<Published> {
        if self.stale {
            self.look()?;
            for topic in self.topics.values_mut() {
                topic.read_ends(self.log.as_ref(), &self.registry)?;
            }
            self.stale = false;
        }
        // Until the append has succeeded, the ends include records that are not in the log.
        self.stale = true;
        let mut records = Vec::with_capacity(batch.len());
        let mut done = Published::default();
        for captured in batch {
            let refused = match captured {
                Captured::Refused(refused) => {
                    for change in &refused.withheld {
                        self.records(change, &mut records)?;
                    }
                    Some((Stage::Capture, refused.clone()))
                }
                Captured::Change(change) => self
                    .records(change, &mut records)?
                    .map(|reason| (Stage::Publish, refusal(change, reason))),
            };
            match refused {
                Some((stage, refused)) => {
                    records.extend(dead_letter(stage, &refused).records(&self.dead_letters));
                    done.dead_letters += 1;
                }
                None => done.published += 1,
            }
        }
        failpoint::hit(failpoint::PUBLISH_BEFORE_APPEND);
        match self.producer.append(&records) {
            Ok(()) => {}
            // One of the records is refused; appended one by one, the others succeed.
            Err(error) if error.kind() == Kind::Data => {
                return self.publish_singly(batch, &error.to_string());
            }
            Err(error) => return Err(error),
        }
        self.stale = false;
        Ok(done)
    }

    /// Publishes a refused batch one change at a time, and makes a dead letter of the refused one.
    fn publish_singly(&mut self, batch: &[Captured], reason: &str) -> Result<Published> {
        let mut done = Published::default();
        match batch {
            [Captured::Change(change)] => {
                if let Some(smaller) = change.without_old_row() {
                    return self.publish(&[Captured::Change(smaller)]);
                }
                if change.op == Op::Withheld {
                    return Ok(done); // its dead letter is durable
                }
                let letter = dead_letter(Stage::Publish, &refusal(change, reason.to_owned()));
                self.producer.append(&letter.records(&self.dead_letters))?;
                if let Some(withheld) = change.withheld() {
                    self.publish(&[Captured::Change(withheld)])?;
                }
                done.dead_letters = 1;
            }
            [Captured::Refused(refused)] if !refused.withheld.is_empty() => {
                let mut alone = refused.clone();
                alone.withheld.clear();
                return self.publish(&[Captured::Refused(alone)]);
            }
            [_] => {
                return Err(Error::new(
                    Kind::Data,
                    format!("the log refuses a dead letter: {reason}"),
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

    /// Appends the records of a change that the log does not hold. If its row cannot be published,
    /// its key is withheld, and the reason returned.
    fn records(&mut self, change: &Change, records: &mut Vec<Record>) -> Result<Option<String>> {
        let Err(reason) = self.encode_if_fits(change, records)? else {
            return Ok(None);
        };
        if let Some(smaller) = change.without_old_row()
            && self.encode_if_fits(&smaller, records)?.is_ok()
        {
            return Ok(None);
        }
        if let Some(withheld) = change.withheld() {
            // If not even the key fits, no row of it was ever published.
            let _unfit = self.encode_if_fits(&withheld, records)?;
        }
        Ok(Some(reason))
    }

    /// Appends the records of a change as it is; the inner error says why it cannot be published.
    fn encode_if_fits(
        &mut self,
        change: &Change,
        records: &mut Vec<Record>,
    ) -> Result<std::result::Result<(), String>> {
        let replaces = self.replaces;
        let topic = self.topic(&change.table)?;
        // A refused schema is not a refused row: every following change would become a dead letter.
        let followed = topic.prepare(change, replaces)?;
        self.followed(&change.table, followed)?;
        let topic = self.topic(&change.table)?;
        let record = match topic.encode(change) {
            Ok(record) => record,
            Err(error) if error.kind() == Kind::Data => return Ok(Err(error.to_string())),
            Err(error) => return Err(error),
        };
        let size =
            record.key.as_ref().map_or(0, Vec::len) + record.value.as_ref().map_or(0, Vec::len);
        if size > RECORD_BYTES_MAX {
            return Ok(Err(format!(
                "the record has {size} bytes, more than the log takes ({RECORD_BYTES_MAX})"
            )));
        }
        let places = topic.take(change).into_iter();
        records.extend(places.map(|partition| Record {
            partition: Some(partition),
            ..record.clone()
        }));
        Ok(Ok(()))
    }
}

/// A change that cannot be published, as text.
fn refusal(change: &Change, reason: String) -> Refused {
    let row = change.after.as_ref().or(change.before.as_ref());
    let columns = &change.table.columns;
    let value = |index: usize| {
        row.and_then(|row| row.get(index))
            .map_or("NULL".into(), text)
    };
    let key: Vec<String> = change.table.key.iter().map(|index| value(*index)).collect();
    let cells = columns.iter().enumerate();
    let cells: Vec<String> = cells
        .map(|(index, column)| format!("{}={}", column.name, value(index)))
        .collect();
    Refused {
        table: change.table.name.clone(),
        key: key.join(", "),
        position: change.position,
        reason,
        row: cells.join(", "),
        withheld: Vec::new(),
    }
}

/// A value as text.
fn text(value: &Value) -> String {
    match value {
        Value::Null => "NULL".to_owned(),
        Value::Text(text) => text.clone(),
        Value::Bool(bool) => bool.to_string(),
        Value::Int(number) => number.to_string(),
        Value::Float(number) => number.to_string(),
        other => format!("{other:?}"),
    }
}

/// The dead letter of a refused change.
fn dead_letter(stage: Stage, refused: &Refused) -> DeadLetter {
    let mut reason = refused.reason.clone();
    let end = refused.row.floor_char_boundary(ROW_TEXT_MAX);
    if end < refused.row.len() {
        reason = format!(
            "{reason} (of the row's {} bytes {end} are kept)",
            refused.row.len()
        );
    }
    DeadLetter {
        stage,
        at_ms: jiff::Timestamp::now().as_millisecond(),
        source: Source::Change {
            table: refused.table.clone(),
            key: refused.key.clone(),
            commit: refused.position.commit,
            index: refused.position.index,
        },
        reason,
        key: None,
        value: refused.row.get(..end).map(|row| row.as_bytes().to_vec()),
    }
}
