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
use tidemill_functions::chain::{BALANCED_FROM, chained};

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
pub(crate) fn balance(statement: &mut Statement) {
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
