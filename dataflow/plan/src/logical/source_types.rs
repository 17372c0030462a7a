//! Source types: what SQL may do with columns that hold a value of the source's type as text.
//!
//! Input: a logical plan as written, before type coercion. Output: the same plan, with the casts
//! and comparisons that such columns need written out. For each of the plan's columns, the source's
//! type is returned if the column still holds the source's text.
//!
//! What the texts cannot answer as the source would is refused by name: equality of values that
//! have several texts, the order of types with an order of their own, and every function and
//! operator that PostgreSQL has for the type and the dataflow does not.
//!
//! | comparison of the type's texts | examples | allowed |
//! |---|---|---|
//! | [`Comparison::Order`] | types whose texts sort as the values do | all, also `min` and `max` |
//! | [`Comparison::Equality`] | types with one text for each value | `=`, GROUP BY, DISTINCT |
//! | [`Comparison::Blanks`] | `char(n)` | all, without the trailing blanks |
//! | [`Comparison::Number`] | numbers with more digits than a view holds | casts to a numeric |
//! | [`Comparison::Nothing`] | all others | passing on, counting, a cast to text |

mod documents;
mod planner_error;

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion_common::tree_node::{Transformed, TreeNode};
use datafusion_common::{
    Column, DFSchema, DFSchemaRef, DataFusionError, Diagnostic, Result, ScalarValue, Span,
};
use datafusion_expr::expr::{
    AggregateFunction, Alias, Between, Case, Cast, InList, Like, ScalarFunction, Sort, TryCast,
    WindowFunction,
};
use datafusion_expr::expr_rewriter::NamePreserver;
use datafusion_expr::logical_plan::{Aggregate, DistinctOn, Join, Projection, TableScan, Union};
use datafusion_expr::{
    BinaryExpr, Distinct, Expr, JoinType, LogicalPlan, Operator, WindowFunctionDefinition, lit,
};
use documents::{document, is_document, of_unknown_type};
pub(crate) use planner_error::named;
use tidemill_ir::types;
use tidemill_log::schema::{Comparison, SourceType};

use crate::catalog::{Catalog, Relation, Scanned, SourceTypes};
use crate::rewrite::{recursion, set_operations};
use crate::script::written;

/// An expression, and the source's type if its value is the text of such a type.
type Typed = (Expr, Option<SourceType>);

/// The type whose cast to text differs from what its output function writes.
///
/// `inet` writes `10.0.0.1`, and `inet::text` writes `10.0.0.1/32`.
const MASKED: &str = "inet";

/// Functions that write their arguments as PostgreSQL does, for any type.
const WRITERS: [&str; 2] = ["concat", "concat_ws"];

/// Checks a plan, and writes out what comparisons of source types need.
///
/// # Errors
/// A plan error with the column's place, when the texts cannot answer as the source would.
///
/// A file without such columns is returned at once.
pub(crate) fn checked(plan: LogicalPlan, catalog: &Catalog) -> Result<(LogicalPlan, SourceTypes)> {
    let tables = catalog.tables.iter().map(|table| &table.source_types);
    let known = tables.chain(&catalog.view_types).flatten();
    if known.flatten().next().is_none() {
        let untyped = vec![None; plan.schema().fields().len()];
        return Ok((plan, untyped));
    }
    node(plan, catalog)
}

/// Checks a node, and the nodes below it first.
///
/// The second result has one element for each column of the node's output.
fn node(plan: LogicalPlan, catalog: &Catalog) -> Result<(LogicalPlan, SourceTypes)> {
    let (mut schemas, mut types) = (Vec::new(), Vec::new());
    let plan = plan.map_children(|child| {
        let (child, below) = node(child, catalog)?;
        schemas.push(Arc::clone(child.schema()));
        types.push(below);
        Ok(Transformed::yes(child))
    });
    let plan = plan?.data;
    if let LogicalPlan::Union(union) = &plan {
        let types = united(union, &types)?;
        return Ok((plan, types));
    }
    let schema = match (&plan, schemas.as_slice()) {
        // The condition of a semi join reads both sides, and its rows are those of one.
        (LogicalPlan::Join(join), [left, right]) if is_semi(join.join_type) => {
            Arc::new(left.join(right)?)
        }
        (LogicalPlan::Join(join), _) => Arc::clone(&join.schema),
        (_, [schema]) => Arc::clone(schema),
        _ => Arc::clone(DFSchema::empty_ref()),
    };
    let types = types.concat();
    let names = NamePreserver::new(&plan);
    let scope = Scope { schema, types };
    scope.node(&plan)?;
    let sorts = matches!(plan, LogicalPlan::Sort(_));
    let plan = scope.first_of_each(plan)?.map_expressions(|expr| {
        let name = names.save(&expr);
        let expr = match sorts {
            true => scope.order(expr)?,
            false => scope.expr(expr)?.0,
        };
        Ok(Transformed::yes(name.restore(expr)))
    });
    let plan = plan?.data;
    let types = scope.outputs(&plan, catalog)?;
    Ok((plan, types))
}

