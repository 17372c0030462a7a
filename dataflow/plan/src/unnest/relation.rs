//! Unnesting of the operators of a query, from the leaves up.
//!
//! Without `outer`, only the subqueries of a node's expressions are replaced. With `outer`, the
//! result has the carried columns first, then the node's own columns, and the node is computed for
//! each value of the domain: groups, partitions and distinct rows get the carried columns as
//! further keys.

use std::sync::Arc;

use datafusion_common::tree_node::{Transformed, TreeNode};
use datafusion_common::{Column, DFSchemaRef, Result, internal_err, not_impl_err};
use datafusion_expr::expr::{BinaryExpr, Sort as SortExpr, WindowFunction};
use datafusion_expr::logical_plan::{
    Aggregate, DistinctOn, FetchType, Filter, Join, Limit, SkipType, Sort, SubqueryAlias, Union,
    Window,
};
use datafusion_expr::utils::split_conjunction_owned;
use datafusion_expr::{
    Distinct, Expr, ExprFunctionExt, ExprSchemable, JoinType, LogicalPlan, Operator,
    WindowFunctionDefinition, WindowUDF, lit, when,
};

use super::condition::{bound, counts};
use super::free::{free, has, nests};
use super::{Outer, Unnesting, columns, joined, named, projected, same};
use crate::catalog::row_number::RowNumber;
use crate::push::filtered;
use crate::rewrite::{recursion, set_operations};

/// The name of the column that numbers the rows for each outer row. No query can use this name.
const NUMBER: &str = "row of outer";

/// The columns of a schema as expressions.
fn all(schema: &DFSchemaRef) -> Vec<Expr> {
    columns(schema).into_iter().map(Expr::Column).collect()
}

/// The expressions that pass on the carried columns; none without `outer`.
fn carried(outer: Option<&Outer>) -> Vec<Expr> {
    outer.map(Outer::carried).unwrap_or_default()
}

impl Unnesting {
    /// Unnests a node and the nodes below it.
    ///
    /// # Errors
    /// A plan error when a subquery stands, or reads outer columns, where that is not supported.
    pub(super) fn node(&self, plan: LogicalPlan, outer: Option<&Outer>) -> Result<LogicalPlan> {
        if let Some(outer) = outer
            && !outer.is_read_by(&plan)?
        {
            let domain = outer.domain.clone();
            let one_row = matches!(&plan, LogicalPlan::EmptyRelation(empty)
                if empty.produce_one_row);
            return match one_row {
                true => Ok(domain),
                false => joined(domain, self.node(plan, None)?, JoinType::Inner, Vec::new()),
            };
        }
        match plan {
            LogicalPlan::Filter(filter) => self.filter(filter, outer),
            LogicalPlan::Projection(projection) => {
                let input = self.node(Arc::unwrap_or_clone(projection.input), outer)?;
                let (input, exprs) = self.attached(input, projection.expr, outer)?;
                projected(input, [carried(outer), exprs].concat())
            }
            LogicalPlan::SubqueryAlias(alias) => self.alias(alias, outer),
            LogicalPlan::Subquery(subquery) => {
                self.node(Arc::unwrap_or_clone(subquery.subquery), outer)
            }
            LogicalPlan::Aggregate(grouping) => self.aggregate(grouping, outer),
            LogicalPlan::Distinct(Distinct::All(input)) => {
                let input = self.node(Arc::unwrap_or_clone(input), outer)?;
                Ok(LogicalPlan::Distinct(Distinct::All(Arc::new(input))))
            }
            LogicalPlan::Distinct(Distinct::On(distinct)) => self.first_of_each(distinct, outer),
            LogicalPlan::Sort(sort) => {
                let input = self.node(Arc::unwrap_or_clone(sort.input), outer)?;
                let own = all(input.schema());
                let (input, expr) = self.ordered(input, sort.expr, outer)?;
                let sort = LogicalPlan::Sort(Sort {
                    expr,
                    input: Arc::new(input),
                    fetch: sort.fetch,
                });
                projected(sort, own)
            }
            LogicalPlan::Limit(limit) => self.limit(limit, outer),
            LogicalPlan::Window(window) => self.window(window, outer),
            LogicalPlan::Union(union) => self.union(union, outer),
            LogicalPlan::Join(join) => self.join(join, outer),
            other => self.plain(other, outer),
        }
    }

