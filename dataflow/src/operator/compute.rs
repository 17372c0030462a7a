//! Stateless operators: filters and projections, evaluated on whole Arrow batches.
//!
//! Frontier contract: output is at the input's epoch, in the same activation. No capability is
//! held.
//!
//! If the evaluation of a batch fails (an overflow, a division by zero), the batch is halved until
//! the failing row is found. Only this row becomes a dead letter. A batch without a failing row
//! costs nothing extra; one failing row among `n` costs about `2 · log2(n)` more evaluations.

pub(crate) mod chunks;
pub(crate) mod temporal;
pub(crate) mod values;

use std::rc::Rc;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::cast;
use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use tidemill_ir::Scalar;
use tidemill_ir::row::batch;
use tidemill_log::{Error, Kind, Result};
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::Operator;

use crate::chunk::time::Time;
use crate::chunk::{Chunk, ChunkStream};
use crate::context::Context;

/// Renders a filter and projection. The outputs are cast to the types of `schema`.
pub(crate) fn compute<'scope, T: Time>(
    input: ChunkStream<'scope, T>,
    context: &Rc<Context>,
    filters: Vec<Scalar>,
    outputs: Vec<Scalar>,
    schema: SchemaRef,
) -> ChunkStream<'scope, T> {
    let context = Rc::clone(context);
    let stage = Stage {
        view: context.view(),
        filters,
        outputs,
        schema,
    };
    input.unary(Pipeline, "Compute", move |_, _| {
        move |input, output| {
            input.for_each(|cap, chunks| {
                let mut session = output.session(&cap);
                for chunk in chunks.drain(..) {
                    let mut computed = Vec::new();
                    stage.each(&chunk, &context, &mut computed);
                    session.give_iterator(computed.into_iter().filter(|c| !c.diffs.is_empty()));
                }
            });
        }
    })
}

/// What became of the rows of a chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// They passed the filters, and their expressions are computed.
    Computed,
    /// A filter or expression cannot be evaluated for the one row.
    Failed,
}

/// The filters and expressions of a view, bound to one input schema.
pub(crate) struct Stage {
    /// The view's name, for dead letters.
    pub(crate) view: Arc<str>,
    /// Conditions that a row must pass, evaluated in order.
    pub(crate) filters: Vec<Scalar>,
    /// The expressions of the output columns.
    pub(crate) outputs: Vec<Scalar>,
    /// The schema of the output.
    pub(crate) schema: SchemaRef,
}

impl Stage {
    /// Evaluates a chunk and appends the results. Rows that fail become dead letters.
    pub(crate) fn each<T: Time>(
        &self,
        chunk: &Chunk<T>,
        context: &Context,
        computed: &mut Vec<Chunk<T>>,
    ) {
        self.each_or(chunk, context, &mut |chunk, outcome| {
            if outcome == Outcome::Computed {
                computed.push(chunk);
            }
        });
    }

    /// As [`Stage::each`]. The rows that fail are passed on too, as they came in.
    pub(crate) fn each_or<T: Time>(
        &self,
        chunk: &Chunk<T>,
        context: &Context,
        take: &mut impl FnMut(Chunk<T>, Outcome),
    ) {
        match self.apply(chunk) {
            Ok(computed) => take(computed, Outcome::Computed),
            Err(error) if chunk.diffs.len() <= 1 => {
                context.refuse_row(&self.view, chunk, &error);
                take(chunk.clone(), Outcome::Failed);
            }
            Err(_) => {
                let half = chunk.diffs.len() / 2;
                let rest = chunk.diffs.len() - half;
                self.each_or(&chunk.slice(0, half), context, take);
                self.each_or(&chunk.slice(half, rest), context, take);
            }
        }
    }

    /// Evaluates a chunk as a whole; `Data` if any row fails.
    fn apply<T: Time>(&self, chunk: &Chunk<T>) -> Result<Chunk<T>> {
        // Filters are applied one after the other, so a later filter sees only rows that passed the
        // earlier ones: `x <> 0 AND 10 / x > 1` refuses no row.
        let mut filtered = chunk.clone();
        for filter in &self.filters {
            let keep = evaluate(filter, &filtered.batch)?;
            let keep = keep.as_boolean_opt().ok_or_else(|| not_boolean(filter))?;
            filtered = filtered.filter(keep)?;
        }
        let columns = columns(&self.outputs, &self.schema, &filtered.batch)?;
        let batch = batch(&self.schema, columns, filtered.diffs.len())?;
        Ok(Chunk {
            epoch: chunk.epoch,
            batch,
            diffs: filtered.diffs,
        })
    }
}

/// Evaluates expressions and casts them to the types of `schema`.
fn columns(outputs: &[Scalar], schema: &SchemaRef, input: &RecordBatch) -> Result<Vec<ArrayRef>> {
    let typed = outputs.iter().zip(schema.fields());
    typed
        .map(|(scalar, field)| {
            let column = evaluate(scalar, input)?;
            if column.data_type() == field.data_type() {
                return Ok(column);
            }
            cast(&column, field.data_type()).map_err(tidemill_ir::row::bug)
        })
        .collect()
}

/// Evaluates one expression to a column with as many rows as the batch.
///
/// # Errors
/// `Data` when a row cannot be evaluated, with the expression's text.
pub(crate) fn evaluate(scalar: &Scalar, input: &RecordBatch) -> Result<ArrayRef> {
    let value = scalar.expr.evaluate(input);
    value
        .and_then(|value| value.into_array(input.num_rows()))
        .map_err(|error| {
            let reason = error.strip_backtrace();
            Error::with_source(Kind::Data, format!("`{}`: {reason}", scalar.text), error)
        })
}

/// The `Bug` error of a filter that is not boolean.
fn not_boolean(filter: &Scalar) -> Error {
    Error::new(
        Kind::Bug,
        format!("filter `{}` is not a boolean", filter.text),
    )
}

/// The expression that reads column `index` of the input.
pub(crate) fn column(schema: &SchemaRef, index: usize) -> Scalar {
    let name = schema.field(index).name();
    let expr = datafusion_physical_expr::expressions::Column::new(name, index);
    Scalar {
        expr: Arc::new(expr),
        text: name.clone(),
    }
}
