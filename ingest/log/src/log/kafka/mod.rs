//! The log on Kafka, through librdkafka.
//!
//! Topics are made and asked about here; [`producer`] writes and [`reader`] reads. No consumer
//! group is joined and no offset is kept in Kafka: the dataflow's journal owns them.

mod batch;
mod describe;
mod producer;
mod reader;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::{ClientConfig, ClientContext, Message};

use super::{Described, Log, OwnedRecord, PartitionRange, Producer, Reader};
use crate::{Error, Kind, Result};

/// How long one question to the brokers may take.
const ANSWER_WAIT: Duration = Duration::from_secs(10);
/// How often the brokers are asked whether a new topic has all its leaders.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// The log on one Kafka cluster.
pub(super) struct KafkaLog {
    brokers: String,
    /// For questions about topics; it is assigned nothing.
    client: BaseConsumer<Quiet>,
}

impl KafkaLog {
    pub(super) fn open(brokers: &str) -> Result<Self> {
        if brokers.is_empty() {
            let what = "`kafka://` names no broker: give kafka://HOST:PORT[,HOST:PORT]";
            return Err(Error::new(Kind::Data, what));
        }
        let client = common(brokers)
            .set("group.id", "tidemill")
            .create_with_context(Quiet)
            .map_err(|error| unusable(brokers, error))?;
        Ok(Self {
            brokers: brokers.to_owned(),
            client,
        })
    }

    fn error(&self, topic: &str, doing: &str, error: KafkaError) -> Error {
        let what = format!("kafka {}: topic `{topic}`: {doing}", self.brokers);
        Error::with_source(kind_of(&error), what, error)
    }

    /// The topic's partition numbers; an error of kind `Retry` unless all have a leader.
    fn partitions(&self, topic: &str) -> Result<Vec<i32>> {
        let metadata = self
            .client
            .fetch_metadata(Some(topic), ANSWER_WAIT)
            .map_err(|error| self.error(topic, "cannot ask about it", error))?;
        let not_ready = |why: &str| {
            let what = format!(
                "kafka {}: topic `{topic}` is not there yet: {why}",
                self.brokers
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
        let consumer = reader::assigned(&self.brokers, topic, &[(partition, from)], true)?;
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
                        self.brokers,
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
        let admin: AdminClient<Quiet> = common(&self.brokers)
            .create_with_context(Quiet)
            .map_err(|error| unusable(&self.brokers, error))?;
        // -1 is the brokers' own default.
        // Views are made anew from all of a topic after a crash, so nothing may expire.
        let new =
            NewTopic::new(topic, count, TopicReplication::Fixed(-1)).set("retention.ms", "-1");
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
        describe::describe(&self.client, topic, ANSWER_WAIT)
            .map_err(|error| self.error(topic, "cannot ask about it", error))
    }

    fn producer(&self) -> Result<Box<dyn Producer>> {
        Ok(Box::new(producer::KafkaProducer::open(&self.brokers)?))
    }

    fn reader(&self, topic: &str, from: &[(u32, i64)]) -> Result<Box<dyn Reader>> {
        Ok(Box::new(reader::KafkaReader::open(
            &self.brokers,
            topic,
            from,
        )?))
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

/// What every client is configured with.
fn common(brokers: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", brokers)
        .set("client.id", "tidemill")
        .set("reconnect.backoff.max.ms", "1000");
    config
}

fn unusable(brokers: &str, error: KafkaError) -> Error {
    let what = format!("kafka {brokers}: cannot make a client, give HOST:PORT[,HOST:PORT]");
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

/// Passes librdkafka's own words on at levels that suit us: what matters comes back as errors.
struct Quiet;

impl ClientContext for Quiet {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        match level {
            RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical => {
                tracing::error!(facility, message, "librdkafka");
            }
            _ => tracing::debug!(facility, message, "librdkafka"),
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "librdkafka");
    }
}

impl ConsumerContext for Quiet {}
