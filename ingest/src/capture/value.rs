//! Parses column values from text: PostgreSQL's output format, and ISO 8601 in SQLite.
//!
//! In: a text and the type of its column. Out: a [`Value`], or the reason why there is none.
//! Nothing is rounded: a value that does not fit is refused.

use jiff::civil;
use tidemill_log::envelope::event::Value;
use tidemill_log::schema::ColumnType;

/// The value of `text` in a column of this type. The error is a fragment for dead letters.
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
        // Parsing as 64 bits first would round some texts to a neighbour of the right 32-bit
        // number.
        ColumnType::Float => match text.parse::<f32>() {
            Ok(number) => Ok(Value::Float(f64::from(number))),
            Err(_) => Err(wrong("a number")),
        },
        ColumnType::Double => match text.parse() {
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
            Ok(date) if is_date(text) => Ok(Value::Date(days(date))),
            _ => Err(wrong("a finite date of the years 1 to 9999")),
        },
        ColumnType::Timestamp => match text.parse::<civil::DateTime>() {
            Ok(at) if is_timestamp(text) => Ok(Value::Timestamp(micros(at))),
            _ => Err(wrong("a finite timestamp of the years 1 to 9999")),
        },
        ColumnType::Timestamptz => match instant(text) {
            Some(at) => Ok(Value::Timestamp(at)),
            None => Err(wrong(
                "a finite instant (with its offset) of the years 1 to 9999",
            )),
        },
        ColumnType::Decimal { precision, scale } => decimal(text, precision, scale)
            .map(Value::Decimal)
            .ok_or_else(|| wrong(&format!("a finite decimal({precision}, {scale})"))),
    }
}

/// Whether a text is `YYYY-MM-DD`. Checked here because jiff accepts more forms and drops what a
/// date cannot hold; the same holds for the next functions.
fn is_date(text: &str) -> bool {
    let digit = |(at, byte): (usize, u8)| match at {
        4 | 7 => byte == b'-',
        _ => byte.is_ascii_digit(),
    };
    text.len() == 10 && text.bytes().enumerate().all(digit) && !text.starts_with("0000")
}

/// Whether a text is a date, or a date and a time of day.
fn is_timestamp(text: &str) -> bool {
    match text.split_at_checked(10) {
        Some((date, "")) => is_date(date),
        Some((date, time)) => is_date(date) && time.strip_prefix(['T', ' ']).is_some_and(is_time),
        None => false,
    }
}

/// The instant of a date, a time of day and an offset, in microseconds since 1970 (UTC); `None` if
/// the text is not that, or not of the years 1 to 9999. Calculated with civil times, because jiff's
/// timestamps end 26 hours before the year 9999 does.
fn instant(text: &str) -> Option<i64> {
    // The date holds the sign of an offset.
    let offset = text.char_indices().skip(11);
    let mut offset = offset.filter(|(_, c)| matches!(c, 'Z' | '+' | '-'));
    let (moment, offset) = text.split_at_checked(offset.next()?.0)?;
    let at = moment.parse::<civil::DateTime>();
    let at = micros(at.ok().filter(|_| is_timestamp(moment))?) - offset_micros(offset)?;
    let first = micros(civil::DateTime::constant(1, 1, 1, 0, 0, 0, 0));
    (first..=micros(civil::DateTime::MAX))
        .contains(&at)
        .then_some(at)
}

/// The offset of `Z`, `+HH`, `+HH:MM`, `+HHMM` or `+HH:MM:SS`, in microseconds.
fn offset_micros(offset: &str) -> Option<i64> {
    if offset == "Z" {
        return Some(0);
    }
    let (sign, rest) = offset.split_at_checked(1)?;
    let mut parts = rest.split(':');
    let digits = rest.replace(':', "");
    let is_written = parts.all(|part| part.len() == 2) || digits.len() == 4 && rest == digits;
    let is_written = is_written && digits.bytes().all(|it| it.is_ascii_digit());
    if !is_written || digits.len() > 6 || !matches!(sign, "+" | "-") {
        return None;
    }
    let part = |from: usize| {
        digits
            .get(from..from + 2)
            .map_or(Some(0), |it| it.parse().ok())
    };
    let (hours, minutes, seconds): (i64, i64, i64) = (part(0)?, part(2)?, part(4)?);
    let seconds = (hours * 60 + minutes) * 60 + seconds;
    let is_offset = hours < 24 && minutes < 60;
    is_offset.then_some(if sign == "-" { -seconds } else { seconds } * 1_000_000)
}

