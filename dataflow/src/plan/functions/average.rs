//! `avg` of numerics, as PostgreSQL's `numeric_avg` divides: the library's keeps four digits more
//! than its argument and no others.

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion_common::{Result, internal_err};
use datafusion_expr::function::AccumulatorArgs;
use datafusion_expr::{Accumulator, AggregateUDF, AggregateUDFImpl, Signature, Volatility};

use super::numeric::{DIGITS, Num};

/// Digits after the point of an average, unless its argument has more or takes their place.
const SCALE: i8 = 28;
/// As many are always there: averages below 1 have 20 and more.
const SCALE_LEAST: i8 = 20;

/// The average of integers and numerics; that of floating point numbers is a double.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Average {
    signature: Signature,
}

/// The aggregate `avg`.
pub(in crate::plan) fn average() -> Arc<AggregateUDF> {
    let signature = Signature::any(1, Volatility::Immutable);
    Arc::new(AggregateUDF::from(Average { signature }))
}

impl AggregateUDFImpl for Average {
    fn name(&self) -> &str {
        "avg"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, kinds: &[DataType]) -> Result<DataType> {
        Ok(match kinds {
            [DataType::Decimal128(precision, scale)] => {
                let room = DIGITS.cast_signed() - (precision.cast_signed() - scale);
                let scale = room.clamp(SCALE_LEAST, SCALE).max(*scale);
                DataType::Decimal128(DIGITS, scale)
            }
            // Until arguments have their types: integers are averaged as numerics.
            [DataType::Int32 | DataType::Int64] => DataType::Decimal128(DIGITS, SCALE),
            _ => DataType::Float64,
        })
    }

    fn accumulator(&self, _: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        internal_err!("avg is rendered, not evaluated")
    }
}

/// The average of `count` numerics of `scale` whose digits add up to `sum`, as digits of a
/// numeric of that precision and scale; none when it does not fit.
pub(crate) fn averaged(sum: i128, scale: i8, count: i64, to: (u8, i8)) -> Option<i128> {
    let sum = Num::new(sum, i32::from(scale));
    let average = sum.divide(Num::new(i128::from(count), 0)).ok()?;
    average.fitted(to.0, i32::from(to.1)).ok()
}
