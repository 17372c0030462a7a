//! Expansion of `SELECT *` over joins with USING or NATURAL, as PostgreSQL expands it.
//!
//! The joined columns come first, once, then the other columns of the left side, then those of the
//! right side. Input: a parsed query. Output: the same query without such a `*`. The names of
//! columns are known from the catalog, and from the SELECT lists of subqueries and common table
//! expressions.
//!
//! ```text
//! SELECT * FROM a JOIN b USING (id)     a (x, id), b (id, y)
//!   ─► SELECT a.id, a.x, b.y FROM a JOIN b USING (id)
//! ```
//!
//! Source: PostgreSQL's `expandNSItemAttrs` and `transformFromClauseItem` (`parse_relation.c`,
//! `parse_clause.c`).

use std::ops::ControlFlow;

use datafusion_sql::sqlparser::ast::{
    ExcludeSelectItem, Expr, Ident, Join, JoinConstraint, JoinOperator, ObjectName, Query, Select,
    SelectItem, SelectItemQualifiedWildcardKind, SetExpr, Spanned, TableAlias, TableFactor,
    TableWithJoins, Visit, VisitMut, Visitor, VisitorMut, WildcardAdditionalOptions,
};
use datafusion_sql::sqlparser::tokenizer::{Location, Span};
use tidemill_log::Result;

use crate::catalog::Catalog;
use crate::script::{Script, normal, single};

/// A column of FROM: its table and its name. An expression without an alias has no name.
#[derive(Clone)]
struct Named {
    /// The table's name or alias.
    table: Option<Ident>,
    /// The column's name.
    name: Option<Ident>,
}

/// The columns of the common table expressions in scope, by name, innermost last.
type Scope = Vec<(String, Vec<Option<Ident>>)>;

/// A result, or the place and the reason of a refusal.
type Found<T> = std::result::Result<T, (Span, String)>;

/// The query with its wildcards expanded, if it joins with USING or NATURAL.
///
/// # Errors
/// `Data` with the place, when a wildcard cannot be expanded.
///
/// A query without USING and NATURAL is returned as it is, and the planner expands its wildcards.
pub(crate) fn expanded(
    query: &Query,
    catalog: &Catalog,
    script: Script<'_>,
    at: Location,
) -> Result<Query> {
    let mut query = query.clone();
    if query.visit(&mut Merges).is_continue() {
        return Ok(query);
    }
    match (Expansion { catalog }).query(&mut query, &Vec::new()) {
        Ok(_) => Ok(query),
        Err((span, what)) => {
            let known = if span.start.line == 0 { at } else { span.start };
            Err(script.error(known, what))
        }
    }
}

/// A visitor that stops at a join with USING or NATURAL.
struct Merges;

impl Visitor for Merges {
    type Break = ();

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
        selects(&query.body).into_iter().try_for_each(|select| {
            let mut joins = select.from.iter().flat_map(all_joins);
            match joins.any(|join| !matches!(merged(join), Merged::Nothing)) {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            }
        })
    }
}

/// The SELECTs of a query body.
fn selects(body: &SetExpr) -> Vec<&Select> {
    match body {
        SetExpr::Select(select) => vec![select],
        SetExpr::SetOperation { left, right, .. } => [selects(left), selects(right)].concat(),
        _ => Vec::new(),
    }
}

/// All joins of a FROM item, with nested ones.
///
/// In no particular order, because only their existence is asked for.
fn all_joins(tables: &TableWithJoins) -> Vec<&Join> {
    let mut joins: Vec<&Join> = tables.joins.iter().collect();
    let factors = tables.joins.iter().map(|join| &join.relation);
    for factor in factors.chain([&tables.relation]) {
        if let TableFactor::NestedJoin {
            table_with_joins, ..
        } = factor
        {
            joins.extend(all_joins(table_with_joins));
        }
    }
    joins
}

/// The columns that a join merges into one.
enum Merged<'a> {
    /// None.
    Nothing,
    /// The columns of USING.
    Using(&'a [ObjectName]),
    /// All columns that both sides have.
    Natural,
}

/// The columns that a join merges.
fn merged(join: &Join) -> Merged<'_> {
    match &join.join_operator {
        JoinOperator::Join(constraint)
        | JoinOperator::Inner(constraint)
        | JoinOperator::Left(constraint)
        | JoinOperator::LeftOuter(constraint)
        | JoinOperator::CrossJoin(constraint) => match constraint {
            JoinConstraint::Using(names) => Merged::Using(names),
            JoinConstraint::Natural => Merged::Natural,
            _ => Merged::Nothing,
        },
        _ => Merged::Nothing,
    }
}

/// The expansion of one query.
struct Expansion<'a> {
    /// The tables and views that exist so far.
    catalog: &'a Catalog,
}

