//! Predicate pushdown: a condition is evaluated as near to the sources as its rows allow.
//!
//! A condition passes a node only if the node's other rows do not depend on the rows that the
//! condition removes:
//!
//! | node | conditions that pass |
//! |---|---|
//! | projection, alias, filter, DISTINCT, union | all |
//! | INTERSECT, EXCEPT | those that cannot fail, into both sides |
//! | inner join | those that read one side alone; the others become part of the join's condition |
//! | other joins | those that read one side alone, if all rows of that side are in the result |
//! | aggregate | those that read group keys alone; none without GROUP BY (always gives a row) |
//! | window | those that read only keys of every PARTITION BY |
//! | LIMIT, WITH RECURSIVE, and all others | none |
//!
//! The conditions of a lower node are before those that come from above, so `x <> 0` below still
//! guards `10 / x > 1` above.
//!
//! Input: a simplified logical plan. Output: a plan with the same rows, in which conditions are
//! lower or in the condition of a join. A lower condition means fewer rows in the state of joins
//! and aggregates.

use std::sync::Arc;

use datafusion_common::tree_node::{Transformed, TreeNode};
use datafusion_common::{Column, DFSchema, Result};
use datafusion_expr::expr::{BinaryExpr, ScalarFunction};
use datafusion_expr::logical_plan::{Aggregate, Filter, Join, Projection, Union, Window};
use datafusion_expr::utils::split_conjunction_owned;
use datafusion_expr::{Distinct, Expr, JoinType, LogicalPlan, Operator};
use tidemill_functions::chain::chained;

use crate::rewrite::set_operations::SetOperation;

/// Moves every filter of a plan down as far as it may go.
///
/// # Errors
/// When a rewritten plan is not valid.
pub(super) fn filters_down(plan: LogicalPlan) -> Result<LogicalPlan> {
    push(plan, Vec::new())
}

/// Adds `conditions` to a plan: only the rows for which all of them are true are kept.
///
/// `conditions` are over the columns of `plan`.
fn push(plan: LogicalPlan, conditions: Vec<Expr>) -> Result<LogicalPlan> {
    match plan {
        LogicalPlan::Filter(filter) => {
            let mut all = split_conjunction_owned(filter.predicate);
            for condition in conditions {
                if !all.contains(&condition) {
                    all.push(condition);
                }
            }
            push(Arc::unwrap_or_clone(filter.input), all)
        }
        LogicalPlan::SubqueryAlias(mut alias) => {
            let below = alias.input.schema().columns();
            let below: Vec<Expr> = below.into_iter().map(Expr::Column).collect();
            let conditions = over(conditions, &alias.schema, &below)?;
            alias.input = Arc::new(push(Arc::unwrap_or_clone(alias.input), conditions)?);
            Ok(LogicalPlan::SubqueryAlias(alias))
        }
        LogicalPlan::Projection(projection) => through_projection(projection, conditions),
        LogicalPlan::Distinct(Distinct::All(input)) => {
            let input = push(Arc::unwrap_or_clone(input), conditions)?;
            Ok(LogicalPlan::Distinct(Distinct::All(Arc::new(input))))
        }
        LogicalPlan::Union(union) => through_union(union, conditions),
        LogicalPlan::Extension(extension) if SetOperation::in_node(&extension).is_some() => {
            match SetOperation::in_node(&extension) {
                Some(operation) => through_set_operation(operation.clone(), conditions),
                None => filtered(LogicalPlan::Extension(extension), conditions),
            }
        }
        LogicalPlan::Join(join) if join.join_type == JoinType::Inner => into_join(join, conditions),
        LogicalPlan::Join(join) => through_join(join, conditions),
        LogicalPlan::Aggregate(grouping) => through_aggregate(grouping, conditions),
        LogicalPlan::Window(window) => through_window(window, conditions),
        other => {
            let below = other.map_children(|child| Ok(Transformed::yes(filters_down(child)?)))?;
            filtered(below.data, conditions)
        }
    }
}

/// A filter over a plan, if there are any conditions.
pub(super) fn filtered(plan: LogicalPlan, conditions: Vec<Expr>) -> Result<LogicalPlan> {
    match chained(conditions, Expr::and) {
        Some(condition) => Filter::try_new(condition, Arc::new(plan)).map(LogicalPlan::Filter),
        None => Ok(plan),
    }
}

