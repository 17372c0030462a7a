//! VALUES as SELECTs without FROM.
//!
//! Each row becomes a SELECT, and all rows a UNION ALL, so that the columns get their types by
//! PostgreSQL's rules for both. All rows of a VALUES decide on the types together, not two by two.
//! Therefore the alias of the subquery around the union marks it, and the nested unions become one
//! before types are resolved.
//!
//! ```text
//! VALUES (1, 'a'), (2, NULL)
//!   ─► SELECT * FROM (SELECT 1 AS column1, 'a' AS column2 UNION ALL SELECT 2, NULL) AS "values"
//! ```

use std::mem;
use std::ops::ControlFlow;
use std::sync::Arc;

use datafusion_common::Result as Planned;
use datafusion_common::tree_node::Transformed;
use datafusion_expr::LogicalPlan;
use datafusion_expr::logical_plan::Union;
use datafusion_sql::sqlparser::ast::{
    Expr, Ident, Query, Select, SelectItem, SetExpr, SetOperator, SetQuantifier, VisitMut,
    VisitorMut,
};
use tidemill_functions::chain::chained;
use tidemill_log::{Error, Result};

use super::derived::{MARK, marked, select};

/// The alias that marks the rows of a VALUES.
fn mark() -> String {
    format!("{MARK}values")
}

/// Rewrites every VALUES of a query.
///
/// # Errors
/// `Bug` when the templates do not parse.
pub(crate) fn selected(query: &mut Query) -> Result<()> {
    let mut selecting = Selecting {
        template: select("SELECT 1")?,
    };
    match query.visit(&mut selecting) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(error) => Err(error),
    }
}

/// The visitor that rewrites VALUES.
struct Selecting {
    /// A SELECT without FROM.
    template: Select,
}

impl VisitorMut for Selecting {
    type Break = Error;

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<Error> {
        match self.body(&mut query.body) {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => ControlFlow::Break(error),
        }
    }
}

impl Selecting {
    /// Rewrites the VALUES of a query body. Queries in parentheses are visited on their own.
    fn body(&self, of: &mut SetExpr) -> Result<()> {
        match of {
            SetExpr::SetOperation { left, right, .. } => {
                self.body(left)?;
                self.body(right)
            }
            SetExpr::Values(values) => {
                let rows = mem::take(&mut values.rows).into_iter();
                let rows = rows.map(|row| self.row(row.content));
                if let Some(rows) = chained(rows.collect(), union) {
                    *of = marked(rows, &mark())?;
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// One row of VALUES. PostgreSQL names the columns `column1`, `column2` and so on.
    fn row(&self, values: Vec<Expr>) -> SetExpr {
        let items = values.into_iter().enumerate();
        let items = items.map(|(index, expr)| SelectItem::ExprWithAlias {
            expr,
            alias: Ident::new(format!("column{}", index + 1)),
        });
        SetExpr::Select(Box::new(Select {
            projection: items.collect(),
            ..self.template.clone()
        }))
    }
}

/// The UNION ALL of two bodies.
pub(super) fn union(left: SetExpr, right: SetExpr) -> SetExpr {
    SetExpr::SetOperation {
        op: SetOperator::Union,
        set_quantifier: SetQuantifier::All,
        left: Box::new(left),
        right: Box::new(right),
    }
}

/// Makes one union of the rows of each VALUES.
///
/// # Errors
/// When the rows have different numbers of columns.
pub(crate) fn together(plan: LogicalPlan) -> Planned<LogicalPlan> {
    let together = plan.transform_up_with_subqueries(|node| {
        let LogicalPlan::SubqueryAlias(mut alias) = node else {
            return Ok(Transformed::no(node));
        };
        if alias.alias.table() != mark() {
            return Ok(Transformed::no(LogicalPlan::SubqueryAlias(alias)));
        }
        let mut rows = Vec::new();
        taken_apart(alias.input, &mut rows);
        alias.input = match rows.len() {
            1 => rows.remove(0),
            _ => Arc::new(LogicalPlan::Union(Union::try_new_with_loose_types(rows)?)),
        };
        Ok(Transformed::yes(LogicalPlan::SubqueryAlias(alias)))
    })?;
    Ok(together.data)
}

/// The inputs of nested unions, in order.
fn taken_apart(plan: Arc<LogicalPlan>, inputs: &mut Vec<Arc<LogicalPlan>>) {
    match Arc::unwrap_or_clone(plan) {
        LogicalPlan::Union(union) => {
            for input in union.inputs {
                taken_apart(input, inputs);
            }
        }
        other => inputs.push(Arc::new(other)),
    }
}
