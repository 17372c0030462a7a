//! Columns found by their own names, in whatever field a writer's schema holds them, and columns
//! that a writer does not have.

use std::sync::Arc;

use arrow::datatypes::DataType;
use tidemill_decode::{Effect, open};
use tidemill_ir::{Envelope, Format};
use tidemill_log::envelope::Encoder;
use tidemill_log::envelope::event::{Change, Op, Position, Value};
use tidemill_log::registry::Registry;
use tidemill_log::schema::{Column, ColumnType, TableSchema, columns_of_envelope};

use crate::{batch, texts};

/// A row change of a table with an integer key and text columns, as its ingest publishes it.
fn published(encoder: &mut Encoder, columns: &[&str], values: &[&str]) -> Vec<u8> {
    let column = |name: &str, kind| Column {
        name: name.to_owned(),
        kind,
        nullable: true,
    };
    let mut all = vec![column("the id", ColumnType::Int)];
    all.extend(columns.iter().map(|name| column(name, ColumnType::Text)));
    let table = TableSchema {
        namespace: "public".into(),
        name: "people".into(),
        columns: all,
        key: vec![0],
    };
    let texts = values.iter().map(|text| Value::Text((*text).to_owned()));
    let change = Change {
        table: Arc::new(table),
        op: Op::Create,
        before: None,
        after: Some([Value::Int(7)].into_iter().chain(texts).collect()),
        position: Position {
            commit: 1,
            index: 1,
        },
        transaction: 1,
        committed_us: 0,
        snapshot: false,
    };
    encoder.encode(&change).unwrap().value.unwrap()
}

fn registry() -> (tempfile::TempDir, Arc<dyn Registry>) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("registry.db");
    let url = format!("sqlite://{}", file.display());
    let registry = tidemill_log::registry::open(&url).unwrap();
    (folder, registry)
}

fn source(registry: &Arc<dyn Registry>, columns: &[&str]) -> tidemill_ir::Source {
    let newest = registry.latest("people-value").unwrap().unwrap();
    let columns: Vec<_> = columns.iter().map(|it| (*it, DataType::Utf8)).collect();
    let format = Format::Avro {
        schema: newest.schema,
        newest: newest.version,
        key: None,
    };
    let mut source = crate::source(format, Envelope::Debezium, &columns);
    source.topic = "people".into();
    source
}

const LONGEST: &str = "a name of 63 bytes, which is all that PostgreSQL keeps of a name";

#[test]
fn columns_of_any_name_are_read_whatever_avro_calls_them() {
    let names = [
        "first name",
        "first_name",
        "first-name",
        "größe",
        "2nd",
        "e-mail",
        "say \"hi\"",
        "it's",
        "Select",
        "select",
        "naïve",
        "名前",
        " ",
        ".",
        "_",
        "__",
        LONGEST,
    ];
    let (_folder, registry) = registry();
    let mut encoder = Encoder::new("people", Arc::clone(&registry));
    let record = published(&mut encoder, &names, &names);
    // The planner knows the columns by the same names.
    let schema = registry.latest("people-value").unwrap().unwrap().schema;
    let planned = columns_of_envelope(&schema).unwrap();
    let planned: Vec<_> = planned.columns.iter().map(|it| it.name.as_str()).collect();
    assert_eq!(planned[1..], names);
    let mut decoder = open(&source(&registry, &names), Some(Arc::clone(&registry))).unwrap();
    assert_eq!(decoder.push(&record), Ok(Effect::Row));
    let rows = batch(&mut decoder);
    for (index, name) in names.iter().enumerate() {
        assert_eq!(texts(&rows, index), [Some((*name).to_owned())]);
    }
    // The other fields' names move when a column goes: `first-name` is called `first_name_2` now.
    let fewer = [&names[1..2], &names[2..3]].concat();
    let record = published(&mut encoder, &fewer, &fewer);
    let mut decoder = open(&source(&registry, &fewer), Some(Arc::clone(&registry))).unwrap();
    assert_eq!(decoder.push(&record), Ok(Effect::Row));
    let rows = batch(&mut decoder);
    assert_eq!(texts(&rows, 0), [Some("first_name".to_owned())]);
    assert_eq!(texts(&rows, 1), [Some("first-name".to_owned())]);
}

#[test]
fn an_added_column_is_null_before_and_one_that_vanishes_ends_the_job() {
    let (_folder, registry) = registry();
    let mut encoder = Encoder::new("people", Arc::clone(&registry));
    let old = published(&mut encoder, &["n"], &["old"]);
    let both = published(&mut encoder, &["n", "added"], &["new", "x"]);
    let planned = source(&registry, &["n", "added"]);
    let unused = source(&registry, &["n"]);
    let mut decoder = open(&planned, Some(Arc::clone(&registry))).unwrap();
    assert_eq!(decoder.push(&old), Ok(Effect::Row));
    assert_eq!(decoder.push(&both), Ok(Effect::Row));
    let rows = batch(&mut decoder);
    assert_eq!(texts(&rows, 1), [None, Some("x".to_owned())]);

    let renamed = published(&mut encoder, &["n", "other"], &["newer", "x"]);
    let why = decoder.push(&renamed).unwrap_err().0;
    assert!(why.contains("column `added` is gone"), "{why}");
    let error = decoder.finish().unwrap_err().to_string();
    for part in [
        "table `users`",
        "column `added`",
        "people-value",
        "views.sql",
    ] {
        assert!(error.contains(part), "{error}");
    }
    // A job that does not read the column goes on, and one that was planned since is right.
    let mut decoder = open(&unused, Some(Arc::clone(&registry))).unwrap();
    assert_eq!(decoder.push(&renamed), Ok(Effect::Row));
    let planned = source(&registry, &["n", "other"]);
    let mut decoder = open(&planned, Some(Arc::clone(&registry))).unwrap();
    for record in [&old, &both, &renamed] {
        assert_eq!(decoder.push(record), Ok(Effect::Row));
    }
    let rows = batch(&mut decoder);
    assert_eq!(texts(&rows, 1), [None, None, Some("x".to_owned())]);
}
