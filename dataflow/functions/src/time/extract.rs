//! `extract`, which returns numerics, and `date_part`, which returns doubles.
//!
//! Source: PostgreSQL's `timestamp_part_common`, `extract_date` and `interval_part_common`. The
//! session's time zone is UTC.
//!
//! | field | date | timestamp, timestamptz | interval | type of `extract` |
//! |---|---|---|---|---|
//! | `microseconds` | no | yes | yes | numeric(20,0) |
//! | `milliseconds` | no | yes | yes | numeric(8,3) |
//! | `second` | no | yes | yes | numeric(8,6) |
//! | `minute`, `hour` | no | yes | yes | numeric(20,0) |
//! | `day`, `month`, `quarter`, `year` | yes | yes | yes | numeric(20,0) |
//! | `decade`, `century`, `millennium` | yes | yes | yes | numeric(20,0) |
//! | `week`, `isoyear`, `dow`, `isodow`, `doy` | yes | yes | no | numeric(20,0) |
//! | `epoch` | yes | yes | yes | numeric(20,6), of a date numeric(20,0) |
//! | `timezone` | no | timestamptz | no | numeric(20,0) |
//!
//! `date_part` casts a date to a timestamp first, as PostgreSQL does, and so knows the fields of
//! the time for dates too.

use arrow::datatypes::DataType;
use datafusion_common::ScalarValue;

use crate::entry::{Answer, Entry, Kind, body, rows, scaled};
use crate::value::calendar;
use crate::value::calendar::{MICROS_PER_DAY, MICROS_PER_SECOND, days_of, moment};
use crate::value::datum::{Datum, Span};
use crate::value::decimal::Num;

/// The field that is extracted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unit {
    /// Seconds within the minute × 1 000 000.
    Microseconds,
    /// Seconds within the minute × 1000, with three decimals.
    Milliseconds,
    /// Seconds within the minute, with six decimals.
    Second,
    /// Minutes within the hour.
    Minute,
    /// The hour of the day; of an interval, all its hours.
    Hour,
    /// Day of the month; of an interval, its days.
    Day,
    /// Week of the year by ISO 8601, 1 to 53.
    Week,
    /// 1 to 12; of an interval, the months beyond whole years.
    Month,
    /// The quarter of the year, from 1.
    Quarter,
    /// The year. There is no year 0, and years BC are negative.
    Year,
    /// The year divided by 10, rounded down.
    Decade,
    /// The century. The first begins with the year 1.
    Century,
    /// The millennium. The first begins with the year 1.
    Millennium,
    /// The year by ISO 8601 that the week belongs to.
    IsoYear,
    /// Day of the week, 0 (Sunday) to 6.
    Dow,
    /// Day of the week by ISO 8601, 1 (Monday) to 7.
    IsoDow,
    /// Day of the year, 1 to 366.
    Doy,
    /// Seconds since 1970; of an interval, its length in seconds.
    Epoch,
    /// Offset from UTC in seconds: always 0.
    Timezone,
}

/// The field of a name, in any case.
///
/// # Errors
/// The name is not known, or is one of the fields that depend on the session (`timezone_hour`) or
/// count days from another origin (`julian`).
fn unit(name: &str) -> Result<Unit, String> {
    Ok(match name.to_ascii_lowercase().as_str() {
        "microsecond" | "microseconds" | "us" | "usec" | "usecs" => Unit::Microseconds,
        "millisecond" | "milliseconds" | "ms" | "msec" | "msecs" => Unit::Milliseconds,
        "second" | "seconds" | "s" | "sec" | "secs" => Unit::Second,
        "minute" | "minutes" | "m" | "min" | "mins" => Unit::Minute,
        "hour" | "hours" | "h" | "hr" | "hrs" => Unit::Hour,
        "day" | "days" | "d" => Unit::Day,
        "week" | "weeks" | "w" => Unit::Week,
        "month" | "months" | "mon" | "mons" => Unit::Month,
        "quarter" | "qtr" => Unit::Quarter,
        "year" | "years" | "y" | "yr" | "yrs" => Unit::Year,
        "decade" | "decades" | "dec" | "decs" => Unit::Decade,
        "century" | "centuries" | "c" | "cent" => Unit::Century,
        "millennium" | "millennia" | "mil" | "mils" => Unit::Millennium,
        "isoyear" => Unit::IsoYear,
        "dow" => Unit::Dow,
        "isodow" => Unit::IsoDow,
        "doy" => Unit::Doy,
        "epoch" => Unit::Epoch,
        "timezone" => Unit::Timezone,
        other => return Err(format!("unit \"{other}\" is not known or not supported")),
    })
}

