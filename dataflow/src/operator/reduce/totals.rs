//! Totals of a reduce: rows are combined per batch, exchanged by group, and added up as
//! differences.
//!
//! ```text
//! rows ─► Combine (batch, group) ─► exchange ─► ArrangeTotals ─► count_total ─► FinishTotals
//! ```

use std::rc::Rc;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use differential_dataflow::AsCollection;
use differential_dataflow::operators::CountTotal;
use smallvec::smallvec;
use tidemill_ir::Epoch;
use tidemill_ir::row::{Row, RowCodec};
use tidemill_log::{Error, Kind, Result};
use tidemill_state::value::totals::{Cell, Totals};
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::{Concat, Operator};

use super::accumulate::Accumulator;
use super::grouping::{Grouping, PartRows};
use super::rows::Rows;
use super::seed::seed;
use crate::chunk::ChunkStream;
use crate::context::Context;
use crate::context::site::Site;
use crate::operator::argument::{Arguments, Columns};
use crate::operator::arrange::arrange_keys;
use crate::operator::distinct::group::group;

/// A group key whose difference is the totals of the group.
type Update = ((Row, ()), Epoch, Totals);

/// Renders the part; `outputs` are the columns of its aggregates.
///
/// # Errors
/// `Bug` when a key or an aggregate has a type that cannot be computed here.
pub(crate) fn totals<'scope>(
    grouping: &Grouping<'scope>,
    input: ChunkStream<'scope>,
    arguments: Arguments,
    outputs: SchemaRef,
    site: Option<&Site>,
) -> Result<PartRows<'scope>> {
    let accumulators: Vec<Accumulator> = arguments
        .functions()
        .zip(outputs.fields())
        .map(|((function, kind), field)| {
            Accumulator::new(function, kind, field.data_type().clone())
        })
        .collect();
    let adding = accumulators.clone();
    let keys = RowCodec::new(Arc::clone(&grouping.keys))?;
    let context = Rc::clone(&grouping.context);
    let mut updates = input.unary(Pipeline, "Combine", move |_, _| {
        move |input, output| {
            input.for_each(|cap, chunks| {
                let mut session = output.session(&cap);
                for chunk in chunks.drain(..) {
                    for columns in arguments.columns(&chunk, &context) {
                        match combine(&keys, &adding, columns) {
                            Ok(groups) => session.give_iterator(
                                groups.map(|(key, totals)| ((key, ()), chunk.epoch, totals)),
                            ),
                            Err(error) => context.fail(error),
                        }
                    }
                }
            });
        }
    });
    if grouping.keys.fields().is_empty() {
        // An aggregate without keys has one row even over an empty input. This seed row keeps its
        // group.
        let cells = smallvec![Cell::default(); cells(&accumulators)];
        let one: Update = ((Row::default(), ()), 0, Totals { rows: 1, cells });
        updates = updates.concat(seed(grouping.scope, one));
    }
    let arranged = arrange_keys(updates, "ArrangeTotals", &grouping.context, site);
    let groups = arranged.count_total_core::<isize>();
    let codec = RowCodec::new(outputs)?;
    let context = Rc::clone(&grouping.context);
    let view = context.view();
    let rows = groups.inner.unary(Pipeline, "FinishTotals", move |_, _| {
        move |input, output| {
            input.for_each(|cap, updates| {
                let mut session = output.session(&cap);
                match finish(&accumulators, &codec, updates, (&view, &context)) {
                    Ok(rows) => {
                        let keyed = updates.drain(..).zip(rows);
                        session.give_iterator(keyed.filter_map(|(((key, _), time, diff), row)| {
                            Some(((key, row?), time, diff))
                        }));
                    }
                    Err(error) => context.fail(error),
                }
            });
        }
    });
    Ok(rows.as_collection())
}

/// The number of cells of all aggregates together.
fn cells(accumulators: &[Accumulator]) -> usize {
    accumulators.iter().map(Accumulator::cells).sum()
}

/// Adds up the rows of each group in a batch.
fn combine(
    keys: &RowCodec,
    accumulators: &[Accumulator],
    columns: Columns,
) -> Result<impl Iterator<Item = (Row, Totals)>> {
    let groups = group(keys, &columns.keys, columns.diffs.len())?;
    let empty = Totals {
        rows: 0,
        cells: smallvec![Cell::default(); cells(accumulators)],
    };
    let mut totals = vec![empty; groups.keys.len()];
    for (group, diff) in groups.of_row.iter().zip(columns.diffs.iter()) {
        totals[*group as usize].rows += diff;
    }
    let rows = Rows {
        groups: &groups.of_row,
        times: &columns.diffs,
    };
    let mut cell = 0;
    for (accumulator, arguments) in accumulators.iter().zip(&columns.arguments) {
        accumulator.accumulate(arguments, rows, &mut totals, cell)?;
        cell += accumulator.cells();
    }
    Ok(groups.keys.into_iter().zip(totals))
}

/// The output row of each update's totals; `None` if a value is out of the range of its type. Such
/// a group becomes a dead letter and is in no view until its values fit again.
fn finish(
    accumulators: &[Accumulator],
    codec: &RowCodec,
    updates: &[((Row, Totals), Epoch, isize)],
    (view, context): (&str, &Context),
) -> Result<Vec<Option<Row>>> {
    let mut columns = Vec::new();
    let mut left_out = vec![false; updates.len()];
    let mut cell = 0;
    for (column, accumulator) in accumulators.iter().enumerate() {
        let totals = updates.iter().map(|((_, totals), _, _)| totals);
        let (values, overflow) = accumulator.finish(totals, cell)?;
        cell += accumulator.cells();
        for index in overflow {
            let ((key, _), epoch, diff) = &updates[index];
            left_out[index] = true;
            if *diff > 0 {
                let name = codec.schema().field(column).name();
                let what = format!("`{name}` is out of range; the group is left out");
                context.refuse(view, *epoch, key.bytes(), &Error::new(Kind::Data, what));
            }
        }
        columns.push(values);
    }
    let rows = codec.encode(&columns, updates.len())?;
    let row = |index: usize| (!left_out[index]).then(|| rows.row(index));
    Ok((0..rows.num_rows()).map(row).collect())
}
