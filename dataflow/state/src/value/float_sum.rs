//! Exact sums of floating-point numbers, independent of order, with exact retractions.
//!
//! A sum is stored as fixed-point digits in base 2³², each in an `i128` with room to spare, over
//! the whole exponent range of `f64`. This is a superaccumulator: Neal, "Fast exact summation using
//! small and large superaccumulators", 2015. Only digits other than zero are stored. Values of
//! similar magnitude use two or three digits. Products are exact too: their digits have places
//! beyond those of values, on both sides.

use num_bigint::{BigInt, Sign};
use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use super::flat::{ByteSink, Flat, Read, Reader};

/// Bits of one digit.
const DIGIT_BITS: i32 = 32;
/// The exponent of the lowest digit's weight. The smallest subnormal number is 2^-1074.
const LOWEST_EXPONENT: i32 = -1088;
/// The place of the digit with the weight 1.
const WHOLE_PLACE: i32 = -LOWEST_EXPONENT / DIGIT_BITS;

/// An exact sum of `f64` values and of their negations.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct FloatSum {
    /// The digits that are not zero, by place, lowest first. Each digit but the highest is in
    /// 0..2³². The highest is in -2³²..2³² (both exclusive), and it is not -1 directly above
    /// another digit. Therefore equal sums have equal digits.
    digits: SmallVec<[(i32, i128); 3]>,
    /// The number of NaN, +∞ and -∞ values, which have no fixed-point form.
    special: [i64; 3],
}

impl Flat for FloatSum {
    const LEAST: usize = 4;

    fn lay(&self, to: &mut impl ByteSink) {
        self.digits.lay(to);
        self.special.iter().for_each(|times| times.lay(to));
    }

    fn read(from: &mut Reader<'_>) -> Read<Self> {
        let digits = Flat::read(from)?;
        let special = [i64::read(from)?, i64::read(from)?, i64::read(from)?];
        Ok(Self { digits, special })
    }
}

impl FloatSum {
    /// Adds `value` `times` times; a negative `times` retracts it.
    pub fn add(&mut self, value: f64, times: i64) {
        if value.is_nan() {
            self.special[0] += times;
        } else if value.is_infinite() {
            self.special[if value > 0.0 { 1 } else { 2 }] += times;
        } else if value != 0.0 {
            let (mantissa, exponent) = decompose(value);
            let shift = exponent - LOWEST_EXPONENT;
            let place = shift / DIGIT_BITS;
            // The shifted mantissa has at most 85 bits. It is split into two digits, so that 43
            // bits of an i128 remain for `times`.
            let wide = mantissa << (shift % DIGIT_BITS);
            let low = wide & i128::from(u32::MAX);
            let high = wide >> DIGIT_BITS;
            self.add_digit(place, low * i128::from(times));
            self.add_digit(place + 1, high * i128::from(times));
            self.carry();
        }
    }

    /// Adds the exact product of `one` and `other` `times` times. Products with infinities and NaN
    /// are left out.
    pub fn add_product(&mut self, one: f64, other: f64, times: i64) {
        if one == 0.0 || other == 0.0 || !one.is_finite() || !other.is_finite() {
            return;
        }
        let ((one, low), (other, high)) = (decompose(one), decompose(other));
        // 106 bits, whose lowest has the weight 2^(low + high).
        let product = one * other;
        let shift = low + high - LOWEST_EXPONENT;
        let (place, shift) = (shift.div_euclid(DIGIT_BITS), shift.rem_euclid(DIGIT_BITS));
        let times = i128::from(times) * product.signum();
        let mut left = product.unsigned_abs();
        for place in place.. {
            if left == 0 {
                break;
            }
            let digit = (left & u128::from(u32::MAX)) << shift;
            self.add_split(place, digit, times);
            left >>= DIGIT_BITS;
        }
        self.carry();
    }

    /// Adds the exact product of two integers `times` times.
    pub fn add_whole_product(&mut self, one: i128, other: i128, times: i64) {
        let product = BigInt::from(one) * other;
        let times = match product.sign() {
            Sign::Minus => -i128::from(times),
            _ => i128::from(times),
        };
        for (place, digit) in (WHOLE_PLACE..).zip(product.iter_u32_digits()) {
            self.add_split(place, u128::from(digit), times);
        }
        self.carry();
    }

