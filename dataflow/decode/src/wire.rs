//! Wire values: a value as it was written, with the meaning its schema gives it, on the way to a
//! cell.
//!
//! Input: values of Avro, and of JSON records with Kafka Connect's schema. Output: the column's
//! cell, which is exact, or none.

use std::borrow::Cow;

use arrow::array::timezone::Tz;
use arrow::datatypes::{DataType, TimeUnit};
use tidemill_log::schema::SourceType;
use tidemill_log::schema::arena::{Meaning, Unit};

use super::columns::DecodedValue;
use super::text;

/// Debezium's default placeholder for a large value (TOAST) that a change left unchanged.
pub(super) const UNAVAILABLE: &str = "__debezium_unavailable_value";
/// Why a field with the placeholder is refused.
pub(super) const WHY_UNAVAILABLE: &str = "found Debezium's placeholder for a large value that the \
     change left as it was: give the table REPLICA IDENTITY FULL, or Debezium its \
     ReselectColumnsPostProcessor";
/// The µs that Debezium writes for PostgreSQL's `infinity` and `-infinity`.
const INFINITIES: [i64; 2] = [9_223_372_036_825_200_000, -9_223_372_036_832_400_000];
/// A day in µs.
const DAY: i64 = 86_400_000_000;

/// A value, as it was written.
pub(super) enum Wire<'a> {
    /// A boolean.
    Bool(bool),
    /// An integer, with its meaning.
    Int(i64, Meaning),
    /// A float; the flag says that it was written with 32 bits.
    Float(f64, bool),
    /// Bytes, with their meaning.
    Bytes(Cow<'a, [u8]>, Meaning),
    /// A text.
    Text(Cow<'a, str>),
    /// The text of a UUID, in any form that PostgreSQL accepts.
    Uuid(Cow<'a, str>),
}

impl<'a> Wire<'a> {
    /// The cell for a column of this type; `None` if the column does not take the value.
    pub(super) fn cell(&self, kind: &DataType, utc: &Tz) -> Option<DecodedValue<'a>> {
        Some(match (self, kind) {
            (Self::Bool(value), DataType::Boolean) => DecodedValue::Bool(*value),
            (Self::Int(value, meaning), kind) => return whole(*value, *meaning, kind),
            (Self::Float(value, _), DataType::Float64)
            | (Self::Float(value, true), DataType::Float32) => DecodedValue::Float(*value),
            (Self::Text(value), DataType::Utf8) => DecodedValue::Text(value.clone()),
            (Self::Uuid(value), DataType::Utf8) => {
                DecodedValue::Text(uuid_text(value).unwrap_or_else(|| value.clone()))
            }
            (Self::Text(value), DataType::Binary) => DecodedValue::Bytes(match value {
                Cow::Borrowed(text) => Cow::Borrowed(text.as_bytes()),
                Cow::Owned(text) => Cow::Owned(text.as_bytes().to_vec()),
            }),
            (Self::Text(value), DataType::Date32) => {
                DecodedValue::Int(i64::from(text::date(value)?))
            }
            (Self::Text(value), DataType::Timestamp(_, _)) => {
                DecodedValue::Int(text::timestamp(value, utc)?)
            }
            (Self::Text(value), DataType::Decimal128(precision, scale)) => {
                DecodedValue::Decimal(text::decimal(value, *precision, *scale)?)
            }
            (Self::Bytes(value, Meaning::Decimal { scale, .. }), DataType::Decimal128(p, to)) => {
                let value = text::rescale(twos_complement(value)?, *scale, i64::from(*to))?;
                DecodedValue::Decimal(text::in_precision(value, *p)?)
            }
            (Self::Bytes(value, _), DataType::Binary) => DecodedValue::Bytes(value.clone()),
            (Self::Bytes(value, Meaning::Bits(count)), DataType::Utf8) => {
                DecodedValue::Text(Cow::Owned(bits(value, *count)))
            }
            (Self::Bytes(value, Meaning::Bits(1)), DataType::Boolean) => {
                DecodedValue::Bool(bits(value, 1) == "1")
            }
            (Self::Bytes(value, Meaning::Uuid), DataType::Utf8) => {
                DecodedValue::Text(Cow::Owned(uuid(value)?))
            }
            (Self::Bytes(value, Meaning::Plain), DataType::Utf8) => {
                DecodedValue::Text(match value {
                    Cow::Borrowed(bytes) => Cow::Borrowed(std::str::from_utf8(bytes).ok()?),
                    Cow::Owned(bytes) => Cow::Owned(String::from_utf8(bytes.clone()).ok()?),
                })
            }
            _ => return None,
        })
    }

    /// Whether the value is Debezium's placeholder: the default one, or the one that the table
    /// names.
    pub(super) fn is_unavailable(&self, told: Option<&[u8]>) -> bool {
        match self {
            Self::Text(text) | Self::Uuid(text) => is_placeholder(text.as_bytes(), told),
            Self::Bytes(bytes, _) => is_placeholder(bytes, told),
            _ => false,
        }
    }

    /// The value, for the text of a refusal.
    pub(super) fn excerpt(&self) -> String {
        match self {
            Self::Bool(value) => value.to_string(),
            Self::Int(value, _) => value.to_string(),
            Self::Float(value, _) => value.to_string(),
            Self::Bytes(value, _) => format!("{} bytes", value.len()),
            Self::Text(value) | Self::Uuid(value) => format!("{:?}", text::excerpt(value)),
        }
    }
}

/// Whether bytes are Debezium's placeholder: the default one, or the one that the table names.
pub(super) fn is_placeholder(bytes: &[u8], told: Option<&[u8]>) -> bool {
    bytes == UNAVAILABLE.as_bytes() || told == Some(bytes)
}

/// The cell of an `int` or a `long`.
fn whole(value: i64, meaning: Meaning, kind: &DataType) -> Option<DecodedValue<'static>> {
    Some(match kind {
        DataType::Int64 => DecodedValue::Int(value),
        DataType::Int32 => DecodedValue::Int(i64::from(i32::try_from(value).ok()?)),
        DataType::Float64 => DecodedValue::Float(value as f64),
        DataType::Float32 => DecodedValue::Float(f64::from(value as f32)),
        DataType::Date32 => match meaning {
            Meaning::Days => DecodedValue::Int(i64::from(i32::try_from(value).ok()?)),
            _ => return None,
        },
        DataType::Timestamp(TimeUnit::Microsecond, _) => DecodedValue::Int(match meaning {
            Meaning::Timestamp { unit, .. } => micros(value, unit)?,
            Meaning::Days => value.checked_mul(DAY)?,
            _ => return None,
        }),
        DataType::Utf8 => match meaning {
            Meaning::Time(unit) => DecodedValue::Text(Cow::Owned(time(unit.in_micros(value)?)?)),
            _ => return None,
        },
        DataType::Decimal128(precision, scale) => {
            let value = text::rescale(i128::from(value), 0, i64::from(*scale))?;
            DecodedValue::Decimal(text::in_precision(value, *precision)?)
        }
        _ => return None,
    })
}

