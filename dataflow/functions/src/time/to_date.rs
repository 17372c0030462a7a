//! `to_date` and `to_timestamp` with a template, and `to_timestamp` of seconds.
//!
//! PostgreSQL reads almost any text with almost any template. Here the text must have exactly the
//! form of the template: fields of full width and the same separators. Any other text fails its
//! row, with the reason.
//!
//! | input | result |
//! |---|---|
//! | `to_date(text, template)` | date; a time in the text is read and dropped |
//! | `to_timestamp(text, template)` | timestamptz, in UTC |
//! | `to_timestamp(seconds)` | timestamptz; `seconds` is a double precision, since 1970 |
//!
//! A field that the template lacks has its least value: month 1, day 1, 00:00:00. The year is
//! required.

use super::to_char::{MONTHS, Piece, pieces};
use crate::entry::{Answer, Entry, Kind, body, rows};
use crate::value::calendar;
use crate::value::calendar::{MICROS_PER_SECOND, days_in, days_of};
use crate::value::datum::Datum;

/// The values of the fields of a text.
#[derive(Default)]
struct Fields {
    /// `YYYY`, 1 to 9999.
    year: Option<i64>,
    /// 1 to 12.
    month: Option<i64>,
    /// Day of the month.
    day: Option<i64>,
    /// The hour as written.
    hour: i64,
    /// 0 to 59.
    minute: i64,
    /// 0 to 59.
    second: i64,
    /// Microseconds within the second.
    micros: i64,
    /// Whether the hour is written on the clock of twelve hours.
    twelve: bool,
    /// Whether PM is written; None if neither AM nor PM is.
    afternoon: Option<bool>,
}

/// A number of exactly `width` digits, or of at most `width` digits if no digit follows; and the
/// rest of the text.
///
/// None if there is no such number.
fn digits(text: &str, width: usize, exact: bool) -> Option<(i64, &str)> {
    let found = text
        .bytes()
        .take(width)
        .take_while(u8::is_ascii_digit)
        .count();
    let (number, rest) = text.split_at_checked(found)?;
    let fits = found > 0 && (!exact || found == width);
    let more = rest.starts_with(|c: char| c.is_ascii_digit());
    (fits && (exact || !more)).then(|| Some((number.parse().ok()?, rest)))?
}

/// A month by its name, or by the first three letters (`short`), in any case; and the rest of the
/// text.
fn month(text: &str, short: bool) -> Option<(i64, &str)> {
    for (name, number) in MONTHS.iter().zip(1..) {
        let name = if short { name.get(..3)? } else { name };
        if let Some(start) = text.get(..name.len())
            && start.eq_ignore_ascii_case(name)
        {
            return Some((number, text.get(name.len()..)?));
        }
    }
    None
}

impl Fields {
    /// Reads the field of one pattern. Returns the rest of the text, or None if the text has
    /// another form.
    ///
    /// `last` says whether no pattern follows directly. Only then may the field have fewer digits
    /// than its full width, because otherwise the next field would begin at a place that PostgreSQL
    /// and Tidemill might see differently.
    fn take<'a>(&mut self, name: &str, text: &'a str, last: bool) -> Option<&'a str> {
        let wide = |width| digits(text, width, true);
        let narrow = |width| digits(text, width, !last);
        let rest = match name {
            "YYYY" => {
                let (year, rest) = wide(4)?;
                self.year = Some(year);
                rest
            }
            "MM" => {
                let (month, rest) = narrow(2)?;
                self.month = Some(month);
                rest
            }
            "MON" | "MONTH" => {
                let (month, rest) = month(text, name == "MON")?;
                self.month = Some(month);
                rest
            }
            "DD" => {
                let (day, rest) = narrow(2)?;
                self.day = Some(day);
                rest
            }
            "HH24" | "HH12" | "HH" => {
                let (hour, rest) = narrow(2)?;
                (self.hour, self.twelve) = (hour, name != "HH24");
                rest
            }
            "MI" => {
                let (minute, rest) = narrow(2)?;
                self.minute = minute;
                rest
            }
            "SS" => {
                let (second, rest) = narrow(2)?;
                self.second = second;
                rest
            }
            "MS" => {
                let (millis, rest) = wide(3)?;
                self.micros += millis * 1000;
                rest
            }
            "US" => {
                let (micros, rest) = wide(6)?;
                self.micros += micros;
                rest
            }
            "AM" | "PM" => {
                let (half, rest) = text.split_at_checked(2)?;
                self.afternoon = Some(match half.to_ascii_uppercase().as_str() {
                    "AM" => false,
                    "PM" => true,
                    _ => return None,
                });
                rest
            }
            _ => return None,
        };
        Some(rest)
    }

    /// Days since 1970 and microseconds of the day; None if there is no such timestamp.
    ///
    /// None as well if AM or PM is written without an hour of the twelve-hour clock.
    fn moment(&self) -> Option<(i64, i64)> {
        let (year, month, day) = (self.year?, self.month.unwrap_or(1), self.day.unwrap_or(1));
        let date =
            year > 0 && (1..=12).contains(&month) && (1..=days_in(year, month)).contains(&day);
        let hour = match (self.twelve, self.afternoon) {
            (false, None) => self.hour,
            (true, after) if (1..=12).contains(&self.hour) => match after {
                Some(after) => self.hour % 12 + if after { 12 } else { 0 },
                None if self.hour == 12 => 0,
                None => self.hour,
            },
            _ => return None,
        };
        let time = hour < 24 && self.minute < 60 && self.second < 60;
        let seconds = hour * 3600 + self.minute * 60 + self.second;
        (date && time).then(|| {
            (
                days_of(year, month, day),
                seconds * MICROS_PER_SECOND + self.micros,
            )
        })
    }
}

