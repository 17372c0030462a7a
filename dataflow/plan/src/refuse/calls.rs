//! Function calls: which functions there are, and which clauses each of them takes.
//!
//! Aggregates, window functions and scalar functions are told apart by name. A function that
//! DataFusion has and views do not is reported as not supported, and any other one as unknown, with
//! the closest name.
//!
//! | clause | taken by |
//! |---|---|
//! | DISTINCT, ORDER BY | aggregates, except those with WITHIN GROUP |
//! | WITHIN GROUP | `mode`, `percentile_cont`, `percentile_disc` |
//! | FILTER | all aggregates |
//! | OVER | window functions and some aggregates ([`super::window`]) |

use std::ops::ControlFlow;

use datafusion_sql::sqlparser::ast::{
    DuplicateTreatment, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArgumentClause,
    FunctionArgumentList, FunctionArguments, OrderByExpr, Spanned,
};
use tidemill_ir::AggregateFunction;

use super::{Check, Refusal, none_of, of_groups, unsupported, window};
use crate::catalog::{Catalog, aggregate, aggregates, immutable};
use crate::script::{did_you_mean, normal, single};

impl Check<'_> {
    /// Checks a function call: the name, and the clauses that belong to it.
    pub(super) fn function(&self, function: &Function) -> Refusal {
        let span = function.name.span();
        let Some(ident) = single(&function.name) else {
            let name = &function.name;
            return unsupported(span, &format!("a schema before a function (`{name}`) is"));
        };
        let name = normal(ident);
        none_of(&[(
            function.null_treatment.is_some(),
            span,
            "IGNORE NULLS and RESPECT NULLS are",
        )])?;
        if let Some(checked) = of_groups(&name, function) {
            return checked;
        }
        if function.over.is_some() {
            return window::call(function, &name);
        }
        if window::is_window(&name) {
            let what = format!("{name}() needs OVER (PARTITION BY … ORDER BY …)");
            return ControlFlow::Break((span, what));
        }
        match aggregate(&name) {
            Some(known) => {
                window::in_aggregate(function)?;
                return aggregated(function, known, &name);
            }
            None => others(function, &name)?,
        }
        if tidemill_functions::function(&name).is_some() {
            return ControlFlow::Continue(());
        }
        match self.catalog.scalar(&name) {
            Some(scalar) if immutable(scalar) => {
                let hint = did_you_mean(&name, Catalog::functions());
                let what = format!(
                    "function `{name}` is not supported in views: docs/sql.md lists those that \
                     are{hint}"
                );
                ControlFlow::Break((span, what))
            }
            Some(_) => ControlFlow::Break((span, clock(&name))),
            None => ControlFlow::Break((span, unknown_function(&name))),
        }
    }
}

/// Checks the clauses of a call that is no aggregate.
fn others(function: &Function, name: &str) -> Refusal {
    let span = function.name.span();
    none_of(&[(!function.within_group.is_empty(), span, "WITHIN GROUP is")])?;
    let FunctionArguments::List(list) = &function.args else {
        return ControlFlow::Continue(());
    };
    if !list.clauses.is_empty() {
        return unsupported(span, "ORDER BY (or another clause) inside a function is");
    }
    let plain = function.filter.is_none() && list.duplicate_treatment.is_none();
    if !plain {
        let what = format!("`{name}` is no aggregate: it takes no DISTINCT and no FILTER");
        return ControlFlow::Break((span, what));
    }
    ControlFlow::Continue(())
}

/// Checks the arguments and clauses of an aggregate; `name` is what SQL calls it.
fn aggregated(function: &Function, known: AggregateFunction, name: &str) -> Refusal {
    let span = function.name.span();
    let FunctionArguments::List(list) = &function.args else {
        return ControlFlow::Continue(());
    };
    if list.args.is_empty() && known.arity() > 0 {
        let what = match known.is_count() && known.arity() == 1 {
            true => format!("{name} takes an argument: {name}(*)?"),
            false => takes(known, name),
        };
        return ControlFlow::Break((span, what));
    }
    if list.args.len() != known.arity() && known != AggregateFunction::Count {
        return ControlFlow::Break((span, takes(known, name)));
    }
    let star = list.args.iter().any(|arg| {
        let expr = match arg {
            FunctionArg::Unnamed(expr) => expr,
            FunctionArg::Named { arg, .. } | FunctionArg::ExprNamed { arg, .. } => arg,
        };
        !matches!(expr, FunctionArgExpr::Expr(_))
    });
    if star && known != AggregateFunction::Count {
        return ControlFlow::Break((span, takes(known, name)));
    }
    ordered(function, list, known, (name, star))
}

