//! Cells of a SQLite table: the type that a column's declaration names, how triggers write a cell
//! down, and the value that it stands for.
//!
//! A column of SQLite holds values of any storage class, whatever it was declared as. A cell is
//! written down with its class: text as a JSON string, whole numbers as JSON numbers, reals as a
//! JSON string with all their digits or, where text may stand beside them, in an array with their
//! class. What is not of the column's type is refused: no text becomes a number, no number bytes.

use serde_json::Value as Json;
use tidemill_log::event::Value;
use tidemill_log::schema::{ColumnType, SourceType};

use crate::capture::value;

/// Most digits of a decimal column.
const DIGITS: u8 = 38;

/// The type of a declared column type, by SQLite's own rule of looking for parts of names.
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
        // Values of all classes, which are told from each other.
        "" | "ANY" => ColumnType::Source(SourceType::named("")),
        _ if has("INT") => ColumnType::Long,
        _ if has("CHAR") || has("CLOB") || has("TEXT") => ColumnType::Text,
        _ if has("BLOB") || has("BYTEA") => ColumnType::Bytes,
        _ if has("REAL") || has("FLOA") || has("DOUB") => ColumnType::Double,
        _ => decimal(&declared).unwrap_or(ColumnType::Source(SourceType::named("numeric"))),
    }
}

/// `DECIMAL(p,s)` and `NUMERIC(p,s)` of digits that a decimal has.
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

/// SQL for a cell as JSON.
pub(super) fn cell_json(kind: ColumnType, cell: &str) -> String {
    let real = format!("printf('%!.17g', {cell})");
    let (blob, real, text) = match kind {
        ColumnType::Bytes => (
            format!("hex({cell})"),
            format!("json_array('real', {real})"),
            format!("json_array('text', {cell})"),
        ),
        // Text that names a number is none: SQLite would have made one of it.
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

/// The value of a cell as the triggers write it.
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
            // An earlier release's BLOB.
            _ => wrong("BLOB", &cell.to_string()),
        },
        other => wrong("value", &other.to_string()),
    }
}

/// The shortest digits that name a real, without an exponent.
fn shortest(number: f64) -> String {
    number.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn declared_types_are_what_sqlite_makes_of_them() {
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
