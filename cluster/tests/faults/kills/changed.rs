//! A pipeline that is changed between two runs: views are added, altered and dropped.

use std::collections::BTreeSet;

use arrow::datatypes::DataType;
use tidemill_log::failpoint;
use tidemill_log::log::Record;

use crate::harness::{PATIENCE, Place, View, until};

/// The views, each as what is selected from clicks.
fn write(place: &Place, views: &[(&str, &str)]) {
    let mut sql = format!(
        "CREATE TABLE clicks (page text, ms bigint) WITH (topic = '{}', format = 'json');\n",
        place.name
    );
    for (name, what) in views {
        sql += &format!(
            "CREATE MATERIALIZED VIEW {name} WITH (primary_key = 'page') AS
               SELECT page, {what} AS n FROM clicks GROUP BY page;\n"
        );
    }
    place.write("views.sql", &sql);
}

fn click(place: &Place, ms: i64) {
    let value = format!(r#"{{"page": "/", "ms": {ms}}}"#);
    place.append(&[Record {
        topic: place.name.clone(),
        partition: Some(0),
        key: None,
        value: Some(value.into_bytes()),
        timestamp_ms: 1,
    }]);
}

fn expect(place: &Place, view: &str, n: i64) {
    expect_of(place, view, n, DataType::Int64);
}

/// The sum of bigints is a numeric.
fn expect_sum(place: &Place, view: &str, n: i64) {
    expect_of(place, view, n, DataType::Decimal128(29, 0));
}

fn expect_of(place: &Place, view: &str, n: i64, kind: DataType) {
    let columns = [("page", DataType::Utf8), ("n", kind)];
    let rows = BTreeSet::from([vec!["/".to_owned(), n.to_string()]]);
    place.expect(&View::new(view, &columns), &rows);
}

/// What `tidemill plan` says of something.
fn planned(place: &Place, what: &str, says: &str) {
    let said = place.start("plan", &[]).ends(0, PATIENCE);
    let line = said
        .lines()
        .find(|line| line.trim_start().starts_with(what));
    assert!(
        line.is_some_and(|line| line.contains(says)),
        "{what}: {says}?\n{said}"
    );
}

#[test]
fn views_are_kept_filled_anew_and_dropped() {
    for place in Place::all("changing") {
        place.topic(&place.name, 1);
        click(&place, 5);
        click(&place, 7);
        write(
            &place,
            &[
                ("counts", "count(*)"),
                ("altered", "count(*)"),
                ("gone", "min(ms)"),
            ],
        );
        let mut job = place.start("dataflow", &["-w", "2"]);
        expect(&place, "counts", 2);
        expect(&place, "altered", 2);
        expect(&place, "gone", 5);
        job.stop("TERM");
        planned(&place, &place.name, "read on: 0 records");
        click(&place, 1);
        write(
            &place,
            &[
                ("counts", "count(*)"),
                ("altered", "sum(ms)"),
                ("added", "max(ms)"),
            ],
        );
        planned(&place, "counts", "kept");
        planned(
            &place,
            "altered",
            "altered: its table is made and filled anew",
        );
        planned(&place, "added", "new: its table is filled");
        planned(&place, "gone", "dropped: its state is deleted");
        planned(&place, &place.name, "read from its beginning: 3 records");
        let mut job = place.start("dataflow", &["-w", "1"]);
        expect(&place, "counts", 3);
        expect_sum(&place, "altered", 13);
        expect(&place, "added", 7);
        job.stop("TERM");
        // What was made anew is kept from now on.
        planned(&place, "altered", "kept");
        planned(&place, &place.name, "read on: 0 records");
        click(&place, 9);
        let mut job = place.start("dataflow", &["-w", "3"]);
        expect(&place, "counts", 4);
        expect_sum(&place, "altered", 22);
        expect(&place, "added", 9);
        job.stop("TERM");
    }
}

/// A change of a view is taken back after a start that dropped the view's table and died.
#[test]
fn a_view_whose_table_is_gone_is_filled_anew() {
    for place in Place::all("gone") {
        place.topic(&place.name, 1);
        click(&place, 5);
        click(&place, 7);
        let views = |altered| [("counts", "count(*)"), ("altered", altered)];
        write(&place, &views("count(*)"));
        let mut job = place.start("dataflow", &["-w", "2"]);
        expect(&place, "counts", 2);
        expect(&place, "altered", 2);
        job.stop("TERM");
        match place.sink.strip_prefix("sqlite://") {
            // Here a start drops table and frontier at once; a person does not.
            Some(file) => {
                let file = tidemill_log::sqlite::connect(file).unwrap();
                file.execute_batch("DROP TABLE altered").unwrap();
            }
            None => {
                write(&place, &views("sum(ms)"));
                let point = failpoint::SINK_BETWEEN_DROPS.name();
                let mut died = place.start_armed("dataflow", &["-w", "2"], point);
                assert_eq!(died.end(PATIENCE).code(), None);
                write(&place, &views("count(*)"));
            }
        }
        planned(&place, "altered", "its table is gone");
        let mut job = place.start("dataflow", &["-w", "2"]);
        job.says("the view's table is gone");
        expect(&place, "altered", 2);
        click(&place, 9);
        expect(&place, "counts", 3);
        expect(&place, "altered", 3);
        job.stop("TERM");
        planned(&place, "altered", "kept");
    }
}

/// Nothing comes after the view was altered, and the job is killed.
#[test]
fn an_altered_view_of_an_idle_topic_is_filled_once() {
    for place in Place::all("idle") {
        place.topic(&place.name, 1);
        click(&place, 5);
        write(&place, &[("altered", "count(*)")]);
        let mut job = place.start("dataflow", &["-w", "2"]);
        expect(&place, "altered", 1);
        job.stop("TERM");
        write(&place, &[("altered", "sum(ms)")]);
        let job = place.start("dataflow", &["-w", "2"]);
        expect_sum(&place, "altered", 5);
        let sink = tidemill_sinks::open(&place.sink).unwrap();
        until("the view has a frontier", PATIENCE, || {
            let frontier = sink.frontiers(&place.name).unwrap().remove("altered");
            frontier.and_then(|frontier| frontier.epoch)
        });
        job.kill();
        planned(&place, "altered", "kept");
    }
}
