//! Topics that grow partitions or are made anew, while a job runs and while it does not.

use std::collections::BTreeSet;

use arrow::datatypes::DataType;
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions};
use rdkafka::client::DefaultClientContext;
use rdkafka::{Offset, TopicPartitionList};

use crate::harness::{PATIENCE, Place, View, free_port, until};
use crate::upstream::{clean, record};

fn admin(place: &Place) -> AdminClient<DefaultClientContext> {
    let brokers = place.log.strip_prefix("kafka://").unwrap();
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", brokers).create().unwrap()
}

fn block<T>(work: impl Future<Output = T>) -> T {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_all().build().unwrap().block_on(work)
}

fn grow(place: &Place, topic: &str, partitions: usize) {
    let new = NewPartitions::new(topic, partitions);
    let admin = admin(place);
    let grown = block(admin.create_partitions(&[new], &AdminOptions::new()));
    assert!(grown.unwrap()[0].is_ok());
    let log = tidemill_log::log::open(&place.log).unwrap();
    until("the partitions are there", PATIENCE, || {
        let ranges = log.ranges(topic).ok()?;
        (ranges.len() == partitions).then_some(())
    });
}

fn delete(place: &Place, topic: &str) {
    let admin = admin(place);
    block(admin.delete_topics(&[topic], &AdminOptions::new())).unwrap();
    let log = tidemill_log::log::open(&place.log).unwrap();
    until("the topic is gone", PATIENCE, || {
        log.describe(topic).ok()?.is_none().then_some(())
    });
}