    /// Unnests the nodes below a node that has no expressions with subqueries.
    fn plain(&self, plan: LogicalPlan, outer: Option<&Outer>) -> Result<LogicalPlan> {
        let mut nested = outer.is_some();
        for expr in plan.expressions() {
            nested |= nests(&expr)?;
        }
        if nested {
            return not_impl_err!("a subquery here is not supported in views yet");
        }
        let below = plan.map_children(|child| Ok(Transformed::yes(self.node(child, None)?)))?;
        below.data.recompute_schema()
    }

    /// Unnests a filter. Conditions without subqueries are evaluated first.
    fn filter(&self, filter: Filter, outer: Option<&Outer>) -> Result<LogicalPlan> {
        let below = Arc::unwrap_or_clone(filter.input);
        let mut conditions = split_conjunction_owned(filter.predicate);
        let mut input = match outer {
            Some(outer) => match self.without_domain(&below, &mut conditions, outer)? {
                Some(input) => input,
                None => self.node(below, Some(outer))?,
            },
            None => self.node(below, None)?,
        };
        let own = all(input.schema());
        let (mut simple, mut nested) = (Vec::new(), Vec::new());
        for condition in conditions {
            match nests(&condition)? {
                true => nested.push(condition),
                false => simple.push(bound(condition, outer)?),
            }
        }
        input = filtered(input, simple)?;
        if nested.is_empty() {
            return Ok(input);
        }
        let rows = input.clone();
        for condition in nested {
            input = self.kept((input, &rows), condition, outer)?;
        }
        projected(input, own)
    }

    /// The input of a filter whose conditions say which outer row each row belongs to: `u.k = t.k`
    /// for each outer column. Then `u.k` is the carried column, and the domain is not needed. The
    /// conditions that are used up are removed.
    fn without_domain(
        &self,
        input: &LogicalPlan,
        conditions: &mut Vec<Expr>,
        outer: &Outer,
    ) -> Result<Option<LogicalPlan>> {
        if outer.is_read_by(input)? {
            return Ok(None);
        }
        let mut used = Vec::new();
        let mut outputs = Vec::new();
        let mut known = Vec::new();
        for (column, carrier) in &outer.columns {
            let found = conditions
                .iter()
                .enumerate()
                .find_map(|(index, condition)| {
                    Some((index, own_side(condition, column, input.schema())?))
                });
            let Some((index, own)) = found else {
                return Ok(None);
            };
            let kinds = (
                own.get_type(input.schema())?,
                Expr::Column(carrier.clone()).get_type(outer.domain.schema())?,
            );
            if kinds.0 != kinds.1 {
                return Ok(None);
            }
            used.push(index);
            known.push(own.clone().is_not_null());
            outputs.push(named(own, carrier));
        }
        let mut index = 0;
        conditions.retain(|_| {
            index += 1;
            !used.contains(&(index - 1))
        });
        let input = filtered(self.node(input.clone(), None)?, known)?;
        let own = all(input.schema());
        projected(input, [outputs, own].concat()).map(Some)
    }

    /// Unnests an alias, which gives the node's own columns another qualifier.
    fn alias(&self, alias: SubqueryAlias, outer: Option<&Outer>) -> Result<LogicalPlan> {
        let below = columns(alias.input.schema());
        if outer.is_some() && set_operations::kind(&alias).is_some() {
            return self.set_operation(alias, outer);
        }
        if outer.is_some() && recursion::is_recursive(&alias) {
            return not_impl_err!(
                "WITH RECURSIVE that reads columns of the query around it is not supported in \
                 views yet"
            );
        }
        let input = self.node(Arc::unwrap_or_clone(alias.input), outer)?;
        if outer.is_none() {
            let alias = SubqueryAlias::try_new(Arc::new(input), alias.alias)?;
            return Ok(LogicalPlan::SubqueryAlias(alias));
        }
        let outputs = below.into_iter().zip(columns(&alias.schema));
        let outputs = outputs.map(|(below, column)| named(Expr::Column(below), &column));
        projected(input, [carried(outer), outputs.collect()].concat())
    }

