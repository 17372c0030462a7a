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
//! 3. A change whose row cannot be represented, encoded, or is too large, goes to the pipeline's
//!    dead letters and is counted; it stops nothing. In its place its key is withheld
//!    ([`Op::Withheld`]), so that no view keeps the row of before. Of an old row only the key
//!    matters: the rest is left out where it does not fit.
//! 4. A topic that was deleted or made anew is an error: what it held is gone ([`topic`]).

mod topic;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tidemill_log::dead_letter::{DeadLetter, Source, Stage, topic_of};
use tidemill_log::envelope::Followed;
use tidemill_log::event::{Change, Op, Value};
use tidemill_log::failpoint;
use tidemill_log::health::{Role, engines};
use tidemill_log::log::{Log, Producer, RECORD_BYTES_MAX, Record};
use tidemill_log::registry::Registry;
use tidemill_log::schema::TableSchema;

use crate::capture::{self, Capture, Captured, Refused};
use crate::config::{Compatibility, SCHEMA_IN_TOPICS, TopicNaming};
use crate::stats::Stats;
use crate::{Error, Kind, Result};
use topic::Topic;

/// How long one wait for changes lasts, and so how soon a stop is seen.
const WAIT: Duration = Duration::from_millis(100);
/// The first and the longest pause after something was away.
const PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));
/// How often a process looks whether the one that captures is gone.
const STANDBY: Duration = Duration::from_secs(1);
/// How often the topics are looked at while changes are published.
const TOPICS_LOOK: Duration = Duration::from_secs(5);
/// Who reports on the database.
const CAPTURE: &str = "capture";
/// How much of a row a dead letter keeps.
const ROW_TEXT_MAX: usize = 4 * 1024 * 1024;

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
    /// How a table's topic is named.
    pub naming: TopicNaming,
    /// Partitions of topics that are created.
    pub partitions: u32,
    /// Whether the registry may refuse a table's new schema.
    pub compatibility: Compatibility,
    /// Forget the capture's progress and read the tables again from the beginning. Then the
    /// registry refuses no schema: nobody needs what the topics held before.
    pub resnapshot: bool,
}

/// Captures and publishes until `stop`. What is away is waited for, and so is another process that
/// captures; an error is for a person.
pub fn stream(options: StreamOptions, stats: Arc<Stats>, stop: Arc<AtomicBool>) -> Result<()> {
    let mut resnapshot = options.resnapshot;
    let (mut pause, mut said) = (PAUSE.0, String::new());
    while !stop.load(Ordering::Relaxed) {
        match run(&options, &mut resnapshot, &stats, &stop, &mut pause) {
            Err(error) if is_waited_for(&error, &stats) => {
                let flowed = pause == PAUSE.0;
                let text = error.to_string();
                if flowed || text != said {
                    tracing::warn!(%error, "publishing waits");
                    said = text;
                }
                if error.kind() == Kind::Fence {
                    pause = STANDBY;
                }
                stats.waits(&error);
                sleep(&mut pause, &stop);
            }
            other => return other,
        }
    }
    Ok(())
}

/// Whether the error passes: also a refusal of who has captured before.
fn is_waited_for(error: &Error, stats: &Stats) -> bool {
    let passes = matches!(error.kind(), Kind::Retry | Kind::Fence);
    passes || error.is_refused() && stats.is_capturing()
}

/// Opens the capture, and reports on the database.
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

