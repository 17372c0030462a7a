//! FETCH FIRST … WITH TIES: the first rows, and those that are equal to the last of them in the
//! order, as a condition on `rank()`.
//!
//! ```text
//! SELECT … ORDER BY x FETCH FIRST 3 ROWS WITH TIES
//!   ─► SELECT * FROM (SELECT … ORDER BY x LIMIT 3) AS "with ties"   marked, before planning
//!   ─► Filter rank() OVER (ORDER BY x) <= 3                         in place of the LIMIT
//! ```
//!
//! The rewrite comes before unnesting, which knows windows, so it holds in correlated subqueries.

use std::sync::Arc;

use datafusion_common::tree_node::Transformed;
use datafusion_common::{Result, internal_err, plan_err};
use datafusion_expr::expr::{Sort as Order, WindowFunction};
use datafusion_expr::logical_plan::{FetchType, Filter, Projection, SkipType, Window};
use datafusion_expr::{Expr, ExprFunctionExt, LogicalPlan, WindowFunctionDefinition, lit};

use crate::rewrite::limits;

/// The plan with conditions on `rank()` in place of the marked limits.
///
/// # Errors
/// When a marked limit is no number, or has no order.
pub(crate) fn ranked(plan: LogicalPlan) -> Result<LogicalPlan> {
    let ranked = plan.transform_up_with_subqueries(|node| {
        let LogicalPlan::SubqueryAlias(mut alias) = node else {
            return Ok(Transformed::no(node));
        };
        if alias.alias.table() != limits::mark() {
            return Ok(Transformed::no(LogicalPlan::SubqueryAlias(alias)));
        }
        let LogicalPlan::Limit(limit) = alias.input.as_ref() else {
            return internal_err!("WITH TIES without a limit");
        };
        let count = match (limit.get_fetch_type()?, limit.get_skip_type()?) {
            (FetchType::Literal(Some(count)), SkipType::Literal(0)) => count,
            _ => return plan_err!("WITH TIES takes a number of rows, and no OFFSET"),
        };
        let first = first(&limit.input, i64::try_from(count).unwrap_or(i64::MAX))?;
        alias.input = Arc::new(first);
        Ok(Transformed::yes(LogicalPlan::SubqueryAlias(alias)))
    })?;
    Ok(ranked.data)
}

/// The rows of an ordered plan whose rank is at most `count`.
fn first(plan: &LogicalPlan, count: i64) -> Result<LogicalPlan> {
    match plan {
        LogicalPlan::Projection(projection) => {
            let input = Arc::new(first(&projection.input, count)?);
            Projection::try_new(projection.expr.clone(), input).map(LogicalPlan::Projection)
        }
        LogicalPlan::Sort(sort) => within(&sort.input, sort.expr.clone(), count),
        _ => plan_err!("WITH TIES needs an ORDER BY, and no DISTINCT ON"),
    }
}

/// The rows of a plan whose rank in an order is at most `count`.
fn within(input: &Arc<LogicalPlan>, order: Vec<Order>, count: i64) -> Result<LogicalPlan> {
    let Some(rank) = tidemill_functions::window("rank") else {
        return internal_err!("there is no rank()");
    };
    let rank = WindowFunctionDefinition::WindowUDF(rank);
    let rank = Expr::from(WindowFunction::new(rank, Vec::new()));
    let rank = rank.order_by(order).build()?;
    let own = input.schema().columns();
    let window = Window::try_new(vec![rank], Arc::clone(input))?;
    let Some(last) = window.schema.columns().pop() else {
        return internal_err!("a window without a column");
    };
    let condition = Expr::Column(last).lt_eq(lit(count));
    let window = Arc::new(LogicalPlan::Window(window));
    let kept = Filter::try_new(condition, window).map(LogicalPlan::Filter)?;
    let own = own.into_iter().map(Expr::Column).collect();
    Projection::try_new(own, Arc::new(kept)).map(LogicalPlan::Projection)
}
