//! The planner over files: every `NAME.sql` of this folder has a `NAME.explain` beside it, which
//! holds what `explain` says about it. An `error_*.sql` holds many cases, each under a line
//! `--- name` (what stands before the first is put before each), and its `.explain` has the error
//! of each.
//! `UPDATE_EXPECT=1` writes them anew.

mod mutated;
mod serving;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{ArrayRef, Int32Array, Int64Array, RecordBatch};
use arrow::util::display::array_value_to_string;
use tidemill_ir::{Job, RelOp, View, explain};
use tidemill_log::registry::{Registered, Registry};
use tidemill_log::schema::{Column, ColumnType, SourceType, TableSchema, key_schema, value_schema};
use tidemill_log::{Kind, Result};
use tidemill_plan::compile;

/// A registry of the schemas that the files use.
struct Schemas(BTreeMap<String, String>);

impl Registry for Schemas {
    fn register(&self, subject: &str, _: &str) -> tidemill_log::Result<Registered> {
        let what = format!("the planner registered `{subject}`");
        Err(tidemill_log::Error::new(tidemill_log::Kind::Bug, what))
    }

    fn delete(&self, _subject: &str) -> tidemill_log::Result<bool> {
        Ok(false)
    }

    fn by_id(&self, _: u32) -> tidemill_log::Result<Option<String>> {
        Ok(None)
    }

    fn versions(&self, subject: &str) -> tidemill_log::Result<Vec<Registered>> {
        let schema = self.0.get(subject).cloned();
        let registered = schema.map(|schema| Registered {
            id: 1,
            version: 1,
            schema,
        });
        Ok(registered.into_iter().collect())
    }
}

const TIMESTAMPTZ: &str = r#"{"type":"long","logicalType":"timestamp-micros"}"#;
const JSON: &str = r#"{"type":"string","connect.name":"io.debezium.data.Json"}"#;

fn record(name: &str, columns: &[(&str, &str)]) -> String {
    let field = |(column, kind): &(&str, &str)| match *column {
        "id" => format!(r#"{{"name":"id","type":{kind}}}"#),
        column => format!(r#"{{"name":"{column}","type":["null",{kind}],"default":null}}"#),
    };
    let fields: Vec<String> = columns.iter().map(field).collect();
    let fields = fields.join(",");
    format!(r#"{{"type":"record","name":"{name}","fields":[{fields}]}}"#)
}

fn envelope(row: &str) -> String {
    format!(
        r#"{{"type":"record","name":"Envelope","fields":[
            {{"name":"before","type":["null",{row}],"default":null}},
            {{"name":"after","type":["null","Value"],"default":null}},
            {{"name":"op","type":"string"}}]}}"#
    )
}

/// A table of every column type, with a composite key, as capture registers it.
fn everything() -> TableSchema {
    let columns = [
        ("id", ColumnType::Long),
        ("part", ColumnType::Int),
        ("a_bool", ColumnType::Bool),
        ("a_float", ColumnType::Float),
        ("a_double", ColumnType::Double),
        ("a_uuid", ColumnType::Uuid),
        ("a_json", ColumnType::Json),
        ("some_bytes", ColumnType::Bytes),
        ("a_date", ColumnType::Date),
        ("a_timestamp", ColumnType::Timestamp),
        ("an_instant", ColumnType::Timestamptz),
        (
            "a_numeric",
            ColumnType::Decimal {
                precision: 10,
                scale: 2,
            },
        ),
        ("odd name", ColumnType::Text),
    ];
    let column = |(name, kind): (&str, ColumnType)| Column {
        name: name.to_owned(),
        kind,
        nullable: true,
    };
    TableSchema {
        namespace: "public".into(),
        name: "everything".into(),
        columns: columns.map(column).to_vec(),
        key: vec![1, 0],
    }
}

