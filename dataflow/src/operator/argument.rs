//! Group keys and aggregate arguments of a reduce, evaluated as columns, with filters applied.

use std::rc::Rc;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray};
use arrow::buffer::NullBuffer;
use arrow::compute::nullif;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion_physical_expr::expressions::{CaseExpr, Column};
use tidemill_ir::{Aggregate, AggregateFunction, Scalar};
use tidemill_log::{Error, Kind, Result};

use super::compute::{Stage, compute};
use crate::chunk::{Chunk, ChunkStream};
use crate::context::Context;

/// Which of the evaluated columns are one aggregate's arguments and filter.
struct Slot {
    /// Which aggregate it is.
    function: AggregateFunction,
    /// The arguments' columns; none for `count(*)` without a filter.
    columns: Vec<usize>,
    /// Which of them must not be null, or the row does not count.
    needed: std::ops::Range<usize>,
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
    /// The arguments of each aggregate; none for `count(*)`. All arguments of an aggregate are null
    /// where the row does not count for it: where the filter is not true, or an argument is null.
    pub(crate) arguments: Vec<Vec<ArrayRef>>,
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
                let read = read(aggregate);
                let columns = read
                    .iter()
                    .map(|scalar| Ok(add(&guarded(aggregate, scalar)?)));
                let mut columns: Vec<usize> = columns.collect::<Result<_>>()?;
                if columns.is_empty() {
                    // `count(*)` with a filter counts the rows in which the filter is true.
                    columns.extend(filter);
                }
                let needed = match aggregate.function.is_collected() {
                    true => value_column(aggregate)..value_column(aggregate) + 1,
                    false => 0..columns.len(),
                };
                Ok(Slot {
                    function: aggregate.function,
                    columns,
                    needed,
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

    /// The aggregates' functions, each with the type of its first argument.
    pub(crate) fn functions(&self) -> impl Iterator<Item = (AggregateFunction, Option<DataType>)> {
        let slots = self.slots.iter();
        slots.map(|slot| (slot.function, self.kinds(slot).next().cloned()))
    }

    /// The argument types of the first aggregate.
    pub(crate) fn first_kinds(&self) -> Vec<DataType> {
        let first = self.slots.first().into_iter();
        first.flat_map(|slot| self.kinds(slot)).cloned().collect()
    }

    /// The argument types of an aggregate.
    fn kinds(&self, slot: &Slot) -> impl Iterator<Item = &DataType> {
        let fields = self.stage.schema.fields();
        slot.columns
            .iter()
            .map(|column| fields[*column].data_type())
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
        let mut moved = aggregate.clone();
        let read = read_count(aggregate);
        for argument in moved.arguments.iter_mut().take(read) {
            *argument = place(guarded(aggregate, argument)?);
        }
        for by in &mut moved.order {
            by.scalar = place(guarded(aggregate, &by.scalar)?);
        }
        moved.filter = moved.filter.map(&mut place);
        placed.push(moved);
    }
    let schema = numbered(&outputs, input)?;
    let stream = compute(stream, context, Vec::new(), outputs, Arc::clone(&schema));
    Ok((stream, schema, keys, placed))
}

/// The number of arguments that are evaluated. The second one of a collected function is a literal.
fn read_count(aggregate: &Aggregate) -> usize {
    match aggregate.function.is_collected() {
        true => 1,
        false => aggregate.arguments.len(),
    }
}

/// What is evaluated of each row: the arguments. For collected functions: the expressions of the
/// order, and then the first argument, unless it is one of them.
fn read(aggregate: &Aggregate) -> Vec<Scalar> {
    let arguments = aggregate.arguments.iter().take(read_count(aggregate));
    let order = aggregate.order.iter().map(|by| &by.scalar);
    let mut read: Vec<Scalar> = order.cloned().collect();
    let ordered = read.len();
    for argument in arguments {
        let known = |by: &Scalar| by.text == argument.text;
        if !read.iter().take(ordered).any(known) {
            read.push(argument.clone());
        }
    }
    read
}

/// Which of the evaluated columns of a collected function is its first argument.
pub(crate) fn value_column(aggregate: &Aggregate) -> usize {
    let first = aggregate.arguments.first();
    let mut order = aggregate.order.iter();
    let known = order.position(|by| first.is_some_and(|first| by.scalar.text == first.text));
    known.unwrap_or(aggregate.order.len())
}

/// An argument of an aggregate, evaluated only where its filter is true: `sum(1 / x) FILTER (WHERE
/// x <> 0)` does not divide by zero.
fn guarded(aggregate: &Aggregate, argument: &Scalar) -> Result<Scalar> {
    let Some(filter) = &aggregate.filter else {
        return Ok(argument.clone());
    };
    if argument.expr.downcast_ref::<Column>().is_some() {
        return Ok(argument.clone());
    }
    let when = (Arc::clone(&filter.expr), Arc::clone(&argument.expr));
    let text = format!("CASE WHEN {} THEN {} END", filter.text, argument.text);
    let expr = CaseExpr::try_new(None, vec![when], None)
        .map_err(|error| Error::with_source(Kind::Bug, format!("`{text}` is no case"), error))?;
    Ok(Scalar {
        expr: Arc::new(expr),
        text,
    })
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

/// The argument columns of an aggregate, all of them null in rows that do not count.
fn masked(columns: &[ArrayRef], slot: &Slot) -> Result<Vec<ArrayRef>> {
    let read = slot
        .columns
        .iter()
        .map(|index| Arc::clone(&columns[*index]));
    let read: Vec<ArrayRef> = read.collect();
    let filter = slot.filter.map(|index| columns[index].as_boolean());
    if filter.is_none() && read.len() < 2 {
        return Ok(read);
    }
    let needed = read.get(slot.needed.clone()).unwrap_or_default();
    let whole = needed.iter().fold(None, |all: Option<NullBuffer>, column| {
        NullBuffer::union(all.as_ref(), column.logical_nulls().as_ref())
    });
    let counts = |row: usize| {
        let passes = filter.is_none_or(|filter| filter.is_valid(row) && filter.value(row));
        passes && whole.as_ref().is_none_or(|whole| whole.is_valid(row))
    };
    let rows = read.first().map_or(0, |column| column.len());
    let out: BooleanArray = (0..rows).map(|row| Some(!counts(row))).collect();
    let masked = read.iter().map(|column| nullif(column, &out));
    masked
        .collect::<std::result::Result<_, _>>()
        .map_err(tidemill_ir::row::bug)
}
