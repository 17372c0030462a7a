//! The same pipeline, fed with the same pages and the same changes, gives the same views embedded
//! in an SQLite file and on the real services.

use std::path::Path;

use rusqlite::Connection;
use rusqlite::types::Value;
use scylla::frame::response::result::NativeType;

use crate::river::child::Tidemill;
use crate::river::place::{Place, serve_recorded};
use crate::river::rows::{Column, Rows, View, settle};

/// Changes that both databases understand.
const CHANGES: [&str; 4] = [
    "UPDATE users SET age = age + 1, registered_age = 0 WHERE gender = 'female'",
    "DELETE FROM users WHERE country IN ('Norway', 'Iran')",
    "UPDATE users SET country = 'Finland', id_value = NULL WHERE nat = 'CH'",
    "DELETE FROM users WHERE age BETWEEN 30 AND 39 AND gender = 'male'",
];

/// What the views print when they are asked for at the end of a run.
fn views_of(printed: &str, views: &[View]) -> String {
    let from = printed.rfind(&format!("\n{}\n", views[0].name));
    let views = &printed[from.unwrap_or_else(|| panic!("{printed}"))..];
    // What follows says where the data is, which differs.
    views.split("\nstopped").next().unwrap_or(views).to_owned()
}

/// A view in the file, in the columns that Cassandra has.
fn embedded(file: &Path, view: &str, columns: &[Column]) -> Rows {
    let connection = Connection::open(file).unwrap();
    let names: Vec<String> = columns.iter().map(|c| format!("\"{}\"", c.name)).collect();
    let sql = format!("SELECT {} FROM \"{view}\"", names.join(", "));
    let Ok(mut statement) = connection.prepare(&sql) else {
        return Vec::new();
    };
    let row = |row: &rusqlite::Row<'_>| {
        let cells = columns.iter().enumerate();
        let cells = cells.map(|(at, column)| Ok(text(row.get(at)?, &column.kind)));
        cells.collect::<rusqlite::Result<Vec<_>>>()
    };
    let rows = statement.query_map([], row).unwrap();
    let mut rows: Rows = rows.map(Result::unwrap).collect();
    rows.sort();
    rows
}

fn text(value: Value, kind: &NativeType) -> Option<String> {
    match (value, kind) {
        (Value::Null, _) => None,
        (Value::Integer(number), _) => Some(number.to_string()),
        (Value::Real(number), _) => Some(format!("{number:?}")),
        (Value::Text(text), NativeType::Timestamp) => {
            let at = text.parse::<jiff::Timestamp>();
            let at = at.or_else(|_| format!("{text}Z").parse());
            Some(at.unwrap().as_millisecond().to_string())
        }
        (Value::Text(text), _) => Some(text),
        (Value::Blob(bytes), _) => panic!("{bytes:?} is no value of these views"),
    }
}

#[test]
fn embedded_and_on_the_services_the_views_are_the_same() {
    let test = "embedded_and_on_the_services_the_views_are_the_same";
    let Some(place) = Place::open(test) else {
        return;
    };
    let api = serve_recorded();
    let views = place.users(20);
    let file = place.folder.path().join("river.sqlite");
    let data = file.display().to_string();
    let embedded_args = |more: &[&str]| {
        let args = ["run", "users", "--data", &data, "--api", &api.url()];
        args.iter()
            .chain(more)
            .map(|&arg| arg.to_owned())
            .collect::<Vec<String>>()
    };
    let one_file = embedded_args(&["--until", "2000"]);
    let one_file = Tidemill::start(place.folder.path(), "one", &one_file);
    let printed_embedded = one_file.ended();
    let args = ["--api", &api.url(), "--until", "2000"];
    let printed = place.start("run", "users", &args).ended();
    assert_eq!(
        views_of(&printed_embedded, &views),
        views_of(&printed, &views)
    );

    let mut one_file = Tidemill::start(place.folder.path(), "two", &embedded_args(&[]));
    let mut services = place.start("run", "users", &["--api", &api.url()]);
    let mut sql = place.sql();
    let sqlite = Connection::open(&file).unwrap();
    sqlite.busy_timeout(crate::river::child::PATIENCE).unwrap();
    for change in CHANGES {
        let in_postgres = sql.execute(change, &[]).unwrap();
        let in_sqlite = sqlite.execute(change, []).unwrap();
        assert!(in_postgres > 0, "{change}");
        assert_eq!(in_sqlite as u64, in_postgres, "{change}");
    }
    settle(&mut services, &place.views, &mut sql, &views);
    for view in &views {
        let (columns, rows) = place.views.read(&view.name).unwrap();
        assert!(!rows.is_empty());
        one_file.until(&format!("the same rows in {}", view.name), || {
            (embedded(&file, &view.name, &columns) == rows).then_some(())
        });
    }
    services.stop();
    one_file.stop();
}