/// The types of a union's columns, which must be the same in all of its queries.
///
/// # Errors
/// A plan error that names the column, when the types differ or the column is a padded text.
fn united(union: &Union, inputs: &[SourceTypes]) -> Result<SourceTypes> {
    let columns = union.schema.fields().iter().enumerate();
    columns
        .map(|(index, field)| {
            let mut types = inputs
                .iter()
                .map(|types| types.get(index).copied().flatten());
            let first = types.next().flatten();
            let unlike = types.find(|other| *other != first);
            let padded = first.filter(|kind| kind.is_padded());
            match (unlike, padded) {
                (None, None) => Ok(first),
                (unlike, _) => {
                    let kind = first.or(unlike.flatten());
                    let column = Expr::Column(Column::from_name(field.name()));
                    Err(refused(
                        &column,
                        kind,
                        "one column of a UNION with another type",
                    ))
                }
            }
        })
        .collect()
}

/// The columns that a node's expressions may refer to.
struct Scope {
    /// The columns.
    schema: DFSchemaRef,
    /// The source type of each column.
    types: SourceTypes,
}

impl Scope {
    /// Checks what the node itself compares: rows, groups and orders.
    fn node(&self, plan: &LogicalPlan) -> Result<()> {
        match plan {
            LogicalPlan::Distinct(Distinct::All(input)) => {
                let columns = input.schema().columns().into_iter().map(Expr::Column);
                self.all(&columns.collect::<Vec<_>>(), false, "compared by DISTINCT")
            }
            LogicalPlan::SubqueryAlias(alias) if set_operations::kind(alias).is_some() => {
                let columns = alias.input.schema().columns().into_iter().map(Expr::Column);
                let columns = columns.collect::<Vec<_>>();
                self.all(&columns, false, "compared by INTERSECT or EXCEPT")
            }
            LogicalPlan::SubqueryAlias(alias) if recursion::is_distinct(alias) => {
                let columns = alias.input.schema().columns().into_iter().map(Expr::Column);
                let columns = columns.collect::<Vec<_>>();
                self.all(&columns, false, "compared by the UNION of WITH RECURSIVE")
            }
            LogicalPlan::Distinct(Distinct::On(DistinctOn {
                on_expr, sort_expr, ..
            })) => {
                self.all(on_expr, false, "compared by DISTINCT ON")?;
                self.sorted(sort_expr.as_deref().unwrap_or_default())
            }
            LogicalPlan::Aggregate(Aggregate { group_expr, .. }) => {
                self.all(group_expr, false, "grouped by")
            }
            LogicalPlan::Sort(sort) => self.sorted(&sort.expr),
            LogicalPlan::Join(Join { on, .. }) => on.iter().try_for_each(|(left, right)| {
                let pair = (self.expr(left.clone())?, self.expr(right.clone())?);
                let unlike = |kind: &SourceType| kind.is_padded() || kind.is_document();
                let apart = pair.0.1.filter(unlike).or(pair.1.1.filter(unlike));
                match apart {
                    Some(_) => Err(refused(left, apart, "compared by USING (write ON)")),
                    None => compared(pair.0, pair.1, false).map(drop),
                }
            }),
            _ => Ok(()),
        }
    }

    /// Checks the expressions of an ORDER BY.
    fn sorted(&self, order: &[Sort]) -> Result<()> {
        let order: Vec<Expr> = order.iter().map(|sort| sort.expr.clone()).collect();
        self.all(&order, true, "ordered by")
    }

