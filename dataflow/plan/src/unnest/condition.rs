//! Subqueries in expressions: each one becomes a column of a join, or a semi or anti join.

use datafusion_common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion_common::{Column, Result, ScalarValue, TableReference, not_impl_err};
use datafusion_expr::expr::{InSubquery, SetComparison, SetQuantifier};
use datafusion_expr::expr_rewriter::NamePreserver;
use datafusion_expr::logical_plan::{Aggregate, FetchType, SkipType};
use datafusion_expr::{
    AggregateUDF, Distinct, Expr, ExprSchemable, JoinType, LogicalPlan, Operator, binary_expr, lit,
    not, when,
};
use datafusion_functions_aggregate::bool_and_or::bool_and_udaf;
use datafusion_functions_aggregate::count::count_udaf;
use datafusion_functions_aggregate::min_max::{max_udaf, min_udaf};
use std::sync::Arc;

use super::free::{is_subquery, nests};
use super::{Computed, Outer, Unnesting, joined, projected};
use crate::catalog::single_row::single_row;
use crate::push::filtered;

/// How many rows a query may have.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Cardinality {
    /// Any number.
    Any,
    /// None or one.
    AtMostOne,
    /// One.
    One,
}

/// How many rows a query has, as far as its form tells.
fn rows_of(query: &LogicalPlan) -> Cardinality {
    match query {
        LogicalPlan::Projection(projection) => rows_of(&projection.input),
        LogicalPlan::SubqueryAlias(alias) => rows_of(&alias.input),
        LogicalPlan::Sort(sort) => rows_of(&sort.input),
        LogicalPlan::Filter(filter) => match rows_of(&filter.input) {
            Cardinality::Any => Cardinality::Any,
            _ => Cardinality::AtMostOne,
        },
        LogicalPlan::Aggregate(grouping) if grouping.group_expr.is_empty() => Cardinality::One,
        LogicalPlan::Limit(limit) => match (limit.get_fetch_type(), limit.get_skip_type()) {
            (Ok(FetchType::Literal(Some(0 | 1))), Ok(SkipType::Literal(_))) => {
                Cardinality::AtMostOne
            }
            _ => Cardinality::Any,
        },
        LogicalPlan::EmptyRelation(empty) if empty.produce_one_row => Cardinality::One,
        _ => Cardinality::Any,
    }
}

/// The value of a query `SELECT expression of aggregates` over no rows, if the query has this form.
fn of_empty_group(query: &LogicalPlan) -> Result<Option<Expr>> {
    let LogicalPlan::Projection(projection) = query else {
        return Ok(None);
    };
    let (LogicalPlan::Aggregate(grouping), [expr]) =
        (projection.input.as_ref(), projection.expr.as_slice())
    else {
        return Ok(None);
    };
    let plain =
        !nests(expr)? && !expr.exists(|it| Ok(matches!(it, Expr::OuterReferenceColumn(..))))?;
    if !grouping.group_expr.is_empty() || !plain {
        return Ok(None);
    }
    let columns = grouping.schema.columns();
    let value = expr.clone().unalias().transform_up(|expr| {
        let index = match &expr {
            Expr::Column(column) => columns.iter().position(|own| own == column),
            _ => None,
        };
        let call = index.and_then(|index| grouping.aggr_expr.get(index));
        Ok(match call {
            Some(call) if counts(call) => Transformed::yes(lit(0_i64)),
            Some(_) => Transformed::yes(Expr::Literal(ScalarValue::Null, None)),
            None => Transformed::no(expr),
        })
    })?;
    Ok(value
        .data
        .column_refs()
        .is_empty()
        .then_some(value.data.clone()))
}

/// Whether an aggregate counts: over no rows it is 0, and not null.
pub(super) fn counts(expr: &Expr) -> bool {
    match expr {
        Expr::Alias(alias) => counts(&alias.expr),
        Expr::AggregateFunction(call) => matches!(call.func.name(), "count" | "regr_count"),
        _ => false,
    }
}

