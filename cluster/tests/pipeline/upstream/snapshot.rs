//! A snapshot that is cut off by a crash, and rows that change before it is taken again.

use std::collections::BTreeSet;

use arrow::datatypes::DataType;

use crate::harness::{PATIENCE, Place, View, until};
use crate::upstream::clean;

const ROWS: i64 = 150_000;

fn published(place: &Place) -> tidemill_log::Result<i64> {
    let log = tidemill_log::log::open(&place.log).unwrap();
    let ranges = log.ranges(&place.name)?;
    Ok(ranges.iter().map(|range| range.high).sum())
}

fn pipeline(place: &Place, table: &str) {
    place.write(
        "ingest.toml",
        &format!("[capture]\ntables = [\"{table}\"]\n[publish]\npartitions = 3\n"),
    );
    place.write(
        "views.sql",
        &format!(
            "CREATE TABLE {table} WITH (topic = '{table}', format = 'avro',
               envelope = 'debezium');
             CREATE MATERIALIZED VIEW buckets WITH (primary_key = 'bucket') AS
               SELECT bucket, count(*) AS rows, sum(n) AS n FROM {table} GROUP BY bucket;"
        ),
    );
}

#[test]
fn a_snapshot_that_was_killed_in_its_middle_leaves_nothing_behind() {
    let Some(place) = Place::services("snapshot") else {
        return;
    };
    let table = place.name.clone();
    let mut client = postgres::Client::connect(&place.database, postgres::NoTls).unwrap();
    client
        .batch_execute(&format!(
            "CREATE TABLE {table} (id int PRIMARY KEY, bucket int, n int);
             ALTER TABLE {table} REPLICA IDENTITY FULL;
             INSERT INTO {table} SELECT n, n % 100, n FROM generate_series(1, {ROWS}) n"
        ))
        .unwrap();
    pipeline(&place, &table);
    let mut before = 0;
    for kill in 1..=3 {
        let mut ingest = place.start("ingest", &[]);
        until("part of the snapshot is published", PATIENCE, || {
            ingest.runs();
            // There may be no topic yet.
            (published(&place).ok()? > before + 2_000 * kill).then_some(())
        });
        ingest.kill();
        before = published(&place).unwrap();
        let done: bool = client
            .query_one(
                "SELECT snapshot_done FROM _tidemill_capture WHERE name = $1",
                &[&format!("tidemill_{table}")],
            )
            .unwrap()
            .get(0);
        assert!(!done, "the snapshot was not cut off");
        client
            .batch_execute(&format!(
                "DELETE FROM {table} WHERE id % 50 = {kill};
                 UPDATE {table} SET bucket = 1000 + {kill} WHERE id % 51 = {kill}"
            ))
            .unwrap();
    }
    let mut ingest = place.start("ingest", &[]);
    let mut job = place.start("dataflow", &["-w", "2"]);
    client
        .batch_execute(&format!("UPDATE {table} SET n = n + 1 WHERE id % 97 = 0"))
        .unwrap();
    let columns = [
        ("bucket", DataType::Int32),
        ("rows", DataType::Int64),
        ("n", DataType::Int64),
    ];
    let sql = format!("SELECT bucket, count(*), sum(n) FROM {table} GROUP BY 1");
    let rows = client.query(&sql, &[]).unwrap();
    let row = |row: &postgres::Row| {
        let (bucket, rows, n): (i32, i64, i64) = (row.get(0), row.get(1), row.get(2));
        vec![bucket.to_string(), rows.to_string(), n.to_string()]
    };
    let rows: BTreeSet<_> = rows.iter().map(row).collect();
    assert!(rows.len() > 90);
    place.expect(&View::new("buckets", &columns), &rows);
    ingest.runs();
    job.stop("TERM");
    ingest.stop("TERM");
    clean(&mut client, &table, &[&table]);
}