    /// Checks that all expressions can be compared, or ordered if `order` is set.
    fn all(&self, exprs: &[Expr], order: bool, what: &str) -> Result<()> {
        exprs
            .iter()
            .try_for_each(|expr| match self.expr(expr.clone())? {
                (_, Some(kind)) => usable(expr, kind, order, what),
                _ => Ok(()),
            })
    }

    /// The source types of the node's output columns.
    fn outputs(&self, plan: &LogicalPlan, catalog: &Catalog) -> Result<SourceTypes> {
        let of = |exprs: &[Expr]| -> Result<SourceTypes> {
            let types = exprs.iter().map(|expr| Ok(self.expr(expr.clone())?.1));
            types.collect()
        };
        Ok(match plan {
            LogicalPlan::TableScan(scan) => scanned(scan, catalog),
            LogicalPlan::Projection(Projection { expr, .. }) => of(expr)?,
            LogicalPlan::Aggregate(Aggregate {
                group_expr,
                aggr_expr,
                ..
            }) => [of(group_expr)?, of(aggr_expr)?].concat(),
            LogicalPlan::Distinct(Distinct::On(DistinctOn { select_expr, .. })) => of(select_expr)?,
            LogicalPlan::Join(join) if is_semi(join.join_type) => {
                let columns = join.schema.fields().len();
                self.types.iter().copied().take(columns).collect()
            }
            LogicalPlan::Window(window) => [self.types.clone(), of(&window.window_expr)?].concat(),
            _ => self.types.clone(),
        })
    }

    /// The expression with its comparisons written out, and its source type.
    ///
    /// # Errors
    /// A plan error at the expression's first column, when an operation needs more than the text.
    fn expr(&self, expr: Expr) -> Result<Typed> {
        match expr {
            Expr::Column(column) => {
                let index = self.schema.index_of_column(&column)?;
                let kind = self.types.get(index).copied().flatten();
                Ok((Expr::Column(column), kind))
            }
            Expr::Alias(alias) => {
                let (expr, kind) = self.expr(*alias.expr)?;
                let expr = Box::new(expr);
                Ok((Expr::Alias(Alias { expr, ..alias }), kind))
            }
            Expr::IsNull(inner) => Ok((Expr::IsNull(Box::new(self.tested(*inner)?)), None)),
            Expr::IsNotNull(inner) => Ok((Expr::IsNotNull(Box::new(self.tested(*inner)?)), None)),
            Expr::Cast(Cast { expr, field }) => {
                let asked = field.metadata().get(types::ASKED);
                let is_uuid = asked.is_some_and(|asked| asked == "uuid");
                let inner = match (self.expr(*expr)?, field.data_type()) {
                    (inner, to) if is_document(inner.1) && (is_uuid || *to != DataType::Utf8) => {
                        document(inner)
                    }
                    (inner, to) => cast(inner, to)?,
                };
                let expr = Box::new(inner);
                Ok((Expr::Cast(Cast { expr, field }), None))
            }
            Expr::TryCast(TryCast { expr, field }) => {
                let inner = cast(self.expr(*expr)?, field.data_type())?;
                let expr = Box::new(inner);
                Ok((Expr::TryCast(TryCast { expr, field }), None))
            }
            Expr::BinaryExpr(binary) => self.binary(binary),
            Expr::Between(between) => self.between(between),
            Expr::InList(list) => self.in_list(list),
            Expr::Like(like) => Ok((Expr::Like(self.like(like)?), None)),
            Expr::SimilarTo(like) => Ok((Expr::SimilarTo(self.like(like)?), None)),
            Expr::Case(case) => self.case(case),
            Expr::ScalarFunction(call) => self.function(call),
            Expr::AggregateFunction(call) => self.aggregate(call),
            Expr::WindowFunction(call) => self.window(*call),
            other => {
                let plain = |expr: Expr| Ok(Transformed::yes(self.plain(expr, "used here")?));
                Ok((other.map_children(plain)?.data, None))
            }
        }
    }

