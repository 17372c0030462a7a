//! `min` and `max`: the first of a group's sorted values.
//!
//! Each of these aggregates keeps all values of a group in an arrangement, because a retraction of
//! the first value must find the next one. The values are sorted ascending for `min`, descending
//! for `max`. [`crate::operator::top_k::scan`] finds the first one.

use std::rc::Rc;

use arrow::compute::SortOptions;
use arrow::datatypes::SchemaRef;
use differential_dataflow::AsCollection;
use tidemill_ir::row::{Order, RowCodec};
use tidemill_log::Result;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::Operator;

use super::grouping::{Grouping, PartRows};
use super::values::{Sorted, arranged_values};
use crate::chunk::ChunkStream;
use crate::context::site::Site;
use crate::operator::argument::Arguments;
use crate::operator::top_k::scan::{First, Kept, first};

/// Renders one `min` or `max`; `outputs` is its one column. Values sort in `order` with nulls last,
/// so a null is first only in a group that contains nothing else.
///
/// # Errors
/// `Bug` when a key or the argument has a type that cannot be encoded.
pub(crate) fn min_max<'scope>(
    grouping: &Grouping<'scope>,
    input: ChunkStream<'scope>,
    arguments: Arguments,
    order: Order,
    outputs: SchemaRef,
    site: Option<&Site>,
) -> Result<PartRows<'scope>> {
    let sorted = Sorted {
        kinds: arguments.first_kinds(),
        options: vec![SortOptions {
            descending: order == Order::Descending,
            nulls_first: false,
        }],
    };
    let decoder = sorted.codec()?;
    let arranged = arranged_values(grouping, (input, arguments), &sorted, "ArrangeMinMax", site)?;
    let firsts = first(arranged, Kept::FIRST);
    let encoder = RowCodec::new(outputs)?;
    let context = Rc::clone(&grouping.context);
    let rows = firsts.unary(Pipeline, "FinishMinMax", move |_, _| {
        move |input, output| {
            input.for_each(|cap, updates: &mut Vec<First>| {
                let mut session = output.session(&cap);
                let decoded = decoder.decode(updates.iter().map(|((_, value, _), _, _)| value));
                let rows = decoded.and_then(|b| encoder.encode(b.columns(), b.num_rows()));
                match rows {
                    Ok(rows) => session.give_iterator(updates.drain(..).enumerate().map(
                        |(index, ((key, _, _), time, diff))| ((key, rows.row(index)), time, diff),
                    )),
                    Err(error) => context.fail(error),
                }
            });
        }
    });
    Ok(rows.as_collection())
}
