//! The log: replayable topics of records in partitions, on Kafka or in a SQLite file.
//!
//! Engines: Kafka (`kafka://host:port[,host:port]`) and SQLite (`sqlite://FILE`, tables in the
//! embedded file). Both pass `tests/log_conformance.rs`.
//!
//! Contract of every engine:
//! 1. Within a partition offsets grow, in the order of the appends. (They may have holes.)
//! 2. A record is durable when [`Producer::append`] has returned `Ok` for it.
//! 3. A reader never skips a durable record.
//!
//! Partitions and offsets are as in Kafka. There are no consumer groups: who reads keeps its
//! offsets itself.

pub mod dead_letter;
mod kafka;
mod partition;
mod sqlite;

use std::sync::Arc;
use std::time::Duration;

use crate::{Error, Kind, Result};

pub use kafka::refused as kafka_setting_refused;
pub use partition::{RECORD_BYTES_MAX, partition_of};

/// A record to append.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The topic.
    pub topic: String,
    /// The partition. With `None` the key chooses it as in Kafka's Java client ([`partition_of`]);
    /// records without a key go to the partitions in turn (SQLite) or at random (Kafka).
    pub partition: Option<u32>,
    /// The key.
    pub key: Option<Vec<u8>>,
    /// The value; `None` is a tombstone.
    pub value: Option<Vec<u8>>,
    /// Milliseconds since 1970-01-01 UTC; for captured changes the commit time in the source.
    pub timestamp_ms: i64,
}

/// A record as a reader delivers it, borrowed from the buffer of the engine.
#[derive(Debug, Clone, Copy)]
pub struct RecordRef<'a> {
    /// The partition.
    pub partition: u32,
    /// The offset in the partition.
    pub offset: i64,
    /// Milliseconds since 1970-01-01 UTC.
    pub timestamp_ms: i64,
    /// The key.
    pub key: Option<&'a [u8]>,
    /// The value; `None` is a tombstone.
    pub value: Option<&'a [u8]>,
}

impl RecordRef<'_> {
    /// Copies the record out of the engine's buffer.
    pub fn to_owned_record(&self) -> OwnedRecord {
        OwnedRecord {
            partition: self.partition,
            offset: self.offset,
            timestamp_ms: self.timestamp_ms,
            key: self.key.map(<[u8]>::to_vec),
            value: self.value.map(<[u8]>::to_vec),
        }
    }
}

/// A record that was copied out of the engine's buffer; the fields are those of [`RecordRef`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnedRecord {
    /// The partition.
    pub partition: u32,
    /// The offset in the partition.
    pub offset: i64,
    /// Milliseconds since 1970-01-01 UTC.
    pub timestamp_ms: i64,
    /// The key.
    pub key: Option<Vec<u8>>,
    /// The value; `None` is a tombstone.
    pub value: Option<Vec<u8>>,
}

/// The offsets that a partition holds: from `low` to below `high`. Empty when both are equal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartitionRange {
    /// The partition.
    pub partition: u32,
    /// The first offset that retention has not removed.
    pub low: i64,
    /// The offset of the next record to be appended (Kafka's high watermark).
    pub high: i64,
}

/// The id of a topic, as two halves of a UUID (KIP-516). A topic that was deleted and created again
/// under the same name has another id. Zero where the engine has no ids: brokers before 2.8 and the
/// embedded log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TopicId(pub [i64; 2]);

impl TopicId {
    /// Whether the engine gave an id.
    pub fn is_known(self) -> bool {
        self != Self::default()
    }
}

/// The description of a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Described {
    /// The id of the topic.
    pub id: TopicId,
    /// The number of partitions.
    pub partitions: u32,
}

/// Appends records. A producer belongs to one thread.
pub trait Producer: Send {
    /// Appends the records in order and returns when all are durable. A failed append may have
    /// written some of them; read the [tail](Log::tail) of the topic before another attempt.
    ///
    /// # Errors
    /// `Data` for a record that is larger than the log accepts, which the error names. A batch with
    /// a record above [`RECORD_BYTES_MAX`] is refused as a whole. `Retry` when the log cannot be
    /// reached or the topic does not exist.
    fn append(&mut self, records: &[Record]) -> Result<()>;
}

