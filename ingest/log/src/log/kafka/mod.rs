//! The log on Kafka, by librdkafka: topics, offsets and errors; [`producer`] writes, [`reader`]
//! reads.
//!
//! No consumer group is joined and no offset is committed to Kafka: the dataflow keeps offsets in
//! its journal. Topics are created with `retention.ms = -1`, since views are rebuilt from whole
//! topics.

mod batch;
mod describe;
mod producer;
mod reader;
mod scan;
mod settings;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::metadata::Metadata;
use rdkafka::{ClientContext, Message};
use settings::Settings;

use super::{Described, Log, Look, OwnedRecord, PartitionRange, Producer, Reader};
use crate::{Error, Kind, Result};

pub use settings::refused;

/// Timeout of a request to the brokers.
const ANSWER_WAIT: Duration = Duration::from_secs(10);
/// Interval between two looks whether the partitions of a new topic have leaders.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Before the brokers have answered for the first time: interval between two looks whether they
/// refused the connection.
const REFUSED_EVERY: Duration = Duration::from_millis(250);
/// Largest number of librdkafka's events (errors, log lines) that are processed at a time.
const WORDS_MAX: usize = 200;

/// The log on one Kafka cluster.
pub(super) struct KafkaLog {
    /// Brokers and client settings.
    settings: Settings,
    /// For questions about topics; no partition is assigned to it.
    client: BaseConsumer<ClientLog>,
    /// Whether the brokers have answered. From then on a refusal is retried: a broker may be
    /// starting, or a password may be about to change.
    reached: AtomicBool,
}

impl KafkaLog {
    /// Creates a client. `rest` is the URL without its scheme.
    pub(super) fn open(rest: &str) -> Result<Self> {
        let settings = Settings::parse(rest)?;
        let client = settings
            .client()
            .set("group.id", "tidemill")
            .create_with_context(ClientLog::default())
            .map_err(|error| unusable(&settings, error))?;
        Ok(Self {
            settings,
            client,
            reached: AtomicBool::new(false),
        })
    }

    /// The number of brokers and topics.
    pub(super) fn ask(&self, wait: Duration) -> Result<(usize, usize)> {
        let found = self.metadata(None, wait)?;
        Ok((found.brokers().len(), found.topics().len()))
    }

    /// An error of an operation on a topic.
    fn error(&self, topic: &str, doing: &str, error: KafkaError) -> Error {
        let what = format!("kafka {}: topic `{topic}`: {doing}", self.settings);
        Error::with_source(kind_of(&error), what, error)
    }

    /// Metadata of one topic, or of all. Before the first answer, a refusal (credentials, TLS) is
    /// an error of kind `Data` as soon as librdkafka reports it, and a broker that does not answer
    /// is retried until `wait` is over.
    fn metadata(&self, topic: Option<&str>, wait: Duration) -> Result<Metadata> {
        let deadline = Instant::now() + wait;
        loop {
            let reached = self.reached.load(Relaxed);
            let slice = if reached { wait } else { REFUSED_EVERY };
            let error = match self.client.fetch_metadata(topic, slice) {
                Ok(found) => {
                    self.drain_events();
                    self.reached.store(true, Relaxed);
                    return Ok(found);
                }
                Err(error) => error,
            };
            self.drain_events();
            let refusal = self.client.context().refusal();
            let mut kind = kind_of(&error);
            if !reached && refusal.is_some() {
                kind = Kind::Data;
            } else if !reached && kind == Kind::Retry && Instant::now() < deadline {
                std::thread::sleep(LOOK_EVERY);
                continue;
            }
            let why = refusal.unwrap_or_else(|| format!("cannot ask about it: {error}"));
            let about = topic.map_or_else(String::new, |topic| format!("topic `{topic}`: "));
            let what = format!("kafka {}: {about}{why}", self.settings);
            return Err(Error::with_source(kind, what, error).refused_if(kind == Kind::Data));
        }
    }

    /// Processes librdkafka's events, which it keeps until they are polled.
    fn drain_events(&self) {
        for _ in 0..WORDS_MAX {
            // Errors go to the context; there are no records.
            let _seen = self.client.poll(Duration::ZERO);
        }
    }

    /// Asks for metadata until the brokers have answered once.
    fn ensure_reached(&self, topic: &str) -> Result<()> {
        match self.reached.load(Relaxed) {
            true => Ok(()),
            false => self.metadata(Some(topic), ANSWER_WAIT).map(drop),
        }
    }

    /// The partition numbers of a topic; an error of kind `Retry` unless all have a leader.
    fn partitions(&self, topic: &str) -> Result<Vec<i32>> {
        let metadata = self.metadata(Some(topic), ANSWER_WAIT)?;
        let not_ready = |why: &str| {
            let what = format!(
                "kafka {}: topic `{topic}` is not there yet: {why}",
                self.settings
            );
            Error::new(Kind::Retry, what)
        };
        let topic = metadata
            .topics()
            .iter()
            .find(|it| it.name() == topic)
            .ok_or_else(|| not_ready("its writer creates it"))?;
        if let Some(error) = topic.error() {
            return Err(not_ready(&RDKafkaErrorCode::from(error).to_string()));
        }
        let mut partitions: Vec<i32> = topic.partitions().iter().map(|it| it.id()).collect();
        if partitions.is_empty() || topic.partitions().iter().any(|it| it.leader() < 0) {
            return Err(not_ready("a partition has no leader"));
        }
        partitions.sort_unstable();
        Ok(partitions)
    }

