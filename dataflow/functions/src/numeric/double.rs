//! Mathematical functions of double precision: rounding, roots, logarithms, powers, trigonometry.
//!
//! Source: PostgreSQL's `float.c`. It calls the C library's functions, which Rust's standard
//! library calls as well.
//!
//! | function | C function in `float.c` | fails the row |
//! |---|---|---|
//! | `round`, `ceil`, `floor`, `trunc` | `dround`, `dceil`, `dfloor`, `dtrunc` | never |
//! | `sign` | `dsign` | never |
//! | `sqrt` | `dsqrt` | negative number |
//! | `exp` | `dexp` | overflow, underflow |
//! | `ln`, `log`, `log10` | `dlog1`, `dlog10` | 0, negative number |
//! | `power`, `pow` | `dpow` | overflow, underflow, complex result |
//! | `sin`, `cos`, `tan`, `cot` | `dsin`, `dcos`, `dtan`, `dcot` | infinity |
//! | `asin`, `acos` | `dasin`, `dacos` | outside of -1 to 1 |
//! | `atan`, `atan2`, `sinh`, `cosh`, `tanh` | `datan`, `datan2`, `dsinh`, … | never |
//! | `degrees`, `radians` | `degrees`, `radians` | overflow; underflow |
//!
//! Angles are in radians. NaN gives NaN in every function except `sign`, which gives 0, and
//! `power`, where 1 to any power and any number to the power 0 is 1.
//!
//! Integers reach these functions by the implicit cast to double precision. Numerics do not:
//! PostgreSQL has overloads for numeric with more digits, which are refused by name.

use super::arithmetic::{OVERFLOW, UNDERFLOW};
use crate::entry::{Answer, Body, Entry, Gives, Kind, body, rows};
use crate::value::datum::Datum;

/// One double.
const ONE: &[Kind] = &[Kind::Double];
/// Two doubles.
const TWO: &[Kind] = &[Kind::Double, Kind::Double];

/// A double that needs no check.
fn double(value: f64) -> Answer {
    Ok(Datum::Double(value))
}

/// Fails if the result is infinite and the argument is not, as PostgreSQL's `check_float8_val`.
fn finite(argument: f64, value: f64) -> Answer {
    match value.is_infinite() && !argument.is_infinite() {
        true => Err(OVERFLOW.to_owned()),
        false => double(value),
    }
}

/// `exp` (`dexp`). A result of 0 is underflow, except for minus infinity.
///
/// # Errors
/// "value out of range: overflow" above about 709.78, and "value out of range: underflow" below
/// about -745.13.
fn exp(x: f64) -> Answer {
    match x {
        f64::NEG_INFINITY => double(0.0),
        _ if x.is_nan() || x.is_infinite() => double(x),
        _ if x.exp() == 0.0 => Err(UNDERFLOW.to_owned()),
        _ => finite(x, x.exp()),
    }
}

/// A logarithm (`dlog1`, `dlog10`). The logarithm of 0 and of negative numbers fails the row.
///
/// `of` is the natural or the decimal logarithm. PostgreSQL's `log` with one argument is decimal.
fn logarithm(x: f64, of: fn(f64) -> f64) -> Answer {
    match x {
        0.0 => Err("cannot take logarithm of zero".to_owned()),
        _ if x < 0.0 => Err("cannot take logarithm of a negative number".to_owned()),
        _ => double(of(x)),
    }
}

/// `power` (`dpow`). The special cases are those of POSIX; the errors are PostgreSQL's.
///
/// # Errors
/// 0 to a negative power, a negative number to a power that is not whole, overflow, underflow.
fn power(x: f64, y: f64) -> Answer {
    if x.is_nan() || y.is_nan() {
        let one = x == 1.0 || y == 0.0;
        return double(if one { 1.0 } else { f64::NAN });
    }
    if x == 0.0 && y < 0.0 {
        return Err("zero raised to a negative power is undefined".to_owned());
    }
    if x < 0.0 && y.floor() != y {
        let what = "a negative number raised to a non-integer power yields a complex result";
        return Err(what.to_owned());
    }
    let result = x.powf(y);
    if x.is_infinite() || y.is_infinite() {
        return double(result);
    }
    match result {
        _ if result.is_infinite() => Err(OVERFLOW.to_owned()),
        0.0 if x != 0.0 => Err(UNDERFLOW.to_owned()),
        _ => double(result),
    }
}

/// A function that is defined only for some arguments: fails unless `inside`, or the argument is
/// NaN.
fn within(x: f64, inside: bool, value: f64) -> Answer {
    match inside || x.is_nan() {
        true => double(value),
        false => Err("input is out of range".to_owned()),
    }
}

/// The sign: -1, 0 or 1; 0 for NaN.
fn sign(x: f64) -> f64 {
    if x > 0.0 {
        1.0
    } else if x < 0.0 {
        -1.0
    } else if x.is_nan() {
        // `dsign` compares with 0, and NaN is neither greater nor less.
        0.0
    } else {
        0.0
    }
}

