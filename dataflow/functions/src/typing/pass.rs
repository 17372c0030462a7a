//! Typing pass: each node's expressions get PostgreSQL's types, and its columns follow.
//!
//! [`super::rewrite`] types one expression. This pass goes over the plan from the sources up.
//!
//! Input: the plan of DataFusion's planner, with stand-ins. Output: the same nodes, with calls of
//! entries, and with the casts that PostgreSQL makes implicitly. The names of the columns stay as
//! they are.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field};
use datafusion_common::tree_node::{Transformed, TreeNode};
use datafusion_common::{Column, Result, ScalarValue, plan_err};
use datafusion_expr::expr_rewriter::NamePreserver;
use datafusion_expr::logical_plan::{Join, Union};
use datafusion_expr::utils::merge_schema;
use datafusion_expr::{Expr, ExprSchemable, LogicalPlan, LogicalPlanBuilder};
use tidemill_ir::types;

use super::resolve::{Argument, common};
use super::rewrite::Scope;

/// Gives the expressions and columns of a whole plan their types.
///
/// # Errors
/// An expression has no type: a function, an operator or a cast is not supported.
///
/// Limits and scans have no expressions to type. Their numbers and columns keep their types.
pub fn typed(plan: LogicalPlan) -> Result<LogicalPlan> {
    let typed = plan.transform_up(|node| {
        if matches!(node, LogicalPlan::Limit(_) | LogicalPlan::TableScan(_)) {
            return Ok(Transformed::no(node));
        }
        match node {
            LogicalPlan::Join(join) => return Ok(Transformed::yes(joined(join)?)),
            LogicalPlan::Union(union) => return Ok(Transformed::yes(united(union)?)),
            _ => {}
        }
        let scope = Scope {
            schema: merge_schema(&node.inputs()),
        };
        let names = NamePreserver::new(&node);
        let rewritten = node.map_expressions(|expr| {
            let name = names.save(&expr);
            let expr = scope.expression(expr)?;
            Ok(Transformed::yes(name.restore(expr)))
        })?;
        rewritten.map_data(LogicalPlan::recompute_schema)
    })?;
    Ok(typed.data)
}

/// Types a join's condition. The pairs of columns of USING have one type each; other pairs are
/// refused later.
fn joined(mut join: Join) -> Result<LogicalPlan> {
    let whole = Scope {
        schema: merge_schema(&[&join.left, &join.right]),
    };
    for (left, right) in &join.on {
        let kinds = (
            left.get_type(&whole.schema)?,
            right.get_type(&whole.schema)?,
        );
        if types::is_document(&kinds.0) || types::is_document(&kinds.1) {
            return plan_err!(
                "a join on the document `{left}` by USING or NATURAL is not supported in views: \
                 write ON"
            );
        }
    }
    join.filter = join
        .filter
        .map(|filter| whole.expression(filter))
        .transpose()?;
    LogicalPlan::Join(join).recompute_schema()
}

/// Casts the columns of a union's inputs to their common types. A column without a common type is
/// refused later, by its name.
///
/// The types are PostgreSQL's common types (`select_common_type`), column by column.
fn united(union: Union) -> Result<LogicalPlan> {
    let mut targets = Vec::new();
    for index in 0..union.schema.fields().len() {
        let arguments = union.inputs.iter().filter_map(|input| {
            let field = input.schema().fields().get(index)?;
            Some(match quoted(input, index) {
                Some(_) => Argument::Unknown,
                None => Argument::of(field.data_type()),
            })
        });
        let arguments: Vec<Argument> = arguments.collect();
        // A column that is null in all inputs is text.
        let target = common(&arguments).map(|kind| kind.unwrap_or(DataType::Utf8));
        targets.push(target.ok());
    }
    let mut inputs = Vec::new();
    for input in union.inputs {
        let schema = input.schema().as_ref().clone();
        let fits = |(field, target): (&Arc<Field>, &Option<DataType>)| {
            target
                .as_ref()
                .is_none_or(|target| target == field.data_type())
        };
        if schema.fields().iter().zip(&targets).all(fits) {
            inputs.push(input);
            continue;
        }
        let scope = Scope { schema };
        let mut outputs = Vec::new();
        for (index, ((qualifier, field), target)) in scope.schema.iter().zip(&targets).enumerate() {
            let column = Expr::Column(Column::new(qualifier.cloned(), field.name()));
            let value = match (target, quoted(&input, index)) {
                (Some(DataType::Utf8) | None, Some(_)) | (None, None) => column,
                (Some(target), Some(literal)) => scope.coerced(literal.clone(), target)?,
                (Some(target), None) => scope.coerced(column, target)?,
            };
            outputs.push(value.alias_qualified(qualifier.cloned(), field.name()));
        }
        let projection = LogicalPlanBuilder::from(input.as_ref().clone()).project(outputs)?;
        inputs.push(Arc::new(projection.build()?));
    }
    Ok(LogicalPlan::Union(Union::try_new_with_loose_types(inputs)?))
}

/// The quoted literal that is a column of a query; it takes the type that is needed.
fn quoted(query: &LogicalPlan, column: usize) -> Option<&Expr> {
    let LogicalPlan::Projection(projection) = query else {
        return None;
    };
    let mut expr = projection.expr.get(column)?;
    while let Expr::Alias(alias) = expr {
        expr = &alias.expr;
    }
    matches!(expr, Expr::Literal(ScalarValue::Utf8(_), _)).then_some(expr)
}
