//! INTERSECT and EXCEPT: rows counted on both sides.
//!
//! The rows of both inputs are arranged as keys without values on the worker that owns each row.
//! The difference of a row is a pair of counts, kept as [`Totals`]: `rows` counts the left input,
//! and the only cell counts the right input. Of the counts before and after an epoch follows how
//! often the row is in the output ([`SetKind::times`]).
//!
//! ```text
//! left  ─► (row, [+1,  0]) ─┐
//!                           ├─► ArrangeSetOp ─► threshold: times(l, r) ─► rows
//! right ─► (row, [ 0, +1]) ─┘
//! ```

use std::rc::Rc;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use differential_dataflow::operators::ThresholdTotal;
use smallvec::smallvec;
use tidemill_ir::row::{Row, RowCodec};
use tidemill_ir::{Epoch, SetKind};
use tidemill_log::Result;
use tidemill_state::value::totals::{Cell, Totals};
use timely::dataflow::StreamVec;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::{Concat, Operator};

use super::{decoded, rows_of};
use crate::chunk::ChunkStream;
use crate::context::Context;
use crate::context::site::Site;
use crate::operator::arrange::arrange_keys;

/// A row whose difference is its counts on both sides.
type Update = ((Row, ()), Epoch, Totals);

/// Renders a set operation over two inputs with the columns of `schema`.
///
/// # Errors
/// `Bug` when a column has a type that cannot be encoded.
pub(crate) fn set_op<'scope>(
    (left, right): (ChunkStream<'scope>, ChunkStream<'scope>),
    context: &Rc<Context>,
    kind: SetKind,
    schema: &SchemaRef,
    site: Option<&Site>,
) -> Result<ChunkStream<'scope>> {
    let left = counted(left, context, schema, |count| Totals {
        rows: count,
        cells: smallvec![Cell::default()],
    })?;
    let right = counted(right, context, schema, |count| Totals {
        rows: 0,
        cells: smallvec![Cell {
            count,
            ..Cell::default()
        }],
    })?;
    let arranged = arrange_keys(left.concat(right), "ArrangeSetOp", context, site);
    let times = move |totals: &Totals| {
        let right = totals.cells.first().map_or(0, |cell| cell.count);
        kind.times(totals.rows, right)
    };
    let rows = arranged.threshold_semigroup(move |_row, now, before| {
        let change = times(now) - before.map_or(0, times);
        (change != 0).then_some(change as isize)
    });
    decoded(rows, context, schema)
}

/// The rows of one side, with the differences that `counts` makes of their numbers.
fn counted<'scope>(
    input: ChunkStream<'scope>,
    context: &Rc<Context>,
    schema: &SchemaRef,
    counts: impl Fn(i64) -> Totals + 'static,
) -> Result<StreamVec<'scope, Epoch, Update>> {
    let encoder = RowCodec::new(Arc::clone(schema))?;
    let context = Rc::clone(context);
    Ok(input.unary(Pipeline, "SetOpRows", move |_, _| {
        move |input, output| {
            input.for_each(|cap, chunks| {
                let mut session = output.session(&cap);
                for chunk in chunks.drain(..) {
                    match rows_of(&encoder, &chunk) {
                        Ok(rows) => session.give_iterator(
                            rows.into_iter()
                                .map(|(row, epoch, count)| (row, epoch, counts(count as i64))),
                        ),
                        Err(error) => context.fail(error),
                    }
                }
            });
        }
    }))
}
