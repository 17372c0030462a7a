//! Casts, as PostgreSQL's `pg_cast` and its input and output functions define them.
//!
//! A cast is an entry named [`CAST`] from one kind to another. Type modifiers (`varchar(5)`,
//! `numeric(8,2)`), and types that are stored as another type (`smallint`, `uuid`), are entries of
//! their own. They are applied to the result of the cast to the stored type.
//!
//! | from | to | PostgreSQL's function | fails the row |
//! |---|---|---|---|
//! | double precision, real | int, bigint | `dtoi4`, `dtoi8`, `ftoi4`, … | NaN, out of range |
//! | numeric | int, bigint | `numeric_int4`, `numeric_int8` | out of range |
//! | double precision | real | `dtof` | overflow, underflow |
//! | real, double precision | numeric(p,s) | `float8_numeric`, … | NaN, too many digits |
//! | timestamp, timestamptz | date | `timestamp_date`, `timestamptz_date` | never |
//! | text | any | the input function of the type | text of another form |
//! | any | text | the output function of the type | never |
//!
//! Invariant: the table holds at most one cast for a pair of kinds. The lookup in
//! [`crate::typing::rewrite`] takes the first.

use std::borrow::Cow;

use arrow::datatypes::DataType;
use datafusion_common::ScalarValue;

use super::entry::{Answer, Entry, Kind, body, rows, scaled};
use crate::numeric::arithmetic::{long, narrow};
use crate::numeric::decimals::sized;
use crate::numeric::parse;
use crate::text::{arrays, format};
use crate::value::calendar;
use crate::value::datum::Datum;
use crate::value::decimal::Num;

/// The name of casts in the table.
pub(super) const CAST: &str = "CAST";
/// Conversion to the text that `concat` writes. It differs from the cast to text for booleans: `t`
/// instead of `true`.
pub(super) const OUTPUT: &str = "output";
/// Checks that an int fits a smallint, which is stored as an int.
pub(super) const SMALLINT: &str = "smallint";
/// Reads a uuid, which is stored as text.
pub(super) const UUID: &str = "uuid";
/// Cuts a text to the length of `varchar(n)`, in characters.
pub(super) const VARCHAR: &str = "varchar";
/// Takes the text of a column for a json. A captured column of the type jsonb is one too.
pub const JSON: &str = "json";
/// Takes the text of a column for a jsonb, which has the form of one already.
pub const JSONB: &str = "jsonb";
/// A cast to `numeric(precision, scale)`; both are further arguments, and constants.
pub(super) const NUMERIC: &str = "numeric";

/// The error of a value that does not fit the type.
///
/// `kind` is the SQL name of the type, as in PostgreSQL's "integer out of range".
fn out(kind: &str) -> String {
    format!("{kind} out of range")
}

/// Rounds half to even, as C's `rint`, and fails in the cases in which PostgreSQL's `dtoi4` and
/// `dtoi8` fail.
///
/// The result is a whole number in the range from `least` (included) to `most` (excluded). NaN
/// fails, because NaN is in no range. The bounds are doubles because both limits are powers of two,
/// which a double holds exactly.
fn rounded(value: f64, least: f64, most: f64, kind: &str) -> Result<i128, String> {
    let value = value.round_ties_even();
    match value >= least && value < most {
        true => Ok(value as i128),
        false => Err(out(kind)),
    }
}

/// A double as an integer.
fn to_int(value: f64) -> Answer {
    narrow(rounded(
        value,
        -2_147_483_648.0,
        2_147_483_648.0,
        "integer",
    )?)
}

/// A double as a bigint.
fn to_long(value: f64) -> Answer {
    long(rounded(
        value,
        -9_223_372_036_854_775_808.0,
        9_223_372_036_854_775_808.0,
        "bigint",
    )?)
}

/// A floating point number as a decimal of `digits` significant digits: 15 as in C's `%.15g` for
/// doubles, 6 for reals.
///
/// PostgreSQL's `float8_numeric` prints the number with `DBL_DIG` (15) digits and reads the text as
/// a numeric; `float4_numeric` uses `FLT_DIG` (6). Digits beyond that are lost there as well, so
/// `0.1::float8::numeric` is 0.1.
fn decimal(value: f64, digits: usize) -> Result<Num, String> {
    if !value.is_finite() {
        return Err(format!(
            "cannot keep {} in a numeric",
            format::double(value)
        ));
    }
    parse::numeric(&format!("{value:.*e}", digits - 1))
}

