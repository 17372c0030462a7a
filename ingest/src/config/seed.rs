//! `[[seed]]`: small tables that a CSV file of the pipeline's folder fills once.

use std::path::{Path, PathBuf};

use csv::StringRecord;
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;
use tidemill_log::schema::ColumnType;

use super::{Land, LandColumn, LandText};
use crate::json::Path as JsonPath;
use crate::{Error, Kind, Result};

/// One `[[seed]]`: a table and the file whose rows it begins with.
#[derive(Debug, Clone, Deserialize)]
#[serde(try_from = "SeedText")]
pub struct Seed {
    /// The table; each column is where its name stands in the file's first line.
    pub land: Land,
    /// The file; within the pipeline's folder as it is written.
    pub file: PathBuf,
    /// The file's rows as JSON objects, once it is read.
    pub rows: Vec<Box<RawValue>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SeedText {
    table: String,
    key: String,
    file: PathBuf,
    columns: Vec<SeedColumn>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SeedColumn {
    name: String,
    #[serde(rename = "type")]
    kind: ColumnType,
    #[serde(default)]
    nullable: bool,
}

impl TryFrom<SeedText> for Seed {
    type Error = String;

    fn try_from(text: SeedText) -> std::result::Result<Self, String> {
        if let Some(column) = text.columns.iter().find(|column| column.name.contains('.')) {
            return Err(format!("column name `{}` must hold no dot", column.name));
        }
        let columns = text.columns.into_iter().map(|column| LandColumn {
            path: JsonPath::of_field(&column.name),
            name: column.name,
            kind: column.kind,
            nullable: column.nullable,
        });
        let land = LandText {
            table: text.table,
            key: text.key,
            document: None,
            columns: columns.collect(),
        };
        Ok(Seed {
            land: land.try_into()?,
            file: text.file,
            rows: Vec::new(),
        })
    }
}

impl Seed {
    /// Reads the file, which must have exactly the table's columns, in any order.
    pub(super) fn read(&mut self, folder: &Path) -> Result<()> {
        let file = folder.join(&self.file);
        let wrong = |what: String| Error::new(Kind::Data, format!("{}: {what}", file.display()));
        let failed = |error: csv::Error| {
            let what = format!("{}: {error}", file.display());
            Error::with_source(Kind::Data, what, error)
        };
        let mut reader = csv::Reader::from_path(&file).map_err(failed)?;
        let header = reader.headers().map_err(failed)?.clone();
        let columns = &self.land.columns;
        let missing = columns
            .iter()
            .find(|c| !header.iter().any(|name| name == c.name));
        if let Some(LandColumn { name, .. }) = missing {
            return Err(wrong(format!("the first line names no column `{name}`")));
        }
        if let Some(name) = header
            .iter()
            .find(|name| !columns.iter().any(|c| c.name == *name))
        {
            return Err(wrong(format!("column `{name}` is not in ingest.toml")));
        }
        for record in reader.records() {
            let row = object(columns, &header, &record.map_err(failed)?);
            let raw = RawValue::from_string(row.to_string());
            self.rows
                .push(raw.map_err(|error| wrong(error.to_string()))?);
        }
        Ok(())
    }
}

/// A line as an object. What is empty is null where the column may be.
fn object(columns: &[LandColumn], header: &StringRecord, record: &StringRecord) -> Value {
    let fields = header.iter().zip(record).map(|(name, text)| {
        let column = columns.iter().find(|column| column.name == name);
        let value = match column.map(|column| (column.kind, column.nullable)) {
            Some((_, true)) if text.is_empty() => Value::Null,
            Some((ColumnType::Bool | ColumnType::Json, _)) => {
                serde_json::from_str(text).unwrap_or_else(|_| text.into())
            }
            _ => text.into(),
        };
        (name.to_owned(), value)
    });
    Value::Object(fields.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOML: &str = "table = 't'\nkey = 'id'\nfile = 't.csv'\ncolumns = [
        { name = 'id', type = 'int' },
        { name = 'said', type = 'text', nullable = true },
        { name = 'ready', type = 'bool' },
    ]";

    fn read(csv: &str) -> Result<Vec<String>> {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("t.csv"), csv).unwrap();
        let mut seed: Seed = toml::from_str(TOML).unwrap();
        seed.read(folder.path())?;
        Ok(seed.rows.iter().map(|row| row.get().to_owned()).collect())
    }

    #[test]
    fn a_file_is_rows_by_the_names_in_its_first_line() {
        let rows = read("ready,id,said\ntrue,1,\"a, \"\"b\"\"\"\nfalse,2,\n").unwrap();
        let expected = [
            r#"{"id":"1","ready":true,"said":"a, \"b\""}"#,
            r#"{"id":"2","ready":false,"said":null}"#,
        ];
        assert_eq!(rows, expected);
    }

    #[test]
    fn a_file_that_is_not_the_table_is_refused() {
        let refused = |csv: &str, said: &str| {
            let error = read(csv).unwrap_err().to_string();
            assert!(error.contains("t.csv: ") && error.contains(said), "{error}");
        };
        refused("id,said\n1,a\n", "names no column `ready`");
        refused(
            "id,said,ready,more\n1,a,true,2\n",
            "column `more` is not in ingest.toml",
        );
        refused("id,said,ready\n1,a\n", "found record with 2 fields");
        let missing = toml::from_str::<Seed>(TOML)
            .unwrap()
            .read(Path::new("/nowhere"));
        assert!(missing.unwrap_err().to_string().contains("/nowhere/t.csv"));
        let dotted = toml::from_str::<Seed>(&TOML.replace("'said'", "'a.b'"));
        assert!(dotted.unwrap_err().to_string().contains("no dot"));
    }
}
