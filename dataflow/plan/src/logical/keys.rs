//! Intervals, documents and arrays are refused as keys of grouping, ordering and comparison.
//!
//! `1 month`, `30 days` and `720 hours` are equal for PostgreSQL and sort as one value. Here they
//! are kept as their different parts. Therefore rows may not be grouped, ordered or compared by
//! intervals.
//!
//! Input: a typed plan. Output: nothing, or the error that names the first such key.

use arrow::datatypes::DataType;
use datafusion_common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion_common::{DFSchema, Result, plan_err};
use datafusion_expr::expr::{AggregateFunction, Sort, WindowFunction};
use datafusion_expr::utils::merge_schema;
use datafusion_expr::{Distinct, Expr, ExprSchemable, LogicalPlan};
use tidemill_ir::types;

use crate::catalog::aggregate;
use crate::rewrite::set_operations;

/// Refuses a plan that groups, orders or deduplicates rows by intervals.
///
/// # Errors
/// A plan error that names the interval.
pub(crate) fn checked(plan: &LogicalPlan) -> Result<()> {
    let visited = plan.apply(|node| {
        let schema = merge_schema(&node.inputs());
        let (what, keys) = keys(node);
        if let Some(key) = found(&keys, &schema, without_order)? {
            let kind = types::name(&key.get_type(&schema)?);
            return plan_err!(
                "{what} {kind} is not supported in views: `{key}` is one; cast it to text, as in \
                 CAST(… AS text), or take a text of it with ->>"
            );
        }
        if let Some(key) = found(&keys, &schema, |kind| matches!(kind, DataType::Interval(_)))? {
            return plan_err!(
                "{what} intervals is not supported in views: `{key}` is one; use \
                 extract(epoch FROM …), for which a month has 30 days and a year 365.25"
            );
        }
        Ok(TreeNodeRecursion::Continue)
    });
    visited.map(|_| ())
}

/// Whether values of a type are neither grouped nor ordered: documents and arrays. Equal documents
/// may be written with different zeros at the end of their numbers.
fn without_order(kind: &DataType) -> bool {
    types::is_document(kind) || matches!(kind, DataType::List(_))
}

/// The first of the expressions that has such a type.
///
/// `schema` has the columns of the node's inputs.
fn found<'a>(
    keys: &'a [Expr],
    schema: &DFSchema,
    such: fn(&DataType) -> bool,
) -> Result<Option<&'a Expr>> {
    for key in keys {
        if such(&key.get_type(schema)?) {
            return Ok(Some(key));
        }
    }
    Ok(None)
}

/// The expressions by which a node compares rows, and the words for the comparison in messages.
///
/// A node that compares no rows has no keys and no words.
fn keys(node: &LogicalPlan) -> (&'static str, Vec<Expr>) {
    let of = |order: &[Sort]| -> Vec<Expr> { order.iter().map(|by| by.expr.clone()).collect() };
    match node {
        LogicalPlan::Aggregate(grouping) => {
            let mut keys = grouping.group_expr.clone();
            keys.extend(grouping.aggr_expr.iter().flat_map(distinct_arguments));
            ("GROUP BY and DISTINCT of", keys)
        }
        LogicalPlan::Distinct(Distinct::All(input)) => {
            let columns = input.schema().columns().into_iter();
            ("DISTINCT and UNION of", columns.map(Expr::Column).collect())
        }
        LogicalPlan::SubqueryAlias(alias) if set_operations::kind(alias).is_some() => {
            let columns = alias.input.schema().columns().into_iter();
            let columns = columns.map(Expr::Column).collect();
            ("INTERSECT and EXCEPT of", columns)
        }
        LogicalPlan::Distinct(Distinct::On(distinct)) => {
            let mut keys = distinct.on_expr.clone();
            keys.extend(of(distinct.sort_expr.as_deref().unwrap_or_default()));
            ("DISTINCT ON and ORDER BY of", keys)
        }
        LogicalPlan::Sort(sort) => ("ORDER BY of", of(&sort.expr)),
        LogicalPlan::Window(window) => {
            let calls = window.window_expr.iter().filter_map(call);
            let keys = calls.flat_map(|call| {
                let order = of(&call.params.order_by);
                [call.params.partition_by.clone(), order].concat()
            });
            ("PARTITION BY and ORDER BY of", keys.collect())
        }
        _ => ("", Vec::new()),
    }
}

/// The window function in an expression.
fn call(expr: &Expr) -> Option<&WindowFunction> {
    match expr {
        Expr::Alias(alias) => call(&alias.expr),
        Expr::WindowFunction(call) => Some(call),
        _ => None,
    }
}

/// Whether an aggregate collects its values as a document.
fn collects_documents(call: &AggregateFunction) -> bool {
    aggregate(call.func.name()).is_some_and(tidemill_ir::AggregateFunction::is_document)
}

/// The arguments of an aggregate over DISTINCT.
///
/// `count(DISTINCT x)` compares values of `x`. An aggregate without DISTINCT has no such arguments.
fn distinct_arguments(expr: &Expr) -> Vec<Expr> {
    match expr {
        Expr::Alias(alias) => distinct_arguments(&alias.expr),
        // Documents that are collected are told apart by what they are made of.
        Expr::AggregateFunction(call) if call.params.distinct && !collects_documents(call) => {
            call.params.args.clone()
        }
        _ => Vec::new(),
    }
}
