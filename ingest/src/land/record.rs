//! Records to rows: extracts, checks and converts the values of a JSON record by the columns'
//! paths.
//!
//! In: the JSON text of a record. Out: one value per column, in the form that both engines read:
//! dates and timestamps in ISO 8601, instants in UTC. Or the reason why the record does not fit,
//! with column and path.
//!
//! Invariant: a number keeps its value, or the record does not fit. A text column holds the digits
//! as received; an integer column holds exactly the number; a floating-point column holds the
//! nearest number that it can represent.

use std::fmt::Write;

use jiff::{Timestamp, civil};
use serde_json::value::RawValue;
use tidemill_log::schema::ColumnType;
use uuid::Uuid;

use crate::config::{Land, LandColumn};
use crate::json::{Text, described, unstorable};

/// A record that fits.
#[derive(Debug)]
pub(super) struct Row<'a> {
    /// The key, as text.
    pub(super) key: String,
    /// One value per column, in the order of the columns.
    pub(super) values: Vec<ColumnValue>,
    /// The unchanged JSON text, which is also the document.
    pub(super) raw: &'a str,
}

/// The value of a column.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum ColumnValue {
    /// NULL.
    Null,
    /// A boolean.
    Bool(bool),
    /// An integer.
    Whole(i64),
    /// A floating-point number.
    Float(f64),
    /// Text, and every type that both engines read from text.
    Text(String),
    /// JSON text as received.
    Json(String),
}

impl ColumnValue {
    /// The value as JSON; `None` for NULL.
    fn json(&self) -> Option<String> {
        Some(match self {
            ColumnValue::Null => return None,
            ColumnValue::Bool(bool) => bool.to_string(),
            ColumnValue::Whole(number) => number.to_string(),
            ColumnValue::Float(number) => serde_json::Value::from(*number).to_string(),
            ColumnValue::Text(text) => serde_json::Value::from(text.as_str()).to_string(),
            ColumnValue::Json(text) => text.clone(),
        })
    }
}