    /// Unnests a GROUP BY. Without group keys, each outer row has a group, also if no row is in it.
    fn aggregate(&self, grouping: Aggregate, outer: Option<&Outer>) -> Result<LogicalPlan> {
        let fills = outer.is_some_and(|outer| outer.fills.replace(true));
        let scalar = grouping.group_expr.is_empty() && fills;
        let sets = |expr: &Expr| matches!(expr, Expr::GroupingSet(_));
        if outer.is_some() && grouping.group_expr.iter().any(sets) {
            return not_impl_err!("GROUPING SETS in a correlated subquery are not supported");
        }
        let input = self.node(Arc::unwrap_or_clone(grouping.input), outer)?;
        let (input, keys) = self.attached(input, grouping.group_expr, outer)?;
        let (input, calls) = self.attached(input, grouping.aggr_expr, outer)?;
        let keys = [carried(outer), keys].concat();
        let grouped = Aggregate::try_new(Arc::new(input), keys, calls)?;
        let grouped = LogicalPlan::Aggregate(grouped);
        match outer {
            Some(outer) if scalar => self.with_empty_groups(grouped, outer),
            _ => Ok(grouped),
        }
    }

    /// Adds the groups of outer rows without rows: their counts are 0, their other values null.
    fn with_empty_groups(&self, grouped: LogicalPlan, outer: &Outer) -> Result<LogicalPlan> {
        let LogicalPlan::Aggregate(grouping) = &grouped else {
            return Ok(grouped);
        };
        let counts: Vec<bool> = grouping.aggr_expr.iter().map(counts).collect();
        let number = self.number();
        let qualifier = datafusion_common::TableReference::bare(format!("groups {number}"));
        let own = columns(grouped.schema());
        let inner = |index: usize| Column::new(Some(qualifier.clone()), format!("g{index}"));
        let renamed = own.iter().enumerate();
        let renamed = renamed.map(|(at, it)| named(Expr::Column(it.clone()), &inner(at)));
        let renamed = renamed.collect();
        let groups = projected(grouped.clone(), renamed)?;
        let keys = outer.columns.len();
        let on = outer.carried().into_iter().enumerate();
        let on = on.map(|(at, it)| same(it, Expr::Column(inner(at))));
        let all = joined(outer.domain.clone(), groups, JoinType::Left, on.collect())?;
        let mut outputs = outer.carried();
        for (index, column) in own.iter().enumerate().skip(keys) {
            let value = Expr::Column(inner(index));
            let value = match counts.get(index - keys) {
                Some(true) => when(value.clone().is_null(), lit(0_i64)).otherwise(value)?,
                _ => value,
            };
            outputs.push(named(value, column));
        }
        projected(all, outputs)
    }

    /// Unnests a DISTINCT ON.
    fn first_of_each(&self, distinct: DistinctOn, outer: Option<&Outer>) -> Result<LogicalPlan> {
        let input = self.node(Arc::unwrap_or_clone(distinct.input), outer)?;
        let (input, on) = self.attached(input, distinct.on_expr, outer)?;
        let (input, select) = self.attached(input, distinct.select_expr, outer)?;
        let (input, order) = match distinct.sort_expr {
            Some(order) => {
                let (input, order) = self.ordered(input, order, outer)?;
                (input, Some(order))
            }
            None => (input, None),
        };
        let on = [carried(outer), on].concat();
        let select = [carried(outer), select].concat();
        let first = carried(outer).into_iter().map(|it| it.sort(true, false));
        let order = order.map(|order| first.chain(order).collect());
        let distinct = DistinctOn::try_new(on, select, order, Arc::new(input))?;
        Ok(LogicalPlan::Distinct(Distinct::On(distinct)))
    }

