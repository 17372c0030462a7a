//! Plan shapes: brings the SQL planner's plan into the shapes that the later steps expect.
//!
//! - A group key counts once, however often GROUP BY repeats it, because rules find keys by name.
//! - DISTINCT ON becomes the first row of each group: numbered by `row_number()` and filtered, as a
//!   user would write it. Under a LIMIT, its ORDER BY also decides which groups come first.
//!
//! ```text
//! SELECT DISTINCT ON (g) a FROM t ORDER BY g, x
//!   ─► Projection a
//!        Filter "distinct on" <= 1
//!          Window row_number() OVER (PARTITION BY g ORDER BY x) AS "distinct on"
//!            t
//! ```

use std::sync::Arc;

use datafusion_common::tree_node::{Transformed, TreeNode};
use datafusion_common::{Column, JoinConstraint, Result, plan_err};
use datafusion_expr::expr::{Sort as SortExpr, WindowFunction};
use datafusion_expr::logical_plan::{Aggregate, DistinctOn, Projection};
use datafusion_expr::{
    Distinct, Expr, ExprFunctionExt, ExprSchemable, LogicalPlan, LogicalPlanBuilder,
    WindowFunctionDefinition, WindowUDF, lit,
};
use tidemill_ir::types;

use crate::catalog::row_number::RowNumber;

/// The name of the column that numbers the rows of DISTINCT ON. No query can use this name.
const NUMBER: &str = "distinct on";

/// Brings a planned query into shape.
///
/// # Errors
/// When a column of USING or NATURAL has another type on the other side of the join.
pub(crate) fn shaped(plan: LogicalPlan) -> Result<LogicalPlan> {
    let shaped = plan.transform_down(|node| {
        Ok(match node {
            LogicalPlan::Aggregate(grouping) if repeats(&grouping.group_expr) => {
                let keys = once(&grouping.group_expr);
                let grouping = Aggregate::try_new(grouping.input, keys, grouping.aggr_expr)?;
                Transformed::yes(LogicalPlan::Aggregate(grouping))
            }
            LogicalPlan::Limit(mut limit) => match Arc::unwrap_or_clone(limit.input) {
                LogicalPlan::Distinct(Distinct::On(distinct)) => {
                    limit.input = Arc::new(first_of_each(distinct, true)?);
                    Transformed::yes(LogicalPlan::Limit(limit))
                }
                other => {
                    limit.input = Arc::new(other);
                    Transformed::no(LogicalPlan::Limit(limit))
                }
            },
            LogicalPlan::Distinct(Distinct::On(distinct)) => {
                Transformed::yes(first_of_each(distinct, false)?)
            }
            LogicalPlan::Join(join) => {
                if join.join_constraint == JoinConstraint::Using {
                    of_one_kind(&join.on, join.left.schema(), join.right.schema())?;
                }
                Transformed::no(LogicalPlan::Join(join))
            }
            other => Transformed::no(other),
        })
    })?;
    Ok(shaped.data)
}

/// Whether an expression occurs twice.
fn repeats(exprs: &[Expr]) -> bool {
    once(exprs).len() < exprs.len()
}

/// The expressions without repetitions, in order.
///
/// The first occurrence of each stays.
fn once(exprs: &[Expr]) -> Vec<Expr> {
    let mut kept: Vec<Expr> = Vec::new();
    for expr in exprs {
        if !kept.contains(expr) {
            kept.push(expr.clone());
        }
    }
    kept
}

/// The first row of each group. With `ordered`, the groups are in the order of ORDER BY too.
///
/// ORDER BY expressions that are group keys are left out within a group, because they are equal
/// there.
fn first_of_each(distinct: DistinctOn, ordered: bool) -> Result<LogicalPlan> {
    let order = distinct.sort_expr.unwrap_or_default();
    let within: Vec<SortExpr> = order
        .iter()
        .filter(|by| !distinct.on_expr.contains(&by.expr))
        .cloned()
        .collect();
    let numbering = WindowUDF::from(RowNumber::new());
    let numbering = WindowFunctionDefinition::WindowUDF(Arc::new(numbering));
    let number = Expr::from(WindowFunction::new(numbering, Vec::new()))
        .partition_by(once(&distinct.on_expr))
        .order_by(within)
        .build()?
        .alias(NUMBER);
    let first = Expr::Column(Column::from_name(NUMBER)).lt_eq(lit(1_i64));
    let mut rows = LogicalPlanBuilder::from(Arc::unwrap_or_clone(distinct.input))
        .window([number])?
        .filter(first)?;
    if ordered && !order.is_empty() {
        rows = rows.sort(order)?;
    }
    let rows = Arc::new(rows.build()?);
    Projection::try_new_with_schema(distinct.select_expr, rows, distinct.schema)
        .map(LogicalPlan::Projection)
}

/// Refuses USING and NATURAL over columns of two types. The joined column would have the common
/// type, and would not be a column of either side.
///
/// # Errors
/// A plan error with the column's name and both types.
fn of_one_kind(
    on: &[(Expr, Expr)],
    left: &datafusion_common::DFSchema,
    right: &datafusion_common::DFSchema,
) -> Result<()> {
    for (one, other) in on {
        let kinds = (one.get_type(left)?, other.get_type(right)?);
        if kinds.0 != kinds.1 {
            let name = match one {
                Expr::Column(column) => column.name.clone(),
                other => other.to_string(),
            };
            return plan_err!(
                "`{name}` is {} on one side of the join and {} on the other: write ON in place of \
                 USING or NATURAL, and name the columns",
                types::name(&kinds.0),
                types::name(&kinds.1)
            );
        }
    }
    Ok(())
}