    /// Checks an expression that is tested for NULL.
    ///
    /// Only composite types differ: `ROW(NULL, NULL) IS NULL` is true in PostgreSQL.
    fn tested(&self, expr: Expr) -> Result<Expr> {
        match self.expr(expr)? {
            (expr, Some(kind)) if kind.has_fields() => {
                let name = name_of(&expr);
                let text = format!(
                    "column `{name}` is of a composite type, which is NULL for PostgreSQL also \
                     where all its fields are, and which is not known here: test CAST({name} AS \
                     text), which is NULL only where the column itself is"
                );
                Err(placed(&expr, text))
            }
            (expr, _) => Ok(expr),
        }
    }

    /// Checks an expression that must not have a source type. A padded text loses its padding.
    fn plain(&self, expr: Expr, what: &str) -> Result<Expr> {
        match self.expr(expr)? {
            (expr, None) => Ok(expr),
            (expr, Some(kind)) if kind.is_padded() => Ok(unpadded(expr)),
            (expr, kind) => Err(refused(&expr, kind, what)),
        }
    }

    /// Checks a binary operator.
    fn binary(&self, binary: BinaryExpr) -> Result<Typed> {
        use Operator::{Eq, Gt, GtEq, IsDistinctFrom, IsNotDistinctFrom, Lt, LtEq, NotEq};
        let BinaryExpr { left, op, right } = binary;
        let (left, right) = match op {
            Eq | NotEq | IsDistinctFrom | IsNotDistinctFrom | Lt | LtEq | Gt | GtEq => {
                let order = matches!(op, Lt | LtEq | Gt | GtEq);
                compared(self.expr(*left)?, self.expr(*right)?, order)?
            }
            _ => {
                let what = format!("used with `{op}`");
                (self.plain(*left, &what)?, self.plain(*right, &what)?)
            }
        };
        let binary = BinaryExpr::new(Box::new(left), op, Box::new(right));
        Ok((Expr::BinaryExpr(binary), None))
    }

    /// Checks the text of a pattern match. The trailing blanks of a padded text count there.
    fn matched(&self, expr: Expr) -> Result<Expr> {
        match self.expr(expr)? {
            (expr, None) => Ok(expr),
            (expr, Some(kind)) if kind.is_padded() => Ok(expr),
            (expr, kind) => Err(refused(&expr, kind, "matched with a pattern")),
        }
    }

    /// Checks a LIKE.
    fn like(&self, like: Like) -> Result<Like> {
        Ok(Like {
            expr: Box::new(self.matched(*like.expr)?),
            pattern: Box::new(self.plain(*like.pattern, "a pattern")?),
            ..like
        })
    }

    /// Checks a BETWEEN.
    ///
    /// A BETWEEN compares by order, with both bounds.
    fn between(&self, between: Between) -> Result<Typed> {
        let expr = self.expr(*between.expr)?;
        let (_, low) = compared(expr.clone(), self.expr(*between.low)?, true)?;
        let (expr, high) = compared(expr, self.expr(*between.high)?, true)?;
        let (expr, low, high) = (Box::new(expr), Box::new(low), Box::new(high));
        let between = Between::new(expr, between.negated, low, high);
        Ok((Expr::Between(between), None))
    }

    /// Checks an IN list.
    ///
    /// Each item is compared for equality.
    fn in_list(&self, list: InList) -> Result<Typed> {
        let expr = self.expr(*list.expr)?;
        let mut one = expr.0.clone();
        let mut items = Vec::new();
        for item in list.list {
            let (left, item) = compared(expr.clone(), self.expr(item)?, false)?;
            one = left;
            items.push(item);
        }
        let list = InList::new(Box::new(one), items, list.negated);
        Ok((Expr::InList(list), None))
    }

    /// Checks a CASE, whose results must be of one type.
    fn case(&self, case: Case) -> Result<Typed> {
        let (mut whens, mut results) = (Vec::new(), Vec::new());
        let subject = case.expr.map(|expr| self.expr(*expr)).transpose()?;
        let mut one = subject.as_ref().map(|subject| subject.0.clone());
        for (when, then) in case.when_then_expr {
            whens.push(match &subject {
                Some(subject) => {
                    let (left, when) = compared(subject.clone(), self.expr(*when)?, false)?;
                    one = Some(left);
                    when
                }
                None => self.plain(*when, "a condition")?,
            });
            results.push(self.expr(*then)?);
        }
        let otherwise = case.else_expr.is_some();
        if let Some(expr) = case.else_expr {
            results.push(self.expr(*expr)?);
        }
        let (mut results, kind) = one_of(results)?;
        let otherwise = otherwise.then(|| results.pop()).flatten().map(Box::new);
        let pairs = whens.into_iter().zip(results);
        let pairs = pairs.map(|(when, then)| (Box::new(when), Box::new(then)));
        let case = Case::new(one.map(Box::new), pairs.collect(), otherwise);
        Ok((Expr::Case(case), kind))
    }

