//! Lowering: from an optimised logical plan to the IR.
//!
//! Stateless steps (projections, filters, aliases) are not lowered one by one. They are collected
//! in a [`Pending`], and become one `Compute` when a stateful node, a union or the end of the view
//! needs their rows. A step is not merged if that would evaluate an expression twice.
//!
//! ```text
//! Aggregate
//!   Filter c > 1                    Reduce
//!     Projection a + b AS c   ─►      Compute filter: a + b > 1, outputs: a + b
//!       TableScan t                     Source t
//! ```
//!
//! Invariants:
//! 1. Field names within a node are unique.
//! 2. Expressions are bound to the fields of their input by position.
//! 3. A `Source` is read only through a `Compute` or a `Reduce`, which name the columns that they
//!    use. Therefore the tree of a view does not depend on what other views read.

pub(crate) mod join;
pub(crate) mod recursion;
pub(crate) mod set_op;
pub(crate) mod temporal;
pub(crate) mod text;
pub(crate) mod top_k;
pub(crate) mod values;
pub(crate) mod window;

use std::collections::HashSet;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion_common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion_common::{
    Column, DFSchema, DFSchemaRef, Result, ScalarValue, internal_err, not_impl_err,
};
use datafusion_expr::execution_props::ExecutionProps;
use datafusion_expr::expr::AggregateFunction as Call;
use datafusion_expr::logical_plan::{Aggregate as Grouping, TableScan};
use datafusion_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion_expr::utils::split_conjunction;
use datafusion_expr::{Distinct, Expr, LogicalPlan};
use datafusion_physical_expr::expressions::BinaryExpr;
use datafusion_physical_expr::{PhysicalExpr, create_physical_expr};
use text::text;
use tidemill_ir::{Aggregate, AggregateFunction, OrderBy, Rel, RelOp, Scalar, Source, View};

use super::catalog;
use super::catalog::{Relation, Scanned, now};
use super::push::position;

/// What the scans of a plan refer to.
pub(super) struct Inputs<'a> {
    /// The IR source of each table in the catalog; `None` for tables that no view reads.
    pub(super) source_of: &'a [Option<usize>],
    /// The sources of the job.
    pub(super) sources: &'a [Source],
    /// The views that are lowered already.
    pub(super) views: &'a [View],
}

/// A `Compute` under construction: the rows of `base` for which all `filters` hold, as `outputs`.
#[derive(Clone)]
pub(super) struct Pending {
    /// The node below.
    pub(super) base: Rel,
    /// Conditions over the fields of `base`.
    pub(super) filters: Vec<Expr>,
    /// Expressions over the fields of `base`, one for each field of `scope`.
    pub(super) outputs: Vec<Expr>,
    /// The names that the plan above uses for the outputs.
    pub(super) scope: DFSchemaRef,
}

/// Lowers a whole view. The columns are those of the plan's schema.
///
/// # Errors
/// A plan error when the plan contains a node or an expression that the IR cannot represent.
pub(super) fn lower(plan: &LogicalPlan, inputs: &Inputs<'_>) -> Result<Rel> {
    let pending = inputs.lower(plan)?;
    let names = field_names(&pending.scope);
    let rel = pending.finish()?;
    let fields = rel.schema.fields().iter().zip(names);
    let fields: Vec<Field> = fields
        .map(|(field, name)| field.as_ref().clone().with_name(name))
        .collect();
    renamed(rel, &Arc::new(Schema::new(fields)))
}

