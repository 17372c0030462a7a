//! WITH RECURSIVE: planned as a UNION ALL of its two terms, then replaced by a node.
//!
//! DataFusion types the recursive term before functions and operators have PostgreSQL's types.
//! Here a recursive query passes typing and coercion as a common table expression without
//! recursion. Its recursive term reads the work table as a common table expression too, which is a
//! copy of the non-recursive term and so has its types. The aliases of subqueries are the marks of
//! both.
//!
//! ```text
//! WITH RECURSIVE t(n) AS (base UNION ALL step) …
//!   ─► WITH t(n) AS (SELECT * FROM (base UNION ALL
//!        (WITH t(n) AS (SELECT * FROM (…, base) AS "work table 1") step)
//!      ) AS "recursion 1 all t") …                        marked, before planning
//!   ─► SubqueryAlias "recursion 1 all t"
//!        Union: base, step with a SubqueryAlias "work table 1"     checked, typed, coerced
//!   ─► RecursiveUnion: base, step with a WorkTable                 resolved, before optimisation
//! ```
//!
//! The copy of the base is the right side of a left join, because the work table may hold a null
//! where the base has none.

use std::cmp::Ordering;
use std::fmt;
use std::mem;
use std::ops::ControlFlow;
use std::sync::Arc;

use datafusion_common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion_common::{DFSchemaRef, Result as Planned, internal_err, plan_err};
use datafusion_expr::logical_plan::{Extension, SubqueryAlias};
use datafusion_expr::{Expr, LogicalPlan, UserDefinedLogicalNodeCore};
use datafusion_sql::sqlparser::ast::{
    Cte, GroupByExpr, Ident, Query, Select, SelectItem, SetExpr, SetOperator, SetQuantifier,
    TableFactor, Visit, VisitMut, Visitor, VisitorMut, With,
};
use datafusion_sql::sqlparser::tokenizer::Span;
use tidemill_ir::types;
use tidemill_log::{Error, Kind, Result};

use super::derived::{MARK, marked as derived, query as template};
use crate::script::{normal, single};

/// The beginning of the alias that marks a recursive query.
const RECURSION: &str = "recursion";

/// The beginning of the alias that marks a work table.
const WORK_TABLE: &str = "work table";

/// The word for UNION ALL in a mark.
const ALL: &str = "all";

/// The word for UNION in a mark.
const DISTINCT: &str = "distinct";

/// The places where a query reads a table of this name, in the order of the text. An inner common
/// table expression of this name hides it.
pub(crate) fn references<Q: Visit>(query: &Q, name: &str) -> Vec<Span> {
    let mut found = References {
        name,
        hidden: Vec::new(),
        spans: Vec::new(),
    };
    let _never_breaks = query.visit(&mut found);
    found.spans
}

/// The visitor that finds references.
struct References<'a> {
    /// The name.
    name: &'a str,
    /// For each query around: whether it hides the name.
    hidden: Vec<bool>,
    /// The references so far.
    spans: Vec<Span>,
}

impl Visitor for References<'_> {
    type Break = ();

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
        let ctes = query.with.iter().flat_map(|with| &with.cte_tables);
        let mut names = ctes.map(|cte| normal(&cte.alias.name));
        self.hidden.push(names.any(|name| name == self.name));
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _: &Query) -> ControlFlow<()> {
        self.hidden.pop();
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> ControlFlow<()> {
        if let TableFactor::Table { name, .. } = factor
            && let Some(ident) = single(name)
            && normal(ident) == self.name
            && !self.hidden.contains(&true)
        {
            self.spans.push(ident.span);
        }
        ControlFlow::Continue(())
    }
}

/// The order in which the queries of a WITH RECURSIVE can be planned, each after those that it
/// reads; `None` if two of them read each other.
pub(crate) fn ordered(with: &With) -> Option<Vec<usize>> {
    let ctes = &with.cte_tables;
    let reads = |cte: &Cte, other: &Cte| {
        !references(cte.query.as_ref(), &normal(&other.alias.name)).is_empty()
    };
    let mut order: Vec<usize> = Vec::new();
    while order.len() < ctes.len() {
        let placed = |index: &usize| order.contains(index);
        let ready = ctes.iter().enumerate().find(|(index, cte)| {
            let others = ctes.iter().enumerate();
            let mut waits =
                others.filter(|(other, it)| other != index && !placed(other) && reads(cte, it));
            !placed(index) && waits.next().is_none()
        });
        let (index, _) = ready?;
        order.push(index);
    }
    Some(order)
}

