//! Text to values, as PostgreSQL's input functions read it.
//!
//! Numbers and booleans are read exactly as PostgreSQL reads them. Of dates and timestamps only the
//! ISO forms are read; other forms fail the row.
//!
//! | function | type | accepts | PostgreSQL's function |
//! |---|---|---|---|
//! | [`integer`] | int, bigint | sign and decimal digits | `pg_strtoint32`, `pg_strtoint64` |
//! | [`boolean`] | boolean | words and their beginnings | `boolin` |
//! | [`double`], [`real`] | floating point | decimals, NaN, Infinity | `float8in`, `float4in` |
//! | [`numeric`] | numeric | decimal notation | `numeric_in` |
//! | [`date`], [`timestamp`], [`timestamptz`] | dates and times | ISO 8601 | `date_in`, … |
//! | [`bytes`] | bytea | hexadecimal and escape format | `byteain` |
//! | [`uuid`] | uuid | with or without hyphens and braces | `uuid_in` |
//!
//! Whitespace around the value is ignored, except for bytea and uuid. The error is PostgreSQL's
//! message, with the text as it was given.

use crate::entry::Answer;
use crate::value::calendar;
use crate::value::calendar::{MICROS_PER_DAY, MICROS_PER_SECOND, days_in};
use crate::value::datum::Datum;
use crate::value::decimal::Num;

/// Whether C's `isspace` is true for a character.
fn space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\n' | '\r' | '\x0b' | '\x0c')
}

/// PostgreSQL's error of a text that is not of the type.
fn invalid(kind: &str, text: &str) -> String {
    format!("invalid input syntax for type {kind}: \"{text}\"")
}

/// An integer (`pg_strtoint32`, `pg_strtoint64`), without a check of the type's range.
///
/// `kind` is the SQL name of the type for the error. Notations that PostgreSQL 16 added (`0x1F`,
/// `1_000`) fail the row.
///
/// # Errors
/// The text is not a whole number, or does not fit 128 bits.
pub(crate) fn integer(text: &str, kind: &'static str) -> Result<i128, String> {
    let trimmed = text.trim_matches(space);
    let digits = trimmed.strip_prefix(['+', '-']).unwrap_or(trimmed);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(invalid(kind, text));
    }
    trimmed
        .parse()
        .map_err(|_| format!("value \"{text}\" is out of range for type {kind}"))
}

/// A boolean (`boolin`): any beginning of `true`, `false`, `yes`, `no`; `on`, `off`, `of`, `1`,
/// `0`.
///
/// `o` alone is an error, because it begins both `on` and `off`.
pub(crate) fn boolean(text: &str) -> Answer {
    let word = text.trim_matches(space).to_ascii_lowercase();
    let begins = |whole: &str| !word.is_empty() && whole.starts_with(&word);
    if begins("true") || begins("yes") || word == "on" || word == "1" {
        return Ok(Datum::Bool(true));
    }
    if begins("false") || begins("no") || word == "of" || word == "off" || word == "0" {
        return Ok(Datum::Bool(false));
    }
    Err(invalid("boolean", text))
}

/// Whether `strtod` and `numeric_in` both read the text: digits, a point, an exponent.
///
/// `strtod` also reads hexadecimal numbers, and `numeric_in` reads hexadecimal, octal and binary
/// ones. These fail the row.
fn decimal(text: &str) -> bool {
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (unsigned, None),
    };
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let (whole, part) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let exponent = exponent.is_none_or(|exponent| {
        let exponent = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
        !exponent.is_empty() && digits(exponent)
    });
    exponent && digits(whole) && digits(part) && !(whole.is_empty() && part.is_empty())
}

/// A double (`float8in`): the nearest number. Overflow and underflow fail the row.
pub(crate) fn double(text: &str) -> Result<f64, String> {
    let trimmed = text.trim_matches(space);
    if let Some(special) = special(trimmed) {
        return Ok(special);
    }
    if !decimal(trimmed) {
        return Err(invalid("double precision", text));
    }
    let value: f64 = trimmed
        .parse()
        .map_err(|_| invalid("double precision", text))?;
    ranged(
        value.is_infinite(),
        value == 0.0,
        trimmed,
        "double precision",
    )?;
    Ok(value)
}

