//! Appends to Kafka: idempotent, acknowledged by all replicas in sync.
//!
//! Invariant: when [`Producer::append`] returns, nothing of its batch is in flight any more,
//! whether it went well or not, so a following append cannot be mixed up with it.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _, ProducerContext, PurgeConfig};

use super::{Quiet, common, unusable};
use crate::log::partition::{check_sizes, too_large};
use crate::log::{Producer, Record};
use crate::{Error, Kind, Result};

/// How long one wait for delivery reports lasts. A poll goes on serving reports until its time is
/// up, even when the last one has come, so this is also what an append waits too long.
const REPORT_WAIT: Duration = Duration::from_millis(1);

/// A producer that is polled only while it appends: outside, nothing is in flight.
pub(super) struct KafkaProducer {
    brokers: String,
    producer: BaseProducer<Deliveries>,
}

impl KafkaProducer {
    pub(super) fn open(brokers: &str) -> Result<Self> {
        let producer = common(brokers)
            .set("enable.idempotence", "true")
            .set("acks", "all")
            .set("linger.ms", "1")
            .set("compression.type", "lz4")
            .set("partitioner", "murmur2_random")
            // Room for a record of RECORD_BYTES_MAX with what librdkafka wraps it in, and still
            // below the brokers' default limit.
            .set("message.max.bytes", "1048000")
            .set("queue.buffering.max.kbytes", "65536")
            .set("message.timeout.ms", "30000")
            .create_with_context(Deliveries::default())
            .map_err(|error| unusable(brokers, error))?;
        Ok(Self {
            brokers: brokers.to_owned(),
            producer,
        })
    }

    /// Enqueues one record, waiting for room where the queue is full.
    fn send(&self, index: usize, record: &Record) -> std::result::Result<(), KafkaError> {
        let mut message: BaseRecord<'_, [u8], [u8], usize> =
            BaseRecord::with_opaque_to(&record.topic, index).timestamp(record.timestamp_ms);
        message.key = record.key.as_deref();
        message.payload = record.value.as_deref();
        message.partition = record.partition.and_then(|it| i32::try_from(it).ok());
        loop {
            match self.producer.send(message) {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                    message = back;
                    self.producer.poll(REPORT_WAIT);
                }
                Err((error, _)) => return Err(error),
            }
        }
    }

    fn error(&self, record: Option<&Record>, error: KafkaError) -> Error {
        let too_long = error.rdkafka_error_code() == Some(RDKafkaErrorCode::MessageSizeTooLarge);
        match record {
            Some(record) if too_long => too_large(record),
            _ => {
                let topic = record.map_or("", |record| record.topic.as_str());
                let what = format!("kafka {}: cannot append to topic `{topic}`", self.brokers);
                Error::with_source(Kind::Retry, what, error)
            }
        }
    }
}

impl Producer for KafkaProducer {
    fn append(&mut self, records: &[Record]) -> Result<()> {
        check_sizes(records)?;
        let deliveries = self.producer.context();
        for (index, record) in records.iter().enumerate() {
            if let Err(error) = self.send(index, record) {
                deliveries.fail(index, error);
            }
            if deliveries.failed() {
                break;
            }
        }
        let mut purged = false;
        while self.producer.in_flight_count() > 0 {
            if deliveries.failed() && !purged {
                // What was not sent yet must not overtake the record that failed.
                self.producer.purge(PurgeConfig::default().queue());
                purged = true;
            }
            self.producer.poll(REPORT_WAIT);
        }
        match deliveries.take() {
            Some((index, error)) => Err(self.error(records.get(index), error)),
            None => Ok(()),
        }
    }
}

/// Collects delivery reports: the first error, with its record's index in the batch.
#[derive(Default)]
struct Deliveries {
    first_error: Mutex<Option<(usize, KafkaError)>>,
}

impl Deliveries {
    fn fail(&self, index: usize, error: KafkaError) {
        self.slot().get_or_insert((index, error));
    }

    fn failed(&self) -> bool {
        self.slot().is_some()
    }

    fn take(&self) -> Option<(usize, KafkaError)> {
        self.slot().take()
    }

    fn slot(&self) -> std::sync::MutexGuard<'_, Option<(usize, KafkaError)>> {
        self.first_error
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl ClientContext for Deliveries {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        Quiet.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        Quiet.error(error, reason);
    }
}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, index: usize) {
        if let Err((error, _)) = result {
            self.fail(index, error.clone());
        }
    }
}
