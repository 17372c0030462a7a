//! `min` and `max`: the first of a group's sorted values.
//!
//! Each of these aggregates keeps all values of a group in an arrangement, because a retraction of
//! the first value must find the next one. The values are sorted ascending for `min`, descending
//! for `max`. [`crate::operator::top_k::scan`] finds the first one.

use std::rc::Rc;
use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::datatypes::{Field, Schema, SchemaRef};
use differential_dataflow::AsCollection;
use tidemill_ir::Epoch;
use tidemill_ir::row::{Order, Row, RowCodec};
use tidemill_log::Result;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::{Concat, Operator};

use super::grouping::{Grouping, PartRows};
use super::seed::seed;
use crate::chunk::ChunkStream;
use crate::context::site::Site;
use crate::operator::argument::{Arguments, Columns};
use crate::operator::arrange::{Update, arrange_values};
use crate::operator::group::group;
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
    let value = Arc::new(Schema::new(vec![Field::new(
        "value",
        arguments.kind(0).clone(),
        true,
    )]));
    let pairs = Pairs {
        keys: RowCodec::new(Arc::clone(&grouping.keys))?,
        values: RowCodec::ordered(Arc::clone(&value) as SchemaRef, order)?,
        both: RowCodec::new(both(&grouping.keys, &value))?,
    };
    let null = pairs.null()?;
    let context = Rc::clone(&grouping.context);
    let mut updates = input.unary(Pipeline, "Values", move |_, _| {
        move |input, output| {
            input.for_each(|cap, chunks| {
                let mut session = output.session(&cap);
                for chunk in chunks.drain(..) {
                    for columns in arguments.columns(&chunk, &context) {
                        match pairs.of(columns, chunk.epoch) {
                            Ok(updates) => session.give_iterator(updates.into_iter()),
                            Err(error) => context.fail(error),
                        }
                    }
                }
            });
        }
    });
    if grouping.keys.fields().is_empty() {
        // An aggregate without keys has one row even over an empty input.
        let one: Update = ((Row::default(), null), 0, 1);
        updates = updates.concat(seed(grouping.scope, one));
    }
    let arranged = arrange_values(updates, "ArrangeMinMax", &grouping.context, site);
    let firsts = first(arranged, Kept::FIRST);
    let decoder = RowCodec::ordered(value, order)?;
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

/// Turns columns into (group, value) updates.
struct Pairs {
    /// The codec of group keys.
    keys: RowCodec,
    /// The codec of values, in sort order.
    values: RowCodec,
    /// The codec of (group, value), by which a batch is deduplicated.
    both: RowCodec,
}

impl Pairs {
    /// The encoded null: the value of a group that contains no other.
    fn null(&self) -> Result<Row> {
        let nothing = arrow::array::new_null_array(self.values.schema().field(0).data_type(), 1);
        Ok(self.values.encode(&[nothing], 1)?.row(0))
    }

    /// Each distinct (group, value) of a batch once, with the sum of its differences.
    fn of(&self, columns: Columns, epoch: Epoch) -> Result<Vec<Update>> {
        let count = columns.diffs.len();
        let value: Vec<ArrayRef> = columns.arguments.into_iter().flatten().collect();
        let mut all = columns.keys.clone();
        all.extend(value.iter().cloned());
        let groups = group(&self.both, &all, count)?;
        let mut sums = vec![0; groups.keys.len()];
        let mut first_row = vec![0; groups.keys.len()];
        for (row, (group, diff)) in groups.of_row.iter().zip(columns.diffs.iter()).enumerate() {
            sums[*group as usize] += *diff as isize;
            first_row[*group as usize] = row;
        }
        let keys = self.keys.encode(&columns.keys, count)?;
        let values = self.values.encode(&value, count)?;
        let updates = first_row.into_iter().zip(sums).filter(|(_, sum)| *sum != 0);
        Ok(updates
            .map(|(row, sum)| ((keys.row(row), values.row(row)), epoch, sum))
            .collect())
    }
}

/// The schema of the keys, then the value.
fn both(keys: &SchemaRef, value: &Schema) -> SchemaRef {
    let fields = keys.fields().iter().chain(value.fields()).cloned();
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}
