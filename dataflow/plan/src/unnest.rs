//! Unnesting: subqueries in expressions, and LATERAL, become joins.
//!
//! A subquery that reads columns of the query around it is *correlated*: it has a value for each
//! row of the outer query. An incremental dataflow cannot run it row by row. Instead, the subquery
//! is computed for all outer rows at once: each of its operators carries the outer columns that the
//! subquery reads, and the result is joined back on these columns.
//!
//! ```text
//! SELECT … FROM t WHERE x > (SELECT max(y) FROM u WHERE u.k = t.k)
//!
//!   Filter x > value
//!     Left join on t.k IS NOT DISTINCT FROM "outer k"
//!       t
//!       max(y) AS value for each "outer k"           the subquery, for all outer rows
//!         u, and the domain: the distinct t.k AS "outer k"
//! ```
//!
//! The *domain* is the set of distinct values of the outer columns. A subquery's tables are joined
//! with it, unless a condition `u.k = t.k` already says which domain values a row belongs to; then
//! `u.k` takes the place of the domain's column.
//!
//! | in SQL | becomes |
//! |---|---|
//! | `EXISTS`, `IN` as a condition of WHERE | semi join, anti join |
//! | `EXISTS`, `IN`, `ANY`, `ALL` elsewhere | left join with counts, for three-valued logic |
//! | a scalar subquery | left join; more than one row is an error of the outer row |
//! | `LATERAL` | join |
//!
//! Input: the SQL planner's plan. Output: a plan without subqueries, which has not been typed yet.
//!
//! Source: T. Neumann, A. Kemper: Unnesting Arbitrary Queries (BTW 2015).

mod condition;
mod free;
mod relation;

use std::cell::Cell;
use std::sync::Arc;

use datafusion_common::tree_node::TreeNode;
use datafusion_common::{
    Column, DFSchema, JoinConstraint, NullEquality, Result, TableReference, plan_err,
};
use datafusion_expr::logical_plan::{Join, Projection};
use datafusion_expr::{BinaryExpr, Distinct, Expr, JoinType, LogicalPlan, Operator};
use free::{free, has, nests};
use tidemill_functions::chain::chained;

/// Replaces all subqueries of a plan by joins.
///
/// # Errors
/// A plan error when a subquery reads outer columns in a place that is not supported.
pub(super) fn unnested(plan: LogicalPlan) -> Result<LogicalPlan> {
    let nested = plan.exists(|node| {
        let mut found = matches!(node, LogicalPlan::Subquery(_));
        for expr in node.expressions() {
            found |= nests(&expr)?;
        }
        Ok(found)
    })?;
    match nested {
        true => Unnesting::default().node(plan, None),
        false => Ok(plan),
    }
}

/// The state of an unnesting.
#[derive(Default)]
struct Unnesting {
    /// The number of subqueries so far, which gives their columns unique names.
    subqueries: Cell<usize>,
}

/// The outer columns that a subquery reads.
struct Outer {
    /// The distinct values of the columns, with the names of the carried columns.
    domain: LogicalPlan,
    /// Each outer column, and the column that carries its value through the subquery.
    columns: Vec<(Column, Column)>,
    /// Whether outer rows that no row belongs to get a group of the next GROUP BY without keys. If
    /// not, the outer query knows the value of an empty group.
    fills: Cell<bool>,
}

impl Outer {
    /// The expressions that pass on the carried columns.
    fn carried(&self) -> Vec<Expr> {
        let carried = self.columns.iter().map(|(_, carried)| carried.clone());
        carried.map(Expr::Column).collect()
    }

    /// The column that carries an outer column.
    fn carrier(&self, column: &Column) -> Option<&Column> {
        let known = self.columns.iter().find(|(outer, _)| outer == column);
        known.map(|(_, carried)| carried)
    }

    /// Whether a plan reads one of the outer columns.
    fn is_read_by(&self, plan: &LogicalPlan) -> Result<bool> {
        let free = free(plan)?;
        Ok(free.iter().any(|column| self.carrier(column).is_some()))
    }
}

/// The result of a subquery, computed for all outer rows.
struct Computed {
    /// The carried columns, then the subquery's columns.
    plan: LogicalPlan,
    /// Each outer row's expression and the carried column that must equal it.
    on: Vec<(Expr, Column)>,
    /// The qualifier for the subquery's columns in the outer query.
    name: TableReference,
}