/// A number as `numeric(precision, scale)`: rounded to the scale. Fails if it does not fit.
///
/// PostgreSQL's `apply_typmod`. `precision` and `scale` are the type modifiers as SQL names them.
pub(crate) fn fitted(value: Num, precision: i32, scale: i32) -> Answer {
    let value = value.rounded(scale)?;
    let precision = u8::try_from(precision).map_err(|_| out("precision"))?;
    value.fitted(precision, scale)?;
    Ok(Datum::Numeric(value))
}

/// A double as a real. Overflow and underflow fail the row, as in PostgreSQL's `dtof`.
fn real(value: f64) -> Answer {
    let narrow = value as f32;
    if narrow.is_infinite() && !value.is_infinite() {
        return Err("value out of range: overflow".to_owned());
    }
    if narrow == 0.0 && value != 0.0 {
        return Err("value out of range: underflow".to_owned());
    }
    Ok(Datum::Real(narrow))
}

/// Casts to and from integers and bigints.
///
/// Casts from numerics round half away from zero, and casts from floating point numbers round half
/// to even, as in PostgreSQL: `2.5::int` is 3, and `2.5::float8::int` is 2.
#[expect(clippy::too_many_lines, reason = "a list of entries, and no steps")]
fn integers() -> Vec<Entry> {
    use Datum::{Bool, Double, Int, Long, Numeric, Real, Text};
    const I: Kind = Kind::Int;
    const L: Kind = Kind::Long;
    vec![
        rows(
            CAST,
            &[Kind::Bool],
            I,
            body!([Bool(value)] => Ok(Int(i32::from(*value)))),
        ),
        rows(
            CAST,
            &[I],
            Kind::Bool,
            body!([Int(value)] => Ok(Bool(*value != 0))),
        ),
        rows(
            CAST,
            &[I],
            L,
            body!([Int(value)] => Ok(Long(i64::from(*value)))),
        ),
        rows(
            CAST,
            &[L],
            I,
            body!([Long(value)] => narrow(i128::from(*value))),
        ),
        rows(
            CAST,
            &[Kind::Real],
            I,
            body!([Real(value)] => to_int(f64::from(*value))),
        ),
        rows(
            CAST,
            &[Kind::Real],
            L,
            body!([Real(value)] => to_long(f64::from(*value))),
        ),
        rows(
            CAST,
            &[Kind::Double],
            I,
            body!([Double(value)] => to_int(*value)),
        ),
        rows(
            CAST,
            &[Kind::Double],
            L,
            body!([Double(value)] => to_long(*value)),
        ),
        rows(
            CAST,
            &[Kind::Numeric],
            I,
            body!([Numeric(value)] => narrow(value.integer()?)),
        ),
        rows(
            CAST,
            &[Kind::Numeric],
            L,
            body!([Numeric(value)] => long(value.integer()?)),
        ),
        rows(
            CAST,
            &[Kind::Text],
            I,
            body!([Text(value)] => narrow(parse::integer(value, "integer")?)),
        ),
        rows(
            CAST,
            &[Kind::Text],
            L,
            body!([Text(value)] => long(parse::integer(value, "bigint")?)),
        ),
        rows(
            SMALLINT,
            &[I],
            I,
            body!([Int(value)] => match i16::try_from(*value) {
                Ok(_) => Ok(Int(*value)),
                Err(_) => Err(out("smallint")),
            }),
        ),
    ]
}

