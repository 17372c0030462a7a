//! `verify --from-source`: what went wrong between PostgreSQL and the views is found, also where
//! the log itself is wrong, and what is only late or stored otherwise is not.

use std::sync::Arc;

use arrow::datatypes::DataType;
use tidemill_log::envelope::Encoder;
use tidemill_log::envelope::event::{Change, Op, Position, Value};
use tidemill_log::registry;
use tidemill_log::schema::{Column, ColumnType, TableSchema};

use crate::harness::database::Database;
use crate::harness::{Place, Process, View, until};
use crate::verify::damage::Tables;
use crate::verify::people::PATIENCE;

/// A pipeline of one captured table, on the real services.
struct Captured {
    place: Place,
    database: Database,
    table: String,
}

impl Captured {
    fn new(name: &str) -> Option<Self> {
        let place = Place::services(name)?;
        let mut database = Database::open(&place.database);
        let table = place.name.clone();
        assert!(database.execute(&format!(
            "CREATE TABLE {table} (id int PRIMARY KEY, kind text, amount numeric(12, 2),
               score double precision, at timestamptz, day date, raw bytea, ok boolean);
             INSERT INTO {table} SELECT n, 'kind ' || n % 7, n / 8.0, n / 7.0,
               TIMESTAMPTZ '2024-02-29 12:00:00.123456Z' + n * INTERVAL '1 hour',
               DATE '2024-02-29' - n, decode(lpad(to_hex(n), 8, '0'), 'hex'), n % 3 = 0
             FROM generate_series(1, 300) AS n;
             INSERT INTO {table} (id) VALUES (0)"
        )));
        place.write(
            "ingest.toml",
            &format!("[capture]\ntables = [\"{table}\"]\n"),
        );
        place.write(
            "views.sql",
            &format!(
                "CREATE TABLE things WITH (topic = '{table}');
                 CREATE VIEW evens AS SELECT id, kind, amount FROM things WHERE id % 2 = 0;
                 CREATE MATERIALIZED VIEW everything WITH (primary_key = 'id') AS
                   SELECT * FROM things;
                 CREATE MATERIALIZED VIEW kinds WITH (primary_key = 'kind') AS -- counts
                   SELECT coalesce(kind, '-') AS kind, count(*) AS things, sum(amount) AS amount
                   FROM evens GROUP BY coalesce(kind, '-') -- of even ids"
            ),
        );
        Some(Self {
            place,
            database,
            table,
        })
    }

    /// Runs until the view holds so many rows.
    fn runs(&self, rows: usize) -> Process {
        let mut run = self.place.start("run", &[]);
        self.holds(rows, &mut run);
        run
    }

    fn holds(&self, rows: usize, run: &mut Process) {
        let view = View::new("everything", &[("id", DataType::Int32)]);
        until("all rows are there", PATIENCE, || {
            run.runs();
            (self.place.view(&view).len() == rows).then_some(())
        });
    }

    fn verify(&self, more: &[&str], code: i32) -> String {
        self.place.start("verify", more).ends(code, PATIENCE)
    }

    /// A record that says of a row what PostgreSQL does not, after all others.
    fn append_a_lie(&self) {
        let column = |name: &str, kind| Column {
            name: name.to_owned(),
            kind,
            nullable: true,
        };
        let decimal = ColumnType::Decimal {
            precision: 12,
            scale: 2,
        };
        let table = TableSchema {
            namespace: "public".to_owned(),
            name: self.table.clone(),
            columns: vec![
                column("id", ColumnType::Int),
                column("kind", ColumnType::Text),
                column("amount", decimal),
                column("score", ColumnType::Double),
                column("at", ColumnType::Timestamptz),
                column("day", ColumnType::Date),
                column("raw", ColumnType::Bytes),
                column("ok", ColumnType::Bool),
            ],
            key: vec![0],
        };
        let position = Position {
            commit: u64::MAX >> 2,
            index: 0,
        };
        let mut lie = vec![Value::Null; table.columns.len()];
        lie[..2].clone_from_slice(&[Value::Int(8), Value::Text("a lie".to_owned())]);
        let change = Change {
            table: Arc::new(table),
            op: Op::Update,
            before: None,
            after: Some(lie),
            position,
            transaction: 1,
            committed_us: 1,
            snapshot: false,
        };
        let registry = registry::open(&self.place.registry).unwrap();
        let mut encoder = Encoder::new(&self.table, registry);
        self.place.append(&[encoder.encode(&change).unwrap()]);
    }
}

impl Drop for Captured {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.database.clean(&self.place.name, &[&self.table]);
        }
    }
}

#[test]
fn what_postgresql_says_is_compared_with_the_views_themselves() {
    let Some(mut captured) = Captured::new("from_source") else {
        return;
    };
    let mut run = captured.runs(301);
    let said = captured.verify(&["--from-source"], 0);
    assert!(
        said.contains("everything: 301 rows equal to PostgreSQL's answer"),
        "{said}"
    );
    assert!(said.contains("kinds: 8 rows equal"), "{said}");

    // While rows change all the time, whatever stands still is equal.
    let table = captured.table.clone();
    assert!(captured.database.execute(&format!(
        "UPDATE {table} SET amount = amount + 1, at = 'infinity' WHERE id = 5;
         DELETE FROM {table} WHERE id = 6;
         UPDATE {table} SET kind = 'new', raw = NULL WHERE id = 9"
    )));
    let said = captured.verify(&["--from-source", "--settle", "2s"], 4);
    assert!(
        said.contains("everything: 1 difference from PostgreSQL's answer of 300 rows"),
        "{said}"
    );

    // Somebody damages a table.
    let tables = Tables::of(&captured.place);
    tables.run("UPDATE everything SET kind = 'damaged' WHERE id = 7");
    tables.run("DELETE FROM everything WHERE id = 3");
    tables.insert("everything", "id", "999");
    let said = captured.verify(&["everything", "--from-source", "--settle", "1s"], 4);
    assert!(
        said.contains("4 differences") && said.contains("damaged"),
        "{said}"
    );

    // The log is wrong: the views follow it, and no other check sees that.
    captured.append_a_lie();
    let kinds = View::new("kinds", &[("kind", DataType::Utf8)]);
    until("the lie is in the view", PATIENCE, || {
        let kinds = captured.place.view(&kinds);
        kinds.contains(&vec!["a lie".to_owned()]).then_some(())
    });
    let lie = ["kinds", "--from-source", "--settle", "1s", "--json"];
    let said = captured.verify(&lie, 4);
    assert!(
        said.contains(r#"{"difference":"extra","key":{"kind":"a lie"},"view":"kinds"}"#),
        "{said}"
    );
    captured.verify(&["kinds", "--from-log"], 0);
    run.stop("TERM");
}

#[test]
fn a_comparison_that_cannot_be_made_is_refused() {
    let place = Place::embedded("from_source_refused");
    place.write("ingest.toml", "[capture]\ntables = [\"things\"]\n");
    place.write(
        "views.sql",
        "CREATE TABLE things (id int) WITH (format = 'json');
         CREATE VIEW v WITH (primary_key = 'id') AS SELECT id, count(*) AS n
           FROM things GROUP BY id",
    );
    rusqlite::Connection::open(place.folder().join("river.sqlite")).unwrap();
    let said = place.start("verify", &["--from-source"]).ends(1, PATIENCE);
    assert!(said.contains("no --postgres is given"), "{said}");
    let both = ["--from-source", "--repair"];
    let said = place.start("verify", &both).ends(2, PATIENCE);
    assert!(said.contains("cannot be used with"), "{said}");
}