/// Reads a text with a template: days since 1970 and microseconds of the day.
///
/// # Errors
/// The template has an element that is not read, the text has another form, or there is no such
/// date or time.
fn read(text: &str, template: &str) -> Result<(i64, i64), String> {
    let wrong = || {
        format!(
            "\"{text}\" is not exactly of the form \"{template}\"; the patterns that are read are \
             YYYY, MM, Mon, Month, DD, HH24, HH12, MI, SS, MS, US, AM"
        )
    };
    let pieces = pieces(template)?;
    let mut fields = Fields::default();
    let mut rest = text;
    for (index, piece) in pieces.iter().enumerate() {
        rest = match piece {
            Piece::Literal(c) if !c.is_alphanumeric() => rest.strip_prefix(*c).ok_or_else(wrong)?,
            Piece::Pattern {
                name, bare: false, ..
            } => {
                let next = pieces.get(index + 1);
                let last = next.is_none_or(|next| matches!(next, Piece::Literal(_)));
                fields.take(name, rest, last).ok_or_else(wrong)?
            }
            _ => return Err(wrong()),
        };
    }
    if !rest.is_empty() {
        return Err(wrong());
    }
    fields
        .moment()
        .ok_or_else(|| format!("date/time field value out of range: \"{text}\""))
}

/// `to_timestamp` (`float8_timestamptz`): seconds since 1970.
///
/// # Errors
/// The number is NaN or infinite, or the timestamp is out of range.
fn of_seconds(seconds: f64) -> Answer {
    if !seconds.is_finite() {
        return Err("timestamp out of range".to_owned());
    }
    // PostgreSQL rounds to microseconds relative to 2000.
    let micros = (seconds - 946_684_800.0) * 1e6;
    let micros = micros.round_ties_even();
    if micros.abs() >= 9.2e18 {
        return Err("timestamp out of range".to_owned());
    }
    let micros = (micros as i64).checked_add(946_684_800_000_000);
    let micros = micros.ok_or("timestamp out of range")?;
    calendar::stamp(0, micros).map(Datum::Stamp)
}

/// All entries of this family.
pub(crate) fn entries() -> Vec<Entry> {
    use Datum::{Double, Stamp, Text};
    const T: &[Kind] = &[Kind::Text, Kind::Text];
    const Z: Kind = Kind::Timestamptz;
    vec![
        rows(
            "to_date",
            T,
            Kind::Date,
            body!([Text(text), Text(template)] => {
                calendar::date(read(text, template)?.0).map(Datum::Date)
            }),
        )
        .narrower(),
        rows(
            "to_timestamp",
            T,
            Z,
            body!([Text(text), Text(template)] => {
                let (days, time) = read(text, template)?;
                calendar::stamp(days, time).map(Stamp)
            }),
        )
        .narrower(),
        rows(
            "to_timestamp",
            &[Kind::Double],
            Z,
            body!([Double(s)] => of_seconds(*s)),
        ),
    ]
}
