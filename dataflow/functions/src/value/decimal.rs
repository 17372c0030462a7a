//! Exact decimal numbers with PostgreSQL's rounding. Source: its `utils/adt/numeric.c`.
//!
//! A number has at most 38 digits, because columns are Arrow's `Decimal128`. PostgreSQL's numerics
//! have more. Intermediate results have 256 bits; a result that does not fit fails the row.

use arrow::datatypes::i256;
use num_bigint::BigInt;

/// Most digits of a numeric.
pub(crate) const DIGITS: u8 = 38;
/// Digits after the point of a quotient of numerics, unless an operand has more.
pub(crate) const QUOTIENT_SCALE: i8 = 24;

/// Fewest digits after the point of an average, a variance or a quotient. Averages below 1 have 20
/// and more digits in PostgreSQL.
pub(crate) const COMPUTED_SCALE_LEAST: i8 = 20;

/// Whether the number of digits that PostgreSQL gives a numeric depends on its value: a quotient,
/// an average, or what is computed from them. These have all digits that a numeric may have, and at
/// least [`COMPUTED_SCALE_LEAST`] of them after the point. A sum has the digits of its arguments.
pub(crate) fn digits_depend_on_value(precision: u8, scale: i8) -> bool {
    precision == DIGITS && scale >= COMPUTED_SCALE_LEAST
}

/// A decimal number: `digits` × 10^-`scale`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Num {
    /// The digits with their sign, without a point.
    pub(crate) digits: i128,
    /// The number of digits after the point.
    pub(crate) scale: i32,
}

/// The error of a number with too many digits.
pub(crate) fn overflow() -> String {
    "value overflows numeric format: it has more than 38 digits".to_owned()
}

/// 10^`exponent`; None if it does not fit or `exponent` is negative.
pub(crate) fn power_of_ten(exponent: i32) -> Option<i128> {
    10i128.checked_pow(u32::try_from(exponent).ok()?)
}

/// 10^`exponent` in 256 bits; the greatest number if it does not fit.
pub(crate) fn wide_power(exponent: i32) -> i256 {
    let exponent = u32::try_from(exponent).unwrap_or(0);
    i256::from_i128(10)
        .checked_pow(exponent)
        .unwrap_or(i256::MAX)
}

/// Divides integers and rounds half away from zero. None for a division by zero or an overflow.
///
/// Half away from zero is the rounding of PostgreSQL's numerics: 2.5 becomes 3, and -2.5 becomes
/// -3.
fn divided(value: i256, by: i256) -> Option<i256> {
    let quotient = value.checked_div(by)?;
    let rest = value.checked_rem(by)?;
    let twice = rest.checked_abs()?.checked_mul(i256::from_i128(2))?;
    if twice >= by.checked_abs()? {
        let away = if value.is_negative() == by.is_negative() {
            1
        } else {
            -1
        };
        return quotient.checked_add(i256::from_i128(away));
    }
    Some(quotient)
}

impl Num {
    /// `digits` × 10^-`scale`.
    pub(crate) const fn new(digits: i128, scale: i32) -> Self {
        Self { digits, scale }
    }

    /// Rounds half away from zero to `scale` digits after the point. `scale` may be negative; then
    /// the result has the scale 0 and ends in zeros.
    ///
    /// # Errors
    /// The result has too many digits.
    pub(crate) fn rounded(self, scale: i32) -> Result<Self, String> {
        self.cut(scale, divided)
    }

    /// Truncates to `scale` digits after the point, as [`Self::rounded`] rounds.
    ///
    /// # Errors
    /// The result has too many digits.
    pub(crate) fn truncated(self, scale: i32) -> Result<Self, String> {
        self.cut(scale, |value, by| value.checked_div(by))
    }

    /// Changes the number of digits after the point; `divide` drops digits.
    fn cut(self, to: i32, divide: fn(i256, i256) -> Option<i256>) -> Result<Self, String> {
        let shown = to.max(0);
        if to >= self.scale {
            let digits = wide(self.digits).checked_mul(wide_power((to - self.scale).min(76)));
            return narrow(digits, to);
        }
        let off = self.scale - to;
        if off > 76 {
            return Ok(Self::new(0, shown));
        }
        let cut = divide(wide(self.digits), wide_power(off)).ok_or_else(overflow)?;
        narrow(cut.checked_mul(wide_power(shown - to)), shown)
    }

