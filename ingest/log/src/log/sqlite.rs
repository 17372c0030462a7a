//! The embedded log: topics as rows of the embedded SQLite file.
//!
//! ```text
//! append:  transaction { next offset of the partition, insert } ─► commit ─► notify the readers
//! poll:    read rows from the next offset on ─► none: wait for a notification, at most LOOK_EVERY,
//!          then compare PRAGMA data_version: another process may have committed
//! ```
//!
//! Invariants:
//! 1. Offsets of a partition start at 0 and have no holes: they are assigned in the transaction
//!    that inserts the records.
//! 2. A topic is deleted as a whole, so the lowest offset of a partition is always 0.
//! 3. A committed append notifies every reader of the file in this process. A reader sees an append
//!    of another process within [`LOOK_EVERY`].

use std::collections::HashMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use rusqlite::{Connection, OptionalExtension, Row, TransactionBehavior, params};

use super::partition::check_sizes;
use super::{
    Described, Log, Look, OwnedRecord, PartitionRange, Producer, Reader, Record, RecordRef,
    TopicId, partition_of,
};
use crate::sqlite::{connect, failed};
use crate::{Error, Kind, Result};

/// How often a waiting reader looks for commits of other processes.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// The tables of the log, and a view of its dead letters for people who open the file with SQL.
const TABLES: &str = "
    CREATE TABLE IF NOT EXISTS _tidemill_topics (
        topic TEXT PRIMARY KEY, partitions INTEGER NOT NULL
    ) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS _tidemill_log (
        topic TEXT NOT NULL, partition INTEGER NOT NULL, \"offset\" INTEGER NOT NULL,
        timestamp_ms INTEGER NOT NULL, key BLOB, value BLOB,
        PRIMARY KEY (topic, partition, \"offset\")
    ) WITHOUT ROWID;
    CREATE VIEW IF NOT EXISTS _tidemill_dead_letters AS
        SELECT topic, min(number) AS number, letter ->> 'stage' AS stage,
            datetime((letter ->> 'at_ms') / 1000.0, 'unixepoch') AS at,
            letter ->> 'source' AS source, letter ->> 'reason' AS reason,
            letter ->> 'value_text' AS value
        FROM (SELECT topic, \"offset\" AS number, CAST(value AS TEXT) AS letter
              FROM _tidemill_log WHERE topic LIKE '%.dead-letters')
        WHERE json_valid(letter) AND letter ->> 'part' = 1
        GROUP BY topic, letter ->> 'id' ORDER BY number;";

/// The next offset of a partition.
const NEXT: &str = "SELECT coalesce(max(\"offset\") + 1, 0) FROM _tidemill_log
    WHERE topic = ?1 AND partition = ?2";
const APPEND: &str = "INSERT INTO _tidemill_log VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
/// The records of a partition from an offset on.
const FROM: &str = "SELECT \"offset\", timestamp_ms, key, value FROM _tidemill_log
    WHERE topic = ?1 AND partition = ?2 AND \"offset\" >= ?3 ORDER BY \"offset\" LIMIT ?4";

/// The first offset of a partition whose record has this time or a later one.
const FIRST_AT: &str = "SELECT min(\"offset\") FROM _tidemill_log
    WHERE topic = ?1 AND partition = ?2 AND timestamp_ms >= ?3";

/// The log in one embedded file.
pub(super) struct SqliteLog {
    file: String,
    /// For questions and changes of topics. Producers and readers have their own connections.
    connection: Mutex<Connection>,
    /// The readers to notify.
    notifiers: Arc<Notifiers>,
}

impl SqliteLog {
    /// Opens the file and creates the tables of the log.
    pub(super) fn open(file: &str) -> Result<Self> {
        let connection = connect(file)?;
        connection
            .execute_batch(TABLES)
            .map_err(|error| failed(file, "cannot make the log's tables", error))?;
        Ok(Self {
            file: file.to_owned(),
            connection: Mutex::new(connection),
            notifiers: notifiers_of(file),
        })
    }

    /// An error of the file in an operation on a topic.
    fn failed(&self, topic: &str, error: rusqlite::Error) -> Error {
        failed(&self.file, &format!("topic `{topic}`"), error)
    }
}

impl Log for SqliteLog {
    fn create_topic(&self, topic: &str, partitions: u32) -> Result<()> {
        if partitions == 0 {
            let what = format!("topic `{topic}`: 0 partitions, it needs at least 1");
            return Err(Error::new(Kind::Data, what));
        }
        locked(&self.connection)
            .execute(
                "INSERT OR IGNORE INTO _tidemill_topics VALUES (?1, ?2)",
                params![topic, partitions],
            )
            .map_err(|error| self.failed(topic, error))?;
        Ok(())
    }

    fn delete_topic(&self, topic: &str) -> Result<bool> {
        let delete = |connection: &mut Connection| {
            let transaction =
                connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            transaction.execute("DELETE FROM _tidemill_log WHERE topic = ?1", [topic])?;
            let topics =
                transaction.execute("DELETE FROM _tidemill_topics WHERE topic = ?1", [topic])?;
            transaction.commit().map(|()| topics > 0)
        };
        delete(&mut locked(&self.connection)).map_err(|error| self.failed(topic, error))
    }

    fn ranges(&self, topic: &str) -> Result<Vec<PartitionRange>> {
        let connection = locked(&self.connection);
        let read = || -> rusqlite::Result<_> {
            let Some(partitions) = partitions_of(&connection, topic)? else {
                return Ok(None);
            };
            let mut next = connection.prepare_cached(NEXT)?;
            (0..partitions)
                .map(|partition| {
                    let high = next.query_row(params![topic, partition], |row| row.get(0))?;
                    Ok(PartitionRange {
                        partition,
                        low: 0,
                        high,
                    })
                })
                .collect::<rusqlite::Result<Vec<_>>>()
                .map(Some)
        };
        read()
            .map_err(|error| self.failed(topic, error))?
            .ok_or_else(|| no_such_topic(topic, Kind::Retry))
    }

    fn describe(&self, topic: &str) -> Result<Option<Described>> {
        let partitions = partitions_of(&locked(&self.connection), topic);
        let partitions = partitions.map_err(|error| self.failed(topic, error))?;
        Ok(partitions.map(|partitions| Described {
            id: TopicId::default(),
            partitions,
        }))
    }

    fn producer(&self) -> Result<Box<dyn Producer>> {
        Ok(Box::new(SqliteProducer {
            connection: connect(&self.file)?,
            file: self.file.clone(),
            notifiers: Arc::clone(&self.notifiers),
            keyless: 0,
        }))
    }

    fn reader(&self, topic: &str, from: &[(u32, i64)]) -> Result<Box<dyn Reader>> {
        let notifier = Arc::new(Notifier::default());
        locked(&self.notifiers.0).push(Arc::downgrade(&notifier));
        Ok(Box::new(SqliteReader {
            connection: connect(&self.file)?,
            file: self.file.clone(),
            topic: topic.to_owned(),
            next: from.to_vec(),
            first: 0,
            checked: false,
            notifier,
            _notifiers: Arc::clone(&self.notifiers),
        }))
    }

    fn tail(&self, topic: &str, count: u32) -> Result<Vec<OwnedRecord>> {
        let ranges = self.ranges(topic)?;
        let mut records = Vec::new();
        for range in ranges {
            let from = range.high.saturating_sub(i64::from(count));
            let connection = locked(&self.connection);
            let mut collect = |record: RecordRef<'_>| records.push(record.to_owned_record());
            read_from(
                &connection,
                topic,
                (range.partition, from),
                count as usize,
                &mut collect,
            )
            .map_err(|error| self.failed(topic, error))?;
        }
        Ok(records)
    }

    fn scan(
        &self,
        topic: &str,
        from: &[(u32, i64)],
        wait: Duration,
        look: Look<'_>,
    ) -> Result<bool> {
        let deadline = Instant::now() + wait;
        let connection = connect(&self.file)?;
        for &(partition, offset) in from {
            let mut read = || -> rusqlite::Result<bool> {
                let mut statement = connection.prepare_cached(FROM)?;
                let mut rows = statement.query(params![topic, partition, offset, i64::MAX])?;
                while let Some(row) = rows.next()? {
                    let is_wanted = look(record_of(partition, row)?, &[]);
                    if !is_wanted || Instant::now() > deadline {
                        return Ok(false);
                    }
                }
                Ok(true)
            };
            if !read().map_err(|error| self.failed(topic, error))? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn offsets_at(&self, topic: &str, at_ms: i64) -> Result<Vec<(u32, i64)>> {
        let ranges = self.ranges(topic)?.into_iter();
        let connection = locked(&self.connection);
        let of = |range: PartitionRange| -> rusqlite::Result<(u32, i64)> {
            let first =
                connection.query_row(FIRST_AT, params![topic, range.partition, at_ms], |row| {
                    row.get::<_, Option<i64>>(0)
                })?;
            Ok((range.partition, first.unwrap_or(range.high)))
        };
        let found: rusqlite::Result<_> = ranges.map(of).collect();
        found.map_err(|error| self.failed(topic, error))
    }
}

/// A producer with its own connection; each append is one transaction.
struct SqliteProducer {
    connection: Connection,
    file: String,
    notifiers: Arc<Notifiers>,
    /// Number of records without a key so far; they go to the partitions in turn.
    keyless: u32,
}

impl Producer for SqliteProducer {
    fn append(&mut self, records: &[Record]) -> Result<()> {
        if records.is_empty() {
            return Ok(());
        }
        check_sizes(records)?;
        append_all(&mut self.connection, &mut self.keyless, records).map_err(
            |error| match error {
                AppendError::Refused(error) => error,
                AppendError::File(error) => failed(&self.file, "cannot append to the log", error),
            },
        )?;
        self.notifiers.notify();
        Ok(())
    }
}

/// Why an append failed. It is one transaction, so nothing was written.
enum AppendError {
    /// The topic or partition does not exist.
    Refused(Error),
    /// SQLite failed.
    File(rusqlite::Error),
}

impl From<rusqlite::Error> for AppendError {
    fn from(error: rusqlite::Error) -> Self {
        AppendError::File(error)
    }
}

/// Appends a batch in one transaction.
fn append_all(
    connection: &mut Connection,
    keyless: &mut u32,
    records: &[Record],
) -> std::result::Result<(), AppendError> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    {
        let mut next = transaction.prepare_cached(NEXT)?;
        let mut append = transaction.prepare_cached(APPEND)?;
        let mut topics: HashMap<&str, (u32, HashMap<u32, i64>)> = HashMap::new();
        for record in records {
            let topic = record.topic.as_str();
            if !topics.contains_key(topic) {
                let partitions = partitions_of(&transaction, topic)?
                    .ok_or_else(|| AppendError::Refused(no_such_topic(topic, Kind::Retry)))?;
                topics.insert(topic, (partitions, HashMap::new()));
            }
            let Some((partitions, offsets)) = topics.get_mut(topic) else {
                continue;
            };
            let partition = match (record.partition, &record.key) {
                (Some(partition), _) if partition < *partitions => partition,
                (Some(partition), _) => {
                    let what = format!("topic `{topic}`: partition {partition} of {partitions}");
                    return Err(AppendError::Refused(Error::new(Kind::Data, what)));
                }
                (None, Some(key)) => partition_of(key, *partitions),
                (None, None) => {
                    *keyless = keyless.wrapping_add(1);
                    *keyless % *partitions
                }
            };
            let offset = match offsets.get(&partition) {
                Some(offset) => *offset,
                None => next.query_row(params![topic, partition], |row| row.get(0))?,
            };
            let (key, value) = (record.key.as_deref(), record.value.as_deref());
            append.execute(params![
                topic,
                partition,
                offset,
                record.timestamp_ms,
                key,
                value
            ])?;
            offsets.insert(partition, offset + 1);
        }
    }
    transaction.commit()?;
    Ok(())
}

/// A reader with its own connection.
struct SqliteReader {
    connection: Connection,
    file: String,
    topic: String,
    /// The assigned partitions, and the next offset to read in each.
    next: Vec<(u32, i64)>,
    /// Index of the partition that the next poll reads first. It rotates, so that no partition
    /// starves.
    first: usize,
    /// Whether the assigned offsets were checked; once in range, they stay in range.
    checked: bool,
    /// Notified by appends.
    notifier: Arc<Notifier>,
    /// Keeps the file's list of readers alive: producers that are opened later find this reader in
    /// it.
    _notifiers: Arc<Notifiers>,
}

impl Reader for SqliteReader {
    fn poll(
        &mut self,
        max: usize,
        wait: Duration,
        each: &mut dyn FnMut(RecordRef<'_>),
    ) -> Result<usize> {
        if !self.checked {
            self.check()?;
        }
        let deadline = Instant::now() + wait;
        loop {
            // Taken before the read, so that an append between read and wait ends the wait.
            let notified = self.notifier.notified();
            let seen = self.data_version()?;
            let count = self.read(max, each)?;
            let now = Instant::now();
            if count > 0 || now >= deadline {
                return Ok(count);
            }
            self.wait_for_commit(notified, seen, deadline)?;
        }
    }

    /// False: only appends of this process are notified.
    fn on_arrival(&mut self, wake: Arc<dyn Fn() + Send + Sync>) -> bool {
        *locked(&self.notifier.wake) = Some(wake);
        false
    }
}

impl SqliteReader {
    /// Checks that the topic exists and the assigned offsets are in range.
    fn check(&mut self) -> Result<()> {
        let error = |error| failed(&self.file, &format!("topic `{}`", self.topic), error);
        let partitions = partitions_of(&self.connection, &self.topic)
            .map_err(error)?
            .ok_or_else(|| no_such_topic(&self.topic, Kind::Data))?;
        for &(partition, offset) in &self.next {
            let high: i64 = self
                .connection
                .query_row(NEXT, params![self.topic, partition], |row| row.get(0))
                .map_err(error)?;
            if partition >= partitions || offset < 0 || offset > high {
                let what = format!(
                    "topic `{}`: no offset {offset} in partition {partition}; the topic has \
                     {partitions} partitions and this one holds the offsets from 0 to {high}",
                    self.topic
                );
                return Err(Error::new(Kind::Data, what));
            }
        }
        self.checked = true;
        Ok(())
    }

    /// A number that changes when another connection commits (SQLite's `PRAGMA data_version`).
    fn data_version(&self) -> Result<i64> {
        self.connection
            .prepare_cached("PRAGMA data_version")
            .and_then(|mut pragma| pragma.query_row([], |row| row.get(0)))
            .map_err(|error| failed(&self.file, "cannot look for new commits", error))
    }

    /// Waits until something was committed since `notified` and `seen` were taken, or until the
    /// deadline.
    fn wait_for_commit(&self, notified: u64, seen: i64, deadline: Instant) -> Result<()> {
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let news = self.notifier.wait(notified, left.min(LOOK_EVERY));
            if news || left.is_zero() || self.data_version()? != seen {
                return Ok(());
            }
        }
    }

    /// Reads up to `max` records from all assigned partitions.
    fn read(&mut self, max: usize, each: &mut dyn FnMut(RecordRef<'_>)) -> Result<usize> {
        let mut count = 0;
        for at in 0..self.next.len() {
            let at = (self.first + at) % self.next.len();
            let Some(next) = self.next.get_mut(at).filter(|_| count < max) else {
                break;
            };
            let (read, offset) = read_from(&self.connection, &self.topic, *next, max - count, each)
                .map_err(|error| failed(&self.file, &format!("topic `{}`", self.topic), error))?;
            count += read;
            next.1 = offset;
        }
        self.first = self.first.wrapping_add(1);
        Ok(count)
    }
}

/// Reads up to `max` records of one partition from an offset on. Returns the number of records and
/// the next offset.
fn read_from(
    connection: &Connection,
    topic: &str,
    (partition, mut offset): (u32, i64),
    max: usize,
    each: &mut dyn FnMut(RecordRef<'_>),
) -> rusqlite::Result<(usize, i64)> {
    let mut statement = connection.prepare_cached(FROM)?;
    let limit = i64::try_from(max).unwrap_or(i64::MAX);
    let mut rows = statement.query(params![topic, partition, offset, limit])?;
    let mut count = 0;
    while let Some(row) = rows.next()? {
        let record = record_of(partition, row)?;
        offset = record.offset + 1;
        count += 1;
        each(record);
    }
    Ok((count, offset))
}

/// A row of [`FROM`] as a record.
fn record_of<'a>(partition: u32, row: &'a Row<'_>) -> rusqlite::Result<RecordRef<'a>> {
    Ok(RecordRef {
        partition,
        offset: row.get(0)?,
        timestamp_ms: row.get(1)?,
        key: row.get_ref(2)?.as_blob_or_null()?,
        value: row.get_ref(3)?.as_blob_or_null()?,
    })
}

/// The number of partitions of a topic; `None` when it does not exist.
fn partitions_of(connection: &Connection, topic: &str) -> rusqlite::Result<Option<u32>> {
    connection
        .prepare_cached("SELECT partitions FROM _tidemill_topics WHERE topic = ?1")?
        .query_row([topic], |row| row.get(0))
        .optional()
}

/// The error of a topic that does not exist.
fn no_such_topic(topic: &str, kind: Kind) -> Error {
    Error::new(
        kind,
        format!("topic `{topic}` is not there; its writer creates it"),
    )
}

/// The notification of one reader about appends.
#[derive(Default)]
struct Notifier {
    /// Number of notifications so far.
    count: Mutex<u64>,
    /// Wakes a reader that waits for `count` to change.
    changed: Condvar,
    /// The callback of [`Reader::on_arrival`].
    wake: Mutex<Option<Arc<dyn Fn() + Send + Sync>>>,
}

impl Notifier {
    /// Number of notifications so far.
    fn notified(&self) -> u64 {
        *locked(&self.count)
    }

    /// Notifies the reader.
    fn notify(&self) {
        *locked(&self.count) += 1;
        self.changed.notify_all();
        let wake = locked(&self.wake).clone();
        if let Some(wake) = wake {
            wake();
        }
    }

    /// Whether a notification came after `notified` was taken; waits at most `wait` for one.
    fn wait(&self, notified: u64, wait: Duration) -> bool {
        let (count, _) = self
            .changed
            .wait_timeout_while(locked(&self.count), wait, |count| *count == notified)
            .unwrap_or_else(PoisonError::into_inner);
        *count != notified
    }
}

/// The readers of one file in this process.
#[derive(Default)]
struct Notifiers(Mutex<Vec<Weak<Notifier>>>);

impl Notifiers {
    /// Notifies all readers, and removes those that were dropped.
    fn notify(&self) {
        let mut alive = Vec::new();
        locked(&self.0).retain(|notifier| match notifier.upgrade() {
            Some(notifier) => {
                alive.push(notifier);
                true
            }
            None => false,
        });
        // Notified outside of the lock: a callback may open or drop a reader.
        for notifier in alive {
            notifier.notify();
        }
    }
}

/// The list of a file's readers: one per file, however often and by whichever path it is opened.
fn notifiers_of(file: &str) -> Arc<Notifiers> {
    static FILES: Mutex<Option<HashMap<std::path::PathBuf, Weak<Notifiers>>>> = Mutex::new(None);
    let path = std::fs::canonicalize(file).unwrap_or_else(|_| file.into());
    let mut files = locked(&FILES);
    let files = files.get_or_insert_default();
    files.retain(|_, notifiers| notifiers.strong_count() > 0);
    if let Some(notifiers) = files.get(&path).and_then(Weak::upgrade) {
        return notifiers;
    }
    let notifiers = Arc::new(Notifiers::default());
    files.insert(path, Arc::downgrade(&notifiers));
    notifiers
}

/// Locks a mutex, also after a panic of another thread: the guarded values are consistent at every
/// moment.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