/// Marks all recursive queries of a query.
///
/// # Errors
/// `Bug` when the templates do not parse, or when [`crate::refuse`] should have refused the query.
pub(crate) fn marked(query: &mut Query) -> Result<()> {
    match query.visit(&mut Marking { recursions: 0 }) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(error) => Err(error),
    }
}

/// The visitor that marks recursive queries.
struct Marking {
    /// The number of recursive queries so far.
    recursions: usize,
}

impl VisitorMut for Marking {
    type Break = Error;

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<Error> {
        let Some(with) = query.with.as_mut().filter(|with| with.recursive) else {
            return ControlFlow::Continue(());
        };
        match self.with(with) {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => ControlFlow::Break(error),
        }
    }
}

impl Marking {
    /// Marks the recursive queries of a WITH RECURSIVE, which becomes a plain WITH.
    fn with(&mut self, with: &mut With) -> Result<()> {
        let order = ordered(with).ok_or_else(unchecked)?;
        let mut ctes: Vec<Option<Cte>> = mem::take(&mut with.cte_tables)
            .into_iter()
            .map(Some)
            .collect();
        for index in order {
            let Some(mut cte) = ctes.get_mut(index).and_then(Option::take) else {
                continue;
            };
            if !references(cte.query.as_ref(), &normal(&cte.alias.name)).is_empty() {
                self.cte(&mut cte)?;
            }
            with.cte_tables.push(cte);
        }
        with.recursive = false;
        Ok(())
    }

    /// Marks a recursive query.
    fn cte(&mut self, cte: &mut Cte) -> Result<()> {
        self.recursions += 1;
        let (number, name) = (self.recursions, normal(&cte.alias.name));
        let SetExpr::SetOperation {
            op: SetOperator::Union,
            set_quantifier,
            mut left,
            right,
        } = cte.query.body.as_ref().clone()
        else {
            return Err(unchecked());
        };
        let kind = match set_quantifier {
            SetQuantifier::All => ALL,
            _ => DISTINCT,
        };
        let columns = cte.alias.columns.iter().map(|column| column.name.clone());
        name_columns(&mut left, &columns.collect::<Vec<_>>());
        let work_table = Cte {
            query: Box::new(work_table(left.as_ref(), number)?),
            ..cte.clone()
        };
        let mut step = template("WITH t AS (SELECT 1) SELECT 1")?;
        if let Some(with) = &mut step.with {
            with.cte_tables = vec![work_table];
        }
        step.body = right;
        let union = SetExpr::SetOperation {
            op: SetOperator::Union,
            set_quantifier: SetQuantifier::All,
            left,
            right: Box::new(SetExpr::Query(Box::new(step))),
        };
        let mark = format!("{MARK}{RECURSION} {number} {kind} {name}");
        *cte.query.body = derived(union, &mark)?;
        Ok(())
    }
}

/// The error of a query that the checks before planning should have refused.
fn unchecked() -> Error {
    Error::new(Kind::Bug, "a recursive query that was not checked")
}

/// Gives the first columns of a query these names, where it names none of its own. A derived table
/// may not have two columns of one name.
fn name_columns(body: &mut SetExpr, names: &[Ident]) {
    let select = match body {
        SetExpr::SetOperation { left, .. } => return name_columns(left, names),
        SetExpr::Select(select) => select,
        _ => return,
    };
    // A name in GROUP BY or ORDER BY could come to mean the new name.
    if !ungrouped(select) {
        return;
    }
    for (item, name) in select.projection.iter_mut().zip(names) {
        match item {
            SelectItem::UnnamedExpr(expr) => {
                *item = SelectItem::ExprWithAlias {
                    expr: expr.clone(),
                    alias: name.clone(),
                };
            }
            SelectItem::ExprWithAlias { alias, .. } => *alias = name.clone(),
            _ => return,
        }
    }
}

