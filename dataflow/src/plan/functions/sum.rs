//! `sum` with PostgreSQL's types: that of reals is a real, and that of bigints a numeric.

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion_common::{Result, internal_err};
use datafusion_expr::function::AccumulatorArgs;
use datafusion_expr::{Accumulator, AggregateUDF, AggregateUDFImpl, Signature, Volatility};

use super::numeric::DIGITS;

/// Digits that a sum of numerics has more than each of them.
const MORE_DIGITS: u8 = 10;

#[derive(Debug, PartialEq, Eq, Hash)]
struct Sum {
    signature: Signature,
}

/// The aggregate `sum`.
pub(in crate::plan) fn sum() -> Arc<AggregateUDF> {
    let signature = Signature::any(1, Volatility::Immutable);
    Arc::new(AggregateUDF::from(Sum { signature }))
}

impl AggregateUDFImpl for Sum {
    fn name(&self) -> &str {
        "sum"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, kinds: &[DataType]) -> Result<DataType> {
        Ok(match kinds {
            [DataType::Decimal128(precision, scale)] => {
                DataType::Decimal128((precision + MORE_DIGITS).min(DIGITS), *scale)
            }
            [DataType::Int32] => DataType::Int64,
            [DataType::Int64] => DataType::Decimal128(19 + MORE_DIGITS, 0),
            [DataType::Float32] => DataType::Float32,
            _ => DataType::Float64,
        })
    }

    fn accumulator(&self, _: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        internal_err!("sum is rendered, not evaluated")
    }
}
