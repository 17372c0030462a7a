//! `now()`: refused wherever [`crate::lower::temporal`] cannot make a temporal filter of it.
//!
//! Accepted are comparisons of a clock expression with an expression without `now()`, as conditions
//! that must be true: of WHERE, of HAVING, and of ON of an inner join, alone or beside AND. A clock
//! expression is `now()` in casts, with a constant added or subtracted, in `date_trunc`, or with
//! `AT TIME ZONE`.

use std::collections::HashSet;
use std::ops::ControlFlow;

use arrow::compute::kernels::cast_utils::parse_interval_month_day_nano;
use datafusion_sql::sqlparser::ast::{
    BinaryOperator, DateTimeField, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments,
    Interval, JoinConstraint, JoinOperator, Select, Spanned, Value, visit_expressions,
};

use super::Refusal;
use crate::catalog::now::{MONTHS, NAME};
use crate::script::{normal, single};

/// The calls of `now()` that are accepted, by their address in the query, which does not change
/// while the query is checked.
#[derive(Default)]
pub(super) struct Accepted(HashSet<usize>);

impl Accepted {
    /// Whether a call is accepted.
    pub(super) fn has(&self, call: &Function) -> bool {
        self.0.contains(&address(call))
    }

    /// Accepts the calls in the conditions of a SELECT.
    pub(super) fn select(&mut self, select: &Select) -> Refusal {
        for condition in select.selection.iter().chain(&select.having) {
            self.condition(condition)?;
        }
        for join in select.from.iter().flat_map(|from| &from.joins) {
            if let JoinOperator::Join(JoinConstraint::On(on))
            | JoinOperator::Inner(JoinConstraint::On(on)) = &join.join_operator
            {
                self.condition(on)?;
            }
        }
        ControlFlow::Continue(())
    }

    /// Accepts the calls in a condition that must be true.
    fn condition(&mut self, condition: &Expr) -> Refusal {
        match condition {
            Expr::Nested(inner) => self.condition(inner),
            Expr::BinaryOp { left, op, right } => match op {
                BinaryOperator::And => {
                    self.condition(left)?;
                    self.condition(right)
                }
                BinaryOperator::Lt
                | BinaryOperator::LtEq
                | BinaryOperator::Eq
                | BinaryOperator::GtEq
                | BinaryOperator::Gt => self.comparison(left, right),
                _ => ControlFlow::Continue(()),
            },
            Expr::Between {
                expr,
                negated: false,
                low,
                high,
            } => {
                self.comparison(expr, low)?;
                self.comparison(expr, high)
            }
            _ => ControlFlow::Continue(()),
        }
    }

    /// Accepts the call in one side of a comparison, if the other side has none.
    fn comparison(&mut self, left: &Expr, right: &Expr) -> Refusal {
        let with = match (mentions(left), mentions(right)) {
            (true, false) => left,
            (false, true) => right,
            _ => return ControlFlow::Continue(()),
        };
        self.0.extend(clock(with)?);
        ControlFlow::Continue(())
    }
}

/// The address of a call.
fn address(call: &Function) -> usize {
    std::ptr::from_ref(call).addr()
}

/// Whether a call is one of `now()`.
fn is_now(call: &Function) -> bool {
    single(&call.name).is_some_and(|name| normal(name) == NAME)
}

/// Whether an expression contains a call of `now()`.
fn mentions(expr: &Expr) -> bool {
    let found = visit_expressions(expr, |expr| match expr {
        Expr::Function(call) if is_now(call) => ControlFlow::Break(()),
        _ => ControlFlow::Continue(()),
    });
    found.is_break()
}

/// The call of `now()` in a clock expression; `None` for any other expression.
///
/// Breaks with a refusal of months.
fn clock(expr: &Expr) -> ControlFlow<(super::Span, String), Option<usize>> {
    match expr {
        Expr::Function(call) if is_now(call) => ControlFlow::Continue(Some(address(call))),
        Expr::Function(call) => match arguments(call).as_slice() {
            [_, inner] if single(&call.name).is_some_and(|it| normal(it) == "date_trunc") => {
                clock(inner)
            }
            _ => ControlFlow::Continue(None),
        },
        Expr::Nested(inner) | Expr::Cast { expr: inner, .. } => clock(inner),
        Expr::AtTimeZone { timestamp, .. } => clock(timestamp),
        Expr::BinaryOp { left, op, right } => {
            let (inner, by) = match (op, mentions(left), mentions(right)) {
                (BinaryOperator::Plus | BinaryOperator::Minus, true, false) => (left, right),
                (BinaryOperator::Plus, false, true) => (right, left),
                _ => return ControlFlow::Continue(None),
            };
            match is_constant(by) {
                true => {
                    months(by)?;
                    clock(inner)
                }
                false => ControlFlow::Continue(None),
            }
        }
        _ => ControlFlow::Continue(None),
    }
}

/// The arguments of a call that are expressions.
fn arguments(call: &Function) -> Vec<&Expr> {
    let FunctionArguments::List(list) = &call.args else {
        return Vec::new();
    };
    let args = list.args.iter().filter_map(|arg| match arg {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => Some(expr),
        _ => None,
    });
    args.collect()
}

/// Whether an expression reads no column and no subquery.
fn is_constant(expr: &Expr) -> bool {
    let found = visit_expressions(expr, |expr| match expr {
        Expr::Identifier(_)
        | Expr::CompoundIdentifier(_)
        | Expr::Subquery(_)
        | Expr::InSubquery { .. }
        | Expr::Exists { .. } => ControlFlow::Break(()),
        _ => ControlFlow::Continue(()),
    });
    found.is_continue()
}

/// Refuses an interval with months.
fn months(expr: &Expr) -> Refusal {
    visit_expressions(expr, |expr| match expr {
        Expr::Interval(interval) if has_months(interval) => {
            ControlFlow::Break((expr.span(), MONTHS.to_owned()))
        }
        _ => ControlFlow::Continue(()),
    })
}

/// Whether an interval has months, which are also the years of it.
fn has_months(interval: &Interval) -> bool {
    let text = match interval.value.as_ref() {
        Expr::Value(value) => match &value.value {
            Value::SingleQuotedString(text) => text,
            _ => return false,
        },
        _ => return false,
    };
    let text = match &interval.leading_field {
        Some(DateTimeField::Year | DateTimeField::Years) => format!("{text} years"),
        Some(DateTimeField::Month | DateTimeField::Months) => format!("{text} months"),
        Some(_) => return false,
        None => text.clone(),
    };
    parse_interval_month_day_nano(&text).is_ok_and(|interval| interval.months != 0)
}
