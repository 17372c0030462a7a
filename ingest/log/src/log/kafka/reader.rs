//! The Kafka reader: assigned partitions from given offsets, without copying records.
//!
//! Records are delivered in librdkafka's own buffer, in batches ([`super::batch`]).
//!
//! Invariants:
//! 1. The caller gives the offsets. None is committed to Kafka.
//! 2. An unreachable broker gives no records and one warning.
//! 3. An offset out of range and a deleted topic are final errors (`auto.offset.reset=error`).

use std::sync::Arc;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::BorrowedMessage;
use rdkafka::{Message, Offset, TopicPartitionList};

use super::batch::Batches;
use super::{ClientLog, Settings, kind_of, unusable};
use crate::log::{Reader, RecordRef};
use crate::{Error, Kind, Result};

/// A reader with its own connections to the brokers.
pub(super) struct KafkaReader {
    brokers: String,
    topic: String,
    /// Declared before the consumer, so that it is dropped first.
    batches: Batches,
    consumer: BaseConsumer<ClientLog>,
    /// Whether the brokers are unreachable, so that the log says so once.
    away: bool,
}

impl KafkaReader {
    /// Creates a consumer with the given assignment.
    pub(super) fn open(settings: &Settings, topic: &str, from: &[(u32, i64)]) -> Result<Self> {
        let consumer = assigned_consumer(settings, topic, from, false)?;
        Ok(Self {
            brokers: settings.to_string(),
            topic: topic.to_owned(),
            batches: Batches::of(&consumer),
            consumer,
            away: false,
        })
    }

    /// Handles an error in place of a record: returns a final one, logs any other one once.
    fn handle_error(&mut self, error: KafkaError) -> Result<()> {
        if kind_of(&error) == Kind::Data {
            use rdkafka::error::RDKafkaErrorCode::{AutoOffsetReset, OffsetOutOfRange};
            let why = match error.rdkafka_error_code() {
                Some(AutoOffsetReset | OffsetOutOfRange) => {
                    "cannot be read further: unread records are gone; its retention or somebody \
                     removed them, or it was made anew"
                }
                _ => {
                    "cannot be read further: the topic, a partition of it or the access to it is \
                     gone"
                }
            };
            let what = format!("kafka {}: topic `{}` {why}", self.brokers, self.topic);
            return Err(Error::with_source(Kind::Data, what, error));
        }
        if !self.away {
            self.away = true;
            let (brokers, topic) = (&self.brokers, &self.topic);
            tracing::warn!(%brokers, %topic, %error, "kafka cannot be reached");
        }
        Ok(())
    }

    /// Logs that an unreachable broker is back.
    fn note_arrival(&mut self) {
        if self.away {
            self.away = false;
            let (brokers, topic) = (&self.brokers, &self.topic);
            tracing::warn!(%brokers, %topic, "kafka can be reached again");
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
        // The first record comes from rdkafka's own poll, which waits and handles events that are
        // not records. The following ones come in batches.
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
            self.handle_error(failed)?;
            wait = Duration::ZERO;
        };
        while count < max {
            match self.batches.take(max - count, each) {
                Ok(0) => break,
                Ok(taken) => count += taken,
                Err(error) => self.handle_error(error)?,
            }
        }
        self.note_arrival();
        Ok(count)
    }

    fn on_arrival(&mut self, wake: Arc<dyn Fn() + Send + Sync>) -> bool {
        self.consumer.set_nonempty_callback(move || wake());
        true
    }
}

/// A consumer of the given partitions from the given offsets on. With `ends` it also reports the
/// end of each partition.
pub(super) fn assigned_consumer(
    settings: &Settings,
    topic: &str,
    from: &[(u32, i64)],
    ends: bool,
) -> Result<BaseConsumer<ClientLog>> {
    let consumer: BaseConsumer<ClientLog> = settings
        .client()
        // librdkafka requires a group id to assign partitions; the group is never joined.
        .set("group.id", "tidemill")
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("auto.offset.reset", "error")
        .set("enable.partition.eof", if ends { "true" } else { "false" })
        .set("check.crcs", "false")
        .set("fetch.min.bytes", "1")
        // A partition that a waiting fetch does not cover waits this long for the next fetch.
        .set("fetch.wait.max.ms", "50")
        .set("fetch.queue.backoff.ms", "2")
        .set("queued.max.messages.kbytes", "32768")
        .set("topic.metadata.propagation.max.ms", "10000")
        .create_with_context(ClientLog::default())
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

/// The message as a record in librdkafka's buffer.
pub(super) fn borrowed<'a>(message: &'a BorrowedMessage<'_>) -> RecordRef<'a> {
    RecordRef {
        partition: message.partition().unsigned_abs(),
        offset: message.offset(),
        timestamp_ms: message.timestamp().to_millis().unwrap_or(0),
        key: message.key(),
        value: message.payload(),
    }
}
