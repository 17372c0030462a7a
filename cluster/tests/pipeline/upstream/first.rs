//! A pipeline that captures tables, before its first run: `check`, `explain` and `plan` say what
//! they say after it.

use arrow::datatypes::DataType;

use crate::harness::database::Database;
use crate::harness::{PATIENCE, Place, View};

/// Columns of many types, in both databases.
const COLUMNS: &str = "(id integer PRIMARY KEY, name text NOT NULL, price numeric(10, 2),
    made date, at timestamp, paid boolean, note text)";

fn views(table: &str, columns: &str) -> String {
    format!(
        "CREATE TABLE {table} WITH (topic = '{table}', format = 'avro', envelope = 'debezium');
         CREATE MATERIALIZED VIEW all_{table} WITH (primary_key = 'id') AS
           SELECT {columns} FROM {table};"
    )
}

#[test]
fn check_explain_and_plan_need_no_run_before() {
    for place in Place::all("first") {
        let table = place.name.clone();
        let captures = format!("[capture]\ntables = [\"{table}\"]\n");
        place.write("ingest.toml", &captures);
        let all = "id, name, price, made, at, paid, note";
        place.write("views.sql", &views(&table, all));
        let mut database = Database::open(&place.database);
        let ask = |command: &str, code: i32| place.start(command, &[]).ends(code, PATIENCE);
        let said = ask("check", 1);
        assert!(
            said.contains(&format!("table `{table}` does not exist")),
            "{said}"
        );
        assert!(database.execute(&format!("CREATE TABLE {table} {COLUMNS}")));
        let checked = ask("check", 0);
        assert!(checked.contains("ok: 1 table, 1 view"), "{checked}");
        let explained = ask("explain", 0);
        let planned = ask("plan", 0);
        assert!(planned.contains("new: its table is filled"), "{planned}");
        // A column that is not there is refused by name.
        place.write("views.sql", &views(&table, "id, nmae"));
        let said = ask("check", 1);
        assert!(said.contains("nmae"), "{said}");
        place.write("views.sql", &views(&table, all));
        // What the capture registers is what was expected of it.
        let insert = "(id, name, price, made, paid) VALUES (7, 'seven', 7.25, '2026-11-28', true)";
        assert!(database.execute(&format!("INSERT INTO {table} {insert}")));
        let mut run = place.start("run", &[]);
        let id = match place.database.starts_with("sqlite:") {
            true => DataType::Int64,
            false => DataType::Int32,
        };
        let view = View::new(&format!("all_{table}"), &[("id", id)]);
        place.expect(&view, &[vec!["7".to_owned()]].into());
        run.stop("TERM");
        let registry = tidemill_log::registry::open(&place.registry).unwrap();
        let registered = registry.versions(&format!("{table}-value")).unwrap();
        assert_eq!(registered.len(), 1, "the capture registered its schema");
        assert_eq!(ask("explain", 0), explained);
        place.start("drop", &["--yes"]).ends(0, PATIENCE);
        database.execute(&format!("DROP TABLE {table}"));
    }
}

#[test]
fn a_generated_column_in_a_view_is_refused_by_name_with_what_to_do() {
    for place in Place::all("generated") {
        let table = place.name.clone();
        place.write(
            "ingest.toml",
            &format!("[capture]\ntables = [\"{table}\"]\n"),
        );
        let mut database = Database::open(&place.database);
        let columns = "(id int PRIMARY KEY, total int GENERATED ALWAYS AS (id * 2) STORED)";
        assert!(database.execute(&format!("CREATE TABLE {table} {columns}")));
        place.write("views.sql", &views(&table, "id, total"));
        for command in ["check", "explain"] {
            let said = place.start(command, &[]).ends(1, PATIENCE);
            let what = format!("column `total` of table `{table}` is generated");
            assert!(said.contains(&what), "{said}");
            assert!(
                said.contains("views.sql:") && said.contains("expression"),
                "{said}"
            );
            let is_sqlite = place.database.starts_with("sqlite:");
            assert!(is_sqlite || said.contains("(id * 2)"), "{said}");
        }
        database.execute(&format!("DROP TABLE {table}"));
    }
}
