//! `sum` and `avg` with the types that PostgreSQL has, not the library: the sum of reals is a real,
//! that of bigints a numeric, and an average of numerics is divided as `numeric_avg` does.

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion_common::{Result, internal_err};
use datafusion_expr::function::AccumulatorArgs;
use datafusion_expr::{Accumulator, AggregateUDF, AggregateUDFImpl, Signature, Volatility};

use super::decimal::{DIGITS, Num};

/// Digits that a sum of numerics has more than each of them.
const MORE_DIGITS: u8 = 10;
/// Digits after the point of an average, unless its argument has more or takes their place.
const SCALE: i8 = 28;
/// As many are always there: averages below 1 have 20 and more.
const SCALE_LEAST: i8 = 20;

#[derive(Debug, PartialEq, Eq, Hash)]
enum Function {
    Sum,
    Avg,
}

/// An aggregate that the planner types and the dataflow evaluates.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Aggregate {
    function: Function,
    signature: Signature,
}

fn aggregate(function: Function) -> Arc<AggregateUDF> {
    let signature = Signature::any(1, Volatility::Immutable);
    Arc::new(AggregateUDF::from(Aggregate {
        function,
        signature,
    }))
}

/// The aggregate `sum`.
pub(in crate::plan) fn sum() -> Arc<AggregateUDF> {
    aggregate(Function::Sum)
}

/// The aggregate `avg`.
pub(in crate::plan) fn average() -> Arc<AggregateUDF> {
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

/// That of integers and numerics is a numeric, that of floating point numbers a double.
fn average_type(kinds: &[DataType]) -> DataType {
    match kinds {
        [DataType::Decimal128(precision, scale)] => {
            let room = DIGITS.cast_signed() - (precision.cast_signed() - scale);
            let scale = room.clamp(SCALE_LEAST, SCALE).max(*scale);
            DataType::Decimal128(DIGITS, scale)
        }
        // Until arguments have their types: integers are averaged as numerics.
        [DataType::Int32 | DataType::Int64] => DataType::Decimal128(DIGITS, SCALE),
        _ => DataType::Float64,
    }
}

/// The average of `count` numerics of `scale` whose digits add up to `sum`, as digits of a
/// numeric of that precision and scale; none when it does not fit.
pub(crate) fn averaged(sum: i128, scale: i8, count: i64, to: (u8, i8)) -> Option<i128> {
    let sum = Num::new(sum, i32::from(scale));
    let average = sum.divide(Num::new(i128::from(count), 0)).ok()?;
    average.fitted(to.0, i32::from(to.1)).ok()
}