/// Moves all conditions below a projection.
///
/// A condition on `c` becomes a condition on the expression of which `c` is the alias.
fn through_projection(mut projection: Projection, conditions: Vec<Expr>) -> Result<LogicalPlan> {
    let outputs = projection.expr.iter().map(|expr| expr.clone().unalias());
    let outputs: Vec<Expr> = outputs.collect();
    let conditions = over(conditions, &projection.schema, &outputs)?;
    projection.input = Arc::new(push(Arc::unwrap_or_clone(projection.input), conditions)?);
    Ok(LogicalPlan::Projection(projection))
}

/// Moves all conditions into each input of a union.
fn through_union(mut union: Union, conditions: Vec<Expr>) -> Result<LogicalPlan> {
    let mut inputs = Vec::new();
    for input in union.inputs {
        let columns = input.schema().columns();
        let columns: Vec<Expr> = columns.into_iter().map(Expr::Column).collect();
        let conditions = over(conditions.clone(), &union.schema, &columns)?;
        inputs.push(Arc::new(push(Arc::unwrap_or_clone(input), conditions)?));
    }
    union.inputs = inputs;
    Ok(LogicalPlan::Union(union))
}

/// Moves conditions into both inputs of INTERSECT or EXCEPT: a row is the same on both sides, so a
/// condition removes all or none of them.
///
/// A condition that may fail stays above, because the inputs have rows that the output does not.
fn through_set_operation(
    mut operation: SetOperation,
    conditions: Vec<Expr>,
) -> Result<LogicalPlan> {
    let (down, kept): (Vec<Expr>, Vec<Expr>) = conditions.into_iter().partition(compares);
    let schema = Arc::clone(&operation.schema);
    let pushed = |input: LogicalPlan| {
        let columns = input.schema().columns();
        let columns: Vec<Expr> = columns.into_iter().map(Expr::Column).collect();
        push(input, over(down.clone(), &schema, &columns)?)
    };
    operation.left = pushed(operation.left)?;
    operation.right = pushed(operation.right)?;
    filtered(operation.into_plan(), kept)
}

/// Whether a condition does nothing but compare columns and constants, and so never fails.
fn compares(condition: &Expr) -> bool {
    match condition {
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => {
            let known = op.supports_propagation()
                || matches!(op, Operator::And | Operator::Or | Operator::NotEq);
            known && compares(left) && compares(right)
        }
        Expr::Not(inner) | Expr::IsNull(inner) | Expr::IsNotNull(inner) => compares(inner),
        Expr::IsTrue(inner) | Expr::IsFalse(inner) | Expr::IsUnknown(inner) => compares(inner),
        Expr::IsNotTrue(inner) | Expr::IsNotFalse(inner) => compares(inner),
        Expr::InList(list) => compares(&list.expr) && list.list.iter().all(compares),
        Expr::ScalarFunction(call) => is_like(call),
        Expr::Column(_) | Expr::Literal(..) => true,
        _ => false,
    }
}

/// Whether a call is LIKE of a column and a pattern that does not end with an escape character,
/// which fails.
fn is_like(call: &ScalarFunction) -> bool {
    let text = |expr: &Expr| match expr {
        Expr::Literal(value, _) => value.try_as_str().flatten().map(str::to_owned),
        _ => None,
    };
    match (call.name(), call.args.as_slice()) {
        ("LIKE" | "ILIKE", [value, pattern, escape]) => {
            let ends = text(pattern)
                .zip(text(escape))
                .is_some_and(|(pattern, escape)| escape.is_empty() || !pattern.ends_with(&escape));
            compares(value) && ends
        }
        _ => false,
    }
}

/// Moves the conditions on group keys below an aggregate.
///
/// `HAVING g = 1` on a group key becomes a filter of the rows. Conditions on aggregates stay above.
fn through_aggregate(mut grouping: Aggregate, conditions: Vec<Expr>) -> Result<LogicalPlan> {
    let keys = grouping.group_expr.len();
    let of_keys = |condition: &Expr| {
        let columns = condition.column_refs();
        let key = |column: &&Column| position(&grouping.schema, column).is_some_and(|at| at < keys);
        keys > 0 && columns.iter().all(key)
    };
    let (down, kept): (Vec<Expr>, Vec<Expr>) = conditions.into_iter().partition(of_keys);
    let exprs = grouping
        .group_expr
        .iter()
        .map(|expr| expr.clone().unalias());
    let exprs: Vec<Expr> = exprs.collect();
    let down = over(down, &grouping.schema, &exprs)?;
    grouping.input = Arc::new(push(Arc::unwrap_or_clone(grouping.input), down)?);
    filtered(LogicalPlan::Aggregate(grouping), kept)
}

