//! GROUP BY as written: positions, lists in parentheses, GROUPING SETS, ROLLUP and CUBE.
//!
//! Input: a parsed query. Output: the same query, in which GROUP BY is a list of expressions, or
//! one GROUPING SETS with a list of expressions for each set. Several items are combined: each set
//! of one with each set of the others, as in PostgreSQL.
//!
//! ```text
//! GROUP BY a, ROLLUP (b, c)  ─►  GROUP BY GROUPING SETS ((a, b, c), (a, b), (a))
//! ```

use std::ops::ControlFlow;

use datafusion_sql::sqlparser::ast::{
    Distinct, Expr, GroupByExpr, Query, Select, SelectItem, SetExpr, Spanned, Value, VisitMut,
    VisitorMut,
};
use datafusion_sql::sqlparser::tokenizer::{Location, Span};
use tidemill_log::Result;

use crate::script::Script;

/// The most sets of a GROUP BY. Each set reads the input on its own.
pub(crate) const GROUPING_SETS_MAX: usize = 64;

/// A set of expressions that rows are grouped by.
type Set = Vec<Expr>;

/// A result, or the place and the reason of a refusal.
type Found<T> = std::result::Result<T, (Span, String)>;

/// Writes out the grouping sets of a query.
///
/// # Errors
/// `Data` with the place, when there are too many sets, or a position names no column of SELECT.
pub(crate) fn expanded(query: &mut Query, script: Script<'_>, at: Location) -> Result<()> {
    match query.visit(&mut Expanding) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break((span, what)) => {
            let known = if span.start.line == 0 { at } else { span.start };
            Err(script.error(known, what))
        }
    }
}

/// The visitor that writes out grouping sets.
struct Expanding;

impl VisitorMut for Expanding {
    type Break = (Span, String);

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<Self::Break> {
        match body(&mut query.body) {
            Ok(()) => ControlFlow::Continue(()),
            Err(refused) => ControlFlow::Break(refused),
        }
    }
}

/// Writes out the grouping sets of a query body. Queries in parentheses are visited on their own.
fn body(of: &mut SetExpr) -> Found<()> {
    match of {
        SetExpr::Select(select) => grouped(select),
        SetExpr::SetOperation { left, right, .. } => {
            body(left)?;
            body(right)
        }
        _ => Ok(()),
    }
}

/// Writes out the grouping sets of a SELECT.
fn grouped(select: &mut Select) -> Found<()> {
    if let Some(Distinct::On(keys)) = &mut select.distinct {
        for key in keys {
            positioned(key, &select.projection, "DISTINCT ON")?;
        }
    }
    let span = select.group_by.span();
    let GroupByExpr::Expressions(keys, _) = &select.group_by else {
        return Ok(());
    };
    let listed = |key: &Expr| matches!(key, Expr::Tuple(_));
    if !keys.iter().any(|key| listed(key) || grouping(key)) {
        return Ok(());
    }
    let mut all: Vec<Set> = vec![Vec::new()];
    for key in keys {
        let sets = sets(key, span)?;
        if all.len() * sets.len() > GROUPING_SETS_MAX {
            return Err(too_many(span));
        }
        let mut combined = Vec::new();
        for set in &all {
            combined.extend(sets.iter().map(|more| [set.as_slice(), more].concat()));
        }
        all = combined;
    }
    for key in all.iter_mut().flatten() {
        positioned(key, &select.projection, "GROUP BY")?;
    }
    let single = !keys.iter().any(grouping);
    let keys = match single {
        true => all.concat(),
        false => vec![Expr::GroupingSets(all)],
    };
    select.group_by = GroupByExpr::Expressions(keys, Vec::new());
    Ok(())
}

/// Whether an item of GROUP BY stands for several sets.
fn grouping(key: &Expr) -> bool {
    matches!(key, Expr::GroupingSets(_) | Expr::Cube(_) | Expr::Rollup(_))
}

/// The sets of an item of GROUP BY.
fn sets(key: &Expr, span: Span) -> Found<Vec<Set>> {
    Ok(match key {
        Expr::Tuple(keys) => vec![keys.clone()],
        Expr::Rollup(parts) => {
            let parts = parts.iter().map(|part| flat(part)).collect::<Vec<_>>();
            let counts = (0..=parts.len()).rev();
            counts
                .map(|count| parts.iter().take(count).flatten().cloned().collect())
                .collect()
        }
        Expr::Cube(parts) => {
            let parts = parts.iter().map(|part| flat(part)).collect::<Vec<_>>();
            let count = u32::try_from(parts.len()).unwrap_or(u32::MAX);
            let subsets = 1_usize.checked_shl(count).unwrap_or(usize::MAX);
            if subsets > GROUPING_SETS_MAX {
                return Err(too_many(span));
            }
            let chosen = |subset: usize| {
                let parts = parts.iter().enumerate();
                let parts = parts.filter(|(index, _)| subset >> index & 1 == 1);
                parts.flat_map(|(_, part)| part.iter().cloned()).collect()
            };
            (0..subsets).rev().map(chosen).collect()
        }
        Expr::GroupingSets(sets_of) => {
            let mut all = Vec::new();
            for set in sets_of {
                match set.as_slice() {
                    [nested] if grouping(nested) => all.extend(sets(nested, span)?),
                    keys => all.push(flat(keys)),
                }
            }
            all
        }
        other => vec![vec![other.clone()]],
    })
}

/// Expressions, with those of lists in parentheses.
fn flat(keys: &[Expr]) -> Set {
    let keys = keys.iter().flat_map(|key| match key {
        Expr::Tuple(keys) => keys.clone(),
        other => vec![other.clone()],
    });
    keys.collect()
}

/// Replaces a position by the expression of SELECT that it means.
fn positioned(key: &mut Expr, projection: &[SelectItem], clause: &str) -> Found<()> {
    let Expr::Value(value) = &*key else {
        return Ok(());
    };
    let span = value.span;
    let position = match &value.value {
        Value::Number(digits, _) => digits.parse::<usize>().ok(),
        _ => None,
    };
    let item = position.and_then(|at| projection.get(at.checked_sub(1)?));
    match item {
        Some(SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. }) => {
            *key = expr.clone();
            Ok(())
        }
        _ => {
            let what =
                format!("a constant in {clause} must be the position of an expression in SELECT");
            Err((span, what))
        }
    }
}

/// The refusal of too many sets.
fn too_many(span: Span) -> (Span, String) {
    let what = format!("GROUP BY has more than {GROUPING_SETS_MAX} grouping sets");
    (span, what)
}