/// A timestamp in µs; `None` for the values that stand for infinities.
pub(super) fn micros(value: i64, unit: Unit) -> Option<i64> {
    let value = unit.in_micros(value)?;
    (!INFINITIES.contains(&value)).then_some(value)
}

/// A time of day as PostgreSQL writes it: `07:08:09.5`.
fn time(micros: i64) -> Option<String> {
    if !(0..=DAY).contains(&micros) {
        return None;
    }
    let (seconds, fraction) = (micros / 1_000_000, micros % 1_000_000);
    let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
    let whole = format!("{hours:02}:{minutes:02}:{:02}", seconds % 60);
    Some(match fraction {
        0 => whole,
        _ => format!("{whole}.{fraction:06}")
            .trim_end_matches('0')
            .to_owned(),
    })
}

/// A bit string of `count` bits, highest first. The first byte holds the lowest bits.
fn bits(bytes: &[u8], count: u32) -> String {
    // Bytes beyond the highest set bit may be missing.
    let bit = |index: u32| {
        let byte = usize::try_from(index / 8).ok().and_then(|at| bytes.get(at));
        byte.is_some_and(|byte| byte >> (index % 8) & 1 == 1)
    };
    (0..count)
        .rev()
        .map(|index| if bit(index) { '1' } else { '0' })
        .collect()
}

