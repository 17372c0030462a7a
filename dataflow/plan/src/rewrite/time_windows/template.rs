//! SQL texts with placeholders, filled with the parts of a call.
//!
//! A placeholder is a name in quotes that begins with `@`: an expression, or the table `"@data"`.

use std::ops::ControlFlow;

use datafusion_sql::sqlparser::ast::{
    ExcludeSelectItem, Expr, Ident, ObjectName, Select, SelectItem, SetExpr, TableAlias,
    TableFactor, VisitMut, VisitorMut,
};
use tidemill_log::{Error, Kind, Result};

use super::call::Call;
use crate::rewrite::derived::{query, select};

/// The SELECT of a text, filled with the table and the column of a call and with other parts.
///
/// # Errors
/// `Bug` when the text does not parse.
pub(super) fn filled(sql: &str, call: &Call, parts: Vec<(&str, Expr)>) -> Result<SetExpr> {
    let mut body = *query(sql)?.body;
    let at = Expr::Identifier(call.time.clone());
    let mut filling = Filling {
        parts: parts.into_iter().chain([("@at", at)]).collect(),
        data: Some(&call.data),
    };
    let _visited: ControlFlow<()> = body.visit(&mut filling);
    Ok(body)
}

/// The expression of a text, filled with parts.
///
/// # Errors
/// `Bug` when the text does not parse.
pub(super) fn expression(sql: &str, parts: &[(&str, Expr)]) -> Result<Expr> {
    let item = select(&format!("SELECT {sql}"))?.projection.pop();
    let Some(SelectItem::UnnamedExpr(mut expr)) = item else {
        return Err(Error::new(Kind::Bug, "a template that is no expression"));
    };
    let mut filling = Filling {
        parts: parts.to_vec(),
        data: None,
    };
    let _visited: ControlFlow<()> = expr.visit(&mut filling);
    Ok(expr)
}

/// The visitor that replaces placeholders.
struct Filling<'a> {
    /// The expressions by the names of their placeholders.
    parts: Vec<(&'a str, Expr)>,
    /// What `"@data"` stands for.
    data: Option<&'a TableFactor>,
}

impl VisitorMut for Filling<'_> {
    type Break = ();

    // The parts contain no placeholders, and what replaces an expression is not visited.
    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if let Expr::Identifier(name) = expr
            && let Some((_, part)) = self.parts.iter().find(|(known, _)| *known == name.value)
        {
            *expr = part.clone();
        }
        ControlFlow::Continue(())
    }

    fn post_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<()> {
        if let TableFactor::Table { name, .. } = factor
            && name.to_string() == "\"@data\""
            && let Some(data) = self.data
        {
            *factor = data.clone();
        }
        ControlFlow::Continue(())
    }
}

/// The item of FROM with these rows. Without an alias of its own it has that of the function.
///
/// # Errors
/// `Bug` when the template does not parse.
pub(super) fn in_from(
    rows: SetExpr,
    function: Ident,
    own: Option<TableAlias>,
) -> Result<TableFactor> {
    let from = select("SELECT * FROM (SELECT 1) AS windows")?.from.pop();
    let mut factor = from.map(|from| from.relation);
    match &mut factor {
        Some(TableFactor::Derived {
            subquery,
            alias: Some(alias),
            ..
        }) => {
            *subquery.body = rows;
            alias.name = function;
            if let Some(own) = own {
                *alias = own;
            }
        }
        _ => return Err(Error::new(Kind::Bug, "a template without a subquery")),
    }
    factor.ok_or_else(|| Error::new(Kind::Bug, "a template without FROM"))
}

/// Leaves columns out of the `*` of a SELECT.
pub(super) fn without(body: &mut SetExpr, columns: Vec<Ident>) {
    if let SetExpr::Select(select) = body
        && let Select { projection, .. } = select.as_mut()
        && let Some(SelectItem::Wildcard(options)) = projection.first_mut()
    {
        let names = columns.into_iter().map(ObjectName::from).collect();
        options.opt_exclude = Some(ExcludeSelectItem::Multiple(names));
    }
}
