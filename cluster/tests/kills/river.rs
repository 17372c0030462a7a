//! The whole river is killed again and again while users are fetched and rows change.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use arrow::datatypes::DataType;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rusqlite::types::ValueRef;
use tidemill_log::envelope::Decoder;

use crate::harness::{PATIENCE, Place, Process, View, seed, until};

const KILLS: usize = 6;

fn ingest(table: &str) -> String {
    format!(
        r#"
[schedule]
every = "50ms"
[fetch]
url = "https://randomuser.me/api/1.4/"
records = "results"
page_size = 20
page_size_parameter = "results"
page_parameter = "page"
parameters = {{ seed = "kills" }}
[land]
table = "{table}"
key = "id"
columns = [
    {{ name = "id", path = "login.uuid", type = "text" }},
    {{ name = "first_name", path = "name.first", type = "text" }},
    {{ name = "country", path = "location.country", type = "text" }},
    {{ name = "age", path = "dob.age", type = "int" }},
]
[publish]
partitions = 4
"#
    )
}

fn views(table: &str) -> String {
    format!(
        "CREATE TABLE {table} WITH (topic = '{table}', format = 'avro', envelope = 'debezium');
         CREATE MATERIALIZED VIEW people_{table} WITH (primary_key = 'id') AS
           SELECT id, first_name, country, age FROM {table};
         CREATE MATERIALIZED VIEW countries_{table} WITH (primary_key = 'country') AS
           SELECT country, count(*) AS users, sum(age) AS ages, min(age) AS youngest,
             max(age) AS oldest
           FROM {table} GROUP BY country;"
    )
}

/// The two views, with the SQL that says what they hold.
fn expected(table: &str) -> [(View, String); 2] {
    let people = View::new(
        &format!("people_{table}"),
        &[
            ("id", DataType::Utf8),
            ("first_name", DataType::Utf8),
            ("country", DataType::Utf8),
            ("age", DataType::Int32),
        ],
    );
    let countries = View::new(
        &format!("countries_{table}"),
        &[
            ("country", DataType::Utf8),
            ("users", DataType::Int64),
            ("ages", DataType::Int64),
            ("youngest", DataType::Int32),
            ("oldest", DataType::Int32),
        ],
    );
    [
        (
            people,
            format!("SELECT id, first_name, country, age FROM {table}"),
        ),
        (
            countries,
            format!(
                "SELECT country, count(*), sum(age), min(age), max(age) FROM {table} GROUP BY 1"
            ),
        ),
    ]
}

/// The landing database, as somebody else changes and reads it.
pub(crate) enum Database {
    Sqlite(rusqlite::Connection),
    Postgres(Box<postgres::Client>),
}

impl Database {
    pub(crate) fn open(url: &str) -> Self {
        match url.strip_prefix("sqlite://") {
            Some(file) => Self::Sqlite(tidemill_log::sqlite::connect(file).unwrap()),
            None => {
                let client = postgres::Client::connect(url, postgres::NoTls).unwrap();
                Self::Postgres(Box::new(client))
            }
        }
    }

    fn execute(&mut self, sql: &str) -> bool {
        match self {
            Self::Sqlite(file) => file.execute_batch(sql).is_ok(),
            Self::Postgres(client) => client.batch_execute(sql).is_ok(),
        }
    }

    fn rows(&mut self, sql: &str) -> BTreeSet<Vec<String>> {
        match self {
            Self::Sqlite(file) => {
                let mut query = file.prepare(sql).unwrap();
                let columns = query.column_count();
                let rows = query.query_map([], |row| {
                    (0..columns)
                        .map(|column| Ok(text(row.get_ref(column)?)))
                        .collect()
                });
                rows.unwrap().map(Result::unwrap).collect()
            }
            Self::Postgres(client) => {
                let messages = client.simple_query(sql).unwrap();
                let rows = messages.iter().filter_map(|message| match message {
                    postgres::SimpleQueryMessage::Row(row) => Some(row),
                    _ => None,
                });
                let text = |row: &postgres::SimpleQueryRow, column| {
                    row.get(column).unwrap_or_default().to_owned()
                };
                rows.map(|row| (0..row.len()).map(|column| text(row, column)).collect())
                    .collect()
            }
        }
    }

    /// Changes, inserts or deletes some rows, unless there is no table yet.
    fn change(&mut self, table: &str, random: &mut StdRng) {
        let some = format!(
            "id IN (SELECT id FROM {table} ORDER BY id LIMIT {} OFFSET {})",
            random.random_range(1..4),
            random.random_range(0..300)
        );
        let age = random.random_range(18..90);
        let id: u64 = random.random();
        let changed = match random.random_range(0..8) {
            0 => format!("DELETE FROM {table} WHERE {some}"),
            1 => format!("INSERT INTO {table} VALUES ('{id:016x}', 'Ada', 'Elsewhere', {age})"),
            2 => format!("UPDATE {table} SET country = 'Elsewhere' WHERE {some}"),
            3 => format!("UPDATE {table} SET first_name = 'x{id}' WHERE {some}"),
            _ => format!("UPDATE {table} SET age = {age} WHERE {some}"),
        };
        // Fails as long as there is no table, and when somebody else is just as fast.
        let _changed = self.execute(&changed);
    }
}

