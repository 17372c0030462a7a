//! Group keys and aggregate arguments of a reduce, evaluated as columns, with filters applied.

use std::rc::Rc;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, BooleanArray};
use arrow::compute::nullif;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion_physical_expr::expressions::{CaseExpr, Column};
use tidemill_ir::{Aggregate, AggregateFunction, Scalar};
use tidemill_log::{Error, Kind, Result};

use super::compute::{Stage, compute};
use crate::chunk::{Chunk, ChunkStream};
use crate::context::Context;

/// Which of the evaluated columns are one aggregate's argument and filter.
struct Slot {
    /// Which aggregate it is.
    function: AggregateFunction,
    /// The argument's column; `None` for `count(*)` without a filter.
    column: Option<usize>,
    /// The filter's column; `None` without a filter.
    filter: Option<usize>,
}

/// The expressions of the keys and of some aggregates over one input.
pub(crate) struct Arguments {
    /// Evaluates the keys, the filters and the arguments.
    stage: Stage,
    /// The number of keys, which are the first columns.
    keys: usize,
    /// One per aggregate.
    slots: Vec<Slot>,
}

/// The evaluated columns of one chunk.
pub(crate) struct Columns {
    /// The group keys.
    pub(crate) keys: Vec<ArrayRef>,
    /// One per aggregate; `None` for `count(*)`. A value is null where the filter is not true.
    pub(crate) arguments: Vec<Option<ArrayRef>>,
    /// The difference of each row.
    pub(crate) diffs: Arc<[i64]>,
}

impl Arguments {
    /// Binds the keys and aggregates of a view to the schema of an input.
    ///
    /// # Errors
    /// `Bug` when an expression has no type over the input.
    pub(crate) fn new(
        view: Arc<str>,
        input: &SchemaRef,
        keys: &[Scalar],
        aggregates: &[Aggregate],
    ) -> Result<Self> {
        let mut outputs = keys.to_vec();
        let mut add = |scalar: &Scalar| {
            outputs.push(scalar.clone());
            outputs.len() - 1
        };
        let slots = aggregates
            .iter()
            .map(|aggregate| {
                let filter = aggregate.filter.as_ref().map(&mut add);
                let column = match guarded(aggregate)? {
                    Some(argument) => Some(add(&argument)),
                    // `count(*)` with a filter counts the rows in which the filter is true.
                    None => filter,
                };
                Ok(Slot {
                    function: aggregate.function,
                    column,
                    filter,
                })
            })
            .collect::<Result<_>>()?;
        let schema = numbered(&outputs, input)?;
        Ok(Self {
            stage: Stage {
                view,
                filters: Vec::new(),
                outputs,
                schema,
            },
            keys: keys.len(),
            slots,
        })
    }

    /// The aggregates' functions, each with the type of its argument.
    pub(crate) fn functions(&self) -> impl Iterator<Item = (AggregateFunction, Option<DataType>)> {
        self.slots.iter().map(|slot| {
            let kind = slot
                .column
                .map(|c| self.stage.schema.field(c).data_type().clone());
            (slot.function, kind)
        })
    }

    /// The argument type of aggregate `index`; boolean for `count(*)`.
    pub(crate) fn kind(&self, index: usize) -> &DataType {
        match self.slots[index].column {
            Some(column) => self.stage.schema.field(column).data_type(),
            None => &DataType::Boolean,
        }
    }

    /// Evaluates a chunk. Rows that fail become dead letters, which may cut the chunk into pieces.
    pub(crate) fn columns(&self, chunk: &Chunk, context: &Context) -> Vec<Columns> {
        let mut pieces = Vec::new();
        self.stage.each(chunk, context, &mut pieces);
        let pieces = pieces.into_iter().filter(|piece| !piece.diffs.is_empty());
        let columns = pieces.map(|piece| {
            let all = piece.batch.columns();
            let keys = all[..self.keys].to_vec();
            let arguments = self
                .slots
                .iter()
                .map(|slot| masked(all, slot))
                .collect::<Result<_>>()?;
            Ok(Columns {
                keys,
                arguments,
                diffs: piece.diffs,
            })
        });
        columns
            .filter_map(|columns: Result<_>| columns.map_err(|e| context.fail(e)).ok())
            .collect()
    }
}