/// A table of types that travel as PostgreSQL's text, as capture registers it.
fn typed() -> TableSchema {
    let columns = [
        ("id", "uuid"),
        ("at", "time"),
        ("mood", "enum"),
        ("other_mood", "enum"),
        ("ip", "inet"),
        ("code", "char(n)"),
        ("long_code", "char(n)"),
        ("price", "numeric"),
        ("cost", "numeric"),
        ("took", "interval"),
        ("tags", "array"),
        ("email", "citext"),
        ("shape", "geometry"),
        ("pair", "composite"),
    ];
    let column = |(name, kind): (&str, &str)| Column {
        name: name.to_owned(),
        kind: ColumnType::Source(SourceType::named(kind)),
        nullable: true,
    };
    let mut columns = columns.map(column).to_vec();
    let plain = [
        ("note", ColumnType::Text),
        ("n", ColumnType::Int),
        ("doc", ColumnType::Json),
    ];
    columns.extend(plain.map(|(name, kind)| Column {
        name: name.to_owned(),
        kind,
        nullable: true,
    }));
    TableSchema {
        namespace: "public".into(),
        name: "typed".into(),
        columns,
        key: vec![0],
    }
}

fn registry() -> Schemas {
    let text = "id gender title first_name last_name street_name city state country postcode \
                latitude longitude timezone_offset timezone_description email username password \
                salt md5 sha1 sha256 phone cell id_name id_value picture_large picture_medium \
                picture_thumbnail nat";
    let mut users: Vec<(&str, &str)> = text.split_whitespace().map(|c| (c, "\"string\"")).collect();
    users.insert(5, ("street_number", "\"int\""));
    users.extend([("age", "\"int\""), ("registered_age", "\"int\"")]);
    users.extend([
        ("dob", TIMESTAMPTZ),
        ("registered", TIMESTAMPTZ),
        ("document", JSON),
    ]);
    let connect =
        |kind: &str, name: &str| format!(r#"{{"type":"{kind}","connect.name":"{name}"}}"#);
    let foreign = [
        ("id", "\"string\"".to_owned()),
        ("millis", connect("long", "io.debezium.time.Timestamp")),
        ("micros", connect("long", "io.debezium.time.MicroTimestamp")),
        (
            "zoned",
            connect("string", "io.debezium.time.ZonedTimestamp"),
        ),
        ("day", connect("int", "io.debezium.time.Date")),
        ("tags", r#"{"type":"array","items":"string"}"#.to_owned()),
    ];
    let foreign = foreign
        .each_ref()
        .map(|(name, kind)| (*name, kind.as_str()));
    let countries = [
        ("name", "\"string\""),
        ("continent", "\"string\""),
        ("capital", "\"string\""),
        ("population", "\"long\""),
    ];
    let clicks = record("Click", &[("id", "\"long\""), ("url", "\"string\"")]);
    let key = |kind: &str| record("Key", &[("id", kind)]);
    let odd = &[
        ("tags", r#"{"type":"map","values":"int"}"#),
        ("tag", "\"int\""),
    ];
    let everything = everything();
    let typed = typed();
    let subjects = [
        ("users-value", envelope(&record("Value", &users))),
        ("users-key", key("\"string\"")),
        ("countries-value", envelope(&record("Value", &countries))),
        ("countries-key", record("Key", &[("name", "\"string\"")])),
        ("foreign-value", envelope(&record("Value", &foreign))),
        ("foreign-key", key("\"string\"")),
        ("keyless-value", envelope(&record("Value", &foreign))),
        ("everything-value", value_schema(&everything, "everything")),
        ("everything-key", key_schema(&everything, "everything")),
        ("typed-value", value_schema(&typed, "typed")),
        ("typed-key", key_schema(&typed, "typed")),
        ("clicks-value", clicks),
        ("clicks-key", key("\"long\"")),
        ("odd-value", record("Odd", odd)),
        ("plain-value", "\"string\"".to_owned()),
        ("broken-value", "{".to_owned()),
    ];
    let subjects = subjects.map(|(subject, schema)| (subject.to_owned(), schema));
    Schemas(BTreeMap::from(subjects))
}

fn plan(sql: &str) -> Result<Job> {
    compile(sql, "views.sql", Some(&registry()))
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sql/plan")
}

/// What the file `golden` must hold.
fn compare(golden: &Path, found: &str) -> std::result::Result<(), String> {
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        fs::write(golden, found).unwrap();
    }
    let expected = fs::read_to_string(golden).unwrap_or_default();
    match found == expected {
        true => Ok(()),
        false => Err(format!(
            "{}: expected\n{expected}found\n{found}(UPDATE_EXPECT=1 accepts it)",
            golden.display()
        )),
    }
}

/// The error of each case of an `error_*.sql`.
fn errors(sql: &str) -> std::result::Result<String, String> {
    let mut cases = sql.split("--- ");
    let prelude = cases.next().unwrap();
    let mut found = String::new();
    for case in cases {
        let (name, case) = case.split_once('\n').unwrap();
        // On one line, so that every case starts on the second.
        let sql = format!("{}\n{case}", prelude.replace('\n', " "));
        match plan(&sql) {
            Ok(_) => return Err(format!("`{name}` planned, and should not have")),
            Err(error) => found += &format!("{name}\n    {:?}: {error}\n", error.kind()),
        }
    }
    Ok(found)
}

fn check(file: &Path) -> std::result::Result<(), String> {
    let sql = fs::read_to_string(file).unwrap();
    let name = file.file_stem().unwrap().to_str().unwrap();
    let found = match name.starts_with("error_") {
        true => errors(&sql),
        false => plan(&sql)
            .map(|job| explain(&job, None))
            .map_err(|error| error.to_string()),
    };
    let found = found.map_err(|error| format!("{}: {error}", file.display()))?;
    compare(&file.with_extension("explain"), &found)
}

#[test]
fn every_file_gives_what_stands_beside_it() {
    let files = fs::read_dir(folder()).unwrap();
    let mut files: Vec<PathBuf> = files.map(|file| file.unwrap().path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "sql"));
    files.sort();
    assert!(files.len() > 30, "only {} files", files.len());
    let failures: Vec<String> = files.iter().filter_map(|file| check(file).err()).collect();
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
}

#[test]
fn every_scalar_function_plans_or_is_refused_by_name() {
    let calls = fs::read_to_string(folder().join("scalar_functions.txt")).unwrap();
    let calls = calls.lines().filter(|line| !line.starts_with('#'));
    let mut called = BTreeSet::new();
    let mut found = String::new();
    for call in calls {
        let name = call.split('(').next().unwrap();
        called.insert(name.to_owned());
        let sql = format!(
            "CREATE TABLE t (i int, x double, s text, b boolean, y bytea, d date, t timestamptz) \
             WITH (format = 'json'); CREATE VIEW v AS\nSELECT {call} AS c FROM t"
        );
        match plan(&sql) {
            Ok(job) => {
                let shown = explain(&job, None);
                let column = shown.lines().next().unwrap();
                let kind = column
                    .strip_prefix("view v (c ")
                    .unwrap()
                    .trim_end_matches(')');
                found += &format!("{call} -> {kind}\n");
            }
            Err(error) => {
                let error = error.to_string();
                assert!(
                    error.contains(name) || error.contains("`c`"),
                    "{call}: {error}"
                );
                found += &format!("{call} refused: {error}\n");
            }
        }
    }
    let functions = datafusion_functions::all_default_functions();
    let names = functions.iter().map(|function| function.name().to_owned());
    let missing: Vec<String> = names.filter(|name| !called.contains(name)).collect();
    assert!(
        missing.is_empty(),
        "no call of {missing:?} in scalar_functions.txt"
    );
    compare(&folder().join("scalar_functions.explain"), &found).unwrap();
}

#[test]
fn the_example_plans() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/users/views.sql");
    let job = plan(&fs::read_to_string(file).unwrap()).unwrap();
    compare(
        &folder().join("example_users.explain"),
        &explain(&job, None),
    )
    .unwrap();
    let proven = job.views.iter().map(|v| v.output.as_ref().unwrap().unique);
    assert_eq!(proven.collect::<Vec<_>>(), [true; 6]);
    assert_eq!(job.sources.len(), 2);
}

