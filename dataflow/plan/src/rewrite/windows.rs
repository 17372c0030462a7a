//! Named windows, written out: `OVER w` and `OVER (w …)` become the window that they name.
//!
//! The planner knows names in the SELECT list alone, and ignores the name in `OVER (w …)`. Input: a
//! parsed query. Output: the same query without names of windows, in which every window with ORDER
//! BY has a frame. (The planner would choose another default frame where it believes that no two
//! rows are equal in the order.)
//!
//! Source: PostgreSQL's `transformWindowDefinitions` (`parse_clause.c`).

use std::ops::ControlFlow;

use datafusion_sql::sqlparser::ast::{
    Expr, Ident, NamedWindowDefinition, NamedWindowExpr, OrderBy, Query, Select, SetExpr, VisitMut,
    VisitorMut, WindowFrame, WindowFrameBound, WindowFrameUnits, WindowSpec, WindowType,
    visit_expressions_mut,
};
use datafusion_sql::sqlparser::tokenizer::{Location, Span};
use tidemill_log::Result;

use crate::script::{Script, normal};

/// The result of a step: continue, or the place and the reason of a refusal.
type Refusal = ControlFlow<(Span, String)>;

/// The windows of a SELECT by name, in their order.
type Named = Vec<(String, WindowSpec)>;

/// The query with its windows written out.
///
/// # Errors
/// `Data` with the place, when a window is not known, or does not fit the one that it extends.
pub(crate) fn written_out(mut query: Query, script: Script<'_>, at: Location) -> Result<Query> {
    match query.visit(&mut Windows) {
        ControlFlow::Continue(()) => Ok(query),
        ControlFlow::Break((span, what)) => {
            let known = if span.start.line == 0 { at } else { span.start };
            Err(script.error(known, what))
        }
    }
}

/// The visitor that writes windows out, in inner queries first.
struct Windows;

impl VisitorMut for Windows {
    type Break = (Span, String);

    fn post_visit_query(&mut self, query: &mut Query) -> Refusal {
        let Query { body, order_by, .. } = query;
        match body.as_mut() {
            SetExpr::Select(select) => in_select(select, order_by.as_mut()),
            body => in_body(body),
        }
    }
}

/// Writes the windows of each SELECT of a set operation out.
fn in_body(body: &mut SetExpr) -> Refusal {
    match body {
        SetExpr::Select(select) => in_select(select, None),
        SetExpr::SetOperation { left, right, .. } => {
            in_body(left)?;
            in_body(right)
        }
        // A query has been visited already.
        _ => ControlFlow::Continue(()),
    }
}

/// Writes the windows of a SELECT and its ORDER BY out.
fn in_select(select: &mut Select, order: Option<&mut OrderBy>) -> Refusal {
    let mut named: Named = Vec::new();
    for NamedWindowDefinition(name, window) in std::mem::take(&mut select.named_window) {
        let spec = match window {
            NamedWindowExpr::WindowSpec(spec) => extended(spec, &named)?,
            NamedWindowExpr::NamedWindow(other) => find(&other, &named)?,
        };
        if named.iter().any(|(known, _)| *known == normal(&name)) {
            let what = format!("window `{}` is defined twice", normal(&name));
            return ControlFlow::Break((name.span, what));
        }
        named.push((normal(&name), spec));
    }
    let mut each = |expr: &mut Expr| in_expr(expr, &named);
    visit_expressions_mut(&mut select.projection, &mut each)?;
    visit_expressions_mut(&mut select.qualify, &mut each)?;
    match order {
        Some(order) => visit_expressions_mut(order, &mut each),
        None => ControlFlow::Continue(()),
    }
}

/// Writes the window of a function call out.
fn in_expr(expr: &mut Expr, named: &Named) -> Refusal {
    let Expr::Function(function) = expr else {
        return ControlFlow::Continue(());
    };
    let mut spec = match function.over.take() {
        None => return ControlFlow::Continue(()),
        Some(WindowType::NamedWindow(name)) => find(&name, named)?,
        Some(WindowType::WindowSpec(spec)) => extended(spec, named)?,
    };
    if spec.window_frame.is_none() && !spec.order_by.is_empty() {
        spec.window_frame = Some(WindowFrame {
            units: WindowFrameUnits::Range,
            start_bound: WindowFrameBound::Preceding(None),
            end_bound: Some(WindowFrameBound::CurrentRow),
        });
    }
    function.over = Some(WindowType::WindowSpec(spec));
    ControlFlow::Continue(())
}

/// The window of a name.
fn find(name: &Ident, named: &Named) -> ControlFlow<(Span, String), WindowSpec> {
    match named.iter().find(|(known, _)| *known == normal(name)) {
        Some((_, spec)) => ControlFlow::Continue(spec.clone()),
        None => {
            let what = format!("window `{}` does not exist", normal(name));
            ControlFlow::Break((name.span, what))
        }
    }
}

/// A window with what it takes over from the window that it names. It may add an order to one
/// without an order, and a frame.
fn extended(mut spec: WindowSpec, named: &Named) -> ControlFlow<(Span, String), WindowSpec> {
    let Some(name) = spec.window_name.take() else {
        return ControlFlow::Continue(spec);
    };
    let base = find(&name, named)?;
    let adds = "a window that names another one takes its";
    let wrong = if !spec.partition_by.is_empty() {
        format!("{adds} PARTITION BY over, and has none of its own")
    } else if !spec.order_by.is_empty() && !base.order_by.is_empty() {
        format!("{adds} ORDER BY over, and has none of its own")
    } else if base.window_frame.is_some() {
        let name = normal(&name);
        format!("window `{name}` has a frame, so another one cannot extend it")
    } else {
        spec.partition_by = base.partition_by;
        if spec.order_by.is_empty() {
            spec.order_by = base.order_by;
        }
        return ControlFlow::Continue(spec);
    };
    ControlFlow::Break((name.span, wrong))
}