impl Expansion<'_> {
    /// Expands a query. Returns the names of its columns.
    ///
    /// A common table expression sees those before it, and hides a table of its name.
    fn query(&self, query: &mut Query, outer: &Scope) -> Found<Vec<Option<Ident>>> {
        let mut scope = outer.clone();
        if let Some(with) = &mut query.with {
            for cte in &mut with.cte_tables {
                let names = self.query(&mut cte.query, &scope)?;
                let names = renamed(names, &cte.alias);
                scope.push((normal(&cte.alias.name), names));
            }
        }
        self.body(&mut query.body, &scope)
    }

    /// Expands a query body.
    ///
    /// A set operation has the names of its left side.
    fn body(&self, body: &mut SetExpr, scope: &Scope) -> Found<Vec<Option<Ident>>> {
        match body {
            SetExpr::Select(select) => self.select(select, scope),
            SetExpr::Query(query) => self.query(query, scope),
            SetExpr::SetOperation { left, right, .. } => {
                let names = self.body(left, scope)?;
                self.body(right, scope)?;
                Ok(names)
            }
            _ => Ok(Vec::new()),
        }
    }

    /// Expands a SELECT.
    ///
    /// `t.*` is left to the planner, because it has no merged columns. Its names are added for the
    /// query around this one.
    fn select(&self, select: &mut Select, scope: &Scope) -> Found<Vec<Option<Ident>>> {
        let (mut columns, mut tables) = (Vec::new(), Vec::new());
        for from in &mut select.from {
            columns.extend(self.joined(from, scope, &mut tables)?);
        }
        qualify(select, &columns, &tables);
        let mut items = Vec::new();
        let mut names = Vec::new();
        for item in std::mem::take(&mut select.projection) {
            match &item {
                SelectItem::Wildcard(options) => {
                    let span = options.wildcard_token.0.span;
                    plain(options, span)?;
                    for column in columns.iter().filter(|column| !hidden(options, column)) {
                        items.push(SelectItem::UnnamedExpr(column.expr(span)?));
                        names.push(column.name.clone());
                    }
                    continue;
                }
                SelectItem::QualifiedWildcard(
                    SelectItemQualifiedWildcardKind::ObjectName(name),
                    _,
                ) => {
                    let of = single(name).map(normal);
                    let of = tables.iter().filter(|column: &&Named| {
                        column.table.as_ref().map(normal) == of && of.is_some()
                    });
                    names.extend(of.map(|column| column.name.clone()));
                }
                SelectItem::UnnamedExpr(Expr::Identifier(name)) => names.push(Some(name.clone())),
                SelectItem::UnnamedExpr(Expr::CompoundIdentifier(parts)) => {
                    names.push(parts.last().cloned());
                }
                SelectItem::ExprWithAlias { alias, .. } => names.push(Some(alias.clone())),
                _ => names.push(None),
            }
            items.push(item);
        }
        select.projection = items;
        Ok(names)
    }

    /// The columns of a table with its joins, in the order of `*`. All columns of all its tables
    /// are appended to `tables`.
    fn joined(
        &self,
        from: &mut TableWithJoins,
        scope: &Scope,
        tables: &mut Vec<Named>,
    ) -> Found<Vec<Named>> {
        let mut left = self.factor(&mut from.relation, scope, tables)?;
        for join in &mut from.joins {
            let mut right = self.factor(&mut join.relation, scope, tables)?;
            let is = |column: &Named, name: &str| {
                column.name.as_ref().is_some_and(|own| normal(own) == name)
            };
            let names: Vec<String> = match merged(join) {
                Merged::Nothing => Vec::new(),
                Merged::Using(names) => names.iter().filter_map(single).map(normal).collect(),
                Merged::Natural => {
                    let names = left.iter().filter_map(|column| column.name.as_ref());
                    let names = names.map(normal);
                    names
                        .filter(|name| right.iter().any(|c| is(c, name)))
                        .collect()
                }
            };
            let mut merged = Vec::new();
            for name in &names {
                let own = left.iter().position(|column| is(column, name));
                merged.extend(own.map(|at| left.remove(at)));
                let other = right.iter().position(|column| is(column, name));
                other.map(|at| right.remove(at));
            }
            left = [merged, left, right].concat();
        }
        Ok(left)
    }

    /// The columns of one item of FROM.
    ///
    /// # Errors
    /// The item is a join in parentheses with an alias, or something that `refuse` lets through and
    /// that has no columns known here.
    fn factor(
        &self,
        factor: &mut TableFactor,
        scope: &Scope,
        tables: &mut Vec<Named>,
    ) -> Found<Vec<Named>> {
        let span = factor.span();
        let (names, alias, table) = match factor {
            TableFactor::Table { name, alias, .. } => {
                let Some(table) = single(name).cloned() else {
                    return Ok(Vec::new());
                };
                (self.columns(&normal(&table), scope), alias, Some(table))
            }
            TableFactor::Derived {
                subquery, alias, ..
            } => (self.query(subquery, scope)?, alias, None),
            TableFactor::NestedJoin {
                table_with_joins,
                alias: None,
            } => return self.joined(table_with_joins, scope, tables),
            _ => {
                let what = "an alias for a join in parentheses is not supported in views beside \
                            USING or NATURAL: write it as a subquery";
                return Err((span, what.to_owned()));
            }
        };
        let table = alias.as_ref().map(|alias| alias.name.clone()).or(table);
        let names = match alias {
            Some(alias) => renamed(names, alias),
            None => names,
        };
        let named = names.into_iter().map(|name| Named {
            table: table.clone(),
            name,
        });
        let columns: Vec<Named> = named.collect();
        tables.extend(columns.iter().cloned());
        Ok(columns)
    }

    /// The columns of a table, view or common table expression.
    fn columns(&self, table: &str, scope: &Scope) -> Vec<Option<Ident>> {
        if let Some((_, names)) = scope.iter().rfind(|(name, _)| name == table) {
            return names.clone();
        }
        let found = self.catalog.find(table);
        let fields = found.iter().flat_map(|(_, schema)| schema.fields().iter());
        let quoted = |name: &String| Some(Ident::with_quote('"', name));
        fields.map(|field| quoted(field.name())).collect()
    }
}