    /// Adds a digit of up to 64 bits `times` times, as two digits. An `i128` has room for them.
    fn add_split(&mut self, place: i32, digit: u128, times: i128) {
        let low = (digit & u128::from(u32::MAX)).cast_signed();
        let high = (digit >> DIGIT_BITS).cast_signed();
        self.add_digit(place, low * times);
        self.add_digit(place + 1, high * times);
    }

    /// The sum of the finite values as `digits` × 2^`exponent`.
    pub(crate) fn exact(&self) -> (BigInt, i32) {
        let Some(&(lowest, _)) = self.digits.first() else {
            return (BigInt::ZERO, 0);
        };
        let mut digits = BigInt::ZERO;
        for (place, digit) in &self.digits {
            digits += BigInt::from(*digit) << ((place - lowest) * DIGIT_BITS);
        }
        (digits, LOWEST_EXPONENT + lowest * DIGIT_BITS)
    }

    /// Whether a value is infinite or no number.
    pub(crate) fn is_special(&self) -> bool {
        self.special != [0; 3]
    }

    /// Adds another sum.
    pub(crate) fn merge(&mut self, other: &Self) {
        for (place, digit) in &other.digits {
            self.add_digit(*place, *digit);
        }
        for (mine, theirs) in self.special.iter_mut().zip(other.special) {
            *mine += theirs;
        }
        self.carry();
    }

    /// Whether everything that was added was retracted again.
    pub(crate) fn is_zero(&self) -> bool {
        self.digits.is_empty() && self.special == [0; 3]
    }

    /// The sum, rounded once.
    pub(crate) fn value(&self) -> f64 {
        let [nan, plus, minus] = self.special.map(|n| n != 0);
        if nan || (plus && minus) {
            return f64::NAN;
        }
        if plus || minus {
            return if plus {
                f64::INFINITY
            } else {
                f64::NEG_INFINITY
            };
        }
        let negative = self.digits.last().is_some_and(|(_, digit)| *digit < 0);
        if negative {
            let mut positive = Self::default();
            for (place, digit) in &self.digits {
                positive.add_digit(*place, -digit);
            }
            positive.carry();
            return -positive.rounded();
        }
        self.rounded()
    }

    /// The sum; `None` if finite values add up to more than an `f64` holds. PostgreSQL reports an
    /// error in this case.
    pub(crate) fn ranged(&self) -> Option<f64> {
        let value = self.value();
        (value.is_finite() || self.special != [0; 3]).then_some(value)
    }

    /// The value of a sum that is not negative. The leading bits are taken as one integer, with a
    /// sticky bit for the rest. It is converted once (ties to even), and then scaled by a power of
    /// two.
    fn rounded(&self) -> f64 {
        let Some(&(top, _)) = self.digits.last() else {
            return 0.0;
        };
        // The top digit may be wider than 32 bits. Two more digits give at least 64 bits below it.
        let base = top - 2;
        let mut leading: i128 = 0;
        let mut sticky = false;
        for &(place, digit) in &self.digits {
            if place >= base {
                leading += digit << ((place - base) * DIGIT_BITS);
            } else {
                sticky = true;
            }
        }
        let exponent = LOWEST_EXPONENT + base * DIGIT_BITS;
        // At most 64 significant bits are kept, so that the sticky bit decides only ties.
        let excess = (128 - leading.leading_zeros() as i32 - 64).max(0);
        let mut kept = leading >> excess;
        sticky |= kept << excess != leading;
        // Every sum is a multiple of the smallest subnormal, so results below the normal range are
        // exact here already.
        if sticky {
            kept |= 1;
        }
        scale(kept as f64, exponent + excess)
    }

    /// Adds to the digit at a place. The digit may then be out of its range until `carry`.
    fn add_digit(&mut self, place: i32, digit: i128) {
        if digit == 0 {
            return;
        }
        match self
            .digits
            .binary_search_by_key(&place, |(place, _)| *place)
        {
            Ok(at) => self.digits[at].1 += digit,
            Err(at) => self.digits.insert(at, (place, digit)),
        }
    }