/// A real (`float4in`): the nearest number. Overflow and underflow fail the row.
pub(crate) fn real(text: &str) -> Result<f32, String> {
    let trimmed = text.trim_matches(space);
    if let Some(special) = special(trimmed) {
        return Ok(special as f32);
    }
    if !decimal(trimmed) {
        return Err(invalid("real", text));
    }
    let value: f32 = trimmed.parse().map_err(|_| invalid("real", text))?;
    ranged(value.is_infinite(), value == 0.0, trimmed, "real")?;
    Ok(value)
}

/// NaN and the infinities, in any case; None for other texts.
fn special(text: &str) -> Option<f64> {
    Some(match text.to_ascii_lowercase().as_str() {
        "nan" => f64::NAN,
        "infinity" | "+infinity" | "inf" | "+inf" => f64::INFINITY,
        "-infinity" | "-inf" => f64::NEG_INFINITY,
        _ => return None,
    })
}

/// Fails if the number overflowed, or became 0 though a digit of the text is not 0.
///
/// `infinite` and `zero` describe the number that was read, and `text` is what it was read from.
/// `1e-400` is out of range, and `0e-400` is 0.
fn ranged(infinite: bool, zero: bool, text: &str, kind: &str) -> Result<(), String> {
    let mantissa = text.split(['e', 'E']).next().unwrap_or(text);
    let something = mantissa.bytes().any(|byte| (b'1'..=b'9').contains(&byte));
    match infinite || (zero && something) {
        true => Err(format!("\"{text}\" is out of range for type {kind}")),
        false => Ok(()),
    }
}

/// A numeric (`numeric_in`), of at most 38 digits. NaN and the infinities fail the row.
///
/// The scale is the number of digits after the point, less the exponent. `1.50` has the scale 2 and
/// keeps its zero, as in PostgreSQL.
///
/// # Errors
/// The text is not a decimal number, or has more than 38 digits.
pub(crate) fn numeric(text: &str) -> Result<Num, String> {
    let trimmed = text.trim_matches(space);
    if !decimal(trimmed) {
        return Err(invalid("numeric", text));
    }
    let out = || format!("value \"{text}\" overflows numeric format");
    let (mantissa, exponent) = trimmed.split_once(['e', 'E']).unwrap_or((trimmed, "0"));
    let exponent: i32 = exponent.parse().map_err(|_| out())?;
    let negative = mantissa.starts_with('-');
    let mantissa = mantissa.trim_start_matches(['+', '-']);
    let (whole, part) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = format!("{whole}{part}");
    let digits = digits.trim_start_matches('0');
    let digits: i128 = if digits.is_empty() {
        0
    } else {
        digits.parse().map_err(|_| out())?
    };
    let digits = if negative { -digits } else { digits };
    let scale = i32::try_from(part.len()).map_err(|_| out())? - exponent;
    if digits == 0 {
        return Ok(Num::new(0, scale.clamp(0, 38)));
    }
    match scale {
        0.. => Ok(Num::new(digits, scale)),
        _ => Num::new(digits, 0).multiply(Num::new(
            crate::value::decimal::power_of_ten(-scale).ok_or_else(out)?,
            0,
        )),
    }
}

/// A number of `least` to `most` digits at the start of `text`, and the rest of the text.
///
/// None if the text begins with fewer than `least` digits. Digits after the first `most` stay in
/// the rest.
fn number(text: &str, least: usize, most: usize) -> Option<(i64, &str)> {
    let digits = text
        .bytes()
        .take(most)
        .take_while(u8::is_ascii_digit)
        .count();
    let (number, rest) = text.split_at_checked(digits)?;
    (digits >= least).then(|| Some((number.parse().ok()?, rest)))?
}