    /// The digits at another scale, if the scale only adds or drops zeros.
    ///
    /// # Errors
    /// A digit that is not 0 would be dropped, or the digits do not fit `precision`.
    pub(crate) fn fitted(self, precision: u8, scale: i32) -> Result<i128, String> {
        let rounded = self.rounded(scale)?;
        if scale < self.scale && rounded.rounded(self.scale)?.digits != self.digits {
            return Err(format!(
                "the exact value has more than {scale} digits after the point, as many as \
                 numeric({precision},{scale}) holds: cast the operands to double precision or to \
                 numerics of fewer digits"
            ));
        }
        let limit = power_of_ten(i32::from(precision)).unwrap_or(i128::MAX);
        if rounded.digits.unsigned_abs() >= limit.unsigned_abs() {
            return Err(format!(
                "numeric field overflow: the value has more digits than \
                 numeric({precision},{scale}) holds"
            ));
        }
        Ok(rounded.digits)
    }

    /// The digits of both numbers at the greater of their scales, and that scale.
    ///
    /// The digits fit 256 bits while both scales are at most 38, as those of columns are.
    fn aligned(self, other: Self) -> (i256, i256, i32) {
        let scale = self.scale.max(other.scale);
        let at = |num: Self| wide(num.digits).wrapping_mul(wide_power(scale - num.scale));
        (at(self), at(other), scale)
    }

    /// The order of two numbers, independent of their scales.
    pub(crate) fn compare(self, other: Self) -> std::cmp::Ordering {
        let (one, two, _) = self.aligned(other);
        one.cmp(&two)
    }

    /// The sum, at the greater scale.
    pub(crate) fn add(self, other: Self) -> Result<Self, String> {
        let (one, two, scale) = self.aligned(other);
        narrow(one.checked_add(two), scale)
    }

    /// The negative number.
    pub(crate) fn negated(self) -> Self {
        Self::new(-self.digits, self.scale)
    }

    /// The product. The scales add up.
    ///
    /// # Errors
    /// The product has more than 38 digits.
    pub(crate) fn multiply(self, other: Self) -> Result<Self, String> {
        let product = wide(self.digits).checked_mul(wide(other.digits));
        narrow(product, self.scale + other.scale)
    }

    /// The quotient (`numeric_div`), with the number of digits that `select_div_scale` gives.
    ///
    /// # Errors
    /// The divisor is 0, or the quotient has more digits than fit and they are not zeros.
    pub(crate) fn divide(self, other: Self) -> Result<Self, String> {
        if other.digits == 0 {
            return Err("division by zero".to_owned());
        }
        let scale = quotient_scale(self, other);
        let shift = scale + other.scale - self.scale;
        let (mut above, mut below) = (wide(self.digits), wide(other.digits));
        if !(-76..=76).contains(&shift) {
            return Err(overflow());
        }
        if shift >= 0 {
            above = above.checked_mul(wide_power(shift)).ok_or_else(overflow)?;
        } else {
            below = below.checked_mul(wide_power(-shift)).ok_or_else(overflow)?;
        }
        let quotient = divided(above, below).ok_or_else(overflow)?;
        // Digits that do not fit are dropped if they are zeros.
        let (mut digits, mut scale) = (quotient, scale);
        let ten = i256::from_i128(10);
        while digits.to_i128().is_none() && scale > 0 {
            if digits.checked_rem(ten) != Some(i256::ZERO) {
                return Err(overflow());
            }
            digits = digits.checked_div(ten).ok_or_else(overflow)?;
            scale -= 1;
        }
        narrow(Some(digits), scale)
    }

    /// The remainder, with the sign of `self` (`numeric_mod`). Fails if `other` is 0.
    pub(crate) fn remainder(self, other: Self) -> Result<Self, String> {
        if other.digits == 0 {
            return Err("division by zero".to_owned());
        }
        let (one, two, scale) = self.aligned(other);
        narrow(one.checked_rem(two), scale)
    }

    /// The largest integer that is not greater (`up` is false), or the smallest that is not less
    /// (`up` is true).
    pub(crate) fn integral(self, up: bool) -> Result<Self, String> {
        let whole = self.truncated(0)?;
        match whole.compare(self) {
            std::cmp::Ordering::Less if up => whole.add(Self::new(1, 0)),
            std::cmp::Ordering::Greater if !up => whole.add(Self::new(-1, 0)),
            _ => Ok(whole),
        }
    }

