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
//!
//! A pair whose condition cannot be evaluated is a dead letter, and whether its left row has a
//! partner is unknown. Therefore this row is never given as one without a partner: neither with
//! nulls by a left join, nor by an anti join.

use std::rc::Rc;
use std::sync::Arc;

use arrow::datatypes::{Schema, SchemaRef};
use differential_dataflow::VecCollection;
use tidemill_ir::JoinKind;
use tidemill_ir::row::{Row, RowCodec, nullable};
use tidemill_log::Result;
use timely::dataflow::StreamVec;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::vec::Map;
use timely::dataflow::operators::{Concat, Operator};

use super::{Joined, On, Side, matching, pairs};
use crate::chunk::time::Time;
use crate::chunk::{Chunk, ChunkStream};
use crate::context::{Context, Sites};
use crate::operator::arrange::Arranges;
use crate::operator::compute::chunks::chunks;
use crate::operator::compute::{Outcome, Stage, column, compute};
use crate::operator::distinct::encoded;

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
    let tested = tested(left, right, context, on)?;
    let met = tested.clone().flat_map(passing);
    let meeting = match on.kind {
        JoinKind::Semi => met.clone(),
        _ => tested.map(|(chunk, _)| chunk),
    };
    let columns = (0..of_left.fields().len()).map(|index| column(&of_left, index));
    let partners = compute(
        meeting,
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

/// Pairs with what became of their conditions. Those that do not pass are not among them.
type Tested<'scope, T> = StreamVec<'scope, T, (Chunk<T>, Outcome)>;

/// The pairs that pass the conditions.
fn passing<T>((chunk, outcome): (Chunk<T>, Outcome)) -> Option<Chunk<T>> {
    (outcome == Outcome::Computed).then_some(chunk)
}

/// The pairs of the inner join, with what became of their conditions: the left columns, then the
/// right columns.
fn tested<'scope, T: Arranges>(
    left: Side<'scope, T>,
    right: Side<'scope, T>,
    context: &Rc<Context>,
    on: &On<'_>,
) -> Result<Tested<'scope, T>> {
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
    let stage = Stage {
        view: context.view(),
        filters: on.conditions.to_vec(),
        outputs: columns.collect(),
        schema: Arc::clone(&both),
    };
    let pairs = pairs(one, other, joined, context);
    let context = Rc::clone(context);
    Ok(pairs.unary(Pipeline, "JoinConditions", move |_, _| {
        move |input, output| {
            input.for_each(|cap, chunks: &mut Vec<Chunk<T>>| {
                let mut session = output.session(&cap);
                for chunk in chunks.drain(..) {
                    stage.each_or(&chunk, &context, &mut |chunk, outcome| {
                        if !chunk.diffs.is_empty() {
                            session.give((chunk, outcome));
                        }
                    });
                }
            });
        }
    }))
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
