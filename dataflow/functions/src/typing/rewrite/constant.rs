//! Evaluation of constant expressions while a query is typed.
//!
//! The expression is evaluated by the same code that evaluates rows, over one row without columns.

use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions};
use datafusion_common::{DFSchema, Result, ScalarValue};
use datafusion_expr::Expr;
use datafusion_expr::execution_props::ExecutionProps;
use datafusion_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion_physical_expr::create_physical_expr;

/// The value of a constant expression.
///
/// # Errors
/// The expression reads a column, or its evaluation fails.
pub(super) fn evaluated(expr: &Expr) -> Result<ScalarValue> {
    let empty = DFSchema::empty();
    let physical = create_physical_expr(
        expr,
        &empty,
        &ExecutionProps::new(),
        &PhysicalPlanningContext::default(),
    )?;
    let options = RecordBatchOptions::new().with_row_count(Some(1));
    let schema = Arc::clone(empty.inner());
    let row = RecordBatch::try_new_with_options(schema, Vec::new(), &options)?;
    let value = physical.evaluate(&row)?.into_array(1)?;
    ScalarValue::try_from_array(&value, 0)
}