    /// Checks a function call.
    fn function(&self, call: ScalarFunction) -> Result<Typed> {
        let ScalarFunction { func, args } = call;
        if [tidemill_functions::JSON, tidemill_functions::JSONB].contains(&func.name()) {
            // A document that was written out already.
            return Ok((Expr::ScalarFunction(ScalarFunction { func, args }), None));
        }
        let (args, kind) = match func.name() {
            "coalesce" => {
                let args = args.into_iter().map(|arg| self.expr(arg));
                one_of(args.collect::<Result<_>>()?)?
            }
            name if WRITERS.contains(&name) => {
                // What stands between the others is a text.
                let texts = usize::from(name == "concat_ws");
                let args = args
                    .into_iter()
                    .enumerate()
                    .map(|(at, arg)| match at < texts {
                        true => self.plain(arg, "the first argument of `concat_ws`"),
                        false => Ok(self.expr(arg)?.0),
                    });
                (args.collect::<Result<_>>()?, None)
            }
            "~" | "~*" | "!~" | "!~*" => {
                let mut args = args.into_iter();
                let text = args.next().map(|arg| self.matched(arg));
                let pattern = args.next().map(|arg| self.plain(arg, "a pattern"));
                let args = text.into_iter().chain(pattern);
                (args.collect::<Result<_>>()?, None)
            }
            name => {
                // The trailing blanks would appear in the result of these functions.
                let returns_one = matches!(name, "nullif" | "greatest" | "least");
                let what = format!("used in `{name}`");
                let args = args.into_iter().map(|arg| match self.expr(arg)? {
                    (arg, kind) if is_document(kind) => Ok(document((arg, kind))),
                    (arg, kind @ Some(_)) if returns_one => Err(refused(&arg, kind, &what)),
                    (arg, Some(kind)) if kind.is_padded() => Ok(unpadded(arg)),
                    (arg, None) => Ok(arg),
                    (arg, kind) => Err(refused(&arg, kind, &what)),
                });
                (args.collect::<Result<_>>()?, None)
            }
        };
        Ok((Expr::ScalarFunction(ScalarFunction { func, args }), kind))
    }

    /// Checks an aggregate.
    ///
    /// `count` needs no order, `count(DISTINCT …)` needs equality, and `min` and `max` need order
    /// and keep the source type.
    fn aggregate(&self, call: AggregateFunction) -> Result<Typed> {
        let AggregateFunction { func, mut params } = call;
        let name = func.name();
        let mut returned = None;
        let args = params.args.into_iter().map(|arg| {
            let (arg, kind) = self.expr(arg)?;
            match (name, kind) {
                (_, None) => {}
                ("count", Some(kind)) if params.distinct => {
                    usable(&arg, kind, false, "compared by DISTINCT")?;
                }
                ("count", _) => {}
                (name, kind) if is_document(kind) && !matches!(name, "min" | "max") => {
                    return Ok(document((arg, kind)));
                }
                ("min" | "max", Some(kind)) if !kind.is_padded() => {
                    usable(&arg, kind, true, &format!("used in `{name}`"))?;
                    returned = Some(kind);
                }
                _ => return Err(refused(&arg, kind, &format!("used in `{name}`"))),
            }
            Ok(arg)
        });
        params.args = args.collect::<Result<_>>()?;
        let filter = params.filter.take();
        let filter = filter.map(|filter| self.plain(*filter, "a condition"));
        params.filter = filter.transpose()?.map(Box::new);
        self.sorted(&params.order_by)?;
        for by in &mut params.order_by {
            by.expr = self.order(by.expr.clone())?;
        }
        let call = AggregateFunction { func, params };
        Ok((Expr::AggregateFunction(call), returned))
    }

