//! `IN` and `NOT IN` over a list of values.
//!
//! Input: the value that is searched for, and the items of the list. Output: DataFusion's own node
//! if all items are literals of one type, otherwise one comparison for each item.

use arrow::datatypes::DataType;
use datafusion_common::{Result, ScalarValue};
use datafusion_expr::expr::InList;
use datafusion_expr::{Expr, Operator, lit, not};

use tidemill_ir::types;

use super::super::resolve::{Argument, common};
use super::{Scope, compared_as, row, text_known};
use crate::chain::chained;

impl Scope {
    /// Replaces a list by DataFusion's node or by comparisons.
    ///
    /// `x IN (a, b)` without a common type becomes `x = a OR x = b`, in which each pair has its own
    /// types.
    pub(super) fn in_list(&self, list: InList) -> Result<Expr> {
        let InList {
            expr,
            list,
            negated,
        } = list;
        let (expr, list) = self.alike_constants(*expr, list)?;
        if let Some(target) = self.plain_list(&expr, &list)? {
            let list = list.into_iter().map(|item| self.comparable(item, &target));
            let list = list.collect::<Result<_>>()?;
            let expr = Box::new(self.comparable(expr, &target)?);
            return Ok(Expr::InList(InList {
                expr,
                list,
                negated,
            }));
        }
        let found = list
            .into_iter()
            .map(|item| self.compared(expr.clone(), Operator::Eq, item));
        let found = chained(found.collect::<Result<Vec<_>>>()?, Expr::or);
        let found = found.unwrap_or(lit(false));
        Ok(if negated { not(found) } else { found })
    }

    /// Casts the constants of a list as PostgreSQL does, which makes an array of them if there are
    /// more than one: they get one type, together with the value that is searched for. `real IN
    /// (0.1, 0.2)` compares reals, and `real IN (0.1)` compares as `real = 0.1` does.
    fn alike_constants(&self, expr: Expr, list: Vec<Expr>) -> Result<(Expr, Vec<Expr>)> {
        let constant = |item: &Expr| item.column_refs().is_empty();
        let constants = list.iter().filter(|item| constant(item));
        let all: Vec<Expr> = std::iter::once(&expr).chain(constants).cloned().collect();
        if all.len() < 3 || all.iter().any(|item| row(item).is_some()) {
            return Ok((expr, list));
        }
        let Ok(Some(target)) = common(&self.arguments(&all)?) else {
            return Ok((expr, list));
        };
        let typed = |value: Expr| match &target {
            // Numerics keep their own scales.
            DataType::Decimal128(..) => {
                let mut values = self.quoted_numerics(vec![value])?;
                Ok(values.pop().unwrap_or(lit(ScalarValue::Null)))
            }
            target => self.coerced(value, target).map(text_known),
        };
        let each = list.into_iter().map(|item| match constant(&item) {
            true => typed(item),
            false => Ok(item),
        });
        let list = each.collect::<Result<_>>()?;
        match self.argument(&expr)? {
            Argument::Unknown => Ok((typed(expr)?, list)),
            Argument::Known(_) => Ok((expr, list)),
        }
    }

    /// The type of all comparisons of a list of literals, if DataFusion's own node compares in the
    /// same way; otherwise None.
    ///
    /// Only literals are accepted, because DataFusion takes every item that it can evaluate over no
    /// rows for a constant, and a CASE gives null there.
    fn plain_list(&self, expr: &Expr, list: &[Expr]) -> Result<Option<DataType>> {
        let literals = list.iter().all(is_literal);
        if row(expr).is_some() || !literals {
            return Ok(None);
        }
        let subject = self.argument(expr)?;
        let mut found = None;
        for item in list {
            let pair = [subject.clone(), self.argument(item)?];
            let Ok(target) = compared_as(&pair) else {
                return Ok(None);
            };
            if found.as_ref().is_some_and(|found| *found != target) {
                return Ok(None);
            }
            found = Some(target);
        }
        let apart = |kind: &DataType| match kind {
            DataType::Decimal128(..) | DataType::Interval(_) | DataType::List(_) => true,
            kind => types::is_document(kind),
        };
        Ok(found.filter(|kind| !apart(kind)))
    }
}

/// Whether it is a literal, including a quoted literal that was typed as text.
fn is_literal(expr: &Expr) -> bool {
    match expr {
        Expr::Literal(..) => true,
        Expr::Cast(cast) => matches!(*cast.expr, Expr::Literal(..)),
        _ => false,
    }
}
