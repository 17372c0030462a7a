//! LIMIT and OFFSET as written: FETCH FIRST, and constant expressions.
//!
//! Input: a parsed query. Output: the same query with LIMIT in place of FETCH, and with numbers in
//! place of sums, differences and products of numbers.

use std::ops::ControlFlow;

use datafusion_sql::sqlparser::ast::{
    BinaryOperator, Expr, LimitClause, Query, UnaryOperator, Value, VisitMut, VisitorMut,
};

/// Writes out the limits of a query.
pub(crate) fn written(query: &mut Query) {
    let _visited: ControlFlow<()> = query.visit(&mut Writing);
}

/// The visitor that writes out limits.
struct Writing;

impl VisitorMut for Writing {
    type Break = ();

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
        if let Some(fetch) = query.fetch.take() {
            // FETCH FIRST ROW ONLY is one row.
            let count = fetch.quantity.unwrap_or_else(|| number(1));
            let offset = match query.limit_clause.take() {
                Some(LimitClause::LimitOffset { offset, .. }) => offset,
                _ => None,
            };
            query.limit_clause = Some(LimitClause::LimitOffset {
                limit: Some(count),
                offset,
                limit_by: Vec::new(),
            });
        }
        if let Some(LimitClause::LimitOffset { limit, offset, .. }) = &mut query.limit_clause {
            let offset = offset.iter_mut().map(|offset| &mut offset.value);
            for expr in limit.iter_mut().chain(offset) {
                if let Some(value) = computed(expr) {
                    *expr = number(value);
                }
            }
        }
        ControlFlow::Continue(())
    }
}

/// The literal of a number.
fn number(value: i64) -> Expr {
    Expr::value(Value::Number(value.to_string(), false))
}

/// The value of a constant expression of whole numbers.
pub(crate) fn computed(expr: &Expr) -> Option<i64> {
    match expr {
        Expr::Nested(inner) => computed(inner),
        Expr::Value(value) => match &value.value {
            Value::Number(digits, _) => digits.parse().ok(),
            _ => None,
        },
        Expr::UnaryOp {
            op: UnaryOperator::Minus,
            expr,
        } => computed(expr)?.checked_neg(),
        Expr::BinaryOp { left, op, right } => {
            let (left, right) = (computed(left)?, computed(right)?);
            match op {
                BinaryOperator::Plus => left.checked_add(right),
                BinaryOperator::Minus => left.checked_sub(right),
                BinaryOperator::Multiply => left.checked_mul(right),
                BinaryOperator::Divide => left.checked_div(right),
                BinaryOperator::Modulo => left.checked_rem(right),
                _ => None,
            }
        }
        _ => None,
    }
}
