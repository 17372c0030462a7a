//! The Kafka producer: idempotent, acknowledged by all in-sync replicas (`acks=all`).
//!
//! ```text
//! append: check sizes ─► enqueue all ─► wait for every delivery report ─► Ok
//!                              └ at the first error: purge the queue, wait for the rest ─► Err
//! ```
//!
//! Invariant: when [`Producer::append`] returns, with success or an error, no record of its batch
//! is in flight. So a following append cannot interleave with it.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{
    BaseRecord, Producer as _, ProducerContext, PurgeConfig, ThreadedProducer,
};

use super::{ClientLog, Settings, unusable};
use crate::log::partition::{check_sizes, too_large};
use crate::log::{Producer, Record};
use crate::{Error, Kind, Result};

/// Longest single wait for delivery reports.
const REPORT_WAIT: Duration = Duration::from_millis(100);

/// A producer, with a thread for its delivery reports.
pub(super) struct KafkaProducer {
    brokers: String,
    producer: ThreadedProducer<Deliveries>,
}

impl KafkaProducer {
    /// Creates the producer.
    pub(super) fn open(settings: &Settings) -> Result<Self> {
        let producer = settings
            .client()
            .set("enable.idempotence", "true")
            .set("acks", "all")
            .set("linger.ms", "1")
            .set("compression.type", "lz4")
            .set("partitioner", "murmur2_random")
            // Room for a record of RECORD_BYTES_MAX with librdkafka's overhead, and still below the
            // brokers' default limit.
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

    /// Enqueues one record; waits while the queue is full.
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
                    // Only room is waited for here; the caller counts what was sent.
                    self.producer.context().wait();
                }
                Err((error, _)) => return Err(error),
            }
        }
    }

    /// The error of an append: `Data` for a record that is too large, `Retry` for all others.
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
                // Records that were not sent yet must not overtake the one that failed.
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

/// Collects delivery reports, which arrive on the producer's thread.
#[derive(Default)]
struct Deliveries {
    /// Receives librdkafka's log lines.
    client_log: ClientLog,
    state: Mutex<State>,
    /// Signalled when all reports are there, and at the first error.
    reported: Condvar,
}

/// The delivery reports of one append.
#[derive(Default)]
struct State {
    /// Records sent minus reports received. Negative for a moment when a report arrives before the
    /// record is counted.
    open: i64,
    /// The first error, with the index of its record in the batch.
    first_error: Option<(usize, KafkaError)>,
}

impl Deliveries {
    /// Counts a record that was enqueued.
    fn sent(&self) {
        self.state().open += 1;
    }

    /// Keeps the first error.
    fn fail(&self, index: usize, error: KafkaError) {
        self.state().first_error.get_or_insert((index, error));
    }

    /// Whether there is an error.
    fn failed(&self) -> bool {
        self.state().first_error.is_some()
    }

    /// Takes the error out, for the next append.
    fn take(&self) -> Option<(usize, KafkaError)> {
        self.state().first_error.take()
    }

    /// Waits for reports, at most [`REPORT_WAIT`]; true when none is missing.
    fn wait(&self) -> bool {
        let state = self.state();
        if state.open == 0 {
            return true;
        }
        let waited = self.reported.wait_timeout(state, REPORT_WAIT);
        let (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        state.open == 0
    }

    /// Locks the state, also after a panic of another thread.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ClientContext for Deliveries {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.client_log.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.client_log.error(error, reason);
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
