//! The aggregate functions `sum` and `avg`, with PostgreSQL's result types.
//!
//! DataFusion's own types differ: here the sum of reals is a real, the sum of bigints is a numeric,
//! and an average of numerics is divided as PostgreSQL's `numeric_avg` divides.
//!
//! | argument | `sum` | `avg` |
//! |---|---|---|
//! | integer | bigint | numeric |
//! | bigint | numeric | numeric |
//! | numeric | numeric of ten more digits | numeric |
//! | real | real | double precision |
//! | double precision | double precision | double precision |
//!
//! The functions only give the types. The dataflow evaluates them ([`tidemill_ir`]).

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion_common::{Result, internal_err};
use datafusion_expr::function::AccumulatorArgs;
use datafusion_expr::{Accumulator, AggregateUDF, AggregateUDFImpl, Signature, Volatility};

use crate::value::decimal::{DIGITS, Num};

/// Digits that the sum of numerics has in addition to the digits of one numeric. Ten digits are
/// room for 10^10 rows.
const MORE_DIGITS: u8 = 10;
/// Digits after the point of an average, unless the argument has more, or its whole part leaves
/// less room.
const SCALE: i8 = 28;
/// Least number of digits after the point of an average, because averages below 1 have 20 and more
/// digits in PostgreSQL.
const SCALE_LEAST: i8 = 20;

/// Which aggregate function it is.
#[derive(Debug, PartialEq, Eq, Hash)]
enum Function {
    /// `sum`.
    Sum,
    /// `avg`.
    Avg,
}

/// An aggregate function that the planner types and the dataflow evaluates.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Aggregate {
    /// Which function it is.
    function: Function,
    /// One argument of any type. [`crate::typing::rewrite`] checks the type.
    signature: Signature,
}

/// The aggregate function for the planner.
fn aggregate(function: Function) -> Arc<AggregateUDF> {
    let signature = Signature::any(1, Volatility::Immutable);
    Arc::new(AggregateUDF::from(Aggregate {
        function,
        signature,
    }))
}

/// The aggregate `sum`.
///
/// The planner registers this function instead of DataFusion's `sum`. Calling its accumulator is an
/// internal error, because the dataflow adds up the values.
pub fn sum() -> Arc<AggregateUDF> {
    aggregate(Function::Sum)
}

/// The aggregate `avg`.
///
/// The dataflow keeps the sum and the count, and divides with [`averaged`].
pub fn average() -> Arc<AggregateUDF> {
    aggregate(Function::Avg)
}

impl AggregateUDFImpl for Aggregate {
    fn name(&self) -> &str {
        match self.function {
            Function::Sum => "sum",
            Function::Avg => "avg",
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, kinds: &[DataType]) -> Result<DataType> {
        Ok(match self.function {
            Function::Sum => sum_type(kinds),
            Function::Avg => average_type(kinds),
        })
    }

    fn accumulator(&self, _: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        internal_err!("{} is rendered, not evaluated", self.name())
    }
}

/// The type of the sum of values of the type `kinds[0]`.
fn sum_type(kinds: &[DataType]) -> DataType {
    match kinds {
        [DataType::Decimal128(precision, scale)] => {
            DataType::Decimal128((precision + MORE_DIGITS).min(DIGITS), *scale)
        }
        [DataType::Int32] => DataType::Int64,
        [DataType::Int64] => DataType::Decimal128(19 + MORE_DIGITS, 0),
        [DataType::Float32] => DataType::Float32,
        _ => DataType::Float64,
    }
}

/// The type of the average: a numeric for integers and numerics, a double for floating point
/// numbers.
fn average_type(kinds: &[DataType]) -> DataType {
    match kinds {
        [DataType::Decimal128(precision, scale)] => {
            let room = DIGITS.cast_signed() - (precision.cast_signed() - scale);
            let scale = room.clamp(SCALE_LEAST, SCALE).max(*scale);
            DataType::Decimal128(DIGITS, scale)
        }
        // Before the arguments have their types: integers are averaged as numerics.
        [DataType::Int32 | DataType::Int64] => DataType::Decimal128(DIGITS, SCALE),
        _ => DataType::Float64,
    }
}

/// The average of `count` numerics with `scale` digits after the point, whose digits add up to
/// `sum`.
///
/// The result is the digits of a numeric of the precision and scale `to`, or None if the average
/// does not fit or `count` is 0.
///
/// The digits are those of `numeric_avg`: the quotient of the sum and the count, with the number of
/// digits that PostgreSQL's `select_div_scale` gives.
///
/// ```
/// // 1 + 2 + 3 + 4 = 10, and 10 / 4 = 2.5, as numeric(38,28).
/// let average = tidemill_functions::averaged(10, 0, 4, (38, 28));
/// assert_eq!(average, Some(25 * 10_i128.pow(27)));
/// assert_eq!(tidemill_functions::averaged(10, 0, 0, (38, 28)), None);
/// ```
pub fn averaged(sum: i128, scale: i8, count: i64, to: (u8, i8)) -> Option<i128> {
    let sum = Num::new(sum, i32::from(scale));
    let average = sum.divide(Num::new(i128::from(count), 0)).ok()?;
    average.fitted(to.0, i32::from(to.1)).ok()
}
