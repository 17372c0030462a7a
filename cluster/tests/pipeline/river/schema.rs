//! Columns and keys that change in PostgreSQL, while the river runs and while it is stopped, with
//! updates and deletes of old rows behind each change: in the end every view is what PostgreSQL
//! answers, also the one that does not read what changed.

use postgres::Client;
use tidemill_log::log::dead_letter;

use crate::river::child::{PATIENCE, Tidemill};
use crate::river::place::Place;
use crate::river::rows::{View, settle, unlike};

const TABLE: &str = "\
CREATE TABLE things (
    id int PRIMARY KEY, n int, code int NOT NULL UNIQUE, name text NOT NULL);
INSERT INTO things SELECT g, g % 7, g, 'name ' || g % 5 FROM generate_series(1, 200) g";

/// `names` reads neither `id` nor `n`.
const VIEWS: &str = "\
CREATE TABLE things WITH (topic = '{topic:things}', format = 'avro', envelope = 'debezium');
CREATE MATERIALIZED VIEW things_now WITH (primary_key = 'id') AS
SELECT id, n, code, name FROM things;
CREATE MATERIALIZED VIEW names WITH (primary_key = 'name') AS
SELECT name, count(*) AS things FROM things GROUP BY name;
";

/// What became of one column or of the key, and a row that only its new type holds.
const CHANGES: [(&str, &str); 8] = [
    (
        "ALTER TABLE things ALTER n TYPE bigint",
        "INSERT INTO things VALUES (901, 3000000000, 901, 'large')",
    ),
    (
        "ALTER TABLE things ALTER n TYPE text USING n::text",
        "INSERT INTO things VALUES (902, 'two', 902, 'text')",
    ),
    (
        "ALTER TABLE things ALTER n TYPE numeric(12, 2) USING 1",
        "INSERT INTO things VALUES (903, 2.25, 903, 'numeric')",
    ),
    (
        "ALTER TABLE things ALTER id TYPE bigint",
        "INSERT INTO things VALUES (4000000000, 1, 904, 'large')",
    ),
    (
        "ALTER TABLE things ALTER id TYPE numeric(20, 0)",
        "INSERT INTO things VALUES (5000000000, 1, 905, 'large')",
    ),
    (
        "ALTER TABLE things ALTER id TYPE text USING id::text",
        "INSERT INTO things VALUES ('six', 1, 906, 'text')",
    ),
    (
        "ALTER TABLE things DROP CONSTRAINT things_pkey, ADD PRIMARY KEY (code)",
        "INSERT INTO things VALUES ('seven', 1, 907, 'key')",
    ),
    (
        "ALTER TABLE things DROP n, ADD n numeric(12, 2)",
        "INSERT INTO things (id, n, code, name) VALUES ('eight', 1, 908, 'again')",
    ),
];

fn pipeline(place: &Place, views: &str) -> Vec<View> {
    let ingest = format!(
        "[capture]\ntables = [\"things\"]\n[publish]\ntopic_prefix = \"{}.\"\n\
         compatibility = \"none\"\n",
        place.name
    );
    place.pipeline("things", &ingest, views)
}

/// A pipeline over the table that runs, and whose views are right.
fn begun(test: &str, views: &str) -> Option<(Place, Client, Vec<View>, Tidemill)> {
    let place = Place::open(test)?;
    let mut sql = place.sql();
    sql.batch_execute(TABLE).unwrap();
    let views = pipeline(&place, views);
    let mut running = place.start("run", "things", &["--no-live"]);
    settle(&mut running, &place.views, &mut sql, &views);
    Some((place, sql, views, running))
}

/// Updates, deletes and inserts among the rows, others each time.
fn rows(sql: &mut Client, step: usize) {
    let from = 1_000 * (step + 1);
    sql.batch_execute(&format!(
        "UPDATE things SET name = 'step {step}' WHERE code % 17 = {step};
         DELETE FROM things WHERE code % 19 = {step};
         INSERT INTO things (id, n, code, name)
             SELECT g, 1, g, 'new ' || g % 3 FROM generate_series({from}, {from} + 9) g"
    ))
    .unwrap();
}