/// An expression over the columns that carry the outer columns. Subqueries within stay as they are.
pub(super) fn bound(expr: Expr, outer: Option<&Outer>) -> Result<Expr> {
    let Some(outer) = outer else { return Ok(expr) };
    let bound = expr.transform_up(|expr| {
        let carrier = match &expr {
            Expr::OuterReferenceColumn(_, column) => outer.carrier(column),
            _ => None,
        };
        Ok(match carrier {
            Some(carrier) => Transformed::yes(Expr::Column(carrier.clone())),
            None => Transformed::no(expr),
        })
    });
    bound.map(|bound| bound.data)
}

/// The last column of a result, which is the value of a subquery with one column.
fn value_of(computed: &Computed) -> Expr {
    let columns = computed.plan.schema().columns();
    columns.last().cloned().map_or(lit(true), Expr::Column)
}

/// A column of a subquery's result in the outer query.
fn column(name: &TableReference, column: &str) -> Expr {
    Expr::Column(Column::new(Some(name.clone()), column))
}

/// A call of an aggregate.
fn call(function: &Arc<AggregateUDF>, argument: Expr, name: &str) -> Expr {
    function.call(vec![argument]).alias(name)
}

/// The comparison of `x` with the least or the greatest value that decides ANY or ALL.
fn decides(x: &Expr, op: Operator, all: bool, name: &TableReference) -> Option<Expr> {
    let with = |value: &str| binary_expr(x.clone(), op, column(name, value));
    Some(match (op, all) {
        (Operator::Lt | Operator::LtEq, false) | (Operator::Gt | Operator::GtEq, true) => {
            with("greatest")
        }
        (Operator::Gt | Operator::GtEq, false) | (Operator::Lt | Operator::LtEq, true) => {
            with("least")
        }
        (Operator::NotEq, false) => with("least").or(with("greatest")),
        (Operator::Eq, true) => with("least").and(with("greatest")),
        _ => return None,
    })
}

/// The answer of ANY over no rows, or of ALL if `all`; then whether `decided`; then unknown, where
/// `x` or a value of the subquery is null.
fn three_valued(x: &Expr, name: &TableReference, decided: Expr, all: bool) -> Result<Expr> {
    let rows = column(name, "rows");
    let none = rows.clone().is_null().or(rows.clone().eq(lit(0_i64)));
    let nulls = x.clone().is_null().or(column(name, "known").lt(rows));
    when(none, lit(all))
        .when(decided, lit(!all))
        .when(nulls, Expr::Literal(ScalarValue::Boolean(None), None))
        .otherwise(lit(all))
}

impl Unnesting {
    /// Binds expressions to `input`, with a column for each of their subqueries. The expressions
    /// keep their names.
    ///
    /// # Errors
    /// A plan error when a subquery cannot be unnested.
    pub(super) fn attached(
        &self,
        mut input: LogicalPlan,
        exprs: Vec<Expr>,
        outer: Option<&Outer>,
    ) -> Result<(LogicalPlan, Vec<Expr>)> {
        let rows = input.clone();
        let names = NamePreserver::new_for_projection();
        let mut attached = Vec::new();
        for expr in exprs {
            let name = names.save(&expr);
            let (extended, expr) = self.value(input, &rows, expr, outer)?;
            input = extended;
            attached.push(name.restore(expr));
        }
        Ok((input, attached))
    }

    /// Binds one expression to `input`, with a column for each of its subqueries. `rows` is `input`
    /// before other subqueries got their columns: it has all the columns that a subquery reads.
    fn value(
        &self,
        input: LogicalPlan,
        rows: &LogicalPlan,
        expr: Expr,
        outer: Option<&Outer>,
    ) -> Result<(LogicalPlan, Expr)> {
        let expr = bound(expr, outer)?;
        if !nests(&expr)? {
            return Ok((input, expr));
        }
        let mut input = input;
        let expr = expr.transform_up(|expr| {
            if !is_subquery(&expr) {
                return Ok(Transformed::no(expr));
            }
            let (extended, expr) = self.subquery(input.clone(), rows, expr, outer)?;
            input = extended;
            Ok(Transformed::new(expr, true, TreeNodeRecursion::Continue))
        });
        let expr = expr?.data;
        Ok((input, expr))
    }

