//! Refusal of unsupported SQL, by name and place, before anything is planned.
//!
//! Input: a parsed query. Output: the first construct that is not supported or not known, if there
//! is one. A query that is accepted contains only nodes that [`super::lower`] can lower.
//!
//! The check comes before planning for two reasons: the planner accepts some SQL and gives it
//! another meaning than PostgreSQL does, and its errors have no places. Each refusal names the
//! construct, and where possible what to write instead.
//!
//! | checked at | refused |
//! |---|---|
//! | a query | WITH TIES with OFFSET, FOR UPDATE, MINUS |
//! | a recursive query ([`recursion`]) | what PostgreSQL refuses there |
//! | a SELECT | GROUP BY ALL, HAVING without groups, SELECT INTO |
//! | an item of FROM | RIGHT and FULL JOIN with USING, table functions, TABLESAMPLE, schemas |
//! | an expression | arrays, COLLATE, parameters, unknown operators |
//! | a window ([`window`]) | its place, its frame, DISTINCT and FILTER |
//! | a function call ([`calls`]) | unknown functions, clauses that the function does not take |

pub(crate) mod calls;
pub(crate) mod recursion;
pub(crate) mod values;
mod window;

use std::collections::HashSet;
use std::ops::ControlFlow;

use datafusion_sql::sqlparser::ast::{
    BinaryOperator, Distinct, Expr, Function, FunctionArguments, GroupByExpr, Ident, Interval,
    JoinConstraint, JoinOperator, LimitClause, OrderBy, OrderByExpr, OrderByKind, Query, Select,
    SelectItem, SetExpr, SetOperator, SetQuantifier, Spanned, TableFactor, TableWithJoins,
    UnaryOperator, Value, Visit, Visitor, visit_expressions,
};
use datafusion_sql::sqlparser::tokenizer::{Location, Span};
use tidemill_log::Result;

use self::recursion::RECURSIONS_MAX;
use super::catalog::{Catalog, aggregate};
use super::script::{Script, did_you_mean, normal, single};
use crate::catalog::GROUPING;

/// Checks the query of one view. `at` is the place of the statement, for parts without their own.
///
/// # Errors
/// `Data` with the place and a message that says what to write instead.
pub(super) fn check(
    query: &Query,
    catalog: &Catalog,
    script: Script<'_>,
    at: Location,
) -> Result<()> {
    let mut check = Check {
        catalog,
        ctes: Vec::new(),
        unordered: Vec::new(),
        subqueries: 0,
        recursions: 0,
    };
    match query.visit(&mut check) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break((span, what)) => {
            let known = if span.start.line == 0 { at } else { span.start };
            Err(script.error(known, what))
        }
    }
}

/// The result of a check: continue, or the place and the reason of a refusal.
type Refusal = ControlFlow<(Span, String)>;

/// The visitor that looks for unsupported constructs.
struct Check<'a> {
    /// The tables and views that exist so far.
    catalog: &'a Catalog,
    /// The names of the common table expressions in scope, innermost last.
    ctes: Vec<HashSet<String>>,
    /// For each query around: whether it has a LIMIT without an ORDER BY.
    unordered: Vec<bool>,
    /// The number of subqueries in expressions around the current place.
    subqueries: usize,
    /// The number of recursive queries so far.
    recursions: usize,
}

/// Refuses a construct; `what` completes "… not supported in views yet".
///
/// `what` ends with "is" or "are".
fn unsupported<T>(span: Span, what: &str) -> ControlFlow<(Span, String), T> {
    ControlFlow::Break((span, format!("{what} not supported in views yet")))
}

/// Refuses the first construct of a list that was found.
///
/// Each element is whether the construct occurs, its place, and its words.
fn none_of(refused: &[(bool, Span, &str)]) -> Refusal {
    match refused.iter().find(|(found, ..)| *found) {
        Some((_, span, what)) => unsupported(*span, what),
        None => ControlFlow::Continue(()),
    }
}

