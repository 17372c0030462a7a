//! Expression simplification under PostgreSQL's three-valued logic.
//!
//! The rules are few, and each holds for all values, including null:
//!
//! - An operation on constants is evaluated by the expression that would evaluate it for every row.
//!   If that fails, the operation stays and fails the rows that reach it, except for a cast of a
//!   constant, which is an error of the view. What is computed from NULL is NULL, except by AND, OR
//!   and IS DISTINCT FROM.
//! - `BETWEEN` becomes the comparisons that define it. `NOT` moves down to comparisons.
//! - TRUE and FALSE are removed from AND, OR and CASE.
//! - `CAST(i AS bigint) > 3` compares `i` itself if the constant is a value of its type. The same
//!   holds for dates and timestamps, for which the wider type may not even have a value.
//! - Functions without an evaluation of their own become the CASE that defines them.
//!
//! Input: a typed plan. Output: a plan with the same nodes, whose expressions have the same value
//! for every row. DataFusion's own simplifier is not used, because some of its rules do not hold
//! for null (it replaces `x # x` by 0).

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::array::RecordBatchOptions;
use arrow::datatypes::{DataType, Schema};
use datafusion_common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion_common::{DFSchema, Result, ScalarValue};
use datafusion_expr::expr::{BinaryExpr, Case, Cast, InList};
use datafusion_expr::expr_rewriter::NamePreserver;
use datafusion_expr::simplify::{ExprSimplifyResult, SimplifyContext};
use datafusion_expr::utils::merge_schema;
use datafusion_expr::{Expr, ExprSchemable, LogicalPlan, Operator, and, binary_expr, lit, or};

use crate::lower::physical;

/// Functions that DataFusion replaces by another expression. Most have no evaluation of their own;
/// for `concat` and `concat_ws`, nulls and constants are combined.
///
/// Of these, only `coalesce`, `concat` and `concat_ws` have names that SQL may call here.
const SHORTHANDS: [&str; 9] = [
    "coalesce",
    "concat",
    "concat_ws",
    "nvl",
    "nvl2",
    "arrow_cast",
    "arrow_try_cast",
    "cast_to_type",
    "try_cast_to_type",
];

/// Simplifies all expressions of a plan.
///
/// # Errors
/// When a cast of a constant fails.
pub(crate) fn simplified(plan: LogicalPlan) -> Result<LogicalPlan> {
    let simplified = plan.transform_up(|node| {
        let schema = merge_schema(&node.inputs());
        let names = NamePreserver::new(&node);
        node.map_expressions(|expr| {
            let name = names.save(&expr);
            let simple = expr.transform_up(|expr| simpler(expr, &schema))?;
            Ok(simple.update_data(|expr| name.restore(expr)))
        })
    })?;
    Ok(simplified.data)
}

/// Simplifies one expression whose operands are simple already.
///
/// The operands come first (`transform_up`), so constants propagate outwards in one pass.
fn simpler(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    let before = expr.clone();
    let expr = match expr {
        Expr::Not(inner) => negated(*inner),
        Expr::Between(between) => {
            let (low, high) = match between.negated {
                false => (Operator::GtEq, Operator::LtEq),
                true => (Operator::Lt, Operator::Gt),
            };
            let low = binary_expr(*between.expr.clone(), low, *between.low);
            let high = binary_expr(*between.expr, high, *between.high);
            let (low, high) = (uncast(low, schema)?, uncast(high, schema)?);
            match between.negated {
                false => logical(and(low, high)),
                true => logical(or(low, high)),
            }
        }
        Expr::BinaryExpr(BinaryExpr {
            op: Operator::And | Operator::Or,
            ..
        }) => logical(expr),
        Expr::BinaryExpr(_) => uncast(turned(expr), schema)?,
        Expr::InList(list) => listed(list, schema)?,
        Expr::Case(case) => branches(case, schema)?,
        Expr::ScalarFunction(call) if SHORTHANDS.contains(&call.func.name()) => {
            let context = SimplifyContext::builder()
                .with_schema(Arc::new(schema.clone()))
                .build();
            match call.func.simplify(call.args, &context)? {
                // The same function with fewer arguments: it is simple already.
                ExprSimplifyResult::Simplified(call @ Expr::ScalarFunction(_)) => call,
                ExprSimplifyResult::Simplified(expr) => {
                    let simple = expr.transform_up(|expr| simpler(expr, schema))?;
                    return Ok(Transformed::yes(simple.data));
                }
                ExprSimplifyResult::Original(args) => {
                    Expr::ScalarFunction(datafusion_expr::expr::ScalarFunction {
                        func: call.func,
                        args,
                    })
                }
            }
        }
        other => other,
    };
    let expr = folded(expr, schema)?;
    let changed = expr != before;
    Ok(Transformed::new(expr, changed, TreeNodeRecursion::Continue))
}

