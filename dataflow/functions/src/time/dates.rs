//! Arithmetic of dates, timestamps and intervals, `date_trunc`, `date_bin` and `AT TIME ZONE`.
//!
//! Source: PostgreSQL's `date.c` and `timestamp.c`. The session's time zone is UTC, so a
//! timestamptz has the same arithmetic as a timestamp.
//!
//! | expression | result |
//! |---|---|
//! | date + int, int + date, date - int | date |
//! | date - date | int, in days |
//! | date ± interval, interval + date | timestamp |
//! | timestamp ± interval, interval + timestamp | timestamp; the same for timestamptz |
//! | timestamp - timestamp | interval of days and microseconds; the same for timestamptz |
//! | interval ± interval, - interval | interval, part by part |
//! | interval × int, int × interval | interval, part by part |
//! | `date_trunc(unit, timestamp)` | timestamp; the same for timestamptz |
//! | `date_bin(stride, timestamp, origin)` | timestamp; the same for timestamptz |
//! | `make_date(year, month, day)` | date |
//! | timestamp `AT TIME ZONE` text | timestamptz, and the other way round |
//!
//! Dates are days since 1970-01-01, and timestamps are microseconds since 1970-01-01 00:00 UTC. A
//! result out of PostgreSQL's range fails the row. `now` and `current_date` are no
//! entries: the planner makes temporal filters of them.

use crate::entry::{Answer, Body, Entry, Gives, Kind, body, rows};
use crate::value::calendar::{MICROS_PER_DAY, MICROS_PER_SECOND, days_in, days_of, moment};
use crate::value::datum::{Datum, Span};
use crate::value::{calendar, zones};

/// Short for the list of entries, as are the next four.
const D: Kind = Kind::Date;
const T: Kind = Kind::Timestamp;
const Z: Kind = Kind::Timestamptz;
const S: Kind = Kind::Interval;
const X: Kind = Kind::Text;
/// Microseconds of one hour.
const HOUR: i64 = 3600 * MICROS_PER_SECOND;

/// A date, which must be in range.
///
/// # Errors
/// The date is outside of 4713 BC to 5874897 AD.
fn day(days: i64) -> Answer {
    calendar::date(days).map(Datum::Date)
}

/// A timestamp plus an interval (`timestamp_pl_interval`): first the months, then the days, then
/// the time. A day that the month does not have becomes the month's last day.
///
/// `2024-01-31 + 1 month` is 2024-02-29, and `2024-01-31 + 1 month 1 day` is 2024-03-01.
///
/// # Errors
/// The result, or the timestamp after one of the first two steps, is out of range.
fn moved(micros: i64, span: Span) -> Answer {
    let mut micros = micros;
    if span.months != 0 {
        let moment = moment(micros);
        let months = moment.date.month - 1 + i64::from(span.months);
        let year = moment.date.year + months.div_euclid(12);
        let month = months.rem_euclid(12) + 1;
        let day = moment.date.day.min(days_in(year, month));
        micros = calendar::stamp(days_of(year, month, day), moment.time)?;
    }
    if span.days != 0 {
        let moment = moment(micros);
        micros = calendar::stamp(moment.days + i64::from(span.days), moment.time)?;
    }
    let micros = micros
        .checked_add(span.micros)
        .ok_or("timestamp out of range")?;
    calendar::stamp(0, micros).map(Datum::Stamp)
}

/// A timestamp plus an interval of months, days and microseconds, as the operator `+` gives it.
/// `None` if the result is out of range.
///
/// `micros` are microseconds since 1970.
///
/// ```
/// let january_31 = 30 * 86_400_000_000;
/// assert_eq!(tidemill_functions::shifted(january_31, (1, 0, 0)), Some(58 * 86_400_000_000));
/// ```
pub fn shifted(micros: i64, (months, days, more): (i32, i32, i64)) -> Option<i64> {
    let span = Span {
        months,
        days,
        micros: more,
    };
    match moved(micros, span) {
        Ok(Datum::Stamp(micros)) => Some(micros),
        _ => None,
    }
}