    /// The column of a subquery.
    fn subquery(
        &self,
        input: LogicalPlan,
        rows: &LogicalPlan,
        expr: Expr,
        outer: Option<&Outer>,
    ) -> Result<(LogicalPlan, Expr)> {
        match expr {
            Expr::ScalarSubquery(subquery) => self.scalar((input, rows), &subquery.subquery, outer),
            Expr::Exists(exists) => {
                let (input, found) =
                    self.exists((input, rows), &exists.subquery.subquery, outer)?;
                let found = if exists.negated { not(found) } else { found };
                Ok((input, found))
            }
            Expr::InSubquery(within) => {
                let query = &within.subquery.subquery;
                let (input, found) = self.within((input, rows), &within.expr, query, outer)?;
                let found = if within.negated { not(found) } else { found };
                Ok((input, found))
            }
            Expr::SetComparison(compared) => self.compared((input, rows), &compared, outer),
            other => Ok((input, other)),
        }
    }

    /// A scalar subquery: its value, null if it has no row, an error if it has several.
    fn scalar(
        &self,
        (input, rows): (LogicalPlan, &LogicalPlan),
        query: &LogicalPlan,
        outer: Option<&Outer>,
    ) -> Result<(LogicalPlan, Expr)> {
        let empty = of_empty_group(query)?;
        let computed = self.computed(rows, query, outer, empty.is_none())?;
        let name = computed.name.clone();
        let (value, carried) = (value_of(&computed), computed.carried());
        let on = computed.conditions();
        let mut of_rows = rows_of(query);
        let mut plan = computed.plan;
        let mut outputs = carried.clone();
        let mut answer = column(&name, "value");
        if of_rows == Cardinality::Any {
            let kind = value.get_type(plan.schema())?;
            let only = match kind {
                arrow::datatypes::DataType::Boolean => bool_and_udaf(),
                _ => min_udaf(),
            };
            let counts = vec![
                call(&count_udaf(), lit(1), "rows"),
                call(&only, value, "value"),
            ];
            plan = LogicalPlan::Aggregate(Aggregate::try_new(Arc::new(plan), carried, counts)?);
            let of = |name: &str| Expr::Column(Column::from_name(name));
            outputs.push(of("rows").alias_qualified(Some(name.clone()), "rows"));
            outputs.push(of("value").alias_qualified(Some(name.clone()), "value"));
            answer = when(single_row(column(&name, "rows")), answer).end()?;
            of_rows = Cardinality::One;
        } else {
            outputs.push(value.alias_qualified(Some(name.clone()), "value"));
        }
        // A left join gives null already.
        let null = |empty: &Expr| matches!(empty, Expr::Literal(value, _) if value.is_null());
        if let Some(empty) = empty.filter(|empty| !on.is_empty() && !null(empty)) {
            outputs.push(lit(true).alias_qualified(Some(name.clone()), "found"));
            answer = when(column(&name, "found"), answer).otherwise(empty)?;
        }
        let plan = projected(plan, outputs)?;
        let kind = match on.is_empty() && of_rows == Cardinality::One {
            true => JoinType::Inner,
            false => JoinType::Left,
        };
        Ok((joined(input, plan, kind, on)?, answer))
    }