/// The value of a boolean literal.
fn boolean(expr: &Expr) -> Option<bool> {
    match expr {
        Expr::Literal(ScalarValue::Boolean(value), _) => *value,
        _ => None,
    }
}

/// Removes operands of AND and OR that decide nothing.
///
/// `NULL AND x` stays: it is false where `x` is false, and null elsewhere.
fn logical(expr: Expr) -> Expr {
    let Expr::BinaryExpr(BinaryExpr { left, op, right }) = expr else {
        return expr;
    };
    // The operand that decides: FALSE AND x, TRUE OR x.
    let decides = op == Operator::Or;
    match (boolean(&left), boolean(&right)) {
        (Some(value), _) if value == decides => lit(decides),
        (_, Some(value)) if value == decides => lit(decides),
        (Some(_), _) => *right,
        (_, Some(_)) => *left,
        _ if left == right => *left,
        _ => Expr::BinaryExpr(BinaryExpr { left, op, right }),
    }
}

/// The negation of an expression.
///
/// By De Morgan's laws, which hold in three-valued logic too. `NOT (a < b)` is `a >= b`, because
/// both are null if an operand is null.
fn negated(expr: Expr) -> Expr {
    match expr {
        Expr::Not(inner) => *inner,
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => match (op, op.negate()) {
            (Operator::And, _) => logical(or(negated(*left), negated(*right))),
            (Operator::Or, _) => logical(and(negated(*left), negated(*right))),
            (_, Some(op)) => Expr::BinaryExpr(BinaryExpr { left, op, right }),
            (op, None) => Expr::Not(Box::new(Expr::BinaryExpr(BinaryExpr { left, op, right }))),
        },
        Expr::IsNull(inner) => Expr::IsNotNull(inner),
        Expr::IsNotNull(inner) => Expr::IsNull(inner),
        Expr::InList(mut list) => {
            list.negated = !list.negated;
            Expr::InList(list)
        }
        Expr::Like(mut like) => {
            like.negated = !like.negated;
            Expr::Like(like)
        }
        other => Expr::Not(Box::new(other)),
    }
}

/// A comparison with the constant on the right side, and of two columns in the order of their
/// names.
///
/// Two conditions that mean the same then have the same text, so the second one is found to be a
/// repetition.
fn turned(expr: Expr) -> Expr {
    let Expr::BinaryExpr(BinaryExpr { left, op, right }) = expr else {
        return expr;
    };
    let turns = match (left.as_ref(), right.as_ref()) {
        (Expr::Literal(..), Expr::Column(_)) => true,
        (Expr::Column(one), Expr::Column(other)) => other > one,
        _ => false,
    };
    match op.swap() {
        Some(op) if turns && op.supports_propagation() => binary_expr(*right, op, *left),
        _ => Expr::BinaryExpr(BinaryExpr { left, op, right }),
    }
}

/// Replaces the comparison of a widened value with a constant by a comparison of the value itself.
///
/// The comparison stays if the constant has no exact counterpart in the narrow type: `CAST(i AS
/// bigint) = 3000000000` is never true for an int `i`.
fn uncast(expr: Expr, schema: &DFSchema) -> Result<Expr> {
    let Expr::BinaryExpr(BinaryExpr { left, op, right }) = &expr else {
        return Ok(expr);
    };
    if !op.supports_propagation() && *op != Operator::NotEq {
        return Ok(expr);
    }
    let (wide, value, op) = match (left.as_ref(), right.as_ref(), op.swap()) {
        (Expr::Cast(wide), Expr::Literal(value, _), _) => (wide, value, *op),
        (Expr::Literal(value, _), Expr::Cast(wide), Some(op)) => (wide, value, op),
        _ => return Ok(expr),
    };
    match narrowed(wide, value, schema)? {
        Some(value) => Ok(binary_expr(
            wide.expr.as_ref().clone(),
            op,
            Expr::Literal(value, None),
        )),
        None => Ok(expr),
    }
}

/// The constant in the type of the value that is widened, if it is a value of that type.
///
/// A type widens another one if every value of the narrow type has exactly one counterpart. The
/// constant must survive the way to the narrow type and back.
fn narrowed(wide: &Cast, value: &ScalarValue, schema: &DFSchema) -> Result<Option<ScalarValue>> {
    let narrow = wide.expr.get_type(schema)?;
    let to = wide.field.data_type();
    let widens = match (&narrow, to) {
        (DataType::Timestamp(from, _), DataType::Timestamp(to, _)) => from <= to,
        (DataType::Date32, DataType::Timestamp(..)) => true,
        (from, to) if from == to => true,
        (DataType::Decimal128(digits, scale), DataType::Decimal128(to_digits, to_scale)) => {
            let whole = |digits: u8, scale: i8| i16::from(digits) - i16::from(scale);
            scale <= to_scale && whole(*digits, *scale) <= whole(*to_digits, *to_scale)
        }
        (from, to) => {
            from.is_signed_integer() && to.is_signed_integer() && from.size() <= to.size()
        }
    };
    if !widens || value.is_null() || value.data_type() != *to {
        return Ok(None);
    }
    let cast = value.cast_to(&narrow);
    let exact = |cast: &ScalarValue| cast.cast_to(to).is_ok_and(|back| back == *value);
    Ok(cast.ok().filter(exact))
}

