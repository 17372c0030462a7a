//! Values written as text: exact decimals, dates and timestamps, and excerpts for refusals.

use arrow::array::timezone::Tz;
use arrow::compute::kernels::cast_utils::{Parser, string_to_datetime};
use arrow::datatypes::{DataType, Date32Type};

/// What a column takes, for the text of a refusal.
pub(super) fn expected(kind: &DataType) -> String {
    match kind {
        DataType::Boolean => "true or false".into(),
        DataType::Int32 => "a whole number from -2147483648 to 2147483647".into(),
        DataType::Int64 => "a whole number of 64 bits".into(),
        DataType::Float32 | DataType::Float64 => "a number".into(),
        DataType::Utf8 => "a string".into(),
        DataType::Binary => "a string of bytes".into(),
        DataType::Date32 => "a date as \"YYYY-MM-DD\"".into(),
        DataType::Timestamp(_, _) => "a timestamp".into(),
        DataType::Decimal128(precision, scale) => {
            format!("a decimal of at most {precision} digits, {scale} of them behind the point")
        }
        other => other.to_string(),
    }
}

/// The beginning of a value, at most 60 characters, for the reason in a dead letter.
pub(super) fn excerpt(text: &str) -> String {
    const MOST: usize = 60;
    match text.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}

/// The days since 1970-01-01 of a date `YYYY-MM-DD`; no other form is accepted.
pub(super) fn date(text: &str) -> Option<i32> {
    let shaped = text.len() == 10
        && text.bytes().enumerate().all(|(index, byte)| match index {
            4 | 7 => byte == b'-',
            _ => byte.is_ascii_digit(),
        });
    shaped.then(|| Date32Type::parse(text)).flatten()
}

/// The µs since 1970-01-01 of an ISO 8601 timestamp. Without an offset the timestamp is in UTC.
pub(super) fn timestamp(text: &str, utc: &Tz) -> Option<i64> {
    let at = string_to_datetime(utc, text).ok()?;
    // More than six decimals are rounded, as PostgreSQL does.
    let (whole, rest) = (at.timestamp_micros(), at.timestamp_subsec_nanos() % 1000);
    whole.checked_add(i64::from(rest > 500 || (rest == 500 && whole % 2 != 0)))
}

/// UTC, for [`timestamp`]. It is parsed once, and not for each record.
pub(super) fn utc() -> Option<Tz> {
    "+00:00".parse().ok()
}

/// The unscaled value of a decimal number at `scale`. `None` if digits would be lost, the number
/// has more than `precision` digits, or the text is not a number.
pub(super) fn decimal(text: &str, precision: u8, scale: i8) -> Option<i128> {
    let (negative, unsigned) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i64>().ok()?),
        None => (unsigned, 0),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let mut value: i128 = 0;
    // Zeros are held back, so that `1000e-3` and `0.5000` do not overflow or lose digits.
    let mut zeros: i64 = 0;
    for byte in whole.bytes().chain(fraction.bytes()) {
        match byte {
            b'0' => zeros += 1,
            b'1'..=b'9' => {
                let shifted = power(zeros + 1).and_then(|ten| value.checked_mul(ten));
                value = match value {
                    0 => 0,
                    _ => shifted?,
                };
                value = value.checked_add(i128::from(byte - b'0'))?;
                zeros = 0;
            }
            _ => return None,
        }
    }
    if value == 0 {
        return Some(0);
    }
    // The number is value × 10^zeros; the point is before the fraction's digits.
    let behind = i64::try_from(fraction.len()).ok()?;
    let shift = exponent
        .checked_sub(behind)?
        .checked_add(i64::from(scale))?
        .checked_add(zeros)?;
    let value = value.checked_mul(power(shift)?)?;
    in_precision(if negative { -value } else { value }, precision)
}

/// The value, if it has at most `precision` digits.
pub(super) fn in_precision(value: i128, precision: u8) -> Option<i128> {
    (value.unsigned_abs() < power(i64::from(precision))?.unsigned_abs()).then_some(value)
}

/// A value at scale `from` moved to scale `to`; `None` if digits would be lost.
pub(super) fn rescale(value: i128, from: i64, to: i64) -> Option<i128> {
    let shift = to.checked_sub(from)?;
    if shift >= 0 {
        if value == 0 {
            return Some(0);
        }
        return value.checked_mul(power(shift)?);
    }
    let divisor = match power(-shift) {
        Some(divisor) => divisor,
        None => return (value == 0).then_some(0),
    };
    (value % divisor == 0).then_some(value / divisor)
}

/// A power of ten; `None` if it does not fit.
fn power(exponent: i64) -> Option<i128> {
    10_i128.checked_pow(u32::try_from(exponent).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_are_exact_or_nothing() {
        assert_eq!(decimal("0.1", 38, 2), Some(10));
        assert_eq!(decimal("-12.340", 4, 2), Some(-1234));
        assert_eq!(decimal("1e3", 10, 0), Some(1000));
        assert_eq!(decimal("1000e-3", 1, 0), Some(1));
        assert_eq!(decimal("0.125", 38, 2), None);
        assert_eq!(decimal("100", 2, 0), None);
        assert_eq!(decimal("99999999999999999999999999999999999999", 38, 0), {
            Some(10_i128.pow(38) - 1)
        });
        assert_eq!(
            decimal("0.00000000000000000000000000000000000000000000", 3, 1),
            Some(0)
        );
        assert_eq!(decimal("1e999999999999", 38, 2), None);
        for bad in ["", ".", "-", "1x", "e5", "1e", "--1"] {
            assert_eq!(decimal(bad, 38, 2), None, "{bad}");
        }
    }

    #[test]
    fn rescaling_loses_no_digit() {
        assert_eq!(rescale(1230, 3, 2), Some(123));
        assert_eq!(rescale(1231, 3, 2), None);
        assert_eq!(rescale(5, 0, 3), Some(5000));
        assert_eq!(rescale(i128::MAX, 0, 1), None);
    }

    #[test]
    fn dates_and_timestamps() {
        let utc = utc().unwrap();
        assert_eq!(date("1970-01-02"), Some(1));
        assert_eq!(date("2023-02-29"), None);
        assert_eq!(date("1970-1-2"), None);
        assert_eq!(timestamp("1970-01-01T00:00:01.5Z", &utc), Some(1_500_000));
        assert_eq!(timestamp("1970-01-01T01:00:00+01:00", &utc), Some(0));
        assert_eq!(timestamp("1970-01-01 00:00:01", &utc), Some(1_000_000));
        assert_eq!(timestamp("yesterday", &utc), None);
    }
}
