//! `[[seed]]`: small tables, filled once from a CSV file in the pipeline's folder.
//!
//! A seed is landed like a page of the API ([`crate::land`]), so its rows are captured and
//! published.

use std::path::{Path, PathBuf};

use csv::StringRecord;
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;
use tidemill_log::schema::ColumnType;

use super::{Land, LandColumn, LandText};
use crate::json::Path as JsonPath;
use crate::{Error, Kind, Result};

/// One `[[seed]]`: a table and the CSV file with its first rows.
#[derive(Debug, Clone, Deserialize)]
#[serde(try_from = "SeedText")]
pub struct Seed {
    /// The table. The path of each column is its name in the header of the file.
    pub land: Land,
    /// The file, relative to the pipeline's folder.
    pub file: PathBuf,
    /// The rows of the file as JSON objects; empty before the file is read.
    pub rows: Vec<Box<RawValue>>,
}

/// `[[seed]]` as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SeedText {
    table: String,
    key: String,
    file: PathBuf,
    columns: Vec<SeedColumn>,
}

/// One column of a seed as it is written.
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

    /// Checks the table as [`Land`] does, and that no column name holds a dot.
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
    /// Reads the file. Its header must name exactly the columns of the table, in any order.
    ///
    /// # Errors
    /// `Data` when the file cannot be read, a column is missing or unknown, or a line has another
    /// number of fields than the header.
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

/// A line as a JSON object. An empty field is null in a nullable column. Fields of type `bool` and
/// `json` are parsed; a field that is not JSON stays text, and landing refuses it.
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
    fn csv_columns_are_found_by_the_header() {
        let rows = read("ready,id,said\ntrue,1,\"a, \"\"b\"\"\"\nfalse,2,\n").unwrap();
        let expected = [
            r#"{"id":"1","ready":true,"said":"a, \"b\""}"#,
            r#"{"id":"2","ready":false,"said":null}"#,
        ];
        assert_eq!(rows, expected);
    }

    #[test]
    fn a_csv_file_with_other_columns_is_refused() {
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