/// The text of a UUID as PostgreSQL writes it, so that equal UUIDs have equal texts.
pub(super) fn uuid_text<'a>(text: &Cow<'a, str>) -> Option<Cow<'a, str>> {
    if SourceType::named("uuid").writes(text) {
        return Some(text.clone());
    }
    let inner = text.strip_prefix('{').and_then(|it| it.strip_suffix('}'));
    let digits: String = inner.unwrap_or(text).split('-').collect();
    let pairs = digits.as_bytes().chunks(2).map(|pair| {
        let is_number = pair.iter().all(u8::is_ascii_hexdigit);
        let pair = std::str::from_utf8(pair).ok().filter(|_| is_number)?;
        u8::from_str_radix(pair, 16).ok()
    });
    let bytes: Vec<u8> = pairs.collect::<Option<_>>()?;
    uuid(&bytes).map(Cow::Owned)
}

/// The text of a UUID of 16 bytes.
fn uuid(bytes: &[u8]) -> Option<String> {
    let bytes: &[u8; 16] = bytes.try_into().ok()?;
    let mut text = String::with_capacity(36);
    for (index, byte) in bytes.iter().enumerate() {
        if matches!(index, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        for digit in [byte >> 4, byte & 15] {
            text.push(char::from_digit(u32::from(digit), 16)?);
        }
    }
    Some(text)
}

/// A big-endian two's complement number of any length; `None` if it does not fit. Bytes that only
/// repeat the sign are ignored.
pub(super) fn twos_complement(bytes: &[u8]) -> Option<i128> {
    let negative = bytes.first().is_some_and(|first| first & 0x80 != 0);
    let sign = if negative { 0xff } else { 0 };
    let (spare, used) = bytes.split_at(bytes.len().saturating_sub(16));
    let used_negative = used.first().is_some_and(|first| first & 0x80 != 0);
    if spare.iter().any(|byte| *byte != sign) || used_negative != negative {
        return None;
    }
    let start = if negative { -1 } else { 0 };
    Some(
        used.iter()
            .fold(start, |value: i128, byte| (value << 8) | i128::from(*byte)),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_written_as_postgresql_writes_them() {
        assert_eq!(time(0).as_deref(), Some("00:00:00"));
        assert_eq!(time(25_689_500_000).as_deref(), Some("07:08:09.5"));
        assert_eq!(time(DAY).as_deref(), Some("24:00:00"));
        assert_eq!(time(DAY + 1), None);
        assert_eq!(bits(&[5], 4), "0101");
        assert_eq!(bits(&[1, 2], 10), "1000000001");
        assert_eq!(bits(&[], 2), "00");
        let bytes: Vec<u8> = (0..16).collect();
        let text = uuid(&bytes);
        assert_eq!(
            text.as_deref(),
            Some("00010203-0405-0607-0809-0a0b0c0d0e0f")
        );
    }

    #[test]
    fn uuids_are_one_text() {
        let one = "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11";
        for text in [
            one,
            "A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11",
            "{a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11}",
            "a0eebc999c0b4ef8bb6d6bb9bd380a11",
        ] {
            assert_eq!(uuid_text(&text.into()).as_deref(), Some(one), "{text}");
        }
        for text in [
            "",
            "a0eebc99",
            "nobody",
            "+0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
        ] {
            assert_eq!(uuid_text(&text.into()), None, "{text}");
        }
    }

    #[test]
    fn nanoseconds_round_and_infinities_are_no_timestamps() {
        let nanos = [0, 499, 500, 501, 1500, -500, -1500].map(|it| micros(it, Unit::Nanos));
        assert_eq!(nanos.map(Option::unwrap), [0, 0, 0, 1, 2, 0, -2]);
        assert_eq!(micros(9_223_372_036_825_200, Unit::Millis), None);
        assert_eq!(micros(-9_223_372_036_832_400_000, Unit::Micros), None);
        assert_eq!(micros(i64::MAX, Unit::Millis), None);
    }
}