fn clicks(place: &Place, partition: u32, from: usize, count: usize) {
    let click = |n: usize| {
        let value = format!(r#"{{"page": "p{}", "ms": {n}}}"#, n % 3);
        record(&place.name, partition, &value)
    };
    place.append(&(from..from + count).map(click).collect::<Vec<_>>());
}

fn pages(place: &Place) {
    place.write(
        "views.sql",
        &format!(
            "CREATE TABLE clicks (page text, ms bigint) WITH (topic = '{}', format = 'json');
             CREATE MATERIALIZED VIEW pages WITH (primary_key = 'page') AS
               SELECT page, count(*) AS clicks, sum(ms) AS ms FROM clicks GROUP BY page;",
            place.name
        ),
    );
}

/// What clicks 0 to `count` come to.
#[track_caller]
fn expect(place: &Place, count: usize) {
    let columns = [
        ("page", DataType::Utf8),
        ("clicks", DataType::Int64),
        ("ms", DataType::Decimal128(29, 0)),
    ];
    let page = |page: usize| {
        let all: Vec<usize> = (0..count).filter(|n| n % 3 == page).collect();
        let sum: usize = all.iter().sum();
        vec![format!("p{page}"), all.len().to_string(), sum.to_string()]
    };
    let rows: BTreeSet<_> = (0..3).map(page).collect();
    place.expect(&View::new("pages", &columns), &rows);
}

#[test]
fn partitions_that_are_added_while_a_job_runs_are_read() {
    let Some(place) = Place::services("added") else {
        return;
    };
    place.topic(&place.name, 1);
    pages(&place);
    clicks(&place, 0, 0, 30);
    let mut job = place.start("dataflow", &["-w", "2"]);
    expect(&place, 30);
    grow(&place, &place.name, 4);
    for partition in 0..4 {
        clicks(&place, partition, 30 + partition as usize * 10, 10);
    }
    expect(&place, 70);
    job.runs();
    // Killed: what was read of them is bound, and comes again from where they began.
    job.kill();
    grow(&place, &place.name, 5);
    clicks(&place, 4, 70, 10);
    clicks(&place, 2, 80, 10);
    // Two processes: what one of them finds the other reads as well.
    let hosts = format!("127.0.0.1:{},127.0.0.1:{}", free_port(), free_port());
    let mut jobs = ["0", "1"].map(|process| {
        let flags = ["-w", "1", "-n", "2", "-p", process, "--hosts", &hosts];
        place.start("dataflow", &flags)
    });
    expect(&place, 90);
    grow(&place, &place.name, 7);
    clicks(&place, 5, 90, 5);
    clicks(&place, 6, 95, 5);
    expect(&place, 100);
    jobs[1].signal("TERM");
    jobs.iter_mut().for_each(|job| {
        job.ends(0, PATIENCE);
    });
    let mut job = place.start("dataflow", &[]);
    clicks(&place, 5, 100, 1);
    expect(&place, 101);
    job.stop("TERM");
}

#[test]
fn a_topic_made_anew_while_a_job_runs_ends_it_with_an_error() {
    let Some(place) = Place::services("renewed") else {
        return;
    };
    place.topic(&place.name, 1);
    pages(&place);
    clicks(&place, 0, 0, 5);
    let mut job = place.start("dataflow", &[]);
    expect(&place, 5);
    delete(&place, &place.name);
    place.topic(&place.name, 1);
    // More than what was read of the old one: offsets alone would not tell.
    clicks(&place, 0, 0, 50);
    let said = job.ends(1, PATIENCE);
    assert!(said.contains(&place.name), "{said}");
    let known = ["made anew", "are gone", "was deleted"];
    assert!(known.iter().any(|part| said.contains(part)), "{said}");
    let said = place.start("dataflow", &[]).ends(1, PATIENCE);
    assert!(said.contains("was deleted and made anew"), "{said}");
    delete(&place, &place.name);
}

#[test]
fn records_that_expire_before_they_are_read_end_the_job_with_an_error() {
    let Some(place) = Place::services("expired") else {
        return;
    };
    place.topic(&place.name, 1);
    pages(&place);
    clicks(&place, 0, 0, 5);
    let mut job = place.start("dataflow", &[]);
    expect(&place, 5);
    job.signal("STOP");
    clicks(&place, 0, 5, 50);
    let mut offsets = TopicPartitionList::new();
    let offset = Offset::Offset(40);
    offsets
        .add_partition_offset(&place.name, 0, offset)
        .unwrap();
    let admin = admin(&place);
    block(admin.delete_records(&offsets, &AdminOptions::new())).unwrap();
    job.signal("CONT");
    let said = job.ends(1, PATIENCE);
    assert!(
        said.contains(&place.name) && said.contains("are gone"),
        "{said}"
    );
    delete(&place, &place.name);
}

fn users(place: &Place) -> postgres::Client {
    let mut client = postgres::Client::connect(&place.database, postgres::NoTls).unwrap();
    let table = &place.name;
    client
        .batch_execute(&format!(
            "CREATE TABLE {table} (id int PRIMARY KEY, n int);
             INSERT INTO {table} SELECT n, n % 7 FROM generate_series(1, 500) n"
        ))
        .unwrap();
    place.write(
        "ingest.toml",
        &format!("[capture]\ntables = [\"{table}\"]\n[publish]\npartitions = 2\n"),
    );
    client
}

/// Waits until the topic holds this many records.
fn holds(place: &Place, count: i64) {
    let log = tidemill_log::log::open(&place.log).unwrap();
    until(&format!("{count} records"), PATIENCE, || {
        let ranges = log.ranges(&place.name).ok()?;
        let held: i64 = ranges.iter().map(|range| range.high - range.low).sum();
        (held == count).then_some(())
    });
}

#[test]
fn a_topic_that_ingest_lost_is_an_error_and_resnapshot_fills_it() {
    let Some(place) = Place::services("lost") else {
        return;
    };
    let mut client = users(&place);
    let topic = place.name.clone();
    let mut ingest = place.start("ingest", &[]);
    holds(&place, 500);
    ingest.stop("TERM");
    delete(&place, &topic);
    let said = place.start("ingest", &[]).ends(1, PATIENCE);
    let right = |said: &str| said.contains(&topic) && said.contains("--resnapshot");
    assert!(right(&said) && said.contains("made anew"), "{said}");
    let mut ingest = place.start("ingest", &["--resnapshot"]);
    holds(&place, 500);
    // A key stays in its partition when others are added, also after a restart.
    grow(&place, &topic, 5);
    ingest.stop("TERM");
    let mut ingest = place.start("ingest", &[]);
    let update = format!("UPDATE {topic} SET n = n + 1");
    client.batch_execute(&update).unwrap();
    holds(&place, 1_000);
    let log = tidemill_log::log::open(&place.log).unwrap();
    let used = log.ranges(&topic).unwrap();
    assert!(used[..2].iter().all(|range| range.high > 300), "{used:?}");
    assert!(used[2..].iter().all(|range| range.high == 0), "{used:?}");
    // Deleted while it runs.
    delete(&place, &topic);
    let said = ingest.ends(1, PATIENCE);
    assert!(right(&said), "{said}");
    clean(&mut client, &place.name, &[&topic]);
}

#[test]
fn a_registry_that_lost_the_topics_schemas_is_an_error_that_names_both() {
    let place = Place::embedded("schemas");
    let file = place.log.strip_prefix("sqlite://").unwrap().to_owned();
    let sql = tidemill_log::sqlite::connect(&file).unwrap();
    let table = place.name.clone();
    sql.execute_batch(&format!(
        "CREATE TABLE {table} (id INTEGER PRIMARY KEY, n INTEGER);
         INSERT INTO {table} VALUES (1, 1), (2, 2)"
    ))
    .unwrap();
    place.write(
        "ingest.toml",
        &format!("[capture]\ntables = [\"{table}\"]\n"),
    );
    let mut ingest = place.start("ingest", &[]);
    holds(&place, 2);
    ingest.stop("TERM");
    let last: u32 = sql
        .query_row("SELECT max(id) FROM _tidemill_schemas", [], |row| {
            row.get(0)
        })
        .unwrap();
    let names = |said: &str| {
        assert!(said.contains(&format!("`{table}`")), "{said}");
        assert!(said.contains(&format!("schema {last}")), "{said}");
    };
    // Made anew, it gives the id to another schema.
    let renamed = |from: &str, to: &str| {
        let update = "UPDATE _tidemill_schemas SET schema = replace(schema, ?1, ?2)";
        sql.execute(update, [from, to]).unwrap();
    };
    renamed("\"n\"", "\"m\"");
    let said = place.start("ingest", &[]).ends(1, PATIENCE);
    names(&said);
    assert!(said.contains("another one in the registry"), "{said}");
    renamed("\"m\"", "\"n\"");
    // It loses its schemas while the ingest runs, and while it is stopped.
    let mut ingest = place.start("ingest", &[]);
    sql.execute_batch(&format!("INSERT INTO {table} VALUES (3, 3)"))
        .unwrap();
    let log = tidemill_log::log::open(&place.log).unwrap();
    until("the third row", PATIENCE, || {
        let rows = log.tail(&place.name, 9).ok()?;
        let rows = rows.iter().filter(|record| record.key.is_some());
        (rows.count() == 3).then_some(())
    });
    sql.execute_batch("DELETE FROM _tidemill_schemas").unwrap();
    let said = ingest.ends(1, PATIENCE);
    assert!(said.contains("does not have any more"), "{said}");
    names(&place.start("ingest", &[]).ends(1, PATIENCE));
}
