//! Named time zones, by the rules of the crate `chrono-tz` (the IANA time zone database).
//!
//! As in PostgreSQL's `DetermineTimeZoneOffset`, a local time that is skipped by a change to summer
//! time has the offset from before the change. A local time that occurs twice has the offset from
//! after the change.

use chrono::{DateTime, MappedLocalTime, NaiveDateTime, Offset, TimeDelta, TimeZone};
use chrono_tz::Tz;

use super::calendar::{MICROS_PER_SECOND, moment};

/// The years for which the crate has the rules. For other years it would extrapolate.
const YEARS: std::ops::RangeInclusive<i64> = 1900..=2098;

/// A zone by its whole name. Abbreviations are refused, because PostgreSQL has a list of its own
/// for them.
///
/// A whole name contains a slash (`Europe/Berlin`) or is `UTC`.
///
/// # Errors
/// The name is an abbreviation (`CET`), an offset (`+02`), or not in the database.
fn zone(name: &str) -> Result<Tz, String> {
    let whole = name.contains('/') || name == "UTC";
    let known = whole.then(|| name.parse().ok()).flatten();
    known.ok_or_else(|| {
        format!("time zone \"{name}\" is not known: write its whole name, as in 'Europe/Berlin'")
    })
}

/// A time whose year has known rules.
fn known(micros: i64, zone: Tz) -> Result<NaiveDateTime, String> {
    let year = moment(micros).date.year;
    let time = DateTime::from_timestamp_micros(micros).map(|time| time.naive_utc());
    let fits = YEARS.contains(&year) || zone == Tz::UTC;
    time.filter(|_| fits).ok_or_else(|| {
        format!(
            "the rules of time zone {zone} are known from {} to {}",
            YEARS.start(),
            YEARS.end()
        )
    })
}

/// An offset in microseconds.
fn offset(seconds: i32) -> i64 {
    i64::from(seconds) * MICROS_PER_SECOND
}

/// The local time of a time in UTC, both in microseconds since 1970.
///
/// # Errors
/// The zone is not known, or the year is outside of [`YEARS`].
pub(crate) fn local(micros: i64, name: &str) -> Result<i64, String> {
    let zone = zone(name)?;
    let at = zone.offset_from_utc_datetime(&known(micros, zone)?);
    Ok(micros + offset(at.fix().local_minus_utc()))
}

/// The time in UTC of a local time, both in microseconds since 1970.
///
/// # Errors
/// The zone is not known, or the year is outside of [`YEARS`].
pub(crate) fn universal(micros: i64, name: &str) -> Result<i64, String> {
    let zone = zone(name)?;
    let time = known(micros, zone)?;
    let seconds = match zone.offset_from_local_datetime(&time) {
        MappedLocalTime::Single(found) => found.fix().local_minus_utc(),
        MappedLocalTime::Ambiguous(_, after) => after.fix().local_minus_utc(),
        MappedLocalTime::None => {
            let before = time.checked_sub_signed(TimeDelta::hours(30));
            let before = before.ok_or("timestamp out of range")?;
            zone.offset_from_utc_datetime(&before)
                .fix()
                .local_minus_utc()
        }
    };
    Ok(micros - offset(seconds))
}