/// Replaces IN with few values by comparisons.
///
/// `x IN (1, 2)` becomes `x = 1 OR x = 2`, which other rules understand. An expression with more
/// than a column stays in the list, so that it is evaluated once.
fn listed(list: InList, schema: &DFSchema) -> Result<Expr> {
    let InList {
        expr,
        list,
        negated,
    } = list;
    let (op, combined): (_, fn(Expr, Expr) -> Expr) = match negated {
        false => (Operator::Eq, or),
        true => (Operator::NotEq, and),
    };
    let simple = matches!(expr.as_ref(), Expr::Column(_)) || list.len() == 1;
    if list.len() > FEW || !simple {
        return Ok(Expr::InList(InList::new(expr, list, negated)));
    }
    let each = list
        .into_iter()
        .map(|item| uncast(binary_expr(*expr.clone(), op, item), schema));
    let each = each.collect::<Result<Vec<_>>>()?;
    Ok(each
        .into_iter()
        .reduce(combined)
        .unwrap_or_else(|| lit(negated)))
}

/// Most values of an IN that are compared one by one.
const FEW: usize = 3;

/// Removes CASE branches that are never taken, and those after one that is always taken.
///
/// A CASE without branches left is its ELSE, cast to the type that the CASE had.
fn branches(mut case: Case, schema: &DFSchema) -> Result<Expr> {
    if case.expr.is_some() {
        return Ok(Expr::Case(case));
    }
    let kind = Expr::Case(case.clone()).get_type(schema)?;
    let mut kept = Vec::new();
    for (when, then) in case.when_then_expr {
        match when.as_ref() {
            Expr::Literal(ScalarValue::Boolean(Some(true)), _) => {
                case.else_expr = Some(then);
                break;
            }
            Expr::Literal(ScalarValue::Boolean(_), _) => {}
            _ => kept.push((when, then)),
        }
    }
    case.when_then_expr = kept;
    if !case.when_then_expr.is_empty() {
        return Ok(Expr::Case(case));
    }
    let value = match case.else_expr {
        Some(value) => *value,
        None => Expr::Literal(ScalarValue::Null, None),
    };
    value.cast_to(&kind, schema)
}

/// Evaluates an operation on constants.
///
/// # Errors
/// A cast of a constant fails. Every other operation that fails stays in the plan.
fn folded(expr: Expr, schema: &DFSchema) -> Result<Expr> {
    if let Expr::BinaryExpr(BinaryExpr { left, op, right }) = &expr {
        let null = |side: &Expr| matches!(side, Expr::Literal(value, _) if value.is_null());
        let knows_nulls = matches!(
            op,
            Operator::And | Operator::Or | Operator::IsDistinctFrom | Operator::IsNotDistinctFrom
        );
        if !knows_nulls && (null(left) || null(right)) {
            let nothing = ScalarValue::try_from(&expr.get_type(schema)?)?;
            return Ok(Expr::Literal(nothing, None));
        }
    }
    let operation = !matches!(
        expr,
        Expr::Literal(..)
            | Expr::Column(_)
            | Expr::Alias(_)
            | Expr::AggregateFunction(_)
            | Expr::WindowFunction(_)
    );
    let mut operands = 0;
    let mut constant = true;
    expr.apply_children(|operand| {
        operands += 1;
        constant &= matches!(operand, Expr::Literal(..));
        Ok(TreeNodeRecursion::Continue)
    })?;
    if !operation || !constant || operands == 0 {
        return Ok(expr);
    }
    let one_row = RecordBatchOptions::new().with_row_count(Some(1));
    let empty = Arc::new(Schema::empty());
    let row = RecordBatch::try_new_with_options(empty, Vec::new(), &one_row)?;
    let value = physical(&expr, &DFSchema::empty())
        .and_then(|physical| physical.evaluate(&row)?.into_array(1))
        .and_then(|value| ScalarValue::try_from_array(&value, 0));
    match value {
        Ok(value) if value.data_type() == expr.get_type(schema)? => Ok(Expr::Literal(value, None)),
        Err(error) if matches!(expr, Expr::Cast(_)) => Err(error),
        _ => Ok(expr),
    }
}
