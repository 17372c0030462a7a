//! `tidemill dead-letters`: what was put aside is listed, shown, and put back once.

use serde_json::Value;
use tidemill_log::log::Record;

use crate::harness::{PATIENCE, Place, until};
use crate::upstream::record;

fn keyed(topic: &str, key: &str, value: &str) -> Record {
    Record {
        key: Some(key.as_bytes().to_vec()),
        ..record(topic, 0, value)
    }
}

fn command(place: &Place, verb: &str, more: &[&str]) -> String {
    let mut process = place.start_verb("dead-letters", verb, more);
    process.ends(0, PATIENCE)
}

fn listed(place: &Place, more: &[&str]) -> Vec<Value> {
    let said = command(place, "list", &[&["--json"], more].concat());
    said.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn high(place: &Place, topic: &str) -> i64 {
    let log = tidemill_log::log::open(&place.log).unwrap();
    log.ranges(topic).unwrap()[0].high
}

fn views(place: &Place, carts: &str, clicks: &str) {
    place.write(
        "views.sql",
        &format!(
            "CREATE TABLE carts (id text, pieces bigint)
               WITH (topic = '{carts}', format = 'json', envelope = 'upsert');
             CREATE TABLE clicks (page text, ms bigint)
               WITH (topic = '{clicks}', format = 'json', envelope = 'append');
             CREATE MATERIALIZED VIEW sizes WITH (primary_key = 'id') AS
               SELECT id, pieces FROM carts;
             CREATE MATERIALIZED VIEW named WITH (primary_key = 'page') AS
               SELECT page, ms FROM clicks;"
        ),
    );
}

#[test]
fn records_that_cannot_be_decoded_go_back_into_their_topic_once() {
    for place in Place::all("letters") {
        let (carts, clicks) = (
            format!("{}_carts", place.name),
            format!("{}_clicks", place.name),
        );
        views(&place, &carts, &clicks);
        place.topic(&carts, 1);
        place.topic(&clicks, 1);
        assert!(command(&place, "list", &[]).contains("no dead letters"));
        place.append(&[
            keyed(&carts, "a", "nothing"),
            keyed(&carts, "b", "{\"id\": \"b\", \"pieces\": \"ü\"}"),
            keyed(&carts, "a", r#"{"id": "a", "pieces": 2}"#),
            record(&clicks, 0, "[1]"),
            // Rows whose key is null, or that share one.
            record(&clicks, 0, r#"{"ms": 77}"#),
            record(&clicks, 0, r#"{"page": "/", "ms": 1}"#),
            record(&clicks, 0, r#"{"page": "/", "ms": 2}"#),
        ]);
        let mut job = place.start("dataflow", &["-w", "2"]);
        until("the dead letters are there", PATIENCE, || {
            (place.dead_letters().len() == 5).then_some(())
        });
        job.stop("TERM");
        serve_letters(&place);
        if let Some(file) = place.log.strip_prefix("sqlite://") {
            let sql = tidemill_log::sqlite::connect(file).unwrap();
            let count =
                "SELECT count(*) FROM _tidemill_dead_letters WHERE reason <> '' AND at > ''";
            let count: u32 = sql.query_row(count, [], |row| row.get(0)).unwrap();
            assert_eq!(count, 5);
        }
        let letters = listed(&place, &["--stage", "decode"]);
        assert_eq!(letters.len(), 3, "{letters:?}");
        let of = |topic: &str, offset: i64| {
            let found = letters
                .iter()
                .find(|it| it["source"]["topic"] == topic && it["source"]["offset"] == offset);
            found.unwrap()["number"].to_string()
        };
        let (nothing, umlaut, list) = (of(&carts, 0), of(&carts, 1), of(&clicks, 0));
        let text = command(&place, "list", &["--last", "1"]);
        assert!(text.contains("(1 of 5 dead letters"), "{text}");
        let shown = command(&place, "show", &[&umlaut]);
        let part = "\"pieces\": \"ü\"}";
        assert!(shown.contains(part) && shown.contains("c3bc") && shown.contains("offset 1"));
        // A newer record of the key is there: nothing is set back.
        let said = command(&place, "replay", &[&nothing]);
        assert!(
            said.contains("newer record of its key, at offset 2"),
            "{said}"
        );
        assert_eq!(high(&place, &carts), 3);
        let said = command(&place, "replay", &["--all", "--stage", "decode"]);
        assert!(said.contains("(2 replayed, 1 left as they are)"), "{said}");
        assert_eq!((high(&place, &carts), high(&place, &clicks)), (4, 5));
        let said = command(&place, "replay", &[&umlaut, &list]);
        assert!(said.contains("(0 replayed, 2 left as they are)"), "{said}");
        assert_eq!((high(&place, &carts), high(&place, &clicks)), (4, 5));
        let said = command(&place, "replay", &["--force", &list]);
        assert!(said.contains("put back into topic") && high(&place, &clicks) == 6);
        let back = place.records(&clicks).pop().unwrap();
        assert_eq!(back.value.as_deref(), Some(&b"[1]"[..]));
        let replayed = listed(&place, &[]);
        let replayed = replayed.iter().filter(|it| !it["replayed"].is_null());
        assert_eq!(replayed.count(), 2);
        let said = place
            .start_verb("dead-letters", "show", &["99999"])
            .ends(1, PATIENCE);
        assert!(said.contains("no dead letter 99999"), "{said}");
    }
}

/// Rows that a view's table cannot hold are told with their values.
fn serve_letters(place: &Place) {
    let letters = listed(place, &["--stage", "serve"]);
    assert_eq!(letters.len(), 2, "{letters:?}");
    let reasons: Vec<&str> = letters
        .iter()
        .map(|it| it["reason"].as_str().unwrap())
        .collect();
    assert!(
        reasons.iter().any(|it| it.contains("several rows")),
        "{reasons:?}"
    );
    assert!(
        reasons.iter().any(|it| it.contains("holds null")),
        "{reasons:?}"
    );
    assert!(
        letters.iter().all(|it| it["source"]["view"] == "named"),
        "{letters:?}"
    );
    let said = command(place, "replay", &[&letters[0]["number"].to_string()]);
    assert!(said.contains("a row on its way to a view"), "{said}");
}

const INGEST: &str = r#"
[schedule]
every = "20ms"
last_page = 2
[fetch]
url = "https://randomuser.me/api/1.4/"
records = "results"
page_size = 50
page_size_parameter = "results"
page_parameter = "page"
[land]
table = "people"
key = "id"
columns = [
    { name = "id", path = "login.uuid", type = "text" },
    { name = "country", path = "location.country", type = "text" },
]
"#;

#[test]
fn records_that_did_not_land_land_when_they_are_replayed() {
    let place = Place::embedded("unfit");
    place.write("ingest.toml", INGEST);
    let file = place.database.strip_prefix("sqlite://").unwrap();
    let sql = tidemill_log::sqlite::connect(file).unwrap();
    sql.execute_batch(
        "CREATE TABLE people (id TEXT NOT NULL PRIMARY KEY, country TEXT NOT NULL);
         CREATE UNIQUE INDEX one_a_country ON people (country)",
    )
    .unwrap();
    let count = |from: &str| -> usize {
        let count = format!("SELECT count(*) FROM {from}");
        let count: u32 = sql.query_row(&count, [], |row| row.get(0)).unwrap();
        count as usize
    };
    let mut ingest = place.start("ingest", &[]);
    until("both pages are done", PATIENCE, || {
        ingest.runs();
        // There is no ledger before there is a first page.
        let made = count("sqlite_schema WHERE name = '_tidemill_runs'") == 1;
        (made && count("_tidemill_runs WHERE state = 'done'") == 2).then_some(())
    });
    ingest.stop("TERM");
    let landed = count("people");
    assert!(landed < 100);
    let letters = listed(&place, &["--stage", "land"]);
    assert_eq!(letters.len(), 100 - landed);
    let first = letters[0]["number"].to_string();
    let said = command(&place, "replay", &[&first]);
    assert!(said.contains("refused again"), "{said}");
    sql.execute_batch("DROP INDEX one_a_country").unwrap();
    let said = command(&place, "replay", &["--all"]);
    assert!(
        said.contains("(0 left") || said.contains(", 0 left"),
        "{said}"
    );
    assert_eq!(count("people"), 100);
    let said = command(&place, "replay", &["--force", &first]);
    assert!(said.contains("so already"), "{said}");
    assert_eq!(count("people"), 100);
}
