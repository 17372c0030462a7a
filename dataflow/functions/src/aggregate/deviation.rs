//! Variances and standard deviations of numerics, as PostgreSQL's `numeric_stddev_internal`
//! computes them (`utils/adt/numeric.c`).
//!
//! With `n` values, their sum `s` and the sum `q` of their squares, the variance is
//! `(n · q - s²) / (n · n)`, or `(n · q - s²) / (n · (n - 1))` of a sample. Only this quotient is
//! rounded, with the number of digits that `select_div_scale` gives. A standard deviation is the
//! square root of the rounded variance, rounded to as many digits.

use num_bigint::{BigInt, Sign};

use crate::value::decimal::quotient_scale_of;

/// Which measure of deviation it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deviation {
    /// Whether the values are a sample. A sample has at least two values.
    pub sample: bool,
    /// Whether the result is the square root.
    pub root: bool,
}

/// The sums that a deviation is computed from.
#[derive(Debug, Clone)]
pub struct Sums {
    /// The number of values.
    pub count: i64,
    /// The sum of the values' digits.
    pub sum: BigInt,
    /// The sum of the squares of the values' digits.
    pub squares: BigInt,
    /// The number of the values' digits after the point.
    pub scale: i8,
}

/// The digits of a variance or standard deviation as a numeric of the precision and scale `to`;
/// `None` if it does not fit, or there are too few values.
///
/// ```
/// use tidemill_functions::{Deviation, Sums, deviation};
///
/// // 1, 2 and 3: the variance of the sample is 1.
/// let sums = Sums { count: 3, sum: 6.into(), squares: 14.into(), scale: 0 };
/// let variance = Deviation { sample: true, root: false };
/// assert_eq!(deviation(variance, &sums, (38, 20)), Some(10_i128.pow(20)));
/// ```
pub fn deviation(which: Deviation, sums: &Sums, to: (u8, i8)) -> Option<i128> {
    let count = BigInt::from(sums.count);
    let below = match which.sample {
        true => &count * (&count - 1),
        false => &count * &count,
    };
    if below.sign() != Sign::Plus {
        return None;
    }
    let above = count * &sums.squares - &sums.sum * &sums.sum;
    if above.sign() != Sign::Plus {
        return Some(0);
    }
    let scale = u32::try_from(sums.scale).ok()? * 2;
    let digits = quotient_scale_of((&above, scale), (&below, 0));
    let shifted: BigInt = above * power(digits.checked_sub(scale)?);
    // Half is rounded up. All numbers are positive.
    let mut value: BigInt = (shifted * 2 + &below) / (below * 2);
    if which.root {
        let exact: BigInt = value * power(digits + 2);
        value = (exact.sqrt() + 5) / 10;
    }
    fitted(value, digits, to)
}

/// 10^`exponent`.
fn power(exponent: u32) -> BigInt {
    BigInt::from(10).pow(exponent)
}

/// The digits at another scale, if that drops only zeros and they fit the precision.
fn fitted(value: BigInt, scale: u32, (precision, to): (u8, i8)) -> Option<i128> {
    let to = u32::try_from(to).ok()?;
    let value = match to.checked_sub(scale) {
        Some(more) => value * power(more),
        None => {
            let by = power(scale - to);
            let kept = &value / &by;
            (&kept * by == value).then_some(kept)?
        }
    };
    (value < power(u32::from(precision))).then(|| i128::try_from(value).ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sums(values: &[i64], scale: i8) -> Sums {
        let values = values.iter().map(|value| BigInt::from(*value));
        Sums {
            count: values.len() as i64,
            sum: values.clone().sum(),
            squares: values.map(|value| &value * &value).sum(),
            scale,
        }
    }

    fn text(which: (bool, bool), values: &[i64], scale: i8) -> Option<String> {
        let (sample, root) = which;
        let digits = deviation(Deviation { sample, root }, &sums(values, scale), (38, 20))?;
        let digits = format!("{digits:0>21}");
        let (whole, part) = digits.split_at(digits.len() - 20);
        Some(format!("{whole}.{part}"))
    }

    /// The results are what PostgreSQL 15 shows, filled up with zeros.
    #[test]
    fn digits_are_those_of_postgresql() {
        let shown = |which, values: &[i64]| text(which, values, 0).unwrap();
        assert_eq!(shown((true, false), &[1, 2, 2]), "0.33333333333333333333");
        assert_eq!(shown((true, true), &[1, 2, 2]), "0.57735026918962576451");
        assert_eq!(shown((false, false), &[1, 2, 2]), "0.22222222222222222222");
        assert_eq!(shown((true, true), &[1, 2]), "0.70710678118654752440");
        assert_eq!(shown((true, false), &[7, 7]), "0.00000000000000000000");
        assert_eq!(shown((true, true), &[0, 100]), "70.71067811865475240000");
    }

    #[test]
    fn a_sample_of_one_value_has_none() {
        assert_eq!(text((true, false), &[5], 0), None);
        assert_eq!(text((false, true), &[], 0), None);
        assert_eq!(
            text((false, true), &[5], 0).unwrap(),
            "0.00000000000000000000"
        );
    }

    #[test]
    fn what_does_not_fit_is_none() {
        assert_eq!(text((true, false), &[i64::MAX, i64::MIN], 0), None);
    }
}