/// Moves the conditions on partition keys below a window function.
///
/// A row that is removed below must not change the number of another row. A condition on a
/// partition key removes whole groups.
fn through_window(mut window: Window, conditions: Vec<Expr>) -> Result<LogicalPlan> {
    let partitioned = |column: &Column| {
        window.window_expr.iter().all(|expr| match unaliased(expr) {
            Expr::WindowFunction(call) => {
                let keys = call.params.partition_by.iter();
                keys.map(unaliased)
                    .any(|key| matches!(key, Expr::Column(key) if key == column))
            }
            _ => false,
        })
    };
    let of_keys = |condition: &Expr| condition.column_refs().into_iter().all(&partitioned);
    let (down, kept): (Vec<Expr>, Vec<Expr>) = conditions.into_iter().partition(of_keys);
    window.input = Arc::new(push(Arc::unwrap_or_clone(window.input), down)?);
    filtered(LogicalPlan::Window(window), kept)
}

/// The expression without its aliases.
fn unaliased(expr: &Expr) -> &Expr {
    match expr {
        Expr::Alias(alias) => unaliased(&alias.expr),
        other => other,
    }
}

/// Distributes the conditions over the two sides of an inner join and its own condition.
///
/// Of `a.x = b.y AND a.x > 5`, the condition `b.y > 5` follows, and both sides are filtered.
fn into_join(mut join: Join, conditions: Vec<Expr>) -> Result<LogicalPlan> {
    let mut all: Vec<Expr> = join
        .filter
        .take()
        .map_or_else(Vec::new, split_conjunction_owned);
    for condition in conditions {
        if !all.contains(&condition) {
            all.push(condition);
        }
    }
    let implied: Vec<Expr> = all
        .iter()
        .filter_map(|one| counterpart(one, &join, &all))
        .collect();
    for condition in implied {
        if !all.contains(&condition) {
            all.push(condition);
        }
    }
    let (mut left, mut right, mut both) = (Vec::new(), Vec::new(), Vec::new());
    for condition in all {
        let columns = condition.column_refs();
        let within = |side: &DFSchema| columns.iter().all(|c| position(side, c).is_some());
        match (within(join.left.schema()), within(join.right.schema())) {
            // A constant: if one side has no row, the join has none.
            (true, _) if columns.is_empty() => left.push(condition),
            (true, false) => left.push(condition),
            (false, true) => right.push(condition),
            _ => both.push(condition),
        }
    }
    join.left = Arc::new(push(Arc::unwrap_or_clone(join.left), left)?);
    join.right = Arc::new(push(Arc::unwrap_or_clone(join.right), right)?);
    join.filter = chained(both, Expr::and);
    Ok(LogicalPlan::Join(join))
}

/// Moves conditions to the sides of a join that is not an inner one.
///
/// A condition from above may pass to a side whose rows the join never makes up from nulls. A part
/// of the join's own condition may pass to a side whose rows without a partner are not in the
/// result: `a LEFT JOIN b ON a.id = b.id AND b.x > 5` needs no other rows of `b`. A part that may
/// fail stays: a row that it removed by failing would make its partners rows without one.
fn through_join(mut join: Join, conditions: Vec<Expr>) -> Result<LogicalPlan> {
    let (left_whole, right_whole) = match join.join_type {
        JoinType::Left | JoinType::LeftAnti => (true, false),
        JoinType::Right => (false, true),
        JoinType::LeftSemi => (false, false),
        _ => (true, true),
    };
    let above_left = matches!(
        join.join_type,
        JoinType::Left | JoinType::LeftSemi | JoinType::LeftAnti
    );
    let above_right = join.join_type == JoinType::Right;
    let (mut left, mut right, mut kept, mut own) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for condition in conditions {
        match one_side(&condition, &join) {
            Some(Side::Left) if above_left => left.push(condition),
            Some(Side::Right) if above_right => right.push(condition),
            _ => kept.push(condition),
        }
    }
    let filter = join.filter.take();
    for condition in filter.map_or_else(Vec::new, split_conjunction_owned) {
        let passes = join.join_type == JoinType::LeftSemi || compares(&condition);
        match one_side(&condition, &join) {
            Some(Side::Left) if passes && !left_whole => left.push(condition),
            Some(Side::Right) if passes && !right_whole => right.push(condition),
            _ => own.push(condition),
        }
    }
    join.left = Arc::new(push(Arc::unwrap_or_clone(join.left), left)?);
    join.right = Arc::new(push(Arc::unwrap_or_clone(join.right), right)?);
    join.filter = chained(own, Expr::and);
    filtered(LogicalPlan::Join(join), kept)
}