/// Rounding, roots, exponentials and logarithms, and the conversion of angles.
///
/// `round` rounds half to even, as C's `rint` does; `round` of a numeric rounds half away from
/// zero.
#[expect(clippy::too_many_lines, reason = "a list of entries, and no steps")]
fn rounding() -> Vec<Entry> {
    use Datum::Double;
    const D: Kind = Kind::Double;
    vec![
        rows(
            "round",
            ONE,
            D,
            body!([Double(x)] => double(x.round_ties_even())),
        ),
        rows("ceil", ONE, D, body!([Double(x)] => double(x.ceil()))),
        rows("ceiling", ONE, D, body!([Double(x)] => double(x.ceil()))),
        rows("floor", ONE, D, body!([Double(x)] => double(x.floor()))),
        rows("trunc", ONE, D, body!([Double(x)] => double(x.trunc()))),
        rows("sign", ONE, D, body!([Double(x)] => double(sign(*x)))),
        rows(
            "sqrt",
            ONE,
            D,
            body!([Double(x)] => match *x < 0.0 {
                true => Err("cannot take square root of a negative number".to_owned()),
                false => double(x.sqrt()),
            }),
        ),
        rows("exp", ONE, D, body!([Double(x)] => exp(*x))),
        rows("ln", ONE, D, body!([Double(x)] => logarithm(*x, f64::ln))),
        rows(
            "log",
            ONE,
            D,
            body!([Double(x)] => logarithm(*x, f64::log10)),
        ),
        rows(
            "log10",
            ONE,
            D,
            body!([Double(x)] => logarithm(*x, f64::log10)),
        ),
        rows(
            "power",
            TWO,
            D,
            body!([Double(x), Double(y)] => power(*x, *y)),
        ),
        rows(
            "pow",
            TWO,
            D,
            body!([Double(x), Double(y)] => power(*x, *y)),
        ),
        rows("pi", &[], D, body!([] => double(std::f64::consts::PI))),
        rows(
            "degrees",
            ONE,
            D,
            body!([Double(x)] => {
                finite(*x, x / (std::f64::consts::PI / 180.0))
            }),
        ),
        rows(
            "radians",
            ONE,
            D,
            body!([Double(x)] => {
                let radians = x * (std::f64::consts::PI / 180.0);
                match radians == 0.0 && *x != 0.0 {
                    true => Err(UNDERFLOW.to_owned()),
                    false => double(radians),
                }
            }),
        ),
    ]
}

/// Trigonometric and hyperbolic functions.
///
/// The last digit depends on the C library: PostgreSQL gives no guarantee for it either.
fn trigonometry() -> Vec<Entry> {
    use Datum::Double;
    const D: Kind = Kind::Double;
    vec![
        rows(
            "sin",
            ONE,
            D,
            body!([Double(x)] => within(*x, x.is_finite(), x.sin())),
        ),
        rows(
            "cos",
            ONE,
            D,
            body!([Double(x)] => within(*x, x.is_finite(), x.cos())),
        ),
        rows(
            "tan",
            ONE,
            D,
            body!([Double(x)] => within(*x, x.is_finite(), x.tan())),
        ),
        rows(
            "cot",
            ONE,
            D,
            body!([Double(x)] => within(*x, x.is_finite(), 1.0 / x.tan())),
        ),
        rows(
            "asin",
            ONE,
            D,
            body!([Double(x)] => within(*x, x.abs() <= 1.0, x.asin())),
        ),
        rows(
            "acos",
            ONE,
            D,
            body!([Double(x)] => within(*x, x.abs() <= 1.0, x.acos())),
        ),
        rows("atan", ONE, D, body!([Double(x)] => double(x.atan()))),
        rows(
            "atan2",
            TWO,
            D,
            body!([Double(y), Double(x)] => double(y.atan2(*x))),
        ),
        rows("sinh", ONE, D, body!([Double(x)] => double(x.sinh()))),
        rows("cosh", ONE, D, body!([Double(x)] => double(x.cosh()))),
        rows("tanh", ONE, D, body!([Double(x)] => double(x.tanh()))),
    ]
}

/// Functions that PostgreSQL computes in numeric, to many digits. Views refuse them.
///
/// The result kind of these entries is never used: an entry with [`Body::Refused`] fails before its
/// result is typed.
fn refused() -> impl Iterator<Item = Entry> {
    const ONE: &[Kind] = &[Kind::Numeric];
    const TWO: &[Kind] = &[Kind::Numeric, Kind::Numeric];
    let entry = |name, takes| {
        let why = "PostgreSQL computes it in numeric, to many digits: cast the argument to double \
                   precision";
        Entry::new(name, takes, Gives::Kind(Kind::Double), Body::Refused(why))
    };
    let one = ["sqrt", "exp", "ln", "log", "log10"].map(|name| entry(name, ONE));
    let two = ["power", "pow", "log", "gcd", "lcm", "div"].map(|name| entry(name, TWO));
    one.into_iter().chain(two)
}

/// All entries of this family.
pub(crate) fn entries() -> Vec<Entry> {
    let mut entries = rounding();
    entries.extend(trigonometry());
    entries.extend(refused());
    entries
}
