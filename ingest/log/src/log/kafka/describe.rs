//! Asking Kafka which topic it is that has a name now, and how many partitions it has.
//!
//! Offsets cannot tell a topic from one that was deleted and made anew and has grown since; the id
//! that brokers give each topic can. rdkafka does not wrap librdkafka's `DescribeTopics`, so this
//! module calls it. Invariants: what librdkafka gave out is given back on every way out, by
//! [`Held`]; nothing of an event is read after it was destroyed.

#![allow(unsafe_code)]

use std::ffi::CString;
use std::time::Duration;

use rdkafka::bindings as native;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use crate::log::{Described, TopicId};

/// Something of librdkafka's, with the function that gives it back.
struct Held<T>(*mut T, unsafe extern "C" fn(*mut T));

impl<T> Drop for Held<T> {
    fn drop(&mut self) {
        if !self.0.is_null() {
            // SAFETY: the pointer came from the call that `describe` made and is given back once.
            unsafe { (self.1)(self.0) };
        }
    }
}

/// What the brokers say of a topic; none when they say that there is no such topic.
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
    // outlives the call, which copies it. Each result is given back by its `Held`, the queue after
    // the event that came from it.
    unsafe {
        let topics = Held(
            native::rd_kafka_TopicCollection_of_topic_names(names.as_mut_ptr(), 1),
            native::rd_kafka_TopicCollection_destroy,
        );
        let options = Held(
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
        let queue = Held(
            native::rd_kafka_queue_new(client),
            native::rd_kafka_queue_destroy,
        );
        native::rd_kafka_DescribeTopics(client, topics.0, options.0, queue.0);
        let event = Held(
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

/// Reads the one description that an answer holds.
///
/// # Safety
/// `event` must be the answer to a `DescribeTopics`, without an error, not destroyed yet.
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
