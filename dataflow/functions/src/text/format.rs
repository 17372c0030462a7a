//! Values as text, as PostgreSQL's output functions write them.
//!
//! The settings are `DateStyle` ISO, `IntervalStyle` postgres, `bytea_output` hex,
//! `extra_float_digits` 1 and `TimeZone` UTC.
//!
//! | function | type | PostgreSQL's function |
//! |---|---|---|
//! | [`real`], [`double`] | floating point | `float4out`, `float8out` |
//! | [`date`], [`timestamp`] | dates and times | `date_out`, `timestamp_out` |
//! | [`interval`] | interval | `interval_out` (`EncodeInterval`) |
//! | [`bytes`] | bytea | `byteaout` |
//! | [`text`] | any | the function of the value's type |
//!
//! Invariant: [`crate::numeric::parse`] reads every text that these functions write as the same
//! value. Intervals are the exception, because no cast reads them.

use std::fmt::Write;

use super::arrays;
use crate::value::calendar::{MICROS_PER_SECOND, date_of, moment};
use crate::value::datum::{Datum, Span};

/// The shortest digits that read back as the same number, as `float8out` writes them. Numbers below
/// 1e-4 and from 1e15 on have an exponent.
///
/// `{:e}` in Rust gives the shortest digits that round-trip, as PostgreSQL's Ryu does.
pub(crate) fn double(value: f64) -> String {
    shortest(
        value.is_sign_negative(),
        &format!("{:e}", value.abs()),
        value.into_special(),
        15,
    )
}

/// The same for a real (`float4out`). Numbers from 1e6 on have an exponent.
pub(crate) fn real(value: f32) -> String {
    let special = f64::from(value).into_special();
    shortest(
        value.is_sign_negative(),
        &format!("{:e}", value.abs()),
        special,
        6,
    )
}

/// Numbers that are not written with digits.
trait Special {
    /// The text of NaN and the infinities; None for other numbers.
    fn into_special(self) -> Option<&'static str>;
}

impl Special for f64 {
    fn into_special(self) -> Option<&'static str> {
        match self {
            _ if self.is_nan() => Some("NaN"),
            Self::INFINITY => Some("Infinity"),
            Self::NEG_INFINITY => Some("-Infinity"),
            _ => None,
        }
    }
}

/// The text of a number from its shortest scientific form; an exponent is written from 10^`digits`
/// on.
///
/// `scientific` is the absolute value in Rust's form `1.5e-7`. `digits` is 15 for doubles and 6 for
/// reals.
fn shortest(negative: bool, scientific: &str, special: Option<&str>, digits: i32) -> String {
    if let Some(special) = special {
        return special.to_owned();
    }
    let sign = if negative { "-" } else { "" };
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let figures: String = mantissa.chars().filter(char::is_ascii_digit).collect();
    if exponent < -4 || exponent >= digits {
        let direction = if exponent < 0 { '-' } else { '+' };
        return format!("{sign}{mantissa}e{direction}{:02}", exponent.abs());
    }
    let whole = usize::try_from(exponent + 1).unwrap_or(0);
    if exponent < 0 {
        let zeros = "0".repeat(usize::try_from(-exponent - 1).unwrap_or(0));
        return format!("{sign}0.{zeros}{figures}");
    }
    if figures.len() <= whole {
        return format!("{sign}{figures:0<whole$}");
    }
    let (before, after) = figures.split_at(whole);
    format!("{sign}{before}.{after}")
}

/// The year as it is written, and what follows the whole date: " BC" for years before 1.
///
/// Year 0 is 1 BC, and year -1 is 2 BC.
fn era(year: i64) -> (i64, &'static str) {
    if year > 0 {
        (year, "")
    } else {
        (1 - year, " BC")
    }
}

/// A date, as `date_out` writes it.
pub(crate) fn date(days: i64) -> String {
    let date = date_of(days);
    let (year, era) = era(date.year);
    format!("{year:04}-{:02}-{:02}{era}", date.month, date.day)
}

/// A time of the day in microseconds: `HH:MM:SS`, with decimals only up to the last that is not 0.
fn time(micros: i64) -> String {
    let (seconds, part) = (micros / MICROS_PER_SECOND, micros % MICROS_PER_SECOND);
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    let mut text = format!("{hour:02}:{minute:02}:{second:02}");
    if part != 0 {
        // Writing to a string does not fail.
        let _infallible = write!(text, ".{part:06}");
        text.truncate(text.trim_end_matches('0').len());
    }
    text
}

/// A timestamp, as `timestamp_out` writes it, followed by `zone`.
pub(crate) fn timestamp(micros: i64, zone: &str) -> String {
    let moment = moment(micros);
    let (year, era) = era(moment.date.year);
    let (month, day) = (moment.date.month, moment.date.day);
    format!(
        "{year:04}-{month:02}-{day:02} {}{zone}{era}",
        time(moment.time)
    )
}

/// A bytea, as `byteaout` writes it: `\x` and hexadecimal digits.
pub(crate) fn bytes(bytes: &[u8]) -> String {
    format!("\\x{}", hex(bytes))
}

/// Hexadecimal digits, in lower case.
pub(crate) fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        let _infallible = write!(text, "{byte:02x}");
    }
    text
}

/// An interval, as `EncodeInterval` writes it in the style postgres.
pub(crate) fn interval(span: Span) -> String {
    let (years, months) = (span.months / 12, span.months % 12);
    let mut parts = Vec::new();
    let mut before = false;
    for (count, unit) in [(years, "year"), (months, "mon"), (span.days, "day")] {
        if count != 0 {
            let sign = if before && count > 0 { "+" } else { "" };
            let plural = if count == 1 { "" } else { "s" };
            parts.push(format!("{sign}{count} {unit}{plural}"));
            before = count < 0;
        }
    }
    if parts.is_empty() || span.micros != 0 {
        let sign = match (span.micros < 0, before) {
            (true, _) => "-",
            (false, true) => "+",
            (false, false) => "",
        };
        let micros = i64::try_from(span.micros.unsigned_abs()).unwrap_or(i64::MAX);
        parts.push(format!("{sign}{}", time(micros)));
    }
    parts.join(" ")
}

/// The text of a value's output function. The caller says with `with_zone` whether a timestamp is a
/// timestamptz, because the value does not.
pub(crate) fn text(value: &Datum<'_>, with_zone: bool) -> String {
    match value {
        Datum::Null => String::new(),
        Datum::Bool(value) => if *value { "t" } else { "f" }.to_owned(),
        Datum::Int(value) => value.to_string(),
        Datum::Long(value) => value.to_string(),
        Datum::Real(value) => real(*value),
        Datum::Double(value) => double(*value),
        Datum::Numeric(value) => value.text(),
        Datum::Text(value) | Datum::Json(value) | Datum::Jsonb(value) => value.to_string(),
        Datum::Texts(values) => arrays::written(values),
        Datum::Bytes(value) => bytes(value),
        Datum::Date(days) => date(i64::from(*days)),
        Datum::Stamp(micros) => timestamp(*micros, if with_zone { "+00" } else { "" }),
        Datum::Span(span) => interval(*span),
    }
}
