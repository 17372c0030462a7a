//! Top-k: the first rows of each group in an order.
//!
//! Rows are arranged by group, with the ORDER BY columns first in the values ([`super::arrange`]).
//! The rows of a top-k are then the first values of the group in the trace, and
//! [`crate::operator::top_k::scan`] finds them.
//!
//! Frontier contract: that of [`crate::operator::top_k::scan`].

pub(crate) mod scan;

use std::rc::Rc;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array};
use arrow::datatypes::SchemaRef;
use scan::{Kept, first};
use tidemill_ir::row::{Row, batch, nullable};
use tidemill_ir::{Epoch, OrderBy, Scalar};
use tidemill_log::Result;

use super::arrange::{Decoder, Layout, NullKeys, arrange_values};
use super::compute::chunks::chunks;
use crate::chunk::{Chunk, ChunkStream};
use crate::context::Context;
use crate::context::site::Site;

/// The groups of a top-k and the order of their rows.
pub(crate) struct Groups<'a> {
    /// The expressions that rows are grouped by; empty for one group.
    pub(crate) partition: &'a [Scalar],
    /// The order of a group's rows. Rows that are equal in it are ordered by their other columns.
    pub(crate) order: &'a [OrderBy],
    /// Where the arrangement's state is kept; `None` if it is computed from other state.
    pub(crate) site: Option<Site>,
}

/// Renders a top-k. `schema` has the input's columns, and the row number if it is wanted.
///
/// # Errors
/// `Bug` when an expression has no type over the input, or a type that cannot be encoded.
pub(crate) fn top_k<'scope>(
    (stream, input): (ChunkStream<'scope>, &SchemaRef),
    context: &Rc<Context>,
    of: Groups<'_>,
    kept: Kept,
    schema: &SchemaRef,
) -> Result<ChunkStream<'scope>> {
    let layout = Layout::new(&nullable(input), of.partition, of.order)?;
    let updates = layout.updates(stream, context, NullKeys::Kept)?;
    let arranged = arrange_values(updates, "ArrangeTopK", context, of.site.as_ref());
    let rows = first(arranged, kept);
    let decoder = layout.decoder()?;
    let (schema, numbered) = (nullable(schema), kept.numbered);
    Ok(chunks(rows, "TopKChunks", context, move |epoch, rows| {
        chunk(&decoder, &schema, epoch, rows, numbered)
    }))
}

/// The rows of one epoch as a chunk; with the row number as the last column if `numbered`.
fn chunk(
    decoder: &Decoder,
    schema: &SchemaRef,
    epoch: Epoch,
    rows: &[((Row, Row, i64), i64)],
    numbered: bool,
) -> Result<Chunk> {
    let keys = rows.iter().map(|((key, ..), _)| key.bytes());
    let values = rows.iter().map(|((_, value, _), _)| value.bytes());
    let mut columns: Vec<ArrayRef> = decoder.columns(keys, values)?;
    if numbered {
        let numbers = rows.iter().map(|((.., number), _)| *number);
        columns.push(Arc::new(Int64Array::from_iter_values(numbers)));
    }
    Ok(Chunk {
        epoch,
        batch: batch(schema, columns, rows.len())?,
        diffs: rows.iter().map(|(_, diff)| *diff).collect(),
    })
}
