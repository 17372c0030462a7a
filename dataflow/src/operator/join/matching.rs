//! Semi and anti joins: the rows of the left side that have a partner, or that have none.
//!
//! The keys of the right side are arranged once each, however often they occur ([`once`]). A left
//! row with such a key has a partner. The rows without one are all rows minus those with one, so
//! both follow every change of either side.
//!
//! ```text
//! left rows by key ────────────────┬──────────────── − ─► rows without a partner
//!                                  ├─► join ─────────┘
//! right keys ─► distinct ─► arrange┘    └─► rows with a partner
//! ```

use std::rc::Rc;
use std::sync::Arc;

use arrow::array::new_null_array;
use arrow::datatypes::SchemaRef;
use differential_dataflow::operators::arrange::Arranged;
use differential_dataflow::{AsCollection, VecCollection};
use tidemill_ir::row::{Row, batch, nullable};
use tidemill_log::Result;
use timely::dataflow::StreamVec;

use crate::chunk::time::Time;
use crate::chunk::{Chunk, ChunkStream};
use crate::context::Context;
use crate::context::site::Site;
use crate::operator::arrange::{Arranges, Decoder, KeyUpdate, Keys, Update, Values};
use crate::operator::compute::chunks::chunks as chunked;

/// The keys of updates, without their values.
pub(crate) fn keys<T: Time>(
    updates: StreamVec<'_, T, Update<T>>,
) -> StreamVec<'_, T, KeyUpdate<T>> {
    let updates = updates.as_collection();
    updates.map(|(key, _): (Row, Row)| (key, ())).inner
}

/// An arrangement of each key once, for as long as its count is positive. If there is a site, the
/// counts are restored from it and kept at it.
pub(crate) fn once<'scope, T: Arranges>(
    keys: StreamVec<'scope, T, KeyUpdate<T>>,
    name: &str,
    context: &Rc<Context>,
    site: Option<&Site>,
) -> Arranged<'scope, Keys<isize, T>> {
    let counted = T::arrange_keys(keys, name, context, site);
    let once = T::distinct(counted, context);
    T::arrange_keys(once.map(|key| (key, ())).inner, name, context, None)
}

/// The rows whose key is among `keys`; with `alone`, all the others.
pub(crate) fn kept<'scope, T: Time>(
    rows: &Arranged<'scope, Values<T>>,
    keys: Arranged<'scope, Keys<isize, T>>,
    alone: bool,
) -> VecCollection<'scope, T, (Row, Row), isize> {
    let pair = |key: &Row, value: &Row| (key.clone(), value.clone());
    let with = rows
        .clone()
        .join_core(keys, move |key, value, ()| Some(pair(key, value)));
    match alone {
        true => rows.clone().as_collection(pair).concat(with.negate()),
        false => with,
    }
}

/// Turns keys and values back to chunks. Columns of `schema` that the rows do not have are null.
pub(crate) fn chunks<'scope, T: Time>(
    rows: VecCollection<'scope, T, (Row, Row), isize>,
    decoder: Decoder,
    schema: &SchemaRef,
    context: &Rc<Context>,
) -> ChunkStream<'scope, T> {
    let schema = nullable(schema);
    chunked(rows.inner, "MatchingChunks", context, move |epoch, rows| {
        let keys = rows.iter().map(|((key, _), _)| key.bytes());
        let values = rows.iter().map(|((_, value), _)| value.bytes());
        let columns = decoder.columns(keys, values)?;
        let diffs: Arc<[i64]> = rows.iter().map(|(_, diff)| *diff).collect();
        extended(epoch, columns, diffs, &schema)
    })
}

/// A chunk of these columns, and of nulls for the other columns of `schema`.
///
/// # Errors
/// `Bug` when the columns are not the first ones of `schema`.
pub(crate) fn extended<T: Time>(
    epoch: T,
    mut columns: Vec<arrow::array::ArrayRef>,
    diffs: Arc<[i64]>,
    schema: &SchemaRef,
) -> Result<Chunk<T>> {
    let count = diffs.len();
    let missing = schema.fields().iter().skip(columns.len());
    let missing: Vec<_> = missing
        .map(|field| new_null_array(field.data_type(), count))
        .collect();
    columns.extend(missing);
    let batch = batch(schema, columns, count)?;
    Ok(Chunk {
        epoch,
        batch,
        diffs,
    })
}
