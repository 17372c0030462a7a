//! A database of the test's own with a column of every type, its changes, and its answers.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use postgres::types::Type;
use postgres::{Client, NoTls, SimpleQueryMessage};

use crate::harness::{PATIENCE, given, unique};
use crate::types::cells::Operation;
use crate::types::kinds::{KINDS, Kind, SETUP};

/// Rows as sorted texts; none is null.
pub(crate) type Rows = Vec<Vec<Option<String>>>;

/// A column of an answer.
#[derive(Debug, Clone)]
pub(crate) struct Column {
    pub(crate) name: String,
    pub(crate) kind: Type,
}

/// The database, dropped with its slots at the end.
pub(crate) struct Source {
    pub(crate) name: String,
    pub(crate) url: String,
    pub(crate) client: Client,
    admin: Client,
}

impl Source {
    /// An empty database whose text is in the order of its bytes; none, said plainly, when no
    /// server was given.
    pub(crate) fn new(what: &str) -> Option<Self> {
        let server = given(what, "TIDEMILL_TEST_POSTGRES")?;
        let name = unique(what);
        let mut admin = Client::connect(&server, NoTls).unwrap();
        let create = format!("CREATE DATABASE {name} TEMPLATE template0 LOCALE 'C.UTF-8'");
        admin.batch_execute(&create).unwrap();
        let (base, _) = server.rsplit_once('/').unwrap();
        let url = format!("{base}/{name}");
        let mut client = Client::connect(&url, NoTls).unwrap();
        let settings = "SET timezone = 'UTC'; SET extra_float_digits = 1";
        client.batch_execute(settings).unwrap();
        Some(Self {
            name,
            url,
            client,
            admin,
        })
    }

    #[track_caller]
    pub(crate) fn run(&mut self, sql: &str) {
        let ran = self.client.batch_execute(sql);
        ran.unwrap_or_else(|error| panic!("{error:?}\n{sql}"));
    }

    /// What PostgreSQL is asked, if it can answer the question at all.
    pub(crate) fn question(&mut self, kind: &Kind, operation: Operation) -> Option<String> {
        let plain = operation.query(kind).0;
        let words = std::iter::once(plain).chain(operation.in_other_words(kind));
        words
            .into_iter()
            .find(|sql| self.client.prepare(sql).is_ok())
    }

