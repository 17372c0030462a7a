//! The log on Kafka, through librdkafka.
//!
//! Topics are made and asked about here; [`producer`] writes and [`reader`] reads. No consumer
//! group is joined and no offset is kept in Kafka: the dataflow's journal owns them.

mod batch;
mod describe;
mod producer;
mod reader;
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

use super::{Described, Log, OwnedRecord, PartitionRange, Producer, Reader};
use crate::{Error, Kind, Result};
use settings::Settings;

pub use settings::refused;

/// How long one question to the brokers may take.
const ANSWER_WAIT: Duration = Duration::from_secs(10);
/// How often the brokers are asked whether a new topic has all its leaders.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// How often it is looked whether the brokers refused us, before they answered for the first time.
const REFUSED_EVERY: Duration = Duration::from_millis(250);
/// How many of librdkafka's words are taken at a time.
const WORDS_MAX: usize = 200;

/// The log on one Kafka cluster.
pub(super) struct KafkaLog {
    settings: Settings,
    /// For questions about topics; it is assigned nothing.
    client: BaseConsumer<Quiet>,
    /// The brokers answered, so that a refusal may pass: one of them starts, a password changes.
    reached: AtomicBool,
}

impl KafkaLog {
    pub(super) fn open(rest: &str) -> Result<Self> {
        let settings = Settings::parse(rest)?;
        let client = settings
            .client()
            .set("group.id", "tidemill")
            .create_with_context(Quiet::default())
            .map_err(|error| unusable(&settings, error))?;
        Ok(Self {
            settings,
            client,
            reached: AtomicBool::new(false),
        })
    }

    /// How many brokers and topics there are.
    pub(super) fn ask(&self, wait: Duration) -> Result<(usize, usize)> {
        let found = self.metadata(None, wait)?;
        Ok((found.brokers().len(), found.topics().len()))
    }

    fn error(&self, topic: &str, doing: &str, error: KafkaError) -> Error {
        let what = format!("kafka {}: topic `{topic}`: {doing}", self.settings);
        Error::with_source(kind_of(&error), what, error)
    }

    /// What the brokers say of a topic or of all. Who was never let in hears at once why.
    fn metadata(&self, topic: Option<&str>, wait: Duration) -> Result<Metadata> {
        let deadline = Instant::now() + wait;
        loop {
            let reached = self.reached.load(Relaxed);
            let slice = if reached { wait } else { REFUSED_EVERY };
            let error = match self.client.fetch_metadata(topic, slice) {
                Ok(found) => {
                    self.listen();
                    self.reached.store(true, Relaxed);
                    return Ok(found);
                }
                Err(error) => error,
            };
            self.listen();
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

    /// Takes what librdkafka has to say, which it keeps until it is asked.
    fn listen(&self) {
        for _ in 0..WORDS_MAX {
            // Errors reach the context on their way; there are no records.
            let _seen = self.client.poll(Duration::ZERO);
        }
    }

    /// Asks until the brokers have answered once.
    fn reach(&self, topic: &str) -> Result<()> {
        match self.reached.load(Relaxed) {
            true => Ok(()),
            false => self.metadata(Some(topic), ANSWER_WAIT).map(drop),
        }
    }

    /// The topic's partition numbers; an error of kind `Retry` unless all have a leader.
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
            .ok_or_else(|| not_ready("whoever writes it creates it"))?;
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

    /// The last `span` offsets' records of one partition.
    fn last(&self, topic: &str, range: PartitionRange, count: u32) -> Result<Vec<OwnedRecord>> {
        // Offsets may have holes (compaction), so the span grows until it holds enough records.
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

    /// The last `count` records with offsets from `from` to the partition's end, which is at
    /// `high` or later.
    fn between(
        &self,
        topic: &str,
        partition: u32,
        from: i64,
        high: i64,
        count: u32,
    ) -> Result<VecDeque<OwnedRecord>> {
        let consumer = reader::assigned(&self.settings, topic, &[(partition, from)], true)?;
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
        self.reach(topic)?;
        let admin: AdminClient<Quiet> = self
            .settings
            .client()
            .create_with_context(Quiet::default())
            .map_err(|error| unusable(&self.settings, error))?;
        // -1 is the brokers' own default.
        let replicas = TopicReplication::Fixed(self.settings.replication.unwrap_or(-1));
        let least = self.settings.min_insync.map(|least| least.to_string());
        // Views are made anew from all of a topic after a crash, so nothing may expire.
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
        // The brokers know it a moment later, and its leaders a moment after that.
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
        self.reach(topic)?;
        let doing = "cannot delete it";
        let admin: AdminClient<Quiet> = self
            .settings
            .client()
            .create_with_context(Quiet::default())
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
        // All brokers know it a moment later.
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
        self.reach(topic)?;
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
                records.extend(self.last(topic, range, count)?);
            }
        }
        Ok(records)
    }
}

fn unusable(settings: &Settings, error: KafkaError) -> Error {
    let what = format!("kafka {settings}: cannot make a client: {error}");
    Error::with_source(Kind::Data, what, error)
}

/// Trouble of the network and of brokers passes; what the request itself got wrong does not.
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

/// Passes librdkafka's own words on at levels that suit us: what matters comes back as errors, but
/// why a broker does not let us in is said here alone.
#[derive(Default)]
struct Quiet {
    refusal: Mutex<Option<String>>,
}

impl Quiet {
    /// Why a broker did not let us in, last.
    fn refusal(&self) -> Option<String> {
        let refusal = self.refusal.lock();
        refusal.unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn note(&self, said: &str) {
        // `[thread]: broker: SASL authentication error: … (after 5ms in state AUTH_REQ)`
        let at = REFUSALS.iter().find_map(|part| said.find(part));
        if let Some(why) = at.and_then(|at| said.get(at..)) {
            let why = why.split(" (after ").next().unwrap_or(why);
            let mut refusal = self.refusal.lock().unwrap_or_else(PoisonError::into_inner);
            *refusal = Some(why.to_owned());
        }
    }
}

/// How librdkafka begins to say that a broker does not let us in, or we do not trust it.
const REFUSALS: [&str; 3] = [
    "SASL authentication error",
    "SSL handshake failed",
    "SASL handshake failed",
];

impl ClientContext for Quiet {
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

impl ConsumerContext for Quiet {}
