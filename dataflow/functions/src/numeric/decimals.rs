//! Arithmetic and rounding of `numeric`, with PostgreSQL's scales.
//!
//! Source: PostgreSQL's `utils/adt/numeric.c`. In PostgreSQL a numeric's scale belongs to each
//! value; here it belongs to the column's type. Therefore each function computes the result's
//! precision and scale from the arguments' types, and refuses what has no such answer.
//!
//! With `p1,s1` and `p2,s2` as the arguments' precisions and scales:
//!
//! | function | precision of the result | scale of the result |
//! |---|---|---|
//! | `+` `-` `%` `mod` | max(p1-s1, p2-s2) + max(s1, s2) + 1 | max(s1, s2) |
//! | `*` | p1 + p2 | s1 + s2 |
//! | `/` | 38 | max(s1, s2, [`QUOTIENT_SCALE`]) |
//! | unary `-`, `abs` | p1 | s1 |
//! | `floor`, `ceil`, `round(x)`, `trunc(x)` | p1 - s1 + 1 | 0 |
//! | `round(x, n)`, `trunc(x, n)` | p1 - s1 + 1 + max(n, 0) | max(n, 0) |
//! | `sign` | 1 | 0 |
//!
//! A precision above 38 becomes 38, and a value that needs more digits fails its row. A scale above
//! 38 is refused when the view is planned.

use arrow::datatypes::DataType;
use datafusion_common::ScalarValue;

use crate::entry::{Entry, Kind, body, scaled};
use crate::value::datum::Datum;
use crate::value::decimal::{DIGITS, Num, QUOTIENT_SCALE, digits_depend_on_value};

/// The precision and scale of each argument that is a numeric.
///
/// Arguments of other types, such as the number of digits of `round`, are left out.
fn parts(kinds: &[DataType]) -> Vec<(i32, i32)> {
    let part = |kind: &DataType| match kind {
        DataType::Decimal128(precision, scale) => Some((i32::from(*precision), i32::from(*scale))),
        _ => None,
    };
    kinds.iter().filter_map(part).collect()
}

/// A precision and scale that fit Arrow's `Decimal128`. The precision is clamped to 38 digits; then
/// a value that does not fit fails its row.
///
/// # Errors
/// The scale is greater than 38.
pub(crate) fn sized(precision: i32, scale: i32) -> Result<(u8, i8), String> {
    if scale > i32::from(DIGITS) {
        return Err(format!(
            "the result has {scale} digits after the point and a numeric holds 38 digits: cast the \
             operands to numerics of fewer digits"
        ));
    }
    let precision = precision.clamp(scale.max(1), i32::from(DIGITS));
    Ok((precision as u8, scale as i8))
}

/// The type of `+`, `-` and `%`: the greater scale, and one more digit before the point.
///
/// # Errors
/// The scale is greater than 38.
fn sum_scale(kinds: &[DataType], _: &[Option<&ScalarValue>]) -> Result<(u8, i8), String> {
    let parts = parts(kinds);
    let scale = parts.iter().map(|(_, scale)| *scale).max().unwrap_or(0);
    let whole = parts
        .iter()
        .map(|(precision, scale)| precision - scale)
        .max();
    sized(whole.unwrap_or(0) + scale + 1, scale)
}

/// The type of `*`: precisions and scales add up.
///
/// # Errors
/// The sum of the scales is greater than 38.
fn product_scale(kinds: &[DataType], _: &[Option<&ScalarValue>]) -> Result<(u8, i8), String> {
    let parts = parts(kinds);
    let (precision, scale) = parts
        .iter()
        .fold((0, 0), |all, part| (all.0 + part.0, all.1 + part.1));
    sized(precision, scale)
}

/// The type of `/`: 38 digits, at least [`QUOTIENT_SCALE`] of them after the point.
///
/// PostgreSQL's `select_div_scale` computes the scale from the two values. 24 digits after the
/// point hold the result of every quotient of at least about 10^-8. A smaller one has more digits
/// in PostgreSQL; its row fails, unless the digits that do not fit are zeros.
///
/// # Errors
/// The number of digits of an argument depends on its value, or the scale is greater than 38.
fn quotient(kinds: &[DataType], _: &[Option<&ScalarValue>]) -> Result<(u8, i8), String> {
    let unknown = |kind: &DataType| match kind {
        DataType::Decimal128(precision, scale) => digits_depend_on_value(*precision, *scale),
        _ => false,
    };
    if kinds.iter().any(unknown) {
        return Err(
            "how many digits PostgreSQL gives a quotient of this numeric depends on its value: \
             round it first, as in round(x, 6)"
                .to_owned(),
        );
    }
    let scale = parts(kinds)
        .iter()
        .map(|(_, scale)| *scale)
        .max()
        .unwrap_or(0);
    sized(i32::from(DIGITS), scale.max(i32::from(QUOTIENT_SCALE)))
}