    /// Binds the expressions of an ORDER BY.
    fn ordered(
        &self,
        input: LogicalPlan,
        order: Vec<SortExpr>,
        outer: Option<&Outer>,
    ) -> Result<(LogicalPlan, Vec<SortExpr>)> {
        let exprs = order.iter().map(|by| by.expr.clone()).collect();
        let (input, exprs) = self.attached(input, exprs, outer)?;
        let order = order.into_iter().zip(exprs);
        let order = order.map(|(by, expr)| by.with_expr(expr.unalias()));
        Ok((input, order.collect()))
    }

    /// Unnests a LIMIT. For each outer row, its rows are numbered and filtered.
    fn limit(&self, limit: Limit, outer: Option<&Outer>) -> Result<LogicalPlan> {
        let Some(outer) = outer else {
            return self.plain(LogicalPlan::Limit(limit), None);
        };
        let (SkipType::Literal(skip), FetchType::Literal(fetch)) =
            (limit.get_skip_type()?, limit.get_fetch_type()?)
        else {
            return not_impl_err!("LIMIT and OFFSET take numbers in views");
        };
        let below = Arc::unwrap_or_clone(limit.input);
        self.first_rows(below, (skip, fetch), outer)
    }

    /// The first rows for each outer row. A projection between the limit and its order is computed
    /// above both.
    fn first_rows(
        &self,
        plan: LogicalPlan,
        (skip, fetch): (usize, Option<usize>),
        outer: &Outer,
    ) -> Result<LogicalPlan> {
        if let LogicalPlan::Projection(projection) = plan {
            let below = Arc::unwrap_or_clone(projection.input);
            let input = self.first_rows(below, (skip, fetch), outer)?;
            let (input, exprs) = self.attached(input, projection.expr, Some(outer))?;
            return projected(input, [outer.carried(), exprs].concat());
        }
        let (input, order) = match plan {
            LogicalPlan::Sort(sort) => (Arc::unwrap_or_clone(sort.input), sort.expr),
            other => (other, Vec::new()),
        };
        let input = self.node(input, Some(outer))?;
        let own = all(input.schema());
        let (input, order) = self.ordered(input, order, Some(outer))?;
        let numbering = WindowUDF::from(RowNumber::new());
        let numbering = WindowFunctionDefinition::WindowUDF(Arc::new(numbering));
        let number = Expr::from(WindowFunction::new(numbering, Vec::new()))
            .partition_by(outer.carried())
            .order_by(order)
            .build()?
            .alias(NUMBER);
        let window = Window::try_new(vec![number], Arc::new(input))?;
        let number = Expr::Column(Column::from_name(NUMBER));
        let mut conditions = vec![number.clone().gt(lit(skip as i64))];
        conditions.extend(fetch.map(|fetch| number.lt_eq(lit((skip + fetch) as i64))));
        projected(filtered(LogicalPlan::Window(window), conditions)?, own)
    }

    /// Unnests window functions, whose partitions become those of each outer row.
    fn window(&self, window: Window, outer: Option<&Outer>) -> Result<LogicalPlan> {
        let input = self.node(Arc::unwrap_or_clone(window.input), outer)?;
        let own = all(input.schema());
        let (input, exprs) = self.attached(input, window.window_expr, outer)?;
        let partitioned = exprs.into_iter().map(|expr| {
            let partitioned = expr.transform_up(|expr| match expr {
                Expr::WindowFunction(mut call) => {
                    call.params.partition_by.splice(0..0, carried(outer));
                    Ok(Transformed::yes(Expr::WindowFunction(call)))
                }
                other => Ok(Transformed::no(other)),
            });
            partitioned.map(|partitioned| partitioned.data)
        });
        let exprs: Vec<Expr> = partitioned.collect::<Result<_>>()?;
        let mut names = columns(&window.schema);
        let first = names.len() - exprs.len();
        let names = names.split_off(first);
        let exprs = exprs.into_iter().zip(&names);
        let exprs = exprs
            .map(|(expr, name)| named(expr.unalias(), name))
            .collect();
        let window = Window::try_new(exprs, Arc::new(input))?;
        let names = names.into_iter().map(Expr::Column);
        let outputs = own.into_iter().chain(names).collect();
        projected(LogicalPlan::Window(window), outputs)
    }