impl Row<'_> {
    /// The row as a JSON object with the fields `c0`, `c1`, …; NULLs are left out. The document is
    /// inserted as received, without being parsed and written again.
    pub(super) fn json(&self, document: bool) -> String {
        let mut json = String::with_capacity(2 * self.raw.len());
        for (at, value) in self.values.iter().enumerate() {
            if let Some(value) = value.json() {
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

/// Converts a record to a row. The error is a fragment for the dead letter.
pub(super) fn fit<'a>(land: &Land, raw: &'a RawValue) -> Result<Row<'a>, String> {
    if !raw.get().starts_with('{') {
        return Err(format!("the record is {}, not an object", described(raw)));
    }
    if land.document.is_some()
        && let Some(what) = unstorable(raw.get())
    {
        return Err(format!("the record holds {what}"));
    }
    let mut record = Text::new(raw);
    let mut key = None;
    let mut values = Vec::with_capacity(land.columns.len());
    for column in &land.columns {
        let LandColumn { name, path, .. } = column;
        let found = record.at(path);
        let found = found.map_err(|why| format!("`{path}` for column `{name}`: {why}"))?;
        let Some(found) = found.filter(|value| value.get() != "null") else {
            if column.nullable {
                values.push(ColumnValue::Null);
                continue;
            }
            return Err(format!(
                "no `{path}` for column `{name}`, which is not nullable"
            ));
        };
        let value = of_type(found, column.kind).map_err(|right| {
            let is = described(found);
            format!("`{path}` is {is}, but column `{name}` takes {right}")
        })?;
        if column.name == land.key {
            key = Some(match &value {
                ColumnValue::Text(text) => text.clone(),
                other => other.json().unwrap_or_default(),
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

/// The value in the type of a column; the error says what the column takes.
fn of_type(value: &RawValue, kind: ColumnType) -> Result<ColumnValue, &'static str> {
    let raw = value.get();
    let is_number = raw.starts_with(|sign: char| sign == '-' || sign.is_ascii_digit());
    let text: Option<String> = match raw.starts_with('"') {
        true => serde_json::from_str(raw).ok(),
        false => None,
    };
    // A number is also accepted as text: randomuser.me writes coordinates so.
    let number = is_number.then_some(raw).or(text.as_deref());
    match kind {
        ColumnType::Bool => match raw {
            "true" => Ok(ColumnValue::Bool(true)),
            "false" => Ok(ColumnValue::Bool(false)),
            _ => Err("true or false"),
        },
        ColumnType::Int => number
            .and_then(whole)
            .filter(|number| i32::try_from(*number).is_ok())
            .map(ColumnValue::Whole)
            .ok_or("a whole number of 32 bits"),
        ColumnType::Long => number
            .and_then(whole)
            .map(ColumnValue::Whole)
            .ok_or("a whole number of 64 bits"),
        ColumnType::Float => number
            .and_then(|text| nearest(text, text.parse::<f32>().ok()?.into()))
            .map(ColumnValue::Float)
            .ok_or("a number of 32 bits"),
        ColumnType::Double => number
            .and_then(|text| nearest(text, text.parse().ok()?))
            .map(ColumnValue::Float)
            .ok_or("a number of 64 bits"),
        ColumnType::Text | ColumnType::Source(_) => match text {
            Some(text) if !text.contains('\0') => Ok(ColumnValue::Text(text)),
            None if is_number || matches!(raw, "true" | "false") => {
                Ok(ColumnValue::Text(raw.to_owned()))
            }
            _ => Err(
                "text without U+0000 or halves of surrogate pairs, a number or true or \
                      false; a list or an object needs type `json`",
            ),
        },
        ColumnType::Json => match unstorable(raw) {
            None => Ok(ColumnValue::Json(raw.to_owned())),
            Some(_) => Err("JSON without U+0000 and halves of surrogate pairs"),
        },
        kind => of_text(text.as_deref().unwrap_or_default(), kind).map(ColumnValue::Text),
    }
}

/// The value of a type that JSON has only as text.
fn of_text(text: &str, kind: ColumnType) -> Result<String, &'static str> {
    match kind {
        ColumnType::Uuid => Uuid::parse_str(text)
            .map(|uuid| uuid.hyphenated().to_string())
            .map_err(|_| "a UUID"),
        ColumnType::Date => text
            .parse::<civil::Date>()
            .ok()
            .filter(|date| date.year() >= 1)
            .map(|date| date.to_string())
            .ok_or("a date such as `2026-11-22`"),
        ColumnType::Timestamp => text
            .parse::<civil::DateTime>()
            .ok()
            .filter(|at| at.year() >= 1 && !has_leap_second(text))
            .and_then(|at| at.round(jiff::Unit::Microsecond).ok())
            .map(|at| at.to_string())
            .ok_or("a time such as `2026-11-22T11:34:13.5`"),
        ColumnType::Timestamptz => text
            .parse::<Timestamp>()
            .ok()
            .filter(|_| !has_leap_second(text))
            .and_then(|at| at.round(jiff::Unit::Microsecond).ok())
            .map(|at| at.to_string())
            .filter(|text| !text.starts_with('-'))
            .ok_or("an instant such as `2026-11-22T11:34:13.5Z`"),
        _ => Err("what JSON does not have"),
    }
}

/// Whether a time has the second 60, which databases turn into another second.
fn has_leap_second(text: &str) -> bool {
    text.contains(":60")
}

/// An integer, also in the form `1.0` or `1e3`; `None` when the number is not whole or too large.
fn whole(text: &str) -> Option<i64> {
    if let Ok(number) = text.parse() {
        return Some(number);
    }
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().ok()?),
        None => (text, 0),
    };
    let (before, behind) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let (sign, before) = match before.strip_prefix('-') {
        Some(before) => ("-", before),
        None => ("", before),
    };
    let mut digits = format!("{before}{behind}");
    if digits.is_empty() || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    if digits.bytes().all(|digit| digit == b'0') {
        return Some(0);
    }
    // The position of the decimal point among the digits.
    let point = i64::try_from(before.len()).ok()? + i64::from(exponent);
    let missing = point - i64::try_from(digits.len()).ok()?;
    if missing > 20 || point <= 0 {
        return None;
    }
    match usize::try_from(missing) {
        Ok(missing) => digits.push_str(&"0".repeat(missing)),
        Err(_) => {
            let fraction = digits.split_off(usize::try_from(point).ok()?);
            if fraction.bytes().any(|digit| digit != b'0') {
                return None;
            }
        }
    }
    format!("{sign}{digits}").parse().ok()
}

/// The parsed number, unless it overflowed to infinity or underflowed to zero.
fn nearest(text: &str, number: f64) -> Option<f64> {
    let mantissa = text.split(['e', 'E']).next().unwrap_or_default();
    let is_zero = !mantissa.contains(|digit: char| ('1'..='9').contains(&digit));
    (number.is_finite() && (number != 0.0 || is_zero)).then_some(number)
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

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

    fn taken(kind: &str, value: &str) -> Result<ColumnValue, String> {
        let text = format!(
            "[schedule]\nevery='1s'\n[fetch]\nurl='http://x/'\npage_parameter='p'\n[land]\n\
             table='t'\nkey='k'\ncolumns=[{{name='k',path='k',type='text'}},\
             {{name='v',path='v',type='{kind}',nullable=true}}]"
        );
        let pipeline = crate::config::Pipeline::parse(&text, "ingest.toml").unwrap();
        let record = format!("{{\"k\":1e2,\"v\":{value}}}");
        let record = RawValue::from_string(record).unwrap();
        let mut row = fit(&pipeline.feed.unwrap().land, &record)?;
        assert_eq!(row.key, "1e2");
        Ok(row.values.remove(1))
    }

    #[test]
    fn numbers_keep_their_value_or_do_not_fit() {
        for digits in [
            "19.90",
            "123456789012345678901",
            "1E400",
            "-0",
            "-0.0",
            "1e3",
        ] {
            assert_eq!(
                taken("text", digits).unwrap(),
                ColumnValue::Text(digits.into())
            );
            assert_eq!(
                taken("json", digits).unwrap(),
                ColumnValue::Json(digits.into())
            );
        }
        let whole = [
            ("9223372036854775807", i64::MAX),
            ("-9223372036854775808", i64::MIN),
            ("1e3", 1000),
            ("1.50e1", 15),
            ("2.0", 2),
            ("100e-2", 1),
            ("-0", 0),
            ("0e999999", 0),
            ("\"7\"", 7),
        ];
        for (text, number) in whole {
            assert_eq!(
                taken("long", text).unwrap(),
                ColumnValue::Whole(number),
                "{text}"
            );
        }
        for text in [
            "1.5",
            "9223372036854775808",
            "1e19",
            "1e-1",
            "1E400",
            "1e99999999999",
            "\"\"",
            "\"1_0\"",
            "true",
            "[1]",
        ] {
            assert!(taken("long", text).is_err(), "{text}");
        }
        assert!(taken("int", "2147483648").unwrap_err().contains("32 bits"));
        assert_eq!(taken("double", "0.1").unwrap(), ColumnValue::Float(0.1));
        assert_eq!(
            taken("double", "9007199254740993").unwrap(),
            ColumnValue::Float(9007199254740992.0)
        );
        assert_eq!(
            taken("float", "0.1").unwrap(),
            ColumnValue::Float(f64::from(0.1f32))
        );
        assert_eq!(taken("double", "0e-400").unwrap(), ColumnValue::Float(0.0));
        for text in ["1E400", "-1E400", "1E-400", "\"NaN\"", "\"inf\"", "\"\""] {
            assert!(taken("double", text).is_err(), "{text}");
            assert!(taken("float", text).is_err(), "{text}");
        }
        assert!(taken("float", "1e39").is_err());
    }

    #[test]
    fn values_of_text_and_time_columns() {
        let text = |text: &str| ColumnValue::Text(text.to_owned());
        assert_eq!(taken("text", "true").unwrap(), text("true"));
        assert_eq!(taken("text", "\"\"").unwrap(), text(""));
        assert_eq!(taken("text", "null").unwrap(), ColumnValue::Null);
        for wrong in ["[1]", "{}", "\"a\\u0000\"", "\"\\ud83d\""] {
            assert!(
                taken("text", wrong).unwrap_err().contains("type `json`"),
                "{wrong}"
            );
        }
        let day = "\"2026-11-22\"";
        assert_eq!(taken("date", day).unwrap(), text("2026-11-22"));
        assert_eq!(
            taken("timestamp", day).unwrap(),
            text("2026-11-22T00:00:00")
        );
        let at = "\"2026-11-22T11:34:13.5+02:00\"";
        assert_eq!(
            taken("timestamptz", at).unwrap(),
            text("2026-11-22T09:34:13.5Z")
        );
        for (kind, wrong) in [
            ("timestamptz", day),
            ("timestamptz", "\"2026-11-22T11:34:13\""),
            ("timestamptz", "1764000000"),
            ("timestamp", "1764000000"),
            ("timestamp", "\"2026-11-22T23:59:60\""),
            ("timestamptz", "\"2026-11-22T23:59:60Z\""),
            ("date", "\"2026-02-30\""),
            ("date", "20260230"),
            ("uuid", "1"),
            ("bool", "1"),
            ("bool", "\"true\""),
        ] {
            assert!(
                taken(kind, wrong).unwrap_err().contains("takes"),
                "{kind} {wrong}"
            );
        }
    }

    #[test]
    fn a_path_through_a_scalar_does_not_fit() {
        let text = "[schedule]\nevery='1s'\n[fetch]\nurl='http://x/'\npage_parameter='p'\n[land]\n\
             table='t'\nkey='k'\ncolumns=[{name='k',path='a.\"b.c\".0',type='int'},\
             {name='v',path='v.w',type='int',nullable=true}]";
        let land = crate::config::Pipeline::parse(text, "ingest.toml").unwrap();
        let land = land.feed.unwrap().land;
        let fits = |record: &str| {
            let record = RawValue::from_string(record.to_owned()).unwrap();
            fit(&land, &record).map(|row| row.values)
        };
        let whole = r#"{"a":{"b.c":[7]},"v":{"w":8}}"#;
        assert_eq!(
            fits(whole).unwrap(),
            [ColumnValue::Whole(7), ColumnValue::Whole(8)]
        );
        let missing = r#"{"a":{"b.c":[7]},"v":null}"#;
        assert_eq!(
            fits(missing).unwrap(),
            [ColumnValue::Whole(7), ColumnValue::Null]
        );
        let scalar = fits(r#"{"a":{"b.c":[7]},"v":5}"#).unwrap_err();
        assert!(
            scalar.contains("`v.w` for column `v`: no `w` in `5`"),
            "{scalar}"
        );
        let keyless = fits(r#"{"a":{"b.c":[]}}"#).unwrap_err();
        assert!(
            keyless.contains("for column `k`, which is not nullable"),
            "{keyless}"
        );
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
