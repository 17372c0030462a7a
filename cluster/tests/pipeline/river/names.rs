//! Names that few choose: of tables, schemas, columns and keys, with capitals, spaces, quotes,
//! dots, letters of many alphabets, 63 bytes, and words of SQL and of Debezium's envelope. Each is
//! right from PostgreSQL to Cassandra, or refused by name before anything runs.

use tempfile::TempDir;

use crate::river::child::Tidemill;
use crate::river::place::Place;
use crate::river::rows::settle;

/// Columns of one table. Some differ only by case, or in letters that Avro does not allow.
const COLUMNS: [&str; 26] = [
    "First Name",
    "quo\"te",
    "apo'strophe",
    "größe",
    "grosse",
    "2nd",
    "select",
    "a.b",
    "a-b",
    "a b",
    "a_b",
    "日本",
    "Order",
    "order",
    "_",
    "__",
    "__op",
    "__deleted",
    "before",
    "after",
    "source",
    "ts_ms",
    "op",
    "back\\slash",
    "ééééééééééééééééééééééééééééééé",
    "exactly_sixty_three_bytes_long_as_postgresql_allows_at_the_most",
];

/// A captured table and the name that its view reads it by.
const TABLES: [(&str, &str, &str); 6] = [
    ("public", "Orders", "orders"),
    ("public", "2nd-table", "second"),
    ("public", "select", "selected"),
    (
        "public",
        "an_exactly_sixty_three_bytes_long_table_as_postgresql_allows_it",
        "long",
    ),
    ("we ird\"schema", "mixedCase", "mixed"),
    ("Größe", "inside", "inside"),
];

fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Makes a captured table, with a key of two odd names, and a view of PostgreSQL's under the name
/// that `views.sql` has for it.
fn make((schema, table, read): (&str, &str, &str)) -> String {
    let (schema, table) = (quote(schema), quote(table));
    let columns = COLUMNS.iter().map(|name| format!("{} text", quote(name)));
    let columns: Vec<String> = columns.collect();
    format!(
        "CREATE SCHEMA IF NOT EXISTS {schema};
         CREATE TABLE {schema}.{table} (
             \"The Key\" int, \"schlüssel\" text, {}, PRIMARY KEY (\"schlüssel\", \"The Key\"));
         CREATE VIEW public.{read} AS SELECT * FROM {schema}.{table}",
        columns.join(", ")
    )
}

fn fill((schema, table, _): (&str, &str, &str), from: i32) -> String {
    let values = (0..COLUMNS.len()).map(|n| format!("'{n} of ' || g"));
    let values: Vec<String> = values.collect();
    format!(
        "INSERT INTO {}.{} SELECT g, 'k' || g % 3, {} FROM generate_series({from}, {from} + 20) g",
        quote(schema),
        quote(table),
        values.join(", ")
    )
}

fn view((_, table, read): (&str, &str, &str)) -> String {
    let columns = COLUMNS.iter().enumerate();
    let columns = columns.map(|(number, name)| format!("{} AS c{number}", quote(name)));
    let columns: Vec<String> = columns.collect();
    format!(
        "CREATE TABLE {read} WITH (topic = '{{topic:{table}}}', format = 'avro');
         CREATE MATERIALIZED VIEW {read}_now WITH (primary_key = 'k, s') AS
         SELECT \"The Key\" AS k, \"schlüssel\" AS s, {} FROM {read};\n",
        columns.join(", ")
    )
}

#[test]
fn odd_names_are_right_from_postgresql_to_cassandra() {
    let test = "odd_names_are_right_from_postgresql_to_cassandra";
    let Some(place) = Place::open(test) else {
        return;
    };
    let mut sql = place.sql();
    for table in TABLES {
        sql.batch_execute(&make(table)).unwrap();
        sql.batch_execute(&fill(table, 1)).unwrap();
    }
    let names = TABLES.map(|(schema, table, _)| match schema {
        "public" => table.to_owned(),
        _ => format!("{schema}.{table}"),
    });
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let views: String = TABLES.into_iter().map(view).collect();
    let views = place.capturing("names", &names, &views);
    let mut running = place.start("run", "names", &["--no-live"]);
    settle(&mut running, &place.views, &mut sql, &views);
    for table in TABLES {
        let (schema, name, _) = table;
        let name = format!("{}.{}", quote(schema), quote(name));
        let change = format!(
            "{}; UPDATE {name} SET \"größe\" = NULL, \"select\" = '\"' WHERE \"The Key\" < 5;
             UPDATE {name} SET \"schlüssel\" = 'ß' WHERE \"The Key\" = 9;
             DELETE FROM {name} WHERE \"The Key\" = 11",
            fill(table, 100)
        );
        sql.batch_execute(&change).unwrap();
    }
    settle(&mut running, &place.views, &mut sql, &views);
    running.stop();
}

/// What `check` says of a pipeline that it refuses.
fn refused(tables: &[&str], publish: &str, views: &str) -> String {
    let folder = TempDir::new().unwrap();
    let pipeline = folder.path().join("names");
    std::fs::create_dir(&pipeline).unwrap();
    let ingest = format!("[capture]\ntables = {tables:?}\n[publish]\n{publish}\n");
    std::fs::write(pipeline.join("ingest.toml"), ingest).unwrap();
    std::fs::write(pipeline.join("views.sql"), views).unwrap();
    let args = ["check", "names"].map(str::to_owned);
    Tidemill::start(folder.path(), "said", &args).refused()
}

#[test]
fn names_that_no_topic_can_have_are_refused_by_check() {
    let view = "CREATE TABLE t (id int) WITH (topic = 't', format = 'json');
                CREATE MATERIALIZED VIEW v WITH (primary_key = 'id') AS SELECT id FROM t;";
    for name in [
        "first name",
        "größe",
        "quo\"te",
        "日本",
        "a/b",
        "tab\tle",
        "apo'strophe",
    ] {
        let said = refused(&[name], "", view);
        assert!(
            said.contains("would be published to topic"),
            "{name}: {said}"
        );
    }
    let schema = refused(&["we ird.t"], "topic_schema = true", view);
    assert!(schema.contains("topic `we ird.t`"), "{schema}");
    let long = refused(
        &["t"],
        &format!("topic_prefix = \"{}\"", "x".repeat(249)),
        view,
    );
    assert!(long.contains("at most 249"), "{long}");
    let dots = refused(&["a.b.c"], "", view);
    assert!(dots.contains("dot in its name"), "{dots}");
    for name in ["Größe", "first name", "quo\"\"te"] {
        let odd = format!(
            "CREATE TABLE t (id int) WITH (topic = 't', format = 'json');
             CREATE MATERIALIZED VIEW v WITH (primary_key = 'id') AS
             SELECT id, id AS \"{name}\" FROM t;"
        );
        let said = refused(&["t"], "", &odd);
        let says = said.contains("of the view has no name: write");
        assert!(says && said.contains("views.sql:2:"), "{name}: {said}");
    }
}