/// Qualifies merged columns in WHERE by the left side, because the planner takes their bare names
/// for ambiguous.
fn qualify(select: &mut Select, columns: &[Named], tables: &[Named]) {
    let Some(condition) = &mut select.selection else {
        return;
    };
    let called = |all: &[Named], name: &str| -> Vec<Named> {
        let is = |own: &Ident| normal(own) == name;
        let all = all
            .iter()
            .filter(|column| column.name.as_ref().is_some_and(is));
        all.cloned().collect()
    };
    let _visited: ControlFlow<()> = condition.visit(&mut OwnNames {
        depth: 0,
        each: |expr: &mut Expr| {
            if let Expr::Identifier(ident) = expr {
                let name = normal(ident);
                if let [only] = called(columns, &name).as_slice()
                    && called(tables, &name).len() > 1
                    && let Ok(qualified) = only.expr(ident.span)
                {
                    *expr = qualified;
                }
            }
        },
    });
}

/// A visitor of the expressions of one query, without those of subqueries within.
struct OwnNames<F> {
    /// The number of subqueries around the expression.
    depth: usize,
    /// What is done with each expression.
    each: F,
}

impl<F: FnMut(&mut Expr)> VisitorMut for OwnNames<F> {
    type Break = ();

    fn pre_visit_query(&mut self, _: &mut Query) -> ControlFlow<()> {
        self.depth += 1;
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _: &mut Query) -> ControlFlow<()> {
        self.depth -= 1;
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if self.depth == 0 {
            (self.each)(expr);
        }
        ControlFlow::Continue(())
    }
}

impl Named {
    /// The expression that refers to the column.
    ///
    /// The reference is placed at the wildcard, so errors about it point there.
    fn expr(&self, span: Span) -> Found<Expr> {
        let Some(name) = self.name.clone() else {
            let what = "`*` has a column without a name here: name it in the subquery with AS";
            return Err((span, what.to_owned()));
        };
        let placed = |ident: &Ident| Ident {
            span,
            ..ident.clone()
        };
        Ok(match &self.table {
            Some(table) => Expr::CompoundIdentifier(vec![placed(table), placed(&name)]),
            None => Expr::Identifier(placed(&name)),
        })
    }
}

/// The names after `AS alias (a, b)`.
///
/// An alias may name fewer columns than there are; the others keep their names.
fn renamed(names: Vec<Option<Ident>>, alias: &TableAlias) -> Vec<Option<Ident>> {
    let given = alias.columns.iter().map(|column| Some(column.name.clone()));
    let rest = names.into_iter().skip(alias.columns.len());
    given.chain(rest).collect()
}

/// Whether a column is left out of a `*`. Only rewrites leave columns out, by EXCLUDE, which the
/// grammar does not have.
fn hidden(options: &WildcardAdditionalOptions, column: &Named) -> bool {
    let Some(ExcludeSelectItem::Multiple(names)) = &options.opt_exclude else {
        return false;
    };
    let own = column.name.as_ref().map(normal);
    names.iter().any(|name| single(name).map(normal) == own)
}

/// Refuses clauses after `*` that PostgreSQL does not have.
fn plain(options: &WildcardAdditionalOptions, span: Span) -> Found<()> {
    let none = options.opt_ilike.is_none()
        && options.opt_except.is_none()
        && options.opt_replace.is_none()
        && options.opt_rename.is_none()
        && options.opt_alias.is_none();
    match none {
        true => Ok(()),
        false => Err((
            span,
            "anything behind `*` is not supported in views beside USING or NATURAL: name the \
             columns"
                .to_owned(),
        )),
    }
}
