//! Exact decimals, with PostgreSQL's rounding (its `utils/adt/numeric.c`).

use arrow::datatypes::i256;

/// The most digits that a numeric holds here.
pub(super) const DIGITS: u8 = 38;
/// Digits after the point of a quotient of numerics, unless an operand has more.
pub(super) const QUOTIENT_SCALE: i8 = 24;

/// A decimal: `digits` × 10^-`scale`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Num {
    pub(super) digits: i128,
    pub(super) scale: i32,
}

pub(super) fn overflow() -> String {
    "value overflows numeric format: it has more than 38 digits".to_owned()
}

pub(super) fn power_of_ten(exponent: i32) -> Option<i128> {
    10i128.checked_pow(u32::try_from(exponent).ok()?)
}

pub(super) fn wide_power(exponent: i32) -> i256 {
    let exponent = u32::try_from(exponent).unwrap_or(0);
    i256::from_i128(10)
        .checked_pow(exponent)
        .unwrap_or(i256::MAX)
}

/// Division of integers that rounds half away from zero.
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
    pub(super) const fn new(digits: i128, scale: i32) -> Self {
        Self { digits, scale }
    }

    /// Rounds half away from zero to `scale` digits after the point, which may be negative; the
    /// result has at least scale 0.
    pub(super) fn rounded(self, scale: i32) -> Result<Self, String> {
        self.cut(scale, divided)
    }

    /// The same towards zero.
    pub(super) fn truncated(self, scale: i32) -> Result<Self, String> {
        self.cut(scale, |value, by| value.checked_div(by))
    }

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

    /// The digits at another scale, which may only add or drop zeros.
    pub(super) fn fitted(self, precision: u8, scale: i32) -> Result<i128, String> {
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

    /// Two numbers at the greater of their scales.
    fn aligned(self, other: Self) -> (i256, i256, i32) {
        let scale = self.scale.max(other.scale);
        let at = |num: Self| wide(num.digits).wrapping_mul(wide_power(scale - num.scale));
        (at(self), at(other), scale)
    }

    pub(super) fn compare(self, other: Self) -> std::cmp::Ordering {
        let (one, two, _) = self.aligned(other);
        one.cmp(&two)
    }

    pub(super) fn add(self, other: Self) -> Result<Self, String> {
        let (one, two, scale) = self.aligned(other);
        narrow(one.checked_add(two), scale)
    }

    pub(super) fn negated(self) -> Self {
        Self::new(-self.digits, self.scale)
    }

    pub(super) fn multiply(self, other: Self) -> Result<Self, String> {
        let product = wide(self.digits).checked_mul(wide(other.digits));
        narrow(product, self.scale + other.scale)
    }

    /// `numeric_div`: as many digits as `select_div_scale` says.
    pub(super) fn divide(self, other: Self) -> Result<Self, String> {
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
        // More digits than fit are kept when they are zeros.
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

    pub(super) fn remainder(self, other: Self) -> Result<Self, String> {
        if other.digits == 0 {
            return Err("division by zero".to_owned());
        }
        let (one, two, scale) = self.aligned(other);
        narrow(one.checked_rem(two), scale)
    }

    /// The largest integer that is not greater (`up` is false), or the smallest not less.
    pub(super) fn integral(self, up: bool) -> Result<Self, String> {
        let whole = self.truncated(0)?;
        match whole.compare(self) {
            std::cmp::Ordering::Less if up => whole.add(Self::new(1, 0)),
            std::cmp::Ordering::Greater if !up => whole.add(Self::new(-1, 0)),
            _ => Ok(whole),
        }
    }

    /// The text of `numeric_out`.
    pub(super) fn text(self) -> String {
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

    pub(super) fn double(self) -> f64 {
        self.text().parse().unwrap_or(f64::NAN)
    }

    pub(super) fn real(self) -> f32 {
        self.text().parse().unwrap_or(f32::NAN)
    }

    /// The integer nearest, half away from zero.
    pub(super) fn integer(self) -> Result<i128, String> {
        Ok(self.rounded(0)?.digits)
    }
}

fn wide(digits: i128) -> i256 {
    i256::from_i128(digits)
}

fn narrow(digits: Option<i256>, scale: i32) -> Result<Num, String> {
    let digits = digits.and_then(i256::to_i128).ok_or_else(overflow)?;
    Ok(Num::new(digits, scale))
}

/// Where PostgreSQL's first digit, one of base 10000, stands and what it is.
pub(super) fn first_digit(num: Num) -> (i32, i128) {
    let digits = num.digits.unsigned_abs();
    if digits == 0 {
        return (0, 0);
    }
    // The place of the first decimal digit: 0 for units.
    let place = digits.ilog10().cast_signed() - num.scale;
    let weight = place.div_euclid(4);
    // Scaled so that the group of four starts at the point.
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

/// `select_div_scale` of PostgreSQL: at least 16 significant digits.
pub(super) fn quotient_scale(above: Num, below: Num) -> i32 {
    let ((weight1, first1), (weight2, first2)) = (first_digit(above), first_digit(below));
    let mut weight = weight1 - weight2;
    if first1 <= first2 {
        weight -= 1;
    }
    (16 - weight * 4)
        .max(above.scale)
        .max(below.scale)
        .clamp(0, 1000)
}
