//! Refusal of recursive queries, by PostgreSQL's rules for them.
//!
//! Input: a WITH RECURSIVE as parsed. Output: the first place where it breaks a rule. The rules are
//! about the reference of the recursive term to the query itself: it stands once, in FROM, not on
//! the nullable side of an outer join, and the term has no aggregates over it.
//!
//! Source: PostgreSQL's `checkWellFormedRecursion` (`parse_cte.c`) and `parseCheckAggregates`
//! (`parse_agg.c`).

use std::ops::ControlFlow;

use datafusion_sql::sqlparser::ast::{
    Cte, Join, JoinOperator, LimitClause, Query, Select, SetExpr, SetOperator, SetQuantifier,
    Spanned, TableFactor, TableWithJoins, With,
};
use datafusion_sql::sqlparser::tokenizer::Span;

use super::{Refusal, aggregates, none_of};
use crate::rewrite::recursion::{ordered, references};
use crate::script::{normal, single};

/// Most recursive queries in a view. The plan grows with each that reads another one by a factor.
pub(crate) const RECURSIONS_MAX: usize = 8;

/// Checks the queries of a WITH RECURSIVE. Returns how many of them are recursive.
pub(super) fn checked(with: &With) -> ControlFlow<(Span, String), usize> {
    if ordered(with).is_none() {
        let what = "queries of WITH RECURSIVE that read each other are not supported (PostgreSQL \
                    does not support them either)";
        return ControlFlow::Break((with.span(), what.to_owned()));
    }
    let mut recursive = 0;
    for cte in &with.cte_tables {
        let name = normal(&cte.alias.name);
        if !references(cte.query.as_ref(), &name).is_empty() {
            recursive += 1;
            query(cte, &name)?;
        }
    }
    ControlFlow::Continue(recursive)
}

/// Checks one recursive query.
fn query(cte: &Cte, name: &str) -> Refusal {
    let Cte { query, alias, .. } = cte;
    let (all, place) = (references(query.as_ref(), name), alias.name.span);
    clauses(query)?;
    let SetExpr::SetOperation {
        op: SetOperator::Union,
        left,
        right,
        ..
    } = query.body.as_ref()
    else {
        let what = format!(
            "recursive query `{name}` must have the form: non-recursive term UNION [ALL] recursive \
             term"
        );
        return ControlFlow::Break((place, what));
    };
    if let Some(first) = references(left.as_ref(), name).first() {
        return misplaced(*first, name, "within its non-recursive term");
    }
    let mut term = Term {
        name,
        found: Vec::new(),
    };
    term.body(right, "")?;
    if let Some((span, place)) = term.found.iter().find(|(_, place)| !place.is_empty()) {
        return misplaced(*span, name, place);
    }
    let in_from = |span: &&Span| term.found.iter().any(|(found, _)| found == *span);
    if let Some(other) = all.iter().find(|span| !in_from(span)) {
        return misplaced(
            *other,
            name,
            "within a subquery of an expression or of WITH",
        );
    }
    match all.get(1) {
        Some(second) => misplaced(*second, name, "more than once"),
        None => ControlFlow::Continue(()),
    }
}

/// Refuses a reference at a place where it must not stand.
fn misplaced(span: Span, name: &str, place: &str) -> Refusal {
    let what = format!("the recursive reference to `{name}` must not appear {place}");
    ControlFlow::Break((span, what))
}

/// Refuses the clauses that a recursive query has beside its terms.
fn clauses(query: &Query) -> Refusal {
    let place = query.body.span();
    let (limit, offset) = match &query.limit_clause {
        Some(LimitClause::LimitOffset { limit, offset, .. }) => (limit.is_some(), offset.is_some()),
        other => (other.is_some(), false),
    };
    none_of(&[
        (
            query.order_by.is_some(),
            place,
            "ORDER BY in a recursive query is",
        ),
        (offset, place, "OFFSET in a recursive query is"),
        (
            limit || query.fetch.is_some(),
            place,
            "LIMIT in a recursive query is",
        ),
    ])
}

