//! Left, semi and anti joins with conditions beside their keys.
//!
//! The pairs of the inner join pass the conditions first. A left row that is in one of the pairs
//! that are left has a partner. Because left rows may be equal, the partners are found by the whole
//! row, and each row keeps its count.
//!
//! ```text
//! inner join ─► conditions ─┬─► left columns ─► distinct ─► arrange ─┐
//!                           │   left rows ─► arrange by all columns ─┴─► rows with, without one
//!                           └─► pairs (left join only)
//! ```

use std::rc::Rc;
use std::sync::Arc;

use arrow::datatypes::{Schema, SchemaRef};
use differential_dataflow::VecCollection;
use tidemill_ir::JoinKind;
use tidemill_ir::row::{Row, RowCodec, nullable};
use tidemill_log::Result;
use timely::dataflow::operators::Concat;

use super::{Joined, On, Side, matching, pairs};
use crate::chunk::ChunkStream;
use crate::context::{Context, Sites};
use crate::operator::arrange::Arranges;
use crate::operator::compute::chunks::chunks;
use crate::operator::compute::{column, compute};
use crate::operator::distinct::encoded;
use crate::time::Time;

/// Renders a join other than an inner one, with conditions. The arguments are those of
/// [`super::join`].
///
/// # Errors
/// As [`super::join`].
pub(crate) fn join<'scope, T: Arranges>(
    left: Side<'scope, T>,
    right: Side<'scope, T>,
    context: &Rc<Context>,
    on: &On<'_>,
    schema: &SchemaRef,
    more: Option<&Sites>,
) -> Result<ChunkStream<'scope, T>> {
    let rows = left.rows.clone();
    let of_left = Arc::clone(&left.schema);
    let met = met(left, right, context, on)?;
    let columns = (0..of_left.fields().len()).map(|index| column(&of_left, index));
    let partners = compute(
        met.clone(),
        context,
        Vec::new(),
        columns.collect(),
        Arc::clone(&of_left),
    );
    let partners = encoded(partners, context, &of_left)?;
    let partners = matching::once(partners, "ArrangePartners", context, None);
    let all = encoded(rows, context, &of_left)?;
    let site = more.map(|sites| sites.site(None));
    let all = T::arrange_keys(all, "ArrangeJoinRows", context, site.as_ref());
    let with = all
        .clone()
        .join_core(partners, |row: &Row, (), ()| Some(row.clone()));
    let rows = match on.kind {
        JoinKind::Semi => with,
        _ => {
            let all = all.as_collection(|row, ()| row.clone());
            all.concat(with.negate())
        }
    };
    let rows = whole(rows, &of_left, schema, context)?;
    Ok(match on.kind {
        JoinKind::Left => met.concat(rows),
        _ => rows,
    })
}

/// The pairs of the inner join that pass the conditions: the left columns, then the right columns.
fn met<'scope, T: Arranges>(
    left: Side<'scope, T>,
    right: Side<'scope, T>,
    context: &Rc<Context>,
    on: &On<'_>,
) -> Result<ChunkStream<'scope, T>> {
    let fields = left.schema.fields().iter().chain(right.schema.fields());
    let fields = fields.enumerate();
    let both = fields.map(|(index, field)| field.as_ref().clone().with_name(index.to_string()));
    let both: SchemaRef = nullable(&Arc::new(Schema::new(both.collect::<Vec<_>>())));
    let left_layout = on.layout(&left.schema, |key| &key.left)?;
    let right_layout = on.layout(&right.schema, |key| &key.right)?;
    let one = left_layout.updates(left.rows, context, on.without_nulls())?;
    let one = T::arrange_values(one, "ArrangeJoinLeft", context, left.site.as_ref());
    let other = right_layout.updates(right.rows, context, on.without_nulls())?;
    let other = T::arrange_values(other, "ArrangeJoinRight", context, right.site.as_ref());
    let joined = Joined {
        left: left_layout.decoder()?,
        right: right_layout.decoder()?,
        schema: Arc::clone(&both),
    };
    let columns = (0..both.fields().len()).map(|index| column(&both, index));
    Ok(compute(
        pairs(one, other, joined, context),
        context,
        on.conditions.to_vec(),
        columns.collect(),
        Arc::clone(&both),
    ))
}

/// Turns whole rows back to chunks, with nulls for the columns that they do not have.
fn whole<'scope, T: Time>(
    rows: VecCollection<'scope, T, Row, isize>,
    of_rows: &SchemaRef,
    schema: &SchemaRef,
    context: &Rc<Context>,
) -> Result<ChunkStream<'scope, T>> {
    let codec = RowCodec::new(Arc::clone(of_rows))?;
    let schema = nullable(schema);
    Ok(chunks(
        rows.inner,
        "MatchingRows",
        context,
        move |epoch, rows| {
            let decoded = codec.decode(rows.iter().map(|(row, _)| row))?;
            let diffs = rows.iter().map(|(_, diff)| *diff).collect();
            matching::extended(epoch, decoded.columns().to_vec(), diffs, &schema)
        },
    ))
}
