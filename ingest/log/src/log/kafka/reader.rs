//! Reads assigned partitions from Kafka, with as little as possible between librdkafka and the
//! caller: every record is handed over in librdkafka's own buffer.
//!
//! Invariants: offsets are given by the caller and never committed; a broker that is away shows
//! as no records and one warning; offset out of range and a topic that is gone are final.

use std::sync::Arc;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::BorrowedMessage;
use rdkafka::{Message, Offset, TopicPartitionList};

use super::batch::Batches;
use super::{Quiet, Settings, kind_of, unusable};
use crate::log::{Reader, RecordRef};
use crate::{Error, Kind, Result};

/// A reader with its own connections.
pub(super) struct KafkaReader {
    brokers: String,
    topic: String,
    /// Before the consumer, so that it is let go first.
    batches: Batches,
    consumer: BaseConsumer<Quiet>,
    /// True while the brokers are away, to say so only once.
    away: bool,
}

impl KafkaReader {
    pub(super) fn open(settings: &Settings, topic: &str, from: &[(u32, i64)]) -> Result<Self> {
        let consumer = assigned(settings, topic, from, false)?;
        Ok(Self {
            brokers: settings.to_string(),
            topic: topic.to_owned(),
            batches: Batches::of(&consumer),
            consumer,
            away: false,
        })
    }

    /// Takes an error that came instead of a record: final, or noted and passed over.
    fn trouble(&mut self, error: KafkaError) -> Result<()> {
        if kind_of(&error) == Kind::Data {
            use rdkafka::error::RDKafkaErrorCode::{AutoOffsetReset, OffsetOutOfRange};
            let why = match error.rdkafka_error_code() {
                Some(AutoOffsetReset | OffsetOutOfRange) => {
                    "cannot be read on: records that were not read yet are gone; its retention or \
                     somebody removed them, or it was made anew"
                }
                _ => "cannot be read on: it or a partition of it was deleted, or access to it",
            };
            let what = format!("kafka {}: topic `{}` {why}", self.brokers, self.topic);
            return Err(Error::with_source(Kind::Data, what, error));
        }
        if !self.away {
            self.away = true;
            tracing::warn!(brokers = %self.brokers, topic = %self.topic, %error, "kafka is away");
        }
        Ok(())
    }

    fn arrived(&mut self) {
        if self.away {
            self.away = false;
            tracing::warn!(brokers = %self.brokers, topic = %self.topic, "kafka is back");
        }
    }
}

impl Reader for KafkaReader {
    fn poll(
        &mut self,
        max: usize,
        wait: Duration,
        each: &mut dyn FnMut(RecordRef<'_>),
    ) -> Result<usize> {
        // The first record comes by rdkafka's own poll, which also waits and serves what is not a
        // record; what stands behind it comes in batches.
        let mut wait = wait;
        let mut count = loop {
            let failed = match self.consumer.poll(wait) {
                None => return Ok(0),
                Some(Ok(message)) => {
                    each(borrowed(&message));
                    break 1;
                }
                Some(Err(error)) => error,
            };
            self.trouble(failed)?;
            wait = Duration::ZERO;
        };
        while count < max {
            match self.batches.take(max - count, each) {
                Ok(0) => break,
                Ok(taken) => count += taken,
                Err(error) => self.trouble(error)?,
            }
        }
        self.arrived();
        Ok(count)
    }

    fn on_arrival(&mut self, wake: Arc<dyn Fn() + Send + Sync>) -> bool {
        self.consumer.set_nonempty_callback(move || wake());
        true
    }
}

/// A consumer that reads the given partitions from the given offsets; with `ends` it also reports
/// the end of each partition.
pub(super) fn assigned(
    settings: &Settings,
    topic: &str,
    from: &[(u32, i64)],
    ends: bool,
) -> Result<BaseConsumer<Quiet>> {
    let consumer: BaseConsumer<Quiet> = settings
        .client()
        // librdkafka wants a group's name to assign partitions; the group is never joined.
        .set("group.id", "tidemill")
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("auto.offset.reset", "error")
        .set("enable.partition.eof", if ends { "true" } else { "false" })
        .set("check.crcs", "false")
        .set("fetch.min.bytes", "1")
        // A partition that was left out of a waiting fetch waits this long for the next one.
        .set("fetch.wait.max.ms", "50")
        .set("fetch.queue.backoff.ms", "2")
        .set("queued.max.messages.kbytes", "32768")
        .set("topic.metadata.propagation.max.ms", "10000")
        .create_with_context(Quiet::default())
        .map_err(|error| unusable(settings, error))?;
    let mut partitions = TopicPartitionList::with_capacity(from.len());
    for &(partition, offset) in from {
        let number = i32::try_from(partition).unwrap_or(i32::MAX);
        if offset < 0 {
            let what = format!("topic `{topic}`: no offset {offset} in partition {partition}");
            return Err(Error::new(Kind::Data, what));
        }
        partitions
            .add_partition_offset(topic, number, Offset::Offset(offset))
            .map_err(|error| unusable(settings, error))?;
    }
    consumer.assign(&partitions).map_err(|error| {
        let what = format!("kafka {settings}: topic `{topic}`: cannot assign its partitions");
        Error::with_source(Kind::Data, what, error)
    })?;
    Ok(consumer)
}

/// The message as a record, in librdkafka's buffer.
pub(super) fn borrowed<'a>(message: &'a BorrowedMessage<'_>) -> RecordRef<'a> {
    RecordRef {
        partition: message.partition().unsigned_abs(),
        offset: message.offset(),
        timestamp_ms: message.timestamp().to_millis().unwrap_or(0),
        key: message.key(),
        value: message.payload(),
    }
}
