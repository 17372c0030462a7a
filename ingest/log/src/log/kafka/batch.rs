//! Batch consumption from Kafka: takes many messages from librdkafka with one call.
//!
//! rdkafka's `poll` takes one event per message and reads the clock twice for each, which is a
//! quarter of the cost of reading small records. This module calls `rd_kafka_consume_batch_queue`
//! on the queue of the consumer instead.
//!
//! This module and [`super::describe`] are the only ones of the crate with unsafe code.
//!
//! Invariants:
//! 1. The queue is released before its consumer. Owners declare it in an earlier field.
//! 2. A message is lent out only until it is destroyed, at the end of the same call.

#![allow(unsafe_code)]

use rdkafka::bindings as native;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::KafkaError;

use crate::log::RecordRef;

/// Largest number of messages that one call takes.
const BATCH: usize = 1024;

/// The queue of fetched messages of a consumer.
pub(super) struct Batches {
    /// A counted reference to librdkafka's queue.
    queue: *mut native::rd_kafka_queue_t,
    /// Buffer for the messages of one call; empty between calls.
    messages: Vec<*mut native::rd_kafka_message_t>,
}

// SAFETY: librdkafka's queues may be used from any thread; `messages` is empty between calls.
unsafe impl Send for Batches {}

impl Batches {
    /// The queue of `consumer`, which must outlive the result.
    pub(super) fn of<C: ConsumerContext>(consumer: &BaseConsumer<C>) -> Self {
        // SAFETY: the client pointer is valid while `consumer` is borrowed. The call returns a new
        // reference to the queue, which `drop` gives back.
        let queue = unsafe { native::rd_kafka_queue_get_consumer(consumer.client().native_ptr()) };
        Self {
            queue,
            messages: Vec::with_capacity(BATCH),
        }
    }

    /// Calls `each` with up to `max` messages that are already fetched, without waiting. Returns
    /// the number of records.
    ///
    /// # Errors
    /// The first error that librdkafka put in place of a message. The records of the same call were
    /// delivered.
    pub(super) fn take(
        &mut self,
        max: usize,
        each: &mut dyn FnMut(RecordRef<'_>),
    ) -> Result<usize, KafkaError> {
        let room = max.min(BATCH);
        if self.queue.is_null() || room == 0 {
            return Ok(0);
        }
        // SAFETY: the queue is valid until `drop`, and `messages` has room for BATCH pointers, of
        // which the call writes as many as it returns (-1 on an error, which writes none).
        let taken = unsafe {
            native::rd_kafka_consume_batch_queue(self.queue, 0, self.messages.as_mut_ptr(), room)
        };
        let taken = usize::try_from(taken).unwrap_or(0);
        // SAFETY: the call above has written this many pointers.
        unsafe { self.messages.set_len(taken) };
        let mut records = 0;
        let mut failed = None;
        for message in self.messages.drain(..) {
            // SAFETY: librdkafka gave out the pointer for us to read and destroy, once.
            unsafe {
                match record(&*message) {
                    Ok(record) => {
                        each(record);
                        records += 1;
                    }
                    Err(error) => failed = failed.or(Some(error)),
                }
                native::rd_kafka_message_destroy(message);
            }
        }
        failed.map_or(Ok(records), Err)
    }
}

impl Drop for Batches {
    fn drop(&mut self) {
        if !self.queue.is_null() {
            // SAFETY: the reference taken in `of`, given back once.
            unsafe { native::rd_kafka_queue_destroy(self.queue) };
        }
    }
}

/// A message as a record in librdkafka's buffer.
///
/// # Safety
/// `message` must come from librdkafka and must not be destroyed before the record is dropped.
unsafe fn record(message: &native::rd_kafka_message_t) -> Result<RecordRef<'_>, KafkaError> {
    if message.err != native::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
        return Err(KafkaError::MessageConsumption(message.err.into()));
    }
    let mut kind = native::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE;
    // SAFETY: librdkafka's pointers are valid for their lengths as long as the message is, and
    // null stands for none; the timestamp call only reads the message and writes `kind`.
    unsafe {
        let bytes = |at: *mut std::ffi::c_void, length: usize| {
            (!at.is_null()).then(|| std::slice::from_raw_parts(at.cast::<u8>(), length))
        };
        Ok(RecordRef {
            partition: message.partition.unsigned_abs(),
            offset: message.offset,
            timestamp_ms: native::rd_kafka_message_timestamp(message, &mut kind).max(0),
            key: bytes(message.key, message.key_len),
            value: bytes(message.payload, message.len),
        })
    }
}
