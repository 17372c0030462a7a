//! `now()`: the time of the epoch, as a function that is never evaluated.
//!
//! A plan may contain calls of it only where [`crate::lower::temporal`] makes a temporal filter of
//! the comparison around it. It is volatile, so no rule of the planner computes it in advance.

use std::sync::Arc;

use arrow::datatypes::{DataType, TimeUnit};
use datafusion_common::tree_node::TreeNode;
use datafusion_common::{Result, internal_err};
use datafusion_expr::{
    ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

/// The name of the function.
pub(crate) const NAME: &str = "now";

/// Where `now()` may stand, as the end of a refusal.
pub(crate) const PLACES: &str = "`now()` (also as current_timestamp or current_date) is \
    supported in a condition of WHERE, of HAVING, or of ON \
    of an inner join, that stands alone or beside AND and compares it (`<`, `<=`, `=`, `>=`, `>`, \
    BETWEEN) with an expression without `now()`, as in `created_at > now() - INTERVAL '1 hour'`; \
    instead of `a IS NULL OR a > now()`, write `coalesce(a, TIMESTAMPTZ '9999-12-31') > now()`";

/// What may be computed of `now()`, as the end of a refusal.
pub(crate) const CLOCKS: &str = "beside `now()` there may be a constant interval without months \
    (or days of a date) that is added or subtracted, a cast to date or timestamp, date_trunc to a \
    second, minute, hour or day, and AT TIME ZONE 'UTC'; write other computations on the other \
    side of the comparison";

/// Why an interval with months is refused, and what to write instead.
pub(crate) const MONTHS: &str = "an interval with months or years beside `now()` is not supported \
    in views: add it on the other side, as in `created_at + INTERVAL '1 month' > now()`";

/// The function, for the planner.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(crate) struct Now {
    /// No arguments.
    signature: Signature,
}

impl Now {
    /// The function.
    pub(crate) fn function() -> Arc<ScalarUDF> {
        Arc::new(ScalarUDF::from(Self {
            signature: Signature::nullary(Volatility::Volatile),
        }))
    }
}

impl ScalarUDFImpl for Now {
    fn name(&self) -> &str {
        NAME
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Timestamp(
            TimeUnit::Microsecond,
            Some("UTC".into()),
        ))
    }

    fn invoke_with_args(&self, _: ScalarFunctionArgs) -> Result<ColumnarValue> {
        internal_err!("`now()` is not evaluated row by row")
    }
}

/// Whether an expression contains a call of `now()`.
pub(crate) fn mentions(expr: &Expr) -> bool {
    let found = expr.exists(|expr| {
        Ok(matches!(expr, Expr::ScalarFunction(call) if call.func.inner().is::<Now>()))
    });
    // The closure does not fail.
    found.unwrap_or(true)
}
