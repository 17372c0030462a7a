//! Every kind of change that people make to captured tables, while the pipeline runs under load and
//! while it is stopped, with and without kills: in the end each view is PostgreSQL's own answer, or
//! the ingest ended and said how to go on. `docs/schema-changes.md` says what was seen here.

mod cells;
mod ends;
mod load;
mod order;
mod pipeline;

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use cells::{CELLS, Cell, End, LOOKS, THEN};
use load::Load;
use pipeline::Pipeline;
use postgres::Client;

use crate::river::place::Place;

/// How a change meets the pipeline.
#[derive(Debug, Clone, Copy)]
struct How {
    running: bool,
    killed: bool,
}

impl How {
    const ALL: [Self; 4] = [
        how(true, false),
        how(true, true),
        how(false, false),
        how(false, true),
    ];

    fn name(self) -> &'static str {
        match (self.running, self.killed) {
            (true, false) => "running",
            (true, true) => "running, killed",
            (false, false) => "stopped",
            (false, true) => "killed",
        }
    }
}

const fn how(running: bool, killed: bool) -> How {
    How { running, killed }
}

/// The tests take turns in two lanes, since a server has few replication slots.
static LANES: [Mutex<()>; 2] = [Mutex::new(()), Mutex::new(())];

fn lane(number: usize) -> MutexGuard<'static, ()> {
    LANES[number].lock().unwrap_or_else(PoisonError::into_inner)
}

const DOCS: &str = include_str!("../../../../docs/schema-changes.md");

/// The rows of the documentation's first table: a change, and what happens.
fn documented() -> Vec<(&'static str, &'static str)> {
    let lines = DOCS
        .lines()
        .skip_while(|line| !line.starts_with("| change"));
    let rows = lines.skip(2).take_while(|line| line.starts_with('|'));
    let cells = rows.map(|row| row.trim_matches('|').split_once(" | ").unwrap());
    cells
        .map(|(change, what)| (change.trim(), what.trim()))
        .collect()
}

#[test]
fn every_documented_change_was_tried_and_the_other_way_round() {
    let rows = documented();
    let mut tried = BTreeSet::new();
    let mut check = |docs: &'static str, told: &str| {
        let row = rows.iter().find(|(change, _)| *change == docs);
        let (_, what) = row.unwrap_or_else(|| panic!("docs/schema-changes.md has no row `{docs}`"));
        assert!(
            what.starts_with(told),
            "`{docs}`: `{what}` does not begin with `{told}`"
        );
        tried.insert(docs);
    };
    CELLS
        .iter()
        .for_each(|cell| check(cell.docs, cell.end.told()));
    ends::DOCUMENTED
        .iter()
        .for_each(|(docs, told)| check(docs, told));
    let left: Vec<_> = rows
        .iter()
        .filter(|(change, _)| !tried.contains(change))
        .collect();
    assert!(
        left.is_empty(),
        "documented, and tried by no test: {left:?}"
    );
}

fn statements(cell: &Cell, publication: &str, of: &[&str]) -> Vec<String> {
    let filled = of.iter().map(|sql| sql.replace("{t}", cell.table));
    filled
        .map(|sql| sql.replace("{pub}", publication))
        .collect()
}

/// Makes a change; `looked_at` between its statements by an ingest that runs.
fn make(sql: &mut Client, cell: &Cell, publication: &str, looked_at: bool) {
    for statement in statements(cell, publication, cell.change) {
        let waits = statement.starts_with(LOOKS) || statement.starts_with(THEN);
        if looked_at || !waits {
            let made = sql.batch_execute(&statement);
            made.unwrap_or_else(|error| panic!("{statement}: {error:?}"));
        }
    }
}

/// Of all tables one view, so that Cassandra needs to make few.
fn views(of: impl Fn(&Cell) -> Option<String>, name: &str) -> String {
    let selects: Vec<String> = CELLS.iter().filter_map(of).collect();
    format!(
        "CREATE MATERIALIZED VIEW {name} WITH (primary_key = 'place, id') AS\n{};\n",
        selects.join("\nUNION ALL ")
    )
}

fn sources() -> String {
    let source = |cell: &Cell| {
        let table = cell.table;
        format!(
            "CREATE TABLE {table} WITH (topic = '{{topic:{table}}}', format = 'avro', \
             envelope = 'debezium');\n"
        )
    };
    CELLS.iter().map(source).collect()
}