    /// Checks a window function.
    fn window(&self, mut call: WindowFunction) -> Result<Typed> {
        self.all(&call.params.partition_by, false, "compared by PARTITION BY")?;
        let keys = std::mem::take(&mut call.params.partition_by).into_iter();
        let keys = keys.map(|key| Ok(self.expr(key)?.0));
        call.params.partition_by = keys.collect::<Result<_>>()?;
        self.sorted(&call.params.order_by)?;
        for by in &mut call.params.order_by {
            by.expr = self.order(by.expr.clone())?;
        }
        let args = std::mem::take(&mut call.params.args);
        let (args, kind) = match &call.fun {
            WindowFunctionDefinition::AggregateUDF(function) => {
                let filter = call.params.filter.take();
                let distinct = call.params.distinct;
                let function = Arc::clone(function);
                let plain =
                    AggregateFunction::new_udf(function, args, distinct, filter, Vec::new(), None);
                let (Expr::AggregateFunction(plain), kind) = self.aggregate(plain)? else {
                    return Ok((Expr::WindowFunction(Box::new(call)), None));
                };
                call.params.filter = plain.params.filter;
                (plain.params.args, kind)
            }
            WindowFunctionDefinition::WindowUDF(_) => self.moved(args)?,
        };
        call.params.args = args;
        Ok((Expr::WindowFunction(Box::new(call)), kind))
    }

    /// The arguments of a window function that returns the value of another row, and the type of
    /// that value. Between the value and the default of `lag` and `lead` is a number.
    fn moved(&self, args: Vec<Expr>) -> Result<(Vec<Expr>, Option<SourceType>)> {
        let mut args = args.into_iter();
        let value = args.next().map(|value| self.expr(value)).transpose()?;
        let number = args.next().map(|number| self.plain(number, "a number"));
        let default = args.next().map(|value| self.expr(value)).transpose()?;
        let (mut values, kind) = match (value, default) {
            (Some((value, kind)), None) => (vec![value], kind),
            (value, default) => one_of(value.into_iter().chain(default).collect())?,
        };
        if let (Some(number), false) = (number.transpose()?, values.is_empty()) {
            values.insert(1, number);
        }
        Ok((values, kind))
    }

    /// An expression of ORDER BY. The trailing blanks of a padded text do not count.
    fn order(&self, expr: Expr) -> Result<Expr> {
        Ok(match self.expr(expr)? {
            (expr, Some(kind)) if kind.is_padded() => unpadded(expr),
            (expr, _) => expr,
        })
    }

    /// A DISTINCT ON with the order that chooses its rows written out.
    ///
    /// Each expression of its ORDER BY is treated as one of an ORDER BY.
    fn first_of_each(&self, plan: LogicalPlan) -> Result<LogicalPlan> {
        let LogicalPlan::Distinct(Distinct::On(mut distinct)) = plan else {
            return Ok(plan);
        };
        for by in distinct.sort_expr.iter_mut().flatten() {
            // What else is written out, is so below, with the names that the node had.
            if let (expr, Some(kind)) = self.expr(by.expr.clone())?
                && kind.is_padded()
            {
                by.expr = unpadded(expr);
            }
        }
        Ok(LogicalPlan::Distinct(Distinct::On(distinct)))
    }
}

/// Whether a join gives the rows of its left side alone.
fn is_semi(kind: JoinType) -> bool {
    matches!(kind, JoinType::LeftSemi | JoinType::LeftAnti)
}

/// The source types of the columns that a scan reads.
fn scanned(scan: &TableScan, catalog: &Catalog) -> SourceTypes {
    let relation = scan.source.downcast_ref::<Scanned>().map(|it| it.relation);
    let types = match relation {
        Some(Relation::Table(table)) => catalog.tables.get(table).map(|it| &it.source_types),
        Some(Relation::View(view)) => catalog.view_types.get(view),
        None => None,
    };
    let all = 0..scan.source.schema().fields().len();
    let read = scan.projection.clone().unwrap_or_else(|| all.collect());
    let of = |index: usize| types.and_then(|types| types.get(index).copied().flatten());
    read.into_iter().map(of).collect()
}

