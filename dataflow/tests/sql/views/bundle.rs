//! The views that are tested: what the files of `sql/slt` create, in SQL that PostgreSQL
//! understands too, and the queries there, which both must answer alike.
//!
//! The files are sqllogictest's: records between empty lines, `statement ok` or `query` above the
//! SQL. What a query must return stands in none of them: PostgreSQL says it. Where PostgreSQL does
//! not have a view's syntax, the view is `skipif postgresql`, and the next record, `onlyif
//! postgresql`, creates it by hand.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::Path;

use rand::Rng;
use rand::rngs::StdRng;

use crate::views::feed::Envelope;

/// One view.
pub(crate) struct View {
    pub(crate) name: String,
    /// As the planner takes it.
    pub(crate) create: String,
    pub(crate) select: String,
}

/// The columns of both tables, in the words that PostgreSQL and the planner share.
pub(crate) const COLUMNS: [(&str, &str); 15] = [
    ("id", "int"),
    ("grp", "text"),
    ("sub", "int"),
    ("flag", "boolean"),
    ("small", "smallint"),
    ("n", "int"),
    ("big", "bigint"),
    ("huge", "bigint"),
    ("f", "double precision"),
    ("d", "numeric(12,2)"),
    ("txt", "text"),
    ("day", "date"),
    ("at", "timestamp"),
    ("tz", "timestamptz"),
    ("doc", "jsonb"),
];

pub(crate) const TABLES: [&str; 2] = ["items", "extras"];

/// The whole `views.sql`.
pub(crate) fn sql(envelope: Envelope, views: &[View]) -> String {
    let columns: Vec<String> = COLUMNS
        .iter()
        .map(|(name, kind)| format!("{name} {kind}"))
        .collect();
    let columns = columns.join(", ");
    let key = match envelope {
        Envelope::Append => "",
        _ => ", PRIMARY KEY (id)",
    };
    let envelope = envelope.name();
    let mut sql = String::new();
    for table in TABLES {
        writeln!(
            sql,
            "CREATE TABLE {table} ({columns}{key}) WITH (format = 'json', envelope = '{envelope}');"
        )
        .unwrap();
    }
    for view in views {
        writeln!(sql, "{};", view.create).unwrap();
    }
    sql
}

/// All views, in dependency order.
pub(crate) fn views() -> Vec<View> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sql/slt");
    let files = std::fs::read_dir(folder).unwrap();
    let mut files: Vec<_> = files.map(|file| file.unwrap().path()).collect();
    files.sort();
    let mut views: Vec<View> = Vec::new();
    for file in files {
        let mut queried = BTreeSet::new();
        let first = views.len();
        let text = std::fs::read_to_string(&file).unwrap();
        let records = text.split("\n\n").filter(|record| !record.starts_with('#'));
        for record in records {
            match record.trim_end().trim_end_matches(';').split_once('\n') {
                Some(("statement ok", sql)) => views.push(view(sql)),
                Some(("skipif postgresql", record)) => views.push(view(statement(record))),
                Some(("onlyif postgresql", record)) => {
                    let by_hand = view(statement(record));
                    let last = views.last_mut().filter(|last| last.name == by_hand.name);
                    last.unwrap_or_else(|| panic!("{record}")).select = by_hand.select;
                }
                Some(("query", sql)) => {
                    let name = sql.strip_prefix("SELECT * FROM ");
                    queried.insert(name.unwrap_or_else(|| panic!("{sql}")).to_owned());
                }
                _ => panic!("{}: no record: {record}", file.display()),
            }
        }
        let served = views
            .iter()
            .skip(first)
            .filter(|v| v.create.contains("primary_key"));
        let served: BTreeSet<String> = served.map(|view| view.name.clone()).collect();
        assert_eq!(queried, served, "{}: queries and views", file.display());
    }
    let names: BTreeSet<&str> = views.iter().map(|view| view.name.as_str()).collect();
    assert_eq!(names.len(), views.len(), "two views of one name");
    views
}

/// One in `one_in` of the views, drawn by `rng`, and those that they read, in the same order.
pub(crate) fn drawn(views: Vec<View>, rng: &mut StdRng, one_in: u32) -> Vec<View> {
    let mut wanted: BTreeSet<String> = BTreeSet::new();
    let mut kept: Vec<View> = Vec::new();
    // A view stands after those that it reads.
    for view in views.into_iter().rev() {
        if !wanted.contains(&view.name) && !rng.random_ratio(1, one_in) {
            continue;
        }
        let words = view
            .select
            .split(|c: char| !c.is_alphanumeric() && c != '_');
        wanted.extend(words.map(str::to_owned));
        kept.push(view);
    }
    kept.reverse();
    kept
}

fn statement(record: &str) -> &str {
    let sql = record.strip_prefix("statement ok\n");
    sql.unwrap_or_else(|| panic!("{record}"))
}

fn view(create: &str) -> View {
    let named = create.strip_prefix("CREATE MATERIALIZED VIEW ");
    let (head, select) = named.and_then(|named| named.split_once(" AS\n")).unwrap();
    View {
        name: head.split(' ').next().unwrap().to_owned(),
        create: create.to_owned(),
        select: select.to_owned(),
    }
}