    /// PostgreSQL's answer, each value as its type's output function writes it.
    pub(crate) fn answer(&mut self, sql: &str) -> (Vec<Column>, Rows) {
        let prepared = self.client.prepare(sql);
        let prepared = prepared.unwrap_or_else(|error| panic!("{error:?}\n{sql}"));
        let columns = prepared.columns().iter().map(|column| Column {
            name: column.name().to_owned(),
            kind: column.type_().clone(),
        });
        let columns: Vec<Column> = columns.collect();
        let sql = format!("SELECT {} FROM ({sql}) AS answer", as_texts(&columns));
        let messages = self.client.simple_query(&sql).unwrap();
        let rows = messages.iter().filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some(
                (0..row.len())
                    .map(|at| row.get(at).map(str::to_owned))
                    .collect(),
            ),
            _ => None,
        });
        let rows: Rows = rows.collect();
        (columns, rows)
    }

    /// Tables with columns of all types, and the rows that a snapshot finds. Returns the types that
    /// PostgreSQL takes for a key.
    pub(crate) fn begin(&mut self) -> Vec<&'static Kind> {
        self.run(SETUP);
        let columns = KINDS.iter();
        let columns: String = columns
            .map(|kind| format!(", {} {}", kind.column(), kind.name))
            .collect();
        self.run(&format!(
            "CREATE TABLE t (id int PRIMARY KEY, g int NOT NULL, dead bool NOT NULL{columns});
             CREATE SCHEMA judge;
             CREATE VIEW judge.t AS SELECT * FROM public.t WHERE NOT dead"
        ));
        let mut sql = String::new();
        let mut keyed = Vec::new();
        for kind in KINDS {
            let values = kind.all().enumerate();
            for (at, (value, dead)) in values.filter(|(at, _)| at % 2 == 0) {
                sql += &insert(kind, at, value, dead);
            }
            sql += &insert(kind, 90, "NULL", false);
            for at in [91, 92, 93, 95] {
                sql += &insert(kind, at, kind.values[0], false);
            }
            let (g, name) = (kind.group(), kind.name);
            let table = format!("CREATE TABLE k{g} (k {name} PRIMARY KEY, n int)");
            if self.client.batch_execute(&table).is_ok() {
                sql += &keys(kind, 0);
                keyed.push(kind);
            }
        }
        self.run(&sql);
        keyed
    }

    /// Inserts, updates and deletes of every type; how many writes have no value here.
    pub(crate) fn change(&mut self, keyed: &[&Kind]) -> usize {
        let (mut sql, mut dead) = (String::new(), 0);
        for kind in KINDS {
            let (c, from) = (kind.column(), kind.group() * 100);
            let mut update = |at: usize, value: &str, is_dead: bool| {
                let id = from + at;
                writeln!(
                    sql,
                    "UPDATE t SET {c} = {value}, dead = {is_dead} WHERE id = {id};"
                )
                .unwrap();
            };
            update(90, kind.values[0], false);
            update(93, "NULL", false);
            for at in (0..kind.values.len()).step_by(6) {
                update(at, kind.values[(at + 1) % kind.values.len()], false);
            }
            if let Some(value) = kind.dead.first() {
                update(95, value, true);
                dead += 1;
            }
            let cured = kind.values.len().next_multiple_of(2);
            if cured < kind.all().count() {
                update(cured, kind.values[0], false);
            }
            for (at, (value, is_dead)) in kind.all().enumerate().filter(|(at, _)| at % 2 == 1) {
                sql += &insert(kind, at, value, is_dead);
                dead += usize::from(is_dead);
            }
            let (deleted, moved, to) = (from + 91, from + 92, from + 94);
            writeln!(sql, "DELETE FROM t WHERE id = {deleted};").unwrap();
            writeln!(sql, "UPDATE t SET id = {to} WHERE id = {moved};").unwrap();
        }
        for kind in keyed {
            let g = kind.group();
            sql += &keys(kind, 1);
            writeln!(sql, "UPDATE k{g} SET n = n + 100 WHERE n % 3 = 0;").unwrap();
            writeln!(sql, "DELETE FROM k{g} WHERE n = 2;").unwrap();
        }
        self.run(&sql);
        dead
    }

    /// Ends who holds a slot of the database, and drops those that nobody holds; how many were
    /// there.
    fn drop_slots(&mut self) -> Result<usize, postgres::Error> {
        let ask = "SELECT slot_name::text, active_pid FROM pg_replication_slots
                   WHERE database = $1";
        let slots = self.admin.query(ask, &[&self.name])?;
        for row in &slots {
            let (slot, pid): (String, Option<i32>) = (row.get(0), row.get(1));
            // Whoever holds it may end, and free it, at this moment.
            let _tried_again = match pid {
                Some(pid) => self
                    .admin
                    .execute("SELECT pg_terminate_backend($1)", &[&pid]),
                None => self
                    .admin
                    .execute("SELECT pg_drop_replication_slot($1)", &[&slot]),
            };
        }
        Ok(slots.len())
    }
}

impl Drop for Source {
    /// Also when the test fails: others need the slots.
    fn drop(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        while self.drop_slots().is_ok_and(|slots| slots > 0) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(50));
        }
        let drop = format!("DROP DATABASE {} WITH (FORCE)", self.name);
        if let Err(error) = self.admin.batch_execute(&drop) {
            eprintln!("database {} is left behind: {error}", self.name);
        }
    }
}

/// The columns of a query, each as its type's output function writes it.
pub(crate) fn as_texts(columns: &[Column]) -> String {
    let texts = columns.iter().map(|column| {
        let name = format!("\"{}\"", column.name);
        format!("CASE WHEN {name} IS DISTINCT FROM NULL THEN format('%s', {name}) END")
    });
    texts.collect::<Vec<_>>().join(", ")
}

fn insert(kind: &Kind, at: usize, value: &str, dead: bool) -> String {
    let (g, c) = (kind.group(), kind.column());
    let id = g * 100 + at;
    format!("INSERT INTO t (id, g, dead, {c}) VALUES ({id}, {g}, {dead}, {value});\n")
}

/// Keys of every second value.
fn keys(kind: &Kind, from: usize) -> String {
    let values = kind.values.iter().enumerate();
    let values = values.filter(|(at, _)| at % 2 == from);
    values.fold(String::new(), |mut sql, (at, value)| {
        let g = kind.group();
        writeln!(
            sql,
            "INSERT INTO k{g} VALUES ({value}, {at}) ON CONFLICT DO NOTHING;"
        )
        .unwrap();
        sql
    })
}
