//! Refusal of window functions that PostgreSQL or views do not allow: where they stand, what they
//! are called with, and their frames.
//!
//! Source: PostgreSQL's `transformWindowFuncCall` (`parse_agg.c`) and `frame_extent` (`gram.y`).

use std::ops::ControlFlow;

use datafusion_sql::sqlparser::ast::{
    DuplicateTreatment, Expr, Function, FunctionArguments, GroupByExpr, Interval, JoinConstraint,
    JoinOperator, NamedWindowExpr, Query, Select, Spanned, Value, Visit, Visitor, WindowFrame,
    WindowFrameBound, WindowFrameUnits, WindowSpec, WindowType,
};
use datafusion_sql::sqlparser::tokenizer::Span;
use tidemill_functions::WINDOW_FUNCTIONS;

use super::{Refusal, unsupported};
use crate::catalog::row_number;

/// Whether a name is that of a window function that is no aggregate.
pub(super) fn is_window(name: &str) -> bool {
    name == row_number::NAME || WINDOW_FUNCTIONS.contains(&name)
}

/// The aggregates that can be computed over a window.
const AGGREGATES: [&str; 8] = [
    "count", "sum", "avg", "min", "max", "bool_and", "bool_or", "every",
];

/// Refuses with a message of its own.
fn refused(span: Span, what: &str) -> Refusal {
    ControlFlow::Break((span, what.to_owned()))
}

/// Checks a call with OVER: the function's name, its clauses and the window.
pub(super) fn call(function: &Function, name: &str) -> Refusal {
    let span = function.name.span();
    if !AGGREGATES.contains(&name) && !is_window(name) {
        return match tidemill_functions::function(name) {
            Some(_) => refused(
                span,
                &format!("`{name}` is no window function: it takes no OVER"),
            ),
            None => unsupported(span, &format!("window function `{name}` is")),
        };
    }
    if let FunctionArguments::List(list) = &function.args
        && list.duplicate_treatment == Some(DuplicateTreatment::Distinct)
    {
        return refused(span, &format!("`{name}` with OVER takes no DISTINCT"));
    }
    let ordered = match &function.args {
        FunctionArguments::List(list) => !list.clauses.is_empty(),
        _ => false,
    };
    if ordered || !function.within_group.is_empty() {
        return refused(
            span,
            &format!("`{name}` with OVER takes no ORDER BY among its arguments"),
        );
    }
    let arguments = match &function.args {
        FunctionArguments::List(list) => list.args.len(),
        _ => 0,
    };
    if AGGREGATES.contains(&name) && arguments != 1 {
        return refused(span, &format!("{name} takes one argument"));
    }
    if function.filter.is_some() && is_window(name) {
        return refused(
            span,
            &format!("`{name}` is no aggregate: it takes no FILTER"),
        );
    }
    nested(&function.args, "an argument of a window function")?;
    nested(&function.filter, "FILTER")?;
    match &function.over {
        Some(WindowType::WindowSpec(spec)) => window(spec, span),
        _ => ControlFlow::Continue(()),
    }
}

/// Checks the clauses of a SELECT in which PostgreSQL allows no window functions, and its named
/// windows.
pub(super) fn select(select: &Select) -> Refusal {
    nested(&select.selection, "WHERE")?;
    nested(&select.having, "HAVING")?;
    if let GroupByExpr::Expressions(keys, _) = &select.group_by {
        nested(keys, "GROUP BY")?;
    }
    for join in select.from.iter().flat_map(|from| &from.joins) {
        if let JoinOperator::Join(JoinConstraint::On(on))
        | JoinOperator::Inner(JoinConstraint::On(on)) = &join.join_operator
        {
            nested(on, "JOIN")?;
        }
    }
    let mut named = select.named_window.iter();
    named.try_for_each(|named| match &named.1 {
        NamedWindowExpr::WindowSpec(spec) => window(spec, named.0.span),
        NamedWindowExpr::NamedWindow(_) => ControlFlow::Continue(()),
    })
}

/// Checks the arguments of an aggregate without OVER.
pub(super) fn in_aggregate(function: &Function) -> Refusal {
    nested(&function.args, "an argument of an aggregate")?;
    nested(&function.filter, "FILTER")
}

