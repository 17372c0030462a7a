//! The planner over files: every `tests/plan/NAME.sql` has a `NAME.explain` beside it, which holds
//! what `explain` says about it or, for `error_*.sql`, the error. `UPDATE_EXPECT=1` writes them
//! anew.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use tidemill_dataflow::plan::ir::{Job, RelOp};
use tidemill_dataflow::plan::{compile, explain};
use tidemill_dataflow::{Kind, Result};
use tidemill_log::registry::{Registered, Registry};

/// A registry of the schemas that the files use.
struct Schemas(BTreeMap<String, String>);

impl Registry for Schemas {
    fn register(&self, subject: &str, _: &str) -> tidemill_log::Result<Registered> {
        let what = format!("the planner registered `{subject}`");
        Err(tidemill_log::Error::new(tidemill_log::Kind::Bug, what))
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
    let users = envelope(&record("Value", &users));
    let clicks = record("Click", &[("id", "\"long\""), ("url", "\"string\"")]);
    let key = |kind: &str| record("Key", &[("id", kind)]);
    let odd = record("Odd", &[("id", r#"{"type":"map","values":"int"}"#)]);
    Schemas(BTreeMap::from([
        ("users-value".into(), users),
        ("users-key".into(), key("\"string\"")),
        ("clicks-value".into(), clicks),
        ("clicks-key".into(), key("\"long\"")),
        ("odd-value".into(), odd),
    ]))
}

fn plan(sql: &str) -> Result<Job> {
    compile(sql, "views.sql", Some(&registry()))
}

fn check(file: &Path) -> std::result::Result<(), String> {
    let sql = fs::read_to_string(file).unwrap();
    let refused = file
        .file_name()
        .unwrap()
        .to_str()
        .unwrap()
        .starts_with("error_");
    let found = match plan(&sql) {
        Ok(job) if !refused => explain(&job, None),
        Err(error) if refused => format!("{:?}: {error}\n", error.kind()),
        Ok(_) => return Err(format!("{}: planned, and should not be", file.display())),
        Err(error) => return Err(format!("{}: {error}", file.display())),
    };
    let golden = file.with_extension("explain");
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        fs::write(&golden, &found).unwrap();
    }
    let expected = fs::read_to_string(&golden).unwrap_or_default();
    match found == expected {
        true => Ok(()),
        false => Err(format!(
            "{}: expected\n{expected}found\n{found}(UPDATE_EXPECT=1 accepts it)",
            golden.display()
        )),
    }
}

#[test]
fn every_file_gives_what_stands_beside_it() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/plan");
    let mut files: Vec<PathBuf> = fs::read_dir(folder)
        .unwrap()
        .map(|f| f.unwrap().path())
        .collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "sql"));
    files.sort();
    assert!(files.len() > 40, "only {} files", files.len());
    let failures: Vec<String> = files.iter().filter_map(|file| check(file).err()).collect();
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
}

#[test]
fn the_example_plans() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/users/views.sql");
    let job = plan(&fs::read_to_string(file).unwrap()).unwrap();
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/plan/example_users.explain");
    let found = explain(&job, None);
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        fs::write(&golden, &found).unwrap();
    }
    assert_eq!(found, fs::read_to_string(&golden).unwrap_or_default());
    let served: Vec<bool> = job
        .views
        .iter()
        .map(|v| v.output.as_ref().unwrap().unique)
        .collect();
    assert_eq!(job.sources.len(), 1);
    assert_eq!(served, [true, true, false, true]);
}
