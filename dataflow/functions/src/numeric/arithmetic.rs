//! Arithmetic operators of integers and floating point numbers.
//!
//! Source: PostgreSQL's `int.c`, `int8.c` and `float.c`. A result that does not fit its type, and a
//! division by zero, fail the row. Integers never wrap around, except for the shifts, which
//! PostgreSQL leaves to the processor.
//!
//! | operator | arguments | result | fails the row |
//! |---|---|---|---|
//! | `+` `-` `*` | int, bigint, real, double precision | the same type | overflow, underflow |
//! | `/` | the same | the same type; integers are truncated | division by 0, overflow, underflow |
//! | `%`, `mod` | int, bigint | the same type, with the sign of the dividend | division by 0 |
//! | unary `-`, `abs` | all four | the same type | the least integer |
//! | `&` `\|` `#` | int, bigint | the same type | never |
//! | `<<` `>>` | int or bigint, and int | the type of the first | never |
//! | `gcd`, `lcm` | int, bigint | the same type | the result does not fit |
//!
//! A smallint is an int here. [`crate::typing::rewrite`] checks afterwards that the result fits 16
//! bits.

use arrow::compute::kernels::numeric::{add, div, mul, sub};

use crate::entry::{Answer, Body, Entry, Gives, Kernel, Kind, body, rows};
use crate::value::datum::Datum;

/// The error of a result that is too large. PostgreSQL's `float_overflow_error`.
pub(crate) const OVERFLOW: &str = "value out of range: overflow";
/// The error of a result that is too small. PostgreSQL's `float_underflow_error`.
pub(crate) const UNDERFLOW: &str = "value out of range: underflow";
/// The error of a division by zero. PostgreSQL's `float_zero_divide_error`.
const BY_ZERO: &str = "division by zero";

/// Checks a result: it may be infinite only if `infinite` (an operand is), and 0 only if `zero` (it
/// is no underflow).
///
/// PostgreSQL's `float8_pl`, `float8_mi`, `float8_mul` and `float8_div` (`utils/float.h`) make the
/// same checks. For reals the check is made on the real result.
fn checked(result: f64, infinite: bool, zero: bool) -> Result<f64, String> {
    match result {
        _ if result.is_infinite() && !infinite => Err(OVERFLOW.to_owned()),
        _ if result == 0.0 && !zero => Err(UNDERFLOW.to_owned()),
        _ => Ok(result),
    }
}

/// Checks the result of `a + b` or `a - b`. A sum of 0 is never underflow.
fn sum(a: f64, b: f64, result: f64) -> Result<f64, String> {
    checked(result, a.is_infinite() || b.is_infinite(), true)
}

/// Checks the result of `a * b`.
fn product(a: f64, b: f64, result: f64) -> Result<f64, String> {
    checked(
        result,
        a.is_infinite() || b.is_infinite(),
        a == 0.0 || b == 0.0,
    )
}

/// Checks the result of `a / b`. NaN divided by 0 is NaN and no error, as in `float8_div`.
///
/// A finite number divided by infinity is 0 and no underflow.
fn quotient(a: f64, b: f64, result: f64) -> Result<f64, String> {
    if b == 0.0 && !a.is_nan() {
        return Err(BY_ZERO.to_owned());
    }
    checked(result, a.is_infinite(), a == 0.0 || b.is_infinite())
}

/// Checks a result that was computed as a real.
///
/// The conversion to double is exact, so infinity and 0 remain what they are.
fn real(result: f32, check: impl Fn(f64) -> Result<f64, String>) -> Answer {
    check(f64::from(result)).map(|_| Datum::Real(result))
}

