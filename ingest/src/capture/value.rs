//! Values from text: what PostgreSQL's output functions write, and ISO 8601 text in SQLite.
//!
//! Text and the column's type flow in, a [`Value`] flows out, or the reason why there is none.
//! Nothing is rounded: a value that does not fit is refused.

use jiff::civil;
use tidemill_log::event::Value;
use tidemill_log::schema::ColumnType;

/// The value that `text` stands for in a column of this type.
pub(super) fn parse(kind: ColumnType, text: &str) -> Result<Value, String> {
    let wrong = |expected: &str| format!("`{}` is not {expected}", head(text));
    match kind {
        ColumnType::Bool => match text {
            "t" | "true" | "1" => Ok(Value::Bool(true)),
            "f" | "false" | "0" => Ok(Value::Bool(false)),
            _ => Err(wrong("a boolean")),
        },
        ColumnType::Int => match text.parse::<i32>() {
            Ok(number) => Ok(Value::Int(i64::from(number))),
            Err(_) => Err(wrong("a 32 bit integer")),
        },
        ColumnType::Long => match text.parse() {
            Ok(number) => Ok(Value::Int(number)),
            Err(_) => Err(wrong("a 64 bit integer")),
        },
        ColumnType::Float | ColumnType::Double => match text.parse() {
            Ok(number) => Ok(Value::Float(number)),
            Err(_) => Err(wrong("a number")),
        },
        ColumnType::Text | ColumnType::Json | ColumnType::Source(_) => {
            Ok(Value::Text(text.to_owned()))
        }
        ColumnType::Uuid => match uuid::Uuid::try_parse(text) {
            Ok(uuid) => Ok(Value::Text(uuid.to_string())),
            Err(_) => Err(wrong("a UUID")),
        },
        ColumnType::Bytes => bytes(text.strip_prefix("\\x").unwrap_or(text))
            .map(Value::Bytes)
            .ok_or_else(|| wrong("bytes in hexadecimal")),
        ColumnType::Date => match text.parse::<civil::Date>() {
            Ok(date) => Ok(Value::Date(days(date))),
            Err(_) => Err(wrong("a finite date of the years 1 to 9999")),
        },
        ColumnType::Timestamp => match text.parse::<civil::DateTime>() {
            Ok(at) => Ok(Value::Timestamp(micros(at))),
            Err(_) => Err(wrong("a finite timestamp of the years 1 to 9999")),
        },
        ColumnType::Timestamptz => match text.parse::<jiff::Timestamp>() {
            Ok(at) => Ok(Value::Timestamp(at.as_microsecond())),
            Err(_) => Err(wrong(
                "a finite instant (with its offset) of the years 1 to 9999",
            )),
        },
        ColumnType::Decimal { precision, scale } => decimal(text, precision, scale)
            .map(Value::Decimal)
            .ok_or_else(|| wrong(&format!("a finite decimal({precision}, {scale})"))),
    }
}

/// The first characters of a text, for messages.
fn head(text: &str) -> String {
    text.chars().take(80).collect()
}

fn bytes(hex: &str) -> Option<Vec<u8>> {
    let digits = hex.as_bytes();
    if !digits.len().is_multiple_of(2) {
        return None;
    }
    let digit = |byte: u8| char::from(byte).to_digit(16);
    digits
        .chunks_exact(2)
        .map(|pair| match pair {
            &[high, low] => u8::try_from(digit(high)? * 16 + digit(low)?).ok(),
            _ => None,
        })
        .collect()
}

fn days(date: civil::Date) -> i32 {
    let epoch = civil::Date::constant(1970, 1, 1);
    // A span of civil dates is always a whole number of hours in 24 hour days.
    let hours = date.duration_since(epoch).as_hours();
    i32::try_from(hours.div_euclid(24)).unwrap_or(i32::MAX)
}

fn micros(at: civil::DateTime) -> i64 {
    let epoch = civil::DateTime::constant(1970, 1, 1, 0, 0, 0, 0);
    i64::try_from(at.duration_since(epoch).as_micros()).unwrap_or(i64::MAX)
}

fn decimal(text: &str, precision: u8, scale: i8) -> Option<i128> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let places = usize::try_from(scale).ok()?;
    let padding = places.checked_sub(fraction.len())?;
    if whole.is_empty()
        || !whole
            .bytes()
            .chain(fraction.bytes())
            .all(|b| b.is_ascii_digit())
    {
        return None;
    }
    let unscaled: i128 = format!("{whole}{fraction}{:0<padding$}", "").parse().ok()?;
    let limit = 10_i128.checked_pow(u32::from(precision))?;
    (unscaled < limit).then_some(if negative { -unscaled } else { unscaled })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const DECIMAL: ColumnType = ColumnType::Decimal {
        precision: 12,
        scale: 4,
    };

    #[test]
    fn postgres_text_becomes_values() {
        for (kind, text, value) in [
            (ColumnType::Bool, "t", Value::Bool(true)),
            (ColumnType::Int, "-7", Value::Int(-7)),
            (
                ColumnType::Long,
                "9223372036854775807",
                Value::Int(i64::MAX),
            ),
            (
                ColumnType::Double,
                "-Infinity",
                Value::Float(f64::NEG_INFINITY),
            ),
            (ColumnType::Bytes, "\\x00ff", Value::Bytes(vec![0, 255])),
            (ColumnType::Date, "1969-12-31", Value::Date(-1)),
            (ColumnType::Date, "2000-03-01", Value::Date(11_017)),
            (
                ColumnType::Timestamp,
                "1970-01-01 00:00:01.5",
                Value::Timestamp(1_500_000),
            ),
            (
                ColumnType::Timestamp,
                "1969-12-31 23:59:59.999999",
                Value::Timestamp(-1),
            ),
            (
                ColumnType::Timestamptz,
                "1970-01-01 01:00:00+01",
                Value::Timestamp(0),
            ),
            (
                ColumnType::Timestamptz,
                "1970-01-01T00:00:00Z",
                Value::Timestamp(0),
            ),
            (
                ColumnType::Timestamptz,
                "1970-01-01 05:30:00+05:30",
                Value::Timestamp(0),
            ),
            (DECIMAL, "12.5", Value::Decimal(125_000)),
            (DECIMAL, "-0.0001", Value::Decimal(-1)),
        ] {
            assert_eq!(parse(kind, text), Ok(value), "{text}");
        }
    }

    #[test]
    fn what_has_no_value_is_refused_by_name() {
        for (kind, text) in [
            (ColumnType::Date, "infinity"),
            (ColumnType::Date, "0044-03-15 BC"),
            (ColumnType::Timestamp, "-infinity"),
            (ColumnType::Timestamptz, "infinity"),
            (ColumnType::Timestamptz, "2024-01-01 00:00:00"),
            (DECIMAL, "NaN"),
            (DECIMAL, "1.23456"),
            (DECIMAL, "100000000"),
            (ColumnType::Int, "3000000000"),
            (ColumnType::Bytes, "\\x0"),
            (ColumnType::Uuid, "nobody"),
        ] {
            let reason = parse(kind, text).unwrap_err();
            assert!(reason.contains(text), "{reason}");
        }
    }

    proptest! {
        #[test]
        fn any_text_gives_a_value_or_a_reason(text in ".*") {
            for kind in [ColumnType::Date, ColumnType::Timestamptz, ColumnType::Bytes, DECIMAL] {
                let _ = parse(kind, &text);
            }
        }
    }
}