/// Evaluates the keys and arguments of a reduce once, as columns, and returns keys and aggregates
/// over these columns. All parts of the reduce use them. Therefore a row that fails to be evaluated
/// is missing in all parts.
///
/// # Errors
/// `Bug` when an expression has no type over the input.
pub(crate) fn evaluated<'scope>(
    (stream, input): (ChunkStream<'scope>, &SchemaRef),
    context: &Rc<Context>,
    keys: &[Scalar],
    aggregates: &[Aggregate],
) -> Result<(ChunkStream<'scope>, SchemaRef, Vec<Scalar>, Vec<Aggregate>)> {
    let mut outputs: Vec<Scalar> = Vec::new();
    let mut place = |scalar: Scalar| {
        let text = scalar.text.clone();
        let known = outputs.iter().position(|output| output.text == text);
        let index = known.unwrap_or(outputs.len());
        if known.is_none() {
            outputs.push(scalar);
        }
        let expr = Arc::new(Column::new(&index.to_string(), index));
        Scalar { expr, text }
    };
    let keys = keys.iter().cloned().map(&mut place).collect();
    let mut placed = Vec::new();
    for aggregate in aggregates {
        placed.push(Aggregate {
            argument: guarded(aggregate)?.map(&mut place),
            filter: aggregate.filter.clone().map(&mut place),
            ..aggregate.clone()
        });
    }
    let schema = numbered(&outputs, input)?;
    let stream = compute(stream, context, Vec::new(), outputs, Arc::clone(&schema));
    Ok((stream, schema, keys, placed))
}

/// The argument of an aggregate, evaluated only where its filter is true: `sum(1 / x) FILTER (WHERE
/// x <> 0)` does not divide by zero.
fn guarded(aggregate: &Aggregate) -> Result<Option<Scalar>> {
    let (Some(argument), Some(filter)) = (&aggregate.argument, &aggregate.filter) else {
        return Ok(aggregate.argument.clone());
    };
    if argument.expr.downcast_ref::<Column>().is_some() {
        return Ok(Some(argument.clone()));
    }
    let when = (Arc::clone(&filter.expr), Arc::clone(&argument.expr));
    let text = format!("CASE WHEN {} THEN {} END", filter.text, argument.text);
    let expr = CaseExpr::try_new(None, vec![when], None)
        .map_err(|error| Error::with_source(Kind::Bug, format!("`{text}` is no case"), error))?;
    Ok(Some(Scalar {
        expr: Arc::new(expr),
        text,
    }))
}

/// The schema of the expressions' types, with the numbers from 0 as names.
pub(crate) fn numbered(outputs: &[Scalar], input: &SchemaRef) -> Result<SchemaRef> {
    let field = |(index, output): (usize, &Scalar)| {
        let kind = output.expr.data_type(input).map_err(|error| {
            let what = format!("`{}` has no type", output.text);
            Error::with_source(Kind::Bug, what, error)
        })?;
        Ok(Field::new(index.to_string(), kind, true))
    };
    let fields = outputs.iter().enumerate().map(field);
    Ok(Arc::new(Schema::new(fields.collect::<Result<Vec<_>>>()?)))
}

/// The argument column of an aggregate, null where the filter is not true.
fn masked(columns: &[ArrayRef], slot: &Slot) -> Result<Option<ArrayRef>> {
    let Some(column) = slot.column.map(|index| &columns[index]) else {
        return Ok(None);
    };
    let Some(filter) = slot.filter.map(|index| &columns[index]) else {
        return Ok(Some(Arc::clone(column)));
    };
    let out: BooleanArray = filter
        .as_boolean()
        .iter()
        .map(|f| Some(f != Some(true)))
        .collect();
    nullif(column, &out)
        .map(Some)
        .map_err(tidemill_ir::row::bug)
}