/// A side of a join.
enum Side {
    /// The left side.
    Left,
    /// The right side.
    Right,
}

/// The side whose columns alone a condition reads; `None` for a constant, or if it reads both.
fn one_side(condition: &Expr, join: &Join) -> Option<Side> {
    let columns = condition.column_refs();
    let within = |side: &DFSchema| columns.iter().all(|c| position(side, c).is_some());
    match (within(join.left.schema()), within(join.right.schema())) {
        (true, false) => Some(Side::Left),
        (false, true) => Some(Side::Right),
        _ => None,
    }
}

/// The condition that `a.x > 5` implies for `b.y`, if `a.x = b.y` must hold too.
///
/// `None` unless the condition compares a column with a literal, and both columns have one type.
fn counterpart(condition: &Expr, join: &Join, all: &[Expr]) -> Option<Expr> {
    let Expr::BinaryExpr(BinaryExpr { left, op, right }) = condition else {
        return None;
    };
    let compares = matches!(
        op,
        Operator::Eq | Operator::Lt | Operator::LtEq | Operator::Gt | Operator::GtEq
    );
    let (column, value) = match (left.as_ref(), right.as_ref()) {
        (Expr::Column(column), value @ Expr::Literal(..)) if compares => (column, value),
        _ => return None,
    };
    let equals = all.iter().filter_map(|one| match one {
        Expr::BinaryExpr(BinaryExpr {
            left,
            op: Operator::Eq,
            right,
        }) => Some((left.as_ref(), right.as_ref())),
        _ => None,
    });
    let keys = join.on.iter().map(|(left, right)| (left, right));
    let other = keys.chain(equals).find_map(|pair| match pair {
        (Expr::Column(one), Expr::Column(other)) if one == column => Some(other),
        (Expr::Column(other), Expr::Column(one)) if one == column => Some(other),
        _ => None,
    })?;
    let kind = |column: &Column| {
        let index = position(&join.schema, column)?;
        Some(join.schema.field(index).data_type().clone())
    };
    (kind(column)? == kind(other)?).then(|| {
        Expr::BinaryExpr(BinaryExpr {
            left: Box::new(Expr::Column(other.clone())),
            op: *op,
            right: Box::new(value.clone()),
        })
    })
}

/// The conditions with each column of `schema` replaced by an expression.
///
/// `exprs` has one element for each field of `schema`.
fn over(conditions: Vec<Expr>, schema: &DFSchema, exprs: &[Expr]) -> Result<Vec<Expr>> {
    let replaced = |condition: Expr| {
        let replaced = condition.transform_up(|expr| {
            let found = match &expr {
                Expr::Column(column) => position(schema, column).and_then(|at| exprs.get(at)),
                _ => None,
            };
            Ok(match found {
                Some(found) => Transformed::yes(found.clone()),
                None => Transformed::no(expr),
            })
        });
        replaced.map(|replaced| replaced.data)
    };
    conditions.into_iter().map(replaced).collect()
}

/// The position of a column in a schema: the column with exactly this qualifier and name, or else
/// the first one that the name may refer to.
pub(super) fn position(schema: &DFSchema, column: &Column) -> Option<usize> {
    let mut all = schema.iter();
    let exactly = all.position(|(qualifier, field)| {
        qualifier == column.relation.as_ref() && *field.name() == column.name
    });
    exactly.or_else(|| schema.maybe_index_of_column(column))
}