/// A year as PostgreSQL shows it: there is no year 0, and -1 is 1 BC.
fn counted(year: i64) -> i64 {
    if year > 0 { year } else { year - 1 }
}

/// The century (`length` 100) or millennium (1000) of an astronomical year.
///
/// Astronomical years have a year 0. The first century is the years 1 to 100, and the century
/// before it is -1.
fn period(year: i64, length: i64) -> i64 {
    match year > 0 {
        true => (year + length - 1) / length,
        false => -((length - 1 - (year - 1)) / length),
    }
}

/// A field of a day; None for fields of the time.
fn of_day(unit: Unit, days: i64) -> Option<i64> {
    let date = calendar::date_of(days);
    let (iso_year, week) = calendar::iso_week(days);
    Some(match unit {
        Unit::Day => date.day,
        Unit::Week => week,
        Unit::Month => date.month,
        Unit::Quarter => (date.month - 1) / 3 + 1,
        Unit::Year => counted(date.year),
        Unit::Decade => date.year.div_euclid(10),
        Unit::Century => period(date.year, 100),
        Unit::Millennium => period(date.year, 1000),
        Unit::IsoYear => counted(iso_year),
        Unit::Dow => calendar::weekday(days),
        Unit::IsoDow => (calendar::weekday(days) + 6) % 7 + 1,
        Unit::Doy => days - days_of(date.year, 1, 1) + 1,
        _ => return None,
    })
}

/// A field of a time, in microseconds; None for fields of the day.
///
/// `micros` is since midnight, or the time part of an interval, which may be negative and longer
/// than a day.
fn of_time(unit: Unit, micros: i64) -> Option<Num> {
    let minute = micros % (60 * MICROS_PER_SECOND);
    let whole = |value: i64| Num::new(i128::from(value), 0);
    Some(match unit {
        Unit::Microseconds => whole(minute),
        Unit::Milliseconds => Num::new(i128::from(minute), 3),
        Unit::Second => Num::new(i128::from(minute), 6),
        Unit::Minute => whole(micros / (60 * MICROS_PER_SECOND) % 60),
        Unit::Hour => whole(micros / (3600 * MICROS_PER_SECOND)),
        _ => return None,
    })
}

/// The error of a field that the type does not have.
fn unsupported(unit: Unit, kind: &str) -> String {
    format!("unit {unit:?} is not supported for type {kind}").to_lowercase()
}

/// A field of a timestamp; `zone` if it is a timestamptz.
///
/// # Errors
/// The field is not known, or a timestamp does not have it.
fn of_stamp(name: &str, micros: i64, zone: bool) -> Result<Num, String> {
    let unit = unit(name)?;
    let now = moment(micros);
    if unit == Unit::Epoch {
        return Ok(Num::new(i128::from(micros), 6));
    }
    if unit == Unit::Timezone && zone {
        return Ok(Num::new(0, 0));
    }
    let day = of_day(unit, now.days).map(|value| Num::new(i128::from(value), 0));
    day.or_else(|| of_time(unit, now.time))
        .ok_or_else(|| unsupported(unit, "timestamp"))
}

/// A field of a date.
///
/// # Errors
/// The field is not known, or is a field of the time.
fn of_date(name: &str, days: i64) -> Result<Num, String> {
    let unit = unit(name)?;
    if unit == Unit::Epoch {
        return Ok(Num::new(i128::from(days) * 86_400, 0));
    }
    let value = of_day(unit, days).ok_or_else(|| unsupported(unit, "date"))?;
    Ok(Num::new(i128::from(value), 0))
}

