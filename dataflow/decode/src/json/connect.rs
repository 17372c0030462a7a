//! Kafka Connect's JSON schemas, which its JSON converter writes beside each `payload`.
//!
//! Input: the JSON of the schema, which each record repeats. Output: the type of each column's
//! field. The schema's text is compared with that of the previous record, and parsed only when it
//! differs.

use serde_json::Value;
use tidemill_log::schema::arena::{Meaning, connect_meaning};

/// The type of a field, as far as it says more than JSON does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Written {
    /// A whole number.
    Int(Meaning),
    /// Bytes, in base64.
    Bytes(Meaning),
    /// A decimal with its scale beside it (`io.debezium.data.VariableScaleDecimal`).
    VariableScaleDecimal,
    /// A text.
    Text,
    /// What JSON itself says.
    Json,
}

/// The schema of the last record that had one.
#[derive(Default)]
pub(crate) struct Schemas {
    /// The schema's text, to recognise it again.
    text: Vec<u8>,
    /// The encoding of each column; `None` for a column without a field.
    columns: Vec<Option<Written>>,
}

impl Schemas {
    /// The types of the columns; `None` for a column without a field. `None` altogether if it is
    /// not the schema of a row. `after` says that the row is in a field of that name.
    pub(crate) fn columns<'n>(
        &mut self,
        text: &[u8],
        after: bool,
        names: impl Iterator<Item = &'n str>,
    ) -> Option<&[Option<Written>]> {
        if self.text != text || self.text.is_empty() {
            self.text = text.to_vec();
            self.columns = read(text, after, names).unwrap_or_default();
        }
        (!self.columns.is_empty()).then_some(&self.columns)
    }
}

/// Parses a schema.
fn read<'n>(
    text: &[u8],
    after: bool,
    names: impl Iterator<Item = &'n str>,
) -> Option<Vec<Option<Written>>> {
    let schema: Value = serde_json::from_slice(text).ok()?;
    let row = match after {
        true => field(&schema, "after")?,
        false => &schema,
    };
    row.get("fields")?.as_array()?;
    Some(names.map(|name| Some(written(field(row, name)?))).collect())
}

/// The schema of a field.
fn field<'v>(schema: &'v Value, name: &str) -> Option<&'v Value> {
    let fields = schema.get("fields")?.as_array()?;
    fields.iter().find(|field| text(field, "field") == name)
}

/// An attribute of a schema, empty if it is missing.
fn text<'v>(schema: &'v Value, attribute: &str) -> &'v str {
    schema
        .get(attribute)
        .and_then(Value::as_str)
        .unwrap_or_default()
}

/// The type of a field.
fn written(field: &Value) -> Written {
    let name = text(field, "name");
    let meaning = |base: &str| {
        let parameters = field.get("parameters");
        let parameter = |name: &str| parameters?.get(name)?.as_str();
        connect_meaning(base, name, parameter).unwrap_or(Meaning::Plain)
    };
    match text(field, "type") {
        "int8" | "int16" | "int32" => Written::Int(meaning("int")),
        "int64" => Written::Int(meaning("long")),
        "bytes" => Written::Bytes(meaning("bytes")),
        "string" => Written::Text,
        "struct" if name == "io.debezium.data.VariableScaleDecimal" => {
            Written::VariableScaleDecimal
        }
        _ => Written::Json,
    }
}