/// Both sides of a comparison, as texts that compare as the source's values do.
///
/// `order` is true for `<` and its like, and false for equality.
///
/// # Errors
/// The two have different source types, or the type does not allow this comparison.
fn compared(left: Typed, right: Typed, order: bool) -> Result<(Expr, Expr)> {
    let what = if order {
        "compared by order"
    } else {
        "compared"
    };
    let kind = match (left.1, right.1) {
        (None, None) => return Ok((left.0, right.0)),
        (one, other) if is_document(one) || is_document(other) => {
            for (kind, expr) in [(one, &left.0), (other, &right.0)] {
                if kind.is_some() && !is_document(kind) {
                    return Err(refused(expr, kind, "compared with a document"));
                }
            }
            if let Some(expr) = of_unknown_type(&left, &right) {
                return Err(refused(expr, one.or(other), what));
            }
            return Ok((document(left), document(right)));
        }
        (Some(one), Some(other)) if one.is_padded() && other.is_padded() => one,
        (Some(one), Some(other)) if one != other => {
            let what = format!("compared with {}", other.name());
            return Err(refused(&left.0, Some(one), &what));
        }
        (Some(kind), None) | (None, Some(kind)) | (Some(kind), _) => kind,
    };
    for (expr, other) in [(&left, &right.0), (&right, &left.0)] {
        if expr.1.is_some() {
            usable(&expr.0, kind, order, what)?;
        } else {
            fits(&expr.0, other, kind)?;
        }
    }
    Ok(match kind.is_padded() {
        true => (bare(left), bare(right)),
        false => (left.0, right.0),
    })
}

/// One side of a comparison of padded texts. A literal counts as padded; another text does not.
fn bare(side: Typed) -> Expr {
    match (&side.0, side.1) {
        (_, Some(_)) => unpadded(side.0),
        (Expr::Literal(ScalarValue::Utf8(Some(text)), _), None) => lit(text.trim_end_matches(' ')),
        _ => side.0,
    }
}

/// The text without trailing blanks.
fn unpadded(expr: Expr) -> Expr {
    tidemill_functions::named("rtrim", vec![expr, lit(" ")])
}

/// Checks that texts of a type can be compared, or ordered, as the source's values are.
///
/// `what` completes "cannot be … here".
fn usable(expr: &Expr, kind: SourceType, order: bool, what: &str) -> Result<()> {
    match (kind.comparison(), order) {
        (Comparison::Order | Comparison::Blanks, _) | (Comparison::Equality, false) => Ok(()),
        _ => Err(refused(expr, Some(kind), what)),
    }
}

/// Checks that an expression without the source type may be compared with one of the type.
///
/// A literal must be written exactly as PostgreSQL writes a value of the type (`kind.writes`),
/// because texts are compared.
fn fits(expr: &Expr, other: &Expr, kind: SourceType) -> Result<()> {
    match literal(expr) {
        Some(value) if value.is_null() => Ok(()),
        Some(ScalarValue::Utf8(Some(text))) if kind.writes(text) => Ok(()),
        Some(value) => {
            let name = name_of(other);
            let text = format!(
                "column `{name}` is of PostgreSQL's type {}, and `{value}` is not known to be one \
                 as PostgreSQL writes it, so the texts may differ where the values are equal: \
                 write it so, or compare CAST({name} AS text)",
                kind.name()
            );
            Err(placed(other, text))
        }
        // Texts of the same form. Other texts are not values of the type for PostgreSQL either.
        None if matches!(kind.name(), "uuid" | "char(n)") => Ok(()),
        None => Err(refused(other, Some(kind), "compared with text")),
    }
}

/// The literal in an expression, also if a cast to text was written around it.
fn literal(expr: &Expr) -> Option<&ScalarValue> {
    match expr {
        Expr::Literal(value, _) => Some(value),
        Expr::Alias(alias) => literal(&alias.expr),
        Expr::Cast(Cast { expr, field }) if *field.data_type() == DataType::Utf8 => literal(expr),
        _ => None,
    }
}

