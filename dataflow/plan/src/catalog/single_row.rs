//! `single row`: the check that a scalar subquery has at most one row.

use arrow::array::{ArrayRef, AsArray, BooleanArray};
use arrow::datatypes::{DataType, Int64Type};
use datafusion_common::{Result, exec_err};
use datafusion_expr::{
    ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use std::sync::Arc;

/// The function's name, which no query can write.
const NAME: &str = "single row";

/// A function of a number of rows: true, or an error if there are several.
#[derive(Debug, PartialEq, Eq, Hash)]
struct SingleRow {
    /// One bigint.
    signature: Signature,
}

/// A condition that is true, and an error where `rows` is greater than 1.
pub(crate) fn single_row(rows: Expr) -> Expr {
    let function = ScalarUDF::from(SingleRow {
        signature: Signature::exact(vec![DataType::Int64], Volatility::Immutable),
    });
    function.call(vec![rows])
}

impl ScalarUDFImpl for SingleRow {
    fn name(&self) -> &str {
        NAME
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Boolean)
    }

    /// # Errors
    /// PostgreSQL's message, when a number is greater than 1.
    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let rows = ColumnarValue::values_to_arrays(&args.args)?;
        let several = |rows: &ArrayRef| {
            let rows = rows.as_primitive::<Int64Type>();
            rows.iter().flatten().any(|rows| rows > 1)
        };
        if rows.first().is_some_and(several) {
            return exec_err!("more than one row returned by a subquery used as an expression");
        }
        let single = BooleanArray::from(vec![true; args.number_rows]);
        Ok(ColumnarValue::Array(Arc::new(single)))
    }
}
