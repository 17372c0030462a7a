//! Constant rows: VALUES, and SELECT without FROM.
//!
//! Worker 0 gives the rows at epoch 0, at every start. Operators that restore their state from a
//! checkpoint drop them, because the state has them already.

use arrow::record_batch::RecordBatch;
use tidemill_ir::Epoch;
use tidemill_ir::row::{batch, nullable};
use tidemill_log::Result;
use timely::dataflow::Scope;

use crate::chunk::{Chunk, ChunkStream};
use crate::operator::reduce::seed::seed;

/// A stream with these rows at epoch 0.
///
/// # Errors
/// `Bug` when the rows do not have the types of their schema.
pub(crate) fn values<'scope>(
    scope: Scope<'scope, Epoch>,
    rows: &RecordBatch,
) -> Result<ChunkStream<'scope>> {
    let schema = nullable(&rows.schema());
    let rows = batch(&schema, rows.columns().to_vec(), rows.num_rows())?;
    Ok(seed(scope, Chunk::insertions(0, rows)))
}
