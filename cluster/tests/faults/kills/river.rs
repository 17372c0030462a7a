//! The whole river is killed again and again while users are fetched and rows change.

use std::time::{Duration, Instant};

use arrow::datatypes::DataType;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::harness::database::Database;
use crate::harness::river::sum_of_int;
use crate::harness::{PATIENCE, Place, Process, View, feed, seed, until};

const KILLS: usize = 6;

pub(super) fn ingest(table: &str) -> String {
    let feed = feed("kills");
    format!(
        r#"{feed}
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
fn expected(place: &Place, table: &str) -> [(View, String); 2] {
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
            ("ages", sum_of_int(place)),
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

/// Changes, inserts or deletes some rows, unless there is no table yet.
pub(super) fn change(database: &mut Database, table: &str, random: &mut StdRng) {
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
    let _changed = database.execute(&changed);
}

/// Changes rows until a random moment.
pub(super) fn live(
    database: &mut Database,
    table: &str,
    random: &mut StdRng,
    most: Duration,
    processes: &mut [Process],
) {
    let end = Instant::now() + random.random_range(Duration::from_millis(50)..most);
    while Instant::now() < end {
        change(database, table, random);
        processes.iter_mut().for_each(Process::runs);
        std::thread::sleep(Duration::from_millis(4));
    }
}

/// Every change is in the topic once, and the views are what the SQL says.
fn right(place: &Place, database: &mut Database, table: &str) {
    for (view, sql) in expected(place, table) {
        let rows = database.rows(&sql);
        assert!(rows.len() > 10, "only {} rows in {}", rows.len(), view.name);
        place.expect(&view, &rows);
    }
    place.is_published_once(table);
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
        change(&mut database, &table, &mut random);
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
        change(&mut database, &table, &mut random);
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
    database.clean(&place.name, &[&table]);
}