    /// Unnests a UNION ALL.
    fn union(&self, union: Union, outer: Option<&Outer>) -> Result<LogicalPlan> {
        let names = columns(&union.schema);
        let all = LogicalPlan::Union(self.inputs(union, outer)?);
        match outer {
            Some(outer) => renamed(all, names, outer),
            None => Ok(all),
        }
    }

    /// Unnests the inputs of a union, whose first columns are then the carried ones.
    fn inputs(&self, union: Union, outer: Option<&Outer>) -> Result<Union> {
        let mut inputs = Vec::new();
        for input in union.inputs {
            inputs.push(Arc::new(self.node(Arc::unwrap_or_clone(input), outer)?));
        }
        Union::try_new_with_loose_types(inputs)
    }

    /// Unnests an INTERSECT or EXCEPT, which compares the carried columns too. The alias of its
    /// union says which operation it is, so it stays.
    fn set_operation(&self, alias: SubqueryAlias, outer: Option<&Outer>) -> Result<LogicalPlan> {
        let names = columns(&alias.schema);
        let (LogicalPlan::Union(union), Some(outer)) = (Arc::unwrap_or_clone(alias.input), outer)
        else {
            return internal_err!("a set operation is no union of its inputs");
        };
        let union = LogicalPlan::Union(self.inputs(union, Some(outer))?);
        let marked = SubqueryAlias::try_new(Arc::new(union), alias.alias)?;
        renamed(LogicalPlan::SubqueryAlias(marked), names, outer)
    }

    /// Unnests a join: LATERAL on its right side, and subqueries in the condition of an inner join.
    fn join(&self, mut join: Join, outer: Option<&Outer>) -> Result<LogicalPlan> {
        let mut nested = false;
        for expr in join.filter.iter() {
            nested |= nests(expr)?;
        }
        if nested {
            if join.join_type != JoinType::Inner {
                return not_impl_err!(
                    "a subquery in the condition of an outer join is not supported in views yet"
                );
            }
            let condition = join.filter.take();
            let input = Arc::new(LogicalPlan::Join(join));
            let conditions = condition.map(|condition| Filter::try_new(condition, input));
            return match conditions.transpose()? {
                Some(filter) => self.filter(filter, outer),
                None => not_impl_err!("a join has no condition"),
            };
        }
        let left = join.left.as_ref().clone();
        let right = join.right.as_ref().clone();
        let lateral = free(&right)?;
        if lateral.iter().any(|column| has(left.schema(), column)) {
            return self.lateral(join, outer);
        }
        self.both(join, (left, right), outer)
    }

    /// Unnests a join whose right side reads columns of its left side.
    fn lateral(&self, join: Join, outer: Option<&Outer>) -> Result<LogicalPlan> {
        if !matches!(join.join_type, JoinType::Inner | JoinType::Left) {
            return not_impl_err!("LATERAL in this kind of join is not supported");
        }
        let left = self.node(Arc::unwrap_or_clone(join.left), outer)?;
        let own = columns(join.right.schema());
        let computed = self.computed(&left, &join.right, outer, true)?;
        let mut on = computed.conditions();
        if let Some(condition) = join.filter {
            on.push(bound(condition, outer)?);
        }
        on.extend(join.on.into_iter().map(|(one, other)| one.eq(other)));
        let outputs = [
            all(left.schema()),
            own.into_iter().map(Expr::Column).collect(),
        ]
        .concat();
        projected(joined(left, computed.plan, join.join_type, on)?, outputs)
    }

