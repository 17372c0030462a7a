//! `tidemill dataflow --http`: what it says before and after it is live, and after a restart.

use serde_json::json;
use tidemill_log::log::Record;

use crate::harness::exposition::Scrape;
use crate::harness::web::Web;
use crate::harness::{Place, Process};

const PEOPLE: u64 = 100;
const BROKEN: u64 = 2;
const FLAGS: [&str; 6] = [
    "--http",
    "127.0.0.1:0",
    "-w",
    "2",
    "--checkpoint-every",
    "200ms",
];

fn place() -> Place {
    let place = Place::embedded("observed");
    let name = &place.name;
    let sql = format!(
        "CREATE TABLE people (id text, country text, age bigint)
           WITH (topic = '{name}.people', format = 'json', envelope = 'upsert');
         CREATE MATERIALIZED VIEW everyone WITH (primary_key = 'id') AS
           SELECT id, country, age FROM people;
         CREATE MATERIALIZED VIEW ids WITH (primary_key = 'id') AS
           SELECT id, count(*) AS times FROM people GROUP BY id;
         CREATE MATERIALIZED VIEW countries WITH (primary_key = 'country') AS
           SELECT country, count(*) AS people FROM people GROUP BY country;"
    );
    place.write("views.sql", &sql);
    place
}

fn records(place: &Place, from: u64) -> Vec<Record> {
    let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_millis() as i64;
    let record = |number: u64, value: String| Record {
        topic: format!("{}.people", place.name),
        partition: Some((number % 3) as u32),
        key: Some(format!("p{number:06}").into_bytes()),
        value: Some(value.into_bytes()),
        timestamp_ms: now,
    };
    let people = (from..from + PEOPLE).map(|number| {
        let country = format!("c{}", number % 5);
        let row = json!({"id": format!("p{number:06}"), "country": country, "age": number});
        record(number, row.to_string())
    });
    // Of keys of their own: a key whose newest record is broken has no row.
    let broken = (0..BROKEN).map(|number| record(from + PEOPLE + number, "{broken".to_owned()));
    people.chain(broken).collect()
}

fn bytes(records: &[Record]) -> usize {
    let len = |bytes: &Option<Vec<u8>>| bytes.as_ref().map_or(0, Vec::len);
    let of = |record: &Record| len(&record.key) + len(&record.value);
    records.iter().map(of).sum()
}

/// Nothing is behind, in each of the three partitions.
fn caught_up(scrape: &Scrape) -> bool {
    let lag = scrape.values("tidemill_lag_records", &[]);
    lag.len() == 3 && lag.iter().all(|behind| *behind == 0.0)
}

fn operator(scrape: &Scrape, metric: &str, name: &str) -> Option<f64> {
    scrape.value(metric, &[("operator", name)])
}

#[track_caller]
fn holds(scrape: &Scrape, rows: f64) {
    let held = |name| operator(scrape, "tidemill_operator_state_rows", name);
    assert_eq!(held("ids: Reduce by id"), Some(rows), "one group a person");
    assert_eq!(held("Source people"), Some(rows), "the row of each key");
    assert!(held("countries: Reduce by country") >= Some(5.0));
    assert_eq!(held("ids: Write"), None, "its key is proven");
    assert_eq!(held("everyone: Write"), Some(rows), "its key is checked");
    let size = operator(scrape, "tidemill_operator_state_bytes", "Source people");
    let each = size.unwrap() / rows;
    assert!((20.0..1000.0).contains(&each), "{each} bytes a row");
    for view in ["everyone", "ids"] {
        let view = scrape.value("tidemill_view_rows", &[("view", view)]);
        assert_eq!(view, Some(rows));
    }
}

fn stopped(mut job: Process) {
    job.runs();
    job.stop("TERM");
}