/// Whether no clause of a SELECT can refer to the names of its outputs.
fn ungrouped(select: &Select) -> bool {
    let keys = match &select.group_by {
        GroupByExpr::Expressions(keys, _) => keys.is_empty(),
        GroupByExpr::All(_) => false,
    };
    keys && select.having.is_none() && select.distinct.is_none()
}

/// The query of a work table: all columns of the base, which may be null.
fn work_table(base: &SetExpr, number: usize) -> Result<Query> {
    let sql = "SELECT r.* FROM (SELECT 1 AS one) AS l LEFT JOIN (SELECT 1) AS r ON TRUE";
    let mut query = template(sql)?;
    if let SetExpr::Select(select) = query.body.as_mut() {
        let joins = select.from.iter_mut().flat_map(|from| &mut from.joins);
        for join in joins {
            if let TableFactor::Derived { subquery, .. } = &mut join.relation {
                *subquery.body = base.clone();
            }
        }
    }
    *query.body = derived(*query.body, &format!("{MARK}{WORK_TABLE} {number}"))?;
    Ok(query)
}

/// What an alias marks.
enum Marked {
    /// A recursive query.
    Recursion {
        /// Its number.
        number: usize,
        /// Whether it is a UNION without ALL.
        distinct: bool,
        /// The name of the common table expression.
        name: String,
    },
    /// The work table of the recursive query with this number.
    WorkTable(usize),
}

/// What an alias marks, if it is the mark of a recursive query or of a work table.
fn mark(alias: &SubqueryAlias) -> Option<Marked> {
    let text = alias.alias.table().strip_prefix(MARK)?;
    if let Some(number) = text.strip_prefix(WORK_TABLE) {
        return Some(Marked::WorkTable(number.trim().parse().ok()?));
    }
    let mut words = text.strip_prefix(RECURSION)?.trim().splitn(3, ' ');
    Some(Marked::Recursion {
        number: words.next()?.parse().ok()?,
        distinct: words.next()? == DISTINCT,
        name: words.next()?.to_owned(),
    })
}

/// Whether an alias marks a recursive query.
pub(crate) fn is_recursive(alias: &SubqueryAlias) -> bool {
    matches!(mark(alias), Some(Marked::Recursion { .. }))
}

/// Whether an alias marks a recursive query that compares its rows.
pub(crate) fn is_distinct(alias: &SubqueryAlias) -> bool {
    matches!(mark(alias), Some(Marked::Recursion { distinct: true, .. }))
}

/// Replaces the marked queries of a plan by their nodes.
///
/// # Errors
/// A plan error when a column has another type in the base than in the whole query.
pub(crate) fn resolved(plan: LogicalPlan) -> Planned<LogicalPlan> {
    let resolved = plan.transform_up(|node| {
        let LogicalPlan::SubqueryAlias(mut alias) = node else {
            return Ok(Transformed::no(node));
        };
        let node = match mark(&alias) {
            None => return Ok(Transformed::no(LogicalPlan::SubqueryAlias(alias))),
            Some(Marked::WorkTable(number)) => LogicalPlan::Extension(Extension {
                node: Arc::new(WorkTable {
                    number,
                    schema: Arc::clone(alias.input.schema()),
                }),
            }),
            Some(Marked::Recursion {
                number,
                distinct,
                name,
            }) => {
                let input = Arc::unwrap_or_clone(alias.input);
                let recursion = RecursiveUnion::of(input, number, distinct)?;
                recursion.typed_alike(&name)?;
                LogicalPlan::Extension(Extension {
                    node: Arc::new(recursion),
                })
            }
        };
        alias.input = Arc::new(node);
        Ok(Transformed::yes(LogicalPlan::SubqueryAlias(alias)))
    })?;
    Ok(resolved.data)
}

/// A recursive query.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct RecursiveUnion {
    /// The number of the recursive query.
    number: usize,
    /// Whether it is a UNION without ALL.
    pub(crate) distinct: bool,
    /// The non-recursive term.
    pub(crate) base: LogicalPlan,
    /// The recursive term.
    pub(crate) step: LogicalPlan,
    /// The columns.
    pub(crate) schema: DFSchemaRef,
}

