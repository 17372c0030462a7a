//! Calendar arithmetic: days, months and years of the proleptic Gregorian calendar.
//!
//! PostgreSQL uses the same calendar. The functions give the results of its `date2j` and `j2date`,
//! over days since 1970-01-01 instead of Julian days. Years are astronomical: year 0 is 1 BC.
//!
//! Source of the algorithms: `civil_from_days` and `days_from_civil` in "chrono-Compatible
//! Low-Level Date Algorithms" (<https://howardhinnant.github.io/date_algorithms.html>). A year
//! begins on 1 March there, so a leap day is the last day of its year.

/// Microseconds of one second.
pub(crate) const MICROS_PER_SECOND: i64 = 1_000_000;
/// Microseconds of one day. There are no leap seconds.
pub(crate) const MICROS_PER_DAY: i64 = 86_400 * MICROS_PER_SECOND;
/// 1970-01-01 as a Julian day.
pub(crate) const JULIAN_1970: i64 = 2_440_588;
/// The first day that PostgreSQL's dates and timestamps hold: 4714-11-24 BC.
const FIRST_DAY: i64 = -JULIAN_1970;
/// The day after the last one of its dates: 5874898-01-01.
const DATES_END: i64 = 2_147_483_494 - JULIAN_1970;

/// A date in parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Day {
    /// The astronomical year: 0 is 1 BC.
    pub(crate) year: i64,
    /// 1 to 12.
    pub(crate) month: i64,
    /// Day of the month, 1 to 31.
    pub(crate) day: i64,
}

/// A timestamp in parts.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Moment {
    /// The date.
    pub(crate) date: Day,
    /// Days since 1970.
    pub(crate) days: i64,
    /// Microseconds since midnight.
    pub(crate) time: i64,
}

/// The date of a day since 1970.
///
/// 146 097 days are 400 years, and 719 468 days lie between 0000-03-01 and 1970-01-01.
pub(crate) fn date_of(days: i64) -> Day {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let of_era = shifted.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    Day { year, month, day }
}

/// Days since 1970 of a date; the day may be outside its month.
pub(crate) fn days_of(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let from_march = if month > 2 { month - 3 } else { month + 9 };
    let of_year = (153 * from_march + 2) / 5 + day - 1;
    let of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + of_year;
    era * 146_097 + of_era - 719_468
}

/// Whether a year is a leap year.
pub(crate) fn leap(year: i64) -> bool {
    year.rem_euclid(4) == 0 && (year.rem_euclid(100) != 0 || year.rem_euclid(400) == 0)
}

/// The number of days of a month.
pub(crate) fn days_in(year: i64, month: i64) -> i64 {
    match month {
        2 if leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// The parts of a timestamp, which is in microseconds since 1970.
pub(crate) fn moment(micros: i64) -> Moment {
    let days = micros.div_euclid(MICROS_PER_DAY);
    Moment {
        date: date_of(days),
        days,
        time: micros.rem_euclid(MICROS_PER_DAY),
    }
}

/// Day of the week, 0 for Sunday.
pub(crate) fn weekday(days: i64) -> i64 {
    (days + 4).rem_euclid(7)
}

/// The ISO year and week of a day.
///
/// By ISO 8601 a week begins on Monday and belongs to the year in which its Thursday lies.
pub(crate) fn iso_week(days: i64) -> (i64, i64) {
    // The Thursday of the week decides.
    let thursday = days - (weekday(days) + 6).rem_euclid(7) + 3;
    let year = date_of(thursday).year;
    (year, (thursday - days_of(year, 1, 1)) / 7 + 1)
}

/// Checks that a date is in PostgreSQL's range: 4713 BC to 5874897 AD.
///
/// # Errors
/// The date is out of that range.
pub(crate) fn date(days: i64) -> Result<i32, String> {
    let fits = (FIRST_DAY..DATES_END).contains(&days);
    let days = i32::try_from(days).ok().filter(|_| fits);
    days.ok_or_else(|| "date out of range".to_owned())
}

/// A timestamp, in microseconds since 1970, from a day and the microseconds of the day. It must be
/// in PostgreSQL's range and in the range of 64 bits, which ends in the year 294247.
///
/// # Errors
/// The timestamp is out of that range.
pub(crate) fn stamp(days: i64, time: i64) -> Result<i64, String> {
    let micros = i128::from(days) * i128::from(MICROS_PER_DAY) + i128::from(time);
    i64::try_from(micros)
        .ok()
        .filter(|micros| *micros >= FIRST_DAY * MICROS_PER_DAY)
        .ok_or_else(|| "timestamp out of range".to_owned())
}
