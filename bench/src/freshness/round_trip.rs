//! The bare Kafka round trip, which is the lower bound of any freshness: records are produced at a
//! fixed rate and consumed by the same process.
//!
//! What is measured: the time in µs from when a record was due until the consumer had it, over one
//! partition with `acks=all` and without lingering. Producer and consumer use librdkafka, with
//! settings for low latency.

use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use hdrhistogram::Histogram;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{ClientConfig, Message, Offset, TopicPartitionList};
use tidemill_log::log;

use crate::harness::load;
use crate::harness::services::Services;

/// Duration of the measurement.
const SPAN: Duration = Duration::from_secs(10);
/// Bytes of a record: about the size of a change of the load in Avro.
const BYTES: usize = 200;

/// Latencies in µs from each record's due time to its arrival.
///
/// `rate` is records per second.
///
/// # Errors
/// Kafka does not answer, or records are missing 30 s after the last one was sent.
pub(crate) fn run(services: &Services, rate: u32) -> anyhow::Result<Histogram<u64>> {
    let topic = format!("bench_round_trip_{}", std::process::id());
    log::open(services.kafka()?)?.create_topic(&topic, 1)?;
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", services.brokers()?)
        .set("group.id", "bench")
        .set("fetch.queue.backoff.ms", "2")
        .create()?;
    let mut assigned = TopicPartitionList::new();
    assigned.add_partition_offset(&topic, 0, Offset::Beginning)?;
    consumer.assign(&assigned)?;
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", services.brokers()?)
        .set("acks", "all")
        .set("linger.ms", "0")
        .create()?;
    let start = Instant::now() + Duration::from_secs(1);
    let count = SPAN.as_secs() * u64::from(rate);
    std::thread::scope(|scope| {
        let sender = scope.spawn(|| send(&producer, &topic, start, count, rate));
        let latencies = receive(&consumer, start, count);
        match sender.join() {
            Ok(sent) => sent?,
            Err(_) => bail!("the sender panicked"),
        }
        latencies
    })
}

/// Produces the records on schedule.
///
/// Each record begins with its due time in µs after `start`. A producer that falls behind sends at
/// once, and its lateness is in the result.
fn send(
    producer: &BaseProducer,
    topic: &str,
    start: Instant,
    count: u64,
    rate: u32,
) -> anyhow::Result<()> {
    let mut value = [0; BYTES];
    for index in 0..count {
        let after = Duration::from_micros(index * 1_000_000 / u64::from(rate));
        std::thread::sleep((start + after).saturating_duration_since(Instant::now()));
        if let Some(head) = value.first_chunk_mut::<8>() {
            *head = (after.as_micros() as u64).to_be_bytes();
        }
        let record = BaseRecord::<[u8], [u8]>::to(topic).payload(&value);
        producer.send(record).map_err(|(error, _)| error)?;
        producer.poll(Duration::ZERO);
    }
    Ok(producer.flush(Duration::from_secs(10))?)
}

/// Consumes the records and measures their latencies.
fn receive(consumer: &BaseConsumer, start: Instant, count: u64) -> anyhow::Result<Histogram<u64>> {
    let mut latencies = load::latencies()?;
    let by = start + SPAN + Duration::from_secs(30);
    while latencies.len() < count {
        if Instant::now() > by {
            bail!("only {} of {count} records came back", latencies.len());
        }
        let Some(message) = consumer.poll(Duration::from_millis(100)) else {
            continue;
        };
        let message = message?;
        let head = message.payload().and_then(|value| value.first_chunk::<8>());
        let after =
            Duration::from_micros(u64::from_be_bytes(*head.context("no time in a record")?));
        let latency = Instant::now().saturating_duration_since(start + after);
        latencies.saturating_record(latency.as_micros() as u64);
    }
    Ok(latencies)
}
