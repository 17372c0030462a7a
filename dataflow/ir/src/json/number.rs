//! Numbers of JSON: decimals of any number of digits, as PostgreSQL's `numeric` keeps them.

use std::cmp::Ordering;

/// Digits before or after the point of a number in a document; one with more fails its row.
pub(super) const NUMBER_DIGITS_MAX: usize = 1000;

/// A number in decimal notation without an exponent, with the digits after the point that
/// `numeric_in` keeps.
#[derive(Debug, Clone)]
pub struct Number(String);

impl Number {
    /// Reads a number: digits, a point, an exponent.
    ///
    /// # Errors
    /// It is no number, or has more than [`NUMBER_DIGITS_MAX`] digits before or after the point.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = || format!("invalid input syntax for type numeric: \"{text}\"");
        let many = || format!("a number of more than {NUMBER_DIGITS_MAX} digits in a document");
        let (sign, unsigned) = match text.strip_prefix('-') {
            Some(unsigned) => ("-", unsigned),
            None => ("", text.strip_prefix('+').unwrap_or(text)),
        };
        let (mantissa, exponent) = unsigned.split_once(['e', 'E']).unwrap_or((unsigned, "0"));
        let (whole, part) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let digits = format!("{whole}{part}");
        if digits.is_empty() || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
            return Err(wrong());
        }
        let exponent: i32 = exponent.parse().map_err(|_| many())?;
        let limit = NUMBER_DIGITS_MAX.cast_signed();
        let exponent = isize::try_from(exponent).map_err(|_| many())?;
        let point = whole.len().cast_signed().saturating_add(exponent);
        let scale = (part.len().cast_signed().saturating_sub(exponent)).max(0);
        if point > limit || scale > limit || digits.len() > 2 * NUMBER_DIGITS_MAX {
            return Err(many());
        }
        let at = |place: isize| {
            let digit = usize::try_from(place).ok();
            let digit = digit.and_then(|place| digits.as_bytes().get(place));
            char::from(digit.copied().unwrap_or(b'0'))
        };
        let whole: String = (0..point).map(at).collect();
        let whole = whole.trim_start_matches('0');
        let whole = if whole.is_empty() { "0" } else { whole };
        let part: String = (point..point + scale).map(at).collect();
        let zero = digits.bytes().all(|digit| digit == b'0');
        let sign = if zero { "" } else { sign };
        let between = if part.is_empty() { "" } else { "." };
        Ok(Self(format!("{sign}{whole}{between}{part}")))
    }

    /// The number as `numeric_out` writes it.
    pub fn text(&self) -> &str {
        &self.0
    }

    /// The order of two numbers. Zeros at the end do not count.
    pub fn compare(&self, other: &Self) -> Ordering {
        let (one, two) = (self.parts(), other.parts());
        match (self.0.starts_with('-'), other.0.starts_with('-')) {
            (false, true) => Ordering::Greater,
            (true, false) => Ordering::Less,
            (false, false) => magnitude(one, two),
            (true, true) => magnitude(two, one),
        }
    }

    /// The digits before the point and those after it, without zeros at the end.
    fn parts(&self) -> (&str, &str) {
        let unsigned = self.0.trim_start_matches('-');
        let (whole, part) = unsigned.split_once('.').unwrap_or((unsigned, ""));
        (whole, part.trim_end_matches('0'))
    }
}

/// The order of two numbers without signs.
fn magnitude(one: (&str, &str), other: (&str, &str)) -> Ordering {
    let whole = one.0.len().cmp(&other.0.len());
    whole.then(one.0.cmp(other.0)).then(one.1.cmp(other.1))
}