/// `YYYY-MM-DD` as days since 1970, and the rest of the text. None if the form is another one.
///
/// The outer None means that the text has another form. The inner error means that the form is
/// right, and that there is no such day.
fn day(text: &str, before_christ: bool) -> Option<(Result<i64, String>, &str)> {
    let (year, rest) = number(text, 4, 7)?;
    let (month, rest) = number(rest.strip_prefix('-')?, 1, 2)?;
    let (day, rest) = number(rest.strip_prefix('-')?, 1, 2)?;
    let zero = year == 0;
    let year = if before_christ { 1 - year } else { year };
    let fits = !zero && (1..=12).contains(&month) && day >= 1 && day <= days_in(year, month);
    let days = match fits {
        true => Ok(calendar::days_of(year, month, day)),
        false => Err(format!("date/time field value out of range: \"{text}\"")),
    };
    Some((days, rest))
}

/// `HH:MM[:SS[.ffffff]]` in microseconds, and the rest of the text. `24:00:00` is accepted.
///
/// The end of the day (`24:00:00`) and a leap second (`:60`) are read as the next second, as in
/// PostgreSQL. More than six decimals are another form, because PostgreSQL rounds them.
fn clock(text: &str) -> Option<(Result<i64, String>, &str)> {
    let (hour, rest) = number(text, 1, 2)?;
    let (minute, mut rest) = number(rest.strip_prefix(':')?, 2, 2)?;
    let (mut second, mut part) = (0, 0);
    if let Some(after) = rest.strip_prefix(':') {
        (second, rest) = number(after, 2, 2)?;
        if let Some(after) = rest.strip_prefix('.') {
            let digits = after.bytes().take_while(u8::is_ascii_digit).count();
            if digits > 6 {
                return None;
            }
            let (figures, after) = after.split_at_checked(digits)?;
            part = format!("{figures:0<6}").parse().ok()?;
            rest = after;
        }
    }
    let micros = (hour * 3600 + minute * 60 + second) * MICROS_PER_SECOND + part;
    let fits = hour <= 24 && minute < 60 && second <= 60 && micros <= MICROS_PER_DAY;
    let out = || format!("date/time field value out of range: \"{text}\"");
    Some((if fits { Ok(micros) } else { Err(out()) }, rest))
}

/// An offset from UTC in microseconds: `Z`, `UTC`, `+HH`, `+HH:MM`, `+HHMM`; 0 if there is none.
///
/// None for every other text, such as the abbreviation `CET`. Offsets up to 15:59 are read, as
/// PostgreSQL's `MAX_TZDISP_HOUR` allows.
fn offset(text: &str) -> Option<i64> {
    let text = text.trim_start_matches(space);
    if text.is_empty() || text.eq_ignore_ascii_case("z") || text.eq_ignore_ascii_case("utc") {
        return Some(0);
    }
    let (sign, text) = match text.split_at_checked(1)? {
        ("+", rest) => (1, rest),
        ("-", rest) => (-1, rest),
        _ => return None,
    };
    let (hours, rest) = number(text, 2, 2)?;
    let rest = rest.strip_prefix(':').unwrap_or(rest);
    let (minutes, rest) = if rest.is_empty() {
        (0, "")
    } else {
        number(rest, 2, 2)?
    };
    let fits = rest.is_empty() && hours <= 15 && minutes < 60;
    fits.then_some(sign * (hours * 3600 + minutes * 60) * MICROS_PER_SECOND)
}

/// Days since 1970, microseconds of the day, and the offset from UTC in microseconds.
///
/// # Errors
/// The text has another form, or there is no such day or time.
fn moment(text: &str, kind: &'static str) -> Result<(i64, i64, i64), String> {
    let narrow = || {
        format!("\"{text}\" is not a {kind} in the form YYYY-MM-DD HH:MM:SS, the one that is read")
    };
    let trimmed = text.trim_matches(space);
    let (trimmed, before_christ) = match trimmed.strip_suffix("BC") {
        Some(before) => (before.trim_end_matches(space), true),
        None => (trimmed, false),
    };
    let (days, rest) = day(trimmed, before_christ).ok_or_else(narrow)?;
    let days = days?;
    if rest.is_empty() {
        return Ok((days, 0, 0));
    }
    let rest = rest.strip_prefix(['T', 't', ' ']).ok_or_else(narrow)?;
    let (time, rest) = clock(rest.trim_start_matches(space)).ok_or_else(narrow)?;
    let offset = offset(rest).ok_or_else(narrow)?;
    Ok((days, time?, offset))
}