/// Whether every view is what PostgreSQL answers; false while one has other columns.
fn alike(place: &Place, sql: &mut Client, views: &[View]) -> bool {
    let mut views = views.iter();
    views.all(|view| unlike(&place.views, sql, view).is_none())
}

/// Records that were put aside.
fn letters(place: &Place) -> i64 {
    let topic = dead_letter::topic_of(&place.name);
    let ranges = place.log().ranges(&topic).unwrap();
    ranges.iter().map(|range| range.high).sum()
}

/// Waits until the views follow, or the river ends or puts a record aside; then starts it again as
/// often as a change needs it.
fn follow(place: &Place, mut running: Tidemill, sql: &mut Client, views: &[View]) -> Tidemill {
    for _start in 0..3 {
        let before = letters(place);
        let deadline = std::time::Instant::now() + PATIENCE;
        while !running.is_over() && letters(place) == before {
            if alike(place, sql, views) {
                return running;
            }
            assert!(
                std::time::Instant::now() < deadline,
                "the views stand still"
            );
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
        if !running.is_over() {
            running.stop();
        }
        running = place.start("run", "things", &["--no-live"]);
    }
    settle(&mut running, &place.views, sql, views);
    running
}

fn changes(test: &str, stopped: bool) {
    let Some((place, mut sql, views, mut running)) = begun(test, VIEWS) else {
        return;
    };
    for (step, (change, row)) in CHANGES.into_iter().enumerate() {
        eprintln!("{change}");
        let before = letters(&place);
        let alter = |sql: &mut Client| {
            sql.batch_execute(&format!("{change}; {row}")).unwrap();
            rows(sql, 2 * step);
        };
        running = if stopped {
            running.stop();
            alter(&mut sql);
            place.start("run", "things", &["--no-live"])
        } else {
            alter(&mut sql);
            running
        };
        running = follow(&place, running, &mut sql, &views);
        // What an older type wrote is no dead letter; what the running plan's does not hold is.
        let put_aside = letters(&place) - before;
        let grows = change.ends_with("bigint") && !stopped;
        assert!(grows || put_aside == 0, "{change}: {put_aside} put aside");
        // The views go on.
        rows(&mut sql, 2 * step + 1);
        settle(&mut running, &place.views, &mut sql, &views);
    }
    running.stop();
}

#[test]
fn types_and_keys_that_change_while_it_runs() {
    changes("types_and_keys_that_change_while_it_runs", false);
}

#[test]
fn types_and_keys_that_change_while_it_is_stopped() {
    changes("types_and_keys_that_change_while_it_is_stopped", true);
}

const RENAMED: &str = "\
CREATE TABLE things WITH (topic = '{topic:things}', format = 'avro', envelope = 'debezium');
CREATE MATERIALIZED VIEW things_now WITH (primary_key = 'id') AS
SELECT id, m, code, name FROM things;
";

#[test]
fn a_column_renamed_there_and_back_is_never_null() {
    let Some((place, mut sql, views, running)) =
        begun("a_column_renamed_there_and_back_is_never_null", VIEWS)
    else {
        return;
    };
    let start = || place.start("run", "things", &["--no-live"]);
    // Each time other values, so that no state before is the one that is waited for.
    let there = |value: i32| {
        format!(
            "ALTER TABLE things RENAME n TO m; UPDATE things SET m = {value} WHERE code % 5 = 1"
        )
    };
    let back = |value: i32| {
        format!(
            "ALTER TABLE things RENAME m TO n; UPDATE things SET n = {value} WHERE code % 5 = 2"
        )
    };

    // While it is stopped: it starts again as if nothing had been.
    running.stop();
    sql.batch_execute(&there(-1)).unwrap();
    let said = start().refused();
    assert!(said.contains("unknown column `n`"), "{said}");
    sql.batch_execute(&back(-2)).unwrap();
    let mut running = start();
    settle(&mut running, &place.views, &mut sql, &views);

    // While it runs, at once and with records of the other name between.
    sql.batch_execute(&there(-3)).unwrap();
    sql.batch_execute(&back(-4)).unwrap();
    let running = follow(&place, running, &mut sql, &views);

    // Planned under the other name, it sees the first schema again.
    running.stop();
    sql.batch_execute(&there(-5)).unwrap();
    let renamed = pipeline(&place, RENAMED);
    let running = follow(&place, start(), &mut sql, &renamed);
    sql.batch_execute(&back(-6)).unwrap();
    let said = running.refused();
    assert!(said.contains("column `m` is gone"), "{said}");
    pipeline(&place, VIEWS);
    let mut running = follow(&place, start(), &mut sql, &views);
    settle(&mut running, &place.views, &mut sql, &views);
    running.stop();
}

/// A view of the column `added{number}`.
fn added(number: usize) -> String {
    RENAMED.replace(" m,", &format!(" added{number} AS m,"))
}

#[test]
fn a_column_that_was_added_is_known_before_a_row_has_it() {
    let Some((place, mut sql, _, mut running)) = begun("a_column_that_was_added", VIEWS) else {
        return;
    };
    let start = || place.start("run", "things", &["--no-live"]);
    let add = |sql: &mut Client, number: usize| {
        let alter = format!("ALTER TABLE things ADD added{number} int");
        sql.batch_execute(&alter).unwrap();
    };

    // While it runs: the registry has the column soon.
    add(&mut sql, 0);
    let subject = format!("{}-value", place.topic("things"));
    running.until("the registry has the column", || {
        let versions = place.schemas().versions(&subject).unwrap();
        let newest = versions.into_iter().max_by_key(|it| it.version)?;
        newest.schema.contains("added0").then_some(())
    });
    running.stop();
    let views = pipeline(&place, &added(0));
    let mut running = start();
    settle(&mut running, &place.views, &mut sql, &views);

    // While it is stopped: the views wait until the registry has it.
    running.stop();
    add(&mut sql, 1);
    let views = pipeline(&place, &added(1));
    let mut running = start();
    settle(&mut running, &place.views, &mut sql, &views);
    sql.batch_execute("UPDATE things SET added1 = id WHERE id % 2 = 0")
        .unwrap();
    settle(&mut running, &place.views, &mut sql, &views);
    running.stop();

    // What the table does not have is refused at once.
    pipeline(&place, &added(2));
    let said = start().refused();
    assert!(said.contains("unknown column `added2`"), "{said}");
}

const NAMED: &str = "\
CREATE TABLE things WITH (topic = '{topic:things}', format = 'avro', envelope = 'debezium');
CREATE MATERIALIZED VIEW names WITH (primary_key = 'name') AS
SELECT name, count(*) AS things, sum(code) AS codes FROM things GROUP BY name;
";

#[test]
fn a_key_column_that_is_renamed_leaves_its_rows_where_they_are() {
    let Some((place, mut sql, views, running)) = begun("a_key_column_that_is_renamed", NAMED)
    else {
        return;
    };
    let start = || place.start("run", "things", &["--no-live"]);
    // Behind each name rows of before are changed and deleted.
    let renamed = |from: &str, to: &str, step: usize| {
        format!(
            "ALTER TABLE things RENAME {from} TO {to};
             UPDATE things SET code = code + 1000 WHERE {to} % 7 = {step};
             DELETE FROM things WHERE {to} % 11 = {step};
             INSERT INTO things VALUES (1000 + {step}, 1, -{step}, 'step {step}')"
        )
    };
    sql.batch_execute(&renamed("id", "no", 1)).unwrap();
    let running = follow(&place, running, &mut sql, &views);
    running.stop();
    sql.batch_execute(&renamed("no", "number", 2)).unwrap();
    let mut running = follow(&place, start(), &mut sql, &views);
    sql.batch_execute("UPDATE things SET code = code + 5000 WHERE number % 13 = 3")
        .unwrap();
    settle(&mut running, &place.views, &mut sql, &views);
    // Filled anew from all partitions.
    running.stop();
    let more = NAMED.replace("sum(code) AS codes", "max(code) AS codes");
    let views = pipeline(&place, &more);
    let mut running = follow(&place, start(), &mut sql, &views);
    settle(&mut running, &place.views, &mut sql, &views);
    running.stop();
}
