//! What is upstream of the dataflow and changes or fails: the database's slot, a snapshot cut off,
//! Kafka away, topics that grow or are made anew, and what becomes of dead letters.

mod away;
mod first;
mod letters;
mod removal;
mod slot;
mod snapshot;
mod topics;

use tidemill_log::log::Record;

/// A record without a key for a partition of a topic.
fn record(topic: &str, partition: u32, value: &str) -> Record {
    Record {
        topic: topic.to_owned(),
        partition: Some(partition),
        key: None,
        value: Some(value.as_bytes().to_vec()),
        timestamp_ms: 1,
    }
}

/// Leaves nothing in a PostgreSQL that others use too.
fn clean(client: &mut postgres::Client, name: &str, tables: &[&str]) {
    let slot = format!("tidemill_{name}");
    let drop = "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots
                WHERE slot_name = $1";
    crate::harness::until(
        "the replication slot is free",
        crate::harness::PATIENCE,
        || client.execute(drop, &[&slot]).ok(),
    );
    let mut sql = format!("DROP PUBLICATION IF EXISTS {slot};");
    for table in tables {
        sql += &format!("DROP TABLE IF EXISTS {table};");
    }
    client.batch_execute(&sql).unwrap();
}
