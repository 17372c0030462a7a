//! One record of a page becomes one row: the values at the columns' paths, checked and brought to
//! the form that both engines read.
//!
//! In: the record's bytes. Out: a value a column, dates and instants in ISO 8601, instants in UTC;
//! or the reason why the record does not fit, naming column and path.

use std::fmt::Write;

use jiff::{Timestamp, civil};
use serde_json::Value;
use serde_json::value::RawValue;
use tidemill_log::schema::ColumnType;
use uuid::Uuid;

use crate::config::{Land, LandColumn};

/// A record that fits.
#[derive(Debug)]
pub(super) struct Row<'a> {
    /// The key as text.
    pub(super) key: String,
    /// A value a column, in the columns' order; null for NULL.
    pub(super) values: Vec<Value>,
    /// The record as it came, which is also the document.
    pub(super) raw: &'a str,
}

impl Row<'_> {
    /// The row as a JSON object with a field `c0`, `c1`, … a column, NULLs left out; the document
    /// goes in as it came, not parsed and written again.
    pub(super) fn json(&self, document: bool) -> String {
        let mut json = String::with_capacity(2 * self.raw.len());
        for (at, value) in self.values.iter().enumerate() {
            if !value.is_null() {
                // Writing to a string cannot fail.
                let _ = write!(json, ",\"c{at}\":{value}");
            }
        }
        if document {
            let _ = write!(json, ",\"c{}\":{}", self.values.len(), self.raw);
        }
        format!("{{{}}}", json.strip_prefix(',').unwrap_or_default())
    }
}

/// Fits a record to the columns, or says why not.
pub(super) fn fit<'a>(land: &Land, raw: &'a RawValue) -> Result<Row<'a>, String> {
    let record: Value = serde_json::from_str(raw.get())
        .map_err(|error| format!("the record cannot be read: {error}"))?;
    if !record.is_object() {
        return Err(format!("the record is {}, not an object", named(&record)));
    }
    if land.document.is_some() && has_zero(&record) {
        return Err("the record holds the character U+0000, which no database text can".into());
    }
    let mut key = None;
    let mut values = Vec::with_capacity(land.columns.len());
    for column in &land.columns {
        let value = at_path(&record, &column.path);
        if value.is_null() {
            if column.nullable {
                values.push(Value::Null);
                continue;
            }
            let LandColumn { name, path, .. } = column;
            return Err(format!(
                "no `{path}` for column `{name}`, which is not nullable"
            ));
        }
        let value = of_type(value, column.kind).map_err(|right| {
            let LandColumn { name, path, .. } = column;
            let is = named(value);
            format!("`{path}` is {is}, but column `{name}` takes {right}")
        })?;
        if column.name == land.key {
            key = Some(match &value {
                Value::String(text) => text.clone(),
                other => other.to_string(),
            });
        }
        values.push(value);
    }
    let key = key.ok_or_else(|| format!("no key `{}`", land.key))?;
    Ok(Row {
        key,
        values,
        raw: raw.get(),
    })
}

fn at_path<'v>(record: &'v Value, path: &str) -> &'v Value {
    static NULL: Value = Value::Null;
    let step = |value: &'v Value, field: &str| value.get(field).unwrap_or(&NULL);
    path.split('.').fold(record, step)
}

fn has_zero(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains('\0'),
        Value::Array(list) => list.iter().any(has_zero),
        Value::Object(fields) => fields
            .iter()
            .any(|(name, value)| name.contains('\0') || has_zero(value)),
        _ => false,
    }
}

/// What a value is, for people, without showing all of a large one.
fn named(value: &Value) -> String {
    match value {
        Value::Null => "null".into(),
        Value::Array(_) => "a list".into(),
        Value::Object(_) => "an object".into(),
        Value::String(text) => format!("`{}`", text.chars().take(40).collect::<String>()),
        other => format!("`{other}`"),
    }
}