    /// The text, as `numeric_out` writes it: with all digits of the scale, without an exponent.
    pub(crate) fn text(self) -> String {
        let sign = if self.digits < 0 { "-" } else { "" };
        let digits = self.digits.unsigned_abs().to_string();
        let scale = usize::try_from(self.scale).unwrap_or(0);
        if scale == 0 {
            return format!("{sign}{digits}");
        }
        let digits = format!("{digits:0>width$}", width = scale + 1);
        let (whole, part) = digits.split_at(digits.len() - scale);
        format!("{sign}{whole}.{part}")
    }

    /// The nearest double.
    pub(crate) fn double(self) -> f64 {
        self.text().parse().unwrap_or(f64::NAN)
    }

    /// The nearest real.
    pub(crate) fn real(self) -> f32 {
        self.text().parse().unwrap_or(f32::NAN)
    }

    /// The nearest integer, rounded half away from zero.
    pub(crate) fn integer(self) -> Result<i128, String> {
        Ok(self.rounded(0)?.digits)
    }
}

/// The same digits in 256 bits.
fn wide(digits: i128) -> i256 {
    i256::from_i128(digits)
}

/// A number whose digits must fit 128 bits. None is an overflow.
fn narrow(digits: Option<i256>, scale: i32) -> Result<Num, String> {
    let digits = digits.and_then(i256::to_i128).ok_or_else(overflow)?;
    Ok(Num::new(digits, scale))
}

/// The first digit in PostgreSQL's base 10000: its weight (a power of 10000) and its value.
pub(crate) fn first_digit(num: Num) -> (i32, i128) {
    let digits = num.digits.unsigned_abs();
    if digits == 0 {
        return (0, 0);
    }
    // The decimal place of the first decimal digit: 0 for units.
    let place = digits.ilog10().cast_signed() - num.scale;
    let weight = place.div_euclid(4);
    // Shifted so that the group of four digits begins at the point.
    let shift = num.scale + weight * 4;
    let first = match shift {
        0.. => {
            digits
                / 10u128
                    .checked_pow(shift.unsigned_abs())
                    .unwrap_or(u128::MAX)
        }
        _ => digits * 10u128.pow(shift.unsigned_abs().min(4)),
    };
    (weight, first.cast_signed())
}

/// The scale of a quotient, from PostgreSQL's `select_div_scale`: at least 16 significant digits.
///
/// The weights are in base 10000, in which PostgreSQL stores numerics. The first digits of both
/// operands decide how many digits the quotient has before the point. The scale is at least that of
/// both operands, and at most 1000 (`NUMERIC_MAX_DISPLAY_SCALE`).
pub(crate) fn quotient_scale(above: Num, below: Num) -> i32 {
    let least = above.scale.max(below.scale);
    scale_of(first_digit(above), first_digit(below), least)
}

/// As [`quotient_scale`], of positive numbers of any size, each as its digits and its scale.
pub(crate) fn quotient_scale_of(above: (&BigInt, u32), below: (&BigInt, u32)) -> u32 {
    let first = |(digits, scale): (&BigInt, u32)| {
        let digits = digits.to_string();
        let place = i32::try_from(digits.len()).unwrap_or(i32::MAX) - 1 - scale.cast_signed();
        let count = usize::try_from(place.rem_euclid(4) + 1).unwrap_or(1);
        let group = digits.bytes().chain(std::iter::repeat(b'0')).take(count);
        let first = group.fold(0, |first, digit| first * 10 + i128::from(digit - b'0'));
        (place.div_euclid(4), first)
    };
    let least = above.1.max(below.1).cast_signed();
    scale_of(first(above), first(below), least).unsigned_abs()
}

/// The scale of a quotient from the weights and first digits of the operands, and the greater of
/// their scales.
fn scale_of((weight1, first1): (i32, i128), (weight2, first2): (i32, i128), least: i32) -> i32 {
    let mut weight = weight1 - weight2;
    if first1 <= first2 {
        weight -= 1;
    }
    (16 - weight * 4).max(least).clamp(0, 1000)
}