/// One capture, from opening it to its end.
fn run(
    options: &StreamOptions,
    resnapshot: &mut bool,
    stats: &Stats,
    stop: &AtomicBool,
    pause: &mut Duration,
) -> Result<()> {
    let health = &stats.health;
    let log = engines::log(tidemill_log::log::open(&options.log)?, health);
    let registry = tidemill_log::registry::open(&options.registry)?;
    let registry = engines::registry(registry, health);
    let mut capture = opened(options, *resnapshot, stats)?;
    stats.notices(capture.noticed());
    let mut publisher = Publisher::open(log, registry, options, capture.begins_anew())?;
    publisher.prepare(capture.as_mut())?;
    let mut looked = Instant::now();
    // From here on the database itself remembers that a snapshot is not finished.
    *resnapshot = false;
    while !stop.load(Ordering::Relaxed) {
        let batch = capture.next(WAIT);
        // While the server is away that is no error: reported as up in between, it would be down
        // since just now.
        let away = capture.away().filter(|_| batch.is_ok());
        if away.is_none() {
            health.note(Role::Database, CAPTURE, &batch);
        }
        stats.notices(capture.noticed());
        let batch = batch?;
        stats.passed(capture.passed());
        if let Some(why) = away {
            health.down(Role::Database, CAPTURE, &why);
            stats.waits(&why);
            continue;
        }
        *pause = PAUSE.0;
        stats.flows();
        if looked.elapsed() >= TOPICS_LOOK {
            looked = Instant::now();
            publisher.look()?;
            publisher.look_at_schemas()?;
        }
        let tables = capture.altered();
        publisher.follow(capture.as_mut(), &tables)?;
        if capture.is_settled() {
            stats.settles();
        }
        let Some(last) = batch.last().map(Captured::position) else {
            continue;
        };
        let truncates = batch
            .iter()
            .filter(|captured| is_truncate(captured))
            .count() as u64;
        Stats::add(&stats.captured, batch.len() as u64 - truncates);
        let done = loop {
            capture.check()?;
            match publisher.publish(&batch) {
                Err(error) if publisher.outdated.is_some() => {
                    return publisher.read_anew(capture.as_mut(), Err(error));
                }
                Err(error) if error.may_pass() => {
                    tracing::warn!(%error, "publishing waits");
                    stats.waits(&error);
                    sleep(pause, stop);
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
    /// By their names.
    topics: HashMap<String, Topic>,
    naming: TopicNaming,
    partitions: u32,
    database: String,
    dead_letters: String,
    begins_anew: bool,
    /// The tables of which only each alone begins anew.
    topics_anew: HashSet<String>,
    /// Whether what begins a table anew may have a schema that the registry refuses.
    replaces: bool,
    /// A table whose changes cannot go on behind those that its topic holds.
    outdated: Option<Arc<TableSchema>>,
    /// An append failed: what the topics hold must be read again.
    stale: bool,
    /// Which of the topics the registry is asked about next.
    named: usize,
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
            named: 0,
        })
    }

    /// Makes and looks at the topics of all captured tables, and compares them with what the
    /// capture noted of them when it first published.
    fn prepare(&mut self, capture: &mut dyn Capture) -> Result<()> {
        let tables = capture.tables();
        self.one_topic_each(&tables)?;
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

    /// Whether the topics are still the same; an error of kind `Data` when one is not.
    fn look(&mut self) -> Result<()> {
        let log = Arc::clone(&self.log);
        self.topics
            .values_mut()
            .try_for_each(|topic| topic.look(log.as_ref()))
    }

    /// Whether the registry still names what is written; an error of kind `Data` when it does not.
    /// One topic is asked about each time: a registry that was made anew lost all of them.
    fn look_at_schemas(&mut self) -> Result<()> {
        let count = self.topics.len().max(1);
        let topic = self.topics.values_mut().nth(self.named % count);
        if topic.map_or(Ok(true), Topic::is_named)? {
            self.named = (self.named + 1) % count;
        }
        Ok(())
    }

    /// Registers the columns that changes to come of these tables have.
    fn follow(&mut self, capture: &mut dyn Capture, tables: &[Arc<TableSchema>]) -> Result<()> {
        for table in tables {
            let followed = self.topic(table)?.register(table)?;
            let followed = self.followed(table, followed);
            self.read_anew(capture, followed)?;
        }
        Ok(())
    }

    /// What is to be done where the registry refuses a table's new schema: to read the table anew,
    /// which an error of kind `Retry` says.
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

    /// Has the next capture read the table anew that an error was about, if it was.
    fn read_anew(&mut self, capture: &mut dyn Capture, result: Result<()>) -> Result<()> {
        if let (Err(_), Some(table)) = (&result, self.outdated.take()) {
            capture.read_anew(&table)?;
        }
        result
    }

    /// Refuses two tables whose rows would overwrite one another.
    fn one_topic_each(&self, tables: &[Arc<TableSchema>]) -> Result<()> {
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

    /// The topic of a table.
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

    /// Makes the batch durable. After an error of kind `Retry` the same batch must be given again;
    /// what of it is there already is not written twice.
    pub fn publish(&mut self, batch: &[Captured]) -> Result<Published> {
        if self.stale {
            self.look()?;
            for topic in self.topics.values_mut() {
                topic.read_ends(self.log.as_ref(), &self.registry)?;
            }
            self.stale = false;
        }
        // Whatever fails below leaves ends that were moved for records that are not there.
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
                if let Some(smaller) = change.without_old_row() {
                    return self.publish(&[Captured::Change(smaller)]);
                }
                if change.op == Op::Withheld {
                    return Ok(done); // its letter is written
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

    /// Appends the records of a change that the log does not hold yet. Where its row cannot be
    /// published its key is withheld, and the reason returned.
    fn records(&mut self, change: &Change, records: &mut Vec<Record>) -> Result<Option<String>> {
        let Err(reason) = self.fitting(change, records)? else {
            return Ok(None);
        };
        if let Some(smaller) = change.without_old_row()
            && self.fitting(&smaller, records)?.is_ok()
        {
            return Ok(None);
        }
        if let Some(withheld) = change.withheld() {
            // Not even its key fits: then no row of it was ever published.
            let _unfit = self.fitting(&withheld, records)?;
        }
        Ok(Some(reason))
    }

    /// The same for a change as it is; the inner error says why it cannot be published.
    fn fitting(
        &mut self,
        change: &Change,
        records: &mut Vec<Record>,
    ) -> Result<std::result::Result<(), String>> {
        let replaces = self.replaces;
        let topic = self.topic(&change.table)?;
        // A refusal of the table's schema is no refusal of this row: every change to come would be
        // put aside.
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

/// A value for people.
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