impl Visitor for Check<'_> {
    type Break = (Span, String);

    fn pre_visit_query(&mut self, query: &Query) -> Refusal {
        let mut names = HashSet::new();
        if let Some(with) = &query.with {
            if with.recursive {
                self.recursions += recursion::checked(with)?;
                if self.recursions > RECURSIONS_MAX {
                    let what =
                        format!("more than {RECURSIONS_MAX} recursive queries in a view are");
                    return unsupported(with.span(), &what);
                }
            }
            names.extend(with.cte_tables.iter().map(|cte| normal(&cte.alias.name)));
        }
        self.ctes.push(names);
        let body = query.body.span();
        let fetch = query.fetch.as_ref();
        let ties = fetch.is_some_and(|fetch| fetch.with_ties);
        let percent = fetch.is_some_and(|fetch| fetch.percent);
        let limits = match &query.limit_clause {
            Some(LimitClause::LimitOffset { limit, .. }) => limit.is_some(),
            other => other.is_some(),
        };
        let both = fetch.is_some() && limits;
        let offset = matches!(&query.limit_clause, Some(LimitClause::LimitOffset { offset, .. })
            if offset.is_some());
        if ties && query.order_by.is_none() {
            return ControlFlow::Break((body, "WITH TIES needs an ORDER BY".to_owned()));
        }
        none_of(&[
            (ties && offset, body, "OFFSET beside WITH TIES is"),
            (percent, body, "PERCENT in FETCH is"),
            (both, body, "LIMIT beside FETCH is"),
            (
                !query.locks.is_empty(),
                body,
                "FOR UPDATE and FOR SHARE are",
            ),
            (query.for_clause.is_some(), body, "FOR is"),
            (!query.pipe_operators.is_empty(), body, "|> is"),
        ])?;
        let first_of_each = matches!(query.body.as_ref(), SetExpr::Select(select)
            if matches!(select.distinct, Some(Distinct::On(_))));
        let limited = limits || fetch.is_some() || query.limit_clause.is_some();
        if let (Some(order), false, false) = (&query.order_by, limited, first_of_each)
            && self.unordered.contains(&true)
        {
            let what = "ORDER BY in a subquery orders nothing for a LIMIT around it: write ORDER \
                        BY beside LIMIT";
            return ControlFlow::Break((order.span(), what.to_owned()));
        }
        self.unordered.push(limited && query.order_by.is_none());
        if let (Some(order), SetExpr::Select(select)) = (&query.order_by, query.body.as_ref()) {
            order_by_columns(order, select)?;
        }
        self.set(&query.body)
    }

    fn post_visit_query(&mut self, _: &Query) -> Refusal {
        self.ctes.pop();
        self.unordered.pop();
        ControlFlow::Continue(())
    }

    fn pre_visit_select(&mut self, select: &Select) -> Refusal {
        select_clauses(select)?;
        window::select(select)?;
        self.having_columns(select)
    }

    fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> Refusal {
        let span = factor.span();
        values::unmarked(factor)?;
        match factor {
            TableFactor::Table {
                name,
                args: None,
                sample: None,
                with_ordinality: false,
                version: None,
                ..
            } => match single(name) {
                Some(name) => self.table(name),
                None => unsupported(span, &format!("a schema before a name (`{name}`) is")),
            },
            TableFactor::Derived { sample: None, .. } => ControlFlow::Continue(()),
            TableFactor::NestedJoin {
                table_with_joins, ..
            } => joins(table_with_joins),
            TableFactor::Table { args: None, .. } | TableFactor::Derived { .. } => {
                unsupported(span, "TABLESAMPLE and WITH ORDINALITY are")
            }
            _ => unsupported(
                span,
                "a table function in FROM (but TUMBLE, HOP, SESSION, and with at most 1000 \
                 constant rows generate_series of whole numbers and unnest(ARRAY[…])) is",
            ),
        }
    }

    fn post_visit_expr(&mut self, expr: &Expr) -> Refusal {
        self.subqueries -= usize::from(is_subquery(expr));
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &Expr) -> Refusal {
        let span = expr.span();
        self.subqueries += usize::from(is_subquery(expr));
        if self.subqueries > NESTED_SUBQUERIES_MAX {
            let what = format!("more than {NESTED_SUBQUERIES_MAX} subqueries in each other are");
            return unsupported(span, &what);
        }
        match expr {
            Expr::Function(function) => self.function(function),
            Expr::Map(_) | Expr::Dictionary(_) | Expr::Struct { .. } => {
                unsupported(span, "a map or struct literal is")
            }
            Expr::Prefixed { prefix, .. } => {
                let what = "`TABLE` and `PARTITION BY` as arguments of anything but TUMBLE, HOP \
                            and SESSION in FROM are";
                unsupported(prefix.span, what)
            }
            Expr::Collate { .. } => unsupported(span, "COLLATE (text sorts by its bytes) is"),
            Expr::BinaryOp {
                op: BinaryOperator::Custom(name),
                ..
            } => ControlFlow::Break((span, format!("unknown operator `{name}`"))),
            Expr::UnaryOp {
                op: UnaryOperator::Minus,
                expr,
            } if matches!(expr.as_ref(), Expr::Interval(_)) => {
                // The planner would apply the minus only to the first unit.
                unsupported(span, "a minus before INTERVAL (write INTERVAL '-1 day') is")
            }
            Expr::UnaryOp {
                op: UnaryOperator::Plus,
                ..
            } => unsupported(
                span,
                "a plus sign before anything but a number (leave it out) is",
            ),
            Expr::Interval(interval) if !quoted(interval) => {
                unsupported(span, "INTERVAL without a literal in quotes behind it is")
            }
            Expr::Interval(interval) if interval.leading_field.is_some() && !whole(interval) => {
                let what = "a unit behind INTERVAL '…' (write it in the quotes, as in \
                            INTERVAL '1.5 days') is";
                unsupported(span, what)
            }
            Expr::CompoundFieldAccess { .. } => unsupported(span, "a subscript is"),
            Expr::Value(value) if matches!(value.value, Value::Placeholder(_)) => {
                unsupported(value.span, &format!("a parameter ({value}) is"))
            }
            _ => ControlFlow::Continue(()),
        }
    }
}

