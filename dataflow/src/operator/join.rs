//! Inner equi-joins: both sides are arranged by their keys, and each new batch of one side is
//! paired with the trace of the other side ([`crate::operator::join::tactic`]).
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

pub(crate) mod tactic;

use std::rc::Rc;

use arrow::datatypes::SchemaRef;
use differential_dataflow::operators::join::join_with_tactic;
use tactic::{Nested, Pair, Pairs};
use tidemill_ir::Scalar;
use tidemill_ir::row::{batch, nullable};
use tidemill_log::Result;
use timely::container::CapacityContainerBuilder;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::Operator;

use super::arrange::{Decoder, Layout, NullKeys, arrange_values};
use crate::chunk::{Chunk, ChunkStream};
use crate::context::Context;
use crate::context::site::Site;

/// One of the two inputs of a join.
pub(crate) struct Side<'scope> {
    /// The rows.
    pub(crate) rows: ChunkStream<'scope>,
    /// The schema of the rows.
    pub(crate) schema: SchemaRef,
    /// Where the arrangement's state is kept; `None` if it is computed from other state.
    pub(crate) site: Option<Site>,
}

/// Renders a join on pairs of key expressions. If `nulls_equal`, null equals null. `schema` has the
/// columns of the left side, then those of the right side.
///
/// # Errors
/// `Bug` when a key has no type over its side, or a type that cannot be encoded.
pub(crate) fn join<'scope>(
    left: Side<'scope>,
    right: Side<'scope>,
    context: &Rc<Context>,
    (keys, nulls_equal): (&[(Scalar, Scalar)], bool),
    schema: &SchemaRef,
) -> Result<ChunkStream<'scope>> {
    let nulls = match nulls_equal {
        true => NullKeys::Kept,
        false => NullKeys::Dropped,
    };
    let arranged = |side: Side<'scope>, keys: &[Scalar], name| {
        let layout = Layout::new(&side.schema, keys, &[])?;
        let updates = layout.updates(side.rows, context, nulls)?;
        let arranged = arrange_values(updates, name, context, side.site.as_ref());
        Result::Ok((arranged, layout.decoder()?))
    };
    let (left_keys, right_keys): (Vec<_>, Vec<_>) = keys.iter().cloned().unzip();
    let (left, left_decoder) = arranged(left, &left_keys, "ArrangeJoinLeft")?;
    let (right, right_decoder) = arranged(right, &right_keys, "ArrangeJoinRight")?;
    let pairs = join_with_tactic(left, right, "Join", Nested);
    let joined = Joined {
        left: left_decoder,
        right: right_decoder,
        schema: nullable(schema),
    };
    let context = Rc::clone(context);
    Ok(
        pairs.unary::<CapacityContainerBuilder<Vec<Chunk>>, _, _, _>(
            Pipeline,
            "JoinedChunks",
            move |_, _| {
                move |input, output| {
                    input.for_each(|cap, pairs: &mut Pairs| {
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
        ),
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
    /// The joined rows of pairs of one epoch.
    fn chunk(&self, pairs: &[Pair<'_>]) -> Result<Chunk> {
        let keys = || pairs.iter().map(|pair| pair.key);
        let mut columns = self
            .left
            .columns(keys(), pairs.iter().map(|pair| pair.left))?;
        columns.extend(
            self.right
                .columns(keys(), pairs.iter().map(|pair| pair.right))?,
        );
        Ok(Chunk {
            epoch: pairs.first().map_or(0, |pair| pair.epoch),
            batch: batch(&self.schema, columns, pairs.len())?,
            diffs: pairs.iter().map(|pair| pair.diff as i64).collect(),
        })
    }
}