#[test]
fn a_dataflow_says_when_it_is_ready_and_counts_what_was_put_in() {
    let place = place();
    let mut job = place.start("dataflow", &FLAGS);
    let web = Web::of(&mut job);
    assert_eq!(web.get("/healthz").body, "ok\n");
    let why = web.until("/readyz", 503).body;
    assert!(!why.trim().is_empty());
    let waiting = format!("waiting for the topic `{}.people`", place.name);
    crate::harness::until(&waiting, crate::harness::PATIENCE, || {
        web.get("/readyz").body.contains(&waiting).then_some(())
    });
    assert_eq!(web.scrape().value("tidemill_ready", &[]), Some(0.0));

    place.topic(&format!("{}.people", place.name), 3);
    let ready = web.until("/readyz", 200).body;
    assert!(ready.contains(r#""ready":true"#), "{ready}");
    let put = records(&place, 0);
    place.append(&put);
    let scrape = web.scrape_until("all is read, durable and checkpointed", |scrape| {
        scrape.value("tidemill_records_total", &[]) == Some(put.len() as f64)
            && caught_up(scrape)
            && scrape.value("tidemill_epoch_durable_timestamp_seconds", &[])
                == scrape.value("tidemill_epoch_checkpointed_timestamp_seconds", &[])
            && operator(scrape, "tidemill_operator_state_rows", "ids: Reduce by id")
                == Some(PEOPLE as f64)
    });
    let value = |name: &str| scrape.value(name, &[]);
    assert_eq!(value("tidemill_ready"), Some(1.0));
    assert_eq!(value("tidemill_keys_in_error"), Some(BROKEN as f64));
    assert_eq!(
        value("tidemill_records_bytes_total"),
        Some(bytes(&put) as f64)
    );
    assert_eq!(value("tidemill_dead_letters_total"), Some(BROKEN as f64));
    assert!(value("tidemill_checkpoints_total") >= Some(1.0));
    assert!(value("tidemill_checkpoint_state_bytes") > Some(100.0));
    assert!(value("tidemill_recovery_duration_seconds") > Some(0.0));
    assert!(value("tidemill_freshness_seconds_count") >= Some(1.0));
    let p99 = scrape.value("tidemill_recent_freshness_seconds", &[("quantile", "0.99")]);
    assert!(
        p99.is_some_and(|seconds| seconds > 0.0 && seconds < 60.0),
        "{p99:?}"
    );
    holds(&scrape, PEOPLE as f64);
    let busy: f64 = scrape
        .values("tidemill_operator_busy_seconds_total", &[])
        .iter()
        .sum();
    assert!(busy > 0.0, "nothing took any time");
    let named = [
        ("job", place.name.as_str()),
        ("generation", "1"),
        ("process", "0"),
        ("part", "dataflow"),
    ];
    assert!(scrape.value("tidemill_records_total", &named).is_some());
    stopped(job);

    // The next run has its state from a checkpoint, and reads nothing again.
    let mut job = place.start("dataflow", &FLAGS);
    let web = Web::of(&mut job);
    web.until("/readyz", 200);
    let scrape = web.scrape_until("all that was there is there again", |scrape| {
        caught_up(scrape)
            && operator(scrape, "tidemill_operator_state_rows", "ids: Reduce by id")
                == Some(PEOPLE as f64)
    });
    let second = [("generation", "2")];
    assert_eq!(scrape.value("tidemill_records_total", &second), Some(0.0));
    assert!(scrape.value("tidemill_restore_duration_seconds", &second) > Some(0.0));
    holds(&scrape, PEOPLE as f64);
    stopped(job);
}

#[test]
fn why_it_is_not_ready_holds_no_password() {
    let place = Place::embedded("waiting");
    let sql = "CREATE TABLE t WITH (topic = 't', format = 'avro', envelope = 'debezium');
               CREATE MATERIALIZED VIEW v WITH (primary_key = 'id') AS SELECT id FROM t;";
    place.write("views.sql", sql);
    let nobody = crate::harness::free_port();
    let registry = format!("http://user:sesame@127.0.0.1:{nobody}");
    let connections = format!("[connections]\nregistry = '{registry}'\n");
    place.write("tidemill.toml", &connections);
    let flags = ["--http", "127.0.0.1:0"];
    let mut job = place.start("dataflow", &flags);
    let web = Web::of(&mut job);
    crate::harness::until("it waits", crate::harness::PATIENCE, || {
        let answer = web.get("/readyz");
        assert_eq!(answer.status, 503);
        assert!(!answer.body.contains("sesame"), "{}", answer.body);
        answer.body.contains("waiting").then_some(())
    });
    assert!(!web.get("/metrics").body.contains("sesame"));
    assert!(!job.said().contains("sesame"), "{}", job.said());
    stopped(job);
}
