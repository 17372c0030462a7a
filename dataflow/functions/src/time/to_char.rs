//! `to_char` of timestamps, by PostgreSQL's template patterns. Source: its `formatting.c`.
//!
//! Input: a template and a timestamp in microseconds. Output: text with English names. [`pieces`]
//! also serves [`super::to_date`].
//!
//! | kind of pattern | patterns |
//! |---|---|
//! | year | `Y,YYY` `YYYY` `YYY` `YY` `Y`, ISO: `IYYY` `IYY` `IY` `I`, century: `CC` |
//! | month | `MM` `MON` `MONTH` `RM` |
//! | day | `DD` `DDD` `D` `DY` `DAY`, ISO: `ID` `IDDD`, Julian: `J` |
//! | week, quarter | `WW` `W` `IW` `Q` |
//! | time | `HH24` `HH12` `HH` `MI` `SS` `MS` `US` `FF1` to `FF6` `SSSS` `SSSSS` `AM` `PM` |
//! | era, zone | `AD` `BC` `TZ` `TZH` `TZM` `OF` |
//! | modifiers | `FM` before a pattern (no padding), `TH` after a number (ordinal) |
//!
//! Text in double quotes is copied. `TM` and `SP` are refused.

use crate::entry::{Answer, Body, Entry, Gives, Kind, body, rows};
use crate::value::calendar;
use crate::value::calendar::{MICROS_PER_SECOND, Moment, days_of, moment};
use crate::value::datum::Datum;

/// Names of the months, in order.
pub(crate) const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
/// Names of the days of the week, from Sunday.
const DAYS: [&str; 7] = [
    "Sunday",
    "Monday",
    "Tuesday",
    "Wednesday",
    "Thursday",
    "Friday",
    "Saturday",
];
/// Roman numbers of the months, for the pattern `RM`.
const ROMAN: [&str; 12] = [
    "I", "II", "III", "IV", "V", "VI", "VII", "VIII", "IX", "X", "XI", "XII",
];

/// The template patterns. A longer pattern is before the patterns that it begins with.
const PATTERNS: [&str; 53] = [
    "A.D.", "A.M.", "AD", "AM", "B.C.", "BC", "CC", "DAY", "DDD", "DD", "DY", "D", "FF1", "FF2",
    "FF3", "FF4", "FF5", "FF6", "FX", "HH24", "HH12", "HH", "IDDD", "ID", "IW", "IYYY", "IYY",
    "IY", "I", "J", "MI", "MM", "MONTH", "MON", "MS", "OF", "P.M.", "PM", "Q", "RM", "SSSSS",
    "SSSS", "SS", "TZH", "TZM", "TZ", "US", "WW", "W", "Y,YYY", "YYYY", "YYY", "YY",
];

/// One element of a template.
pub(crate) enum Piece<'a> {
    /// A pattern.
    Pattern {
        /// The pattern in upper case.
        name: &'static str,
        /// The pattern as it is written, whose case may matter.
        written: &'a str,
        /// Whether `FM` is before it: no padding.
        bare: bool,
    },
    /// A character that is copied.
    Literal(char),
}

/// The pattern at the start of `rest`, in upper case and as written. The case of names of days and
/// months has a meaning, so these patterns have three cases. The others have upper or lower case.
///
/// None if no pattern begins here, so the character is a literal.
fn pattern(rest: &str) -> Option<(&'static str, &str)> {
    let all = PATTERNS.iter().copied().chain(["Y"]);
    all.filter_map(|name| Some((name, rest.get(..name.len())?)))
        .find(|(name, written)| {
            let mixed = matches!(*name, "DAY" | "DY" | "MONTH" | "MON");
            let capital = written
                .chars()
                .next()
                .is_some_and(|c| c.is_ascii_uppercase());
            let small = written.to_ascii_lowercase();
            *written == *name
                || (*written == small && name.to_ascii_lowercase() == small)
                || (mixed
                    && capital
                    && written.eq_ignore_ascii_case(name)
                    && written.get(1..) == small.get(1..))
        })
}