/// The negative interval. Fails if a part does not fit.
fn negated(span: Span) -> Result<Span, String> {
    let out = "interval out of range";
    Ok(Span {
        months: span.months.checked_neg().ok_or(out)?,
        days: span.days.checked_neg().ok_or(out)?,
        micros: span.micros.checked_neg().ok_or(out)?,
    })
}

/// The sum of two intervals, part by part (`interval_pl`).
fn added(one: Span, other: Span) -> Answer {
    let out = "interval out of range";
    Ok(Datum::Span(Span {
        months: one.months.checked_add(other.months).ok_or(out)?,
        days: one.days.checked_add(other.days).ok_or(out)?,
        micros: one.micros.checked_add(other.micros).ok_or(out)?,
    }))
}

/// The greatest number of microseconds that a product may have: up to here every whole number is a
/// double, in which PostgreSQL multiplies.
const EXACT_MICROS: i64 = 1 << 53;

/// An interval so many times, part by part (`interval_mul`).
fn times(span: Span, factor: i32) -> Answer {
    let out = "interval out of range";
    let micros = span.micros.checked_mul(i64::from(factor)).ok_or(out)?;
    if micros.unsigned_abs() > EXACT_MICROS.unsigned_abs() {
        return Err("the hours of the interval are too many to be multiplied exactly".to_owned());
    }
    Ok(Datum::Span(Span {
        months: span.months.checked_mul(factor).ok_or(out)?,
        days: span.days.checked_mul(factor).ok_or(out)?,
        micros,
    }))
}

/// The difference of two timestamps (`timestamp_mi`): whole days, and the rest as microseconds.
///
/// PostgreSQL's `timestamp_mi` ends with `interval_justify_hours`, so the days are multiples of 24
/// hours.
fn apart(one: i64, other: i64) -> Answer {
    let micros = one.checked_sub(other).ok_or("interval out of range")?;
    let days = i32::try_from(micros / MICROS_PER_DAY).map_err(|_| "interval out of range")?;
    Ok(Datum::Span(Span {
        months: 0,
        days,
        micros: micros % MICROS_PER_DAY,
    }))
}

/// `date_trunc` (`timestamp_trunc`): the start of the unit that contains the timestamp.
///
/// `unit` may have any case, and the spellings of PostgreSQL's table `deltatktbl` (`datetime.c`). A
/// week begins on Monday (ISO 8601).
///
/// # Errors
/// The unit is not known, or the start is before PostgreSQL's first timestamp.
fn truncated(unit: &str, micros: i64) -> Answer {
    let unit = unit.to_ascii_lowercase();
    let now = moment(micros);
    let year = now.date.year;
    let start = |year: i64, month: i64| calendar::stamp(days_of(year, month, 1), 0);
    // There is no year 0, so periods before the year 1 are counted back from 1 BC, which is year 0
    // here.
    let period = |length: i64| match year > 0 {
        true => (year + length - 1) / length * length - (length - 1),
        false => -((length - 1 - (year - 1)) / length) * length + 1,
    };
    let to = |unit: i64| calendar::stamp(now.days, now.time - now.time.rem_euclid(unit));
    let truncated = match unit.as_str() {
        "microsecond" | "microseconds" | "us" | "usec" | "usecs" => Ok(micros),
        "millisecond" | "milliseconds" | "ms" | "msec" | "msecs" => to(1000),
        "second" | "seconds" | "s" | "sec" | "secs" => to(MICROS_PER_SECOND),
        "minute" | "minutes" | "m" | "min" | "mins" => to(60 * MICROS_PER_SECOND),
        "hour" | "hours" | "h" | "hr" | "hrs" => to(HOUR),
        "day" | "days" | "d" => calendar::stamp(now.days, 0),
        "week" | "weeks" | "w" => calendar::stamp(
            now.days - (calendar::weekday(now.days) + 6).rem_euclid(7),
            0,
        ),
        "month" | "months" | "mon" | "mons" => start(year, now.date.month),
        "quarter" | "qtr" => start(year, (now.date.month - 1) / 3 * 3 + 1),
        "year" | "years" | "y" | "yr" | "yrs" => start(year, 1),
        "decade" | "decades" | "dec" | "decs" => start(year.div_euclid(10) * 10, 1),
        "century" | "centuries" | "c" | "cent" => start(period(100), 1),
        "millennium" | "millennia" | "mil" | "mils" => start(period(1000), 1),
        _ => Err(format!(
            "unit \"{unit}\" not recognized or not supported for date_trunc"
        )),
    };
    truncated.map(Datum::Stamp)
}

