//! Temporal filters in a process with the clock of the machine: a row leaves a view although no
//! record arrives, and nothing looks late because of it.

use std::time::{Duration, SystemTime};

use arrow::temporal_conversions::timestamp_ms_to_datetime;
use serde_json::json;
use tidemill_log::log::Record;

use crate::harness::exposition::Scrape;
use crate::harness::web::Web;
use crate::harness::{PATIENCE, Place};

const FLAGS: [&str; 6] = [
    "--http",
    "127.0.0.1:0",
    "-w",
    "2",
    "--checkpoint-every",
    "200ms",
];

/// A row that ends after so many seconds.
fn session(place: &Place, id: u64, seconds: u64) -> Record {
    let now = SystemTime::UNIX_EPOCH.elapsed().unwrap();
    let gone = (now + Duration::from_secs(seconds)).as_millis() as i64;
    let gone = timestamp_ms_to_datetime(gone).unwrap().to_string();
    let row = json!({"id": id, "gone": format!("{}Z", gone.replace(' ', "T"))});
    Record {
        topic: place.name.clone(),
        partition: Some(0),
        key: None,
        value: Some(row.to_string().into_bytes()),
        timestamp_ms: now.as_millis() as i64,
    }
}

fn rows(scrape: &Scrape) -> Option<f64> {
    scrape.value("tidemill_view_rows", &[("view", "live")])
}

fn held(scrape: &Scrape) -> Option<f64> {
    let name = ("operator", "live: Temporal filter");
    scrape.value("tidemill_operator_state_rows", &[name])
}

#[test]
fn a_row_leaves_a_view_although_no_record_arrives() {
    let place = Place::embedded("passing");
    let name = &place.name;
    let sql = format!(
        "CREATE TABLE sessions (id int, gone timestamptz) WITH (topic = '{name}', format = 'json');
         CREATE MATERIALIZED VIEW live WITH (primary_key = 'id') AS
           SELECT id FROM sessions WHERE gone > now();"
    );
    place.write("views.sql", &sql);
    place.topic(name, 1);
    let mut job = place.start("dataflow", &FLAGS);
    let web = Web::of(&mut job);
    web.until("/readyz", 200);
    // A slow machine may see the first row only when it has ended; then a later one is taken.
    let mut seen = None;
    for (id, seconds) in [(1, 4), (2, 30), (3, 120)] {
        place.append(&[session(&place, id, seconds)]);
        let scrape = web.scrape_until("the row is read", |scrape| {
            scrape.value("tidemill_records_total", &[]) == Some(id as f64)
                && scrape.value("tidemill_freshness_seconds_count", &[]) == Some(id as f64)
        });
        if rows(&scrape) == Some(1.0) {
            seen = Some(scrape);
            break;
        }
    }
    let before = seen.expect("a row is seen before it ends");
    let after = web.scrape_until("the row is gone, and not held", |scrape| {
        rows(scrape) == Some(0.0) && held(scrape) == Some(0.0)
    });
    for unchanged in ["tidemill_records_total", "tidemill_freshness_seconds_count"] {
        let of = |scrape: &Scrape| scrape.value(unchanged, &[]);
        assert_eq!(of(&before), of(&after), "{unchanged}");
    }
    let lag = after.values("tidemill_lag_records", &[]);
    assert_eq!(lag, [0.0]);
    assert_eq!(web.get("/readyz").status, 200);
    job.runs();
    job.stop("TERM");
    let mut verify = place.start("verify", &[]);
    verify.ends(0, PATIENCE);
}
