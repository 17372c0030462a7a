//! `tidemill run --http` and `tidemill ingest --http`: the counters of all stages.

use crate::harness::web::Web;
use crate::harness::{Place, feed};

pub(crate) const LAND: &str = r#"[land]
table = "people"
key = "id"
columns = [
    { name = "id", path = "login.uuid", type = "text" },
    { name = "country", path = "location.country", type = "text" },
]
"#;

pub(crate) const VIEWS: &str = "
CREATE TABLE people WITH (topic = 'people', format = 'avro', envelope = 'debezium');
CREATE MATERIALIZED VIEW countries WITH (primary_key = 'country') AS
  SELECT country, count(*) AS people FROM people GROUP BY country;";

const USERS: f64 = 60.0;

#[test]
fn a_run_counts_each_stage_from_the_api_to_the_views() {
    let place = Place::embedded("counted");
    place.write("ingest.toml", &(feed("observed") + LAND));
    place.write("views.sql", VIEWS);
    let mut run = place.start("run", &["--http", "127.0.0.1:0"]);
    let web = Web::of(&mut run);
    web.until("/readyz", 200);
    let users = USERS.to_string();
    let scrape = web.scrape_until(&format!("{users} users are in the views"), |scrape| {
        scrape.value("tidemill_records_total", &[]) >= Some(USERS)
    });
    let value = |name: &str| scrape.value(name, &[("part", "both")]).unwrap();
    let stages = [
        "tidemill_ingest_fetched_total",
        "tidemill_ingest_landed_total",
        "tidemill_ingest_captured_total",
        "tidemill_ingest_published_total",
    ];
    for stage in stages {
        assert!(value(stage) >= USERS, "{stage} is {}", value(stage));
    }
    assert!(value("tidemill_ingest_pages_total") >= USERS / 20.0);
    assert_eq!(value("tidemill_ingest_dead_letters_total"), 0.0);
    assert_eq!(value("tidemill_ingest_unpublishable_total"), 0.0);
    run.runs();
    run.stop("TERM");

    let mut ingest = place.start("ingest", &["--http", "127.0.0.1:0"]);
    let web = Web::of(&mut ingest);
    web.until("/readyz", 200);
    let scrape = web.scrape_until("it publishes", |scrape| {
        let part = [("part", "ingest")];
        scrape.value("tidemill_ingest_published_total", &part) >= Some(20.0)
    });
    assert!(scrape.values("tidemill_records_total", &[]).is_empty());
    ingest.runs();
    ingest.stop("TERM");
}

#[test]
fn changes_of_a_file_that_are_not_published_yet_are_counted_and_age() {
    let place = Place::embedded("unpublished");
    place.write("ingest.toml", "[capture]\ntables = [\"t\"]\n");
    let file = place.database.strip_prefix("sqlite://").unwrap();
    let writer = tidemill_log::sqlite::connect(file).unwrap();
    writer
        .execute_batch("CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT)")
        .unwrap();
    let mut ingest = place.start("ingest", &["--http", "127.0.0.1:0"]);
    let web = Web::of(&mut ingest);
    web.until("/readyz", 200);
    // The log is in the same file: while another holds its lock nothing is published.
    writer
        .execute_batch(
            "BEGIN IMMEDIATE;
             WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20000)
             INSERT INTO t SELECT i, 'x' FROM n; COMMIT; BEGIN IMMEDIATE",
        )
        .unwrap();
    let waits = |scrape: &crate::harness::exposition::Scrape| {
        let value = |name| scrape.value(name, &[]).unwrap_or(0.0);
        (
            value("tidemill_ingest_lag_changes"),
            value("tidemill_ingest_lag_seconds"),
        )
    };
    let told = web.scrape_until("what waits is counted and ages", |scrape| {
        let (changes, seconds) = waits(scrape);
        changes > 0.0 && seconds > 3.0
    });
    assert!(told.values("tidemill_ingest_lag_bytes", &[]).is_empty());
    writer.execute_batch("COMMIT").unwrap();
    web.scrape_until("nothing waits", |scrape| waits(scrape) == (0.0, 0.0));
    ingest.runs();
    ingest.stop("TERM");
}
