//! Joins: both sides are arranged by their keys, and each new batch of one side is paired with the
//! trace of the other side ([`crate::operator::join::tactic`]).
//!
//! ```text
//! left  ─► arrange by key ─► new batch ──┐ pairs with everything of the other trace
//!                                        ├─► Pairs ─► JoinedChunks ─► Arrow batches
//! right ─► arrange by key ─► new batch ──┘ that came before it
//! ```
//!
//! Frontier contract: a pair is at the later of the epochs of its two rows, under the capability of
//! the batch that brought the later row. The capability is held until all pairs of the batch are
//! given. Each arrangement is compacted to the frontier of the other side.
//!
//! A semi or anti join keeps the left rows that have a partner, or have none
//! ([`crate::operator::join::matching`]). A left join gives the pairs of the inner join, and the
//! rows of the anti join with nulls. With conditions beside the keys, a left row has a partner if
//! one of its pairs passes them ([`crate::operator::join::conditional`]).

pub(crate) mod conditional;
pub(crate) mod matching;
pub(crate) mod tactic;

use std::rc::Rc;

use arrow::datatypes::SchemaRef;
use differential_dataflow::operators::arrange::Arranged;
use differential_dataflow::operators::join::join_with_tactic;
use tactic::{Nested, Pair, Pairs};
use tidemill_ir::row::{batch, nullable};
use tidemill_ir::{Epoch, JoinKey, JoinKind, Scalar};
use tidemill_log::Result;
use timely::container::CapacityContainerBuilder;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::{Concat, Operator};

use super::arrange::{Arranges, Decoder, Layout, NullKeys, Values};
use crate::chunk::time::Time;
use crate::chunk::{Chunk, ChunkStream};
use crate::context::site::Site;
use crate::context::{Context, Sites};

/// One of the two inputs of a join.
pub(crate) struct Side<'scope, T: Time = Epoch> {
    /// The rows.
    pub(crate) rows: ChunkStream<'scope, T>,
    /// The schema of the rows.
    pub(crate) schema: SchemaRef,
    /// Where the arrangement's state is kept; `None` if it is computed from other state.
    pub(crate) site: Option<Site>,
}

/// What a join compares.
pub(crate) struct On<'a> {
    /// Which rows the join gives.
    pub(crate) kind: JoinKind,
    /// The equalities.
    pub(crate) keys: &'a [JoinKey],
    /// Other conditions on a pair of rows; none for an inner join.
    pub(crate) conditions: &'a [Scalar],
}

impl On<'_> {
    /// The layout of one side: the rows by their keys.
    fn layout(&self, side: &SchemaRef, key: impl Fn(&JoinKey) -> &Scalar) -> Result<Layout> {
        let keys: Vec<Scalar> = self.keys.iter().map(|it| key(it).clone()).collect();
        Layout::new(side, &keys, &[])
    }

    /// The rows that can meet no other row, because a key is null, are left out.
    fn without_nulls(&self) -> NullKeys {
        let keys = self.keys.iter().enumerate();
        let unequal = keys.filter(|(_, key)| !key.nulls_equal);
        NullKeys::Dropped(unequal.map(|(index, _)| index).collect())
    }
}