/// Reads assigned partitions of one topic. A reader belongs to one thread.
pub trait Reader: Send {
    /// Calls `each` with up to `max` records, in the order of offsets within each partition, and
    /// returns how many there were. Waits at most `wait` for the first one.
    ///
    /// An unreachable broker is retried inside and looks like a topic without new records.
    ///
    /// # Errors
    /// `Data` when an assigned offset is out of range or the topic was deleted; the reader is of no
    /// use then. SQLite: `Retry` when the file is locked.
    fn poll(
        &mut self,
        max: usize,
        wait: Duration,
        each: &mut dyn FnMut(RecordRef<'_>),
    ) -> Result<usize>;

    /// Registers a callback for the arrival of records at a reader that had none. The callback is
    /// called from any thread, and sometimes without records. False when records may arrive without
    /// a call, as from another process: then the caller must poll at intervals too.
    fn on_arrival(&mut self, wake: Arc<dyn Fn() + Send + Sync>) -> bool;
}

/// A header of a record: its name, and its value, which may be null.
pub type Header = (String, Option<Vec<u8>>);

/// Takes one record of a [scan](Log::scan) with its headers; false ends the scan.
pub type Look<'a> = &'a mut dyn FnMut(RecordRef<'_>, &[Header]) -> bool;

/// A log with its topics.
pub trait Log: Send + Sync {
    /// Creates a topic with this number of partitions. An existing topic stays as it is, also with
    /// another number of partitions. The topic can be used when this returns.
    ///
    /// # Errors
    /// `Data` for 0 partitions or when the log refuses; `Retry` when it cannot be reached.
    fn create_topic(&self, topic: &str, partitions: u32) -> Result<()>;
    /// Deletes a topic with all its records; false when it does not exist. The topic is gone when
    /// this returns.
    ///
    /// # Errors
    /// `Retry` when the log cannot be reached or the topic still exists after 10 s, `Data` when the
    /// log refuses.
    fn delete_topic(&self, topic: &str) -> Result<bool>;
    /// The partitions of a topic with the offsets that they hold, by partition number.
    ///
    /// # Errors
    /// `Retry` when the topic does not exist (yet), a partition has no leader, or the log cannot be
    /// reached.
    fn ranges(&self, topic: &str) -> Result<Vec<PartitionRange>>;
    /// The description of a topic; `None` when it does not exist. Quicker than [`Log::ranges`].
    ///
    /// # Errors
    /// `Retry` when the log cannot be reached, `Data` when it refuses access.
    fn describe(&self, topic: &str) -> Result<Option<Described>>;
    /// A new producer, idempotent where the engine supports it.
    ///
    /// # Errors
    /// `Data` when no client can be created with the settings of the URL.
    fn producer(&self) -> Result<Box<dyn Producer>>;
    /// A new reader of the given partitions, each from the given offset on.
    ///
    /// # Errors
    /// `Data` when a partition or offset cannot be assigned. Offsets out of range are an error of
    /// the first [`Reader::poll`].
    fn reader(&self, topic: &str, from: &[(u32, i64)]) -> Result<Box<dyn Reader>>;
    /// Checks within `wait` whether the log answers, by a question about `topic`, which need not
    /// exist. An embedded log always answers.
    ///
    /// # Errors
    /// `Retry` when the log does not answer, `Data` when it refuses the credentials.
    fn probe(&self, topic: &str, wait: Duration) -> Result<()> {
        let _an_embedded_log_is_there = (topic, wait);
        Ok(())
    }
    /// The last `count` records of each partition, or fewer when it holds fewer, in the order of
    /// offsets.
    ///
    /// # Errors
    /// Those of [`Log::ranges`] and of reading.
    fn tail(&self, topic: &str, count: u32) -> Result<Vec<OwnedRecord>>;
    /// For people who look into a topic: calls `look` with the records of the given partitions,
    /// each from the given offset on, until `look` returns false, all partitions were read to
    /// their ends, or `wait` is over. Returns whether all were read to their ends. No group is
    /// joined and no offset is committed.
    ///
    /// # Errors
    /// Those of [`Log::reader`] and [`Reader::poll`].
    fn scan(
        &self,
        topic: &str,
        from: &[(u32, i64)],
        wait: Duration,
        look: Look<'_>,
    ) -> Result<bool>;
    /// Of each partition the first offset whose record has this time (ms since 1970) or a later
    /// one; the end of the partition when there is none.
    ///
    /// # Errors
    /// Those of [`Log::ranges`].
    fn offsets_at(&self, topic: &str, at_ms: i64) -> Result<Vec<(u32, i64)>>;
}

/// Opens the log that `url` names: `kafka://host:port[,host:port][?setting=value&…]` with
/// librdkafka's settings, or `sqlite://FILE`. Kafka is not contacted before the first call.
///
/// ```
/// use std::time::Duration;
/// use tidemill_log::log::{self, Record};
///
/// # fn main() -> tidemill_log::Result<()> {
/// let folder = tempfile::tempdir().expect("a folder");
/// let log = log::open(&format!("sqlite://{}", folder.path().join("log.db").display()))?;
/// log.create_topic("users", 1)?;
/// let record = Record {
///     topic: "users".into(),
///     partition: None,
///     key: Some(b"7".to_vec()),
///     value: Some(b"Ada".to_vec()),
///     timestamp_ms: 0,
/// };
/// log.producer()?.append(&[record])?;
///
/// let mut reader = log.reader("users", &[(0, 0)])?;
/// let mut names = Vec::new();
/// reader.poll(100, Duration::from_secs(1), &mut |record| {
///     names.push((record.offset, record.value.map(<[u8]>::to_vec)));
/// })?;
/// assert_eq!(names, [(0, Some(b"Ada".to_vec()))]);
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// `Data` for another scheme, or settings that are refused or contradict each other; SQLite: those
/// of [`crate::sqlite::connect`].
pub fn open(url: &str) -> Result<Arc<dyn Log>> {
    if let Some(brokers) = url.strip_prefix("kafka://") {
        Ok(Arc::new(kafka::KafkaLog::open(brokers)?))
    } else if let Some(file) = url.strip_prefix("sqlite://") {
        Ok(Arc::new(sqlite::SqliteLog::open(file)?))
    } else {
        let what = format!(
            "`{url}` is not the URL of a log: give kafka://HOST:PORT[,HOST:PORT] or sqlite://FILE"
        );
        Err(Error::new(Kind::Data, what))
    }
}

/// The number of brokers and of topics of a Kafka cluster, which must answer within `wait`.
///
/// # Errors
/// Those of [`open`]; `Retry` when no broker answers, `Data` when the brokers refuse the
/// credentials.
pub fn ask_kafka(url: &str, wait: Duration) -> Result<(usize, usize)> {
    let rest = url.strip_prefix("kafka://").unwrap_or(url);
    kafka::KafkaLog::open(rest)?.ask(wait)
}