impl Inputs<'_> {
    /// Lowers a node, and the nodes below it first.
    ///
    /// # Errors
    /// When the plan has a node or an expression that the IR cannot represent.
    pub(super) fn lower(&self, plan: &LogicalPlan) -> Result<Pending> {
        match plan {
            LogicalPlan::TableScan(scan) => self.scan(scan),
            LogicalPlan::SubqueryAlias(alias) => {
                let pending = self.lower(&alias.input)?;
                let scope = Arc::clone(&alias.schema);
                Ok(Pending { scope, ..pending })
            }
            LogicalPlan::Projection(projection) => {
                let input = self.lower(&projection.input)?;
                input.projected(&projection.expr, &projection.schema)
            }
            LogicalPlan::Filter(filter) => self.lower(&filter.input)?.filtered(&filter.predicate),
            LogicalPlan::Aggregate(grouping) => self.aggregate(grouping),
            LogicalPlan::Distinct(Distinct::All(input)) => {
                let pending = self.lower(input)?;
                let scope = Arc::clone(&pending.scope);
                Ok(Pending::of(distinct(pending.finish()?), scope))
            }
            LogicalPlan::Union(union) => self.union(union),
            LogicalPlan::Extension(extension) => self.extension(extension),
            LogicalPlan::EmptyRelation(none) => values::constant(none),
            LogicalPlan::Join(join) => self.join(join),
            // An order without a limit has no meaning: a view is a set of rows.
            LogicalPlan::Sort(sort) if sort.fetch.is_none() => self.lower(&sort.input),
            LogicalPlan::Limit(limit) => self.limit(limit),
            LogicalPlan::Window(window) => self.window(window),
            other => not_impl_err!("`{}` is not supported in views yet", other.display()),
        }
    }

    /// Lowers the scan of a table or a view.
    ///
    /// The outputs are the columns that the scan's projection names, in that order.
    ///
    /// # Errors
    /// An internal error for a filter or a limit inside the scan: no rule of the optimizer puts one
    /// there.
    fn scan(&self, scan: &TableScan) -> Result<Pending> {
        let Some(scanned) = scan.source.downcast_ref::<Scanned>() else {
            return internal_err!("`{}` is no relation of this file", scan.table_name);
        };
        if !scan.filters.is_empty() || scan.fetch.is_some() {
            return internal_err!("a filter or limit inside the scan of `{}`", scan.table_name);
        }
        let rel = match scanned.relation {
            Relation::Table(table) => {
                let source = self.source_of.get(table).copied().flatten();
                source.and_then(|source| {
                    Some(Rel {
                        schema: Arc::clone(&self.sources.get(source)?.schema),
                        op: RelOp::Source { source },
                    })
                })
            }
            Relation::View(view) => self.views.get(view).map(|read| Rel {
                schema: Arc::clone(&read.rel.schema),
                op: RelOp::View { view },
            }),
        };
        let Some(base) = rel else {
            return internal_err!("`{}` is not planned yet", scan.table_name);
        };
        let scope = Arc::clone(&scan.projected_schema);
        let outputs = scope.fields().iter().map(|field| column(field)).collect();
        Ok(Pending {
            base,
            filters: Vec::new(),
            outputs,
            scope,
        })
    }

    /// Lowers a GROUP BY; without aggregates it is a `Distinct`.
    ///
    /// The filters below become a `Compute` of their own, because a `Reduce` has none.
    ///
    /// # Errors
    /// A plan error for an aggregate that the renderer does not have, or for a type that it cannot
    /// add up.
    fn aggregate(&self, grouping: &Grouping) -> Result<Pending> {
        let scope = Arc::clone(&grouping.schema);
        let mut pending = self.lower(&grouping.input)?;
        if !pending.filters.is_empty() || pending.number().is_some() {
            pending = pending.materialised()?;
        }
        let all = [grouping.group_expr.as_slice(), &grouping.aggr_expr].concat();
        let pending = pending.ready(&all)?;
        let keys = grouping.group_expr.iter().map(|expr| pending.bind(expr));
        let keys = keys.collect::<Result<Vec<_>>>()?;
        if grouping.aggr_expr.is_empty() && !keys.is_empty() {
            let rel = Pending {
                outputs: keys,
                scope: Arc::clone(&scope),
                ..pending
            };
            return Ok(Pending::of(distinct(rel.finish()?), scope));
        }
        let mut aggregates = Vec::new();
        let mut fields = Vec::new();
        for key in &keys {
            fields.push(pending.field(key, text(key))?);
        }
        for (index, expr) in grouping.aggr_expr.iter().enumerate() {
            let aggregate = pending.call(expr)?;
            let kind = scope.field(keys.len() + index).data_type().clone();
            summable(aggregate.function, &kind)?;
            let nullable = !aggregate.function.is_count();
            fields.push(Field::new(aggregate.to_string(), kind, nullable));
            aggregates.push(aggregate);
        }
        let keys = keys.iter().map(|key| pending.scalar(key));
        let rel = Rel {
            schema: Arc::new(Schema::new(distinctly_named(fields))),
            op: RelOp::Reduce {
                keys: keys.collect::<Result<_>>()?,
                aggregates,
                input: Box::new(pending.base),
            },
        };
        Ok(Pending::of(rel, scope))
    }
}

