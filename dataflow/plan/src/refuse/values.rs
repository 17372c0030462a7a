//! Checks of VALUES, and of the aliases that only this program gives.

use std::ops::ControlFlow;

use datafusion_sql::sqlparser::ast::{
    Expr, Ident, Spanned, TableAlias, TableFactor, Values, visit_expressions,
};

use super::{Refusal, unsupported};
use crate::catalog::aggregate;
use crate::rewrite::derived::MARK;
use crate::script::{normal, single};

/// The most rows of a VALUES. Each of them is planned as a SELECT.
pub(crate) const VALUES_ROWS_MAX: usize = 1000;

/// Checks a VALUES: its rows have one length, and contain no aggregates.
pub(super) fn checked(values: &Values) -> Refusal {
    let span = values.span();
    if values.explicit_row || values.value_keyword {
        return unsupported(span, "VALUE and ROW in VALUES are");
    }
    if values.rows.len() > VALUES_ROWS_MAX {
        let rows = values.rows.len();
        let what = format!("VALUES has {rows} rows; at most {VALUES_ROWS_MAX} are allowed");
        return ControlFlow::Break((span, what));
    }
    let first = values.rows.first().map_or(0, |row| row.content.len());
    if let Some(other) = values.rows.iter().find(|row| row.content.len() != first) {
        let span = other.content.first().map_or(span, Spanned::span);
        return ControlFlow::Break((span, "the rows of VALUES have different lengths".to_owned()));
    }
    let found = visit_expressions(values, |expr| match expr {
        Expr::Function(function) => match single(&function.name) {
            Some(name) if aggregate(&normal(name)).is_some() || function.over.is_some() => {
                ControlFlow::Break(function.name.span())
            }
            _ => ControlFlow::Continue(()),
        },
        _ => ControlFlow::Continue(()),
    });
    match found {
        ControlFlow::Break(span) => {
            let what = "VALUES takes no aggregates and no window functions: write SELECT";
            ControlFlow::Break((span, what.to_owned()))
        }
        ControlFlow::Continue(()) => ControlFlow::Continue(()),
    }
}

/// Refuses aliases that look like a mark ([`MARK`]).
pub(super) fn unmarked(factor: &TableFactor) -> Refusal {
    let marks = |name: &Ident| name.value.starts_with(MARK);
    let alias: Option<&TableAlias> = match factor {
        TableFactor::Table { alias, .. }
        | TableFactor::Derived { alias, .. }
        | TableFactor::NestedJoin { alias, .. } => alias.as_ref(),
        _ => None,
    };
    match alias.filter(|alias| marks(&alias.name)) {
        Some(alias) => unsupported(alias.name.span, "a control character in an alias is"),
        None => ControlFlow::Continue(()),
    }
}
