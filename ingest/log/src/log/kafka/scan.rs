//! Reading a Kafka topic for people: records with their headers, up to the ends of the partitions,
//! and the offsets of a time.
//!
//! Invariant: the partitions are assigned by hand, so no group is joined and no offset is
//! committed.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use rdkafka::consumer::Consumer;
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Headers};
use rdkafka::{Message, Offset, TopicPartitionList};

use super::{ANSWER_WAIT, KafkaLog, LOOK_EVERY, kind_of, reader};
use crate::log::{Header, Log, Look, PartitionRange};
use crate::{Kind, Result};

/// See [`crate::log::Log::scan`]. Errors that may pass are waited for until `wait` is over.
pub(super) fn scan(
    log: &KafkaLog,
    topic: &str,
    from: &[(u32, i64)],
    wait: Duration,
    look: Look<'_>,
) -> Result<bool> {
    let mut unread: HashSet<i32> = from.iter().map(|(it, _)| it.cast_signed()).collect();
    if unread.is_empty() {
        return Ok(true);
    }
    let consumer = reader::assigned_consumer(&log.settings, topic, from, true)?;
    let deadline = Instant::now() + wait;
    while !unread.is_empty() {
        match consumer.poll(LOOK_EVERY) {
            Some(Ok(message)) => {
                if !look(reader::borrowed(&message), &headers(&message)) {
                    return Ok(false);
                }
            }
            Some(Err(KafkaError::PartitionEOF(partition))) => {
                unread.remove(&partition);
            }
            Some(Err(error)) if kind_of(&error) == Kind::Data => {
                return Err(log.error(topic, "cannot read it", error));
            }
            Some(Err(_)) | None => {}
        }
        if Instant::now() > deadline {
            return Ok(unread.is_empty());
        }
    }
    Ok(true)
}

/// The headers of a message. A name that is not UTF-8 is shown with replacement characters.
fn headers(message: &BorrowedMessage<'_>) -> Vec<Header> {
    let Some(headers) = message.headers() else {
        return Vec::new();
    };
    let owned = headers.iter();
    let owned = owned.map(|it| (it.key.to_owned(), it.value.map(<[u8]>::to_vec)));
    owned.collect()
}

/// See [`crate::log::Log::offsets_at`].
pub(super) fn offsets_at(log: &KafkaLog, topic: &str, at_ms: i64) -> Result<Vec<(u32, i64)>> {
    let ranges = log.ranges(topic)?;
    let failed = |error| log.error(topic, "cannot ask for the offsets of a time", error);
    let mut asked = TopicPartitionList::with_capacity(ranges.len());
    for range in &ranges {
        let partition = range.partition.cast_signed();
        let time = Offset::Offset(at_ms.max(0));
        asked
            .add_partition_offset(topic, partition, time)
            .map_err(failed)?;
    }
    let found = log.client.offsets_for_times(asked, ANSWER_WAIT);
    let found = found.map_err(failed)?;
    let of = |range: &PartitionRange| {
        let found = found.find_partition(topic, range.partition.cast_signed());
        let offset = match found.map(|it| it.offset()) {
            Some(Offset::Offset(offset)) => offset,
            _ => range.high,
        };
        (range.partition, offset)
    };
    Ok(ranges.iter().map(of).collect())
}
