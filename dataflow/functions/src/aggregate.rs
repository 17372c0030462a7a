//! The aggregate functions that DataFusion does not have with PostgreSQL's types.
//!
//! DataFusion's own types differ: here the sum of reals is a real, the sum of bigints is a numeric,
//! and averages and variances of numerics are divided as PostgreSQL's `numeric` divides.
//!
//! | argument | `sum` | `avg`, variances and deviations |
//! |---|---|---|
//! | integer | bigint | numeric |
//! | bigint | numeric | numeric |
//! | numeric | numeric of ten more digits | numeric |
//! | real | real | double precision |
//! | double precision | double precision | double precision |
//!
//! Functions of pairs (`corr`, `covar_*`, `regr_*`) and `percentile_cont` give a double, `bit_*`,
//! `mode` and `percentile_disc` the type of their argument, `string_agg` a text.
//!
//! The functions only give the types. The dataflow evaluates them ([`tidemill_ir`]).

pub(crate) mod deviation;

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion_common::{Result, internal_err};
use datafusion_expr::function::AccumulatorArgs;
use datafusion_expr::{Accumulator, AggregateUDF, AggregateUDFImpl, Signature, Volatility};
use tidemill_ir::{AggregateFunction as Function, types};

use crate::value::decimal::{COMPUTED_SCALE_LEAST, DIGITS, Num};

/// Digits that the sum of numerics has in addition to the digits of one numeric. Ten digits are
/// room for 10^10 rows.
const MORE_DIGITS: u8 = 10;
/// Digits after the point of an average, unless the argument has more, or its whole part leaves
/// less room.
const SCALE: i8 = 28;

/// An aggregate function that the planner types and the dataflow evaluates.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Declared {
    /// Which function it is.
    function: Function,
    /// Arguments of any type. [`crate::typing::rewrite`] checks the types.
    signature: Signature,
}

/// The aggregate function for the planner, in place of DataFusion's.
///
/// Calling its accumulator is an internal error, because the dataflow computes the result.
pub fn declared(function: Function) -> Arc<AggregateUDF> {
    // The planner puts the expression of WITHIN GROUP before the other arguments.
    let arguments = function.arity() + usize::from(function.is_ordered_set());
    // A key and a value become one argument.
    let signature = match function.is_document() {
        true => Signature::variadic_any(Volatility::Immutable),
        false => Signature::any(arguments, Volatility::Immutable),
    };
    Arc::new(AggregateUDF::from(Declared {
        function,
        signature,
    }))
}

impl AggregateUDFImpl for Declared {
    fn name(&self) -> &str {
        self.function.name()
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn supports_within_group_clause(&self) -> bool {
        self.function.is_ordered_set()
    }

    fn return_type(&self, kinds: &[DataType]) -> Result<DataType> {
        let first = kinds.first().cloned().unwrap_or(DataType::Null);
        Ok(match self.function {
            Function::Sum => sum_type(kinds),
            Function::Avg => average_type(&first),
            Function::StddevPop | Function::StddevSamp => deviation_type(&first, false),
            Function::VarPop | Function::VarSamp => deviation_type(&first, true),
            Function::RegrCount => DataType::Int64,
            Function::StringAgg => DataType::Utf8,
            Function::JsonAgg | Function::JsonObjectAgg => types::JSON,
            Function::JsonbAgg | Function::JsonbObjectAgg => types::JSONB,
            Function::BoolAnd | Function::BoolOr => DataType::Boolean,
            Function::PercentileCont => DataType::Float64,
            function if function.is_of_pairs() => DataType::Float64,
            _ => first,
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
fn average_type(kind: &DataType) -> DataType {
    match kind {
        DataType::Decimal128(precision, scale) => {
            quotient_type(precision.cast_signed() - scale, *scale)
        }
        // Before the arguments have their types: integers are averaged as numerics.
        DataType::Int32 | DataType::Int64 => DataType::Decimal128(DIGITS, SCALE),
        _ => DataType::Float64,
    }
}

/// The type of a standard deviation, or of a variance if `squared`. In PostgreSQL both have at
/// least twice as many digits after the point as the argument.
fn deviation_type(kind: &DataType, squared: bool) -> DataType {
    match kind {
        DataType::Decimal128(precision, scale) => {
            let whole = precision.cast_signed() - scale;
            let whole = if squared { whole * 2 } else { whole };
            quotient_type(whole, scale.saturating_mul(2).min(DIGITS.cast_signed()))
        }
        DataType::Int32 | DataType::Int64 => DataType::Decimal128(DIGITS, SCALE),
        _ => DataType::Float64,
    }
}

/// A numeric with room for `whole` digits before the point, as far as there is room, and for
/// `scale` digits and more after it.
fn quotient_type(whole: i8, scale: i8) -> DataType {
    let room = DIGITS.cast_signed().saturating_sub(whole);
    DataType::Decimal128(DIGITS, room.clamp(COMPUTED_SCALE_LEAST, SCALE).max(scale))
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