/// The results of an expression that returns one of them, which must all be of one type.
///
/// CASE and COALESCE return one of several results. NULL, and a literal in the type's own form, fit
/// any type.
fn one_of(results: Vec<Typed>) -> Result<(Vec<Expr>, Option<SourceType>)> {
    let typed = results
        .iter()
        .find_map(|(expr, kind)| Some((expr.clone(), (*kind)?)));
    if let Some((expr, kind)) = &typed {
        let others = |(_, its): &Typed| *its != Some(*kind);
        if kind.is_document() && results.iter().any(others) {
            return Ok((results.into_iter().map(document).collect(), None));
        }
        for (other, its) in &results {
            let value = literal(other);
            let same = *its == Some(*kind) || value.is_some_and(ScalarValue::is_null);
            let as_written = matches!(value, Some(ScalarValue::Utf8(Some(text)))
                if its.is_none() && kind.writes(text));
            if kind.is_padded() || !(same || as_written) {
                let what = "one result of several with another type";
                return Err(refused(expr, Some(*kind), what));
            }
        }
    }
    let exprs = results.into_iter().map(|(expr, _)| expr).collect();
    Ok((exprs, typed.map(|(_, kind)| kind)))
}

/// Checks a cast: the source's text can be cast to text, and a number's text to a number.
///
/// # Errors
/// The cast is to another type, or is to text and PostgreSQL writes another text there.
fn cast(inner: Typed, to: &DataType) -> Result<Expr> {
    let (expr, Some(kind)) = inner else {
        return Ok(inner.0);
    };
    let number = kind.comparison() == Comparison::Number;
    match to {
        DataType::Utf8 if kind.is_padded() => Ok(unpadded(expr)),
        DataType::Utf8 if kind.name() == MASKED => {
            let name = name_of(&expr);
            let text = format!(
                "column `{name}` is of PostgreSQL's type {MASKED}, whose cast to text writes a \
                 mask that the column's own text lacks: pass the column on without a cast"
            );
            Err(placed(&expr, text))
        }
        DataType::Utf8 => Ok(expr),
        _ if kind.is_padded() => Ok(unpadded(expr)),
        DataType::Decimal128(..) | DataType::Float64 | DataType::Float32 if number => Ok(expr),
        to => {
            let what = format!("cast to {}", types::name(to));
            Err(refused(&expr, Some(kind), &what))
        }
    }
}

/// The error that says what a column is, what cannot be done with it, and what to write instead.
fn refused(expr: &Expr, kind: Option<SourceType>, what: &str) -> DataFusionError {
    let Some(kind) = kind else {
        return DataFusionError::Internal(format!("`{expr}` is of no source type"));
    };
    let name = name_of(expr);
    let way = match kind.comparison() {
        Comparison::Number => format!("cast it first, as in CAST({name} AS numeric(20,4))"),
        Comparison::Nothing if kind.has_fields() => {
            format!("it can be passed on and counted; CAST({name} AS text) is text")
        }
        Comparison::Nothing
            if kind.is_document() && what.trim_end_matches(" by order") == "compared" =>
        {
            format!(
                "it can be passed on, counted and tested for NULL; compare CAST({name} AS jsonb)"
            )
        }
        Comparison::Nothing => {
            format!(
                "it can be passed on, counted and tested for NULL; CAST({name} AS text) is text"
            )
        }
        _ if kind.name() == MASKED => "it can be passed on, grouped and joined".to_owned(),
        _ => format!("CAST({name} AS text) is text"),
    };
    let text = format!(
        "column `{name}` is of PostgreSQL's type {}, which cannot be {what} here: {}; {way}",
        kind.name(),
        kind.why()
    );
    placed(expr, text)
}

/// The first column in an expression, as SQL writes it.
fn name_of(expr: &Expr) -> String {
    let column = expr.column_refs().into_iter().next();
    column.map_or_else(|| expr.to_string(), |column| written(&column.name))
}

/// An error at the place of the expression's first column.
fn placed(expr: &Expr, text: String) -> DataFusionError {
    let mut columns = expr.column_refs().into_iter();
    at(columns.find_map(|column| column.spans.first()), text)
}

/// A plan error at a place.
pub(super) fn at(span: Option<Span>, text: String) -> DataFusionError {
    let error = DataFusionError::Plan(text.clone());
    match span {
        Some(_) => error.with_diagnostic(Diagnostic::new_error(text, span)),
        None => error,
    }
}