/// Most subqueries in expressions that are nested in each other. The plan of nested `NOT IN` grows
/// with each level by a factor.
pub(crate) const NESTED_SUBQUERIES_MAX: usize = 6;

/// Whether an expression is a subquery.
fn is_subquery(expr: &Expr) -> bool {
    matches!(
        expr,
        Expr::Subquery(_) | Expr::InSubquery { .. } | Expr::Exists { .. }
    )
}

/// Whether an INTERVAL has a quoted literal.
///
/// `INTERVAL 1 DAY` is not PostgreSQL's syntax.
fn quoted(interval: &Interval) -> bool {
    let literal = |value: &Value| matches!(value, Value::SingleQuotedString(_));
    matches!(interval.value.as_ref(), Expr::Value(value) if literal(&value.value))
}

/// Whether an interval literal has a whole number of its unit.
///
/// `INTERVAL '1.5' DAY` has another meaning in the planner than in PostgreSQL.
fn whole(interval: &Interval) -> bool {
    match interval.value.as_ref() {
        Expr::Value(value) => value.value.clone().into_string().is_some_and(|text| {
            let digits = text.strip_prefix('-').unwrap_or(&text);
            !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
        }),
        _ => false,
    }
}

impl Check<'_> {
    /// Checks a SELECT, VALUES or a set operation.
    fn set(&self, body: &SetExpr) -> Refusal {
        match body {
            SetExpr::Select(_) | SetExpr::Query(_) => ControlFlow::Continue(()),
            SetExpr::SetOperation {
                left,
                op,
                right,
                set_quantifier,
            } => {
                self.set(left)?;
                self.set(right)?;
                let plain = matches!(
                    set_quantifier,
                    SetQuantifier::All | SetQuantifier::Distinct | SetQuantifier::None
                );
                match op {
                    SetOperator::Minus => unsupported(right.span(), "MINUS (write EXCEPT) is"),
                    _ if !plain => unsupported(right.span(), &format!("{op} {set_quantifier} is")),
                    _ => ControlFlow::Continue(()),
                }
            }
            SetExpr::Values(list) => values::checked(list),
            other => unsupported(other.span(), "anything but SELECT is"),
        }
    }

    /// Checks that a table, view or common table expression exists.
    ///
    /// The names of common table expressions hide those of tables.
    fn table(&self, ident: &Ident) -> Refusal {
        let name = normal(ident);
        let local = self.ctes.iter().any(|names| names.contains(&name));
        if local || self.catalog.find(&name).is_some() {
            return ControlFlow::Continue(());
        }
        let known = self
            .catalog
            .names()
            .chain(self.ctes.iter().flatten().map(String::as_str));
        let hint = did_you_mean(&name, known);
        let hint = match hint.as_str() {
            "" => "; a table or view must be created above the view that reads it",
            hint => hint,
        };
        ControlFlow::Break((ident.span, format!("unknown table `{name}`{hint}")))
    }

    /// Checks the names in HAVING. In PostgreSQL a name in HAVING is a column of FROM. The planner
    /// takes it for an output with this name if FROM has no such column.
    fn having_columns(&self, select: &Select) -> Refusal {
        let Some(having) = &select.having else {
            return ControlFlow::Continue(());
        };
        let from = select.from.iter().map(ToString::to_string);
        let from = from.collect::<Vec<_>>().join(" ");
        let word = |c: char| !(c.is_alphanumeric() || c == '_');
        let below =
            |name: &str| self.catalog.has_column(name) || from.split(word).any(|word| word == name);
        visit_expressions(having, |expr| match expr {
            Expr::Identifier(name) if hides(select, &normal(name)) && !below(&normal(name)) => {
                let name = normal(name);
                let what = format!(
                    "`{name}` of SELECT cannot be used in HAVING: write what it stands for"
                );
                ControlFlow::Break((expr.span(), what))
            }
            _ => ControlFlow::Continue(()),
        })
    }
}