/// Casts to floating point numbers and numerics.
///
/// A cast of an integer or a bigint to `numeric` without modifiers has the precision of the
/// greatest value: 10 and 19 digits. Text and floating point numbers have casts to
/// `numeric(precision, scale)` only, because without modifiers each value has a scale of its own.
#[expect(clippy::too_many_lines, reason = "a list of entries, and no steps")]
fn numbers() -> Vec<Entry> {
    use Datum::{Double, Int, Long, Numeric, Real, Text};
    const D: Kind = Kind::Double;
    const R: Kind = Kind::Real;
    const N: Kind = Kind::Numeric;
    let mut entries = vec![
        rows(
            CAST,
            &[Kind::Int],
            D,
            body!([Int(value)] => Ok(Double(f64::from(*value)))),
        ),
        rows(
            CAST,
            &[Kind::Long],
            D,
            body!([Long(value)] => Ok(Double(*value as f64))),
        ),
        rows(
            CAST,
            &[R],
            D,
            body!([Real(value)] => Ok(Double(f64::from(*value)))),
        ),
        rows(
            CAST,
            &[N],
            D,
            body!([Numeric(value)] => Ok(Double(value.double()))),
        ),
        rows(
            CAST,
            &[Kind::Text],
            D,
            body!([Text(value)] => parse::double(value).map(Double)),
        ),
        rows(
            CAST,
            &[Kind::Int],
            R,
            body!([Int(value)] => Ok(Real(*value as f32))),
        ),
        rows(
            CAST,
            &[Kind::Long],
            R,
            body!([Long(value)] => Ok(Real(*value as f32))),
        ),
        rows(CAST, &[D], R, body!([Double(value)] => real(*value))),
        rows(
            CAST,
            &[N],
            R,
            body!([Numeric(value)] => Ok(Real(value.real()))),
        ),
        rows(
            CAST,
            &[Kind::Text],
            R,
            body!([Text(value)] => parse::real(value).map(Real)),
        ),
        scaled(
            CAST,
            &[Kind::Int],
            |_, _| Ok((10, 0)),
            body!([Int(value)] => {
                Ok(Numeric(Num::new(i128::from(*value), 0)))
            }),
        ),
        scaled(
            CAST,
            &[Kind::Long],
            |_, _| Ok((19, 0)),
            body!([Long(value)] => {
                Ok(Numeric(Num::new(i128::from(*value), 0)))
            }),
        ),
    ];
    const ARGUMENTS: [&[Kind]; 5] = [
        &[Kind::Int, Kind::Int, Kind::Int],
        &[Kind::Long, Kind::Int, Kind::Int],
        &[Kind::Real, Kind::Int, Kind::Int],
        &[Kind::Double, Kind::Int, Kind::Int],
        &[Kind::Numeric, Kind::Int, Kind::Int],
    ];
    for takes in ARGUMENTS {
        // A numeric in Tidemill holds neither NaN nor infinities.
        let entry = scaled(NUMERIC, takes, modified, to_numeric);
        let floats = matches!(takes, [Kind::Real | Kind::Double, ..]);
        entries.push(if floats { entry.narrower() } else { entry });
    }
    let text = &[Kind::Text, Kind::Int, Kind::Int];
    entries.push(scaled(NUMERIC, text, modified, to_numeric).narrower());
    entries
}

/// The precision and scale, which are the constants after the value.
///
/// # Errors
/// Precision or scale is not a constant, or the scale is greater than 38.
pub(crate) fn modified(
    _: &[DataType],
    constants: &[Option<&ScalarValue>],
) -> Result<(u8, i8), String> {
    match constants {
        [
            _,
            Some(ScalarValue::Int32(Some(precision))),
            Some(ScalarValue::Int32(Some(scale))),
        ] => sized(*precision, *scale),
        _ => Err("precision and scale are constants".to_owned()),
    }
}

