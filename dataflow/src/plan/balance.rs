//! Balancing of long AND and OR chains into trees of small depth.
//!
//! Planning and evaluation recurse as deep as an expression nests, and the parser nests a chain as
//! deep as it is long. `a OR b OR c OR d` becomes `(a OR b) OR (c OR d)`. The operands keep their
//! order, so the first operands still decide before the others are evaluated.
//!
//! ```text
//!       OR                         OR
//!      /  \                      /    \
//!     OR   d        ─►         OR      OR
//!    /  \                     /  \    /  \
//!   OR   c                   a    b  c    d
//!  /  \
//! a    b
//! ```

use std::mem;
use std::ops::ControlFlow;

use datafusion_sql::sqlparser::ast::{
    BinaryOperator, Expr, Statement, Value, VisitMut, VisitorMut,
};

/// Chains with more operands than this are balanced. Shorter chains stay as they are, so that the
/// fingerprints of views that earlier versions planned stay the same.
pub(super) const BALANCED_FROM: usize = 32;

/// The visitor that replaces each long chain by a tree.
struct Balance;

impl VisitorMut for Balance {
    type Break = ();

    /// Runs before the operands are visited, because the visit recurses as deep as the tree it
    /// finds.
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

/// Balances all long chains of a statement.
pub(super) fn balance(statement: &mut Statement) {
    let _visited: ControlFlow<()> = statement.visit(&mut Balance);
}

/// A placeholder expression, for taking an expression out of the tree.
fn nothing() -> Expr {
    Expr::value(Value::Null)
}

/// The operator, if the expression is an AND or an OR.
fn logical(expr: &Expr) -> Option<BinaryOperator> {
    match expr {
        Expr::BinaryOp {
            op: op @ (BinaryOperator::And | BinaryOperator::Or),
            ..
        } => Some(op.clone()),
        _ => None,
    }
}

/// The number of operands of a chain that nests on its left side.
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

/// Combines the operands by `both`: from left to right while they are few, otherwise as a tree of
/// small depth. `None` if there are no operands.
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