fn fingerprints(sql: &str) -> BTreeMap<String, u64> {
    let views = plan(sql).unwrap().views;
    let pair = |view: View| (view.name, view.fingerprint);
    views.into_iter().map(pair).collect()
}

const TABLES: &str = "CREATE TABLE users WITH (topic = 'users');
    CREATE TABLE t (a int, b text, c int) WITH (format = 'json', topic = 'tt');";

/// The fingerprint of view `v`.
fn fingerprint_in(tables: &str, view: &str) -> u64 {
    fingerprints(&format!("{tables} {view}"))["v"]
}

fn fingerprint(view: &str) -> u64 {
    fingerprint_in(TABLES, view)
}

const COUNTED: &str = "CREATE VIEW v WITH (primary_key = 'b') AS
    SELECT b, count(*) AS n, avg(a) AS m FROM t WHERE a > 3 GROUP BY b";

#[test]
fn fingerprints_do_not_change_between_releases() {
    let all = fs::read_dir(folder()).unwrap();
    let mut files: Vec<PathBuf> = all.map(|file| file.unwrap().path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "sql"));
    files.retain(|file| !file.to_str().unwrap().contains("error_"));
    files.sort();
    let mut found = String::new();
    for file in files {
        let name = file.file_stem().unwrap().to_str().unwrap();
        for (view, fingerprint) in fingerprints(&fs::read_to_string(&file).unwrap()) {
            found += &format!("{name} {view} {fingerprint:016x}\n");
        }
    }
    compare(&folder().join("fingerprints.explain"), &found).unwrap();
}