/// Splits a template into its elements.
///
/// # Errors
/// The template has an element that PostgreSQL knows and Tidemill does not (TM, SP).
pub(crate) fn pieces(template: &str) -> Result<Vec<Piece<'_>>, String> {
    let mut pieces = Vec::new();
    let mut rest = template;
    let mut bare = false;
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix("FM").or_else(|| rest.strip_prefix("fm")) {
            (bare, rest) = (true, after);
            continue;
        }
        if rest.starts_with("TM") || rest.starts_with("tm") {
            return Err("TM in a template is not supported: names are English".to_owned());
        }
        if let Some((name, written)) = pattern(rest) {
            rest = rest.get(name.len()..).unwrap_or_default();
            pieces.push(Piece::Pattern {
                name,
                written,
                bare,
            });
            bare = false;
            if rest.starts_with("SP") {
                return Err("SP in a template is not supported".to_owned());
            }
            continue;
        }
        let mut chars = rest.chars();
        match chars.next() {
            Some('"') => {
                while let Some(c) = chars.next() {
                    match c {
                        '"' => break,
                        '\\' => pieces.extend(chars.next().map(Piece::Literal)),
                        c => pieces.push(Piece::Literal(c)),
                    }
                }
            }
            Some('\\') if chars.as_str().starts_with('"') => {
                pieces.extend(chars.next().map(Piece::Literal));
            }
            Some(c) => pieces.push(Piece::Literal(c)),
            None => {}
        }
        bare = false;
        rest = chars.as_str();
    }
    Ok(pieces)
}

/// The ending of an ordinal number: `st`, `nd`, `rd`, `th`.
///
/// 11, 12 and 13 end in `th`.
fn ordinal(number: i64, small: bool) -> &'static str {
    let ending = match (number.abs() % 100, number.abs() % 10) {
        (11..=13, _) => 0,
        (_, last @ 1..=3) => last,
        _ => 0,
    };
    match (ending, small) {
        (1, true) => "st",
        (2, true) => "nd",
        (3, true) => "rd",
        (_, true) => "th",
        (1, false) => "ST",
        (2, false) => "ND",
        (3, false) => "RD",
        (_, false) => "TH",
    }
}

/// A name in the case in which its pattern is written.
///
/// `MONTH` gives upper case, `Month` the name as it is, and `month` lower case.
fn cased(name: &str, written: &str) -> String {
    let upper = |at: usize| {
        written
            .chars()
            .nth(at)
            .is_some_and(|c| c.is_ascii_uppercase())
    };
    match (upper(0), upper(1)) {
        (true, true) => name.to_uppercase(),
        (true, false) => name.to_owned(),
        _ => name.to_lowercase(),
    }
}

/// A numeric pattern: its value, and the width to which zeros are put in front. None for others.
///
/// A year BC is written as its positive number; the pattern `BC` tells it apart.
fn number(name: &str, now: &Moment) -> Option<(i64, usize)> {
    let date = now.date;
    let second = now.time / MICROS_PER_SECOND;
    let micros = now.time % MICROS_PER_SECOND;
    let year = if date.year > 0 {
        date.year
    } else {
        1 - date.year
    };
    let (iso, week) = calendar::iso_week(now.days);
    let iso = if iso > 0 { iso } else { 1 - iso };
    let of_year = now.days - days_of(date.year, 1, 1) + 1;
    let weekday = calendar::weekday(now.days);
    let iso_weekday = (weekday + 6) % 7 + 1;
    let hour = second / 3600;
    Some(match name {
        "YYYY" => (year, 4),
        "YYY" => (year % 1000, 3),
        "YY" => (year % 100, 2),
        "Y" => (year % 10, 1),
        "IYYY" => (iso, 4),
        "IYY" => (iso % 1000, 3),
        "IY" => (iso % 100, 2),
        "I" => (iso % 10, 1),
        "MM" => (date.month, 2),
        "DD" => (date.day, 2),
        "DDD" => (of_year, 3),
        "IDDD" => ((week - 1) * 7 + iso_weekday, 3),
        "D" => (weekday + 1, 0),
        "ID" => (iso_weekday, 0),
        "HH24" => (hour, 2),
        "HH" | "HH12" => ((hour + 11) % 12 + 1, 2),
        "MI" => (second / 60 % 60, 2),
        "SS" => (second % 60, 2),
        "SSSS" | "SSSSS" => (second, 0),
        "MS" => (micros / 1000, 3),
        "US" | "FF6" => (micros, 6),
        "FF1" => (micros / 100_000, 1),
        "FF2" => (micros / 10_000, 2),
        "FF3" => (micros / 1000, 3),
        "FF4" => (micros / 100, 4),
        "FF5" => (micros / 10, 5),
        "WW" => ((of_year - 1) / 7 + 1, 2),
        "W" => ((date.day - 1) / 7 + 1, 0),
        "IW" => (week, 2),
        "Q" => ((date.month - 1) / 3 + 1, 0),
        "J" => (now.days + calendar::JULIAN_1970, 0),
        "CC" => match date.year > 0 {
            true => ((date.year + 99) / 100, 2),
            false => (date.year / 100 - 1, 3),
        },
        _ => return None,
    })
}