/// A field of an interval.
///
/// # Errors
/// The field is not known, or an interval does not have it.
fn of_interval(name: &str, span: Span) -> Result<Num, String> {
    let unit = unit(name)?;
    let (years, months) = (i64::from(span.months / 12), i64::from(span.months % 12));
    let whole = match unit {
        Unit::Day => i64::from(span.days),
        Unit::Month => months,
        Unit::Quarter => months / 3 + 1,
        Unit::Year => years,
        Unit::Decade => years / 10,
        Unit::Century => years / 100,
        Unit::Millennium => years / 1000,
        Unit::Epoch => {
            // PostgreSQL counts 365.25 days for a year and 30 for a month.
            let quarters = years * 1461 + months * 120 + i64::from(span.days) * 4;
            let micros = i128::from(quarters) * i128::from(MICROS_PER_DAY / 4);
            return Ok(Num::new(micros + i128::from(span.micros), 6));
        }
        _ => return of_time(unit, span.micros).ok_or_else(|| unsupported(unit, "interval")),
    };
    Ok(Num::new(i128::from(whole), 0))
}

/// The precision and scale of the result. The field must be a constant.
///
/// # Errors
/// The field is not a constant, or is not known.
fn decimals(kinds: &[DataType], constants: &[Option<&ScalarValue>]) -> Result<(u8, i8), String> {
    let name = match constants.first() {
        Some(Some(ScalarValue::Utf8(Some(name)))) => name,
        _ => return Err("what extract takes out must be named".to_owned()),
    };
    let date = matches!(kinds.get(1), Some(DataType::Date32));
    Ok(match unit(name)? {
        Unit::Epoch if !date => (20, 6),
        Unit::Second => (8, 6),
        Unit::Milliseconds => (8, 3),
        _ => (20, 0),
    })
}

/// The result of `date_part`.
fn double(value: Result<Num, String>) -> Answer {
    value.map(|value| Datum::Double(value.double()))
}

/// All entries of this family.
pub(crate) fn entries() -> Vec<Entry> {
    use Datum::{Date, Numeric, Span as Interval, Stamp, Text};
    const D: Kind = Kind::Double;
    const DATE: &[Kind] = &[Kind::Text, Kind::Date];
    const T: &[Kind] = &[Kind::Text, Kind::Timestamp];
    const Z: &[Kind] = &[Kind::Text, Kind::Timestamptz];
    const S: &[Kind] = &[Kind::Text, Kind::Interval];
    let entries = vec![
        scaled(
            "extract",
            DATE,
            decimals,
            body!([Text(u), Date(days)] => {
                of_date(u, i64::from(*days)).map(Numeric)
            }),
        ),
        scaled(
            "extract",
            T,
            decimals,
            body!([Text(u), Stamp(at)] => {
                of_stamp(u, *at, false).map(Numeric)
            }),
        ),
        scaled(
            "extract",
            Z,
            decimals,
            body!([Text(u), Stamp(at)] => {
                of_stamp(u, *at, true).map(Numeric)
            }),
        ),
        scaled(
            "extract",
            S,
            decimals,
            body!([Text(u), Interval(span)] => {
                of_interval(u, *span).map(Numeric)
            }),
        ),
        rows(
            "date_part",
            DATE,
            D,
            body!([Text(u), Date(days)] => {
                double(of_stamp(u, calendar::stamp(i64::from(*days), 0)?, false))
            }),
        ),
        rows(
            "date_part",
            T,
            D,
            body!([Text(u), Stamp(at)] => double(of_stamp(u, *at, false))),
        ),
        rows(
            "date_part",
            Z,
            D,
            body!([Text(u), Stamp(at)] => double(of_stamp(u, *at, true))),
        ),
        rows(
            "date_part",
            S,
            D,
            body!([Text(u), Interval(span)] => double(of_interval(u, *span))),
        ),
    ];
    entries.into_iter().map(Entry::tried).collect()
}