    /// Carries every digit but the highest into 0..2³², and drops zeros.
    fn carry(&mut self) {
        let mut at = 0;
        while at < self.digits.len() {
            let (place, digit) = self.digits[at];
            let rest = digit & i128::from(u32::MAX);
            let over = digit >> DIGIT_BITS;
            let last = at + 1 == self.digits.len();
            // The highest digit keeps its sign. It is carried only when it outgrows its place.
            if over != 0 && (!last || over != -1 || rest == 0) {
                self.digits[at].1 = rest;
                self.add_digit(place + 1, over);
            }
            at += 1;
        }
        self.digits.retain(|(_, digit)| *digit != 0);
        while let [.., (below, digit), (top, -1)] = self.digits[..]
            && top == below + 1
        {
            self.digits.truncate(self.digits.len() - 2);
            self.digits.push((below, digit - (1 << DIGIT_BITS)));
        }
    }
}

/// A sum under construction, for many values in a row. Values of ordinary size (whole numbers below
/// 2⁵² and fractions of at least 2⁻¹²) are added to a single fixed-point number, which is also
/// exact.
#[derive(Debug, Clone, Default)]
pub struct FloatAdder {
    /// The sum of ordinary values, in units of 2⁻⁶⁴.
    near: i128,
    /// The sum of all other values.
    far: Option<Box<FloatSum>>,
}

/// The biased exponent of values whose lowest bit has the weight 2⁻⁶⁴.
const NEAR_LOWEST: u64 = 1075 - 64;
/// The range of exponents above it. The greatest value is then 2¹¹⁶, in units of 2⁻⁶⁴.
const NEAR_SPAN: u64 = 64;
/// The place of the digit with the weight 2⁻⁶⁴.
const NEAR_PLACE: i32 = (-64 - LOWEST_EXPONENT) / DIGIT_BITS;

impl FloatAdder {
    /// Adds `value` `times` times; a negative `times` retracts it.
    #[inline]
    pub fn add(&mut self, value: f64, times: i64) {
        let bits = value.to_bits();
        let shift = ((bits >> 52) & 0x7ff).wrapping_sub(NEAR_LOWEST);
        if shift < NEAR_SPAN && times.unsigned_abs() == 1 {
            let mantissa = i128::from((bits & ((1 << 52) - 1)) | 1 << 52) << shift;
            let signed = if (bits >> 63 == 1) == (times == 1) {
                -mantissa
            } else {
                mantissa
            };
            if let Some(sum) = self.near.checked_add(signed) {
                self.near = sum;
                return;
            }
        }
        self.add_far(value, times);
    }

    /// Adds a value that is not of ordinary size, or more than once.
    #[cold]
    fn add_far(&mut self, value: f64, times: i64) {
        if value != 0.0 {
            self.far.get_or_insert_default().add(value, times);
        }
    }

    /// The exact sum of all values.
    pub fn finish(self) -> FloatSum {
        let mut sum = self.far.map_or_else(FloatSum::default, |far| *far);
        sum.add_digit(NEAR_PLACE, self.near & i128::from(u32::MAX));
        sum.add_digit(NEAR_PLACE + 1, self.near >> DIGIT_BITS);
        sum.carry();
        sum
    }
}

/// A finite `value` as `mantissa × 2^exponent`.
fn decompose(value: f64) -> (i128, i32) {
    let bits = value.to_bits();
    let fraction = i128::from(bits & ((1 << 52) - 1));
    let biased = ((bits >> 52) & 0x7ff) as i32;
    let (mantissa, exponent) = if biased == 0 {
        (fraction, -1074)
    } else {
        (fraction | 1 << 52, biased - 1075)
    };
    (if value < 0.0 { -mantissa } else { mantissa }, exponent)
}