/// The precision and scale of the first argument.
pub(crate) fn same_scale(
    kinds: &[DataType],
    _: &[Option<&ScalarValue>],
) -> Result<(u8, i8), String> {
    let (precision, scale) = parts(kinds).first().copied().unwrap_or((38, 0));
    sized(precision, scale)
}

/// An integer with as many digits as the whole part, and one more because rounding may carry.
///
/// `round(9.9)` has two digits before the point, and the argument has one.
fn whole_scale(kinds: &[DataType], _: &[Option<&ScalarValue>]) -> Result<(u8, i8), String> {
    let (precision, scale) = parts(kinds).first().copied().unwrap_or((38, 0));
    sized(precision - scale + 1, 0)
}

/// The number of digits after the point that the second argument, a constant, gives.
///
/// # Errors
/// The second argument is not a constant, or is greater than 38.
fn constant_scale(
    kinds: &[DataType],
    constants: &[Option<&ScalarValue>],
) -> Result<(u8, i8), String> {
    let (precision, scale) = parts(kinds).first().copied().unwrap_or((38, 0));
    let Some(Some(ScalarValue::Int32(Some(digits)))) = constants.get(1) else {
        return Err("the number of digits to round a numeric to must be a constant".to_owned());
    };
    let shown = (*digits).max(0);
    sized(precision - scale + 1 + shown, shown)
}

/// All entries of this family.
///
/// The second argument of `round` and `trunc` is limited to ±2000, so that the arithmetic of scales
/// cannot overflow. No numeric has a digit that far from the point.
#[expect(clippy::too_many_lines, reason = "a list of entries, and no steps")]
pub(crate) fn entries() -> Vec<Entry> {
    use Datum::{Int, Numeric};
    const TWO: &[Kind] = &[Kind::Numeric, Kind::Numeric];
    const ONE: &[Kind] = &[Kind::Numeric];
    const DIGITS: &[Kind] = &[Kind::Numeric, Kind::Int];
    let mut entries = vec![
        scaled(
            "+",
            TWO,
            sum_scale,
            body!([Numeric(a), Numeric(b)] => a.add(*b).map(Numeric)),
        ),
        scaled(
            "-",
            TWO,
            sum_scale,
            body!([Numeric(a), Numeric(b)] => a.add(b.negated()).map(Numeric)),
        ),
        scaled(
            "*",
            TWO,
            product_scale,
            body!([Numeric(a), Numeric(b)] => a.multiply(*b).map(Numeric)),
        ),
        scaled(
            "/",
            TWO,
            quotient,
            body!([Numeric(a), Numeric(b)] => a.divide(*b).map(Numeric)),
        )
        .narrower(),
        scaled(
            "%",
            TWO,
            sum_scale,
            body!([Numeric(a), Numeric(b)] => a.remainder(*b).map(Numeric)),
        ),
        scaled(
            "mod",
            TWO,
            sum_scale,
            body!([Numeric(a), Numeric(b)] => a.remainder(*b).map(Numeric)),
        ),
        scaled(
            "-",
            ONE,
            same_scale,
            body!([Numeric(a)] => Ok(Numeric(a.negated()))),
        ),
        scaled(
            "abs",
            ONE,
            same_scale,
            body!([Numeric(a)] => {
                Ok(Numeric(Num::new(a.digits.abs(), a.scale)))
            }),
        ),
        scaled(
            "sign",
            ONE,
            |_, _| Ok((1, 0)),
            body!([Numeric(a)] => {
                Ok(Numeric(Num::new(a.digits.signum(), 0)))
            }),
        ),
        scaled(
            "floor",
            ONE,
            whole_scale,
            body!([Numeric(a)] => a.integral(false).map(Numeric)),
        ),
        scaled(
            "round",
            ONE,
            whole_scale,
            body!([Numeric(a)] => a.rounded(0).map(Numeric)),
        ),
        scaled(
            "trunc",
            ONE,
            whole_scale,
            body!([Numeric(a)] => a.truncated(0).map(Numeric)),
        ),
        scaled(
            "round",
            DIGITS,
            constant_scale,
            body!([Numeric(a), Int(n)] => {
                a.rounded((*n).clamp(-2000, 2000)).map(Numeric)
            }),
        ),
        scaled(
            "trunc",
            DIGITS,
            constant_scale,
            body!([Numeric(a), Int(n)] => {
                a.truncated((*n).clamp(-2000, 2000)).map(Numeric)
            }),
        ),
    ];
    for name in ["ceil", "ceiling"] {
        entries.push(scaled(
            name,
            ONE,
            whole_scale,
            body!([Numeric(a)] => a.integral(true).map(Numeric)),
        ));
    }
    entries
}
