//! Exact numbers in base 2, and their quotients rounded once to a double.

use num_bigint::{BigInt, BigUint, Sign};

/// Bits of the quotient before it is rounded. A double has 53.
const QUOTIENT_BITS: i64 = 66;
/// Bits of a double's mantissa.
const MANTISSA_BITS: i64 = 53;
/// The exponent of the lowest bit of the smallest double.
const LOWEST_EXPONENT: i64 = -1074;

/// `digits` × 2^`exponent`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Exact {
    /// The digits.
    pub(crate) digits: BigInt,
    /// The exponent of the lowest digit.
    pub(crate) exponent: i32,
}

impl From<BigInt> for Exact {
    fn from(digits: BigInt) -> Self {
        Self {
            digits,
            exponent: 0,
        }
    }
}

impl Exact {
    /// The product.
    pub(crate) fn product(&self, other: &Self) -> Self {
        Self {
            digits: &self.digits * &other.digits,
            exponent: self.exponent + other.exponent,
        }
    }

    /// The product with an integer.
    pub(crate) fn times(&self, count: &BigInt) -> Self {
        Self {
            digits: &self.digits * count,
            exponent: self.exponent,
        }
    }

    /// The difference.
    pub(crate) fn minus(&self, other: &Self) -> Self {
        if self.is_zero() {
            return Self {
                digits: -&other.digits,
                exponent: other.exponent,
            };
        }
        if other.is_zero() {
            return self.clone();
        }
        let exponent = self.exponent.min(other.exponent);
        let at = |number: &Self| &number.digits << (number.exponent - exponent);
        Self {
            digits: at(self) - at(other),
            exponent,
        }
    }

    /// Whether the number is 0.
    pub(crate) fn is_zero(&self) -> bool {
        self.digits.sign() == Sign::NoSign
    }

    /// Whether the number is below 0.
    pub(crate) fn is_negative(&self) -> bool {
        self.digits.sign() == Sign::Minus
    }
}

/// The double nearest to `above / below`, ties to even; `None` if it is too large for a double, or
/// `below` is 0.
pub(crate) fn ratio(above: &Exact, below: &Exact) -> Option<f64> {
    if below.is_zero() {
        return None;
    }
    let (mut one, mut other) = (
        above.digits.magnitude().clone(),
        below.digits.magnitude().clone(),
    );
    if above.is_zero() {
        return Some(0.0);
    }
    let bits = |number: &BigUint| i64::try_from(number.bits()).unwrap_or(i64::MAX);
    let shift = QUOTIENT_BITS - (bits(&one) - bits(&other));
    match shift >= 0 {
        true => one <<= shift,
        false => other <<= -shift,
    }
    let (quotient, rest) = (&one / &other, &one % &other);
    let exponent = i64::from(above.exponent) - i64::from(below.exponent) - shift;
    let value = rounded(
        u128::try_from(quotient).ok()?,
        rest != BigUint::ZERO,
        exponent,
    );
    let negative = above.is_negative() != below.is_negative();
    value
        .is_finite()
        .then_some(if negative { -value } else { value })
}

/// The double nearest to `quotient` × 2^`exponent`, or to a number just above it if `more`.
fn rounded(quotient: u128, more: bool, exponent: i64) -> f64 {
    let bits = i64::from(u128::BITS - quotient.leading_zeros());
    // Below the normal range, the lowest bit is fixed, and fewer bits stay.
    let dropped = (bits - MANTISSA_BITS).max(LOWEST_EXPONENT - exponent);
    if dropped > i64::from(u128::BITS) - 2 {
        return 0.0;
    }
    let dropped = dropped.max(0);
    let kept = quotient >> dropped;
    let rest = quotient - (kept << dropped);
    let half = (1_u128 << dropped) / 2;
    let up = match rest.cmp(&half) {
        _ if dropped == 0 => false,
        std::cmp::Ordering::Greater => true,
        std::cmp::Ordering::Equal => more || kept % 2 == 1,
        std::cmp::Ordering::Less => false,
    };
    let mantissa = (kept + u128::from(up)) as f64;
    scaled(mantissa, exponent + dropped)
}

/// `mantissa` × 2^`exponent`, which is a double or too large for one.
fn scaled(mantissa: f64, exponent: i64) -> f64 {
    let step = 2f64.powi(512);
    let (mut value, mut left) = (mantissa, exponent);
    while left > 512 && value.is_finite() {
        value *= step;
        left -= 512;
    }
    while left < -512 && value != 0.0 {
        // Exact, because no bit of the result is below the lowest bit of a double.
        value /= step;
        left += 512;
    }
    value * 2f64.powi(left.clamp(-512, 512) as i32)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tidemill_state::value::float_sum::FloatSum;
    use tidemill_state::value::totals::{Cell, Sum};

    use super::*;

    /// A double as an exact number.
    fn exact(value: f64) -> Exact {
        let mut sum = FloatSum::default();
        sum.add(value, 1);
        let sum = Sum::Float(Box::new(sum));
        let (digits, exponent) = Cell { count: 1, sum }.exact();
        Exact { digits, exponent }
    }

    fn finite() -> impl Strategy<Value = f64> {
        any::<u64>()
            .prop_map(f64::from_bits)
            .prop_filter("finite", |v| v.is_finite())
    }

    proptest! {
        /// A quotient of doubles is rounded once by the processor too.
        #[test]
        fn quotients_are_rounded_as_the_processor_rounds(a in finite(), b in finite()) {
            let expected = Some(a / b).filter(|quotient| quotient.is_finite());
            prop_assume!(b != 0.0);
            prop_assert_eq!(ratio(&exact(a), &exact(b)), expected);
        }

        #[test]
        fn small_quotients_are_rounded_to_subnormals(a in 1e-320..1e-300, b in 1.0..1e12) {
            prop_assert_eq!(ratio(&exact(a), &exact(b)), Some(a / b));
        }
    }

    #[test]
    fn differences_of_numbers_of_two_sizes_are_exact() {
        let difference = exact(1e300).minus(&exact(1e-300));
        assert_eq!(
            difference.minus(&exact(1e300)),
            exact(0.0).minus(&exact(1e-300))
        );
    }
}