impl Computed {
    /// The expressions that pass on the carried columns.
    fn carried(&self) -> Vec<Expr> {
        let carried = self.on.iter().map(|(_, carried)| carried.clone());
        carried.map(Expr::Column).collect()
    }

    /// The conditions that join the result back to the outer rows.
    fn conditions(&self) -> Vec<Expr> {
        let on = self.on.iter();
        on.map(|(outer, carried)| same(outer.clone(), Expr::Column(carried.clone())))
            .collect()
    }
}

impl Unnesting {
    /// A number that no other subquery has.
    fn number(&self) -> usize {
        self.subqueries.set(self.subqueries.get() + 1);
        self.subqueries.get()
    }

    /// Computes a subquery for all rows of `input`. `outer` are the columns that `input` itself
    /// carries. `fills` is [`Outer::fills`].
    ///
    /// # Errors
    /// A plan error when the subquery reads a column that neither `input` nor `outer` has.
    fn computed(
        &self,
        input: &LogicalPlan,
        query: &LogicalPlan,
        outer: Option<&Outer>,
        fills: bool,
    ) -> Result<Computed> {
        let number = self.number();
        let name = TableReference::bare(format!("subquery {number}"));
        let carrier = TableReference::bare(format!("outer {number}"));
        let mut on = Vec::new();
        let mut columns: Vec<(Column, Column)> = Vec::new();
        for column in free(query)? {
            if columns.iter().any(|(known, _)| *known == column) {
                continue;
            }
            let source = match outer.and_then(|outer| outer.carrier(&column)) {
                _ if has(input.schema(), &column) => column.clone(),
                Some(carried) => carried.clone(),
                None => {
                    return plan_err!(
                        "a subquery cannot read `{}` here: the query around it has no such column \
                         at this point",
                        column.flat_name()
                    );
                }
            };
            // The space keeps the name apart from those of the subquery.
            let known = |name: &String| columns.iter().any(|(_, it)| it.name == *name);
            let mut carried = format!("outer {}", column.name);
            while known(&carried) {
                carried = format!("another {carried}");
            }
            let carried = Column::new(Some(carrier.clone()), carried);
            on.push((Expr::Column(source), carried.clone()));
            columns.push((column, carried));
        }
        let plan = match columns.is_empty() {
            true => self.node(query.clone(), None)?,
            false => {
                let values = on
                    .iter()
                    .map(|(source, carried)| named(source.clone(), carried));
                let values = Projection::try_new(values.collect(), Arc::new(input.clone()))?;
                let values = LogicalPlan::Projection(values);
                let domain = LogicalPlan::Distinct(Distinct::All(Arc::new(values)));
                let outer = Outer {
                    domain,
                    columns,
                    fills: Cell::new(fills),
                };
                self.node(query.clone(), Some(&outer))?
            }
        };
        Ok(Computed { plan, on, name })
    }
}

/// Whether two values are the same, where null is the same as null.
fn same(one: Expr, other: Expr) -> Expr {
    let (one, other) = (Box::new(one), Box::new(other));
    Expr::BinaryExpr(BinaryExpr::new(one, Operator::IsNotDistinctFrom, other))
}

/// An expression as an output column with exactly this name.
fn named(expr: Expr, column: &Column) -> Expr {
    match expr {
        Expr::Column(own) if own == *column => Expr::Column(own),
        expr => expr.alias_qualified(column.relation.clone(), column.name.clone()),
    }
}

/// The columns of a schema, in order.
fn columns(schema: &DFSchema) -> Vec<Column> {
    schema.columns()
}

/// A projection.
fn projected(input: LogicalPlan, exprs: Vec<Expr>) -> Result<LogicalPlan> {
    Projection::try_new(exprs, Arc::new(input)).map(LogicalPlan::Projection)
}

/// A join on conditions.
fn joined(
    left: LogicalPlan,
    right: LogicalPlan,
    kind: JoinType,
    conditions: Vec<Expr>,
) -> Result<LogicalPlan> {
    let join = Join::try_new(
        Arc::new(left),
        Arc::new(right),
        Vec::new(),
        chained(conditions, Expr::and),
        kind,
        JoinConstraint::On,
        NullEquality::NullEqualsNothing,
        false,
    )?;
    Ok(LogicalPlan::Join(join))
}
