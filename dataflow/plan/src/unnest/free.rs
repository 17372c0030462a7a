//! Free columns: the columns of outer queries that a plan reads.

use datafusion_common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion_common::{Column, DFSchema, Result};
use datafusion_expr::utils::merge_schema;
use datafusion_expr::{Expr, LogicalPlan};

/// Whether an expression is a subquery.
pub(super) fn is_subquery(expr: &Expr) -> bool {
    query_of(expr).is_some()
}

/// Whether an expression contains a subquery.
pub(super) fn nests(expr: &Expr) -> Result<bool> {
    expr.exists(|expr| Ok(is_subquery(expr)))
}

/// The query of an expression that is a subquery.
pub(super) fn query_of(expr: &Expr) -> Option<&LogicalPlan> {
    match expr {
        Expr::ScalarSubquery(subquery) => Some(&subquery.subquery),
        Expr::Exists(exists) => Some(&exists.subquery.subquery),
        Expr::InSubquery(within) => Some(&within.subquery.subquery),
        Expr::SetComparison(compared) => Some(&compared.subquery.subquery),
        _ => None,
    }
}

/// Whether a schema has a column of exactly this qualifier and name.
pub(super) fn has(schema: &DFSchema, column: &Column) -> bool {
    schema.iter().any(|(qualifier, field)| {
        qualifier == column.relation.as_ref() && *field.name() == column.name
    })
}

/// The columns of outer queries that a plan reads, in the order in which they occur.
///
/// A reference belongs to the innermost query around it that has such a column, as in SQL.
pub(super) fn free(plan: &LogicalPlan) -> Result<Vec<Column>> {
    let mut found = Vec::new();
    let inputs = plan.inputs();
    let schema = merge_schema(&inputs);
    plan.apply_expressions(|expr| {
        expr.apply(|expr| {
            if let Expr::OuterReferenceColumn(_, column) = expr {
                found.push(column.clone());
            }
            if let Some(query) = query_of(expr) {
                found.extend(free(query)?.into_iter().filter(|it| !has(&schema, it)));
            }
            Ok(TreeNodeRecursion::Continue)
        })
    })?;
    let lateral = match plan {
        LogicalPlan::Join(join) => Some(join.left.schema()),
        _ => None,
    };
    for (index, input) in inputs.into_iter().enumerate() {
        let own = |column: &Column| index > 0 && lateral.is_some_and(|schema| has(schema, column));
        found.extend(free(input)?.into_iter().filter(|column| !own(column)));
    }
    Ok(found)
}
