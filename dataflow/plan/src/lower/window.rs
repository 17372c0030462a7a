//! Planning of window functions: each becomes a column of a [`RelOp::Window`].
//!
//! The functions of a SELECT are put together by their PARTITION BY and ORDER BY. Each such pair is
//! a window of its own, above the one before:
//!
//! ```text
//! SELECT sum(x + 1) OVER (PARTITION BY g ORDER BY t), rank() OVER (ORDER BY x)
//!   ─► Window by x: rank()
//!        Window of each g by t: sum("x + 1")
//!          Compute …, x + 1
//! ```
//!
//! Arguments are computed below the windows. A row that cannot be evaluated is then in no partition
//! of any of them. A `row_number()` alone is a top-k ([`super::top_k`]).

use std::sync::Arc;

use arrow::datatypes::{Field, Schema};
use datafusion_common::{DFSchema, Result, TableReference, internal_err, not_impl_err};
use datafusion_expr::expr::{Sort, WindowFunction as Call, WindowFunctionDefinition};
use datafusion_expr::logical_plan::Window;
use datafusion_expr::{Expr, LogicalPlan};
use tidemill_functions::window_call;
use tidemill_ir::{
    AggregateFunction, Frame, OrderBy, Rel, RelOp, Scalar, WindowCall, WindowFunction,
};

use super::text::text;
use super::{Inputs, Pending, column, distinctly_named, summable};
use crate::catalog::row_number;

/// The qualifier of arguments that are computed. No query can use this name.
const ARGUMENTS: &str = "window functions";

/// The rows below the windows of a SELECT.
struct Below {
    /// The rows, with the arguments of the functions as the last columns.
    rows: Pending,
    /// The number of columns before those arguments.
    columns: usize,
    /// For each function: the indices of its arguments.
    arguments: Vec<Vec<usize>>,
}

impl Inputs<'_> {
    /// Lowers the window functions of a SELECT that have one order.
    ///
    /// # Errors
    /// A plan error for a function that the renderer does not have, or for a type that it cannot
    /// add up.
    pub(crate) fn window(&self, window: &Window) -> Result<Pending> {
        let calls = window.window_expr.iter().map(called);
        let calls = calls.collect::<Result<Vec<_>>>()?;
        if let [call] = calls.as_slice()
            && call.fun.name() == row_number::NAME
        {
            return self.numbered(window, call);
        }
        let Below {
            mut rows,
            columns,
            arguments,
        } = self.below(&window.input, &calls)?;
        let mut outputs: Vec<Option<Expr>> = vec![None; calls.len()];
        let mut open: Vec<usize> = (0..calls.len()).collect();
        while let Some(first) = open.first().and_then(|first| calls.get(*first)) {
            let alike = |index: &usize| calls.get(*index).is_some_and(|call| same(first, call));
            let (these, others): (Vec<usize>, Vec<usize>) = open.iter().partition(|it| alike(it));
            let mut functions = Vec::new();
            for index in &these {
                let (Some(call), Some(arguments)) = (calls.get(*index), arguments.get(*index))
                else {
                    return internal_err!("a window function is missing");
                };
                let kind = window
                    .schema
                    .field(window.schema.fields().len() - calls.len() + index);
                functions.push((function(call, arguments, &rows)?, kind.as_ref().clone()));
            }
            let names;
            (rows, names) = windowed(rows, first, functions)?;
            for (index, name) in these.into_iter().zip(names) {
                if let Some(output) = outputs.get_mut(index) {
                    *output = Some(name);
                }
            }
            open = others;
        }
        rows.outputs.truncate(columns);
        rows.outputs.extend(outputs.into_iter().flatten());
        rows.scope = Arc::clone(&window.schema);
        Ok(rows)
    }

    /// The rows of a plan with the arguments of window functions as columns.
    fn below(&self, plan: &LogicalPlan, calls: &[Call]) -> Result<Below> {
        let mut rows = self.lower(plan)?;
        if rows.number().is_some() {
            rows = rows.materialised()?;
        }
        let columns: Vec<Expr> = rows.scope.columns().into_iter().map(Expr::Column).collect();
        let all = calls.iter().flat_map(|call| call.params.args.clone());
        let rows = rows.ready(&all.chain(columns.iter().cloned()).collect::<Vec<_>>())?;
        let mut outputs = rows.outputs.clone();
        let mut arguments = Vec::new();
        for call in calls {
            let mut of_call = Vec::new();
            for argument in &call.params.args {
                let bound = rows.bind(argument)?;
                let known = outputs.iter().position(|output| *output == bound);
                of_call.push(known.unwrap_or(outputs.len()));
                if known.is_none() {
                    outputs.push(bound);
                }
            }
            arguments.push(of_call);
        }
        let count = columns.len();
        let scope = with_arguments(&rows, outputs.iter().skip(count))?;
        let scope = Arc::new(scope);
        let below = Pending {
            outputs,
            scope,
            ..rows
        };
        Ok(Below {
            rows: below.materialised()?,
            columns: count,
            arguments,
        })
    }
}