/// Refuses window functions inside a part of a query, but not in its subqueries.
fn nested(part: &impl Visit, what: &str) -> Refusal {
    part.visit(&mut Nested { depth: 0, what })
}

/// The visitor that looks for window functions.
struct Nested<'a> {
    /// The number of subqueries around the expression.
    depth: usize,
    /// The part of the query, in words.
    what: &'a str,
}

impl Visitor for Nested<'_> {
    type Break = (Span, String);

    fn pre_visit_query(&mut self, _: &Query) -> Refusal {
        self.depth += 1;
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _: &Query) -> Refusal {
        self.depth -= 1;
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &Expr) -> Refusal {
        match expr {
            Expr::Function(function) if function.over.is_some() && self.depth == 0 => {
                let what = self.what;
                let what = format!(
                    "PostgreSQL allows no window function in {what}: compute it in a subquery"
                );
                ControlFlow::Break((function.name.span(), what))
            }
            _ => ControlFlow::Continue(()),
        }
    }
}

/// Checks a window.
fn window(spec: &WindowSpec, at: Span) -> Refusal {
    nested(&spec.partition_by, "a window")?;
    for by in &spec.order_by {
        nested(&by.expr, "a window")?;
        if let Expr::Value(value) = &by.expr
            && !matches!(value.value, Value::Number(..))
        {
            return unsupported(value.span, "a constant in ORDER BY of a window is");
        }
    }
    match &spec.window_frame {
        Some(frame) => framed(frame, spec, at),
        None => ControlFlow::Continue(()),
    }
}

/// Checks a frame. `at` is the place of its window, because bounds have none.
fn framed(frame: &WindowFrame, spec: &WindowSpec, at: Span) -> Refusal {
    use WindowFrameBound::{CurrentRow, Following, Preceding};
    let end = frame.end_bound.as_ref().unwrap_or(&CurrentRow);
    let wrong = match (&frame.start_bound, end) {
        (Following(None), _) => Some("a frame cannot start with UNBOUNDED FOLLOWING"),
        (_, Preceding(None)) => Some("a frame cannot end with UNBOUNDED PRECEDING"),
        (CurrentRow, Preceding(_)) => {
            Some("a frame that starts with the current row cannot end before it")
        }
        (Following(_), Preceding(_) | CurrentRow) => {
            Some("a frame that starts after the current row cannot end before")
        }
        _ => None,
    };
    if let Some(wrong) = wrong {
        return refused(at, wrong);
    }
    let named = spec.window_name.is_some();
    if frame.units == WindowFrameUnits::Groups && spec.order_by.is_empty() && !named {
        return refused(at, "a frame of GROUPS needs an ORDER BY");
    }
    for bound in [&frame.start_bound, end] {
        let (Preceding(Some(offset)) | Following(Some(offset))) = bound else {
            continue;
        };
        if frame.units == WindowFrameUnits::Range && spec.order_by.len() != 1 && !named {
            return refused(
                at,
                "a frame of RANGE with an offset needs one ORDER BY expression",
            );
        }
        self::offset(offset, frame.units, at)?;
    }
    ControlFlow::Continue(())
}

/// Checks the offset of a bound: a whole number of rows or groups, or a number or an interval for
/// RANGE.
fn offset(offset: &Expr, units: WindowFrameUnits, at: Span) -> Refusal {
    let range = units == WindowFrameUnits::Range;
    let digit = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    match offset {
        Expr::Value(value) => match &value.value {
            Value::Number(digits, false) if digit(digits) || range => ControlFlow::Continue(()),
            _ => unsupported(value.span, "a frame's offset that is no whole number is"),
        },
        Expr::Interval(interval) if range => match with_unit(interval) {
            true => ControlFlow::Continue(()),
            false => unsupported(
                at,
                "a frame's offset in quotes without a unit (write a number without quotes, or \
                 '1 day') is",
            ),
        },
        _ => unsupported(
            at,
            "a frame's offset that is no number (or, for RANGE, no interval) is",
        ),
    }
}

/// Whether an interval names a unit.
fn with_unit(interval: &Interval) -> bool {
    let text = match interval.value.as_ref() {
        Expr::Value(value) => value.value.clone().into_string().unwrap_or_default(),
        _ => String::new(),
    };
    interval.leading_field.is_some() || text.contains(|c: char| c.is_ascii_alphabetic())
}
