//! Kafka's `DescribeTopics`: the id of a topic and its number of partitions.
//!
//! Offsets cannot distinguish a topic from one that was deleted, created again and filled further.
//! The id that brokers assign to each topic (KIP-516) can. rdkafka does not wrap librdkafka's
//! `DescribeTopics`, so this module calls it, with unsafe code.
//!
//! Invariants:
//! 1. What librdkafka allocated is freed on every path, by [`Guard`].
//! 2. Nothing of an event is read after the event is destroyed.

#![allow(unsafe_code)]

use std::ffi::CString;
use std::time::Duration;

use rdkafka::bindings as native;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use crate::log::{Described, TopicId};

/// A guard of an object of librdkafka: the pointer, and the function that frees it.
struct Guard<T>(*mut T, unsafe extern "C" fn(*mut T));

impl<T> Drop for Guard<T> {
    fn drop(&mut self) {
        if !self.0.is_null() {
            // SAFETY: the pointer came from the call that `describe` made and is given back once.
            unsafe { (self.1)(self.0) };
        }
    }
}

/// Asks the brokers to describe a topic, within `wait`. `None` when they answer that it does not
/// exist.
///
/// # Errors
/// The error of the brokers, or `OperationTimedOut`.
pub(super) fn describe<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    topic: &str,
    wait: Duration,
) -> Result<Option<Described>, KafkaError> {
    let Ok(name) = CString::new(topic) else {
        return Ok(None);
    };
    let wait_ms = i32::try_from(wait.as_millis()).unwrap_or(i32::MAX);
    let client = consumer.client().native_ptr();
    let mut names = [name.as_ptr()];
    // SAFETY: `client` is valid as long as `consumer` is borrowed; `names` holds one string that
    // outlives the call, which copies it. Each result is given back by its `Guard`, the queue after
    // the event that came from it.
    unsafe {
        let topics = Guard(
            native::rd_kafka_TopicCollection_of_topic_names(names.as_mut_ptr(), 1),
            native::rd_kafka_TopicCollection_destroy,
        );
        let options = Guard(
            native::rd_kafka_AdminOptions_new(
                client,
                native::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS,
            ),
            native::rd_kafka_AdminOptions_destroy,
        );
        native::rd_kafka_AdminOptions_set_request_timeout(
            options.0,
            wait_ms,
            std::ptr::null_mut(),
            0,
        );
        let queue = Guard(
            native::rd_kafka_queue_new(client),
            native::rd_kafka_queue_destroy,
        );
        native::rd_kafka_DescribeTopics(client, topics.0, options.0, queue.0);
        let event = Guard(
            native::rd_kafka_queue_poll(queue.0, wait_ms.saturating_add(1_000)),
            native::rd_kafka_event_destroy,
        );
        if event.0.is_null() {
            return Err(KafkaError::AdminOp(RDKafkaErrorCode::OperationTimedOut));
        }
        let error = native::rd_kafka_event_error(event.0);
        if error != native::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
            return Err(KafkaError::AdminOp(error.into()));
        }
        read(event.0)
    }
}

/// Reads the only description in an answer.
///
/// # Safety
/// `event` must be the answer to a `DescribeTopics` without an error, and not be destroyed yet.
unsafe fn read(event: *mut native::rd_kafka_event_t) -> Result<Option<Described>, KafkaError> {
    // SAFETY: all pointers belong to the event and are valid as long as it is; none is kept.
    unsafe {
        let mut count = 0;
        let result = native::rd_kafka_event_DescribeTopics_result(event);
        let all = native::rd_kafka_DescribeTopics_result_topics(result, &mut count);
        if all.is_null() || count == 0 {
            return Ok(None);
        }
        let topic = *all;
        let error = native::rd_kafka_TopicDescription_error(topic);
        let code = native::rd_kafka_error_code(error);
        match RDKafkaErrorCode::from(code) {
            RDKafkaErrorCode::NoError => {}
            RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic => {
                return Ok(None);
            }
            code => return Err(KafkaError::AdminOp(code)),
        }
        let id = native::rd_kafka_TopicDescription_topic_id(topic);
        let id = match id.is_null() {
            true => TopicId::default(),
            false => TopicId([
                native::rd_kafka_Uuid_most_significant_bits(id),
                native::rd_kafka_Uuid_least_significant_bits(id),
            ]),
        };
        let mut partitions = 0;
        native::rd_kafka_TopicDescription_partitions(topic, &mut partitions);
        Ok(Some(Described {
            id,
            partitions: u32::try_from(partitions).unwrap_or(u32::MAX),
        }))
    }
}