    /// Whether a subquery has a row.
    fn exists(
        &self,
        (input, rows): (LogicalPlan, &LogicalPlan),
        query: &LogicalPlan,
        outer: Option<&Outer>,
    ) -> Result<(LogicalPlan, Expr)> {
        let computed = self.computed(rows, query, outer, true)?;
        let (name, on) = (computed.name.clone(), computed.conditions());
        if on.is_empty() {
            let plan = counted(computed, Vec::new())?;
            let found = column(&name, "rows").gt(lit(0_i64));
            return Ok((joined(input, plan, JoinType::Inner, on)?, found));
        }
        let carried = computed.carried();
        let plan = projected(computed.plan, carried.clone())?;
        let plan = LogicalPlan::Distinct(Distinct::All(Arc::new(plan)));
        let found = lit(true).alias_qualified(Some(name.clone()), "found");
        let plan = projected(plan, [carried, vec![found]].concat())?;
        let found = column(&name, "found").is_not_null();
        Ok((joined(input, plan, JoinType::Left, on)?, found))
    }

    /// Whether `x` is among the values of a subquery, in three-valued logic.
    fn within(
        &self,
        (input, rows): (LogicalPlan, &LogicalPlan),
        x: &Expr,
        query: &LogicalPlan,
        outer: Option<&Outer>,
    ) -> Result<(LogicalPlan, Expr)> {
        let computed = self.computed(rows, query, outer, true)?;
        let name = computed.name.clone();
        let (value, on, carried) = (
            value_of(&computed),
            computed.conditions(),
            computed.carried(),
        );
        let found = TableReference::bare(format!("{name} found"));
        let values = value.clone().alias_qualified(Some(found.clone()), "value");
        let values = projected(
            computed.plan.clone(),
            [carried.clone(), vec![values]].concat(),
        )?;
        let values = LogicalPlan::Distinct(Distinct::All(Arc::new(values)));
        let counts = counted(computed, vec![call(&count_udaf(), value, "known")])?;
        // Without a correlation there is one row of counts, also if the subquery has no rows.
        let kind = match on.is_empty() {
            true => JoinType::Inner,
            false => JoinType::Left,
        };
        let input = joined(input, counts, kind, on.clone())?;
        let equal = x.clone().eq(column(&found, "value"));
        // The two joins have carried columns of one name.
        let input = without(input, &carried)?;
        let input = joined(input, values, JoinType::Left, [on, vec![equal]].concat())?;
        let matched = column(&found, "value").is_not_null();
        let answer = three_valued(x, &name, matched, false)?;
        Ok((input, answer))
    }

    /// A comparison with ANY or ALL values of a subquery, in three-valued logic.
    fn compared(
        &self,
        (input, rows): (LogicalPlan, &LogicalPlan),
        compared: &SetComparison,
        outer: Option<&Outer>,
    ) -> Result<(LogicalPlan, Expr)> {
        let (x, query) = (compared.expr.as_ref(), &compared.subquery.subquery);
        let all = matches!(compared.quantifier, SetQuantifier::All);
        match (compared.op, all) {
            (Operator::Eq, false) => return self.within((input, rows), x, query, outer),
            (Operator::NotEq, true) => {
                let (input, found) = self.within((input, rows), x, query, outer)?;
                return Ok((input, not(found)));
            }
            _ => {}
        }
        let computed = self.computed(rows, query, outer, true)?;
        let (name, value, on) = (
            computed.name.clone(),
            value_of(&computed),
            computed.conditions(),
        );
        let Some(test) = decides(x, compared.op, all, &name) else {
            return not_impl_err!("`{}` with ANY or ALL is not supported", compared.op);
        };
        let calls = vec![
            call(&count_udaf(), value.clone(), "known"),
            call(&min_udaf(), value.clone(), "least"),
            call(&max_udaf(), value, "greatest"),
        ];
        let plan = counted(computed, calls)?;
        let kind = match on.is_empty() {
            true => JoinType::Inner,
            false => JoinType::Left,
        };
        let decided = if all { not(test) } else { test };
        let answer = three_valued(x, &name, decided, all)?;
        Ok((joined(input, plan, kind, on)?, answer))
    }