/// `date_bin` (`timestamp_bin`): the start of the stride that contains `at`, counted from `origin`.
///
/// `at` and `origin` are in microseconds since 1970; a day of the stride has 24 hours.
///
/// # Errors
/// The stride has months, or is not positive; a difference or the result does not fit.
fn binned(stride: Span, at: i64, origin: i64) -> Answer {
    if stride.months != 0 {
        let what = "timestamps cannot be binned into intervals containing months or years";
        return Err(what.to_owned());
    }
    let days = i64::from(stride.days).checked_mul(MICROS_PER_DAY);
    let stride = days.and_then(|days| days.checked_add(stride.micros));
    let stride = stride
        .filter(|stride| *stride > 0)
        .ok_or("stride must be greater than zero")?;
    let apart = at.checked_sub(origin).ok_or("interval out of range")?;
    let micros = origin.checked_add(apart - apart.rem_euclid(stride));
    calendar::stamp(0, micros.ok_or("timestamp out of range")?).map(Datum::Stamp)
}

/// `make_date`. A negative year is BC. Fails if there is no such date.
fn made(year: i32, month: i32, of_month: i32) -> Answer {
    let out = || format!("date field value out of range: {year}-{month:02}-{of_month:02}");
    // There is no year 0: -1 is 1 BC.
    let astronomical = match year {
        0 => return Err(out()),
        1.. => i64::from(year),
        _ => i64::from(year) + 1,
    };
    let (month, of_month) = (i64::from(month), i64::from(of_month));
    let fits = (1..=12).contains(&month) && (1..=days_in(astronomical, month)).contains(&of_month);
    match fits {
        true => day(days_of(astronomical, month, of_month)),
        false => Err(out()),
    }
}

/// The operators `+`, `-` and `*`.
#[expect(clippy::too_many_lines, reason = "a list of entries, and no steps")]
fn differences() -> Vec<Entry> {
    use Datum::{Date, Int, Span as Interval, Stamp};
    vec![
        rows(
            "+",
            &[D, Kind::Int],
            D,
            body!([Date(a), Int(b)] => day(i64::from(*a) + i64::from(*b))),
        ),
        rows(
            "+",
            &[Kind::Int, D],
            D,
            body!([Int(b), Date(a)] => day(i64::from(*a) + i64::from(*b))),
        ),
        rows(
            "-",
            &[D, Kind::Int],
            D,
            body!([Date(a), Int(b)] => day(i64::from(*a) - i64::from(*b))),
        ),
        rows(
            "-",
            &[D, D],
            Kind::Int,
            body!([Date(a), Date(b)] => {
                a.checked_sub(*b).map(Int).ok_or_else(|| "integer out of range".to_owned())
            }),
        ),
        rows(
            "+",
            &[D, S],
            T,
            body!([Date(a), Interval(b)] => {
                moved(calendar::stamp(i64::from(*a), 0)?, *b)
            }),
        ),
        rows(
            "+",
            &[S, D],
            T,
            body!([Interval(b), Date(a)] => {
                moved(calendar::stamp(i64::from(*a), 0)?, *b)
            }),
        ),
        rows(
            "-",
            &[D, S],
            T,
            body!([Date(a), Interval(b)] => {
                moved(calendar::stamp(i64::from(*a), 0)?, negated(*b)?)
            }),
        ),
        rows(
            "+",
            &[T, S],
            T,
            body!([Stamp(a), Interval(b)] => moved(*a, *b)),
        ),
        rows(
            "+",
            &[S, T],
            T,
            body!([Interval(b), Stamp(a)] => moved(*a, *b)),
        ),
        rows(
            "-",
            &[T, S],
            T,
            body!([Stamp(a), Interval(b)] => moved(*a, negated(*b)?)),
        ),
        rows(
            "+",
            &[Z, S],
            Z,
            body!([Stamp(a), Interval(b)] => moved(*a, *b)),
        ),
        rows(
            "+",
            &[S, Z],
            Z,
            body!([Interval(b), Stamp(a)] => moved(*a, *b)),
        ),
        rows(
            "-",
            &[Z, S],
            Z,
            body!([Stamp(a), Interval(b)] => moved(*a, negated(*b)?)),
        ),
        rows(
            "-",
            &[T, T],
            S,
            body!([Stamp(a), Stamp(b)] => apart(*a, *b)),
        ),
        rows(
            "-",
            &[Z, Z],
            S,
            body!([Stamp(a), Stamp(b)] => apart(*a, *b)),
        ),
        rows(
            "+",
            &[S, S],
            S,
            body!([Interval(a), Interval(b)] => added(*a, *b)),
        ),
        rows(
            "-",
            &[S, S],
            S,
            body!([Interval(a), Interval(b)] => added(*a, negated(*b)?)),
        ),
        rows(
            "-",
            &[S],
            S,
            body!([Interval(a)] => negated(*a).map(Interval)),
        ),
        rows(
            "*",
            &[S, Kind::Int],
            S,
            body!([Interval(a), Int(n)] => times(*a, *n)),
        )
        .narrower(),
        rows(
            "*",
            &[Kind::Int, S],
            S,
            body!([Int(n), Interval(a)] => times(*a, *n)),
        )
        .narrower(),
    ]
}