impl Pending {
    /// All rows and columns of a node.
    pub(super) fn of(base: Rel, scope: DFSchemaRef) -> Self {
        let outputs = base.schema.fields().iter().map(|field| column(field));
        Self {
            outputs: outputs.collect(),
            filters: Vec::new(),
            base,
            scope,
        }
    }

    /// The schema of `base` in DataFusion's form.
    pub(super) fn df(&self) -> Result<DFSchema> {
        DFSchema::try_from(self.base.schema.as_ref().clone())
    }

    /// Applies a projection.
    ///
    /// # Errors
    /// When an expression cannot be represented.
    pub(super) fn projected(self, exprs: &[Expr], scope: &DFSchemaRef) -> Result<Self> {
        let ready = self.ready(exprs)?;
        let outputs = exprs.iter().map(|expr| ready.bind(expr));
        Ok(Self {
            outputs: outputs.collect::<Result<_>>()?,
            scope: Arc::clone(scope),
            ..ready
        })
    }

    /// Applies a filter.
    ///
    /// # Errors
    /// When the condition cannot be represented.
    pub(super) fn filtered(mut self, predicate: &Expr) -> Result<Self> {
        let always = Expr::Literal(ScalarValue::Boolean(Some(true)), None);
        let (temporal, plain): (Vec<&Expr>, Vec<&Expr>) = split_conjunction(predicate)
            .into_iter()
            .partition(|conjunct| now::mentions(conjunct));
        let mut others = Vec::new();
        for conjunct in plain {
            let bound = self.bind(conjunct)?;
            if bound != always && !self.takes(&bound) {
                others.push(conjunct);
            }
        }
        for conjunct in &others {
            self = self.plain(conjunct)?;
        }
        for conjunct in others {
            let bound = self.bind(conjunct)?;
            if !self.filters.contains(&bound) {
                self.filters.push(bound);
            }
        }
        match temporal.as_slice() {
            [] => Ok(self),
            temporal => temporal::filtered(self, temporal),
        }
    }

    /// Rewrites an expression of the plan above to one over the fields of `base`.
    ///
    /// # Errors
    /// When a column of the expression does not exist.
    pub(super) fn bind(&self, expr: &Expr) -> Result<Expr> {
        let bound = expr.clone().transform_down(|expr| match expr {
            Expr::Column(column) => {
                let index = self.index(&column)?;
                match self.outputs.get(index) {
                    Some(output) => Ok(Transformed::new(
                        output.clone(),
                        true,
                        TreeNodeRecursion::Jump,
                    )),
                    None => internal_err!("column `{column}` has no output"),
                }
            }
            other => Ok(Transformed::no(other)),
        })?;
        Ok(bound.data.unalias_nested().data)
    }

    /// Returns itself, or the materialised node if `exprs` would evaluate one of its outputs twice.
    fn ready(self, exprs: &[Expr]) -> Result<Self> {
        let mut seen = HashSet::new();
        let mut again = false;
        for expr in exprs {
            expr.apply(|expr| {
                if let Expr::Column(column) = expr {
                    let index = self.index(column)?;
                    again |= self.computed(index) && !seen.insert(index);
                }
                Ok(TreeNodeRecursion::Continue)
            })?;
        }
        if again { self.materialised() } else { Ok(self) }
    }

    /// Returns itself, or the materialised node if `predicate` reads a computed output. The output
    /// stays, so it would be evaluated twice.
    fn plain(self, predicate: &Expr) -> Result<Self> {
        let columns = predicate.column_refs();
        for column in columns {
            if self.computed(self.index(column)?) {
                return self.materialised();
            }
        }
        Ok(self)
    }

    /// The index of the output that a column of the plan above refers to.
    fn index(&self, column: &Column) -> Result<usize> {
        match position(&self.scope, column) {
            Some(index) => Ok(index),
            None => self.scope.index_of_column(column),
        }
    }

    /// Whether an output is more than a column or a literal.
    fn computed(&self, output: usize) -> bool {
        let simple = |expr: &Expr| matches!(expr, Expr::Column(_) | Expr::Literal(..));
        self.outputs.get(output).is_some_and(|expr| !simple(expr))
    }