/// The value in the column's form, or what the column takes.
fn of_type(value: &Value, kind: ColumnType) -> Result<Value, &'static str> {
    let text = value.as_str();
    match kind {
        ColumnType::Bool => value.as_bool().map(Value::Bool).ok_or("true or false"),
        ColumnType::Int => integer(value)
            .filter(|number| i32::try_from(*number).is_ok())
            .map(Value::from)
            .ok_or("a whole number of 32 bits"),
        ColumnType::Long => integer(value)
            .map(Value::from)
            .ok_or("a whole number of 64 bits"),
        ColumnType::Float => number(value)
            .filter(|number| (*number as f32).is_finite())
            .map(Value::from)
            .ok_or("a number of 32 bits"),
        ColumnType::Double => number(value).map(Value::from).ok_or("a number"),
        ColumnType::Text | ColumnType::Source(_) => match value {
            Value::String(text) if !text.contains('\0') => Ok(value.clone()),
            Value::Number(number) => Ok(Value::String(number.to_string())),
            Value::Bool(bool) => Ok(Value::String(bool.to_string())),
            _ => Err("text without U+0000"),
        },
        ColumnType::Uuid => text
            .and_then(|text| Uuid::parse_str(text).ok())
            .map(|uuid| Value::String(uuid.hyphenated().to_string()))
            .ok_or("a UUID"),
        ColumnType::Json => match has_zero(value) {
            false => Ok(value.clone()),
            true => Err("JSON without U+0000"),
        },
        ColumnType::Date => text
            .and_then(|text| text.parse::<civil::Date>().ok())
            .filter(|date| date.year() >= 1)
            .map(|date| Value::String(date.to_string()))
            .ok_or("a date such as `2026-11-22`"),
        ColumnType::Timestamp => text
            .and_then(|text| text.parse::<civil::DateTime>().ok())
            .filter(|at| at.year() >= 1)
            .and_then(|at| at.round(jiff::Unit::Microsecond).ok())
            .map(|at| Value::String(at.to_string()))
            .ok_or("a time such as `2026-11-22T11:34:13.5`"),
        ColumnType::Timestamptz => text
            .and_then(|text| text.parse::<Timestamp>().ok())
            .and_then(|at| at.round(jiff::Unit::Microsecond).ok())
            .map(|at| at.to_string())
            .filter(|text| !text.starts_with('-'))
            .map(Value::String)
            .ok_or("an instant such as `2026-11-22T11:34:13.5Z`"),
        ColumnType::Bytes | ColumnType::Decimal { .. } => Err("what JSON does not have"),
    }
}

/// A whole number, also when it is written as text.
fn integer(value: &Value) -> Option<i64> {
    value.as_i64().or_else(|| value.as_str()?.parse().ok())
}

/// A finite number, also when it is written as text, as randomuser.me writes coordinates.
fn number(value: &Value) -> Option<f64> {
    let number = value.as_f64().or_else(|| value.as_str()?.parse().ok());
    number.filter(|number| number.is_finite())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn land() -> Land {
        let text = include_str!("../../../examples/users/ingest.toml");
        crate::config::Pipeline::parse(text, "ingest.toml")
            .unwrap()
            .feed
            .unwrap()
            .land
    }

    fn user() -> Value {
        let page = include_str!("../../tests/randomuser/page-01.json");
        serde_json::from_str::<Value>(page).unwrap()["results"][0].take()
    }

    fn fitted(record: &Value) -> Result<Value, String> {
        let raw = RawValue::from_string(record.to_string()).unwrap();
        let row = fit(&land(), &raw)?;
        assert_eq!(row.raw, raw.get());
        Ok(serde_json::from_str(&row.json(true)).unwrap())
    }

    #[test]
    fn a_postcode_is_a_number_or_a_string() {
        let mut record = user();
        let at = land()
            .columns
            .iter()
            .position(|column| column.name == "postcode")
            .unwrap();
        assert_eq!(fitted(&record).unwrap()[format!("c{at}")], "71005");
        record["location"]["postcode"] = "N5H 9U5".into();
        assert_eq!(fitted(&record).unwrap()[format!("c{at}")], "N5H 9U5");
    }

    #[test]
    fn a_record_that_does_not_fit_says_why() {
        let refused = |change: &dyn Fn(&mut Value)| {
            let mut record = user();
            change(&mut record);
            fitted(&record).unwrap_err()
        };
        let missing = refused(&|user| {
            user["login"].as_object_mut().unwrap().remove("uuid");
        });
        assert!(
            missing.contains("no `login.uuid` for column `id`"),
            "{missing}"
        );
        let wrong = refused(&|user| user["dob"]["age"] = "old".into());
        assert!(
            wrong.contains("`dob.age` is `old`, but column `age` takes a whole"),
            "{wrong}"
        );
        let large = refused(&|user| user["dob"]["age"] = (1u64 << 40).into());
        assert!(large.contains("32 bits"), "{large}");
        let zero = refused(&|user| user["extra"] = "a\0b".into());
        assert!(zero.contains("U+0000"), "{zero}");
        let late = refused(&|user| user["dob"]["date"] = "yesterday".into());
        assert!(late.contains("an instant such as"), "{late}");
        assert!(refused(&|user| *user = 7.into()).contains("not an object"));
    }

    proptest::proptest! {
        #[test]
        fn no_record_panics(text in "[\\[\\]{}\",:a-z0-9\\\\u. -]{0,60}") {
            if let Ok(raw) = RawValue::from_string(text) {
                let _ = fit(&land(), &raw);
            }
        }
    }
}
