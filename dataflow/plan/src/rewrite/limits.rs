//! LIMIT and OFFSET as written: FETCH FIRST, and constant expressions.
//!
//! Input: a parsed query. Output: the same query with LIMIT in place of FETCH, and with numbers in
//! place of sums, differences and products of numbers. A query WITH TIES is marked.

use std::ops::ControlFlow;

use datafusion_sql::sqlparser::ast::{
    BinaryOperator, Expr, LimitClause, Query, SetExpr, TableFactor, UnaryOperator, Value, VisitMut,
    VisitorMut,
};
use tidemill_log::{Error, Result};

use super::derived::{MARK, marked};

/// The alias that marks a query whose limit is WITH TIES ([`crate::logical::with_ties`]).
pub(crate) fn mark() -> String {
    format!("{MARK}with ties")
}

/// Writes out the limits of a query.
///
/// # Errors
/// `Bug` when the templates do not parse.
pub(crate) fn written(query: &mut Query) -> Result<()> {
    match query.visit(&mut Writing) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(error) => Err(error),
    }
}

/// The visitor that writes out limits.
struct Writing;

impl VisitorMut for Writing {
    type Break = Error;

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<Error> {
        let ties = query.fetch.as_ref().is_some_and(|fetch| fetch.with_ties);
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
        match if ties { tied(query) } else { Ok(()) } {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => ControlFlow::Break(error),
        }
    }
}

/// Marks a query with a limit: `SELECT * FROM (query) AS mark`. Its common table expressions stay
/// where they are.
fn tied(query: &mut Query) -> Result<()> {
    let mut body = marked(query.body.as_ref().clone(), &mark())?;
    if let SetExpr::Select(select) = &mut body {
        for from in &mut select.from {
            if let TableFactor::Derived { subquery, .. } = &mut from.relation {
                subquery.order_by = query.order_by.take();
                subquery.limit_clause = query.limit_clause.take();
            }
        }
    }
    *query.body = body;
    Ok(())
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
