//! Appends to Kafka: idempotent, acknowledged by all replicas in sync.
//!
//! Invariant: when [`Producer::append`] returns, nothing of its batch is in flight any more,
//! whether it went well or not, so a following append cannot be mixed up with it.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{
    BaseRecord, Producer as _, ProducerContext, PurgeConfig, ThreadedProducer,
};

use super::{Quiet, Settings, unusable};
use crate::log::partition::{check_sizes, too_large};
use crate::log::{Producer, Record};
use crate::{Error, Kind, Result};

/// How long one wait for delivery reports lasts, at most.
const REPORT_WAIT: Duration = Duration::from_millis(100);

/// A producer with a thread for its delivery reports. Outside of an append nothing is in flight.
pub(super) struct KafkaProducer {
    brokers: String,
    producer: ThreadedProducer<Deliveries>,
}

impl KafkaProducer {
    pub(super) fn open(settings: &Settings) -> Result<Self> {
        let producer = settings
            .client()
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
            .map_err(|error| unusable(settings, error))?;
        Ok(Self {
            brokers: settings.to_string(),
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
                    // The caller counts what was sent; here only room is waited for.
                    self.producer.context().wait();
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
        let deliveries = Arc::clone(self.producer.context());
        for (index, record) in records.iter().enumerate() {
            match self.send(index, record) {
                Ok(()) => deliveries.sent(),
                Err(error) => deliveries.fail(index, error),
            }
            if deliveries.failed() {
                break;
            }
        }
        let mut purged = false;
        while !deliveries.wait() {
            if deliveries.failed() && !purged {
                // What was not sent yet must not overtake the record that failed.
                self.producer.purge(PurgeConfig::default().queue());
                purged = true;
            }
        }
        match deliveries.take() {
            Some((index, error)) => Err(self.error(records.get(index), error)),
            None => Ok(()),
        }
    }
}

/// Collects delivery reports, which come on the producer's own thread.
#[derive(Default)]
struct Deliveries {
    quiet: Quiet,
    state: Mutex<State>,
    reported: Condvar,
}

#[derive(Default)]
struct State {
    /// Records sent less records reported; below 0 for a moment when a report is quicker than us.
    open: i64,
    /// The first error, with its record's index in the batch.
    first_error: Option<(usize, KafkaError)>,
}

impl Deliveries {
    fn sent(&self) {
        self.state().open += 1;
    }

    fn fail(&self, index: usize, error: KafkaError) {
        self.state().first_error.get_or_insert((index, error));
    }

    fn failed(&self) -> bool {
        self.state().first_error.is_some()
    }

    fn take(&self) -> Option<(usize, KafkaError)> {
        self.state().first_error.take()
    }

    /// Waits for reports; true when none is open any more.
    fn wait(&self) -> bool {
        let state = self.state();
        if state.open == 0 {
            return true;
        }
        let waited = self.reported.wait_timeout(state, REPORT_WAIT);
        let (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        state.open == 0
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ClientContext for Deliveries {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.quiet.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.quiet.error(error, reason);
    }
}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, index: usize) {
        let mut state = self.state();
        state.open -= 1;
        if let Err((error, _)) = result {
            state.first_error.get_or_insert((index, error.clone()));
        }
        if state.open <= 0 || state.first_error.is_some() {
            self.reported.notify_all();
        }
    }
}