/// What an aggregate takes, for messages.
fn takes(known: AggregateFunction, name: &str) -> String {
    match known {
        AggregateFunction::Mode => format!("write {name}() WITHIN GROUP (ORDER BY …)"),
        known if known.is_ordered_set() => {
            format!("write {name}(fraction) WITHIN GROUP (ORDER BY …)")
        }
        AggregateFunction::StringAgg => format!("write {name}(text, separator)"),
        AggregateFunction::JsonObjectAgg | AggregateFunction::JsonbObjectAgg => {
            format!("write {name}(key, value)")
        }
        known if known.is_of_pairs() => format!("{name} takes two arguments: {name}(y, x)"),
        _ => format!("{name} takes one argument"),
    }
}

/// Checks the orders of an aggregate: WITHIN GROUP, and ORDER BY among the arguments.
fn ordered(
    function: &Function,
    list: &FunctionArgumentList,
    known: AggregateFunction,
    (name, star): (&str, bool),
) -> Refusal {
    let span = function.name.span();
    let refuse = |what: String| ControlFlow::Break((span, what));
    if known.is_ordered_set() {
        let distinct = list.duplicate_treatment == Some(DuplicateTreatment::Distinct);
        return match function.within_group.as_slice() {
            [by] if list.clauses.is_empty() && !distinct => sorted(std::slice::from_ref(by)),
            [_] if distinct => refuse(format!("{name} takes no DISTINCT")),
            [_, _, ..] => refuse(format!("{name} is ordered by one expression")),
            _ => refuse(takes(known, name)),
        };
    }
    if !function.within_group.is_empty() {
        return refuse(format!("`{name}` takes no WITHIN GROUP"));
    }
    list.clauses.iter().try_for_each(|clause| match clause {
        FunctionArgumentClause::OrderBy(_) if star => {
            refuse(format!("{name}(*) takes no ORDER BY"))
        }
        FunctionArgumentClause::OrderBy(order) => sorted(order),
        _ => unsupported(span, "a clause other than ORDER BY inside a function is"),
    })
}

/// Refuses constants in an ORDER BY inside an aggregate. For PostgreSQL a number there is no
/// position, and orders nothing.
fn sorted(order: &[OrderByExpr]) -> Refusal {
    order.iter().try_for_each(|by| match &by.expr {
        Expr::Value(value) => unsupported(value.span, "ORDER BY of a constant in a function is"),
        _ if by.with_fill.is_some() => unsupported(by.expr.span(), "WITH FILL is"),
        _ => ControlFlow::Continue(()),
    })
}

/// The message for an unknown function.
fn unknown_function(name: &str) -> String {
    let known = datafusion_functions_aggregate::all_default_aggregate_functions();
    let named = known
        .iter()
        .any(|f| f.name() == name || f.aliases().iter().any(|a| a == name));
    if named || POSTGRESQL.contains(&name) {
        let ours = aggregates().into_iter().collect::<Vec<_>>().join(", ");
        return format!("aggregate `{name}` is not supported in views yet; there are {ours}");
    }
    match name {
        "tumble" | "hop" | "session" => {
            let window = name.to_uppercase();
            format!(
                "`{name}` is a table function: write FROM {window}(TABLE t, column, INTERVAL '…') \
                 and GROUP BY window_start, window_end"
            )
        }
        "proctime" | "current_watermark" | "mz_now" => clock(name),
        _ => {
            let hint = did_you_mean(name, Catalog::functions());
            format!("unknown function `{name}`{hint}")
        }
    }
}

/// The message for a function whose answer changes from run to run.
fn clock(name: &str) -> String {
    format!(
        "function `{name}` is not supported in views: its answer depends on more than its \
         arguments (clock, chance, settings or release), so a replay would differ"
    )
}

/// Aggregates of PostgreSQL that neither views nor DataFusion have.
const POSTGRESQL: [&str; 7] = [
    "any_value",
    "cume_dist",
    "dense_rank",
    "percent_rank",
    "range_agg",
    "range_intersect_agg",
    "xmlagg",
];
