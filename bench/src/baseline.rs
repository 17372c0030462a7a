//! The baselines: one thread on librdkafka in a process of its own, with the loop that a user would
//! write by hand, or with a loop that drops the records.
//!
//! A baseline prints its answer as one line of JSON. Then it waits until its stdin is closed, so
//! that its CPU time can be read while it is alive.
//!
//! | baseline | what it does with a record | compared with |
//! |---|---|---|
//! | [`Kind::Loop`] | parses `country` and `age`, counts and sums in a `HashMap` | `json` |
//! | [`Kind::Poll`] | drops the record unread | `avro` |
//!
//! Neither commits an offset or writes anything durable, so both do less than a job does. The loop
//! is what a careful user would write: the fields are borrowed from the record, and the key is
//! copied only for a new country.

use std::borrow::Cow;
use std::collections::HashMap;
use std::io::Read;
use std::time::Duration;

use anyhow::Context;
use clap::{Args, ValueEnum};
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{Message, Offset, TopicPartitionList};
use serde::{Deserialize, Serialize};

use crate::harness::users::Totals;

/// Which baseline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    /// Poll, parse the used fields of the JSON, count and sum in a hash map.
    Loop,
    /// Poll and drop.
    Poll,
}

/// Flags of the hidden subcommand.
#[derive(Debug, Args)]
pub(crate) struct BaselineArgs {
    /// Which baseline
    pub(crate) kind: Kind,
    /// The topic
    pub(crate) topic: String,
    /// host:port
    pub(crate) brokers: String,
}

/// The result of a baseline.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Answer {
    /// Records read.
    pub records: u64,
    /// The counts and sums by country; empty for [`Kind::Poll`].
    pub totals: Totals,
}

/// The fields of a record that the hand-written loop reads.
#[derive(Deserialize)]
struct Used<'a> {
    /// Borrowed, unless the JSON text has escapes.
    #[serde(borrow)]
    country: Cow<'a, str>,
    /// In years.
    age: i64,
}

/// Runs a baseline to its end.
///
/// # Errors
/// Kafka does not answer, or a record is not the expected JSON.
pub(crate) fn run(args: &BaselineArgs) -> anyhow::Result<()> {
    let (consumer, count) = consumer(&args.brokers, std::slice::from_ref(&args.topic))?;
    let answer = match args.kind {
        Kind::Loop => by_hand(&consumer, count)?,
        Kind::Poll => {
            let (mut records, mut bytes) = (0, 0);
            while records < count {
                if let Some(message) = consumer.poll(Duration::from_secs(1)) {
                    bytes += message?.payload().map_or(0, <[u8]>::len);
                    records += 1;
                }
            }
            std::hint::black_box(bytes);
            Answer {
                records,
                ..Answer::default()
            }
        }
    };
    println!("{}", serde_json::to_string(&answer)?);
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}

/// The hand-written loop: parse, count and sum in a hash map.
fn by_hand(consumer: &BaseConsumer, count: u64) -> anyhow::Result<Answer> {
    let mut records = 0;
    let mut totals: HashMap<String, (u64, i64)> = HashMap::new();
    while records < count {
        let Some(message) = consumer.poll(Duration::from_secs(1)) else {
            continue;
        };
        let message = message?;
        let user: Used<'_> = serde_json::from_slice(message.payload().context("no value")?)?;
        let known = match totals.get_mut(user.country.as_ref()) {
            Some(known) => known,
            None => totals.entry(user.country.into_owned()).or_default(),
        };
        known.0 += 1;
        known.1 += user.age;
        records += 1;
    }
    Ok(Answer {
        records,
        totals: totals.into_iter().collect(),
    })
}

/// A consumer at the begin of the topics, and the number of their records.
///
/// It reads all partitions from the first record on, without a consumer group's rebalancing.
pub(crate) fn consumer(brokers: &str, topics: &[String]) -> anyhow::Result<(BaseConsumer, u64)> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("group.id", "bench")
        .set("enable.auto.commit", "false")
        // With the default of one second, the fetcher pauses whenever its queue was full.
        .set("fetch.queue.backoff.ms", "2")
        .create()?;
    let wait = Duration::from_secs(10);
    let (mut assigned, mut count) = (TopicPartitionList::new(), 0);
    for topic in topics {
        let metadata = consumer.fetch_metadata(Some(topic), wait)?;
        let found = metadata.topics().first().context("no such topic")?;
        for partition in found.partitions() {
            let (low, high) = consumer.fetch_watermarks(topic, partition.id(), wait)?;
            assigned.add_partition_offset(topic, partition.id(), Offset::Offset(low))?;
            count += (high - low).unsigned_abs();
        }
    }
    consumer.assign(&assigned)?;
    Ok((consumer, count))
}