    /// Keeps the rows of `input` for which a condition is true. The columns of `input` are the
    /// first ones of the result. `rows` is as in [`Unnesting::value`].
    ///
    /// # Errors
    /// A plan error when a subquery cannot be unnested.
    pub(super) fn kept(
        &self,
        (input, rows): (LogicalPlan, &LogicalPlan),
        condition: Expr,
        outer: Option<&Outer>,
    ) -> Result<LogicalPlan> {
        match condition {
            Expr::Exists(exists) => {
                let kind = semi(exists.negated);
                self.partners((input, rows), None, &exists.subquery.subquery, kind, outer)
            }
            Expr::Not(inner) => match *inner {
                Expr::Exists(exists) => {
                    let kind = semi(!exists.negated);
                    self.partners((input, rows), None, &exists.subquery.subquery, kind, outer)
                }
                other => self.tested((input, rows), not(other), outer),
            },
            Expr::InSubquery(InSubquery {
                expr,
                subquery,
                negated: false,
            }) => {
                let (input, x) = self.value(input, rows, *expr, outer)?;
                self.partners(
                    (input, rows),
                    Some(x),
                    &subquery.subquery,
                    JoinType::LeftSemi,
                    outer,
                )
            }
            other => self.tested((input, rows), other, outer),
        }
    }

    /// Keeps the rows of `input` for which a condition with columns of subqueries is true.
    fn tested(
        &self,
        (input, rows): (LogicalPlan, &LogicalPlan),
        condition: Expr,
        outer: Option<&Outer>,
    ) -> Result<LogicalPlan> {
        let (input, condition) = self.value(input, rows, condition, outer)?;
        filtered(input, vec![condition])
    }

    /// Keeps the rows of `input` that have a partner in a subquery, or that have none. With `x`, a
    /// partner is a row whose value equals it.
    fn partners(
        &self,
        (input, rows): (LogicalPlan, &LogicalPlan),
        x: Option<Expr>,
        query: &LogicalPlan,
        kind: JoinType,
        outer: Option<&Outer>,
    ) -> Result<LogicalPlan> {
        let computed = self.computed(rows, query, outer, true)?;
        let (name, mut on) = (computed.name.clone(), computed.conditions());
        let mut outputs = computed.carried();
        let of_query = match x {
            Some(x) => {
                on.push(x.eq(column(&name, "value")));
                value_of(&computed).alias_qualified(Some(name), "value")
            }
            None => lit(true).alias_qualified(Some(name), "found"),
        };
        outputs.push(of_query);
        joined(input, projected(computed.plan, outputs)?, kind, on)
    }
}

/// The join that keeps rows with a partner, or if `negated`, those without.
fn semi(negated: bool) -> JoinType {
    match negated {
        true => JoinType::LeftAnti,
        false => JoinType::LeftSemi,
    }
}

/// The number of rows of a subquery as `rows`, and more aggregates, for each outer row that has
/// any.
fn counted(computed: Computed, more: Vec<Expr>) -> Result<LogicalPlan> {
    let carried = computed.carried();
    let names = more.iter().map(|call| call.schema_name().to_string());
    let names: Vec<String> = [vec!["rows".to_owned()], names.collect()].concat();
    let calls = [vec![call(&count_udaf(), lit(1), "rows")], more].concat();
    let plan = Aggregate::try_new(Arc::new(computed.plan), carried.clone(), calls)?;
    let name = computed.name;
    let outputs = names.into_iter().map(|column| {
        let value = Expr::Column(Column::from_name(column.clone()));
        value.alias_qualified(Some(name.clone()), column)
    });
    let outputs = [carried, outputs.collect()].concat();
    projected(LogicalPlan::Aggregate(plan), outputs)
}

/// A plan without some of its columns.
fn without(plan: LogicalPlan, columns: &[Expr]) -> Result<LogicalPlan> {
    let all = plan.schema().columns().into_iter().map(Expr::Column);
    let others = all.filter(|column| !columns.contains(column)).collect();
    projected(plan, others)
}
