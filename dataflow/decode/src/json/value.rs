//! JSON values as cells: Debezium's, Connect's and plain JSON's representations of column types.
//!
//! Input: the value's text, and what the record's schema or the table's options say about it.
//! Output: the column's cell, or why there is none. A value that can be read in more than one way
//! is refused and not guessed.

use std::borrow::Cow;
use std::sync::Arc;

use arrow::array::timezone::Tz;
use arrow::datatypes::DataType;
use base64::Engine;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use tidemill_ir::{Binary, Digits, Spelling, TimestampUnit};
use tidemill_log::schema::arena::{Meaning, Unit};

use super::connect::Written;
use crate::columns::DecodedValue;
use crate::text;
use crate::wire::{UNAVAILABLE, WHY_UNAVAILABLE, Wire, is_placeholder, micros, twos_complement};

/// Base64 with or without padding.
const LENIENT: GeneralPurposeConfig =
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
/// The standard alphabet of base64 (RFC 4648); padding is optional.
const BASE64: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, LENIENT);
/// The alphabet of base64 that is safe in URLs (RFC 4648).
const URL_SAFE: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, LENIENT);

/// Numbers that can be milliseconds of a timestamp between 1973 and 9999, and that are unlikely to
/// be seconds or microseconds.
const PLAIN_MILLIS: std::ops::Range<u64> = 100_000_000_000..253_402_300_800_000;

/// The refusal of a number of which several units are plausible.
const UNIT_UNKNOWN: &str = "a number whose unit is not said: give the table the option timestamps \
     = 'seconds', 'millis', 'micros' or 'nanos' (Debezium writes microseconds for timestamp and \
     timestamp(4) to (6), milliseconds for timestamp(0) to (3))";
/// The refusal of a string that may be digits or base64.
const DIGITS_UNKNOWN: &str = "a string that may be digits or base64: give the table the option \
     decimals = 'string' or 'base64' (base64 is what Debezium writes by default, with the column's \
     scale)";
/// The refusal of a string that may be text or encoded bytes.
const BYTES_UNKNOWN: &str = "a string where the record's schema says that bytes are text: give the \
     table the option binary = 'hex' or 'base64'";

/// How the values of a source are read.
pub(crate) struct Rules {
    /// The table's options.
    pub(crate) spelling: Spelling,
    /// Whether Debezium wrote the values.
    pub(crate) debezium: bool,
    /// See [`tidemill_ir::Source::unavailable`].
    pub(crate) unavailable: Option<Arc<[u8]>>,
    /// The time zone of timestamps.
    pub(crate) utc: Tz,
}

