//! `(a, b) IN (SELECT x, y …)`: rows compared with the rows of a subquery.
//!
//! DataFusion's planner takes subqueries of one column there. The comparison is written out, column
//! by column, as the condition of EXISTS:
//!
//! ```text
//! (a, b) IN (q)   ─► CASE WHEN EXISTS (SELECT 1 FROM (q) AS r (c0, c1) WHERE a = c0 AND b = c1)
//!                         THEN true
//!                         WHEN EXISTS (… WHERE (a = c0 AND b = c1) IS NULL) THEN NULL
//!                         ELSE false END
//! ```
//!
//! As a condition of WHERE, where null is as good as false, the first EXISTS is enough, and for NOT
//! IN a NOT EXISTS over `(a = c0 AND b = c1) IS NOT FALSE`.

use std::ops::ControlFlow;

use datafusion_sql::sqlparser::ast::helpers::attached_token::AttachedToken;
use datafusion_sql::sqlparser::ast::{
    BinaryOperator, CaseWhen, Expr, Ident, Query, Select, SetExpr, TableAliasColumnDef,
    TableFactor, Value, VisitMut, VisitorMut,
};
use tidemill_functions::chain::chained;
use tidemill_log::{Error, Kind, Result};

use super::derived::{MARK, query};

/// Writes out every comparison of a row with the rows of a subquery.
///
/// # Errors
/// `Bug` when the templates do not parse.
pub(crate) fn written(of: &mut Query) -> Result<()> {
    match of.visit(&mut RowComparisons) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(error) => Err(error),
    }
}

/// The visitor that writes out the comparisons.
struct RowComparisons;

impl VisitorMut for RowComparisons {
    type Break = Error;

    /// Conditions of WHERE come first. What is left is a value.
    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<Error> {
        match &mut select.selection {
            Some(condition) => broken(conditions(condition)),
            None => ControlFlow::Continue(()),
        }
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<Error> {
        broken(value(expr))
    }
}

/// A result as a visitor returns it.
fn broken(result: Result<()>) -> ControlFlow<Error> {
    match result {
        Ok(()) => ControlFlow::Continue(()),
        Err(error) => ControlFlow::Break(error),
    }
}

/// The row, the subquery and whether it is NOT IN, if an expression compares a row in this way.
fn compared(expr: &Expr) -> Option<(Vec<Expr>, Query, bool)> {
    match expr {
        Expr::InSubquery {
            expr,
            subquery,
            negated,
        } => match expr.as_ref() {
            Expr::Tuple(row) => Some((row.clone(), subquery.as_ref().clone(), *negated)),
            _ => None,
        },
        _ => None,
    }
}

/// Writes out the comparisons among the conditions that AND joins.
fn conditions(condition: &mut Expr) -> Result<()> {
    if let Expr::BinaryOp {
        left,
        op: BinaryOperator::And,
        right,
    } = condition
    {
        conditions(left)?;
        return conditions(right);
    }
    if let Some((row, rows, negated)) = compared(condition) {
        let rows = (rows, row.len());
        let equal = equalities(row)?;
        *condition = match negated {
            false => exists(rows, equal, false)?,
            true => exists(rows, Expr::IsNotFalse(Box::new(nested(equal))), true)?,
        };
    }
    Ok(())
}

/// Writes out a comparison whose value may be null.
fn value(expr: &mut Expr) -> Result<()> {
    let Some((row, rows, negated)) = compared(expr) else {
        return Ok(());
    };
    let rows = (rows, row.len());
    let equal = equalities(row)?;
    let unknown = Expr::IsNull(Box::new(nested(equal.clone())));
    let constant = |value: Value| Box::new(Expr::Value(value.into()));
    let when = |condition, result| CaseWhen {
        condition,
        result: *constant(result),
    };
    *expr = Expr::Case {
        case_token: AttachedToken::empty(),
        end_token: AttachedToken::empty(),
        operand: None,
        conditions: vec![
            when(
                exists(rows.clone(), equal, false)?,
                Value::Boolean(!negated),
            ),
            when(exists(rows, unknown, false)?, Value::Null),
        ],
        else_result: Some(constant(Value::Boolean(negated))),
    };
    Ok(())
}

/// An expression in parentheses.
fn nested(expr: Expr) -> Expr {
    Expr::Nested(Box::new(expr))
}

/// The alias of the subquery's rows.
fn alias() -> Ident {
    Ident::with_quote('"', format!("{MARK}row"))
}

/// The name of a column of the subquery.
fn column(index: usize) -> Ident {
    Ident::with_quote('"', format!("{MARK}{index}"))
}

/// `a = row.c0 AND b = row.c1` for a row `(a, b)`.
///
/// # Errors
/// `Bug` for a row without values, which does not parse.
fn equalities(row: Vec<Expr>) -> Result<Expr> {
    let each = row
        .into_iter()
        .enumerate()
        .map(|(index, value)| Expr::BinaryOp {
            left: Box::new(value),
            op: BinaryOperator::Eq,
            right: Box::new(Expr::CompoundIdentifier(vec![alias(), column(index)])),
        });
    let and = |left, right| Expr::BinaryOp {
        left: Box::new(left),
        op: BinaryOperator::And,
        right: Box::new(right),
    };
    chained(each.collect(), and).ok_or_else(|| Error::new(Kind::Bug, "a row without values"))
}

/// Whether a row of `rows`, which has so many columns, meets a condition on its columns.
///
/// # Errors
/// `Bug` when the template is not what is expected.
fn exists((rows, columns): (Query, usize), condition: Expr, negated: bool) -> Result<Expr> {
    let mut template = query("SELECT 1 FROM (SELECT 1) AS compared WHERE true")?;
    let wrong = || Error::new(Kind::Bug, "a template of another form");
    let SetExpr::Select(select) = template.body.as_mut() else {
        return Err(wrong());
    };
    let from = select.from.first_mut().map(|from| &mut from.relation);
    let Some(TableFactor::Derived {
        subquery,
        alias: Some(named),
        ..
    }) = from
    else {
        return Err(wrong());
    };
    **subquery = rows;
    named.name = alias();
    let names = (0..columns).map(column);
    named.columns = names
        .map(|name| TableAliasColumnDef {
            name,
            data_type: None,
        })
        .collect();
    select.selection = Some(condition);
    Ok(Expr::Exists {
        subquery: Box::new(template),
        negated,
    })
}