/// The cast to `numeric(precision, scale)`.
///
/// # Errors
/// The text is not a number, the floating point number is NaN or infinite, or the value does not
/// fit the precision.
fn to_numeric(arguments: &[Datum<'_>]) -> Answer {
    let [value, Datum::Int(precision), Datum::Int(scale)] = arguments else {
        return Err("precision and scale are constants".to_owned());
    };
    let value = match value {
        Datum::Int(value) => Num::new(i128::from(*value), 0),
        Datum::Long(value) => Num::new(i128::from(*value), 0),
        Datum::Real(value) => decimal(f64::from(*value), 6)?,
        Datum::Double(value) => decimal(*value, 15)?,
        Datum::Numeric(value) => *value,
        Datum::Text(value) => parse::numeric(value)?,
        _ => return Err("arguments of other types than were planned".to_owned()),
    };
    fitted(value, *precision, *scale)
}

/// Casts between dates, timestamps, timestamptzs and text. The session's time zone is UTC.
///
/// A date becomes midnight. A timestamp becomes the date on which it lies, also before 1970, where
/// the microseconds are negative. A timestamp and the timestamptz of the same UTC time have the
/// same microseconds, so these two casts change only the type.
///
/// Casts from text are `narrower`: they read the ISO forms only ([`parse::timestamp`]).
fn times() -> Vec<Entry> {
    use Datum::{Date, Stamp, Text};
    const DAY: Kind = Kind::Date;
    const T: Kind = Kind::Timestamp;
    const Z: Kind = Kind::Timestamptz;
    let start = body!([Date(days)] => calendar::stamp(i64::from(*days), 0).map(Stamp));
    let day = body!([Stamp(micros)] => calendar::date(calendar::moment(*micros).days).map(Date));
    let same = body!([Stamp(micros)] => Ok(Stamp(*micros)));
    vec![
        rows(CAST, &[DAY], T, start),
        rows(CAST, &[DAY], Z, start),
        rows(CAST, &[T], DAY, day),
        rows(CAST, &[Z], DAY, day),
        rows(CAST, &[T], Z, same),
        rows(CAST, &[Z], T, same),
        rows(
            CAST,
            &[Kind::Text],
            DAY,
            body!([Text(value)] => parse::date(value)),
        )
        .narrower(),
        rows(
            CAST,
            &[Kind::Text],
            T,
            body!([Text(value)] => parse::timestamp(value)),
        )
        .narrower(),
        rows(
            CAST,
            &[Kind::Text],
            Z,
            body!([Text(value)] => parse::timestamptz(value)),
        )
        .narrower(),
    ]
}

/// Casts to text, and from text to boolean, bytea, uuid and varchar.
///
/// `boolean` as text is `true` or `false` (`booltext`), while its output function writes `t` or `f`
/// ([`OUTPUT`]). A cast to `varchar(n)` cuts the text without an error, as an explicit cast does in
/// PostgreSQL; assignments, which would fail, do not occur in views.
#[expect(clippy::too_many_lines, reason = "a list of entries, and no steps")]
fn texts() -> Vec<Entry> {
    use Datum::{Bool, Bytes, Int, Text};
    const X: Kind = Kind::Text;
    let mut entries = vec![
        rows(
            CAST,
            &[Kind::Bool],
            X,
            body!([Bool(value)] => Ok(Datum::text(value.to_string()))),
        ),
        rows(OUTPUT, &[Kind::Bool], X, output),
        rows(
            CAST,
            &[X],
            Kind::Bool,
            body!([Text(value)] => parse::boolean(value)),
        ),
        rows(
            CAST,
            &[X],
            Kind::Bytes,
            body!([Text(value)] => {
                parse::bytes(value).map(|bytes| Bytes(Cow::Owned(bytes)))
            }),
        ),
        rows(
            UUID,
            &[X],
            X,
            body!([Text(value)] => parse::uuid(value).map(Datum::text)),
        ),
        rows(
            VARCHAR,
            &[X, Kind::Int],
            X,
            body!([Text(value), Int(most)] => {
                let most = usize::try_from(*most).unwrap_or(0);
                Ok(Datum::text(value.chars().take(most).collect::<String>()))
            }),
        ),
    ];
    entries.push(
        rows(
            CAST,
            &[X],
            Kind::Texts,
            body!([Text(value)] => arrays::read(value).map(arrays::texts)),
        )
        .narrower(),
    );
    const WITH_TEXT: [&[Kind]; 10] = [
        &[Kind::Int],
        &[Kind::Long],
        &[Kind::Numeric],
        &[Kind::Real],
        &[Kind::Double],
        &[Kind::Bytes],
        &[Kind::Date],
        &[Kind::Timestamp],
        &[Kind::Interval],
        &[Kind::Texts],
    ];
    for takes in WITH_TEXT {
        entries.push(rows(CAST, takes, X, output));
    }
    entries.push(rows(
        CAST,
        &[Kind::Timestamptz],
        X,
        body!([value] => {
            Ok(Datum::text(format::text(value, true)))
        }),
    ));
    entries
}

/// The text of any value except a timestamptz, which has an entry of its own.
fn output(arguments: &[Datum<'_>]) -> Answer {
    match arguments {
        [value] => Ok(Datum::text(format::text(value, false))),
        _ => Err("arguments of other types than were planned".to_owned()),
    }
}

/// All entries of this family.
pub(super) fn entries() -> Vec<Entry> {
    let mut entries = integers();
    entries.extend(numbers());
    entries.extend(times());
    entries.extend(texts());
    entries
}
