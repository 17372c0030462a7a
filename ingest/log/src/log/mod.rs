//! The replayable, partitioned log.
//!
//! Engines: Kafka (`kafka://host:port[,host:port]`) and SQLite (`sqlite://FILE`, tables
//! in the embedded file). Both pass `tests/log_conformance.rs`.
//!
//! Contract: within a partition offsets increase and order is the order of appends; a record that
//! [`Producer::append`] returned `Ok` for is durable; readers never skip a durable record.

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
    /// The partition, or none to choose it by key as Kafka's Java client does (murmur2).
    pub partition: Option<u32>,
    /// The key's bytes.
    pub key: Option<Vec<u8>>,
    /// The value's bytes.
    pub value: Option<Vec<u8>>,
    /// Milliseconds since the epoch; for captured changes the source's commit time.
    pub timestamp_ms: i64,
}

/// A record as a reader sees it, borrowed from the log's own buffer.
#[derive(Debug, Clone, Copy)]
pub struct RecordRef<'a> {
    /// The partition.
    pub partition: u32,
    /// Its offset in the partition.
    pub offset: i64,
    /// Milliseconds since the epoch.
    pub timestamp_ms: i64,
    /// The key's bytes.
    pub key: Option<&'a [u8]>,
    /// The value's bytes.
    pub value: Option<&'a [u8]>,
}

impl RecordRef<'_> {
    /// Copies the record out of the log's buffer.
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

/// A record copied out of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnedRecord {
    /// The partition.
    pub partition: u32,
    /// Its offset in the partition.
    pub offset: i64,
    /// Milliseconds since the epoch.
    pub timestamp_ms: i64,
    /// The key's bytes.
    pub key: Option<Vec<u8>>,
    /// The value's bytes.
    pub value: Option<Vec<u8>>,
}

/// The offsets a partition holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartitionRange {
    /// The partition.
    pub partition: u32,
    /// The first offset still held.
    pub low: i64,
    /// One past the last offset (the next record's).
    pub high: i64,
}

/// What tells a topic from another one that was made anew under the same name. All zero where the
/// engine does not tell (brokers before 2.8; the embedded log).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TopicId(pub [i64; 2]);

impl TopicId {
    /// Whether the engine told it.
    pub fn is_known(self) -> bool {
        self != Self::default()
    }
}

/// A topic as the engine describes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Described {
    /// Which one of those that had its name.
    pub id: TopicId,
    /// How many partitions it has.
    pub partitions: u32,
}

/// Writes records. One producer belongs to one thread.
pub trait Producer: Send {
    /// Appends the records in order and returns when all are durable. An error of kind `Data`
    /// (such as a record larger than the log takes) names the record.
    fn append(&mut self, records: &[Record]) -> Result<()>;
}

/// Reads assigned partitions of one topic. One reader belongs to one thread.
pub trait Reader: Send {
    /// Hands up to `max` records to `each`, in offset order within each partition; waits at most
    /// `wait` for the first one. Returns how many there were. Transient trouble (a broker away)
    /// is retried inside and shows as 0 records; an error of kind `Data` (offset out of range,
    /// topic gone) is final.
    fn poll(
        &mut self,
        max: usize,
        wait: Duration,
        each: &mut dyn FnMut(RecordRef<'_>),
    ) -> Result<usize>;

    /// Registers a callback that is called, from any thread, when records arrive at a reader that
    /// had none. Spurious calls are allowed. False when an arrival may go by without a call, as
    /// where another process writes: then the caller polls by time.
    fn on_arrival(&mut self, wake: Arc<dyn Fn() + Send + Sync>) -> bool;
}

/// A log.
pub trait Log: Send + Sync {
    /// Creates the topic if it is not there; an existing one is left as it is.
    fn create_topic(&self, topic: &str, partitions: u32) -> Result<()>;
    /// Deletes a topic with all that it holds; false when there is no such topic. It is gone when
    /// this returns.
    ///
    /// # Errors
    /// `Retry` when the log is away or the topic is still there after a while, `Data` when it
    /// refuses.
    fn delete_topic(&self, topic: &str) -> Result<bool>;
    /// The partitions of a topic with the offsets they hold, by partition number; an error of
    /// kind `Retry` when the topic is not there (yet).
    fn ranges(&self, topic: &str) -> Result<Vec<PartitionRange>>;
    /// The topic as it is now, quicker than [`Log::ranges`]; none when there is no such topic.
    fn describe(&self, topic: &str) -> Result<Option<Described>>;
    /// A new producer (idempotent where the engine has that).
    fn producer(&self) -> Result<Box<dyn Producer>>;
    /// A new reader of the given partitions, each from the given offset.
    fn reader(&self, topic: &str, from: &[(u32, i64)]) -> Result<Box<dyn Reader>>;
    /// Asks whether the log answers, within `wait`, by a question about `topic`, which need not be
    /// there.
    fn probe(&self, topic: &str, wait: Duration) -> Result<()> {
        let _an_embedded_log_is_there = (topic, wait);
        Ok(())
    }
    /// Up to `count` last records of each partition, in offset order.
    fn tail(&self, topic: &str, count: u32) -> Result<Vec<OwnedRecord>>;
}

/// Opens the log that `url` names: `kafka://host:port[,host:port][?setting=value&…]`, the settings
/// by librdkafka's names, or `sqlite://FILE`.
pub fn open(url: &str) -> Result<Arc<dyn Log>> {
    if let Some(brokers) = url.strip_prefix("kafka://") {
        Ok(Arc::new(kafka::KafkaLog::open(brokers)?))
    } else if let Some(file) = url.strip_prefix("sqlite://") {
        Ok(Arc::new(sqlite::SqliteLog::open(file)?))
    } else {
        let what =
            format!("`{url}` is no log: give kafka://HOST:PORT[,HOST:PORT] or sqlite://FILE");
        Err(Error::new(Kind::Data, what))
    }
}

/// Asks Kafka's brokers, within `wait`, how many they are and how many topics they have.
pub fn ask_kafka(url: &str, wait: Duration) -> Result<(usize, usize)> {
    let rest = url.strip_prefix("kafka://").unwrap_or(url);
    kafka::KafkaLog::open(rest)?.ask(wait)
}