    /// The node with these rows, as the base of a new [`Pending`].
    ///
    /// # Errors
    /// When the outputs have no type over the node below.
    pub(super) fn materialised(self) -> Result<Self> {
        let scope = Arc::clone(&self.scope);
        Ok(Self::of(self.finish()?, scope))
    }

    /// The node with these rows: a `Compute`, or `base` itself if nothing is left to do.
    ///
    /// A [`RelOp::Source`] always gets a `Compute`, which names the columns that the view reads.
    pub(super) fn finish(self) -> Result<Rel> {
        let this = self.settled();
        let base = this.base.schema.fields();
        let whole = this.outputs.len() == base.len()
            && this
                .outputs
                .iter()
                .zip(base)
                .all(|(output, field)| *output == column(field));
        if whole && this.filters.is_empty() && !matches!(this.base.op, RelOp::Source { .. }) {
            return Ok(this.base);
        }
        let fields = this.outputs.iter().zip(window::names(&this));
        let fields = fields.map(|(expr, name)| this.field(expr, name));
        let fields = fields.collect::<Result<Vec<_>>>()?;
        if let Some(rel) = values::evaluated(&this, &fields)? {
            return Ok(rel);
        }
        let filters = this.filters.iter().map(|expr| this.scalar(expr));
        let outputs = this.outputs.iter().map(|expr| this.scalar(expr));
        Ok(Rel {
            schema: Arc::new(Schema::new(fields)),
            op: RelOp::Compute {
                filters: filters.collect::<Result<_>>()?,
                outputs: outputs.collect::<Result<_>>()?,
                input: Box::new(this.base),
            },
        })
    }

    /// The field of a bound expression. Only columns keep the fact that they are never null;
    /// functions are not trusted with it.
    fn field(&self, expr: &Expr, name: String) -> Result<Field> {
        let kind = self.scalar(expr)?.expr.data_type(&self.base.schema)?;
        let nullable = match expr {
            Expr::Column(column) => self
                .base
                .schema
                .field_with_name(&column.name)?
                .is_nullable(),
            _ => true,
        };
        Ok(Field::new(name, kind, nullable))
    }

    /// The evaluable form of a bound expression, with its text.
    ///
    /// # Errors
    /// When the expression cannot be represented.
    pub(super) fn scalar(&self, expr: &Expr) -> Result<Scalar> {
        if now::mentions(expr) {
            return not_impl_err!("{}", now::PLACES);
        }
        Ok(Scalar {
            expr: physical(expr, &self.df()?)?,
            text: text(expr),
        })
    }

    /// Lowers the call of an aggregate.
    ///
    /// `count(1)` counts rows, as `count(*)` does. DISTINCT is dropped for aggregates that
    /// repetition does not change.
    fn call(&self, expr: &Expr) -> Result<Aggregate> {
        let bound = self.bind(expr)?;
        let Expr::AggregateFunction(Call { func, params }) = &bound else {
            return internal_err!("`{expr}` is no aggregate");
        };
        let Some(function) = catalog::aggregate(func.name()) else {
            return not_impl_err!("aggregate `{}` is not supported in views yet", func.name());
        };
        let arguments = match params.args.as_slice() {
            [Expr::Literal(value, _)]
                if function == AggregateFunction::Count && !params.distinct && !value.is_null() =>
            {
                Vec::new()
            }
            args => args
                .iter()
                .map(|arg| self.scalar(arg))
                .collect::<Result<_>>()?,
        };
        if arguments.len() > function.arity() + usize::from(function.is_ordered_set()) {
            return not_impl_err!("`{}` of several arguments is not supported", func.name());
        }
        let order = params.order_by.iter().map(|by| {
            Ok(OrderBy {
                scalar: self.scalar(&by.expr)?,
                descending: !by.asc,
                nulls_first: by.nulls_first,
            })
        });
        let filter = params.filter.as_deref().map(|filter| self.scalar(filter));
        Ok(Aggregate {
            function,
            arguments,
            order: order.collect::<Result<_>>()?,
            filter: filter.transpose()?,
            distinct: params.distinct && !function.is_idempotent(),
        })
    }
}

/// The physical expression that evaluates an expression over columns of `schema`.
///
/// # Errors
/// DataFusion has no evaluation for the expression.
pub(super) fn physical(expr: &Expr, schema: &DFSchema) -> Result<Arc<dyn PhysicalExpr>> {
    checked(create_physical_expr(
        expr,
        schema,
        &ExecutionProps::new(),
        &PhysicalPlanningContext::default(),
    )?)
}