/// Why a value has no cell.
pub(crate) enum Misfit {
    /// The column does not take such a value.
    Kind,
    /// A more specific reason.
    Why(&'static str),
}

/// A cell, or why there is none.
type Read<'a> = Result<DecodedValue<'a>, Misfit>;

impl Rules {
    /// The cell of a value. `raw` is valid JSON and not null; `written` is its type, if it is
    /// known.
    pub(crate) fn cell<'a>(
        &self,
        raw: &'a str,
        written: Option<Written>,
        kind: &DataType,
    ) -> Read<'a> {
        if self.is_unavailable(raw) {
            return Err(Misfit::Why(WHY_UNAVAILABLE));
        }
        let quoted = raw.starts_with('"');
        let cell = match (written, kind) {
            (Some(Written::Int(meaning)), _) if meaning != Meaning::Plain => {
                let value = integer(raw).ok_or(Misfit::Kind)?;
                Wire::Int(value, meaning).cell(kind, &self.utc)
            }
            // The schema says that the value is a number, and nothing more.
            (Some(Written::Int(_)), DataType::Date32) => None,
            // A decimal is written as a number if the converter is configured so.
            (Some(Written::Bytes(meaning)), _) if quoted => {
                let bytes = string(raw).and_then(|text| decoded(&text));
                let wire = Wire::Bytes(Cow::Owned(bytes.ok_or(Misfit::Kind)?), meaning);
                if wire.is_unavailable(self.told()) {
                    return Err(Misfit::Why(WHY_UNAVAILABLE));
                }
                wire.cell(kind, &self.utc)
            }
            (Some(Written::Text), DataType::Decimal128(precision, scale)) if quoted => string(raw)
                .and_then(|text| {
                    text::decimal(&text, *precision, *scale).map(DecodedValue::Decimal)
                }),
            (Some(Written::Text), DataType::Binary) if self.spelling.binary.is_none() => {
                return Err(Misfit::Why(BYTES_UNKNOWN));
            }
            (_, DataType::Decimal128(precision, scale)) if raw.starts_with('{') => {
                scaled(raw, *precision, *scale)
            }
            (Some(Written::VariableScaleDecimal), _) => None,
            _ => return self.plain(raw, kind),
        };
        cell.ok_or(Misfit::Kind)
    }

    /// The placeholder that the table's option names.
    fn told(&self) -> Option<&[u8]> {
        self.unavailable.as_deref()
    }

    /// Whether a value is Debezium's placeholder for a value that it does not have.
    fn is_unavailable(&self, raw: &str) -> bool {
        if raw.len() == UNAVAILABLE.len() + 2 && raw.get(1..raw.len() - 1) == Some(UNAVAILABLE) {
            return true;
        }
        let told = self.told().filter(|_| raw.starts_with('"'));
        told.is_some_and(|told| string(raw).is_some_and(|text| text.as_bytes() == told))
    }

    /// A value without a schema.
    fn plain<'a>(&self, raw: &'a str, kind: &DataType) -> Read<'a> {
        let cell = match kind {
            DataType::Timestamp(_, _) => return self.timestamp(raw),
            DataType::Decimal128(precision, scale) => {
                return self.decimal(raw, *precision, *scale);
            }
            DataType::Binary => return self.bytes(raw),
            DataType::Boolean => match raw {
                "true" => Some(DecodedValue::Bool(true)),
                "false" => Some(DecodedValue::Bool(false)),
                _ => None,
            },
            DataType::Int32 => integer(raw)
                .filter(|value| i32::try_from(*value).is_ok())
                .map(DecodedValue::Int),
            DataType::Int64 => integer(raw).map(DecodedValue::Int),
            // Parsed at the column's own width, because rounding twice could change the last bit.
            DataType::Float32 => match self.not_finite(raw) {
                Some(value) => Some(DecodedValue::Float(value)),
                None => finite(raw.parse::<f32>().map(f64::from)),
            },
            DataType::Float64 => match self.not_finite(raw) {
                Some(value) => Some(DecodedValue::Float(value)),
                None => finite(raw.parse::<f64>()),
            },
            DataType::Utf8 => match raw.as_bytes().first() {
                Some(b'"') => string(raw).map(DecodedValue::Text),
                Some(b'{' | b'[') | None => None,
                // Debezium writes texts as texts, so a number belongs to another column type.
                Some(_) if self.debezium => None,
                // APIs mix "12" and 12 in one field. A number keeps its spelling.
                Some(_) => Some(DecodedValue::Text(Cow::Borrowed(raw))),
            },
            DataType::Date32 => self.date(raw),
            _ => None,
        };
        cell.ok_or(Misfit::Kind)
    }

    /// The floats for which JSON has no number, as Connect's converter writes them.
    fn not_finite(&self, raw: &str) -> Option<f64> {
        match raw {
            "\"NaN\"" if self.debezium => Some(f64::NAN),
            "\"Infinity\"" if self.debezium => Some(f64::INFINITY),
            "\"-Infinity\"" if self.debezium => Some(f64::NEG_INFINITY),
            _ => None,
        }
    }

    /// A date: ISO 8601, or days since 1970 from Debezium.
    fn date(&self, raw: &str) -> Option<DecodedValue<'static>> {
        if raw.starts_with('"') {
            let text = string(raw)?;
            // The form of Debezium's IsoDate.
            let zone = text.strip_suffix('Z').filter(|_| self.debezium);
            let days = text::date(zone.unwrap_or(&text))?;
            return Some(DecodedValue::Int(i64::from(days)));
        }
        // Debezium's dates are days, whatever its time precision mode is.
        let days = integer(raw).filter(|_| self.debezium)?;
        i32::try_from(days)
            .ok()
            .map(|days| DecodedValue::Int(i64::from(days)))
    }

    /// A timestamp: ISO 8601, or a number whose unit is known.
    fn timestamp(&self, raw: &str) -> Read<'static> {
        if raw.starts_with('"') {
            let text = string(raw).ok_or(Misfit::Kind)?;
            let at = text::timestamp(&text, &self.utc);
            return at.map(DecodedValue::Int).ok_or(Misfit::Kind);
        }
        let value = integer(raw).ok_or(Misfit::Kind)?;
        let at = match self.spelling.timestamps {
            Some(TimestampUnit::Seconds) => value.checked_mul(1_000_000),
            Some(TimestampUnit::Millis) => micros(value, Unit::Millis),
            Some(TimestampUnit::Micros) => micros(value, Unit::Micros),
            Some(TimestampUnit::Nanos) => micros(value, Unit::Nanos),
            Some(TimestampUnit::Iso) => None,
            None if !self.debezium && PLAIN_MILLIS.contains(&value.unsigned_abs()) => {
                micros(value, Unit::Millis)
            }
            None => return Err(Misfit::Why(UNIT_UNKNOWN)),
        };
        at.map(DecodedValue::Int).ok_or(Misfit::Kind)
    }

    /// A decimal: a number, digits in a string, or base64 of the unscaled value.
    fn decimal(&self, raw: &str, precision: u8, scale: i8) -> Read<'static> {
        let digits = |text: &str| text::decimal(text, precision, scale);
        if !raw.starts_with('"') {
            return digits(raw).map(DecodedValue::Decimal).ok_or(Misfit::Kind);
        }
        let text = string(raw).ok_or(Misfit::Kind)?;
        let bytes = decoded(&text).filter(|bytes| !bytes.is_empty());
        let value = match self.spelling.decimals {
            Some(Digits::Base64) => {
                let value = bytes.and_then(|bytes| twos_complement(&bytes));
                value.and_then(|value| text::in_precision(value, precision))
            }
            None if self.debezium && bytes.is_some() => return Err(Misfit::Why(DIGITS_UNKNOWN)),
            Some(Digits::Text) | None => digits(&text),
        };
        value.map(DecodedValue::Decimal).ok_or(Misfit::Kind)
    }

    /// Bytes: base64, hexadecimal digits or a text.
    fn bytes<'a>(&self, raw: &'a str) -> Read<'a> {
        let text = string(raw).ok_or(Misfit::Kind)?;
        let default = match self.debezium {
            true => Binary::Base64,
            false => Binary::Text,
        };
        let bytes = match self.spelling.binary.unwrap_or(default) {
            Binary::Text => return Ok(DecodedValue::Text(text)),
            Binary::Base64 => decoded(&text),
            Binary::Hex => hex(&text),
        };
        match bytes {
            Some(bytes) if is_placeholder(&bytes, self.told()) => Err(Misfit::Why(WHY_UNAVAILABLE)),
            Some(bytes) => Ok(DecodedValue::Bytes(Cow::Owned(bytes))),
            None => Err(Misfit::Kind),
        }
    }
}