/// Checks `grouping(…)`, and what stands inside GROUPING SETS. `None` for all other functions.
fn of_groups(name: &str, function: &Function) -> Option<Refusal> {
    let span = function.name.span();
    if name == "rollup" || name == "cube" {
        return Some(unsupported(span, "ROLLUP or CUBE inside GROUPING SETS is"));
    }
    if name != GROUPING {
        return None;
    }
    let plain = match &function.args {
        FunctionArguments::List(list) => {
            !list.args.is_empty() && list.duplicate_treatment.is_none()
        }
        _ => false,
    };
    if !plain || function.filter.is_some() || function.over.is_some() {
        let what = "grouping takes expressions of GROUP BY, and no DISTINCT, FILTER or OVER";
        return Some(ControlFlow::Break((span, what.to_owned())));
    }
    Some(ControlFlow::Continue(()))
}

/// Checks the names in ORDER BY. In an expression of ORDER BY a name is a column of FROM. The
/// planner takes it for an output with this name if there is one.
fn order_by_columns(order: &OrderBy, select: &Select) -> Refusal {
    let OrderByKind::Expressions(exprs) = &order.kind else {
        return unsupported(order.span(), "ORDER BY ALL is");
    };
    let each = exprs.iter().map(|by| &by.expr);
    positions(each, "ORDER BY")?;
    let bare = |by: &&OrderByExpr| matches!(by.expr, Expr::Identifier(_));
    exprs.iter().filter(|by| !bare(by)).try_for_each(|by| {
        visit_expressions(&by.expr, |expr| match expr {
            Expr::Identifier(name) if hides(select, &normal(name)) => {
                let name = normal(name);
                let what = format!(
                    "`{name}` in an expression of ORDER BY would mean a column of FROM, not the \
                     `{name}` of SELECT: give that another name"
                );
                ControlFlow::Break((expr.span(), what))
            }
            _ => ControlFlow::Continue(()),
        })
    })
}

/// Whether SELECT gives this name to an expression that is not the column of the same name.
fn hides(select: &Select, name: &str) -> bool {
    select.projection.iter().any(|item| match item {
        SelectItem::ExprWithAlias { expr, alias } => {
            let itself = matches!(expr, Expr::Identifier(own) if normal(own) == name);
            normal(alias) == name && !itself
        }
        _ => false,
    })
}

/// Refuses literals among keys, except positions in SELECT.
///
/// PostgreSQL takes a whole number in GROUP BY and ORDER BY for a position in SELECT.
fn positions<'a>(mut keys: impl Iterator<Item = &'a Expr>, what: &str) -> Refusal {
    let place = |value: &Value| match value {
        Value::Number(digits, _) => digits.bytes().all(|byte| byte.is_ascii_digit()),
        _ => false,
    };
    let wrong = keys.find_map(|key| match key {
        Expr::Value(value) if !place(&value.value) => Some(value.span),
        _ => None,
    });
    match wrong {
        Some(span) => unsupported(
            span,
            &format!("a constant that is no position in {what} is"),
        ),
        None => ControlFlow::Continue(()),
    }
}