/// The operator `AT TIME ZONE`.
pub(crate) const AT_TIME_ZONE: &str = "AT TIME ZONE";

/// The functions of timestamps, and `AT TIME ZONE`.
///
/// `AT TIME ZONE` is [`narrower`](Entry::narrower): it knows whole zone names and the years 1900 to
/// 2098.
#[expect(clippy::too_many_lines, reason = "a list of entries, and no steps")]
fn others() -> Vec<Entry> {
    use Datum::{Int, Span as Interval, Stamp, Text};
    const I: Kind = Kind::Int;
    let interval = "date_trunc of an interval is not supported in views yet";
    let in_zone = "date_trunc in a time zone is not supported in views yet: write \
                   date_trunc(unit, moment AT TIME ZONE 'zone')";
    vec![
        rows(
            "date_trunc",
            &[X, T],
            T,
            body!([Text(unit), Stamp(at)] => truncated(unit, *at)),
        ),
        rows(
            "date_trunc",
            &[X, Z],
            Z,
            body!([Text(unit), Stamp(at)] => truncated(unit, *at)),
        ),
        Entry::new(
            "date_trunc",
            &[X, S],
            Gives::Kind(S),
            Body::Refused(interval),
        ),
        Entry::new(
            "date_trunc",
            &[X, Z, X],
            Gives::Kind(Z),
            Body::Refused(in_zone),
        ),
        rows(
            "date_bin",
            &[S, T, T],
            T,
            body!([Interval(stride), Stamp(at), Stamp(origin)] => {
                binned(*stride, *at, *origin)
            }),
        ),
        rows(
            "date_bin",
            &[S, Z, Z],
            Z,
            body!([Interval(stride), Stamp(at), Stamp(origin)] => {
                binned(*stride, *at, *origin)
            }),
        ),
        rows(
            "make_date",
            &[I, I, I],
            D,
            body!([Int(y), Int(m), Int(d)] => made(*y, *m, *d)),
        ),
        rows(
            AT_TIME_ZONE,
            &[T, X],
            Z,
            body!([Stamp(at), Text(zone)] => {
                zones::universal(*at, zone).map(Stamp)
            }),
        )
        .narrower(),
        rows(
            AT_TIME_ZONE,
            &[Z, X],
            T,
            body!([Stamp(at), Text(zone)] => {
                zones::local(*at, zone).map(Stamp)
            }),
        )
        .narrower(),
    ]
}

/// All entries of this family.
pub(crate) fn entries() -> Vec<Entry> {
    let named = |entry: Entry| match entry.name {
        "date_trunc" | AT_TIME_ZONE => entry.tried(),
        _ => entry,
    };
    let mut entries = differences();
    entries.extend(others().into_iter().map(named));
    entries
}
