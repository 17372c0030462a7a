//! People and where they live, in topics of their own, and views of them: rows as they are, an
//! aggregate, a top-k, a join and an append-only table.

use std::collections::BTreeMap;
use std::time::Duration;

use rand::Rng;
use rand::rngs::StdRng;
use serde_json::json;
use tidemill_log::log::Record;
use tidemill_state::journal::{Journal, Standing};
use tidemill_state::store;

use crate::harness::{Place, until};

/// The views that have a table, in the order of views.sql.
pub(crate) const VIEWS: [&str; 5] = ["everyone", "by_country", "oldest", "placed", "visits"];
/// How long a verification may take on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

const COUNTRIES: [&str; 4] = ["Chad", "Peru", "Oman", "Fiji"];

/// Writes the pipeline and makes its topics.
pub(crate) fn write(place: &Place) {
    let name = &place.name;
    let sql = format!(
        "CREATE TABLE people (id text, country text, age bigint, score double, born timestamp)
           WITH (topic = '{name}.people', format = 'json', envelope = 'upsert');
         CREATE TABLE countries (country text, continent text)
           WITH (topic = '{name}.countries', format = 'json', envelope = 'upsert');
         CREATE TABLE clicks (id text PRIMARY KEY, page text)
           WITH (topic = '{name}.clicks', format = 'json');
         CREATE MATERIALIZED VIEW everyone WITH (primary_key = 'id') AS
           SELECT id, country, age, score, born FROM people;
         CREATE MATERIALIZED VIEW adults AS SELECT id, country, age FROM people WHERE age > 17;
         CREATE MATERIALIZED VIEW by_country WITH (primary_key = 'country') AS
           SELECT country, count(*) AS people, avg(score) AS score FROM people GROUP BY country;
         CREATE MATERIALIZED VIEW oldest WITH (primary_key = 'country, place') AS
           SELECT country, place, id, age FROM (SELECT country, id, age,
             row_number() OVER (PARTITION BY country ORDER BY age DESC, id) AS place FROM adults)
           AS placed WHERE place <= 3;
         CREATE MATERIALIZED VIEW placed WITH (primary_key = 'id') AS
           SELECT p.id, c.continent FROM people p JOIN countries c ON p.country = c.country;
         CREATE MATERIALIZED VIEW visits WITH (primary_key = 'id') AS SELECT id, page FROM clicks;"
    );
    place.write("views.sql", &sql);
    for topic in ["people", "countries", "clicks"] {
        place.topic(&format!("{name}.{topic}"), 3);
    }
}

/// A record; one without a value deletes its key.
pub(crate) fn record(
    place: &Place,
    topic: &str,
    key: &str,
    value: Option<serde_json::Value>,
) -> Record {
    let partition = key.bytes().map(u32::from).sum::<u32>() % 3;
    Record {
        topic: format!("{}.{topic}", place.name),
        partition: Some(partition),
        key: Some(key.as_bytes().to_vec()),
        value: value.map(|value| value.to_string().into_bytes()),
        timestamp_ms: 1,
    }
}

/// A person; the birthday is finer than Cassandra keeps it.
pub(crate) fn person(place: &Place, id: &str, country: &str, age: i64) -> Record {
    let value = json!({
        "id": id,
        "country": country,
        "age": age,
        "score": age as f64 / 7.0,
        "born": format!("1980-02-{:02}T04:05:06.123456", 1 + age % 28),
    });
    record(place, "people", id, Some(value))
}

/// `count` people of a country that nobody else is of, each older than the one before, and a click
/// of each.
pub(crate) fn settle(place: &Place, country: &str, count: i64) {
    let continent = json!({"country": country, "continent": format!("{country} itself")});
    let mut records = vec![record(place, "countries", country, Some(continent))];
    for number in 0..count {
        let id = format!("{country}-{number:03}");
        records.push(person(place, &id, country, 20 + number));
        let click = json!({"id": id, "page": "/"});
        records.push(record(place, "clicks", &id, Some(click)));
    }
    place.append(&records);
}

/// Random people come, change and go.
pub(crate) fn churn(place: &Place, rng: &mut StdRng, count: usize) {
    let mut records = Vec::new();
    for _ in 0..count {
        let id = format!("p{}", rng.random_range(0..300));
        let country = COUNTRIES[rng.random_range(0..COUNTRIES.len())];
        records.push(match rng.random_range(0..10) {
            0 => record(place, "people", &id, None),
            1 => {
                let continent = format!("c{}", rng.random_range(0..5));
                let value = json!({"country": country, "continent": continent});
                record(place, "countries", country, Some(value))
            }
            2 => {
                let id = format!("click-{}", rng.random::<u64>());
                let click = json!({"id": id, "page": "/"});
                record(place, "clicks", &id, Some(click))
            }
            _ => person(place, &id, country, rng.random_range(1..90)),
        });
    }
    place.append(&records);
}

/// The job's journal as it stands.
pub(crate) fn journal(place: &Place) -> Standing {
    let url = place.state();
    Journal::read(&*store::open(&url).unwrap(), &place.name).unwrap()
}

/// Waits until the job has written everything that the topics hold now: a record of its own shows.
#[track_caller]
pub(crate) fn arrived(place: &Place, tables: &crate::verify::damage::Tables, mark: &str) {
    let click = json!({"id": mark, "page": "/"});
    place.append(&[record(place, "clicks", mark, Some(click))]);
    // All topics are read side by side: a mark in one says nothing of the others.
    place.append(&[person(place, mark, "Mark", 30)]);
    let marks = json!({"country": "Mark", "continent": mark});
    place.append(&[record(place, "countries", "Mark", Some(marks))]);
    until("the mark is in all views", PATIENCE, || {
        let placed = tables.cells("placed", "continent");
        let there = tables.cells("everyone", "age").contains_key(mark)
            && tables.cells("visits", "page").contains_key(mark)
            && placed.get(mark).is_some_and(|continent| continent == mark);
        there.then_some(())
    });
}

/// What a command printed for each view: whether it is equal.
pub(crate) fn equal(said: &str) -> BTreeMap<String, bool> {
    let views = VIEWS.iter().map(|view| {
        let line = said
            .lines()
            .find(|line| line.starts_with(&format!("{view}: ")));
        (
            (*view).to_owned(),
            line.is_some_and(|line| line.contains("equal at epoch")),
        )
    });
    views.collect()
}
