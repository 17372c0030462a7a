//! Comparison operators, and `greatest` and `least`.
//!
//! Comparisons remain DataFusion's operators, so that joins recognise equalities. The operands are
//! made comparable first:
//!
//! - Floating point numbers have one zero and one NaN, which is greater than all other numbers.
//! - Numerics are compared at one scale.
//! - Intervals are compared by length, as PostgreSQL's `interval_cmp_value` computes it.
//!
//! Input: two operands that [`crate::typing::rewrite`] cast to one type. Output: a boolean, which
//! is null if an operand is null (`IS DISTINCT FROM` is never null). Text is compared byte by byte,
//! as in PostgreSQL's collations `C` and `C.UTF-8`.

use std::cmp::Ordering;

use datafusion_expr::Operator;

use super::entry::{Answer, Body, Entry, Gives, Kind, body, rows, scaled};
use crate::text::arrays;
use crate::value::calendar::MICROS_PER_DAY;
use crate::value::datum::{Datum, Span};

/// The entry that gives equal floating point numbers equal bits.
///
/// Adding 0.0 makes -0.0 to 0.0, and every NaN becomes the same NaN. The result has one pattern of
/// bits for each class of equal numbers, so hashing and comparing bytes agree with PostgreSQL's
/// `=`.
pub(super) const NORMAL: &str = "comparable";
/// The entry that compares two values: -1, 0 or 1.
///
/// It serves intervals, arrays and numerics of 38 digits, which have no operator of DataFusion that
/// compares them as PostgreSQL does. `a < b` becomes `compare(a, b) < 0`.
pub(super) const ORDER: &str = "compare";

/// The comparison operators by their name in SQL.
pub(super) const OPERATORS: [(&str, Operator); 8] = [
    ("=", Operator::Eq),
    ("<>", Operator::NotEq),
    ("<", Operator::Lt),
    ("<=", Operator::LtEq),
    (">", Operator::Gt),
    (">=", Operator::GtEq),
    ("IS DISTINCT FROM", Operator::IsDistinctFrom),
    ("IS NOT DISTINCT FROM", Operator::IsNotDistinctFrom),
];

/// The pairs of kinds that have comparisons. Other pairs are cast first.
const PAIRS: [&[Kind]; 12] = [
    &[Kind::Bool, Kind::Bool],
    &[Kind::Int, Kind::Int],
    &[Kind::Long, Kind::Long],
    &[Kind::Numeric, Kind::Numeric],
    &[Kind::Real, Kind::Real],
    &[Kind::Double, Kind::Double],
    &[Kind::Text, Kind::Text],
    &[Kind::Bytes, Kind::Bytes],
    &[Kind::Date, Kind::Date],
    &[Kind::Timestamp, Kind::Timestamp],
    &[Kind::Timestamptz, Kind::Timestamptz],
    &[Kind::Interval, Kind::Interval],
];

/// The order of two values of one kind. Neither is null.
///
/// Values of different kinds are equal here. This does not occur, because an entry's arguments have
/// one kind.
fn order(one: &Datum<'_>, other: &Datum<'_>) -> Ordering {
    match (one, other) {
        (Datum::Bool(a), Datum::Bool(b)) => a.cmp(b),
        (Datum::Int(a), Datum::Int(b)) | (Datum::Date(a), Datum::Date(b)) => a.cmp(b),
        (Datum::Long(a), Datum::Long(b)) | (Datum::Stamp(a), Datum::Stamp(b)) => a.cmp(b),
        (Datum::Real(a), Datum::Real(b)) => floats(f64::from(*a), f64::from(*b)),
        (Datum::Double(a), Datum::Double(b)) => floats(*a, *b),
        (Datum::Numeric(a), Datum::Numeric(b)) => a.compare(*b),
        (Datum::Text(a), Datum::Text(b)) => a.cmp(b),
        (Datum::Bytes(a), Datum::Bytes(b)) => a.cmp(b),
        (Datum::Span(a), Datum::Span(b)) => length(*a).cmp(&length(*b)),
        (Datum::Texts(a), Datum::Texts(b)) => arrays::order(a, b),
        _ => Ordering::Equal,
    }
}

/// The order of two floating point numbers. NaN is equal to NaN and greater than all others.
///
/// PostgreSQL's `float8_cmp_internal`.
fn floats(a: f64, b: f64) -> Ordering {
    a.partial_cmp(&b)
        .unwrap_or_else(|| a.is_nan().cmp(&b.is_nan()))
}

/// The length of an interval in microseconds. A month has 30 days, as in `interval_cmp_value`.
///
/// The result needs 128 bits: 2^31 months are more microseconds than 64 bits hold.
fn length(span: Span) -> i128 {
    let days = i128::from(span.months) * 30 + i128::from(span.days);
    days * i128::from(MICROS_PER_DAY) + i128::from(span.micros)
}

/// The greatest (`wanted` is Greater) or least (Less) of the values that are not null; null if all
/// are.
///
/// PostgreSQL's `MinMaxExpr` ignores nulls in the same way. Of equal values the first is returned.
fn extreme(arguments: &[Datum<'_>], wanted: Ordering) -> Answer {
    let mut found: Option<&Datum<'_>> = None;
    for value in arguments.iter().filter(|value| **value != Datum::Null) {
        if found.is_none_or(|found| order(value, found) == wanted) {
            found = Some(value);
        }
    }
    Ok(found.map_or(Datum::Null, Datum::owned))
}

/// All entries of this family.
///
/// `IS DISTINCT FROM` has no entry for intervals, because it cannot be written with [`ORDER`],
/// which is null if an operand is.
pub(super) fn entries() -> Vec<Entry> {
    use Datum::{Double, Int, Real};
    let mut entries = vec![
        rows(
            NORMAL,
            &[Kind::Real],
            Kind::Real,
            body!([Real(value)] => {
                Ok(Real(if value.is_nan() { f32::NAN } else { value + 0.0 }))
            }),
        ),
        rows(
            NORMAL,
            &[Kind::Double],
            Kind::Double,
            body!([Double(value)] => {
                Ok(Double(if value.is_nan() { f64::NAN } else { value + 0.0 }))
            }),
        ),
    ];
    for takes in PAIRS {
        for (name, operator) in OPERATORS {
            if name.starts_with("IS") && takes == [Kind::Interval, Kind::Interval] {
                continue;
            }
            entries.push(Entry::new(
                name,
                takes,
                Gives::Kind(Kind::Bool),
                Body::Operator(operator),
            ));
        }
    }
    for takes in [PAIRS[3], PAIRS[11], &[Kind::Texts, Kind::Texts]] {
        entries.push(rows(
            ORDER,
            takes,
            Kind::Int,
            body!([a, b] => Ok(Int(order(a, b) as i32))),
        ));
    }
    for takes in PAIRS {
        let Some((kind, _)) = takes.split_first() else {
            continue;
        };
        for (name, wanted) in [("greatest", Ordering::Greater), ("least", Ordering::Less)] {
            let body: fn(&[Datum<'_>]) -> Answer = match wanted {
                Ordering::Greater => |arguments| extreme(arguments, Ordering::Greater),
                _ => |arguments| extreme(arguments, Ordering::Less),
            };
            let entry = match kind {
                Kind::Numeric => scaled(name, takes, crate::numeric::decimals::same_scale, body),
                kind => rows(name, takes, *kind, body),
            };
            entries.push(entry.with_more());
        }
    }
    entries
}
