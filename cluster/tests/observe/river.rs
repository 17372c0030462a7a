//! `tidemill run --http` and `tidemill ingest --http`: the counters of all stages.

use crate::harness::{Place, feed};
use crate::web::Web;

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