/// A recursive term, and the references to the query itself in it.
struct Term<'a> {
    /// The query's name.
    name: &'a str,
    /// The references in FROM, each with the words for its place if it must not stand there.
    found: Vec<(Span, &'static str)>,
}

impl Term<'_> {
    /// Finds the references in the FROM of a query body.
    fn body(&mut self, body: &SetExpr, place: &'static str) -> Refusal {
        match body {
            SetExpr::Select(select) => self.select(select, place),
            SetExpr::Query(query) => self.body(&query.body, place),
            SetExpr::SetOperation {
                op,
                set_quantifier,
                left,
                right,
            } => {
                let all = *set_quantifier == SetQuantifier::All;
                let (one, other) = match op {
                    SetOperator::Intersect if all => {
                        ("within INTERSECT ALL", "within INTERSECT ALL")
                    }
                    SetOperator::Except if all => ("within EXCEPT ALL", "within EXCEPT"),
                    SetOperator::Except => (place, "within EXCEPT"),
                    _ => (place, place),
                };
                self.body(left, one)?;
                self.body(right, other)
            }
            _ => ControlFlow::Continue(()),
        }
    }

    /// Finds the references in the FROM of a SELECT.
    fn select(&mut self, select: &Select, place: &'static str) -> Refusal {
        let mut direct = false;
        for from in &select.from {
            direct |= self.tables(from, place)?;
        }
        if direct && aggregates(select) {
            let what = "aggregates are not allowed in the recursive term of a recursive query";
            return ControlFlow::Break((select.span(), what.to_owned()));
        }
        ControlFlow::Continue(())
    }

    /// Finds the references in an item of FROM with its joins. Returns whether one stands in it
    /// itself, and not in a subquery.
    fn tables(
        &mut self,
        tables: &TableWithJoins,
        place: &'static str,
    ) -> ControlFlow<(Span, String), bool> {
        const OUTER: &str = "within an outer join";
        // All that is to the left of a RIGHT or FULL JOIN is on its nullable side.
        let right = |join: &Join| {
            matches!(
                join.join_operator,
                JoinOperator::Right(_) | JoinOperator::RightOuter(_) | JoinOperator::FullOuter(_)
            )
        };
        let left = |join: &Join| {
            matches!(
                join.join_operator,
                JoinOperator::Left(_) | JoinOperator::LeftOuter(_) | JoinOperator::FullOuter(_)
            )
        };
        let first = match tables.joins.iter().any(right) {
            true => OUTER,
            false => place,
        };
        let mut direct = self.factor(&tables.relation, first)?;
        for (index, join) in tables.joins.iter().enumerate() {
            let later = tables.joins.iter().skip(index + 1).any(right);
            let place = match left(join) || later {
                true => OUTER,
                false => place,
            };
            direct |= self.factor(&join.relation, place)?;
        }
        ControlFlow::Continue(direct)
    }

    /// Finds the references in one item of FROM. Returns as [`Term::tables`].
    fn factor(
        &mut self,
        factor: &TableFactor,
        place: &'static str,
    ) -> ControlFlow<(Span, String), bool> {
        match factor {
            TableFactor::Table { name, .. } => {
                let ident = single(name).filter(|ident| normal(ident) == self.name);
                if let Some(ident) = ident {
                    self.found.push((ident.span, place));
                }
                ControlFlow::Continue(ident.is_some())
            }
            TableFactor::Derived { subquery, .. } => {
                let mut inside = Term {
                    name: self.name,
                    found: Vec::new(),
                };
                inside.body(&subquery.body, place)?;
                self.found.extend(inside.found);
                ControlFlow::Continue(false)
            }
            TableFactor::NestedJoin {
                table_with_joins, ..
            } => self.tables(table_with_joins, place),
            _ => ControlFlow::Continue(false),
        }
    }
}
