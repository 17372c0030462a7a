//! Planning of constant rows: SELECT without FROM, and the rows of VALUES.
//!
//! SELECT without FROM reads one row without columns. What is computed of constant rows alone is
//! evaluated here, and is constant. If that fails, the evaluation stays in the plan, and the row
//! becomes a dead letter when the job starts.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::array::RecordBatchOptions;
use arrow::datatypes::{Field, Schema, SchemaRef};
use datafusion_common::Result;
use datafusion_expr::logical_plan::EmptyRelation;
use tidemill_ir::{Rel, RelOp};

use super::Pending;

/// Lowers the input of a SELECT without FROM: one row without columns.
///
/// # Errors
/// An arrow error, which no plan causes.
pub(super) fn constant(none: &EmptyRelation) -> Result<Pending> {
    let schema: SchemaRef = Arc::new(Schema::empty());
    let rows = RecordBatch::try_new_with_options(
        Arc::clone(&schema),
        Vec::new(),
        &RecordBatchOptions::new().with_row_count(Some(usize::from(none.produce_one_row))),
    )?;
    let op = RelOp::Values { rows };
    Ok(Pending::of(Rel { schema, op }, Arc::clone(&none.schema)))
}

/// The outputs over constant rows as constant rows; `None` if they are not constant, if there are
/// filters, or if the evaluation fails.
///
/// # Errors
/// When an expression cannot be represented.
pub(super) fn evaluated(pending: &Pending, fields: &[Field]) -> Result<Option<Rel>> {
    let RelOp::Values { rows } = &pending.base.op else {
        return Ok(None);
    };
    if !pending.filters.is_empty() {
        return Ok(None);
    }
    let count = rows.num_rows();
    let mut columns = Vec::new();
    for output in &pending.outputs {
        let value = pending.scalar(output)?.expr.evaluate(rows);
        match value.and_then(|value| value.into_array(count)) {
            Ok(column) => columns.push(column),
            Err(_) => return Ok(None),
        }
    }
    let schema: SchemaRef = Arc::new(Schema::new(fields.to_vec()));
    let options = RecordBatchOptions::new().with_row_count(Some(count));
    let rows = RecordBatch::try_new_with_options(Arc::clone(&schema), columns, &options);
    Ok(rows.ok().map(|rows| Rel {
        schema,
        op: RelOp::Values { rows },
    }))
}

/// The same rows with the names and nullability of `schema`.
///
/// # Errors
/// An arrow error when the types differ.
pub(super) fn with_schema(rows: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch> {
    let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
    let (schema, columns) = (Arc::clone(schema), rows.columns().to_vec());
    Ok(RecordBatch::try_new_with_options(
        schema, columns, &options,
    )?)
}