fn first_views() -> String {
    let select = |cell: &Cell| {
        let table = cell.table;
        Some(format!(
            "SELECT '{table}' AS place, id, CAST(n AS text) AS n, s FROM {table}"
        ))
    };
    let moods = "CREATE MATERIALIZED VIEW felt WITH (primary_key = 'id') AS
                 SELECT id, mood FROM moods;\n";
    sources() + &views(select, "everything") + moods
}

/// Columns that were not there at first, read from the topics' beginning.
fn later_views() -> String {
    let select = |cell: &Cell| {
        let (table, column) = (cell.table, cell.later?);
        Some(format!(
            "SELECT '{table}' AS place, id, CAST({column} AS text) AS x FROM {table}"
        ))
    };
    first_views() + &views(select, "later")
}

/// Makes all changes while load goes on, with kills between them.
fn change_running(pipeline: &mut Pipeline, how: How) {
    let mut sql = pipeline.place.sql();
    let tables: Vec<&str> = CELLS.iter().map(|cell| cell.table).collect();
    let load = Load::start(&pipeline.place, &tables);
    let publication = pipeline.publication();
    load.goes_on(200);
    for (number, cell) in CELLS.iter().enumerate() {
        make(&mut sql, cell, &publication, pipeline.captures());
        match (
            how.killed,
            number * 5 / CELLS.len(),
            (number + 1) * 5 / CELLS.len(),
        ) {
            (true, 0, 1) => pipeline.kill("ingest"),
            (true, 1, 2) => pipeline.start("ingest"),
            (true, 2, 3) => pipeline.kill("dataflow"),
            (true, 3, 4) => pipeline.start("dataflow"),
            _ => {}
        }
    }
    load.goes_on(200);
    load.stop();
}

fn change_stopped(pipeline: &mut Pipeline, how: How) {
    let mut sql = pipeline.place.sql();
    let publication = pipeline.publication();
    for part in ["dataflow", "ingest"] {
        pipeline.end(part, how.killed);
    }
    for cell in CELLS {
        make(&mut sql, cell, &publication, false);
    }
    let tables: Vec<&str> = CELLS.iter().map(|cell| cell.table).collect();
    let load = Load::start(&pipeline.place, &tables);
    load.goes_on(200);
    load.stop();
    pipeline.start("ingest");
    if how.killed {
        // While it reads tables anew.
        pipeline.ingest_says("the table is read anew");
        pipeline.kill("ingest");
        pipeline.start("ingest");
    }
    pipeline.start("dataflow");
}

fn all_cells(how: How) {
    let _turn = lane(usize::from(how.killed));
    let test = "the matrix of schema changes";
    let Some(place) = Place::open(test) else {
        return;
    };
    let mut sql = place.sql();
    sql.batch_execute("CREATE SEQUENCE numbers").unwrap();
    for cell in CELLS {
        let made = statements(cell, "", cell.made).join("; ");
        sql.batch_execute(&made)
            .unwrap_or_else(|error| panic!("{made}: {error:?}"));
    }
    let tables: Vec<&str> = CELLS.iter().map(|cell| cell.table).collect();
    let mut pipeline = Pipeline::new(place, &tables, &first_views());
    pipeline.settle();
    match how.running {
        true => change_running(&mut pipeline, how),
        false => change_stopped(&mut pipeline, how),
    }
    pipeline.settle();
    // What a new job reads in the topics is right too.
    pipeline.stop("dataflow");
    pipeline.read(&tables, &later_views());
    pipeline.start("dataflow");
    pipeline.settle();
    let seen = pipeline.read_anew();
    let mut wrong = Vec::new();
    for cell in CELLS {
        let end = match seen.contains(cell.table) {
            true => End::Anew,
            false => End::Streamed,
        };
        println!("{}: {}: {}", how.name(), cell.table, end.told());
        if end != cell.end {
            wrong.push(format!("{}: {end:?}, not {:?}", cell.table, cell.end));
        }
    }
    assert!(wrong.is_empty(), "{}: {}", how.name(), wrong.join("; "));
    assert_eq!(pipeline.dead_letters(), 0);
    pipeline.stop("dataflow");
    pipeline.stop("ingest");
}

#[test]
fn tables_change_while_the_river_runs() {
    all_cells(How::ALL[0]);
}

#[test]
fn tables_change_while_the_river_runs_and_is_killed() {
    all_cells(How::ALL[1]);
}

#[test]
fn tables_change_while_the_river_is_stopped() {
    all_cells(How::ALL[2]);
}

#[test]
fn tables_change_while_the_river_is_killed() {
    all_cells(How::ALL[3]);
}