/// Makes integer arithmetic fail on overflow. The library's default wraps around.
fn checked(expr: Arc<dyn PhysicalExpr>) -> Result<Arc<dyn PhysicalExpr>> {
    let checked = expr.transform_up(|expr| {
        let binary = expr.downcast_ref::<BinaryExpr>();
        Ok(
            match binary.map(|binary| binary.clone().with_fail_on_overflow(true)) {
                Some(binary) => Transformed::yes(Arc::new(binary) as Arc<dyn PhysicalExpr>),
                None => Transformed::no(expr),
            },
        )
    })?;
    Ok(checked.data)
}

/// The expression that reads a field.
fn column(field: &Field) -> Expr {
    Expr::Column(Column::from_name(field.name()))
}

/// A `Distinct` over all columns.
fn distinct(input: Rel) -> Rel {
    Rel {
        schema: Arc::clone(&input.schema),
        op: RelOp::Distinct {
            input: Box::new(input),
        },
    }
}

/// Refuses sums and averages of types that the renderer cannot add exactly.
///
/// # Errors
/// A plan error that names the type.
fn summable(function: AggregateFunction, result: &DataType) -> Result<()> {
    let adds = matches!(function, AggregateFunction::Sum | AggregateFunction::Avg);
    let known = matches!(
        result,
        DataType::Int64 | DataType::Float32 | DataType::Float64 | DataType::Decimal128(..)
    );
    if adds && !known {
        return not_impl_err!("sum and avg of {result} are not supported in views yet");
    }
    Ok(())
}

/// Distinct names for the fields of a schema.
fn field_names(scope: &DFSchema) -> Vec<String> {
    let fields = scope.fields().iter();
    let fields = fields.map(|field| field.as_ref().clone()).collect();
    let named = distinctly_named(fields).into_iter();
    named.map(|field| field.name().clone()).collect()
}

/// Appends a number to names that occur again.
///
/// A second `n` becomes `n_2`. The number grows until the name is free.
pub(super) fn distinctly_named(fields: Vec<Field>) -> Vec<Field> {
    let mut taken = HashSet::new();
    let mut named = Vec::with_capacity(fields.len());
    for field in fields {
        let mut name = field.name().clone();
        let mut number = 1;
        while !taken.insert(name.clone()) {
            number += 1;
            name = format!("{}_{number}", field.name());
        }
        named.push(field.with_name(name));
    }
    named
}

/// The same rows with the names and nullability of `schema`, whose types must be equal already.
///
/// Operators that pass rows on (DISTINCT, UNION) are renamed down to a node that names its columns.
pub(super) fn renamed(rel: Rel, schema: &SchemaRef) -> Result<Rel> {
    if rel.schema == *schema {
        return Ok(rel);
    }
    let schema_of = Arc::clone(schema);
    let op = match rel.op {
        RelOp::Distinct { input } => RelOp::Distinct {
            input: Box::new(renamed(*input, schema)?),
        },
        RelOp::Temporal { input, bounds } => RelOp::Temporal {
            input: Box::new(renamed(*input, schema)?),
            bounds,
        },
        RelOp::Union { inputs } => {
            let inputs = inputs.into_iter().map(|input| renamed(input, schema));
            RelOp::Union {
                inputs: inputs.collect::<Result<_>>()?,
            }
        }
        RelOp::SetOp { left, right, kind } => RelOp::SetOp {
            left: Box::new(renamed(*left, schema)?),
            right: Box::new(renamed(*right, schema)?),
            kind,
        },
        RelOp::Values { rows } => RelOp::Values {
            rows: values::with_schema(&rows, schema)?,
        },
        op @ (RelOp::Source { .. } | RelOp::View { .. } | RelOp::WorkTable) => {
            let scope = Arc::new(DFSchema::try_from(rel.schema.as_ref().clone())?);
            let read = Pending::of(Rel { op, ..rel }, scope);
            let outputs = read.outputs.iter().map(|expr| read.scalar(expr));
            RelOp::Compute {
                filters: Vec::new(),
                outputs: outputs.collect::<Result<_>>()?,
                input: Box::new(read.base),
            }
        }
        // All others name their own columns.
        op => op,
    };
    Ok(Rel {
        schema: schema_of,
        op,
    })
}
