//! `generate_series` of whole numbers and `unnest` of an array, with constants, as VALUES.
//!
//! Input: a parsed query. Output: the same query, in which such an item of FROM is a subquery with
//! its rows. Calls with other arguments stay, and are refused by [`crate::refuse`].
//!
//! ```text
//! FROM generate_series(1, 3) AS n  ─►  FROM (VALUES (1), (2), (3)) AS n (n)
//! ```

use std::ops::ControlFlow;

use datafusion_sql::sqlparser::ast::{
    Expr, FunctionArg, FunctionArgExpr, Ident, Parens, Query, SetExpr, TableAlias, TableFactor,
    VisitMut, VisitorMut,
};

use crate::refuse::values::VALUES_ROWS_MAX;
use crate::rewrite::derived::query;
use crate::rewrite::limits::computed;
use crate::script::{normal, single};

/// Replaces the calls of a query that have constant arguments.
pub(crate) fn listed(query: &mut Query) {
    let _visited: ControlFlow<()> = query.visit(&mut Listing);
}

/// The visitor that replaces calls.
struct Listing;

impl VisitorMut for Listing {
    type Break = ();

    fn post_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<()> {
        if let Some((name, alias, rows)) = called(factor)
            && let Some(subquery) = derived(&name, alias, rows)
        {
            *factor = subquery;
        }
        ControlFlow::Continue(())
    }
}

/// The function that an item of FROM calls, its alias, and the query of its rows. `None` if it is
/// no such call, or its arguments are no constants.
fn called(factor: &TableFactor) -> Option<(Ident, Option<TableAlias>, SetExpr)> {
    match factor {
        TableFactor::Table {
            name,
            alias,
            args: Some(args),
            with_ordinality: false,
            sample: None,
            ..
        } if args.settings.is_none() => {
            let name = single(name)?;
            let numbers = args.args.iter().map(number).collect::<Option<Vec<i64>>>()?;
            let rows = (normal(name) == "generate_series").then(|| series(&numbers))??;
            let rows = *query(&rows).ok()?.body;
            Some((Ident::new("generate_series"), alias.clone(), rows))
        }
        TableFactor::UNNEST {
            alias,
            array_exprs,
            with_offset: false,
            with_offset_alias: None,
            with_ordinality: false,
        } => {
            let [Expr::Array(array)] = array_exprs.as_slice() else {
                return None;
            };
            let fits = !array.elem.is_empty() && array.elem.len() <= VALUES_ROWS_MAX;
            let plain = array.named && !array.elem.iter().any(|it| matches!(it, Expr::Array(_)));
            let mut rows = *query("VALUES (1)").ok()?.body;
            if let SetExpr::Values(values) = &mut rows {
                let template = values.rows.first()?.clone();
                let row = |element: &Expr| Parens {
                    content: vec![element.clone()],
                    ..template.clone()
                };
                values.rows = array.elem.iter().map(row).collect();
            }
            (fits && plain).then(|| (Ident::new("unnest"), alias.clone(), rows))
        }
        _ => None,
    }
}

/// The value of an argument that is a constant whole number.
fn number(argument: &FunctionArg) -> Option<i64> {
    match argument {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => computed(expr),
        _ => None,
    }
}

/// The query of the numbers from one to another; `None` if there are more than a VALUES may have,
/// or the step is 0. The numbers are bigints if an argument is too large for an int.
fn series(arguments: &[i64]) -> Option<String> {
    let (from, to, step) = match arguments {
        [from, to] => (*from, *to, 1),
        [from, to, step] if *step != 0 => (*from, *to, *step),
        _ => return None,
    };
    let wide = arguments.iter().any(|it| i32::try_from(*it).is_err());
    let kind = if wide { "bigint" } else { "int" };
    let within = |at: &i64| if step > 0 { *at <= to } else { *at >= to };
    let numbers = std::iter::successors(Some(from), |at| at.checked_add(step));
    let rows = numbers.take_while(within).take(VALUES_ROWS_MAX + 1);
    let rows: Vec<String> = rows.map(|at| format!("(CAST({at} AS {kind}))")).collect();
    match rows.len() {
        0 => Some(format!("SELECT CAST(NULL AS {kind}) WHERE false")),
        count if count <= VALUES_ROWS_MAX => Some(format!("VALUES {}", rows.join(", "))),
        _ => None,
    }
}

/// The subquery that stands for a call. Its only column has the name of the alias, or of the
/// function.
fn derived(function: &Ident, alias: Option<TableAlias>, rows: SetExpr) -> Option<TableFactor> {
    let template = query("SELECT * FROM (SELECT 1) AS a (c)").ok()?;
    let SetExpr::Select(select) = *template.body else {
        return None;
    };
    let mut subquery = select.from.into_iter().next()?.relation;
    let TableFactor::Derived {
        subquery: inner,
        alias: Some(named),
        ..
    } = &mut subquery
    else {
        return None;
    };
    *inner.body = rows;
    let table = alias.as_ref().map_or(function, |alias| &alias.name).clone();
    let column = named.columns.first_mut()?;
    column.name = table.clone();
    named.name = table;
    if let Some(alias) = alias.filter(|alias| !alias.columns.is_empty()) {
        named.columns = alias.columns;
    }
    Some(subquery)
}