    /// The last `count` records of one partition.
    fn last_records(
        &self,
        topic: &str,
        range: PartitionRange,
        count: u32,
    ) -> Result<Vec<OwnedRecord>> {
        // Offsets may have holes (compaction, transaction markers), so the range grows until it
        // holds enough records.
        let mut span = i64::from(count);
        loop {
            let from = range.high.saturating_sub(span).max(range.low);
            let records = self.between(topic, range.partition, from, range.high, count)?;
            if records.len() == count as usize || from == range.low {
                return Ok(records.into());
            }
            span = span.saturating_mul(8);
        }
    }

    /// The last `count` records with offsets from `from` to the end of the partition, which is at
    /// `high` or later.
    fn between(
        &self,
        topic: &str,
        partition: u32,
        from: i64,
        high: i64,
        count: u32,
    ) -> Result<VecDeque<OwnedRecord>> {
        let consumer =
            reader::assigned_consumer(&self.settings, topic, &[(partition, from)], true)?;
        let deadline = Instant::now() + ANSWER_WAIT;
        let mut records = VecDeque::new();
        loop {
            match consumer.poll(LOOK_EVERY) {
                Some(Ok(message)) if message.offset() < high => {
                    if records.len() == count as usize {
                        records.pop_front();
                    }
                    records.push_back(reader::borrowed(&message).to_owned_record());
                    if message.offset() + 1 == high {
                        return Ok(records);
                    }
                }
                Some(Ok(_) | Err(KafkaError::PartitionEOF(_))) => return Ok(records),
                Some(Err(error)) if kind_of(&error) == Kind::Data => {
                    return Err(self.error(topic, "cannot read its end", error));
                }
                _ if Instant::now() > deadline => {
                    let what = format!(
                        "kafka {}: topic `{topic}`: partition {partition} did not answer in {} s",
                        self.settings,
                        ANSWER_WAIT.as_secs()
                    );
                    return Err(Error::new(Kind::Retry, what));
                }
                _ => {}
            }
        }
    }
}

impl Log for KafkaLog {
    fn create_topic(&self, topic: &str, partitions: u32) -> Result<()> {
        let count = i32::try_from(partitions)
            .ok()
            .filter(|count| *count > 0)
            .ok_or_else(|| {
                let what = format!("topic `{topic}`: {partitions} partitions, it needs at least 1");
                Error::new(Kind::Data, what)
            })?;
        self.ensure_reached(topic)?;
        let admin: AdminClient<ClientLog> = self
            .settings
            .client()
            .create_with_context(ClientLog::default())
            .map_err(|error| unusable(&self.settings, error))?;
        // With -1 the brokers use their own default.
        let replicas = TopicReplication::Fixed(self.settings.replication.unwrap_or(-1));
        let least = self.settings.min_insync.map(|least| least.to_string());
        // Views may be rebuilt from the whole topic, so no record may expire.
        let mut new = NewTopic::new(topic, count, replicas).set("retention.ms", "-1");
        if let Some(least) = &least {
            new = new.set("min.insync.replicas", least);
        }
        let options = AdminOptions::new().operation_timeout(Some(ANSWER_WAIT));
        let results = futures_executor::block_on(admin.create_topics([&new], &options))
            .map_err(|error| self.error(topic, "cannot create it", error))?;
        for result in results {
            match result {
                Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
                Err((_, code)) => {
                    let error = KafkaError::AdminOp(code);
                    return Err(self.error(topic, "cannot create it", error));
                }
            }
        }
        // A new topic is known to all brokers a moment later, and its leaders are elected after
        // that.
        let deadline = Instant::now() + ANSWER_WAIT;
        loop {
            match self.ranges(topic) {
                Ok(_) => return Ok(()),
                Err(error) if Instant::now() > deadline => return Err(error),
                Err(_) => std::thread::sleep(LOOK_EVERY),
            }
        }
    }