    /// Unnests both sides of a join. Sides that both carry the outer columns are joined on them.
    fn both(
        &self,
        join: Join,
        (left, right): (LogicalPlan, LogicalPlan),
        outer: Option<&Outer>,
    ) -> Result<LogicalPlan> {
        let Some(outer) = outer else {
            let (left, right) = (self.node(left, None)?, self.node(right, None)?);
            let (left, right) = (Arc::new(left), Arc::new(right));
            return LogicalPlan::Join(Join {
                left,
                right,
                ..join
            })
            .recompute_schema();
        };
        let reads = (outer.is_read_by(&left)?, outer.is_read_by(&right)?);
        let own = [columns(left.schema()), columns(right.schema())].concat();
        let own = match join.join_type {
            JoinType::LeftSemi | JoinType::LeftAnti => columns(left.schema()),
            _ => own,
        };
        // The side whose rows are all in the result must carry the outer columns.
        let (one_left, one_right) = match join.join_type {
            JoinType::Inner => (!reads.1 || reads.0, reads.1),
            JoinType::Right => (reads.0, true),
            JoinType::Full => (true, true),
            _ => (true, reads.1),
        };
        let mut on = Vec::new();
        let left = self.node(left, one_left.then_some(outer))?;
        let right = match one_left && one_right {
            false => self.node(right, one_right.then_some(outer))?,
            true => {
                let (right, equal) = self.other(right, outer)?;
                on.extend(equal);
                right
            }
        };
        on.extend(join.on.into_iter().map(|(one, other)| one.eq(other)));
        on.extend(join.filter.map(|it| bound(it, Some(outer))).transpose()?);
        let carried = match (one_left && one_right, join.join_type) {
            (true, JoinType::Right | JoinType::Full) => {
                return not_impl_err!(
                    "a RIGHT or FULL JOIN that reads outer columns is not supported in views yet"
                );
            }
            _ => outer.carried(),
        };
        let joined = joined(left, right, join.join_type, on)?;
        let own = own.into_iter().map(Expr::Column).collect();
        projected(joined, [carried, own].concat())
    }

    /// The second side of a join that carries the outer columns, under other names, and the
    /// conditions that they are the same as those of the first side.
    fn other(&self, side: LogicalPlan, outer: &Outer) -> Result<(LogicalPlan, Vec<Expr>)> {
        let own = columns(side.schema());
        let side = self.node(side, Some(outer))?;
        let number = self.number();
        let qualifier = datafusion_common::TableReference::bare(format!("outer {number}"));
        let (mut outputs, mut equal) = (Vec::new(), Vec::new());
        for (_, carrier) in &outer.columns {
            let other = Column::new(Some(qualifier.clone()), carrier.name.clone());
            equal.push(same(
                Expr::Column(carrier.clone()),
                Expr::Column(other.clone()),
            ));
            outputs.push(named(Expr::Column(carrier.clone()), &other));
        }
        outputs.extend(own.into_iter().map(Expr::Column));
        Ok((projected(side, outputs)?, equal))
    }
}

/// A plan whose first columns are the carried ones, with the names of these and of its own columns.
fn renamed(plan: LogicalPlan, own: Vec<Column>, outer: &Outer) -> Result<LogicalPlan> {
    let carriers = outer.columns.iter().map(|(_, carrier)| carrier.clone());
    let outputs = columns(plan.schema()).into_iter().zip(carriers.chain(own));
    let outputs = outputs.map(|(column, name)| named(Expr::Column(column), &name));
    let outputs = outputs.collect();
    projected(plan, outputs)
}

/// The side of `own = outer` that is a column of `schema`, if the condition is such an equality.
fn own_side(condition: &Expr, outer: &Column, schema: &DFSchemaRef) -> Option<Expr> {
    let Expr::BinaryExpr(BinaryExpr {
        left,
        op: Operator::Eq,
        right,
    }) = condition
    else {
        return None;
    };
    let is_outer = |expr: &Expr| matches!(expr, Expr::OuterReferenceColumn(_, it) if it == outer);
    let own = match (left.as_ref(), right.as_ref()) {
        (own, other) if is_outer(other) => own,
        (other, own) if is_outer(other) => own,
        _ => return None,
    };
    match own {
        Expr::Column(column) if has(schema, column) => Some(own.clone()),
        _ => None,
    }
}