/// Whether a text is `HH:MM` or `HH:MM:SS`, with up to six digits after a decimal point.
fn is_time(text: &str) -> bool {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let parts: Vec<&str> = whole.split(':').collect();
    let pair = |part: &&str| part.len() == 2 && digits(part) && *part < "60";
    (2..=3).contains(&parts.len())
        && parts.iter().all(pair)
        && (1..=6).contains(&fraction.len())
        && digits(fraction)
}

/// The first 80 characters of a text, for messages.
fn head(text: &str) -> String {
    text.chars().take(80).collect()
}

/// The bytes of hexadecimal digits.
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

/// Days since 1970-01-01.
fn days(date: civil::Date) -> i32 {
    let epoch = civil::Date::constant(1970, 1, 1);
    // A span of civil dates is always a whole number of hours in 24 hour days.
    let hours = date.duration_since(epoch).as_hours();
    i32::try_from(hours.div_euclid(24)).unwrap_or(i32::MAX)
}

/// Microseconds since 1970-01-01T00:00:00.
fn micros(at: civil::DateTime) -> i64 {
    let epoch = civil::DateTime::constant(1970, 1, 1, 0, 0, 0, 0);
    i64::try_from(at.duration_since(epoch).as_micros()).unwrap_or(i64::MAX)
}

/// The unscaled value of a decimal with this precision and scale; `None` when digits would be lost.
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

    const DAY: Value = Value::Timestamp(86_400_000_000);

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
            (
                ColumnType::Float,
                "7.038531e-26",
                Value::Float(f64::from(7.038_531e-26_f32)),
            ),
            (ColumnType::Bytes, "\\x00ff", Value::Bytes(vec![0, 255])),
            (ColumnType::Date, "1969-12-31", Value::Date(-1)),
            (ColumnType::Date, "2000-03-01", Value::Date(11_017)),
            (ColumnType::Timestamp, "1970-01-02", DAY),
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
            (
                ColumnType::Timestamptz,
                "1969-12-31 19:03:58-04:56:02",
                Value::Timestamp(0),
            ),
            (
                ColumnType::Timestamptz,
                "9999-12-31 23:59:59.999999+00",
                Value::Timestamp(253_402_300_799_999_999),
            ),
            (
                ColumnType::Timestamptz,
                "9999-12-31 00:00:00+01",
                Value::Timestamp(253_402_210_800_000_000),
            ),
            (DECIMAL, "12.5", Value::Decimal(125_000)),
            (DECIMAL, "-0.0001", Value::Decimal(-1)),
        ] {
            assert_eq!(parse(kind, text), Ok(value), "{text}");
        }
    }

    #[test]
    fn invalid_texts_are_refused_with_the_expected_form() {
        for (kind, text) in [
            (ColumnType::Date, "infinity"),
            (ColumnType::Date, "0044-03-15 BC"),
            (ColumnType::Date, "20240101"),
            (ColumnType::Date, "2024-01-01T10:00:00"),
            (ColumnType::Date, "0000-01-01"),
            (ColumnType::Timestamp, "2024-01-01T10:00:00+02:00"),
            (ColumnType::Timestamp, "2024-01-01T10:00:60"),
            (ColumnType::Timestamp, "2024-01-01T10:00:00.1234567"),
            (ColumnType::Timestamptz, "2024-01-01T10:00:00.1234567Z"),
            (
                ColumnType::Timestamptz,
                "2024-01-01T10:00:00+02:00[Europe/Berlin]",
            ),
            (ColumnType::Timestamp, "-infinity"),
            (ColumnType::Timestamptz, "infinity"),
            (ColumnType::Timestamptz, "2024-01-01 00:00:00"),
            (ColumnType::Timestamptz, "2024-01-01 00:00:00Z12"),
            (ColumnType::Timestamptz, "2024-01-01 00:00:00+1:2"),
            (ColumnType::Timestamptz, "2024-01-01 00:00:00+02:60"),
            (ColumnType::Timestamptz, "0001-01-01 00:00:00+01"),
            (ColumnType::Timestamptz, "9999-12-31 23:00:00-01"),
            (ColumnType::Timestamptz, "10000-01-01 00:59:59+01"),
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