/// A float, if it is finite.
fn finite<E>(value: Result<f64, E>) -> Option<DecodedValue<'static>> {
    let value = value.ok().filter(|value| value.is_finite());
    value.map(DecodedValue::Float)
}

/// Decodes base64, standard or URL-safe.
fn decoded(text: &str) -> Option<Vec<u8>> {
    BASE64.decode(text).or_else(|_| URL_SAFE.decode(text)).ok()
}

/// Decodes hexadecimal digits.
fn hex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let pairs = text.as_bytes().chunks(2).map(|pair| match pair {
        [high, low] => u8::try_from(digit(*high)? << 4 | digit(*low)?).ok(),
        _ => None,
    });
    pairs.collect()
}

/// Debezium's `VariableScaleDecimal`: an object with the scale and the base64 of the unscaled
/// value.
fn scaled(raw: &str, precision: u8, to: i8) -> Option<DecodedValue<'static>> {
    let parts: serde_json::Map<String, serde_json::Value> = serde_json::from_str(raw).ok()?;
    let (scale, value) = (parts.get("scale")?.as_i64()?, parts.get("value")?.as_str()?);
    if parts.len() != 2 {
        return None;
    }
    let value = twos_complement(&decoded(value)?)?;
    let value = text::rescale(value, scale, i64::from(to))?;
    text::in_precision(value, precision).map(DecodedValue::Decimal)
}

/// A whole number: `30`, and also `30.0` and `3e1`, which some writers make of it.
fn integer(raw: &str) -> Option<i64> {
    match raw.parse() {
        Ok(value) => Some(value),
        Err(_) => i64::try_from(text::decimal(raw, 38, 0)?).ok(),
    }
}

/// The text of a JSON string, borrowed if it has no escapes.
fn string(raw: &str) -> Option<Cow<'_, str>> {
    let inner = raw.strip_prefix('"')?.strip_suffix('"')?;
    if inner.as_bytes().contains(&b'\\') {
        return serde_json::from_str::<String>(raw).ok().map(Cow::Owned);
    }
    Some(Cow::Borrowed(inner))
}