    fn delete_topic(&self, topic: &str) -> Result<bool> {
        self.ensure_reached(topic)?;
        let doing = "cannot delete it";
        let admin: AdminClient<ClientLog> = self
            .settings
            .client()
            .create_with_context(ClientLog::default())
            .map_err(|error| unusable(&self.settings, error))?;
        let options = AdminOptions::new().operation_timeout(Some(ANSWER_WAIT));
        let results = futures_executor::block_on(admin.delete_topics(&[topic], &options))
            .map_err(|error| self.error(topic, doing, error))?;
        for result in results {
            match result {
                Ok(_) => {}
                Err((_, RDKafkaErrorCode::UnknownTopicOrPartition)) => return Ok(false),
                Err((_, code)) => {
                    return Err(self.error(topic, doing, KafkaError::AdminOp(code)));
                }
            }
        }
        // All brokers know of the deletion a moment later.
        let deadline = Instant::now() + ANSWER_WAIT;
        while self.describe(topic)?.is_some() {
            if Instant::now() > deadline {
                let what = format!(
                    "kafka {}: topic `{topic}` is still there {} s after it was deleted",
                    self.settings,
                    ANSWER_WAIT.as_secs()
                );
                return Err(Error::new(Kind::Retry, what));
            }
            std::thread::sleep(LOOK_EVERY);
        }
        Ok(true)
    }

    fn ranges(&self, topic: &str) -> Result<Vec<PartitionRange>> {
        let range = |id: i32| {
            let (low, high) = self
                .client
                .fetch_watermarks(topic, id, ANSWER_WAIT)
                .map_err(|error| self.error(topic, "cannot ask for its offsets", error))?;
            Ok(PartitionRange {
                partition: id.unsigned_abs(),
                low,
                high,
            })
        };
        self.partitions(topic)?.into_iter().map(range).collect()
    }

    fn describe(&self, topic: &str) -> Result<Option<Described>> {
        self.ensure_reached(topic)?;
        describe::describe(&self.client, topic, ANSWER_WAIT)
            .map_err(|error| self.error(topic, "cannot ask about it", error))
    }

    fn producer(&self) -> Result<Box<dyn Producer>> {
        Ok(Box::new(producer::KafkaProducer::open(&self.settings)?))
    }

    fn reader(&self, topic: &str, from: &[(u32, i64)]) -> Result<Box<dyn Reader>> {
        Ok(Box::new(reader::KafkaReader::open(
            &self.settings,
            topic,
            from,
        )?))
    }

    fn probe(&self, topic: &str, wait: Duration) -> Result<()> {
        self.metadata(Some(topic), wait).map(drop)
    }

    fn tail(&self, topic: &str, count: u32) -> Result<Vec<OwnedRecord>> {
        let mut records = Vec::new();
        for range in self.ranges(topic)? {
            if range.low < range.high && count > 0 {
                records.extend(self.last_records(topic, range, count)?);
            }
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
        scan::scan(self, topic, from, wait, look)
    }

    fn offsets_at(&self, topic: &str, at_ms: i64) -> Result<Vec<(u32, i64)>> {
        scan::offsets_at(self, topic, at_ms)
    }
}

/// The error of a client that cannot be created.
fn unusable(settings: &Settings, error: KafkaError) -> Error {
    let what = format!("kafka {settings}: cannot make a client: {error}");
    Error::with_source(Kind::Data, what, error)
}

/// Errors of the network and of brokers pass; errors of the request itself do not.
fn kind_of(error: &KafkaError) -> Kind {
    use RDKafkaErrorCode::*;
    match error.rdkafka_error_code() {
        Some(
            OffsetOutOfRange
            | AutoOffsetReset
            | UnknownTopic
            | UnknownPartition
            | UnknownTopicOrPartition
            | InvalidTopic
            | InvalidPartitions
            | InvalidReplicationFactor
            | InvalidConfig
            | PolicyViolation
            | TopicAuthorizationFailed
            | ClusterAuthorizationFailed
            | MessageSizeTooLarge,
        ) => Kind::Data,
        _ => Kind::Retry,
    }
}

/// Receives librdkafka's log lines and errors. Most are logged at level debug, because what matters
/// is returned as an error. Only here librdkafka says why a broker refused a connection.
#[derive(Default)]
struct ClientLog {
    /// The last reason for a refusal.
    refusal: Mutex<Option<String>>,
}

impl ClientLog {
    /// Why a broker last refused the connection.
    fn refusal(&self) -> Option<String> {
        let refusal = self.refusal.lock();
        refusal.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Keeps the reason if the line is about a refusal.
    fn note(&self, said: &str) {
        // The line is `[thread]: broker: SASL authentication error: … (after 5ms in state
        // AUTH_REQ)`.
        let at = REFUSALS.iter().find_map(|part| said.find(part));
        if let Some(why) = at.and_then(|at| said.get(at..)) {
            let why = why.split(" (after ").next().unwrap_or(why);
            let mut refusal = self.refusal.lock().unwrap_or_else(PoisonError::into_inner);
            *refusal = Some(why.to_owned());
        }
    }
}

/// How librdkafka begins the reason when a broker refuses the connection, or is not trusted.
const REFUSALS: [&str; 3] = [
    "SASL authentication error",
    "SSL handshake failed",
    "SASL handshake failed",
];

impl ClientContext for ClientLog {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.note(message);
        match level {
            RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical => {
                tracing::error!(facility, message, "librdkafka");
            }
            _ => tracing::debug!(facility, message, "librdkafka"),
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.note(reason);
        tracing::debug!(%error, reason, "librdkafka");
    }
}

impl ConsumerContext for ClientLog {}
