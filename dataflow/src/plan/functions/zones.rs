//! Named time zones, by the rules that the library brings along.
//!
//! As in PostgreSQL's `DetermineTimeZoneOffset`, a local time that a change to summer time leaves
//! out is read with the offset before the change, and one that occurs twice with the one after it.

use chrono::{DateTime, MappedLocalTime, NaiveDateTime, Offset, TimeDelta, TimeZone};
use chrono_tz::Tz;

use super::calendar::{MICROS_PER_SECOND, moment};

/// The library's rules are written out for these years; others it would go on guessing.
const YEARS: std::ops::RangeInclusive<i64> = 1900..=2098;

/// A zone by its whole name. Abbreviations are refused: PostgreSQL reads them by a list of its own.
fn zone(name: &str) -> Result<Tz, String> {
    let whole = name.contains('/') || name == "UTC";
    let known = whole.then(|| name.parse().ok()).flatten();
    known.ok_or_else(|| {
        format!("time zone \"{name}\" is not known: write its whole name, as in 'Europe/Berlin'")
    })
}

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

fn offset(seconds: i32) -> i64 {
    i64::from(seconds) * MICROS_PER_SECOND
}

/// The local time of an instant.
pub(super) fn local(micros: i64, name: &str) -> Result<i64, String> {
    let zone = zone(name)?;
    let at = zone.offset_from_utc_datetime(&known(micros, zone)?);
    Ok(micros + offset(at.fix().local_minus_utc()))
}

/// The instant of a local time.
pub(super) fn universal(micros: i64, name: &str) -> Result<i64, String> {
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