/// A date (`date_in`). The time is read and ignored.
pub(crate) fn date(text: &str) -> Answer {
    let (days, ..) = moment(text, "date")?;
    calendar::date(days).map(Datum::Date)
}

/// A timestamp (`timestamp_in`). The offset is read and ignored, as in PostgreSQL.
pub(crate) fn timestamp(text: &str) -> Answer {
    let (days, time, _) = moment(text, "timestamp")?;
    calendar::stamp(days, time).map(Datum::Stamp)
}

/// A timestamptz (`timestamptz_in`). Without an offset the time is UTC.
///
/// The result is in UTC: `2024-05-01 12:00+02` is 10:00 UTC.
pub(crate) fn timestamptz(text: &str) -> Answer {
    let (days, time, offset) = moment(text, "timestamptz")?;
    calendar::stamp(days, time - offset).map(Datum::Stamp)
}

/// A bytea (`byteain`): hexadecimal digits after `\x`, or the escape format.
pub(crate) fn bytes(text: &str) -> Result<Vec<u8>, String> {
    match text.strip_prefix("\\x") {
        Some(digits) => hex(digits),
        None => escaped(text),
    }
}

/// Bytes from hexadecimal digits, in either case (`hex_decode`).
///
/// # Errors
/// A character is neither a hexadecimal digit nor whitespace between two bytes, or the number of
/// digits is odd.
pub(crate) fn hex(text: &str) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let mut high = None;
    for c in text.chars() {
        // Whitespace is allowed between bytes.
        if high.is_none() && matches!(c, ' ' | '\n' | '\t' | '\r') {
            continue;
        }
        let digit = c
            .to_digit(16)
            .ok_or_else(|| format!("invalid hexadecimal digit: \"{c}\""))?;
        match high.take() {
            None => high = Some(digit),
            Some(high) => bytes.push((high * 16 + digit) as u8),
        }
    }
    match high {
        Some(_) => Err("invalid hexadecimal data: odd number of digits".to_owned()),
        None => Ok(bytes),
    }
}

/// Bytes in the escape format: `\\` is a backslash, and `\` with three octal digits is a byte.
///
/// # Errors
/// A backslash is followed by anything else.
fn escaped(text: &str) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let [byte, after @ ..] = rest {
        rest = match (byte, after) {
            (b'\\', [b'\\', after @ ..]) => {
                bytes.push(b'\\');
                after
            }
            (
                b'\\',
                [
                    a @ b'0'..=b'3',
                    b @ b'0'..=b'7',
                    c @ b'0'..=b'7',
                    after @ ..,
                ],
            ) => {
                bytes.push((a - b'0') * 64 + (b - b'0') * 8 + (c - b'0'));
                after
            }
            (b'\\', _) => return Err(invalid("bytea", text)),
            (byte, after) => {
                bytes.push(*byte);
                after
            }
        };
    }
    Ok(bytes)
}

/// A uuid (`uuid_in`), as the text that `uuid_out` writes. Hyphens are optional between groups of
/// four digits.
///
/// Braces may surround the whole. The result is in lower case with hyphens after 8, 12, 16 and 20
/// digits, so that equal uuids are equal texts.
pub(crate) fn uuid(text: &str) -> Result<String, String> {
    let wrong = || invalid("uuid", text);
    let inner = match text.strip_prefix('{') {
        Some(inner) => inner.strip_suffix('}').ok_or_else(wrong)?,
        None => text,
    };
    let mut digits = String::new();
    let mut hyphen = false;
    for c in inner.chars() {
        let group = digits.len().is_multiple_of(4) && !digits.is_empty() && digits.len() < 32;
        match c {
            '-' if group && !hyphen => hyphen = true,
            c if c.is_ascii_hexdigit() && digits.len() < 32 => {
                hyphen = false;
                digits.push(c.to_ascii_lowercase());
            }
            _ => return Err(wrong()),
        }
    }
    if digits.len() != 32 || hyphen {
        return Err(wrong());
    }
    let parts = [0..8, 8..12, 12..16, 16..20, 20..32];
    let parts = parts.map(|part| digits.get(part).unwrap_or_default().to_owned());
    Ok(parts.join("-"))
}
