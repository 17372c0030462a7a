//! Top-k: the first rows of each group, arranged by group with the order first in the values
//! ([`super::arrange`]), so that they are the first of the trace ([`super::top_k_scan`]).
//!
//! Frontier contract: that of [`super::top_k_scan`].

use std::rc::Rc;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array};
use arrow::datatypes::SchemaRef;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::Operator;

use super::arrange::{Decoder, Layout, NullKeys, arrange_values};
use super::top_k_scan::{First, Kept, first};
use crate::chunk::{Chunk, ChunkStream, by_epoch};
use crate::context::Context;
use crate::plan::ir::{OrderBy, Scalar};
use crate::row::{Row, batch, nullable};
use crate::site::Site;
use crate::{Epoch, Result};

/// What the groups are, and how their rows are ordered.
pub(crate) struct Groups<'a> {
    pub(crate) partition: &'a [Scalar],
    pub(crate) order: &'a [OrderBy],
    /// Where the rows are kept; none when they come out of other state.
    pub(crate) site: Option<Site>,
}

/// Renders a top-k; `schema` is the input's columns, and the row's number when that is wanted.
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
    let context = Rc::clone(context);
    Ok(rows.unary(Pipeline, "TopKChunks", move |_, _| {
        move |input, output| {
            input.for_each(|cap, updates: &mut Vec<First>| {
                let mut session = output.session(&cap);
                for (epoch, rows) in by_epoch(updates.drain(..)) {
                    match chunk(&decoder, &schema, epoch, &rows, numbered) {
                        Ok(chunk) => session.give(chunk),
                        Err(error) => context.fail(error),
                    }
                }
            });
        }
    }))
}

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
