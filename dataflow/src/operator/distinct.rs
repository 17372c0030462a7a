//! `SELECT DISTINCT`: each row once, for as long as its count is positive.
//!
//! Rows are added up per batch, arranged as keys without values on the worker that owns each row,
//! and counted by differential's `distinct_total`, or within a recursion by its `reduce`.

pub(crate) mod group;
pub(crate) mod set_op;

use std::rc::Rc;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use differential_dataflow::VecCollection;
use tidemill_ir::row::{Row, RowCodec};
use tidemill_log::Result;
use timely::dataflow::StreamVec;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::Operator;

use super::arrange::{Arranges, KeyUpdate};
use super::compute::chunks::chunks;
use crate::chunk::time::Time;
use crate::chunk::{Chunk, ChunkStream};
use crate::context::Context;
use crate::context::site::Site;
use group::group;

/// Renders a distinct over all columns of `schema`.
///
/// # Errors
/// `Bug` when a column has a type that cannot be encoded.
pub(crate) fn distinct<'scope, T: Arranges>(
    input: ChunkStream<'scope, T>,
    context: &Rc<Context>,
    schema: &SchemaRef,
    site: Option<&Site>,
) -> Result<ChunkStream<'scope, T>> {
    let rows = encoded(input, context, schema)?;
    let arranged = T::arrange_keys(rows, "ArrangeDistinct", context, site);
    decoded(T::distinct(arranged, context), context, schema)
}

/// Turns a collection of encoded rows back to chunks with the columns of `schema`.
///
/// # Errors
/// `Bug` when a column has a type that cannot be decoded.
pub(crate) fn decoded<'scope, T: Time>(
    rows: VecCollection<'scope, T, Row, isize>,
    context: &Rc<Context>,
    schema: &SchemaRef,
) -> Result<ChunkStream<'scope, T>> {
    let decoder = RowCodec::new(Arc::clone(schema))?;
    Ok(chunks(
        rows.inner,
        "RowChunks",
        context,
        move |epoch, rows| {
            let rows = rows.iter().map(|(row, diff)| (row, *diff));
            Chunk::decode(epoch, &decoder, rows)
        },
    ))
}

/// Encodes the rows of `schema` as keys without values. Equal rows of a chunk are added up.
///
/// # Errors
/// `Bug` when a column has a type that cannot be encoded.
pub(crate) fn encoded<'scope, T: Time>(
    input: ChunkStream<'scope, T>,
    context: &Rc<Context>,
    schema: &SchemaRef,
) -> Result<StreamVec<'scope, T, KeyUpdate<T>>> {
    let encoder = RowCodec::new(Arc::clone(schema))?;
    let failing = Rc::clone(context);
    Ok(input.unary(Pipeline, "DistinctRows", move |_, _| {
        move |input, output| {
            input.for_each(|cap, chunks| {
                let mut session = output.session(&cap);
                for chunk in chunks.drain(..) {
                    match rows_of(&encoder, &chunk) {
                        Ok(rows) => session.give_iterator(rows.into_iter()),
                        Err(error) => failing.fail(error),
                    }
                }
            });
        }
    }))
}

/// The distinct rows of a chunk, each with the sum of its differences. Sums of zero are left out.
fn rows_of<T: Time>(codec: &RowCodec, chunk: &Chunk<T>) -> Result<Vec<KeyUpdate<T>>> {
    let groups = group(codec, chunk.batch.columns(), chunk.diffs.len())?;
    let mut sums = vec![0; groups.keys.len()];
    for (group, diff) in groups.of_row.iter().zip(chunk.diffs.iter()) {
        sums[*group as usize] += *diff as isize;
    }
    let rows = groups
        .keys
        .into_iter()
        .zip(sums)
        .filter(|(_, sum)| *sum != 0);
    Ok(rows
        .map(|(row, sum)| ((row, ()), chunk.epoch, sum))
        .collect())
}
