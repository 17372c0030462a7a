//! Cells of a SQLite table: type affinity, JSON form in the capture triggers, and values.
//!
//! A column of SQLite can hold values of any storage class, whatever its declared type. So the
//! triggers write a cell together with its storage class:
//!
//! | storage class | JSON |
//! |---|---|
//! | NULL | `null` |
//! | INTEGER | a number |
//! | TEXT | a string; `["text", …]` in columns of bytes and floating-point numbers |
//! | REAL | a string with 17 digits in floating-point columns; else `["real", …]` |
//! | BLOB | a string of hexadecimal digits in columns of bytes; else `["blob", …]` |
//!
//! A value that is not of the column's type is refused: no text becomes a number, and no number
//! bytes.

use serde_json::Value as Json;
use tidemill_log::envelope::event::Value;
use tidemill_log::schema::{ColumnType, SourceType};

use crate::capture::value;

/// Largest precision of a decimal column.
const DIGITS: u8 = 38;

/// The column type of a declared type, by substrings of its name as in SQLite's "Determination Of
/// Column Affinity".
pub(super) fn kind_of(declared: &str) -> ColumnType {
    let declared = declared.to_ascii_uppercase();
    let has = |part: &str| declared.contains(part);
    match declared.as_str() {
        "BOOLEAN" | "BOOL" => ColumnType::Bool,
        "DATE" => ColumnType::Date,
        "TIMESTAMPTZ" | "TIMESTAMP WITH TIME ZONE" => ColumnType::Timestamptz,
        "TIMESTAMP" | "DATETIME" => ColumnType::Timestamp,
        "UUID" => ColumnType::Uuid,
        "JSON" | "JSONB" => ColumnType::Json,
        // Values of all storage classes, which stay distinct.
        "" | "ANY" => ColumnType::Source(SourceType::named("")),
        _ if has("INT") => ColumnType::Long,
        _ if has("CHAR") || has("CLOB") || has("TEXT") => ColumnType::Text,
        _ if has("BLOB") || has("BYTEA") => ColumnType::Bytes,
        _ if has("REAL") || has("FLOA") || has("DOUB") => ColumnType::Double,
        _ => decimal(&declared).unwrap_or(ColumnType::Source(SourceType::named("numeric"))),
    }
}

/// The column type of `DECIMAL(p,s)` and `NUMERIC(p,s)`, if a decimal can have so many digits.
fn decimal(declared: &str) -> Option<ColumnType> {
    let (name, digits) = declared.split_once('(')?;
    if !matches!(name.trim(), "DECIMAL" | "NUMERIC" | "DEC") {
        return None;
    }
    let digits = digits.strip_suffix(')')?;
    let (precision, scale) = digits.split_once(',').unwrap_or((digits, "0"));
    let (precision, scale) = (precision.trim().parse().ok()?, scale.trim().parse().ok()?);
    let fits = (1..=DIGITS).contains(&precision)
        && u8::try_from(scale).is_ok_and(|scale: u8| scale <= precision);
    fits.then_some(ColumnType::Decimal { precision, scale })
}

/// SQL: a cell as JSON, by the table above.
pub(super) fn cell_json(kind: ColumnType, cell: &str) -> String {
    let real = format!("printf('%!.17g', {cell})");
    let (blob, real, text) = match kind {
        ColumnType::Bytes => (
            format!("hex({cell})"),
            format!("json_array('real', {real})"),
            format!("json_array('text', {cell})"),
        ),
        // A text in a floating-point column does not name a number: SQLite would have converted it.
        ColumnType::Double => (
            format!("json_array('blob', hex({cell}))"),
            real,
            format!("json_array('text', {cell})"),
        ),
        _ => (
            format!("json_array('blob', hex({cell}))"),
            format!("json_array('real', {real})"),
            cell.to_owned(),
        ),
    };
    format!(
        "CASE typeof({cell}) WHEN 'null' THEN NULL WHEN 'blob' THEN {blob} WHEN 'real' THEN {real} \
         WHEN 'text' THEN {text} ELSE {cell} END"
    )
}

/// The value of a cell in the form that the triggers write. The error says what does not fit the
/// declared type.
pub(super) fn value_of(kind: ColumnType, cell: &Json) -> Result<Value, String> {
    let wrong = |class: &str, text: &str| {
        let text: String = text.chars().take(80).collect();
        Err(format!(
            "the {class} `{text}` stands where {kind} was declared"
        ))
    };
    match cell {
        Json::Null => Ok(Value::Null),
        Json::Number(number) => {
            let text = number.to_string();
            match kind {
                ColumnType::Text | ColumnType::Bytes | ColumnType::Uuid => wrong("number", &text),
                ColumnType::Date | ColumnType::Timestamp | ColumnType::Timestamptz => {
                    wrong("number", &text)
                }
                ColumnType::Json => Ok(Value::Text(text)),
                _ => value::parse(kind, &text),
            }
        }
        Json::String(text) => value::parse(kind, text),
        Json::Array(parts) => match (parts.first(), parts.get(1)) {
            (Some(Json::String(class)), Some(Json::String(text))) if class == "real" => {
                let number = text.parse::<f64>().map(shortest);
                match (number, kind) {
                    (Ok(number), ColumnType::Json | ColumnType::Source(_))
                    | (Ok(number), ColumnType::Decimal { .. }) => value::parse(kind, &number),
                    _ => wrong("number", text),
                }
            }
            (Some(Json::String(class)), Some(Json::String(text))) if class == "blob" => {
                wrong("BLOB", &format!("x'{text}'"))
            }
            (_, Some(Json::String(text))) => wrong("text", text),
            // The BLOB of an earlier version.
            _ => wrong("BLOB", &cell.to_string()),
        },
        other => wrong("value", &other.to_string()),
    }
}

/// The shortest digits that give the number back, without an exponent.
fn shortest(number: f64) -> String {
    number.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn declared_types_follow_sqlites_affinity() {
        let decimal = |precision, scale| ColumnType::Decimal { precision, scale };
        for (declared, kind) in [
            ("INTEGER", ColumnType::Long),
            ("varchar(9)", ColumnType::Text),
            ("double precision", ColumnType::Double),
            ("DECIMAL(10, 2)", decimal(10, 2)),
            ("numeric(5)", decimal(5, 0)),
            (
                "DECIMAL(60,2)",
                ColumnType::Source(SourceType::named("numeric")),
            ),
            ("NUMERIC", ColumnType::Source(SourceType::named("numeric"))),
            ("STRING", ColumnType::Source(SourceType::named("numeric"))),
            ("", ColumnType::Source(SourceType::named(""))),
            ("BLOB", ColumnType::Bytes),
        ] {
            assert_eq!(kind_of(declared), kind, "{declared}");
        }
    }
}
