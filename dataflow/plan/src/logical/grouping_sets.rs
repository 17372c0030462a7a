//! GROUPING SETS as a UNION ALL of one GROUP BY for each set.
//!
//! A key that is not in a set is NULL in the set's rows. It gets its type as any NULL of a union:
//! that of the other sets. The empty set has one row, even over an empty input. `grouping(…)` is a
//! constant of each set.
//!
//! ```text
//! SELECT a, b, count(*) … GROUP BY ROLLUP (a, b)
//!   ─► Projection
//!        Union
//!          Projection a, b, n        Aggregate a, b: count(*)
//!          Projection a, NULL, n     Aggregate a: count(*)
//!          Projection NULL, NULL, n  Aggregate: count(*)
//! ```

use std::sync::Arc;

use datafusion_common::tree_node::Transformed;
use datafusion_common::{Column, Result, ScalarValue, internal_err, plan_err};
use datafusion_expr::expr::GroupingSet;
use datafusion_expr::logical_plan::{Aggregate, Projection, Union};
use datafusion_expr::{Expr, LogicalPlan, lit};
use datafusion_functions_aggregate::expr_fn::count;

use crate::catalog::GROUPING;

/// Writes out the grouping sets of a plan.
///
/// # Errors
/// An argument of `grouping` is no key.
pub(crate) fn expanded(plan: LogicalPlan) -> Result<LogicalPlan> {
    let expanded = plan.transform_up_with_subqueries(|node| match node {
        LogicalPlan::Aggregate(grouping) => match grouping.group_expr.as_slice() {
            [Expr::GroupingSet(GroupingSet::GroupingSets(sets))] => {
                let sets = sets.clone();
                Ok(Transformed::yes(union(&grouping, &sets)?))
            }
            keys => {
                let keys = keys.to_vec();
                match grouping.aggr_expr.iter().any(|call| tells(call).is_some()) {
                    true => Ok(Transformed::yes(union(&grouping, &[keys])?)),
                    false => Ok(Transformed::no(LogicalPlan::Aggregate(grouping))),
                }
            }
        },
        other => Ok(Transformed::no(other)),
    })?;
    Ok(expanded.data)
}

/// The arguments of a call of `grouping`.
fn tells(expr: &Expr) -> Option<&[Expr]> {
    match expr {
        Expr::Alias(alias) => tells(&alias.expr),
        Expr::AggregateFunction(call) if call.func.name() == GROUPING => Some(&call.params.args),
        _ => None,
    }
}

/// The union of the sets, with the columns of the aggregate.
fn union(grouping: &Aggregate, sets: &[Vec<Expr>]) -> Result<LogicalPlan> {
    let mut keys: Vec<Expr> = Vec::new();
    for key in sets.iter().flatten() {
        if !keys.contains(key) {
            keys.push(key.clone());
        }
    }
    let branches = sets.iter().map(|set| branch(grouping, &keys, set));
    let mut branches = branches
        .map(|branch| Ok(Arc::new(branch?)))
        .collect::<Result<Vec<_>>>()?;
    let rows = match branches.len() {
        1 => branches.remove(0),
        _ => Arc::new(LogicalPlan::Union(Union::try_new_with_loose_types(
            branches,
        )?)),
    };
    let outer = grouping.schema.iter();
    let outer = outer.filter(|(_, field)| field.name() != Aggregate::INTERNAL_GROUPING_ID);
    let outer: Vec<_> = outer.collect();
    if outer.len() != keys.len() + grouping.aggr_expr.len() {
        return internal_err!("grouping sets have other columns than their keys and aggregates");
    }
    let outputs = outer
        .into_iter()
        .enumerate()
        .map(|(index, (qualifier, field))| {
            Expr::Column(Column::from_name(name(index)))
                .alias_qualified(qualifier.cloned(), field.name())
        });
    Projection::try_new(outputs.collect(), rows).map(LogicalPlan::Projection)
}

/// The name of a column of the union. No query can use this name.
fn name(index: usize) -> String {
    format!("grouping set {index}")
}

/// The rows of one set.
fn branch(grouping: &Aggregate, keys: &[Expr], set: &[Expr]) -> Result<LogicalPlan> {
    let calls = grouping.aggr_expr.iter();
    let mut aggregates: Vec<Expr> = calls
        .filter(|call| tells(call).is_none())
        .cloned()
        .collect();
    if aggregates.is_empty() && set.is_empty() {
        aggregates.push(count(lit(1_i64)));
    }
    let mut of = Vec::new();
    for key in set {
        if !of.contains(key) {
            of.push(key.clone());
        }
    }
    let node = Aggregate::try_new(Arc::clone(&grouping.input), of.clone(), aggregates)?;
    let columns = node.schema.columns();
    let mut outputs = Vec::new();
    for key in keys {
        let at = of.iter().position(|own| own == key);
        outputs.push(match at.and_then(|at| columns.get(at)) {
            Some(column) => Expr::Column(column.clone()),
            None => Expr::Literal(ScalarValue::Null, None),
        });
    }
    let mut computed = columns.into_iter().skip(of.len());
    for call in &grouping.aggr_expr {
        outputs.push(match tells(call) {
            Some(arguments) => lit(mask(arguments, keys, &of)?),
            None => match computed.next() {
                Some(column) => Expr::Column(column),
                None => return internal_err!("an aggregate without a column"),
            },
        });
    }
    let outputs = outputs.into_iter().enumerate();
    let outputs = outputs.map(|(index, expr)| expr.alias(name(index)));
    let node = Arc::new(LogicalPlan::Aggregate(node));
    Projection::try_new(outputs.collect(), node).map(LogicalPlan::Projection)
}

/// The value of `grouping(…)` in the rows of a set: a bit for each argument, which is 1 if the set
/// does not have it. The last argument is the lowest bit.
fn mask(arguments: &[Expr], keys: &[Expr], set: &[Expr]) -> Result<i32> {
    if arguments.len() > 31 {
        return plan_err!("grouping takes at most 31 arguments");
    }
    if arguments.iter().any(|argument| !keys.contains(argument)) {
        return plan_err!("an argument of grouping is no expression of GROUP BY");
    }
    let bit = |mask: i32, argument: &Expr| mask << 1 | i32::from(!set.contains(argument));
    Ok(arguments.iter().fold(0, bit))
}