/// The operators of double precision, of real, and of both together.
///
/// The result of each operator is IEEE 754's, rounded to nearest, as C computes it. Only overflow,
/// underflow and division by zero are checked.
#[expect(clippy::too_many_lines, reason = "a list of entries, and no steps")]
fn doubles() -> Vec<Entry> {
    use Datum::{Double, Real};
    const TWO: &[Kind] = &[Kind::Double, Kind::Double];
    const REALS: &[Kind] = &[Kind::Real, Kind::Real];
    const D: Kind = Kind::Double;
    const R: Kind = Kind::Real;
    let mut entries = vec![
        rows(
            "+",
            TWO,
            D,
            body!([Double(a), Double(b)] => sum(*a, *b, a + b).map(Double)),
        ),
        rows(
            "-",
            TWO,
            D,
            body!([Double(a), Double(b)] => sum(*a, *b, a - b).map(Double)),
        ),
        rows(
            "*",
            TWO,
            D,
            body!([Double(a), Double(b)] => product(*a, *b, a * b).map(Double)),
        ),
        rows(
            "/",
            TWO,
            D,
            body!([Double(a), Double(b)] => quotient(*a, *b, a / b).map(Double)),
        ),
        rows(
            "+",
            REALS,
            R,
            body!([Real(a), Real(b)] => {
                real(a + b, |c| sum(f64::from(*a), f64::from(*b), c))
            }),
        ),
        rows(
            "-",
            REALS,
            R,
            body!([Real(a), Real(b)] => {
                real(a - b, |c| sum(f64::from(*a), f64::from(*b), c))
            }),
        ),
        rows(
            "*",
            REALS,
            R,
            body!([Real(a), Real(b)] => {
                real(a * b, |c| product(f64::from(*a), f64::from(*b), c))
            }),
        ),
        rows(
            "/",
            REALS,
            R,
            body!([Real(a), Real(b)] => {
                real(a / b, |c| quotient(f64::from(*a), f64::from(*b), c))
            }),
        ),
        rows("-", &[R], R, body!([Real(a)] => Ok(Real(-a)))),
        rows("-", &[D], D, body!([Double(a)] => Ok(Double(-a)))),
        rows("abs", &[R], R, body!([Real(a)] => Ok(Real(a.abs())))),
        rows("abs", &[D], D, body!([Double(a)] => Ok(Double(a.abs())))),
    ];
    // real with double precision is double precision: without these, real + double would be
    // ambiguous or lose digits.
    for name in ["+", "-", "*", "/"] {
        for takes in [&[Kind::Real, Kind::Double], &[Kind::Double, Kind::Real]] {
            let both: fn(&[Datum<'_>]) -> Answer = match name {
                "+" => |a| mixed(a, |a, b| sum(a, b, a + b)),
                "-" => |a| mixed(a, |a, b| sum(a, b, a - b)),
                "*" => |a| mixed(a, |a, b| product(a, b, a * b)),
                _ => |a| mixed(a, |a, b| quotient(a, b, a / b)),
            };
            entries.push(rows(name, takes, D, both));
        }
    }
    entries
}

/// Evaluates an operator of a real and a double, as doubles.
///
/// PostgreSQL has `float48pl`, `float84pl` and their like for the same purpose.
fn mixed(arguments: &[Datum<'_>], compute: impl Fn(f64, f64) -> Result<f64, String>) -> Answer {
    let (a, b) = match arguments {
        [Datum::Real(a), Datum::Double(b)] => (f64::from(*a), *b),
        [Datum::Double(a), Datum::Real(b)] => (*a, f64::from(*b)),
        _ => return Err("arguments of other types than were planned".to_owned()),
    };
    compute(a, b).map(Datum::Double)
}

/// The error of an integer that does not fit 32 bits.
fn integer_out() -> String {
    "integer out of range".to_owned()
}

/// The error of an integer that does not fit 64 bits.
fn bigint_out() -> String {
    "bigint out of range".to_owned()
}

/// The remainder of integers and bigints under one name. The least integer modulo -1 is 0.
///
/// The processor's division would trap there, so PostgreSQL's `int4mod` treats the case apart.
fn remainder(name: &'static str) -> [Entry; 2] {
    use Datum::{Int, Long};
    [
        rows(
            name,
            &[Kind::Int, Kind::Int],
            Kind::Int,
            body!([Int(a), Int(b)] => match b {
                0 => Err(BY_ZERO.to_owned()),
                _ => Ok(Int(a.wrapping_rem(*b))),
            }),
        ),
        rows(
            name,
            &[Kind::Long, Kind::Long],
            Kind::Long,
            body!([Long(a), Long(b)] => match b {
                0 => Err(BY_ZERO.to_owned()),
                _ => Ok(Long(a.wrapping_rem(*b))),
            }),
        ),
    ]
}

/// The operators of integers and bigints.
#[expect(clippy::too_many_lines, reason = "a list of entries, and no steps")]
fn integers() -> Vec<Entry> {
    use Datum::{Int, Long};
    const INTS: &[Kind] = &[Kind::Int, Kind::Int];
    const LONGS: &[Kind] = &[Kind::Long, Kind::Long];
    const SHIFT: &[Kind] = &[Kind::Long, Kind::Int];
    const I: Kind = Kind::Int;
    const L: Kind = Kind::Long;
    let mut entries = Vec::new();
    // These are kernels and not DataFusion's operators, because rules of its optimizer replace `x #
    // x` by 0, which is wrong where `x` is null.
    let kernels: [(_, Kernel); 4] = [("+", add), ("-", sub), ("*", mul), ("/", div)];
    for (name, kernel) in kernels {
        entries.push(Entry::new(name, INTS, Gives::Kind(I), Body::Kernel(kernel)));
        entries.push(Entry::new(
            name,
            LONGS,
            Gives::Kind(L),
            Body::Kernel(kernel),
        ));
    }
    entries.extend([
        rows("&", INTS, I, body!([Int(a), Int(b)] => Ok(Int(a & b)))),
        rows("|", INTS, I, body!([Int(a), Int(b)] => Ok(Int(a | b)))),
        rows("#", INTS, I, body!([Int(a), Int(b)] => Ok(Int(a ^ b)))),
        rows("&", LONGS, L, body!([Long(a), Long(b)] => Ok(Long(a & b)))),
        rows("|", LONGS, L, body!([Long(a), Long(b)] => Ok(Long(a | b)))),
        rows("#", LONGS, L, body!([Long(a), Long(b)] => Ok(Long(a ^ b)))),
    ]);
    entries.extend(remainder("%"));
    entries.extend(remainder("mod"));
    entries.extend([
        // The processor takes the count modulo the width. PostgreSQL does the same.
        rows(
            "<<",
            INTS,
            I,
            body!([Int(a), Int(b)] => Ok(Int(a.wrapping_shl(b.cast_unsigned())))),
        ),
        rows(
            ">>",
            INTS,
            I,
            body!([Int(a), Int(b)] => Ok(Int(a.wrapping_shr(b.cast_unsigned())))),
        ),
        rows(
            "<<",
            SHIFT,
            L,
            body!([Long(a), Int(b)] => {
                Ok(Long(a.wrapping_shl(b.cast_unsigned())))
            }),
        ),
        rows(
            ">>",
            SHIFT,
            L,
            body!([Long(a), Int(b)] => {
                Ok(Long(a.wrapping_shr(b.cast_unsigned())))
            }),
        ),
        rows(
            "-",
            &[I],
            I,
            body!([Int(a)] => a.checked_neg().map(Int).ok_or_else(integer_out)),
        ),
        rows(
            "-",
            &[L],
            L,
            body!([Long(a)] => a.checked_neg().map(Long).ok_or_else(bigint_out)),
        ),
        rows(
            "abs",
            &[I],
            I,
            body!([Int(a)] => a.checked_abs().map(Int).ok_or_else(integer_out)),
        ),
        rows(
            "abs",
            &[L],
            L,
            body!([Long(a)] => a.checked_abs().map(Long).ok_or_else(bigint_out)),
        ),
        rows(
            "gcd",
            INTS,
            I,
            body!([Int(a), Int(b)] => {
                narrow(gcd(i128::from(*a), i128::from(*b)))
            }),
        ),
        rows(
            "gcd",
            LONGS,
            L,
            body!([Long(a), Long(b)] => {
                long(gcd(i128::from(*a), i128::from(*b)))
            }),
        ),
        rows(
            "lcm",
            INTS,
            I,
            body!([Int(a), Int(b)] => {
                narrow(lcm(i128::from(*a), i128::from(*b)))
            }),
        ),
        rows(
            "lcm",
            LONGS,
            L,
            body!([Long(a), Long(b)] => {
                long(lcm(i128::from(*a), i128::from(*b)))
            }),
        ),
    ]);
    entries
}

/// An integer of 32 bits. Fails the row if the value does not fit.
pub(crate) fn narrow(value: i128) -> Answer {
    i32::try_from(value)
        .map(Datum::Int)
        .map_err(|_| integer_out())
}

/// An integer of 64 bits. Fails the row if the value does not fit.
pub(crate) fn long(value: i128) -> Answer {
    i64::try_from(value)
        .map(Datum::Long)
        .map_err(|_| bigint_out())
}

/// The greatest common divisor (Euclid's algorithm), never negative.
///
/// 128 bits hold the absolute value of the least bigint, which 64 bits do not.
fn gcd(a: i128, b: i128) -> i128 {
    let (mut a, mut b) = (a.abs(), b.abs());
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

/// The least common multiple, never negative; 0 if both are 0.
///
/// Dividing before multiplying keeps the intermediate result within 128 bits.
fn lcm(a: i128, b: i128) -> i128 {
    match gcd(a, b) {
        0 => 0,
        gcd => (a / gcd * b).abs(),
    }
}

/// All entries of this family.
pub(crate) fn entries() -> Vec<Entry> {
    let mut entries = integers();
    entries.extend(doubles());
    entries
}
