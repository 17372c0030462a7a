//! `row_number()` as DataFusion's planner knows it: a name and a type. It is rendered as a top-k
//! ([`crate::lower::top_k`]) and never evaluated.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion_common::tree_node::{Transformed, TreeNode};
use datafusion_common::{Result, internal_err};
use datafusion_expr::expr_rewriter::NamePreserver;
use datafusion_expr::function::{PartitionEvaluatorArgs, WindowUDFFieldArgs};
use datafusion_expr::{
    Expr, LogicalPlan, PartitionEvaluator, Signature, Volatility, WindowFrame, WindowUDFImpl,
};

/// The function's name in SQL.
pub(crate) const NAME: &str = "row_number";

/// The function `row_number()`: a row's number within its group, from 1.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(crate) struct RowNumber {
    /// No arguments.
    signature: Signature,
}

impl RowNumber {
    /// The function, without arguments.
    pub(crate) fn new() -> Self {
        Self {
            signature: Signature::nullary(Volatility::Immutable),
        }
    }
}

impl WindowUDFImpl for RowNumber {
    fn name(&self) -> &str {
        NAME
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn partition_evaluator(
        &self,
        _: PartitionEvaluatorArgs<'_>,
    ) -> Result<Box<dyn PartitionEvaluator>> {
        internal_err!("row_number() is rendered, not evaluated")
    }

    /// As in PostgreSQL, a bigint.
    fn field(&self, field: WindowUDFFieldArgs<'_>) -> Result<FieldRef> {
        Ok(Arc::new(Field::new(field.name(), DataType::Int64, false)))
    }
}

/// The plan with default frames of rows. A row number has no frame, and the planner's own range
/// frame does not allow bytes in ORDER BY.
///
/// # Errors
/// When a rewritten plan is not valid.
///
/// The planner checks the ORDER BY of a range frame against types that it can add to, and bytes are
/// not among them.
pub(crate) fn unframed(plan: LogicalPlan) -> Result<LogicalPlan> {
    let unframed = |expr: Expr| match expr {
        Expr::WindowFunction(mut call) => {
            call.params.window_frame = WindowFrame::new(None);
            Ok(Transformed::yes(Expr::WindowFunction(call)))
        }
        other => Ok(Transformed::no(other)),
    };
    let plan = plan.transform_up(|node| {
        if !matches!(node, LogicalPlan::Window(_)) {
            return Ok(Transformed::no(node));
        }
        let names = NamePreserver::new(&node);
        node.map_expressions(|expr| {
            let name = names.save(&expr);
            let expr = expr.transform(unframed)?;
            Ok(expr.update_data(|expr| name.restore(expr)))
        })
    });
    Ok(plan?.data)
}