/// `value × 2^exponent` without intermediate overflow or rounding. `value` has at most 65 bits, and
/// the result is representable or overflows to infinity.
fn scale(mut value: f64, mut exponent: i32) -> f64 {
    while exponent > 1000 {
        value *= 2f64.powi(1000);
        exponent -= 1000;
    }
    while exponent < -1000 {
        value *= 2f64.powi(-1000);
        exponent += 1000;
    }
    value * 2f64.powi(exponent)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sum(values: &[f64]) -> FloatSum {
        let mut sum = FloatSum::default();
        values.iter().for_each(|v| sum.add(*v, 1));
        sum
    }

    #[test]
    fn exact_where_naive_sums_are_not() {
        assert_eq!(sum(&[1e100, 1.0, -1e100]).value(), 1.0);
        assert_eq!(sum(&[0.1; 10]).value(), 1.0);
        assert_eq!(sum(&[f64::MAX, f64::MAX, -f64::MAX]).value(), f64::MAX);
        assert_eq!(sum(&[f64::MAX, f64::MAX]).value(), f64::INFINITY);
        assert_eq!(sum(&[5e-324, 5e-324]).value(), 1e-323);
        assert_eq!(sum(&[-0.5, 0.25]).value(), -0.25);
        assert!(sum(&[f64::INFINITY, f64::NEG_INFINITY]).value().is_nan());
        assert!(sum(&[]).is_zero());
    }

    #[test]
    fn infinity_can_be_taken_back() {
        let mut s = sum(&[f64::INFINITY, 2.5]);
        s.add(f64::INFINITY, -1);
        assert_eq!(s.value(), 2.5);
    }

    #[test]
    fn many_great_values_outgrow_the_fixed_point() {
        let most = 2f64.powi(52) - 1.0;
        let mut adder = FloatAdder::default();
        let mut slow = FloatSum::default();
        for _ in 0..5000 {
            adder.add(most, 1);
            slow.add(most, 1);
        }
        assert!(adder.far.is_some());
        assert_eq!(adder.finish(), slow);
    }

    fn finite() -> impl Strategy<Value = f64> {
        any::<u64>()
            .prop_map(f64::from_bits)
            .prop_filter("finite", |v| v.is_finite())
    }

    proptest! {
        #[test]
        fn one_value_comes_back(v in finite()) {
            prop_assert_eq!(sum(&[v]).value(), v + 0.0);
        }

        #[test]
        fn two_values_round_once(a in finite(), b in finite()) {
            // IEEE addition of two numbers is the exact sum rounded once.
            prop_assert_eq!(sum(&[a, b]).value(), a + b);
        }

        #[test]
        fn products_are_exact_and_can_be_taken_back(
            a in finite(),
            b in finite(),
            times in 1..9i64,
        ) {
            let mut products = FloatSum::default();
            products.add_product(a, b, times);
            let whole = |v: f64| sum(&[v]).exact();
            let ((one, low), (two, high)) = (whole(a), whole(b));
            let (digits, exponent) = products.exact();
            let shift = low + high - exponent;
            let expected: BigInt = one * two * times;
            let same = match shift >= 0 {
                true => digits == expected << shift,
                false => digits << -shift == expected,
            };
            prop_assert!(same || a == 0.0 || b == 0.0);
            products.add_product(b, a, -times);
            prop_assert!(products.is_zero());
        }

        #[test]
        fn products_of_integers_are_exact(a in any::<i128>(), b in any::<i128>()) {
            let mut products = FloatSum::default();
            products.add_whole_product(a, b, -3);
            let (digits, exponent) = products.exact();
            prop_assert!(exponent >= 0 && digits << exponent == BigInt::from(a) * b * -3);
        }

        #[test]
        fn an_adder_makes_the_same_sum(
            values in proptest::collection::vec((
                prop_oneof![
                    any::<u64>().prop_map(f64::from_bits),
                    any::<i32>().prop_map(f64::from),
                    -1e6..1e6,
                    Just(-0.0),
                ],
                prop_oneof![Just(1), Just(-1), any::<i32>().prop_map(i64::from)],
            ), 0..20),
        ) {
            let mut adder = FloatAdder::default();
            let mut slow = FloatSum::default();
            for (value, times) in values {
                adder.add(value, times);
                slow.add(value, times);
            }
            prop_assert_eq!(adder.finish(), slow);
        }

        #[test]
        fn order_does_not_matter_and_all_can_be_taken_back(
            values in proptest::collection::vec(finite(), 0..20),
            seed in any::<u64>(),
        ) {
            let forward = sum(&values);
            let mut shuffled = values.clone();
            let n = shuffled.len().max(1);
            for i in 0..shuffled.len() {
                shuffled.swap(i, (seed as usize).wrapping_mul(i + 7) % n);
            }
            prop_assert_eq!(&forward, &sum(&shuffled));
            let mut parts = sum(&values[..values.len() / 2]);
            parts.merge(&sum(&values[values.len() / 2..]));
            prop_assert_eq!(&forward, &parts);
            for v in &shuffled {
                parts.add(*v, -1);
            }
            prop_assert!(parts.is_zero());
        }
    }
}
