//! What a job must not go on with: a clear error and exit code 1, never wrong views.

use std::collections::BTreeSet;

use arrow::datatypes::DataType;
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::{Offset, TopicPartitionList};
use tidemill_log::log::Record;

use crate::harness::{PATIENCE, Place, View, until};

fn views(place: &Place, count: &str) -> String {
    format!(
        "CREATE TABLE clicks (page text, ms bigint) WITH (topic = '{}', format = 'json');
         CREATE MATERIALIZED VIEW pages WITH (primary_key = 'page') AS
           SELECT page, {count} AS clicks FROM clicks GROUP BY page;",
        place.name
    )
}

fn click(place: &Place, count: usize) {
    let record = Record {
        topic: place.name.clone(),
        partition: Some(0),
        key: None,
        value: Some(br#"{"page": "/", "ms": 5}"#.to_vec()),
        timestamp_ms: 1,
    };
    place.append(&vec![record; count]);
}

fn clicks(place: &Place, count: usize) {
    let columns = [("page", DataType::Utf8), ("clicks", DataType::Int64)];
    let rows = BTreeSet::from([vec!["/".to_owned(), count.to_string()]]);
    place.expect(&View::new("pages", &columns), &rows);
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
}

#[test]
fn a_table_with_other_columns_is_refused() {
    let embedded = Place::embedded("columns");
    let file = embedded.sink.strip_prefix("sqlite://").unwrap();
    let file = tidemill_log::sqlite::connect(file).unwrap();
    file.execute_batch("CREATE TABLE pages (page TEXT PRIMARY KEY, visits INTEGER)")
        .unwrap();
    let mut places = vec![embedded];
    if let Some(place) = Place::services("columns") {
        let node = place.sink.strip_prefix("cassandra://").unwrap();
        let (node, keyspace) = node.split_once('/').unwrap();
        runtime().block_on(async {
            let session = scylla::client::session_builder::SessionBuilder::new()
                .known_node(node)
                .build()
                .await
                .unwrap();
            let replication = "{'class': 'SimpleStrategy', 'replication_factor': 1}";
            for statement in [
                format!("CREATE KEYSPACE {keyspace} WITH replication = {replication}"),
                format!("CREATE TABLE {keyspace}.pages (page text PRIMARY KEY, clicks text)"),
            ] {
                session.query_unpaged(statement, ()).await.unwrap();
            }
        });
        places.push(place);
    }
    for place in places {
        place.topic(&place.name, 1);
        place.write("views.sql", &views(&place, "count(*)"));
        let said = place.start("dataflow", &[]).ends(1, PATIENCE);
        assert!(
            said.contains("`pages`") && said.contains("clicks"),
            "{said}"
        );
    }
}

#[test]
fn a_journal_that_was_lost_is_refused() {
    let Some(place) = Place::services("lost") else {
        return;
    };
    place.topic(&place.name, 1);
    click(&place, 3);
    place.write("views.sql", &views(&place, "count(*)"));
    let mut job = place.start("dataflow", &[]);
    clicks(&place, 3);
    job.stop("TERM");
    std::fs::remove_dir_all(place.folder().join("journal")).unwrap();
    let said = place.start("dataflow", &[]).ends(1, PATIENCE);
    assert!(said.contains("`pages` is filled through epoch"), "{said}");
}

fn admin(place: &Place) -> AdminClient<DefaultClientContext> {
    let brokers = place.log.strip_prefix("kafka://").unwrap();
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", brokers).create().unwrap()
}

/// A job that has counted five clicks and was stopped.
fn counted(name: &str) -> Option<Place> {
    let place = Place::services(name)?;
    place.topic(&place.name, 1);
    click(&place, 5);
    place.write("views.sql", &views(&place, "count(*)"));
    let mut job = place.start("dataflow", &[]);
    clicks(&place, 5);
    job.stop("TERM");
    Some(place)
}

/// Deletes the records below an offset, as retention does.
fn shorten(place: &Place, to: i64) {
    let mut offsets = TopicPartitionList::new();
    let offset = Offset::Offset(to);
    offsets
        .add_partition_offset(&place.name, 0, offset)
        .unwrap();
    let (admin, options) = (admin(place), AdminOptions::new());
    let deleted = admin.delete_records(&offsets, &options);
    runtime().block_on(deleted).unwrap();
}

fn refused(place: &Place, part: &str) {
    let said = place.start("dataflow", &[]).ends(1, PATIENCE);
    assert!(said.contains(part) && said.contains(&place.name), "{said}");
}

#[test]
fn a_topic_that_was_made_anew_is_refused() {
    let Some(place) = counted("anew") else { return };
    let (admin, options) = (admin(&place), AdminOptions::new());
    let deleted = admin.delete_topics(&[&place.name], &options);
    runtime().block_on(deleted).unwrap();
    let log = tidemill_log::log::open(&place.log).unwrap();
    until("the topic is made anew", PATIENCE, || {
        // Until the old one is gone altogether it cannot be made.
        let _made = log.create_topic(&place.name, 1);
        let ranges = log.ranges(&place.name).ok()?;
        (ranges[0].high == 0).then_some(())
    });
    click(&place, 1);
    refused(&place, "was deleted and made anew");
}

#[test]
fn what_retention_removed_is_missed_only_where_no_checkpoint_holds_it() {
    let Some(place) = counted("short") else {
        return;
    };
    shorten(&place, 2);
    click(&place, 1);
    let mut job = place.start("dataflow", &[]);
    clicks(&place, 6);
    job.stop("TERM");
    // A view that no checkpoint knows would need all of them.
    let known = views(&place, "count(*)");
    let new = "CREATE MATERIALIZED VIEW total WITH (primary_key = 'all') AS
                 SELECT 1 AS all, sum(ms) AS ms FROM clicks GROUP BY 1;";
    place.write("views.sql", &format!("{known} {new}"));
    refused(&place, "begins at offset 2, and it was 0");
    // And these nobody has read.
    place.write("views.sql", &known);
    click(&place, 3);
    shorten(&place, 8);
    refused(&place, "begins at offset 8, but it was 6");
}