#[test]
fn a_fingerprint_is_the_same_every_time() {
    let sql = fs::read_to_string(folder().join("common_expressions.sql")).unwrap();
    let (first, shown) = (fingerprints(&sql), explain(&plan(&sql).unwrap(), None));
    for _ in 0..20 {
        assert_eq!(fingerprints(&sql), first);
        assert_eq!(explain(&plan(&sql).unwrap(), None), shown);
    }
}

#[test]
fn a_fingerprint_does_not_depend_on_layout_or_other_views() {
    let alone = fingerprint(COUNTED);
    let layout = "create materialized view V with ( PRIMARY_KEY = ' B ' ) as -- counted
        /* all */ select B , COUNT( * ) as N, Avg(A) as M
        from T where (A > 3) group by B;";
    assert_eq!(fingerprint(layout), alone);
    let before = "CREATE TABLE first (id int) WITH (format = 'json');
        CREATE VIEW w AS SELECT id FROM first; CREATE VIEW c AS SELECT c FROM t;";
    assert_eq!(fingerprint(&format!("{before} {COUNTED}")), alone);
    let after = "CREATE VIEW w AS SELECT a, b, c FROM t; CREATE VIEW x AS SELECT m FROM v";
    assert_eq!(fingerprint(&format!("{COUNTED}; {after}")), alone);
    // A column that the view does not read comes and goes.
    let fewer = "CREATE TABLE t (a int, b text) WITH (format = 'json', topic = 'tt');";
    assert_eq!(fingerprint_in(fewer, COUNTED), alone);
    // What a table is called here says nothing about its rows.
    let renamed = TABLES.replace("TABLE t ", "TABLE u ");
    assert_eq!(
        fingerprint_in(&renamed, &COUNTED.replace("FROM t", "FROM u")),
        alone
    );
}