/// A pattern of words: its text, and the width to which blanks are appended. None for others.
///
/// `zone` is true for a timestamptz, whose zone is UTC. For a timestamp, `TZ` is empty, as in
/// PostgreSQL.
fn word(name: &str, written: &str, now: &Moment, zone: bool) -> Option<(String, usize)> {
    let small = written.starts_with(|c: char| c.is_ascii_lowercase());
    let afternoon = now.time >= 12 * 3600 * MICROS_PER_SECOND;
    let pick = |index: i64| usize::try_from(index).unwrap_or(0);
    let month = pick(now.date.month - 1);
    let month_name = MONTHS.get(month).copied().unwrap_or_default();
    let day_name = DAYS
        .get(pick(calendar::weekday(now.days)))
        .copied()
        .unwrap_or_default();
    let either = |text: &str| {
        if small {
            text.to_lowercase()
        } else {
            text.to_owned()
        }
    };
    Some(match name {
        "MONTH" => (cased(month_name, written), 9),
        "MON" => (cased(month_name.get(..3).unwrap_or_default(), written), 0),
        "DAY" => (cased(day_name, written), 9),
        "DY" => (cased(day_name.get(..3).unwrap_or_default(), written), 0),
        "AM" | "PM" => (either(if afternoon { "PM" } else { "AM" }), 0),
        "A.M." | "P.M." => (either(if afternoon { "P.M." } else { "A.M." }), 0),
        "AD" | "BC" => (either(if now.date.year > 0 { "AD" } else { "BC" }), 0),
        "A.D." | "B.C." => (either(if now.date.year > 0 { "A.D." } else { "B.C." }), 0),
        "RM" => (either(ROMAN.get(month).copied().unwrap_or_default()), 4),
        "TZ" if zone => (either("UTC"), 0),
        "TZ" | "FX" => (String::new(), 0),
        "TZH" | "OF" => ("+00".to_owned(), 0),
        "TZM" => ("00".to_owned(), 0),
        _ => return None,
    })
}

/// `to_char`. An empty template gives null, as in PostgreSQL.
///
/// # Errors
/// The template has an element that is not supported.
fn written(template: &str, micros: i64, zone: bool) -> Answer {
    if template.is_empty() {
        return Ok(Datum::Null);
    }
    let now = moment(micros);
    let mut text = String::new();
    let pieces = pieces(template)?;
    let mut pieces = pieces.iter().peekable();
    let mut suffix: Option<i64>;
    while let Some(piece) = pieces.next() {
        suffix = None;
        match piece {
            Piece::Literal(c) => text.push(*c),
            Piece::Pattern { name: "Y,YYY", .. } => {
                let year = if now.date.year > 0 {
                    now.date.year
                } else {
                    1 - now.date.year
                };
                text.push_str(&format!("{},{:03}", year / 1000, year % 1000));
                suffix = Some(year);
            }
            Piece::Pattern {
                name,
                written,
                bare,
            } => {
                if let Some((value, width)) = number(name, &now) {
                    // Fractions of a second keep their zeros, which are not leading zeros.
                    let width = if *bare && !name.starts_with("FF") {
                        0
                    } else {
                        width
                    };
                    text.push_str(&format!("{value:0width$}"));
                    suffix = Some(value);
                } else if let Some((word, width)) = word(name, written, &now, zone) {
                    let width = if *bare { 0 } else { width };
                    text.push_str(&format!("{word:<width$}"));
                }
            }
        }
        // TH after a number is the ending of its ordinal.
        if let (Some(value), Some(Piece::Literal(t @ ('T' | 't')))) = (suffix, pieces.peek()) {
            let mut ahead = pieces.clone();
            ahead.next();
            let h = if *t == 'T' { 'H' } else { 'h' };
            if matches!(ahead.next(), Some(Piece::Literal(c)) if *c == h) {
                text.push_str(ordinal(value, *t == 't'));
                pieces.next();
                pieces.next();
            }
        }
    }
    Ok(Datum::text(text))
}

/// All entries of this family.
///
/// `to_char` of intervals is refused by name. That of numbers is in
/// [`crate::numeric::to_char`].
pub(crate) fn entries() -> Vec<Entry> {
    use Datum::{Stamp, Text};
    const X: Kind = Kind::Text;
    let interval = "to_char of an interval is not supported in views yet";
    let refused = |takes, why| Entry::new("to_char", takes, Gives::Kind(X), Body::Refused(why));
    vec![
        rows(
            "to_char",
            &[Kind::Timestamp, X],
            X,
            body!([Stamp(at), Text(template)] => {
                written(template, *at, false)
            }),
        )
        .tried(),
        rows(
            "to_char",
            &[Kind::Timestamptz, X],
            X,
            body!([Stamp(at), Text(template)] => {
                written(template, *at, true)
            }),
        )
        .tried(),
        refused(&[Kind::Interval, X], interval),
    ]
}