/// The scope of rows, and the expressions of arguments behind it.
fn with_arguments<'a>(
    rows: &Pending,
    arguments: impl Iterator<Item = &'a Expr>,
) -> Result<DFSchema> {
    let mut added = Vec::new();
    for argument in arguments {
        added.push(rows.field(argument, text(argument))?);
    }
    let added = distinctly_named(added).into_iter();
    let qualifier = Some(TableReference::bare(ARGUMENTS));
    let added = added.map(|field| (qualifier.clone(), Arc::new(field)));
    let fields = rows.scope.iter();
    let fields = fields.map(|(qualifier, field)| (qualifier.cloned(), Arc::clone(field)));
    DFSchema::new_with_metadata(fields.chain(added).collect(), Default::default())
}

/// The window function in an expression.
fn called(expr: &Expr) -> Result<Call> {
    match expr.clone().unalias_nested().data {
        Expr::WindowFunction(call) => Ok(*call),
        _ => internal_err!("`{expr}` is no window function"),
    }
}

/// Whether two functions have the same partitions and the same order.
fn same(one: &Call, other: &Call) -> bool {
    one.params.partition_by == other.params.partition_by
        && one.params.order_by == other.params.order_by
}

/// A function over the columns of `rows`.
fn function(call: &Call, arguments: &[usize], rows: &Pending) -> Result<WindowFunction> {
    let arguments = arguments
        .iter()
        .map(|index| match rows.outputs.get(*index) {
            Some(output) => rows.scalar(output),
            None => internal_err!("an argument of a window function is missing"),
        });
    let arguments = arguments.collect::<Result<Vec<Scalar>>>()?;
    let WindowFunctionDefinition::WindowUDF(udf) = &call.fun else {
        return not_impl_err!("window function `{}` is not supported", call.fun.name());
    };
    let (call, frame) = match window_call(udf) {
        Some((call, frame)) => (call, frame.clone()),
        None if udf.name() == row_number::NAME => (WindowCall::RowNumber, Frame::DEFAULT),
        None => return not_impl_err!("window function `{}` is not supported", udf.name()),
    };
    Ok(WindowFunction {
        call,
        arguments,
        frame,
    })
}

/// The rows with functions of one window, and the columns that hold the results. `first` is one of
/// the calls, and each function comes with the field of its result.
fn windowed(
    rows: Pending,
    first: &Call,
    functions: Vec<(WindowFunction, Field)>,
) -> Result<(Pending, Vec<Expr>)> {
    let constant = |expr: &Expr| matches!(expr, Expr::Literal(..));
    let scalar = |expr: &Expr| rows.scalar(&rows.bind(expr)?);
    let partition = first.params.partition_by.iter();
    let partition = partition.filter(|expr| !constant(expr)).map(scalar);
    let partition = partition.collect::<Result<Vec<_>>>()?;
    let order = first.params.order_by.iter();
    let order = order.filter(|by| !constant(&by.expr)).map(|by: &Sort| {
        Ok(OrderBy {
            scalar: scalar(&by.expr)?,
            descending: !by.asc,
            nulls_first: by.nulls_first,
        })
    });
    let order = order.collect::<Result<Vec<_>>>()?;
    let mut fields: Vec<Field> = Vec::new();
    for field in rows.base.schema.fields() {
        fields.push(field.as_ref().clone());
    }
    let before = fields.len();
    for (function, field) in &functions {
        if let WindowCall::Aggregate(aggregate) = function.call {
            summable(aggregate, field.data_type())?;
        }
        let kind = field.data_type().clone();
        fields.push(Field::new(
            function.to_string(),
            kind,
            nullable(function.call),
        ));
    }
    let schema = Arc::new(Schema::new(distinctly_named(fields)));
    let results = schema.fields().iter().skip(before);
    let results = results.map(|field| column(field)).collect();
    let base = Rel {
        schema,
        op: RelOp::Window {
            input: Box::new(rows.base),
            partition,
            order,
            functions: functions
                .into_iter()
                .map(|(function, _)| function)
                .collect(),
        },
    };
    Ok((Pending { base, ..rows }, results))
}

/// Distinct names for the outputs of pending rows. The column of a window function has the
/// function's text as its name. (The planner's own name for it has the whole window in it, and may
/// change with its next release, which would change the fingerprint of the view.)
pub(super) fn names(rows: &Pending) -> Vec<String> {
    let fields = rows.scope.fields().iter().zip(&rows.outputs);
    let named = fields.map(|(field, output)| match output {
        Expr::Column(column) if field.name().contains(" BETWEEN ") => {
            field.as_ref().clone().with_name(&column.name)
        }
        _ => field.as_ref().clone(),
    });
    let named = distinctly_named(named.collect()).into_iter();
    named.map(|field| field.name().clone()).collect()
}

/// Whether a function may return null.
fn nullable(call: WindowCall) -> bool {
    !matches!(
        call,
        WindowCall::RowNumber
            | WindowCall::Rank
            | WindowCall::DenseRank
            | WindowCall::PercentRank
            | WindowCall::CumeDist
            | WindowCall::Ntile(_)
            | WindowCall::Aggregate(AggregateFunction::Count)
    )
}
