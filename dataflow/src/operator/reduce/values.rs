//! The values of each group, sorted: what `min`, `max` and collected aggregates are read from.
//!
//! A row that does not count for the aggregate is kept as a value of nulls. Therefore a group is
//! there as long as it has rows.
//!
//! ```text
//! rows ─► Values (batch, group, value) ─► exchange ─► arrangement by group, values in order
//! ```

use std::rc::Rc;
use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::compute::SortOptions;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use differential_dataflow::operators::arrange::Arranged;
use tidemill_ir::Epoch;
use tidemill_ir::row::{Row, RowCodec};
use tidemill_log::Result;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::{Concat, Operator};

use super::grouping::Grouping;
use super::seed::seed;
use crate::chunk::ChunkStream;
use crate::context::site::Site;
use crate::operator::argument::{Arguments, Columns};
use crate::operator::arrange::{Update, Values, arrange_values};
use crate::operator::distinct::group::group;

/// The columns of a value and their order.
pub(crate) struct Sorted {
    /// The types of the columns.
    pub(crate) kinds: Vec<DataType>,
    /// The order of each column.
    pub(crate) options: Vec<SortOptions>,
}

impl Sorted {
    /// The codec of values, whose bytes sort as the values do.
    ///
    /// # Errors
    /// `Data` when a column has a type that cannot be encoded.
    pub(crate) fn codec(&self) -> Result<RowCodec> {
        RowCodec::sorted(self.schema(), self.options.iter().copied())
    }

    /// The value of a row that does not count.
    ///
    /// # Errors
    /// As [`Sorted::codec`].
    pub(crate) fn null(&self) -> Result<Row> {
        let nulls = self.kinds.iter();
        let nulls: Vec<ArrayRef> = nulls
            .map(|kind| arrow::array::new_null_array(kind, 1))
            .collect();
        Ok(self.codec()?.encode(&nulls, 1)?.row(0))
    }

    /// The columns, with their numbers as names.
    fn schema(&self) -> SchemaRef {
        let kinds = self.kinds.iter().enumerate();
        let fields =
            kinds.map(|(index, kind)| Field::new(format!("value {index}"), kind.clone(), true));
        Arc::new(Schema::new(fields.collect::<Vec<_>>()))
    }
}

/// Arranges the arguments of the first aggregate by group.
///
/// # Errors
/// `Data` when a key or an argument has a type that cannot be encoded.
pub(crate) fn arranged_values<'scope>(
    grouping: &Grouping<'scope>,
    (input, arguments): (ChunkStream<'scope>, Arguments),
    sorted: &Sorted,
    name: &str,
    site: Option<&Site>,
) -> Result<Arranged<'scope, Values>> {
    let schema = sorted.schema();
    let both = grouping.keys.fields().iter().chain(schema.fields());
    let pairs = Pairs {
        keys: RowCodec::new(Arc::clone(&grouping.keys))?,
        values: sorted.codec()?,
        both: RowCodec::new(Arc::new(Schema::new(both.cloned().collect::<Vec<_>>())))?,
    };
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
        let one: Update = ((Row::default(), sorted.null()?), 0, 1);
        updates = updates.concat(seed(grouping.scope, one));
    }
    Ok(arrange_values(updates, name, &grouping.context, site))
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
    /// Each distinct (group, value) of a batch once, with the sum of its differences.
    fn of(&self, columns: Columns, epoch: Epoch) -> Result<Vec<Update>> {
        let count = columns.diffs.len();
        let value: Vec<ArrayRef> = columns.arguments.into_iter().next().unwrap_or_default();
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
