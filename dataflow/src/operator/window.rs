//! Window functions: each row with values that are computed over the rows of its partition.
//!
//! Rows are arranged by partition, with the ORDER BY columns first in the values
//! ([`super::arrange`]), so the rows of a partition are in order in the trace. For each epoch in
//! which a partition changes, the results of all its rows before and after the change are computed
//! from the trace, and the rows whose results differ are given. The operator keeps no state of its
//! own.
//!
//! ```text
//! new batch ─► scan: partition before, partition now ─► partitions: columns, groups of peers
//!                                                           ├─► frames: the rows that are read
//!                                                           └─► functions: a column of results
//!              rows ◄─ differences of the two lists ◄───────┘
//! ```
//!
//! The work for a change grows with the partition, except for functions that read only rows within
//! a fixed distance (`lag`, `lead`, ROWS with offsets). For these, the rows around the change are
//! enough ([`scan`]).
//!
//! A result that is out of the range of its type leaves its row out. The row becomes a dead letter.
//!
//! Frontier contract: that of [`crate::operator::top_k::scan`].

mod differences;
mod frames;
mod functions;
mod partitions;
mod range;
mod scan;

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use arrow::array::{ArrayRef, UInt64Array};
use arrow::compute::take;
use arrow::datatypes::{Field, Schema, SchemaRef};
use differences::{Given, differences};
use partitions::{Listed, Partitions};
use tidemill_ir::row::{RowCodec, batch, nullable};
use tidemill_ir::{Epoch, OrderBy, WindowFunction};
use tidemill_log::{Error, Kind, Result};

use super::arrange::{Decoder, Layout, NullKeys, arrange_values};
use super::top_k::Groups;
use super::top_k::scan::each_change;
use crate::chunk::{Chunk, ChunkStream};
use crate::context::Context;

/// Renders window functions. `schema` has the input's columns, then the functions' results.
///
/// # Errors
/// `Bug` when an expression has no type over the input, or a type that cannot be encoded.
pub(crate) fn window<'scope>(
    (stream, input): (ChunkStream<'scope>, &SchemaRef),
    context: &Rc<Context>,
    of: Groups<'_>,
    functions: &[WindowFunction],
    schema: &SchemaRef,
) -> Result<ChunkStream<'scope>> {
    let layout = Layout::new(&nullable(input), of.partition, of.order)?;
    let updates = layout.updates(stream, context, NullKeys::Kept)?;
    let arranged = arrange_values(updates, "ArrangeWindow", context, of.site.as_ref());
    let schema = nullable(schema);
    let results = schema.fields().iter().skip(input.fields().len()).cloned();
    let results = Arc::new(Schema::new(results.collect::<Vec<_>>()));
    let evaluation = Evaluation {
        decoder: layout.decoder()?,
        input: nullable(input),
        order: of.order.to_vec(),
        results: RowCodec::new(results)?,
        functions: functions.to_vec(),
        schema,
        context: Rc::clone(context),
        view: context.view(),
    };
    let reach = scan::reach(functions);
    Ok(each_change(
        arranged,
        "Window",
        move |new, held, lower, give| {
            scan::changes(new, held, lower, reach, |listed| {
                match evaluation.chunks(listed) {
                    Ok(chunks) => chunks.into_iter().for_each(&mut *give),
                    Err(error) => evaluation.context.fail(error),
                }
            });
        },
    ))
}

/// What turns the rows of partitions into chunks of changes.
struct Evaluation {
    /// Turns keys and values back to columns.
    decoder: Decoder,
    /// The columns of the input.
    input: SchemaRef,
    /// The order of a partition's rows.
    order: Vec<OrderBy>,
    /// Encodes the results of a row, to compare them.
    results: RowCodec,
    /// The functions.
    functions: Vec<WindowFunction>,
    /// The columns of the output.
    schema: SchemaRef,
    /// What operators share.
    context: Rc<Context>,
    /// The view's name, for dead letters.
    view: Arc<str>,
}

impl Evaluation {
    /// The changes of the output from the partitions before and after each change.
    fn chunks(&self, listed: &Listed<'_>) -> Result<Vec<Chunk>> {
        let (columns, values) = self.decoder.parts(listed.keys(), listed.values())?;
        let rows = batch(&self.input, columns, listed.rows.len())?;
        let order = values.get(..self.order.len()).unwrap_or_default();
        let partitions = Partitions::new(&listed.bounds, order, listed.rows.len())?;
        let mut all = rows.columns().to_vec();
        let mut left_out: Vec<Option<usize>> = vec![None; listed.rows.len()];
        for (index, function) in self.functions.iter().enumerate() {
            let kind = self.results.schema().field(index).data_type();
            let by = (self.order.as_slice(), order);
            let (column, failed) = functions::evaluate(function, kind, &rows, &partitions, by)?;
            all.push(column);
            for row in failed {
                if let Some(place) = left_out.get_mut(row) {
                    *place = Some(index);
                }
            }
        }
        let results = all.get(self.input.fields().len()..).unwrap_or_default();
        let results = self.results.encode(results, listed.rows.len())?;
        let mut given: BTreeMap<Epoch, Vec<Given>> = BTreeMap::new();
        differences(listed, &results, &left_out, |epoch, row| {
            given.entry(epoch).or_default().push(row);
        });
        let mut chunks = Vec::new();
        for (epoch, rows) in given {
            let (refused, kept): (Vec<Given>, Vec<Given>) =
                rows.into_iter().partition(|given| given.left_out.is_some());
            self.refuse(epoch, &all, &refused)?;
            if !kept.is_empty() {
                chunks.push(Chunk {
                    epoch,
                    batch: batch(&self.schema, taken(&all, &kept)?, kept.len())?,
                    diffs: kept.iter().map(|given| given.diff).collect(),
                });
            }
        }
        Ok(chunks)
    }

    /// Makes dead letters of rows that have a result out of range and did not have it before.
    fn refuse(&self, epoch: Epoch, columns: &[ArrayRef], refused: &[Given]) -> Result<()> {
        for given in refused {
            let Some(name) = given.left_out.and_then(|index| self.functions.get(index)) else {
                continue;
            };
            let columns = columns.get(..self.input.fields().len()).unwrap_or_default();
            let chunk = Chunk {
                epoch,
                batch: batch(&self.input, taken(columns, &[*given])?, 1)?,
                diffs: Arc::new([given.diff]),
            };
            let what = format!("`{name}` is out of range; the row is left out");
            let error = Error::new(Kind::Data, what);
            self.context.refuse_row(&self.view, &chunk, &error);
        }
        Ok(())
    }
}

/// The given rows of columns.
fn taken(columns: &[ArrayRef], given: &[Given]) -> Result<Vec<ArrayRef>> {
    let rows = given.iter().map(|given| given.row as u64);
    let rows = UInt64Array::from_iter_values(rows);
    let columns = columns.iter().map(|column| take(column, &rows, None));
    let columns = columns.collect::<std::result::Result<_, _>>();
    columns.map_err(tidemill_ir::row::bug)
}

/// The schema of ORDER BY columns, with the numbers from 0 as names.
fn unnamed(columns: &[ArrayRef]) -> SchemaRef {
    let fields = columns.iter().enumerate().map(|(index, column)| {
        let kind = column.data_type().clone();
        Field::new(index.to_string(), kind, true)
    });
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}