/// Checks the clauses of a SELECT.
///
/// # Errors
/// The first clause that is not supported, in the order of the checks.
fn select_clauses(select: &Select) -> Refusal {
    let place = select.span();
    if let Some(Distinct::On(exprs)) = &select.distinct {
        positions(exprs.iter(), "DISTINCT ON")?;
    }
    if let (Some(having), GroupByExpr::Expressions(keys, _)) = (&select.having, &select.group_by)
        && keys.is_empty()
        && !aggregates(select)
    {
        return unsupported(
            having.span(),
            "HAVING without GROUP BY and without an aggregate is",
        );
    }
    if let GroupByExpr::Expressions(keys, _) = &select.group_by
        && !keys.is_empty()
        && keys
            .iter()
            .all(|key| matches!(key, Expr::Tuple(none) if none.is_empty()))
        && !aggregates(select)
    {
        let group = select.group_by.span();
        return unsupported(group, "GROUP BY () without an aggregate is");
    }
    select.from.iter().try_for_each(joins)?;
    if let GroupByExpr::Expressions(keys, _) = &select.group_by {
        positions(keys.iter(), "GROUP BY")?;
    }
    let (all, modifiers) = match &select.group_by {
        GroupByExpr::All(modifiers) => (true, modifiers),
        GroupByExpr::Expressions(_, modifiers) => (false, modifiers),
    };
    let group = select.group_by.span();
    let sorted = !select.sort_by.is_empty()
        || !select.cluster_by.is_empty()
        || !select.distribute_by.is_empty();
    none_of(&[
        (all, group, "GROUP BY ALL is"),
        (
            !modifiers.is_empty(),
            group,
            "WITH ROLLUP (write ROLLUP (…)) is",
        ),
        (select.top.is_some(), place, "TOP is"),
        (select.into.is_some(), place, "SELECT INTO is"),
        (!select.lateral_views.is_empty(), place, "LATERAL VIEW is"),
        (!select.connect_by.is_empty(), place, "CONNECT BY is"),
        (select.prewhere.is_some(), place, "PREWHERE is"),
        (sorted, place, "SORT BY, CLUSTER BY and DISTRIBUTE BY are"),
    ])
}

/// Whether SELECT or HAVING contains an aggregate.
///
/// Aggregates with OVER are window functions and do not count.
fn aggregates(select: &Select) -> bool {
    let called = |expr: &Expr| match expr {
        Expr::Function(function) => single(&function.name)
            .is_some_and(|name| aggregate(&normal(name)).is_some() && function.over.is_none()),
        _ => false,
    };
    let found = |expr: &Expr| match called(expr) {
        true => ControlFlow::Break(()),
        false => ControlFlow::Continue(()),
    };
    visit_expressions(&select.projection, found).is_break()
        || visit_expressions(&select.having, found).is_break()
}

/// Checks that all joins are ones that PostgreSQL has, in any notation.
fn joins(tables: &TableWithJoins) -> Refusal {
    tables.joins.iter().try_for_each(|join| {
        let outer = match &join.join_operator {
            JoinOperator::Join(_) | JoinOperator::Inner(_) | JoinOperator::CrossJoin(_) => None,
            JoinOperator::Left(constraint) | JoinOperator::LeftOuter(constraint) => {
                Some((constraint, "LEFT JOIN"))
            }
            JoinOperator::Right(constraint) | JoinOperator::RightOuter(constraint) => {
                Some((constraint, "RIGHT JOIN"))
            }
            JoinOperator::FullOuter(constraint) => Some((constraint, "FULL JOIN")),
            JoinOperator::Semi(_) | JoinOperator::LeftSemi(_) | JoinOperator::RightSemi(_) => {
                return unsupported(join.relation.span(), "SEMI JOIN (write EXISTS) is");
            }
            JoinOperator::Anti(_) | JoinOperator::LeftAnti(_) | JoinOperator::RightAnti(_) => {
                return unsupported(join.relation.span(), "ANTI JOIN (write NOT EXISTS) is");
            }
            _ => return unsupported(join.relation.span(), "this kind of join is"),
        };
        match outer {
            // The planner takes the merged column from the left side, where it may be null.
            Some((JoinConstraint::Using(_) | JoinConstraint::Natural, what))
                if what != "LEFT JOIN" =>
            {
                let what = format!("{what} with USING or NATURAL (write ON) is");
                unsupported(join.relation.span(), &what)
            }
            _ => ControlFlow::Continue(()),
        }
    })
}