#[test]
fn a_fingerprint_covers_everything_that_changes_rows() {
    let mut seen = BTreeMap::from([(fingerprint(COUNTED), "itself".to_owned())]);
    let changes = [
        ("a > 3", "a > 4"),
        ("a > 3", "a >= 3"),
        ("a > 3", "c > 3"),
        (" WHERE a > 3", ""),
        ("avg(a)", "sum(a)"),
        ("avg(a)", "avg(c)"),
        ("avg(a)", "avg(DISTINCT a)"),
        ("avg(a)", "avg(a) FILTER (WHERE c = 1)"),
        ("count(*)", "count(c)"),
        ("AS n", "AS k"),
        (
            "SELECT b, count(*) AS n, avg(a) AS m",
            "SELECT b, avg(a) AS m, count(*) AS n",
        ),
        ("GROUP BY b", "GROUP BY b, c"),
        ("GROUP BY b", "GROUP BY b HAVING count(*) > 1"),
        ("primary_key = 'b'", "primary_key = 'b, n'"),
        ("primary_key = 'b'", "primary_key = '(b, n)'"),
        ("primary_key = 'b'", "primary_key = 'n, b'"),
        ("primary_key = 'b'", "primary_key = 'b', sink = 'w'"),
        (" WITH (primary_key = 'b')", ""),
    ];
    for (from, to) in changes {
        let changed = COUNTED.replace(from, to);
        assert_ne!(changed, COUNTED, "{from}");
        if let Some(other) = seen.insert(fingerprint(&changed), format!("{from} -> {to}")) {
            panic!("{from} -> {to} gives the fingerprint of {other}");
        }
    }
    let tables = [
        ("topic = 'tt'", "topic = 'other'"),
        ("a int, b", "a bigint, b"),
        (
            "(format = 'json', ",
            "(format = 'json', envelope = 'upsert', ",
        ),
        ("a int, b text", "a int PRIMARY KEY, b text"),
    ];
    for (from, to) in tables {
        let changed = TABLES.replace(from, to);
        assert_ne!(changed, TABLES, "{from}");
        let found = fingerprint_in(&changed, COUNTED);
        if let Some(other) = seen.insert(found, format!("{from} -> {to}")) {
            panic!("{from} -> {to} gives the fingerprint of {other}");
        }
    }
}

#[test]
fn a_fingerprint_covers_the_views_that_are_read() {
    let view = "CREATE VIEW v AS SELECT b, n FROM w";
    let reads = |w: &str| fingerprint(&format!("CREATE VIEW w AS {w}; {view}"));
    let first = reads("SELECT b, count(*) AS n FROM t GROUP BY b");
    assert_eq!(reads("SELECT  b, count(*) n FROM t GROUP BY t.b"), first);
    assert_ne!(
        reads("SELECT b, count(*) AS n FROM t WHERE c > 1 GROUP BY b"),
        first
    );
}

/// `expression` over a row where `l` is the largest bigint and `i` is 0.
fn evaluate(expression: &str) -> std::result::Result<String, String> {
    let sql = format!(
        "CREATE TABLE t (i int, l bigint) WITH (format = 'json'); \
         CREATE VIEW v AS SELECT {expression} AS x, i, l FROM t"
    );
    let job = plan(&sql).map_err(|error| error.to_string())?;
    let RelOp::Compute { outputs, .. } = &job.views[0].rel.op else {
        panic!("{expression} is no Compute");
    };
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int32Array::from(vec![0])),
        Arc::new(Int64Array::from(vec![i64::MAX])),
    ];
    let row = RecordBatch::try_new(Arc::clone(&job.sources[0].schema), columns).unwrap();
    let value = outputs[0].expr.evaluate(&row);
    let value = value.and_then(|value| value.into_array(1));
    let value = value.map_err(|error| error.strip_backtrace())?;
    Ok(array_value_to_string(&value, 0).unwrap())
}

#[test]
fn overflow_and_division_by_zero_fail_the_row_and_not_the_plan() {
    for expression in ["l + 1", "l * 2", "-l - 2", "CASE WHEN i = 0 THEN l + 1 END"] {
        let error = evaluate(expression).unwrap_err();
        assert!(error.contains("verflow"), "{expression}: {error}");
    }
    for expression in ["1 / i", "l % i", "1 / 0"] {
        let error = evaluate(expression).unwrap_err();
        assert!(error.contains("by zero"), "{expression}: {error}");
    }
    assert_eq!(
        evaluate("CASE WHEN i = 0 THEN 7 ELSE 1 / i END").unwrap(),
        "7"
    );
    assert_eq!(evaluate("l + i").unwrap(), i64::MAX.to_string());
}

#[test]
fn without_a_registry_avro_is_refused_and_json_is_not() {
    let avro = compile("CREATE TABLE t;", "views.sql", None).unwrap_err();
    assert_eq!(avro.kind(), Kind::Data);
    assert!(
        avro.to_string().contains("needs a schema registry"),
        "{avro}"
    );
    let json = "CREATE TABLE t (a int) WITH (format = 'json'); CREATE VIEW v AS SELECT a FROM t";
    assert_eq!(compile(json, "views.sql", None).unwrap().views.len(), 1);
}
