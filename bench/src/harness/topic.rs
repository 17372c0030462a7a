//! Topics filled with generated users: one topic for each number of users and format, reused by
//! later runs.
//!
//! A topic's name has the format, the number of users and the version of the generator. User `i` is
//! in partition `i mod 8`. Records are not compressed and have no key.

use std::io::Write;

use anyhow::{Context, bail};
use apache_avro::Schema;
use apache_avro::writer::datum::GenericDatumWriter;
use clap::ValueEnum;
use rdkafka::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use tidemill_log::{log, registry};

use crate::harness::services::Services;
use crate::harness::users;
use crate::harness::users::{User, Users};

/// Partitions of each topic.
pub(crate) const PARTITIONS: u32 = 8;

/// How users are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// One JSON object a record.
    Json,
    /// Confluent's wire format: a zero byte, the schema's id, the Avro datum.
    Avro,
}

impl Format {
    /// The name in topics and in SQL.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Format::Json => "json",
            Format::Avro => "avro",
        }
    }
}

/// The topic with the first `count` users. Fills it, unless it is already there.
///
/// # Errors
///
/// A topic of this name contains other records, or Kafka or the registry does not answer.
pub(crate) fn filled(services: &Services, format: Format, count: u64) -> anyhow::Result<String> {
    let topic = format!("bench_{}_{count}_v{}", format.name(), users::VERSION);
    let log = log::open(services.kafka()?)?;
    log.create_topic(&topic, PARTITIONS)?;
    let held_before = held(&*log, &topic)?;
    let mut encode = encoder(services, &topic, format)?;
    if held_before == count as i64 {
        // The registry may be a new one with other ids, so the last record is compared.
        let mut expected = Vec::new();
        encode(last(count).next(), &mut expected)?;
        let partition = ((count - 1) % u64::from(PARTITIONS)) as u32;
        let tail = log.tail(&topic, 1)?;
        let found = tail.iter().find(|it| it.partition == partition);
        if found.and_then(|it| it.value.as_deref()) == Some(&expected[..]) {
            return Ok(topic);
        }
    }
    if held_before != 0 {
        bail!("topic {topic} holds {held_before} other records: start with services/down --wipe");
    }
    eprintln!("filling {topic} with {count} users");
    let producer = producer(services)?;
    let (mut users, mut value) = (Users::default(), Vec::new());
    for index in 0..count {
        value.clear();
        encode(users.next(), &mut value)?;
        let partition = (index % u64::from(PARTITIONS)) as i32;
        let record = BaseRecord::<[u8], [u8]>::to(&topic);
        send(&producer, record.partition(partition).payload(&value))?;
    }
    producer.flush(std::time::Duration::from_secs(60))?;
    let held = held(&*log, &topic)?;
    if held != count as i64 {
        bail!("topic {topic} holds {held} records after {count} were produced");
    }
    Ok(topic)
}

/// How many records a topic holds.
pub(crate) fn held(log: &dyn log::Log, topic: &str) -> anyhow::Result<i64> {
    Ok(log.ranges(topic)?.iter().map(|it| it.high - it.low).sum())
}

/// A producer that fills topics.
pub(crate) fn producer(services: &Services) -> anyhow::Result<BaseProducer> {
    Ok(ClientConfig::new()
        .set("bootstrap.servers", services.brokers()?)
        .set("compression.type", "none")
        .set("linger.ms", "20")
        .set("batch.size", "524288")
        .create()?)
}

/// The generator just before the user with the last index.
fn last(count: u64) -> Users {
    let mut users = Users::default();
    for _ in 1..count {
        users.next();
    }
    users
}

/// Appends one user to a buffer.
type Encode = Box<dyn FnMut(&User, &mut Vec<u8>) -> anyhow::Result<()>>;

/// The function that encodes a user in this format.
///
/// For Avro, the schema is registered under the topic's subject first.
fn encoder(services: &Services, topic: &str, format: Format) -> anyhow::Result<Encode> {
    if format == Format::Json {
        return Ok(Box::new(|user, out| Ok(serde_json::to_writer(out, user)?)));
    }
    let text = users::avro_schema();
    let registry = registry::open(services.registry()?)?;
    let id = registry.register(&format!("{topic}-value"), &text)?.id;
    let schema = Schema::parse_str(&text)?;
    // The writer borrows the schema, and both live as long as the process.
    let writer = GenericDatumWriter::builder(Box::leak(Box::new(schema))).build()?;
    Ok(Box::new(move |user, out| {
        out.write_all(&[0])?;
        out.write_all(&id.to_be_bytes())?;
        writer.write_ser(out, user)?;
        Ok(())
    }))
}

/// Produces a record, and waits while the producer's queue is full.
pub(crate) fn send(
    producer: &BaseProducer,
    record: BaseRecord<'_, [u8], [u8]>,
) -> anyhow::Result<()> {
    let mut record = record;
    loop {
        match producer.send(record) {
            Ok(()) => return Ok(()),
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                record = back;
                producer.poll(std::time::Duration::from_millis(10));
            }
            Err((error, _)) => return Err(error).context("producing users"),
        }
    }
}