fn text(value: ValueRef<'_>) -> String {
    match value {
        ValueRef::Null => String::new(),
        ValueRef::Integer(number) => number.to_string(),
        ValueRef::Real(number) => number.to_string(),
        ValueRef::Text(text) | ValueRef::Blob(text) => String::from_utf8_lossy(text).into_owned(),
    }
}

/// Changes rows until a random moment.
fn live(
    database: &mut Database,
    table: &str,
    random: &mut StdRng,
    most: Duration,
    processes: &mut [Process],
) {
    let end = Instant::now() + random.random_range(Duration::from_millis(50)..most);
    while Instant::now() < end {
        database.change(table, random);
        processes.iter_mut().for_each(Process::runs);
        std::thread::sleep(Duration::from_millis(4));
    }
}

/// Every change is in the topic once, and the views are what the SQL says.
fn right(place: &Place, database: &mut Database, table: &str) {
    for (view, sql) in expected(table) {
        let rows = database.rows(&sql);
        assert!(rows.len() > 10, "only {} rows in {}", rows.len(), view.name);
        place.expect(&view, &rows);
    }
    let registry = tidemill_log::registry::open(&place.registry).unwrap();
    let mut decoder = Decoder::new(table, registry);
    let records = place.records(table);
    // By partition: a truncate, as before a new snapshot, goes to each.
    let positions = records.iter().filter_map(|record| {
        let position = decoder.position_of(record).unwrap();
        position.map(|position| (record.partition, position))
    });
    let mut positions: Vec<_> = positions.collect();
    let all = positions.len();
    positions.sort_unstable();
    positions.dedup();
    assert_eq!(positions.len(), all, "changes published twice");
}

#[test]
fn a_killed_run_goes_on_in_one_file() {
    let mut random = StdRng::seed_from_u64(seed("a_killed_run_goes_on_in_one_file"));
    let place = Place::embedded("killed");
    let table = place.name.clone();
    place.write("ingest.toml", &ingest(&table));
    place.write("views.sql", &views(&table));
    let mut database = Database::open(&place.database);
    for _ in 0..KILLS {
        let mut run = [place.start("run", &[])];
        live(
            &mut database,
            &table,
            &mut random,
            Duration::from_secs(2),
            &mut run,
        );
        let [run] = run;
        run.kill();
    }
    let mut run = place.start("run", &[]);
    let count = |database: &mut Database| {
        if !database.execute(&format!("SELECT 1 FROM {table} LIMIT 1")) {
            return 0;
        }
        database.rows(&format!("SELECT id FROM {table}")).len()
    };
    let before = count(&mut database);
    until("more users are fetched", PATIENCE, || {
        database.change(&table, &mut random);
        run.runs();
        (count(&mut database) > before + 200).then_some(())
    });
    run.stop("TERM");
    let now = count(&mut database).to_string();
    // What an earlier run left undone is done although nothing new is fetched.
    place.start("run", &["--until", &now]).ends(0, PATIENCE);
    right(&place, &mut database, &table);
}

#[test]
fn killed_ingest_and_dataflow_go_on_on_the_services() {
    let test = "killed_ingest_and_dataflow_go_on_on_the_services";
    let mut random = StdRng::seed_from_u64(seed(test));
    let Some(place) = Place::services("killed") else {
        return;
    };
    let table = place.name.clone();
    place.write("ingest.toml", &ingest(&table));
    place.write("views.sql", &views(&table));
    let mut database = Database::open(&place.database);
    let start = |which: usize| match which {
        0 => place.start("ingest", &[]),
        _ => place.start("dataflow", &["-w", "2"]),
    };
    let mut processes = vec![start(0), start(1)];
    for _ in 0..KILLS {
        live(
            &mut database,
            &table,
            &mut random,
            Duration::from_secs(3),
            &mut processes,
        );
        let which = random.random_range(0..2);
        processes.remove(which).kill();
        processes.insert(which, start(which));
    }
    until("users are fetched", PATIENCE, || {
        database.change(&table, &mut random);
        processes.iter_mut().for_each(Process::runs);
        let there = database.execute(&format!("SELECT 1 FROM {table} LIMIT 1"));
        (there && database.rows(&format!("SELECT id FROM {table}")).len() > 500).then_some(())
    });
    // Fetching ends with this process, capturing goes on in one that fetches no more.
    processes[0].stop("INT");
    processes[0] = place.start("ingest", &["--until", "1"]);
    live(
        &mut database,
        &table,
        &mut random,
        Duration::from_secs(1),
        &mut processes,
    );
    right(&place, &mut database, &table);
    processes.iter_mut().for_each(|process| {
        process.stop("TERM");
    });
    clean(&mut database, &place, &table);
}

/// Leaves nothing in a PostgreSQL that others use too.
pub(crate) fn clean(database: &mut Database, place: &Place, table: &str) {
    let slot = format!("tidemill_{}", place.name);
    until("the replication slot is free", PATIENCE, || {
        let drop = format!("SELECT pg_drop_replication_slot('{slot}')");
        database.execute(&drop).then_some(())
    });
    database.execute(&format!("DROP PUBLICATION IF EXISTS {slot}"));
    database.execute(&format!("DROP TABLE {table}"));
}
