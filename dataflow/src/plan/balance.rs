//! Long chains of AND and of OR as trees of small depth, so that planning and evaluating them does
//! not recurse as deep as they are long.
//!
//! `a OR b OR c OR d` means `(a OR b) OR (c OR d)`: the operands stay in their order, so what the
//! first ones decide is decided before the others are evaluated.

use std::mem;
use std::ops::ControlFlow;

use datafusion_sql::sqlparser::ast::{
    BinaryOperator, Expr, Statement, Value, VisitMut, VisitorMut,
};

/// A chain of more operands than this is balanced. Shorter ones stay as they are, and with them the
/// fingerprints of views that were planned before.
pub(super) const BALANCED_FROM: usize = 32;

struct Balance;

impl VisitorMut for Balance {
    type Break = ();

    /// Before its operands are visited: the visit recurses as deep as what it finds.
    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if let Some(op) = logical(expr)
            && spine(expr, &op) > BALANCED_FROM
        {
            let operands = taken_apart(mem::replace(expr, nothing()), &op);
            let both = |left, right| Expr::BinaryOp {
                left: Box::new(left),
                op: op.clone(),
                right: Box::new(right),
            };
            *expr = chained(operands, both).unwrap_or_else(nothing);
        }
        ControlFlow::Continue(())
    }
}

/// Balances all chains of a statement.
pub(super) fn balance(statement: &mut Statement) {
    let _visited: ControlFlow<()> = statement.visit(&mut Balance);
}

fn nothing() -> Expr {
    Expr::value(Value::Null)
}

fn logical(expr: &Expr) -> Option<BinaryOperator> {
    match expr {
        Expr::BinaryOp {
            op: op @ (BinaryOperator::And | BinaryOperator::Or),
            ..
        } => Some(op.clone()),
        _ => None,
    }
}

/// How many operands a chain has, which nests on its left.
fn spine(mut expr: &Expr, of: &BinaryOperator) -> usize {
    let mut operands = 1;
    while let Expr::BinaryOp { left, op, .. } = expr
        && op == of
    {
        operands += 1;
        expr = left;
    }
    operands
}

/// The operands of a chain, in order.
fn taken_apart(mut expr: Expr, of: &BinaryOperator) -> Vec<Expr> {
    let mut operands = Vec::new();
    loop {
        match expr {
            Expr::BinaryOp { left, op, right } if op == *of => {
                operands.push(*right);
                expr = *left;
            }
            first => {
                operands.push(first);
                operands.reverse();
                return operands;
            }
        }
    }
}

/// The operands with an operator between each two: from left to right while they are few, else a
/// tree of small depth. None of none.
pub(super) fn chained<T>(operands: Vec<T>, both: impl Fn(T, T) -> T) -> Option<T> {
    if operands.len() <= BALANCED_FROM {
        return operands.into_iter().reduce(both);
    }
    let mut operands = operands;
    while operands.len() > 1 {
        let mut pairs = Vec::with_capacity(operands.len().div_ceil(2));
        let mut left_over = operands.into_iter();
        while let Some(left) = left_over.next() {
            pairs.push(match left_over.next() {
                None => left,
                Some(right) => both(left, right),
            });
        }
        operands = pairs;
    }
    operands.pop()
}