impl RecursiveUnion {
    /// The recursive query that a union of two inputs stands for.
    fn of(plan: LogicalPlan, number: usize, distinct: bool) -> Planned<Self> {
        let LogicalPlan::Union(union) = plan else {
            return internal_err!("`{}` is marked as a recursive query", plan.display());
        };
        let mut inputs = union.inputs.into_iter().map(Arc::unwrap_or_clone);
        match (inputs.next(), inputs.next(), inputs.next()) {
            (Some(base), Some(step), None) => Ok(Self {
                number,
                distinct,
                base,
                step,
                schema: union.schema,
            }),
            _ => internal_err!("a recursive query has two terms"),
        }
    }

    /// Checks that each column has the type of the base, which the recursive term was planned with.
    fn typed_alike(&self, name: &str) -> Planned<()> {
        let mut work_table = None;
        self.step.apply(|node| {
            if let LogicalPlan::Extension(extension) = node
                && let Some(found) = WorkTable::in_node(extension)
                && found.number == self.number
            {
                work_table = Some(Arc::clone(&found.schema));
            }
            Ok(TreeNodeRecursion::Continue)
        })?;
        let Some(work_table) = work_table else {
            return internal_err!("the recursive term of `{name}` reads no work table");
        };
        let columns = work_table.fields().iter().zip(self.schema.fields());
        for (index, (base, whole)) in columns.enumerate() {
            if base.data_type() != whole.data_type() {
                let (base, whole) = (
                    types::name(base.data_type()),
                    types::name(whole.data_type()),
                );
                return plan_err!(
                    "recursive query `{name}`: column {} is {base} in the non-recursive term and \
                     {whole} in all: cast it to one type in both terms",
                    index + 1
                );
            }
        }
        Ok(())
    }

    /// The recursive query that a node is.
    pub(crate) fn in_node(extension: &Extension) -> Option<&Self> {
        extension.node.as_any().downcast_ref()
    }
}

impl PartialOrd for RecursiveUnion {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        let key = |it: &Self| (it.number, it.distinct);
        let terms = || self.base.partial_cmp(&other.base);
        match key(self).cmp(&key(other)) {
            Ordering::Equal => terms().filter(|order| order.is_ne()),
            order => Some(order),
        }
        .or_else(|| self.step.partial_cmp(&other.step))
    }
}

impl UserDefinedLogicalNodeCore for RecursiveUnion {
    fn name(&self) -> &'static str {
        "RecursiveUnion"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        vec![&self.base, &self.step]
    }

    fn schema(&self) -> &DFSchemaRef {
        &self.schema
    }

    fn expressions(&self) -> Vec<Expr> {
        Vec::new()
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RecursiveUnion {}", self.number)
    }

    fn with_exprs_and_inputs(&self, _: Vec<Expr>, inputs: Vec<LogicalPlan>) -> Planned<Self> {
        let mut inputs = inputs.into_iter();
        let (Some(base), Some(step)) = (inputs.next(), inputs.next()) else {
            return internal_err!("a recursive query has two terms");
        };
        Ok(Self {
            base,
            step,
            ..self.clone()
        })
    }
}

/// The work table of a recursive query.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct WorkTable {
    /// The number of the recursive query.
    number: usize,
    /// The columns, which may all be null.
    pub(crate) schema: DFSchemaRef,
}

impl WorkTable {
    /// The work table that a node is.
    pub(crate) fn in_node(extension: &Extension) -> Option<&Self> {
        extension.node.as_any().downcast_ref()
    }
}

impl PartialOrd for WorkTable {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        let order = self.number.cmp(&other.number);
        (order.is_ne() || self == other).then_some(order)
    }
}

impl UserDefinedLogicalNodeCore for WorkTable {
    fn name(&self) -> &'static str {
        "WorkTable"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        Vec::new()
    }

    fn schema(&self) -> &DFSchemaRef {
        &self.schema
    }

    fn expressions(&self) -> Vec<Expr> {
        Vec::new()
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WorkTable {}", self.number)
    }

    fn with_exprs_and_inputs(&self, _: Vec<Expr>, _: Vec<LogicalPlan>) -> Planned<Self> {
        Ok(self.clone())
    }
}
