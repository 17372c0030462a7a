//! The topics of the events, one for each table, filled once for each number of events.

use std::time::Duration;

use anyhow::bail;
use rdkafka::producer::{BaseRecord, Producer};
use tidemill_log::log;

use super::events::{Events, Kind, VERSION};
use crate::harness::services::Services;
use crate::harness::topic::{PARTITIONS, held, producer, send};

/// The name of a table's topic.
pub(super) fn name(kind: Kind, events: u64) -> String {
    format!("bench_nexmark_{}_{events}_v{VERSION}", kind.table())
}

/// Fills the topics with the first `events` events, unless they are full. The records of a topic
/// are in its partitions in turn.
///
/// # Errors
/// A topic has other records, or Kafka does not answer.
pub(super) fn fill(services: &Services, events: u64) -> anyhow::Result<()> {
    let log = log::open(services.kafka()?)?;
    let topics = Kind::ALL.map(|kind| name(kind, events));
    for topic in &topics {
        log.create_topic(topic, PARTITIONS)?;
    }
    let all_held = || {
        topics
            .iter()
            .map(|topic| held(&*log, topic))
            .sum::<anyhow::Result<i64>>()
    };
    let held = all_held()?;
    if held == events as i64 {
        return Ok(());
    }
    if held != 0 {
        bail!("the topics hold {held} other events: start with services/down --wipe");
    }
    eprintln!("filling the topics with {events} events");
    let producer = producer(services)?;
    let (mut generator, mut row) = (Events::default(), String::new());
    for index in 0..events {
        let kind = generator.next(&mut row);
        let partition = (index % u64::from(PARTITIONS)) as i32;
        let record = BaseRecord::<[u8], [u8]>::to(&topics[kind as usize]);
        send(
            &producer,
            record.partition(partition).payload(row.as_bytes()),
        )?;
    }
    producer.flush(Duration::from_secs(60))?;
    let held = all_held()?;
    if held != events as i64 {
        bail!("the topics hold {held} events after {events} were produced");
    }
    Ok(())
}