/// Renders a join. `schema` has the columns of the left side, then those of the right side; for a
/// semi or anti join, those of the left side alone. `more` are the sites of the view, for a left
/// side that is not computed from other state.
///
/// # Errors
/// `Bug` when a key has no type over its side, or a type that cannot be encoded.
pub(crate) fn join<'scope, T: Arranges>(
    left: Side<'scope, T>,
    right: Side<'scope, T>,
    context: &Rc<Context>,
    on: &On<'_>,
    schema: &SchemaRef,
    more: Option<&Sites>,
) -> Result<ChunkStream<'scope, T>> {
    let nulls = match on.kind {
        JoinKind::Left | JoinKind::Anti => NullKeys::Kept,
        JoinKind::Inner | JoinKind::Semi => on.without_nulls(),
    };
    if on.kind != JoinKind::Inner && !on.conditions.is_empty() {
        return conditional::join(left, right, context, on, schema, more);
    }
    let left_layout = on.layout(&left.schema, |key| &key.left)?;
    let right_layout = on.layout(&right.schema, |key| &key.right)?;
    let updates = left_layout.updates(left.rows, context, nulls)?;
    let rows = T::arrange_values(updates, "ArrangeJoinLeft", context, left.site.as_ref());
    let right_site = right.site.as_ref();
    let right_updates = right_layout.updates(right.rows, context, on.without_nulls())?;
    if matches!(on.kind, JoinKind::Semi | JoinKind::Anti) {
        let keys = matching::keys(right_updates);
        let keys = matching::once(keys, "ArrangeMatchingKeys", context, right_site);
        let kept = matching::kept(&rows, keys, on.kind == JoinKind::Anti);
        return Ok(matching::chunks(
            kept,
            left_layout.decoder()?,
            schema,
            context,
        ));
    }
    let other = T::arrange_values(right_updates, "ArrangeJoinRight", context, right_site);
    let joined = Joined {
        left: left_layout.decoder()?,
        right: right_layout.decoder()?,
        schema: nullable(schema),
    };
    let pairs = pairs(rows.clone(), other.clone(), joined, context);
    if on.kind == JoinKind::Inner {
        return Ok(pairs);
    }
    let keys = other.as_collection(|key, _| (key.clone(), ())).inner;
    let keys = matching::once(keys, "ArrangeMatchingKeys", context, None);
    let alone = matching::kept(&rows, keys, true);
    let alone = matching::chunks(alone, left_layout.decoder()?, schema, context);
    Ok(pairs.concat(alone))
}

/// The pairs of rows with equal keys, as chunks.
fn pairs<'scope, T: Time>(
    left: Arranged<'scope, Values<T>>,
    right: Arranged<'scope, Values<T>>,
    joined: Joined,
    context: &Rc<Context>,
) -> ChunkStream<'scope, T> {
    let pairs = join_with_tactic(left, right, "Join", Nested);
    let context = Rc::clone(context);
    pairs.unary::<CapacityContainerBuilder<Vec<Chunk<T>>>, _, _, _>(
        Pipeline,
        "JoinedChunks",
        move |_, _| {
            move |input, output| {
                input.for_each(|cap, pairs: &mut Pairs<T>| {
                    let mut session = output.session(&cap);
                    let pairs = std::mem::take(pairs);
                    for pairs in pairs.by_epoch().chunk_by(|a, b| a.epoch == b.epoch) {
                        match joined.chunk(pairs) {
                            Ok(chunk) => session.give(chunk),
                            Err(error) => context.fail(error),
                        }
                    }
                });
            }
        },
    )
}

/// Turns pairs back to columns.
struct Joined {
    /// Decodes the rows of the left side.
    left: Decoder,
    /// Decodes the rows of the right side.
    right: Decoder,
    /// The columns of the left side, then those of the right side.
    schema: SchemaRef,
}

impl Joined {
    /// The joined rows of pairs of one time.
    fn chunk<T: Time>(&self, pairs: &[Pair<'_, T>]) -> Result<Chunk<T>> {
        let keys = || pairs.iter().map(|pair| pair.key);
        let mut columns = self
            .left
            .columns(keys(), pairs.iter().map(|pair| pair.left))?;
        columns.extend(
            self.right
                .columns(keys(), pairs.iter().map(|pair| pair.right))?,
        );
        Ok(Chunk {
            epoch: pairs.first().map_or_else(T::minimum, |pair| pair.epoch),
            batch: batch(&self.schema, columns, pairs.len())?,
            diffs: pairs.iter().map(|pair| pair.diff as i64).collect(),
        })
    }
}
